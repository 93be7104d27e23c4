//! Starts the shipped binaries and talks to them the way the world does: mail servers by LMTP, people by IMAP, operators by the client
//! crate.
//!
//! [`Cluster::start`] runs `malle demo` in a directory of its own: three `malled` in three regions and a gateway, real processes on free
//! ports. A test kills and restarts them, and asks what is left. [`Lmtp`] and [`Imap`] are small drivers that say exactly what a test
//! wants said; they share no code with the gateway, so a mistake there is not repeated here. [`mail`] has the mails.
//!
//! A cluster that ends in a failed test leaves its directory with the logs of every process; the directory's name is printed.
//! Everything that waits has a deadline and says at its end what it waited for.

mod binaries;
mod cluster;
mod gateway;
pub mod host;
mod imap;
mod lmtp;
pub mod made;
pub mod mail;
pub mod monitoring;
mod place;
mod ports;
mod postfix;
mod power;
pub mod unsynced;
mod wait;

pub use binaries::{binary, installed};
pub use cluster::{Cluster, Identity, PASSWORD, account, disagreement};
pub use imap::{Answer, Imap, Piece, Status};
pub use lmtp::{Lmtp, Reply};
pub use monitoring::Metrics;
pub use place::{Place, network_alone};
pub use ports::free_ports;
pub use postfix::{Postfix, Services, Smtp};
pub use power::{LoopDisk, liar};
pub use wait::{patiently, until, within};
