//! What clients do, drawn from the seed, and how it is done to a cluster.
//!
//! [`drive`] lets N clients work on a [`Target`] until the run ends and writes every [`Call`] with its [`Outcome`] to the history. A
//! client draws an intent from its own stream of chance, picks messages that it has seen, makes the call, repeats it under the same op id
//! when no answer came, and remembers what the answer showed. It never looks at anything but answers, as a mail program would.
//!
//! [`OverClient`] is the target over the client crate, in both engines; `proc` has others for LMTP and IMAP.

mod body;
mod call;
mod drive;
mod intent;
mod memory;
mod over_client;
mod target;

pub use body::{BODY_MIN_BYTES, Body};
pub use call::{Answer, Call, Flags, FlagsMode, Freshness, MailboxRow, Outcome, Row, hex};
pub use drive::{Drive, drive};
pub use over_client::{OverClient, Seat, from_client, outcome};
pub use target::{Asked, Target};

/// Mailboxes that malle gives an account at its birth.
pub const BORN_WITH: [&str; 6] = ["Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"];

/// The mailbox names of each account of a scenario: INBOX, then `m1`, `m2` and so on. They are made before the load begins, and no client
/// renames or deletes them; what clients make and delete is named differently.
pub fn fixed_mailboxes(count: u32) -> Vec<String> {
    let others = (1..count).map(|number| format!("m{number}"));
    std::iter::once("INBOX".to_owned()).chain(others).collect()
}
