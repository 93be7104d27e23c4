//! What a follower has heard its leader call committed, before its own log is there.
//!
//! An entry whose small bodies this node has no room for must not be acknowledged: the acknowledgement says that the bodies are durable
//! here. Once the leader calls the entry committed, others have said so, and this node's word decides nothing any more: it takes the entry
//! as one that lags does, and misses the bodies. What a leader said counts for that leader alone: only in its log is the entry with this
//! index the committed one.

use std::time::Duration;

use tokio::sync::watch;

use crate::log::types::Vote;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HeardCommitted {
    heard: watch::Sender<Option<(Vote, u64)>>,
}

impl HeardCommitted {
    /// The leader with this vote says that its log is committed up to `index`.
    pub fn note(&self, vote: &Vote, index: u64) {
        self.heard.send_if_modified(|heard| {
            let known = heard.as_ref().filter(|(by, _)| by == vote);
            let newer = match (known, heard.as_ref()) {
                (Some((_, before)), _) => index > *before,
                // A frame of a leader that is none any more may come late.
                (None, Some((by, _))) => vote > by,
                (None, None) => true,
            };
            if newer {
                *heard = Some((*vote, index));
            }
            newer
        });
    }

    /// Whether this leader calls `index` committed, or does within `patience`.
    pub async fn reaches(&self, vote: &Vote, index: u64, patience: Duration) -> bool {
        let mut heard = self.heard.subscribe();
        let said = heard.wait_for(|heard| heard.as_ref().is_some_and(|(by, upto)| by == vote && *upto >= index));
        matches!(malle_rt::timeout(patience, said).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(term: u64, node: u64) -> Vote {
        Vote::new_committed(term, node)
    }

    async fn reaches(heard: &HeardCommitted, vote: &Vote, index: u64) -> bool {
        heard.reaches(vote, index, Duration::ZERO).await
    }

    #[tokio::test]
    async fn what_one_leader_called_committed_says_nothing_of_another_leaders_log() {
        let heard = HeardCommitted::default();
        let (old, new) = (leader(3, 1), leader(4, 2));
        assert!(!reaches(&heard, &old, 1).await);
        heard.note(&old, 10);
        assert!(reaches(&heard, &old, 10).await && !reaches(&heard, &old, 11).await);
        assert!(!reaches(&heard, &new, 1).await);
        heard.note(&new, 5);
        assert!(reaches(&heard, &new, 5).await && !reaches(&heard, &old, 1).await);
        heard.note(&old, 100);
        assert!(!reaches(&heard, &old, 1).await, "a late frame");
        heard.note(&new, 4);
        assert!(reaches(&heard, &new, 5).await, "it never falls");
    }
}
