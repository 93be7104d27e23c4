//! The changes of one's own account and of all who share with it, as one watch.
//!
//! A MODSEQ is one account's: an event of another one carries the own account's, and names mailboxes or says that all are to be looked at.

use async_trait::async_trait;
use futures::future::select_all;
use malle_client::{Class, Error, ModSeq, WatchEvent};

use super::super::store::Watch;
use super::Everything;

struct Merged {
    /// First one's own.
    watches: Vec<Box<dyn Watch>>,
    /// Of the own account, as it was told last.
    modseq: ModSeq,
}

impl Everything {
    /// Who begins to share later is not heard of before the next watch.
    pub(super) async fn watch_all(&self) -> Result<Box<dyn Watch>, Error> {
        let mut watches = vec![self.own.watch(None).await?];
        for owner in self.owners_by_now().await? {
            match owner.account.watch(None).await {
                Ok(watch) => watches.push(watch),
                Err(Error::TokenExpired) => return Err(Error::TokenExpired),
                Err(error) => tracing::debug!(owner = %owner.id, %error, "shared mailboxes are not watched"),
            }
        }
        Ok(Box::new(Merged {
            watches,
            modseq: ModSeq(0),
        }))
    }
}

#[async_trait]
impl Watch for Merged {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            // Those that are dropped here lose nothing: each says so of itself.
            let (event, index, _) = select_all(self.watches.iter_mut().map(|watch| watch.next())).await;
            match event {
                Ok(event) if index == 0 => {
                    self.modseq = event.modseq;
                    return Ok(event);
                }
                // Where somebody else's account stands is nothing to tell.
                Ok(event) if event.mailboxes.is_empty() && !event.overflow => {}
                Ok(event) => {
                    let modseq = self.modseq;
                    return Ok(WatchEvent { modseq, ..event });
                }
                Err(error) if index == 0 || error == Error::TokenExpired => return Err(error),
                Err(error) if error.class() == Class::Retry => {}
                Err(_) => {
                    // Nothing of that account is shared any more.
                    drop(self.watches.remove(index));
                    return Ok(WatchEvent {
                        modseq: self.modseq,
                        mailboxes: Vec::new(),
                        overflow: true,
                        tree_changed: true,
                    });
                }
            }
        }
    }
}
