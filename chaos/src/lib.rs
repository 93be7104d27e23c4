//! Attacks on the promises of `docs/consistency.md`: one scenario file, one history and one set of checkers for two engines.
//!
//! A run goes through the rooms in this order. [`scenario`] reads a file; [`plan`] turns it and a seed into a flat list of faults;
//! an [`engine`] starts a cluster, carries out the plan and lets [`workload::drive`] work on the cluster through a [`workload::Target`];
//! what clients, nodes and faults did is a [`history`]. [`check`] judges the history, [`figures`] measures it, [`report`] shows it,
//! [`mod@shrink`] makes a failing run smaller.
//!
//! Engines: `chaos-sim` (crate `chaos/sim`) runs the whole cluster in one thread, and a run is its seed; `proc` runs the shipped
//! binaries. What is absent: a model of malle. The checkers know promises, not how they are kept.

pub mod check;
pub mod engine;
pub mod figures;
pub mod history;
pub mod plan;
pub mod proc;
pub mod report;
pub mod scenario;
pub mod seed;
pub mod shrink;
pub mod states;
pub mod workload;
