//! What the control lane knows of the shards: numbers of one moment, asked for and brought over
//! the mesh.

use crate::control::logs::LogEvent;
use ringraft_net::status::SnapshotActivity;
use ringraft_shard::memory::MemoryUse;
use ringraft_shard::metrics::Stage;
use ringraft_shard::{GroupSnapshots, SnapshotAsked};
use ringraft_types::{GroupId, Index, NodeId, Revision, ShardId, Term};
use std::time::Duration;

/// The mesh's end in the control lane. Nothing here may wait: the lane has one thread.
pub trait ShardFeed {
    /// Asks every shard for new numbers. Cheap; asking twice before the answer is asking once.
    fn request(&self);

    /// The newest numbers of every shard, also of those that no longer answer.
    fn latest(&self) -> NodeNumbers;

    /// Asks every shard about its snapshots, or for some; returns the question's number. Only some
    /// questions are kept at a time: the oldest makes room.
    fn ask_snapshots(&self, wish: SnapshotWish) -> u64;

    /// The shards that haven't answered this question yet.
    fn silent(&self, question: u64) -> Vec<ShardId>;

    /// What the others said to it; it is forgotten.
    fn take_snapshots(&self, question: u64) -> Vec<ShardSnapshots>;

    /// Hands over what shards had to say since the last call.
    fn take_events(&self, out: &mut Vec<LogEvent>);

    /// Whether the lane is to end.
    fn is_stopped(&self) -> bool;
}

/// A node, as far as its shards have told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeNumbers {
    /// The node.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Since the start of the process.
    pub uptime: Duration,
    /// Log events that shards had to drop because the ring to the control lane was full.
    pub events_dropped: u64,
    /// Every shard, in order.
    pub shards: Vec<ShardNumbers>,
}

/// A shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardNumbers {
    /// The shard.
    pub shard: ShardId,
    /// The core that it is pinned to.
    pub core: usize,
    /// How long ago its loop last said that it turns, as of the call of `latest`.
    pub tick_age: Duration,
    /// How often it answered a request: grows by one with each new set of numbers.
    pub answers: u64,
    /// Whether its groups don't stand for election, by request.
    pub is_paused: bool,
    /// What the node's data takes, against what it may, as far as the shard knows.
    pub memory: MemoryUse,
    /// Nodes that say that their memory is full.
    pub full_peers: u64,
    /// Its groups.
    pub groups: Vec<GroupRow>,
    /// What it counts.
    pub counters: ShardCounters,
    /// Time spent by stage of a write, since the start.
    pub stages: Vec<StageHistogram>,
    /// Its log.
    pub wal: WalNumbers,
}

/// A group on a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRow {
    /// The group.
    pub group: GroupId,
    /// "leader", "follower", "candidate", "pre-candidate" or "learner".
    pub role: &'static str,
    /// Who leads, as far as is known here.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: Term,
    /// The newest entry.
    pub last: Index,
    /// The commit index.
    pub commit: Index,
    /// The applied index.
    pub applied: Index,
    /// The machine's revision.
    pub revision: Revision,
    /// The rolling hash of the machine's state.
    pub state_hash: u64,
    /// On a leader, entries that the slowest member lacks; elsewhere, committed and not applied.
    pub lag_entries: u64,
    /// Its log here has rot that isn't repaired: it refuses to serve.
    pub damaged: bool,
    /// The newest entry in a snapshot of it here; zero if there is none.
    pub snapshot: Index,
    /// What is done for its snapshots here.
    pub activity: SnapshotActivity,
}

/// What shards are asked about snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotWish {
    /// How things stand.
    Look,
    /// One of every group, and how things stand then.
    TakeAll,
    /// One of each of these groups, and how things stand with them then.
    Take(Vec<GroupId>),
}

/// What a shard says of the snapshots of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSnapshots {
    /// The shard.
    pub shard: ShardId,
    /// Its groups, each with what was said to the wish for one.
    pub groups: Vec<(Option<SnapshotAsked>, GroupSnapshots)>,
}

