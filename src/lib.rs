//! ringraft, a consensus appliance for Linux: thread-per-core, io_uring, many Raft groups.
//!
//! The command is [`cli`]. A program that wants the quorum inside itself, with a state machine of
//! its own, builds a [`Server`]:
//!
//! ```no_run
//! use ringraft::config::Config;
//! use ringraft::{KvMachine, Server};
//!
//! let config = Config::load("a.toml".as_ref())?;
//! Server::new(config).machine(|_group| Box::new(KvMachine::new())).run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

pub mod boot;
mod changes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod cores;
pub mod feed;
pub mod numbers;
pub mod parcel;
#[allow(unsafe_code)]
pub mod reactor;
pub mod recover;
pub mod seats;
mod server;
pub mod wires;

pub use ringraft_shard::machine::{
    Applied, ApplyError, CommandKind, Fetched, KvMachine, LoadError, StateMachine, StrandPieces,
};
pub use server::Server;
