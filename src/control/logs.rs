//! Logs for people. Lines go through a bounded channel to a thread of their own, which drops and
//! counts what it can't keep up with: a slow terminal or disk never stops the node.
//!
//! A shard's thread never logs: it sends a [`LogEvent`] over the mesh, and the control lane writes
//! the line.

use crate::config::{Log, LogLevel};
use ringraft_shard::ShardEvent;
use ringraft_shard::metrics::Stage;
use ringraft_types::{GroupId, Incarnation, Index, NodeId, ShardId, Term};
use std::io;
use std::sync::{Arc, OnceLock};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// Lines that may wait for the writer; more are dropped and counted.
const LINES_WAITING_MAX: usize = 8192;

/// Changes how much is logged, at run time, and says how many lines were dropped.
///
/// The last clone that is dropped writes out the lines that still wait.
#[derive(Clone)]
pub struct LogControl {
    level: reload::Handle<LevelFilter, Registry>,
    dropped: ErrorCounter,
    _writer: Option<Arc<WorkerGuard>>,
}

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogControl {{ level: {} }}", self.level())
    }
}

impl LogControl {
    /// Logs to stderr from now on, for the whole process. Where a logger is installed already (a
    /// program that embeds ringraft has its own, or a second node runs in it), that one stays.
    pub fn install(log: &Log) -> Self {
        let mut own_writer = None;
        let (level, dropped) = INSTALLED.get_or_init(|| {
            let (installed, guard) = install_now(log);
            own_writer = Some(Arc::new(guard));
            installed
        });
        Self { level: level.clone(), dropped: dropped.clone(), _writer: own_writer }
    }

    /// Changes the level.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only if the subscriber is gone, and then there is nobody to log to.
        let _ = self.level.reload(filter(level));
    }

    /// The level in force.
    pub fn level(&self) -> LogLevel {
        let now = self.level.with_current(|filter| *filter).unwrap_or(LevelFilter::INFO);
        let found = LogLevel::ALL.into_iter().find(|level| filter(*level) == now);
        found.unwrap_or(LogLevel::Info)
    }

    /// Lines that were dropped because the writer couldn't keep up.
    pub fn lines_dropped(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }
}

/// What the process logs with, once it does.
static INSTALLED: OnceLock<Installed> = OnceLock::new();

type Installed = (reload::Handle<LevelFilter, Registry>, ErrorCounter);

fn install_now(log: &Log) -> (Installed, WorkerGuard) {
    let (writer, guard) = writer(io::stderr());
    let (level, handle) = reload::Layer::new(filter(log.level));
    let dropped = writer.error_counter();
    // Refused where an embedding program has a logger of its own: that one goes on.
    let _ = if log.json {
        let lines = fmt::layer().json().flatten_event(true).with_writer(writer);
        tracing_subscriber::registry().with(lines.with_filter(level)).try_init()
    } else {
        let lines = fmt::layer().with_ansi(false).with_target(false).with_writer(writer);
        tracing_subscriber::registry().with(lines.with_filter(level)).try_init()
    };
    ((handle, dropped), guard)
}

fn writer(to: impl io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX).finish(to)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// What a shard has to say to people. Small and without allocation, so that it fits a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// A shard's log is open: what recovery found.
    Recovered {
        /// The shard.
        shard: ShardId,
        /// Groups in its log.
        groups: u64,
        /// Entries in its log.
        entries: u64,
        /// How long it took, microseconds.
        took_us: u64,
    },
    /// A torn tail was cut; nothing acknowledged was in it.
    TailCut {
        /// The shard.
        shard: ShardId,
        /// Blocks after the cut.
        blocks: u64,
    },
    /// Rot in a group's log: it refuses to serve.
    Damaged {
        /// The shard.
        shard: ShardId,
        /// The group.
        group: GroupId,
    },
    /// A group here stands for election.
    ElectionStarted {
        /// The group.
        group: GroupId,
        /// The term asked for.
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
    /// A shard is connected to a peer.
    PeerConnected {
        /// The shard.
        shard: ShardId,
        /// The peer.
        peer: NodeId,
    },
    /// A shard lost its connection to a peer, and tries again.
    PeerLost {
        /// The shard.
        shard: ShardId,
        /// The peer.
        peer: NodeId,
        /// What the kernel said; zero if the peer closed it.
        errno: i32,
    },
    /// A peer's data directory is not the one that was known: it is refused.
    IncarnationChanged {
        /// The peer.
        peer: NodeId,
        /// The one that is known.
        known: Incarnation,
        /// The one that it shows now.
        shown: Incarnation,
    },
    /// A handshake with a peer failed, here or there.
    PeerRefused {
        /// The peer.
        peer: NodeId,
        /// What stands against it, and the cure.
        reason: &'static str,
    },
    /// A peer's name led to no address.
    PeerNotFound {
        /// The peer.
        peer: NodeId,
    },
    /// A connection said what nobody may say, and was closed.
    FrameRefused {
        /// The shard.
        shard: ShardId,
        /// Why: a sentence of `net`.
        reason: &'static str,
    },
    /// A write was slow.
    SlowWrite {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// From the socket to the reply, microseconds.
        total_us: u64,
        /// The stage that took longest.
        slowest: Stage,
        /// How long that took, microseconds.
        slowest_us: u64,
    },
    /// The disk is full: proposals are refused until there is space.
    DiskFull {
        /// The shard.
        shard: ShardId,
    },
    /// There is space again.
    DiskHasSpace {
        /// The shard.
        shard: ShardId,
    },
}

