//! Names of things. Every id is a newtype: a bare integer never says what it counts.
//!
//! Ids of 128 bits are drawn by the proposer of a command (architecture, decision 5), never reused, and travel as 16 bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A byte string or text that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {found}")]
pub struct BadId {
    /// The wanted kind of id, for example `account id`.
    pub kind: &'static str,
    /// What was found instead, shortened.
    pub found: String,
}

macro_rules! bytes_id {
    ($(#[$meta:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The bytes, in the order in which they are stored and sent.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The bytes as a protobuf field holds them.
            pub fn to_vec(&self) -> Vec<u8> {
                self.0.to_vec()
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = BadId;
            fn try_from(bytes: &[u8]) -> Result<Self, BadId> {
                <[u8; $len]>::try_from(bytes)
                    .map($name)
                    .map_err(|_| BadId { kind: $kind, found: format!("{} bytes", bytes.len()) })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { kind: $kind, found: text.chars().take(80).collect() };
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(bad());
                }
                let mut bytes = [0u8; $len];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
                }
                Ok($name(bytes))
            }
        }
    };
}

bytes_id!(
    /// A person's or a function's whole store. Never an address, never reused.
    AccountId, 16, "account id"
);
bytes_id!(
    /// A mailbox (RFC 9051 2.3, RFC 8621 2), the `MAILBOXID` of RFC 8474.
    MailboxId, 16, "mailbox id"
);
bytes_id!(
    /// The `EMAILID` of RFC 8474: the same message in two mailboxes has one.
    EmailId, 16, "email id"
);
bytes_id!(
    /// The `THREADID` of RFC 8474.
    ThreadId, 16, "thread id"
);
bytes_id!(
    /// Names one mutation. The same op id sent again gets the first answer again (architecture, decision 6).
    OpId, 16, "op id"
);
bytes_id!(
    /// BLAKE3 of the bytes of a body. Names it within its shard, never grants access to it.
    BodyHash, 32, "body hash"
);
bytes_id!(
    /// A cluster. Drawn when it is made; a node refuses to speak with another cluster's.
    ClusterId, 16, "cluster id"
);

impl OpId {
    /// The op id of the `piece`-th command of an operation that was split into several; piece 0 is the operation itself.
    pub fn piece(&self, piece: u32) -> OpId {
        if piece == 0 {
            return *self;
        }
        let mut bytes = self.0;
        // 32-bit FNV-1a over (piece) spread by multiplication: distinct pieces of one random id never collide.
        let mixed = u64::from(piece).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        for (byte, mix) in bytes.iter_mut().zip(mixed) {
            *byte ^= mix;
        }
        OpId(bytes)
    }
}

macro_rules! number_id {
    ($(#[$meta:meta])* $name:ident, $int:ty) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

number_id!(
    /// Unique identifier of a message in its mailbox (RFC 9051 2.3.1.1): from 1, rising, never reused.
    Uid, u32
);
number_id!(
    /// RFC 9051 2.3.1.1. Fixed for the life of a mailbox.
    UidValidity, u32
);
number_id!(
    /// Modification sequence (RFC 7162 3.1): one counter per account, from 1, 63 bits.
    ModSeq, u64
);
number_id!(
    /// One Raft group and the accounts that it owns. 0 is the directory.
    ShardId, u32
);
number_id!(
    /// One `malled` with its disk. A node that lost its disk comes back under a new id.
    NodeId, u64
);

impl ShardId {
    /// The group of the directory: nodes, shards, accounts, addresses, placements.
    pub const DIRECTORY: ShardId = ShardId(0);
}
