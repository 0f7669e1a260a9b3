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
//!
//! It may listen to what happens ([`ShardEvent`]): who leads, who is a member, what ails the disk.
//!
//! ```no_run
//! # use ringraft::{NoEvent, Server, ShardEvent};
//! # use std::time::Duration;
//! # let config = ringraft::config::Config::load("a.toml".as_ref())?;
//! let mut server = Server::new(config);
//! let events = server.events(1_024);
//! std::thread::spawn(move || {
//!     loop {
//!         match events.next(Duration::from_secs(1)) {
//!             Ok(told) => match told.event {
//!                 ShardEvent::BecameLeader { group, term, .. } => println!("{group}: {term}"),
//!                 ShardEvent::SteppedDown { group, .. } => println!("{group}: not any more"),
//!                 _ => {}
//!             },
//!             Err(NoEvent::Yet) => println!("{} were missed so far", events.missed()),
//!             Err(NoEvent::Over) => break,
//!         }
//!     }
//! });
//! server.run()?;
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
mod events;
pub mod feed;
pub mod numbers;
pub mod parcel;
#[allow(unsafe_code)]
pub mod reactor;
pub mod recover;
pub mod seats;
mod server;
pub mod wires;

pub use events::{Events, NoEvent, NodeEvent};
pub use ringraft_shard::machine::{
    Applied, ApplyError, CommandKind, Fetched, KvMachine, LoadError, StateMachine, StrandPieces,
};
pub use ringraft_shard::{Halt, ShardEvent, TransferReason};
pub use server::Server;
