//! The engine `proc`: the shipped binaries, each node with a network namespace and a disk of its own, attacked for real.
//!
//! [`probe`] says what the machine can do. [`net`] and [`wire`] are the lines, [`disk`] and [`shim`] what a node stores on and reads the time
//! from, [`squeeze`] what it has of the machine. Everything that is made is written down first and removed, also by the next
//! run when this one was killed ([`harness::made`]).

pub mod disk;
pub mod net;
pub mod probe;
pub mod shim;
pub mod squeeze;
pub mod wire;
