//! The machine of the directory: nodes, shards, accounts, addresses, password hashes, token keys.
//!
//! [`apply`] is the only way its rows change; [`read`] is how they are looked at. Inside:
//!
//! * `rows`: every kind of row, its key and its record, and nothing about what they mean together.
//! * `cluster`: nodes, shards and token keys. `accounts`: accounts and their addresses. `receipts`: repeats.
//! * `app_passwords`: passwords of single programs, beside the account's own.
//! * `sharing`: which accounts have granted something to another one.
//! * `former`: addresses that were taken from an account and rest.
//! * `layout`: what operators want of the nodes, staged and applied. `standing`: what is done with a node. `tasks`: moves of replicas.
//! * `address`: the normal form of an address, the only text that the machine takes a position on.
//!
//! What must hold between the rows, after every command:
//!
//! * an address row and the account's own row of that address come and go together; every account has exactly one primary address;
//! * a shard's counter is the number of its accounts, a domain's counter the number of its addresses;
//! * an address that was removed goes to no other account before it has rested;
//! * a shard has at most one task that is not over; versions of the layout and numbers of tasks never come twice;
//! * every account has one grant row, under the newest sequence number that its shard gave to it.
//!
//! A refused or repeated command writes nothing, not even the time. What is absent: verifying passwords and tokens (the node does
//! it, outside of the replicated state), and deleting accounts.

mod accounts;
mod address;
mod app_passwords;
mod apply;
mod cluster;
mod command;
mod former;
mod growth;
#[cfg(test)]
mod kept_records;
mod layout;
pub mod read;
mod receipts;
mod rows;
mod sharing;
mod standing;
mod tasks;
#[cfg(test)]
mod tests;

pub use apply::apply;
pub use command::{AccountState, AppScopes, Command, Node, Op, Outcome, Refusal, Shard, TokenKey};
pub use growth::{Applied, Layout, LayoutChange, NodeState, RoleChange, Staged, Standing, Task, TaskStep};
pub use layout::planner_input;
