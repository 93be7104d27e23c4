//! The server, `malled`: rooms behind one door.
//!
//! A request comes in by `api`, is authorized by `security`, routed to a raft group, and answered from its state. docs/architecture.md
//! has the map.

pub mod config;
pub mod env;
pub mod security;
