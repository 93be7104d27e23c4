//! Do the shipped binaries work through the shipped doors? Each test has a cluster of its own; a name is a claim.
//!
//! [`delivery`]: what a `250` promises. [`failover`]: what is left when nodes die. [`power`]: what is left when their disks lose what was
//! not synced, [`filling`]: and when they are full. [`access`]: who may not read. [`clients`]: programs that others wrote. [`operation`]: what operators see and do.

mod access;
mod clients;
mod delivery;
mod failover;
mod filling;
mod operation;
mod power;