impl LogEvent {
    /// What a shard had to say, and which shard that was.
    pub fn of_shard(shard: ShardId, event: ShardEvent) -> Self {
        match event {
            ShardEvent::ElectionStarted { group, term } => Self::ElectionStarted { group, term },
            ShardEvent::BecameLeader { group, term, last } => {
                Self::BecameLeader { group, term, last }
            }
            ShardEvent::SteppedDown { group, term } => Self::SteppedDown { group, term },
            ShardEvent::Follows { group, term, leader } => Self::Follows { group, term, leader },
            ShardEvent::Halted { group } => Self::Damaged { shard, group },
            ShardEvent::SlowWrite { group, index, total, stage, span } => Self::SlowWrite {
                group,
                index,
                total_us: total.get(),
                slowest: stage,
                slowest_us: span.get(),
            },
            ShardEvent::DiskFull(true) => Self::DiskFull { shard },
            ShardEvent::DiskFull(false) => Self::DiskHasSpace { shard },
        }
    }

    /// Writes the line. For the control lane's thread only.
    pub fn emit(&self) {
        match *self {
            Self::Recovered { shard, groups, entries, took_us } => {
                tracing::info!(%shard, groups, entries, took_us, "log recovered");
            }
            Self::TailCut { shard, blocks } => {
                tracing::warn!(%shard, blocks, "torn tail cut: nothing acknowledged was in it");
            }
            Self::Damaged { shard, group } => {
                tracing::error!(%shard, %group, "the log has rot: the group refuses to serve");
            }
            Self::ElectionStarted { group, term } => {
                tracing::info!(%group, %term, "stands for election");
            }
            Self::BecameLeader { group, term, last } => {
                tracing::info!(%group, %term, %last, "leads");
            }
            Self::SteppedDown { group, term } => tracing::info!(%group, %term, "steps down"),
            Self::Follows { group, term, leader } => {
                tracing::info!(%group, %term, %leader, "follows");
            }
            Self::PeerConnected { shard, peer } => {
                tracing::info!(%shard, %peer, "peer connected");
            }
            Self::PeerLost { shard, peer, errno } => {
                let reason = match errno {
                    0 => "closed by the peer".to_owned(),
                    errno => io::Error::from_raw_os_error(errno).to_string(),
                };
                tracing::warn!(%shard, %peer, reason, "peer lost");
            }
            Self::IncarnationChanged { peer, known, shown } => {
                let (known, shown) =
                    (format!("{:016x}", known.get()), format!("{:016x}", shown.get()));
                tracing::error!(
                    %peer, known, shown,
                    "peer refused: its data directory was formatted anew, so it forgot its votes"
                );
            }
            Self::PeerRefused { peer, reason } => {
                tracing::error!(%peer, reason, "the handshake with a peer failed");
            }
            Self::PeerNotFound { peer } => {
                tracing::warn!(%peer, "a peer's name can't be resolved; it is tried again");
            }
            Self::FrameRefused { shard, reason } => {
                tracing::warn!(%shard, reason, "connection closed: it broke the protocol");
            }
            Self::SlowWrite { group, index, total_us, slowest, slowest_us } => {
                let slowest = slowest.name();
                tracing::warn!(%group, %index, total_us, slowest, slowest_us, "slow write");
            }
            Self::DiskFull { shard } => {
                tracing::error!(%shard, "the disk is full: writes are refused, reads go on");
            }
            Self::DiskHasSpace { shard } => {
                tracing::info!(%shard, "the disk has space again: writes are accepted");
            }
        }
    }
}
