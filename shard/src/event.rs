//! The closed list of what can wake a shard. A reader finds every entrance here.

use crate::group::Halt;
use crate::leading::TransferReason;
use crate::links::ConnectionId;
use crate::metrics::Stage;
use crate::placement::Placement;
use crate::snapshots::{InstallFailure, LoadFailure, SnapshotReason};
use ringraft_net::Frame;
use ringraft_types::{
    GroupId, Index, Lacked, LogId, MemoryLevel, NodeId, Phase, ShardId, Start, Term, Ticks,
};
use ringraft_wal::{ReadError, SnapshotError};
use std::sync::Arc;

/// One thing that happened outside. Time is the other input: [`crate::Shard::turn`].
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The link to the same shard of a peer is up; its handshake was welcomed.
    PeerUp(NodeId),
    /// The link is lost.
    PeerDown(NodeId),
    /// A frame came over a peer's link.
    PeerFrame {
        /// Whose link.
        from: NodeId,
        /// The frame, intact.
        frame: Frame<'a>,
    },
    /// A frame came from a client, here or forwarded by another core.
    ClientFrame {
        /// Where its answer goes.
        from: ConnectionId,
        /// The frame, intact.
        frame: Frame<'a>,
    },
    /// The connection over which this shard fetches snapshots from a peer is up.
    PullUp(NodeId),
    /// It is lost.
    PullDown(NodeId),
    /// A frame came over a connection that carries snapshots, to either end.
    BulkFrame {
        /// Who is at the other end.
        from: NodeId,
        /// The frame, intact.
        frame: Frame<'a>,
    },
    /// Another shard of this node learned that their data directory is an older copy.
    OlderCopy,
    /// Another shard of this node says how many bytes of data its groups hold.
    DataBytes(ShardId, u64),
    /// What the system group says, as another shard of this node read it.
    Placement(&'a Arc<Placement>),
}

