//! The machine of a shard: accounts, mailboxes, messages, quotas, receipts, bodies.
//!
//! [`apply`] is the only way its rows change; [`read`] is how they are looked at; [`audit`] recounts them. `keys` says where every row
//! lies and `rows` what it holds (docs/storage.md quotes both). An operation takes an account in hand (`edit`), works through the
//! primitives of `messages`, `bodies`, `threads` and `tree`, and leaves a receipt.
//!
//! To add an operation: a variant at the end of [`Op`], a file with its name, a line in `apply::perform`, a script that tells its story.

mod accounts;
mod annotations;
mod apply;
mod audit;
mod bodies;
mod command;
mod copy;
mod deliver;
mod edit;
mod expunge;
mod flags;
mod keys;
mod keywords;
mod mailboxes;
mod messages;
mod names;
pub mod read;
mod receipts;
mod rights;
mod rows;
pub mod sample;
mod sets;
mod sweep;
mod threads;
mod tree;

pub use apply::apply;
pub use audit::audit;
pub use command::{
    AccountGrant, Arriving, BodyPut, Command, Copied, Expunged, Flags, FlagsStored, InternalDate, MailboxChange,
    MessageFlags, NewMail, Op, Outcome, Recipient, Refusal, SpecialUse, StoreMode, Stored, Summary, UidRange,
};
