//! One core's worth of groups: turn, gates, mesh, apply, sessions, machines, limits.
//!
//! A shard is a plain synchronous object. It reaches the world through two doors only:
//! [`ringraft_wal::device::Device`] and [`links::Links`]. Nothing here reads a clock, opens a file or a
//! socket, or starts a thread; `ring.rs` and `mesh.rs` are how the shards of one node reach each
//! other.
#![deny(unsafe_code)]

pub mod admission;
mod apply;
mod barriers;
mod bulk_frames;
mod cache;
mod client_frames;
pub mod error;
pub mod event;
mod gate;
mod group;
mod heartbeat;
mod hibernation;
mod homes;
mod leading;
pub mod limits;
pub mod links;
pub mod machine;
mod member_frames;
mod members;
pub mod memory;
pub mod mesh;
pub mod metrics;
pub mod node_record;
mod notice;
mod peer_frames;
pub mod placement;
mod repair;
pub mod ring;
pub mod router;
pub mod salvage;
pub mod scrub;
pub mod session;
pub mod shard;
mod share;
pub mod snapshots;
mod spread;
mod stages;
mod start;
mod states;
mod sweep;
mod turn;
mod watch;

pub use admission::{Greeting, PeerAdmission};
pub use error::{FrameRefusal, ShardError};
pub use event::{Event, ShardEvent, Wake};
pub use group::Halt;
pub use leading::TransferReason;
pub use links::{ConnectionId, Links};
pub use members::{MemberChange, Members};
pub use scrub::ScrubRules;
pub use shard::{Member, Shard, ShardSettings};
pub use snapshots::{GroupSnapshots, KeptSnapshot, SnapshotAsked, SnapshotEnd};
pub use snapshots::{
    InstallFailure, InstallProgress, LoadStep, Loaded, Loading, SnapshotReason, SnapshotRules,
};
pub use spread::LeadRules;