/// Something that people may want to have read. Small, so that it fits a ring; the control lane
/// writes the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardEvent {
    /// The system group says of a group what this version doesn't understand: it is left as it is.
    PlacementUnreadable {
        /// The group.
        group: GroupId,
    },
    /// A group came to this shard while it runs.
    GroupCame {
        /// The group.
        group: GroupId,
        /// Others began it, and are to add this node.
        joins: bool,
    },
    /// A group here stands for election.
    ElectionStarted {
        /// The group.
        group: GroupId,
        /// The term.
        term: Term,
    },
    /// This node leads a group.
    BecameLeader {
        /// The group.
        group: GroupId,
        /// The term.
        term: Term,
        /// The newest entry at that moment.
        last: Index,
    },
    /// This node no longer leads a group.
    SteppedDown {
        /// The group.
        group: GroupId,
        /// The term.
        term: Term,
    },
    /// A group here follows a leader.
    Follows {
        /// The group.
        group: GroupId,
        /// The term.
        term: Term,
        /// Who leads.
        leader: NodeId,
    },
    /// A group's log is damaged or an older copy, or holds what this version can't apply: it
    /// refuses to serve.
    Halted {
        /// The group.
        group: GroupId,
        /// Which of them.
        halt: Halt,
    },
    /// A start found that rot took entries of a group.
    EntriesLost {
        /// The group.
        group: GroupId,
        /// The first of them; what lies behind it waits for it.
        first: Index,
        /// The newest entry that the node may have promised: it votes as if it held it.
        promised: LogId,
    },
    /// A group here held another state than a majority of its voters at the same entry: it serves
    /// nobody until it is rebuilt from a snapshot of its leader (V7).
    Diverged {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// The hash of the state here.
        own: u64,
        /// That of the majority.
        majority: u64,
        /// It was rebuilt too often in an hour, and waits for so long before it is again.
        waits: Ticks,
    },
    /// The replicas of a group that is led here hold different states at the same entry, and no
    /// majority holds the same: nobody knows which is right, and all serve on.
    Undecided {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// The hash of the state here.
        own: u64,
        /// A node that holds another.
        other: NodeId,
        /// Its hash.
        hash: u64,
    },
    /// A group that held another state has that of its leader now, and serves again.
    Rebuilt {
        /// The group.
        group: GroupId,
        /// The newest entry in what it was rebuilt from.
        last: Index,
    },
    /// What a group lost to rot came again from others and is durable: it serves again.
    Repaired {
        /// The group.
        group: GroupId,
        /// Its newest durable entry.
        last: Index,
    },
    /// Entries of a group can't be read back from the log: its peers are asked for them.
    Unreadable {
        /// The group.
        group: GroupId,
        /// Where, and why.
        error: ReadError,
    },
    /// What couldn't be read, or was missing at the start, is durable again, in another place.
    Mended {
        /// The group.
        group: GroupId,
        /// The first entry that was written again; zero if none had to be.
        first: Index,
        /// The last one.
        last: Index,
        /// How many there were.
        entries: u64,
    },
    /// No peer that could be asked holds what can't be read here, or is missing; it is asked for
    /// again, ever more seldom.
    NotMended {
        /// The group.
        group: GroupId,
        /// The first such entry.
        first: Index,
    },
    /// A peer met this node in a start that it doesn't remember: its data directory is an older
    /// copy, and no group of the shard takes part any more. All shards of the node must hear it
    /// ([`Event::OlderCopy`]), and it must be written down: no later start may serve.
    RolledBack {
        /// The start, and who met it.
        lacked: Lacked,
        /// The present one.
        start: Start,
    },
    /// A write took longer than the threshold.
    SlowWrite {
        /// The group.
        group: GroupId,
        /// Its entry, or the last of those proposed with it.
        index: Index,
        /// From arrival to the submission of the reply.
        total: Ticks,
        /// The stage that took longest.
        stage: Stage,
        /// How long that took.
        span: Ticks,
    },
    /// A snapshot is durable.
    SnapshotTaken {
        /// The group.
        group: GroupId,
        /// The newest entry in it.
        last: Index,
        /// The file, bytes.
        bytes: u64,
        /// From its beginning.
        took: Ticks,
        /// Why it was taken.
        reason: SnapshotReason,
    },
    /// A snapshot could not be written; it is tried again.
    SnapshotFailed {
        /// The group.
        group: GroupId,
        /// Why not.
        error: SnapshotError,
    },
    /// A snapshot that was durable can't be read. While the node runs another one is taken; a start
    /// goes by an older one, or the group is damaged.
    SnapshotUnreadable {
        /// The group.
        group: GroupId,
        /// The file's number.
        number: u64,
        /// Why not.
        error: LoadFailure,
    },
    /// A snapshot of a peer took the place of what a group had here.
    SnapshotInstalled {
        /// The group.
        group: GroupId,
        /// Who gave it, or a part of it.
        from: NodeId,
        /// How many nodes gave a part of it.
        sources: usize,
        /// The newest entry in it.
        last: Index,
        /// The file, bytes.
        bytes: u64,
        /// From the first question.
        took: Ticks,
    },
    /// A group lacks what the leader's log begins behind, or what nobody has in a log any more, and a
    /// snapshot couldn't be had or stored; it is tried again.
    InstallFailed {
        /// The group.
        group: GroupId,
        /// Why not.
        error: InstallFailure,
    },
    /// Another configuration of a group is committed and applied.
    MembersChanged {
        /// The group.
        group: GroupId,
        /// Its entry.
        index: Index,
        /// Where the change stands.
        phase: Phase,
        /// How many vote, or will.
        voters: u8,
        /// How many only listen.
        learners: u8,
        /// Whether this node is one of them, or votes until a change ends.
        is_member: bool,
    },
    /// The log and the snapshots were read through.
    Scrubbed {
        /// What was read.
        bytes: u64,
        /// Blocks of the log that aren't as they were written.
        rotten: u64,
        /// Snapshots that aren't.
        rotten_snapshots: u64,
        /// From the first block to the last chunk.
        took: Ticks,
    },
    /// A group was handed over, and the other node leads.
    HandedOver {
        /// The group.
        group: GroupId,
        /// Who leads.
        to: NodeId,
        /// From the beginning until that was known.
        took: Ticks,
        /// Why.
        reason: TransferReason,
    },
    /// A group couldn't be handed over to a node: this one leads on, or another one leads.
    NotHandedOver {
        /// The group.
        group: GroupId,
        /// Who was to lead.
        to: NodeId,
        /// From the beginning.
        took: Ticks,
        /// Why it was to.
        reason: TransferReason,
    },
    /// The groups here stand for election no more, by request, or again.
    Paused(bool),
    /// The data that the node holds came nearer to its limit, or less near. The first shard says it
    /// for all.
    Memory {
        /// How near it is.
        level: MemoryLevel,
        /// How near it was.
        before: MemoryLevel,
        /// What the node holds, bytes.
        bytes: u64,
        /// The limit, bytes.
        bytes_max: u64,
    },
    /// A peer says that its memory for data is full, or no longer: groups that are led here and in
    /// which it votes take no writes that grow meanwhile.
    PeerMemory {
        /// Which peer.
        node: NodeId,
        /// Whether it is full.
        is_full: bool,
    },
    /// The disk is full, or no longer.
    DiskFull(bool),
    /// The disk holds a write for longer than an election timeout: groups here don't lead until
    /// it moves. Or it moves again.
    DiskStuck(bool),
    /// The shard stood still, with its process or by itself: this turn came so much later than it
    /// was due, 300 ms or more.
    StoodStill {
        /// By how much.
        late: Ticks,
    },
    /// Nobody is known to lead some groups of this node's, for a minute or more. Told once a minute
    /// as long as it lasts.
    Leaderless {
        /// How many groups.
        groups: u32,
        /// One of them.
        first: GroupId,
        /// For how long the longest has waited.
        waited: Ticks,
    },
}

/// When a shard wants its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At once: there is work left.
    Now,
    /// When something happens, and at this instant at the latest.
    At(Ticks),
    /// When something happens.
    OnEvent,
}

impl Wake {
    /// The earlier of the two.
    pub fn earlier(self, other: Wake) -> Wake {
        match (self, other) {
            (Wake::Now, _) | (_, Wake::Now) => Wake::Now,
            (Wake::OnEvent, wake) | (wake, Wake::OnEvent) => wake,
            (Wake::At(a), Wake::At(b)) => Wake::At(a.min(b)),
        }
    }
}
