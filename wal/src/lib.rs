//! The write-ahead log: one per shard, shared by its groups.
//!
//! Records of many groups are packed into aligned blocks ([`mod@format`] has every byte), a block is
//! one write, and one sync commits them all. A gate waits for the block's sequence to be durable,
//! which means: it and every block before it. [`Recovery`] reads what is on the disk and tells rot
//! from a torn tail; it drops only what nobody was told of, and reports everything else (I-11).
//!
//! Everything reaches the disk through the door [`device::Device`] and gets the time as an
//! argument, so the simulator can put itself in the place of both. Only the offline parts
//! ([`inspect`], [`manifest`], [`lock`]) use files directly, at boot and in commands.
#![deny(unsafe_code)]

pub mod block;
#[allow(unsafe_code)]
pub mod buffer;
pub mod device;
pub mod error;
pub mod format;
mod index;
pub mod inspect;
pub mod lock;
pub mod log;
pub mod manifest;
mod operations;
mod pack;
mod reader;
pub mod recovery;
mod replay;
mod scan;
mod scrub;
#[allow(unsafe_code)]
pub mod sealed;
mod segment;
pub mod settings;
pub mod snapshot;
pub mod stats;
mod sweep;
mod unreadable;

pub use error::{AppendError, ReadError, RotKind, RotReport, WalError, WalFatal};
pub use log::{Log, ReadDone, ReadRequest, WaitsFor, Wake};
pub use recovery::{NamedSnapshot, Recovered, RecoveredGroup, Recovery, RecoveryStep};
pub use scrub::Scrubbed;
pub use settings::LogSettings;
pub use snapshot::{
    Chunk, ChunkDone, ChunkError, ChunkSums, SnapshotError, SnapshotHead, SnapshotWritten,
};
pub use stats::LogStats;
pub use sweep::Swept;
