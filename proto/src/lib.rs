//! The words of malle: what travels between its processes, the ids that everything shares, and every bound.
//!
//! This crate does no IO and knows no other crate of ours; the arrows of the house end here.

pub mod channel;
pub mod ids;
pub mod limits;
pub mod rights;

/// Version 1 of the wire contract, generated from `proto/malle/v1/*.proto`.
pub mod v1 {
    #![allow(clippy::all, clippy::unwrap_used, missing_docs)]
    tonic::include_proto!("malle.v1");
}

pub use channel::Channel;
pub use ids::{
    AccountId, BadId, BodyHash, ClusterId, EmailId, MailboxId, ModSeq, NodeId, OpId, ShardId, ThreadId, Uid,
    UidValidity,
};
pub use rights::Rights;
