//! The control lane: HTTP for health, metrics and status, and the logs, on a housekeeping core.
//! It sees shards only through [`ShardFeed`]; if it dies or is flooded, consensus goes on.
#![forbid(unsafe_code)]

mod deadlines;
mod feed;
mod listen;
pub mod logs;
mod metrics;
mod report;
mod routes;
mod server;
mod snapshots;
mod stop;
mod stream;

pub use feed::{
    BUCKETS_US, GroupRow, NodeNumbers, Percentiles, ShardCounters, ShardFeed, ShardNumbers,
    ShardSnapshots, SnapshotWish, StageHistogram, WalNumbers,
};
pub use listen::{BindError, bind};
pub use logs::{LogControl, LogEvent};
pub use ringraft_shard::metrics::Stage;
pub use server::{ControlError, ControlOptions, serve};
pub use stop::StopSignals;
