//! Whole clusters of real processes on loopback, and what an operator, a crash or a stopped machine
//! may do to them: nothing that was acknowledged is lost, nothing is done twice, nothing old is read.
//!
//! A test that fails keeps its directory and prints the nodes' logs and how to run it again. Waiting
//! is polling with a deadline that only tells a hang from a slow machine: nothing here judges time.

mod clients;
mod cluster;
mod file_systems;
mod groups;
mod histories;
mod identity;
mod install;
mod kill;
mod leaders;
mod leave;
mod load;
mod members;
mod network;
mod raw;
mod recorder;
mod recover;
mod refresh;
mod shards;
mod stale;
mod stop;
mod voters;
