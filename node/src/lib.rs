//! The server, `malled`: rooms behind one door.
//!
//! A request comes in by [`api`], is authorized by [`security`], routed to a [`raft`] group, and answered from its [`state`].
//! docs/architecture.md has the map.

pub mod api;
pub mod bodies;
pub mod config;
pub mod controls;
pub mod env;
pub mod index;
pub mod log;
pub mod mime;
pub mod peers;
pub mod placement;
pub mod raft;
pub mod security;
pub mod server;
pub mod state;
pub mod telemetry;
