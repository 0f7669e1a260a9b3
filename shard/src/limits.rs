//! The bounds of one shard, and what happens when each is reached.

use ringraft_types::Ticks;
use ringraft_types::limits::{BLOCK_BYTES_MAX, FRAME_BODY_BYTES_MAX, NODES_MAX, RECORD_BYTES_MAX};

/// Limits that a configuration may change. Reached means "busy" unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Writes of one group that are proposed and not yet applied (FC-01).
    pub group_writes_max: usize,
    /// Record bytes of those (FC-02).
    pub group_bytes_max: usize,
    /// The same of all groups of the shard together. One group has at most as much of it as it leaves
    /// for the others (decision 0029).
    pub shard_writes_max: usize,
    /// Record bytes of those.
    pub shard_bytes_max: usize,
    /// Frames of reads of one group that wait for a round, for the leader's answer, or for apply.
    /// At most what the protocol takes (`Settings::reads_waiting_max`).
    pub group_reads_max: usize,
    /// Bytes of those.
    pub group_reads_bytes_max: usize,
    /// Frames of reads of all groups of the shard that wait. One group has at most as much of it as it
    /// leaves for the others (decision 0029).
    pub shard_reads_max: usize,
    /// Bytes of those.
    pub shard_reads_bytes_max: usize,
    /// Bytes that wait for the log's next block; above it writes are refused, and peers are not
    /// read.
    pub log_bytes_max: usize,
    /// Bytes of the cache of newest entries; the oldest go first, nothing is refused.
    pub cache_bytes_max: usize,
    /// Bytes of data that all shards of the node may hold together; above it writes that grow are
    /// refused. Zero: no limit.
    pub data_bytes_max: u64,
    /// For how long the disk may hold one write or sync; beyond it the process stops.
    pub disk_wait_max: Ticks,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            group_writes_max: 16_384,
            group_bytes_max: 64 << 20,
            shard_writes_max: 131_072,
            shard_bytes_max: 256 << 20,
            group_reads_max: 16_384,
            group_reads_bytes_max: 64 << 20,
            shard_reads_max: 131_072,
            shard_reads_bytes_max: 256 << 20,
            log_bytes_max: 16 << 20,
            cache_bytes_max: 32 << 20,
            data_bytes_max: 0,
            disk_wait_max: Ticks::from_millis(20_000),
        }
    }
}

/// Entries that one group applies in one turn; the rest waits for the next turn. Few enough that
/// the first replies of a large commit are on their way, and their clients at work, while the rest
/// is applied; many enough that a turn's system call is shared.
pub const APPLY_ENTRIES_PER_TURN: usize = 256;

/// The hash of a group's state is noted at every multiple of this, entries, for replicas to be compared
/// (V7, decision 0030). The same on all nodes.
pub const STATE_NOTE_ENTRIES: u64 = 1 << 10;

/// A group that held another state than the others is rebuilt so often in an hour; beyond that it stays
/// fenced for the rest of it.
pub const REBUILDS_PER_HOUR: u32 = 3;

/// Bytes of replies that one group's apply makes in one turn, give or take one reply; the rest
/// waits for the next turn.
pub const REPLY_BYTES_PER_TURN: usize = 8 << 20;

/// Reads of one group that are served in one turn, give or take a frame; the rest waits for the
/// next turn.
pub const READS_PER_TURN: u64 = 16_384;

/// For how long a read that sees all that was done waits on a node that doesn't lead, its leader's
/// answer included; then its client is told that this node doesn't lead.
pub const READ_WAIT_MAX: Ticks = Ticks::from_millis(5_000);

/// Barriers of one group that wait; more are told "busy".
pub const GROUP_BARRIERS_MAX: usize = 4_096;

/// Barriers of all groups of a shard that wait; more are told "busy". Each takes about 200 bytes.
pub const SHARD_BARRIERS_MAX: usize = 16_384;

/// For how long a barrier waits at most, whatever its client asks for: it waits on if its client is
/// gone. The client library asks again and again, for less each time.
pub const BARRIER_WAIT_MAX: Ticks = Ticks::from_millis(60_000);

/// Bytes of entries that one read of the log brings back, for a lagging follower or for apply.
pub const FETCH_BYTES_MAX: u64 = 1 << 20;

/// Bytes of entries that all groups of a shard together have read back for apply: after a start all
/// of them want what is in the log. Each has its part, which is at most what one read brings back.
pub(crate) const APPLY_FETCH_BYTES_MAX: u64 = 64 << 20;

/// The least part of that, bytes: many groups need more.
pub(crate) const APPLY_FETCH_BYTES_MIN: u64 = 4 << 10;

/// Bytes of entries that one answer to a peer's question holds, give or take one entry: what it
/// can't read of its own log comes in so many pieces.
pub const REPAIR_BYTES_MAX: usize = 256 << 10;

// An answer fits a frame.
const _: () = assert!(REPAIR_BYTES_MAX + RECORD_BYTES_MAX + 4096 <= FRAME_BODY_BYTES_MAX);

/// Room that the log keeps above `log_bytes_max` for what is never refused: hard states,
/// truncations, and the frames that were already taken.
pub const LOG_RESERVE_BYTES: usize = 40 << 20;

/// The smallest entry cache: what one turn brings is still there when it is handed to the log,
/// even if its records fill only half of their chunks.
pub const ENTRY_CACHE_BYTES_MIN: usize = 8 << 20;

/// The part of the entry cache that writes may fill before they are handed to the log: no entry is
/// evicted before it was.
pub(crate) const UNPROPOSED_PART_OF_CACHE: usize = 8;

const _: () = assert!(
    2 * (ENTRY_CACHE_BYTES_MIN / UNPROPOSED_PART_OF_CACHE + FRAME_BODY_BYTES_MAX)
        <= ENTRY_CACHE_BYTES_MIN
);
// When the log is full, one frame of each node and of one client may still be taken.
const _: () = assert!((NODES_MAX + 1) * FRAME_BODY_BYTES_MAX <= LOG_RESERVE_BYTES);
// What a fetch brings fits an append frame.
const _: () = assert!(FETCH_BYTES_MAX as usize <= BLOCK_BYTES_MAX);
