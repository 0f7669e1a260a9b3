//! The kinds of fault, their order and their names.

use std::fmt;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A process is killed, its machine goes on.
    Kill,
    /// A machine loses its power.
    PowerCut,
    /// All machines lose their power at once.
    PowerCutAll,
    /// A process stands still for a while; its clock goes on.
    Pause,
    /// One shard of a node is slow.
    SlowShard,
    /// A clock goes at another rate.
    ClockRate,
    /// A clock jumps ahead.
    ClockJump,
    /// A client's process dies.
    ClientDeath,
    /// Two parts of the hosts don't hear of each other.
    Partition,
    /// One way between some hosts is blocked.
    OneWay,
    /// One node hears of nobody, or nobody of it.
    Isolate,
    /// A part of a block can't be read any more.
    BadSector,
    /// A data directory is emptied and formatted anew.
    Wipe,
    /// A data directory is put back from a copy that was taken some lives ago.
    RollBack,
    /// The log of one shard is gone, the rest of the directory is there.
    LostLog,
    /// A leader whose clock hardly moves is cut off with a client beside it, which reads; the others
    /// write meanwhile. What it says may arrive nowhere, and what it hears be old.
    LonelyLeader,
    /// Leaders of a group are cut off one after the other, each with a minority beside it, while
    /// clients ask for that group.
    PingPong,
    /// Links are blocked one by one, and released in any order.
    Clog,
    /// Some links are slow.
    SlowLink,
    /// A connection is torn.
    Tear,
    /// A connection is torn at one end.
    HalfOpen,
    /// A piece of a stream is lost and sent again; how often is drawn.
    Loss,
    /// An old frame of a peer comes again; how often is drawn.
    Replay,
    /// Somebody changes the members of a group; not beside faults that destroy what a node promised.
    Members,
    /// Groups are created, written and deleted.
    Groups,
    /// A leader hands a group over, to anybody or to a named node.
    HandOver,
    /// A shard's groups don't stand for election for a while, and are handed over.
    PauseElections,
    /// Old answers of its peers reach a node that was just elected.
    LateAnswers,
    /// A disk is slow.
    SlowDisk,
    /// A disk completes nothing for a while.
    HungDisk,
    /// A write fails.
    WriteError,
    /// A sync fails once, and says that all is well the next time.
    SyncError,
    /// A read fails.
    ReadError,
    /// Reads and writes stop short.
    ShortIo,
    /// Reads and writes are to be tried again, says the system.
    Transient,
    /// A disk is full for a while.
    DiskFull,
    /// A read sees what was there before.
    StaleRead,
    /// Bits flip in what was durable.
    BitRot,
    /// A write that was said to be durable never was.
    LostWrite,
    /// A write that was said to be durable went over another one.
    MisdirectedWrite,
}

/// What kinds of fault strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Those who lead.
    Leaders,
    /// Ways between hosts.
    Network,
    /// Processes and their clocks.
    Processes,
    /// Disks and what is on them.
    Disks,
}

impl Family {
    /// All of them.
    pub(crate) const ALL: &[Family] =
        &[Family::Leaders, Family::Network, Family::Processes, Family::Disks];
}

