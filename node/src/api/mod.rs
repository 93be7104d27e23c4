//! The gRPC services for front ends and operators: thin. A call is permitted, converted, handed to a group, and its answer converted
//! back.
//!
//! `error` is the only maker of a tonic status, `convert` the only place where wire types become the machine's. What this room must
//! never do: decide what a command means, keep state of its own beyond a stream, or answer before the group has.

mod app_passwords;
mod cluster;
mod convert;
mod directory;
pub mod error;
mod growth;
mod guests;
mod intake;
mod login;
mod mail;
mod outlines;
mod reads;
mod room;
mod sessions;
mod sharing;
mod standing;
mod stream;
mod tally;
#[cfg(test)]
mod tests;
mod watch;
mod writes;

pub use cluster::{ClusterApi, NodeFacts, Upkeep};
pub use directory::DirectoryApi;
pub use mail::MailApi;
pub use sessions::SessionsApi;
pub use tally::MailCounts;
