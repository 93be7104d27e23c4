//! The only door into malle.
//!
//! ```no_run
//! # async fn example() -> Result<(), malle_client::Error> {
//! use malle_client::{Client, Config};
//! let client = Client::connect(Config::from_files(
//!     &["127.0.0.1:7420".to_owned()], "ca.pem", "gateway.pem", "gateway.key")?).await?;
//! let account = client.login("u1@example.org", "secret").await?;
//! for mailbox in account.mailboxes().await? {
//!     println!("{} {}", mailbox.name, mailbox.messages);
//! }
//! # Ok(()) }
//! ```
//!
//! A [`Client`] connects to any nodes, learns the others from the directory, sends each request to the leader of the right shard,
//! and repeats it with the same op id until the deadline. What is absent: SQL-like queries, sequence numbers (they belong to an IMAP
//! session), and any way around the login token.

mod addresses;
mod client;
mod cluster;
mod connection;
mod convert;
mod core;
mod deliver;
mod directory;
mod download;
mod error;
mod generations;
mod layout;
mod mail;
mod nodes;
mod op_id;
mod pieces;
mod reach;
mod retry;
mod route;
mod secure;
mod session;
mod sessions;
#[cfg(test)]
mod tests;
mod tls;
mod types;
mod watch;

pub use client::{Client, ClientTls, Config};
pub use cluster::{Cluster, CollectStatus, GroupStatus, InitPlan, NodeStatus, ScrubStatus};
pub use directory::{
    AccountChange, AccountRecord, AddressEvent, AddressRecord, AppPassword, Directory, NewAccount, Node, Shard,
    Topology, Who,
};
pub use error::{Class, Error};
pub use layout::{AppliedLayout, Layout, LayoutChange, LayoutNode, LayoutPlan, PlannedMove, RoleChange, Stand, Task};
pub use mail::Account;
pub use malle_proto::{
    AccountId, BodyHash, ClusterId, EmailId, MailboxId, ModSeq, NodeId, OpId, Rights, ShardId, ThreadId, Uid,
    UidValidity, limits,
};
pub use op_id::fresh_op_id;
pub use reach::{Reach, ReachError, Reached};
pub use sessions::{Attendance, GatewaySessions, LoginProof, MailSession, Sessions, SessionsQuestion, SessionsSeen};
pub use types::{
    AccountStatus, Annotation, Changes, Consistency, Copied, Envelope, Flags, FlagsStored, Granted, InnerMessage,
    MailAddress, Mailbox, Message, MessageFlags, NewMessage, Opened, Page, Parameter, Part, Recipient, Resolved,
    SpecialUse, StoreMode, Stored, Summary, UidRange, WatchEvent,
};
pub use watch::Watch;
