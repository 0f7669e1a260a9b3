//! The leaf that every crate may name: numbers with a type, limits, and the layouts that disk,
//! wire and machine share.
//!
//! Nothing here opens a file, reads a clock or decides anything.
#![forbid(unsafe_code)]

pub mod bytes;
pub mod command;
pub mod configuration;
pub mod ids;
pub mod level;
pub mod limits;
pub mod memory;
pub mod placement;
#[cfg(ringraft_plant)]
pub mod plant;
pub mod record;
pub mod reply;
pub mod start;
pub mod status;
pub mod strands;
pub mod tag;

pub use configuration::{Addresses, Configuration, ConfigurationError, Member, Phase, Words};
pub use ids::{
    ClientId, ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Revision, Sequence, ShardId,
    Term, Ticks,
};
pub use level::Level;
pub use memory::MemoryLevel;
pub use start::{Lacked, Met, Start, Starts};
pub use status::Status;
pub use strands::{STRANDS, StrandBytes};
