//! The bytes of data that the node holds, against the most that it may (decision 0028).
//!
//! Every shard counts what its groups hold, as their machines say after each turn that applied
//! something, and hears from the node's other shards what theirs do. At the limit a leader refuses
//! writes that grow, before they are in the log: what is committed is applied everywhere, whatever
//! it takes. Each peer says whether it is full; a leader refuses for its voters as for itself.

use crate::event::ShardEvent;
use crate::links::Links;
use crate::shard::Shard;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{MemoryLevel, NodeId, ShardId, Ticks};
use ringraft_wal::device::Device;
use std::collections::BTreeMap;

/// The other shards are told what is held here when it differs by so much of the limit from what
/// they were told last, divided by the shards there are: all of them together err by that.
const TOLD_PART: u64 = 64;
/// Or by this, if that is less, bytes.
const TOLD_BYTES_MIN: u64 = 4 << 10;

/// What the node holds, as far as one shard knows.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// By this shard's groups, bytes.
    own: u64,
    /// By those of other shards, as they said last.
    others: BTreeMap<ShardId, u64>,
    others_bytes: u64,
    level: MemoryLevel,
    /// What the other shards were told last.
    told: u64,
    /// Peers that said that they are full.
    full_peers: usize,
}

/// Where the node's data stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// What all shards of the node hold, bytes.
    pub bytes: u64,
    /// The most that they may; zero: there is no limit.
    pub bytes_max: u64,
    /// How near the one is to the other.
    pub level: MemoryLevel,
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Where the node's data stands, as far as this shard knows.
    pub fn memory(&self) -> MemoryUse {
        let bytes = self.memory.own + self.memory.others_bytes;
        let bytes_max = self.settings.limits.data_bytes_max;
        MemoryUse { bytes, bytes_max, level: self.memory.level }
    }

    /// Peers that say that their memory is full.
    pub fn full_peers(&self) -> usize {
        self.memory.full_peers
    }

    /// A group's machine changed, or is another one: counts what it holds now.
    pub(crate) fn account(&mut self, slot: usize) {
        let group = &mut self.groups[slot];
        let bytes = group.machine.data_bytes();
        let before = std::mem::replace(&mut group.data_bytes, bytes);
        if bytes != before {
            self.memory.own = self.memory.own + bytes - before;
            self.judge_memory();
        }
    }

    /// Another shard of this node says what its groups hold.
    pub(crate) fn hear_of_data(&mut self, shard: ShardId, bytes: u64) {
        assert!(shard != self.settings.shard, "a shard tells the others");
        let before = self.memory.others.insert(shard, bytes).unwrap_or(0);
        self.memory.others_bytes = self.memory.others_bytes + bytes - before;
        self.judge_memory();
    }

    /// What the other shards of this node must hear of the data here, if it has changed by enough.
    pub fn data_to_tell(&mut self) -> Option<u64> {
        let (own, told) = (self.memory.own, self.memory.told);
        if self.settings.shards == 1 || own == told {
            return None;
        }
        let part = self.settings.limits.data_bytes_max / TOLD_PART;
        let step = (part / u64::from(self.settings.shards)).max(TOLD_BYTES_MIN);
        if own.abs_diff(told) < step {
            return None;
        }
        self.memory.told = own;
        Some(own)
    }

    fn judge_memory(&mut self) {
        let MemoryUse { bytes, bytes_max, level: before } = self.memory();
        let level = before.next(bytes, bytes_max);
        if level == before {
            return;
        }
        self.memory.level = level;
        // All shards know it; one says it.
        if self.settings.shard == ShardId(0) {
            self.events.push(ShardEvent::Memory { level, before, bytes, bytes_max });
        }
        if (level == MemoryLevel::Full) != (before == MemoryLevel::Full) {
            self.peers.values_mut().for_each(|peer| peer.staged.is_due = true);
            self.peers_due.staged = true;
        }
    }

    /// Whether this node is to tell its peers that it is full.
    pub(crate) fn is_memory_full(&self) -> bool {
        self.memory.level == MemoryLevel::Full
    }

    /// A peer says whether its memory is full; one whose link is lost says no more.
    pub(crate) fn hear_of_memory(&mut self, now: Ticks, from: NodeId, is_full: bool) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let before = std::mem::replace(&mut peer.memory_full, is_full.then_some(now));
        if before.is_some() == is_full {
            return;
        }
        self.events.push(ShardEvent::PeerMemory { node: from, is_full });
        self.memory.full_peers =
            self.peers.values().filter(|peer| peer.memory_full.is_some()).count();
    }

    /// Whether a group that is led here takes no write that grows: this node's memory is full, or
    /// that of another one that votes.
    ///
    /// What a peer said counts for two election timeouts: one that is cut off holds nobody up.
    pub(crate) fn refuses_growth(&self, now: Ticks, slot: usize) -> bool {
        #[cfg(ringraft_plant)]
        if planted(Plant::QuotaIgnored) {
            return false;
        }
        if self.is_memory_full() {
            return true;
        }
        if self.memory.full_peers == 0 {
            return false;
        }
        let configuration = self.groups[slot].raft.configuration();
        let lasts = Ticks(2 * self.settings.raft.election_timeout.0);
        self.peers.iter().any(|(&node, peer)| {
            let is_full = peer.memory_full.is_some_and(|said| now.since(said) < lasts);
            is_full && configuration.is_voter(node)
        })
    }
}