impl FaultKind {
    /// All kinds, in the order in which they are drawn.
    pub const ALL: &[FaultKind] = &[
        FaultKind::Kill,
        FaultKind::PowerCut,
        FaultKind::PowerCutAll,
        FaultKind::Pause,
        FaultKind::SlowShard,
        FaultKind::ClockRate,
        FaultKind::ClockJump,
        FaultKind::ClientDeath,
        FaultKind::Partition,
        FaultKind::OneWay,
        FaultKind::Isolate,
        FaultKind::Clog,
        FaultKind::SlowLink,
        FaultKind::Tear,
        FaultKind::HalfOpen,
        FaultKind::Loss,
        FaultKind::Replay,
        FaultKind::SlowDisk,
        FaultKind::HungDisk,
        FaultKind::WriteError,
        FaultKind::SyncError,
        FaultKind::ReadError,
        FaultKind::ShortIo,
        FaultKind::Transient,
        FaultKind::DiskFull,
        FaultKind::StaleRead,
        FaultKind::BitRot,
        FaultKind::LostWrite,
        FaultKind::MisdirectedWrite,
        FaultKind::LonelyLeader,
        FaultKind::Wipe,
        FaultKind::RollBack,
        FaultKind::LostLog,
        FaultKind::BadSector,
        FaultKind::PingPong,
        FaultKind::LateAnswers,
        FaultKind::Members,
        FaultKind::HandOver,
        FaultKind::PauseElections,
        FaultKind::Groups,
    ];

    /// Whether it destroys what a node promised to keep. Such faults strike a minority only, the
    /// same nodes for a whole run: more would destroy what the cluster promised.
    pub const fn dooms(self) -> bool {
        matches!(
            self,
            Self::BitRot
                | Self::LostWrite
                | Self::MisdirectedWrite
                | Self::Wipe
                | Self::RollBack
                | Self::LostLog
                | Self::BadSector
        )
    }

    /// Whether it came later: it is drawn apart from the others, so that what they do to a seed's
    /// run stays.
    pub(crate) const fn is_later(self) -> bool {
        matches!(
            self,
            Self::PingPong
                | Self::LateAnswers
                | Self::Members
                | Self::HandOver
                | Self::PauseElections
                | Self::Groups
        )
    }

    /// What it strikes.
    pub(crate) const fn family(self) -> Family {
        match self {
            Self::LonelyLeader
            | Self::PingPong
            | Self::LateAnswers
            | Self::Members
            | Self::HandOver
            | Self::PauseElections
            | Self::Groups
            | Self::Replay => Family::Leaders,
            Self::Partition
            | Self::OneWay
            | Self::Isolate
            | Self::Clog
            | Self::SlowLink
            | Self::Tear
            | Self::HalfOpen
            | Self::Loss => Family::Network,
            Self::Kill
            | Self::PowerCut
            | Self::PowerCutAll
            | Self::Pause
            | Self::SlowShard
            | Self::ClockRate
            | Self::ClockJump
            | Self::ClientDeath => Family::Processes,
            _ => Family::Disks,
        }
    }

    /// Its name in counts and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerCut => "power-cut",
            Self::PowerCutAll => "power-cut-all",
            Self::Pause => "pause",
            Self::SlowShard => "slow-shard",
            Self::ClockRate => "clock-rate",
            Self::ClockJump => "clock-jump",
            Self::ClientDeath => "client-death",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::Isolate => "isolate",
            Self::LonelyLeader => "lonely-leader",
            Self::Wipe => "wipe",
            Self::RollBack => "roll-back",
            Self::LostLog => "lost-log",
            Self::BadSector => "bad-sector",
            Self::PingPong => "ping-pong",
            Self::LateAnswers => "late-answers",
            Self::Members => "members",
            Self::HandOver => "hand-over",
            Self::PauseElections => "pause-elections",
            Self::Groups => "groups",
            Self::Clog => "clog",
            Self::SlowLink => "slow-link",
            Self::Tear => "tear",
            Self::HalfOpen => "half-open",
            Self::Loss => "loss",
            Self::Replay => "replay",
            Self::SlowDisk => "slow-disk",
            Self::HungDisk => "hung-disk",
            Self::WriteError => "write-error",
            Self::SyncError => "sync-error",
            Self::ReadError => "read-error",
            Self::ShortIo => "short-io",
            Self::Transient => "transient",
            Self::DiskFull => "disk-full",
            Self::StaleRead => "stale-read",
            Self::BitRot => "bit-rot",
            Self::LostWrite => "lost-write",
            Self::MisdirectedWrite => "misdirected-write",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
