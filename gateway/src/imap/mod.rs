//! IMAP: one session per connection, over the client crate alone.
//!
//! Enter at [`serve`]. A session is a loop: [`connection`] reads one complete command with its literals, [`parse`] makes a
//! [`parse::Command`] of it, [`state`] says whether it may come now, [`command`] does it through [`store::Account`], and the answer
//! is written by [`respond`].
//!
//! What this room owns: the protocol, sequence numbers ([`view`]), the names on the wire ([`name`]), and where others' mailboxes are ([`shared`]). What it must never do: decide who may
//! read what (the shard does, by the login token), keep a mail longer than one command, answer OK before the store did, let one
//! client's input cost another one's session, or log a credential or a mail's content.
//!
//! Absent: \Recent is never set (RECENT is always 0, as RFC 9051 drops it).

mod access;
mod binary;
mod bodies;
mod command;
mod connection;
mod date;
mod deflate;
mod gate;
mod name;
mod order;
mod parse;
mod respond;
mod roster;
mod sasl;
mod search;
mod section;
mod session;
mod shared;
mod state;
mod store;
mod structure;
mod text;
mod thread;
mod view;

#[cfg(test)]
mod tests;

pub use access::{BodyMemory, Context, Ended, SessionSettings};
pub use connection::BoxedIo;
pub use gate::{Gate, GateBounds};
pub use roster::{Ending, Roster};
pub use session::serve;
pub use store::ClientStore;
