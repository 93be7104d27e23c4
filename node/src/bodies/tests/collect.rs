//! Collection against everything that can happen meanwhile: three nodes with a shard whose log is one list.

mod model;
mod races;
mod reclaim;
mod world;
