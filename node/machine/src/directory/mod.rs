//! The machine of the directory: nodes, shards, accounts, addresses, password hashes, token keys.
//!
//! [`apply`] is the only way its rows change; [`read`] is how they are looked at. docs/storage.md has the keys.

mod apply;
mod command;
pub mod read;

pub use apply::apply;
pub use command::{AccountState, Command, Node, Op, Outcome, Refusal, Shard, TokenKey};
