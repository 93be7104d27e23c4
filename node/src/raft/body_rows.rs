//! What the rows of the open groups say of bodies, for the scrub.
//!
//! The rows are looked at as they are here, without a barrier: a replica that is behind names fewer bodies, and those that it does not
//! name yet are fetched when it applies the entry that does.

use async_trait::async_trait;
use malle_machine::shard;
use malle_machine::view::{Fault, View};
use malle_proto::{BodyHash, ShardId};

use super::Groups;
use crate::bodies::BodyRows;

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
