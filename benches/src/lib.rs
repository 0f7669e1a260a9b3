//! The engines behind `ringraft bench`: what the disk can do, what the floor under a quorum is, and
//! how close the real thing comes.
//!
//! Nothing here parses arguments or prints: the binary builds the options, calls an engine, and
//! writes the report as a table or as one line of JSON. `README.md` says how to read a result.

mod error;
mod floor;
mod fsync;
mod histogram;
mod load;
mod progress;
mod report;
mod ring;
mod space;

pub use error::BenchError;
pub use floor::{FloorOptions, floor};
pub use fsync::{FsyncOptions, FsyncReport, FsyncRow, fsync};
pub use histogram::Latencies;
pub use load::{
    Completed, Connection, LoadKind, LoadOptions, NativeConnection, Operation, Outcome,
    ReadyOptions, ReadyReport, Refused, load, ready,
};
pub use report::{Errors, LatencyMicros, Report, table};
pub use space::{Space, SyncMethod};
