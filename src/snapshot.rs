//! What the shards tell the control lane: how they are, and what is worth a line in the log.
//!
//! Shards never write a log and never format text for people: they send these over the mesh.

use crate::wires::Wires;
use hdrhistogram::Histogram;
use ringraft_net::RefusalCode;
use ringraft_net::status::NodeStatus;
use ringraft_shard::Shard;
use ringraft_shard::metrics::{Metrics, Stage};
use ringraft_types::{GroupId, NodeId, Term, Ticks};
use ringraft_wal::device::uring::UringDevice;

/// One shard at one instant.
#[derive(Clone, Debug)]
pub struct ShardSnapshot {
    /// When it was taken: the shard's own clock, so it also says that the shard turns.
    pub at: Ticks,
    /// The shard and its groups.
    pub status: NodeStatus,
    /// Counters and stage times.
    pub metrics: Metrics,
    /// Blocks that became durable.
    pub log_blocks: u64,
    /// Records in them.
    pub log_records: u64,
    /// Bytes in them, padding included.
    pub log_bytes: u64,
    /// The time from a block's submission to its durability, microseconds.
    pub sync: Histogram<u64>,
    /// Connections there are, of clients and peers.
    pub connections: u64,
    /// Links to peers that are up.
    pub links_up: u64,
}

impl ShardSnapshot {
    /// Takes one.
    pub fn of(shard: &Shard<UringDevice, Wires>, now: Ticks) -> Self {
        let stats = shard.log().stats();
        Self {
            at: now,
            status: shard.status(now),
            metrics: shard.metrics().clone(),
            log_blocks: stats.blocks,
            log_records: stats.records,
            log_bytes: stats.bytes,
            sync: stats.latency.clone(),
            connections: shard.links.connections() as u64,
            links_up: shard.links.peers.values().filter(|link| link.up.is_some()).count() as u64,
        }
    }

    /// A stage's median, in microseconds.
    pub fn stage_p50(&self, stage: Stage) -> u64 {
        self.metrics.histogram(stage).value_at_quantile(0.5)
    }
}

/// Something that people want to have read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// A peer's link is up.
    PeerUp(NodeId),
    /// A peer's link is lost.
    PeerDown(NodeId),
    /// A handshake with a peer was refused, there or here.
    PeerRefused(NodeId, RefusalCode),
    /// A connection was closed for what it sent, or a name could not be resolved.
    Refused(String),
    /// A group's role, term or leader changed here.
    Role {
        /// The group.
        group: GroupId,
        /// Its term here.
        term: Term,
        /// Who leads, or zero.
        leader: NodeId,
    },
    /// A write took longer than the threshold.
    SlowWrite {
        /// The group.
        group: GroupId,
        /// From arrival to reply.
        total: Ticks,
        /// The stage that took longest.
        stage: &'static str,
        /// How long that took.
        span: Ticks,
    },
}