/// What a shard counts, since the start; but for the last four, which are of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounters {
    /// Turns of the loop.
    pub turns: u64,
    /// Writes answered as done.
    pub writes_done: u64,
    /// Reads answered.
    pub reads_done: u64,
    /// Requests refused as busy.
    pub refused_busy: u64,
    /// Writes refused because the memory for data is full.
    pub refused_memory: u64,
    /// Requests refused because this node doesn't lead.
    pub refused_not_leader: u64,
    /// Requests refused for any other reason.
    pub refused_other: u64,
    /// Elections that groups here stood for.
    pub elections: u64,
    /// Changes of leader that groups here saw.
    pub leader_changes: u64,
    /// Frames received from other nodes.
    pub peer_frames_received: u64,
    /// Bytes received from other nodes.
    pub peer_bytes_received: u64,
    /// Bytes sent to other nodes.
    pub peer_bytes_sent: u64,
    /// Frames or handshakes refused: wrong, too long, of another cluster.
    pub frames_refused: u64,
    /// Times that the system had no descriptor or memory for a connection.
    pub accepts_failed: u64,
    /// Writes slower than the limit of the slow-write log.
    pub slow_writes: u64,
    /// Times that the disk held a write for longer than an election timeout.
    pub disk_stuck: u64,
    /// Turns that came 300 ms or more after they were due.
    pub stood_still: u64,
    /// Groups handed over to another node.
    pub transfers: u64,
    /// Groups that another node was to take over, and didn't.
    pub transfers_failed: u64,
    /// Groups handed over because of a priority, or to spread leaders.
    pub transfers_spread: u64,
    /// Barriers whose level was reached.
    pub barriers_reached: u64,
    /// Barriers whose level wasn't reached in time.
    pub barriers_timed_out: u64,
    /// Groups that lost entries to rot and have them again.
    pub repairs: u64,
    /// Groups of which entries can't be read, and are asked of the other nodes.
    pub repairs_under_way: u64,
    /// Groups that were found to hold another state than a majority.
    pub divergences: u64,
    /// Groups led here whose replicas hold different states, where nobody knows which is right.
    pub divergences_undecided: u64,
    /// Groups that were rebuilt after that.
    pub states_rebuilt: u64,
    /// Groups that hold another state, until they are rebuilt.
    pub groups_diverged: u64,
    /// Groups that hibernate.
    pub groups_hibernating: u64,
    /// Entries that couldn't be read and were written again.
    pub entries_mended: u64,
    /// Entries that other nodes couldn't read and were given.
    pub entries_lent: u64,
    /// Bytes of the log and of snapshots that were read to find rot.
    pub scrubbed_bytes: u64,
    /// Blocks that were found rotten so.
    pub scrubbed_rotten: u64,
    /// Snapshots that were found rotten so.
    pub scrubbed_rotten_snapshots: u64,
    /// Times that all of it was read so.
    pub scrub_passes: u64,
    /// Snapshots of groups that became durable.
    pub snapshots_taken: u64,
    /// Snapshots of groups that could not be written.
    pub snapshots_failed: u64,
    /// Snapshots of peers that took the place of what a group had here.
    pub snapshots_installed: u64,
    /// Attempts at that which failed.
    pub installs_failed: u64,
    /// Bytes of those that became durable.
    pub snapshot_bytes: u64,
    /// Client connections open now.
    pub clients_connected: u64,
    /// Peers connected now.
    pub peers_connected: u64,
    /// Writes accepted and not yet answered.
    pub pending_writes: u64,
}

/// How long a stage took, since the start.
#[derive(Clone, Debug, PartialEq)]
pub struct StageHistogram {
    /// The stage.
    pub stage: Stage,
    /// How many writes were measured.
    pub count: u64,
    /// Their sum, microseconds.
    pub sum_us: u64,
    /// For each bound of [`BUCKETS_US`], how many writes took at most that long and longer than
    /// the bound before; the last is for all longer ones.
    pub buckets: [u64; BUCKETS_US.len() + 1],
    /// The percentiles.
    pub percentiles: Percentiles,
}

/// Upper bounds of the buckets of a stage's histogram, microseconds.
pub const BUCKETS_US: [u64; 18] = [
    10, 20, 50, 100, 200, 300, 500, 750, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    500_000, 1_000_000, 5_000_000,
];

/// Percentiles, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// The median.
    pub p50_us: u64,
    /// Nine of ten are faster.
    pub p90_us: u64,
    /// 99 of 100 are faster.
    pub p99_us: u64,
    /// 999 of 1,000 are faster.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}

/// A shard's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalNumbers {
    /// How writes become durable; "none" means that they don't.
    pub sync_method: &'static str,
    /// Batches written.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes in them, padding included.
    pub bytes: u64,
    /// From the submission of a batch to durable.
    pub sync: Percentiles,
    /// Segment files.
    pub segments: u64,
    /// Bytes that they take on disk.
    pub segment_bytes: u64,
    /// Bytes that removed files still take on disk: their room is given back in steps.
    pub reclaiming_bytes: u64,
    /// Tails that were cut after a crash.
    pub torn_tails: u64,
    /// Whether the disk is full: proposals are refused, reads go on.
    pub is_full: bool,
}
