//! Measurements of a node's storage: a node that is filled without a network, and what is done with it.
//!
//! * [`alone`]: a node without peers, opened as `malled` opens one, but with its rooms in hand.
//! * [`rows`]: the rows of a shard without a shard, for stores alone.
//! * [`fill`]: mail into its shards by the way that mail takes: body durable, then the command through raft.
//!
//! The programs are in `src/bin`. This crate is a workspace member and no part of what is shipped. What is absent: judgement. A
//! measurement prints figures; docs/decisions say what follows from them.

pub mod alone;
pub mod fill;
pub mod rows;
