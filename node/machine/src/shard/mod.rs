//! The machine of a shard: accounts, mailboxes, messages, quotas, receipts, bodies.
//!
//! [`apply`] is the only way its rows change; [`read`] is how they are looked at. docs/storage.md has the keys.

mod apply;
mod command;
pub mod read;

pub use apply::apply;
pub use command::{
    AccountGrant, BodyPut, Command, Copied, Expunged, Flags, FlagsStored, InternalDate, MailboxChange, MessageFlags,
    NewMail, Op, Outcome, Recipient, Refusal, SpecialUse, StoreMode, Stored, Summary, UidRange,
};
