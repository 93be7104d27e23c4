//! What the rows of the open groups say of bodies, for the scrub and for collection; and the commands of collection.
//!
//! The rows are looked at as they are here, without a barrier: a replica that is behind names fewer bodies, and those that it does not
//! name yet are fetched when it applies the entry that does. Collection takes nothing else from them than whom to ask for: what may go
//! is said by its commands alone.

use std::time::Duration;

use async_trait::async_trait;
use malle_machine::shard;
use malle_machine::shard::read::BodyStanding;
use malle_machine::view::{Fault, View};
use malle_proto::{BodyHash, ShardId};

use super::Groups;
use crate::bodies::{BodiesError, BodyLog, BodyRows, IdlePage};

/// A command of collection takes at most this long; the next round repeats it.
const COMMAND: Duration = Duration::from_secs(5);

impl Groups {
    async fn look<T: Send + 'static>(
        &self,
        shard: ShardId,
        look: impl FnOnce(&dyn View) -> Result<T, Fault> + Send + 'static,
    ) -> Option<T> {
        let group = self.get(shard)?;
        match group.state().read(look).await {
            Ok(found) => Some(found),
            Err(fault) => {
                // The group is being rebuilt or closes; who watches over it says why.
                tracing::info!(%shard, %fault, "the rows do not say which bodies they name now");
                None
            }
        }
    }
}

#[async_trait]
impl BodyRows for Groups {
    fn shards(&self) -> Vec<ShardId> {
        let groups = self.all();
        let shards = groups.iter().map(|group| group.shard());
        shards.filter(|shard| *shard != ShardId::DIRECTORY).collect()
    }

    async fn named_behind(
        &self,
        shard: ShardId,
        after: Option<BodyHash>,
        most: usize,
    ) -> Option<(Vec<BodyHash>, Option<BodyHash>)> {
        self.look(shard, move |view| shard::read::bodies_behind(view, after, most))
            .await
    }

    async fn is_named(&self, shard: ShardId, hash: BodyHash) -> Option<bool> {
        self.look(shard, move |view| shard::read::body_is_named(view, hash))
            .await
    }
}

#[async_trait]
impl BodyLog for Groups {
    fn leads(&self, shard: ShardId) -> bool {
        self.get(shard).is_some_and(|group| group.is_leader())
    }

    async fn idle_behind(&self, shard: ShardId, after: Option<BodyHash>, most: usize) -> Option<IdlePage> {
        self.look(shard, move |view| {
            let (idle, next) = shard::read::idle_bodies_behind(view, after, most)?;
            let now_ms = shard::read::time_ms(view)?;
            Ok(IdlePage { now_ms, idle, next })
        })
        .await
    }

    async fn standings(&self, shard: ShardId, hashes: Vec<BodyHash>) -> Option<Vec<BodyStanding>> {
        self.look(shard, move |view| {
            let standings = hashes.iter().map(|hash| shard::read::body_standing(view, *hash));
            standings.collect()
        })
        .await
    }

    async fn propose(&self, shard: ShardId, step: shard::Op) -> Result<shard::Outcome, BodiesError> {
        let outcome = self.propose_collection(shard, step, malle_rt::now() + COMMAND).await;
        outcome.map_err(|error| BodiesError::Log(error.to_string()))
    }
}
