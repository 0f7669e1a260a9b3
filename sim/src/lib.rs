//! The deterministic simulator of whole clusters, and the checkers that judge what clients saw.
//!
//! - [`history`]: what clients asked and learned, in a stable format. The simulator records one in
//!   memory; the harness of real processes writes the same as lines of JSON.
//! - [`checker`]: whether a history, and what the nodes applied, keep the promises V8 and V9.
//!
//! Nothing here opens a socket or starts a node.
#![forbid(unsafe_code)]

mod audit;
mod base;
pub mod campaign;
pub mod checker;
mod client;
mod clock;
mod damage;
mod disk;
pub mod faults;
mod files;
pub mod history;
mod lane;
mod links;
mod net;
mod node;
pub mod options;
mod random;
pub mod run;
pub mod shrink;
mod trace;
mod witness;
mod workload;
pub mod world;
