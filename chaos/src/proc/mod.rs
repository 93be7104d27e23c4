//! The engine `proc`: the shipped binaries, each node with a network namespace and a disk of its own, attacked for real.
//!
//! [`probe`] says what the machine can do. [`net`] and [`wire`] are the lines, [`disk`] and [`shim`] what a node stores on and reads the time
//! from, [`squeeze`] what it has of the machine. [`world`] puts a cluster together of them; a [`run`] lets load, [`attack`] and [`observe`] loose
//! on it and reads back what is left. Everything that is made is written down first and removed, also by the next
//! run when this one was killed ([`harness::made`]).

pub mod attack;
pub mod disk;
pub mod finals;
pub mod net;
pub mod observe;
pub mod probe;
pub mod process;
mod run;
pub mod scrub;
pub mod shim;
pub mod squeeze;
pub mod via;
pub mod wire;
pub mod world;

pub use run::{Job, LYING_SYNC, Ran, needs, run};
