//! Do the shipped binaries work through the shipped doors? Each test has a cluster of its own; a name is a claim.
//!
//! [`delivery`]: what a `250` promises. [`failover`]: what is left when nodes die. [`power`]: what is left when their disks lose what was
//! not synced, [`filling`]: and when they are full. [`access`]: who may not read. [`clients`]: libraries and sessions of clients.
//! [`programs`]: mail programs that people use. [`postfix`]: a relay whose only directory is malle. [`dialogues`]: word for word, and what Dovecot says. [`operation`]: what operators see and do, [`growth`]: nodes join, leave
//! and die for good.

mod access;
mod clients;
mod damage;
mod delivery;
mod dialogues;
mod failover;
mod filling;
mod growth;
mod operation;
mod postfix;
mod power;
mod programs;
