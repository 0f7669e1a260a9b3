//! Logs for people. Lines go through a bounded channel to a thread of their own, which drops and
//! counts what it can't keep up with: a slow terminal or disk never stops the node.
//!
//! A shard's thread never logs: it sends a [`LogEvent`] over the mesh, and the control lane writes
//! the line.

use crate::config::{Log, LogLevel};
use ringraft_raft::Breach;
use ringraft_shard::{Halt, ShardEvent, TransferReason};
use ringraft_types::{GroupId, Incarnation, MemoryLevel, NodeId, Phase, ShardId};
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

/// What a shard's thread has to say to people. Small and without allocation, so that it fits a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The shard itself said it.
    Shard(ShardId, ShardEvent),
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
    /// Nobody is a member of these groups as far as is known here.
    WaitsToBeAdded {
        /// The shard.
        shard: ShardId,
        /// How many groups.
        groups: u64,
    },
    /// A torn tail was cut; nothing acknowledged was in it.
    TailCut {
        /// The shard.
        shard: ShardId,
        /// Blocks after the cut.
        blocks: u64,
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
    /// A peer's data directory is an older copy of the one that was known: it is refused.
    PeerRolledBack {
        /// The peer.
        peer: NodeId,
        /// The start in which it was met.
        known: u64,
        /// The one that it shows now.
        shown: u64,
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
    /// A peer said what no sound node says; its connection is closed.
    Breach {
        /// The peer.
        peer: NodeId,
        /// Of which group.
        group: GroupId,
        /// What it said.
        breach: Breach,
    },
    /// A connection could not be accepted; said rarely, counted always.
    AcceptFailed {
        /// The shard.
        shard: ShardId,
        /// What the kernel said.
        errno: i32,
    },
    /// A connection sent what nobody may send, and was closed.
    FrameRefused {
        /// The shard.
        shard: ShardId,
        /// Why: a sentence of `net`.
        reason: &'static str,
    },
}

impl LogEvent {
    /// Writes the line. For the control lane's thread only.
    pub fn emit(&self) {
        match *self {
            Self::Shard(shard, event) => emit_shard(shard, event),
            Self::Recovered { shard, groups, entries, took_us } => {
                tracing::info!(%shard, groups, entries, took_us, "log recovered");
            }
            Self::WaitsToBeAdded { shard, groups } => {
                tracing::info!(
                    %shard, groups,
                    "this node waits to be added to its groups: until then it votes in none of them"
                );
            }
            Self::TailCut { shard, blocks } => {
                tracing::warn!(%shard, blocks, "torn tail cut: nothing acknowledged was in it");
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
            Self::PeerRolledBack { peer, known, shown } => {
                tracing::error!(
                    %peer, known, shown,
                    "peer refused: its data directory is an older copy, so it forgot what it \
                     promised since; give it its newest directory back"
                );
            }
            Self::PeerRefused { peer, reason } => {
                tracing::error!(%peer, reason, "the handshake with a peer failed");
            }
            Self::PeerNotFound { peer } => {
                tracing::warn!(%peer, "a peer's name can't be resolved; it is tried again");
            }
            Self::Breach { peer, group, breach } => {
                tracing::error!(%peer, %group, %breach, "link closed: the peer broke the protocol");
            }
            Self::AcceptFailed { shard, errno } => {
                let error = io::Error::from_raw_os_error(errno);
                tracing::error!(
                    %shard, %error,
                    "no room for a connection, tried again every half second: raise the limit of \
                     open files (ulimit -n, or LimitNOFILE in the unit)"
                );
            }
            Self::FrameRefused { shard, reason } => {
                tracing::warn!(%shard, reason, "connection closed: it broke the protocol");
            }
        }
    }
}

fn emit_shard(shard: ShardId, event: ShardEvent) {
    match event {
        ShardEvent::ElectionStarted { group, term } => {
            tracing::info!(%group, %term, "stands for election");
        }
        ShardEvent::BecameLeader { group, term, last } => {
            tracing::info!(%group, %term, %last, "leads");
        }
        ShardEvent::SteppedDown { group, term } => tracing::info!(%group, %term, "steps down"),
        ShardEvent::Follows { group, term, leader } => {
            tracing::info!(%group, %term, %leader, "follows");
        }
        ShardEvent::Unreadable { group, error } => {
            tracing::error!(
                %shard, %group, %error,
                "entries of the log can't be read back: the other nodes are asked for them"
            );
        }
        ShardEvent::Mended { group, first, last, entries } => {
            tracing::warn!(
                %shard, %group, %first, %last, %entries,
                "what couldn't be read is here again, in another place of the log"
            );
        }
        ShardEvent::Scrubbed { bytes, rotten, rotten_snapshots, took } => {
            let took_ms = took.0 / 1_000;
            tracing::info!(
                %shard, %bytes, %rotten, %rotten_snapshots, %took_ms,
                "the log and the snapshots were read through"
            );
        }
        ShardEvent::NotMended { group, first } => {
            tracing::error!(
                %shard, %group, %first,
                "no node that was asked has the entries that can't be read here; they are asked for \
                 again"
            );
        }
        ShardEvent::EntriesLost { group, first, promised } => {
            tracing::error!(
                %shard, %group, %first, %promised,
                "rot took entries of the log: they are taken from the other nodes again"
            );
        }
        ShardEvent::Repaired { group, last } => {
            tracing::warn!(
                %shard, %group, %last,
                "what rot took is here again: the group is whole and serves"
            );
        }
        ShardEvent::Diverged { group, index, own, majority, waits } => {
            let waits_s = waits.0 / 1_000_000;
            tracing::error!(
                %shard, %group, %index, own = format_args!("{own:016x}"),
                majority = format_args!("{majority:016x}"), waits_s,
                "the state here is another one than that of a majority: the group serves nobody \
                 until it is rebuilt from the leader's; if it comes again, test this machine's \
                 memory, and see that all nodes run the same version"
            );
        }
        ShardEvent::Undecided { group, index, own, other, hash } => {
            tracing::error!(
                %shard, %group, %index, own = format_args!("{own:016x}"), %other,
                hash = format_args!("{hash:016x}"),
                "replicas hold different states, and no majority holds the same: nobody knows who \
                 is right; compare what they hold, then give the wrong one an empty directory"
            );
        }
        ShardEvent::Rebuilt { group, last } => {
            tracing::warn!(
                %shard, %group, %last,
                "the group has its leader's state now, and serves again"
            );
        }
        ShardEvent::Halted { group, halt: Halt::Diverged } => {
            tracing::error!(%shard, %group, "the state has diverged: the group refuses to serve");
        }
        ShardEvent::Halted { group, halt: Halt::Damaged } => {
            tracing::error!(%shard, %group, "the log has rot: the group refuses to serve");
        }
        ShardEvent::Halted { group, halt: Halt::UnknownCommand(index) } => {
            tracing::error!(
                %shard, %group, %index,
                "an entry is unknown to this version: the group refuses to serve; run a newer one"
            );
        }
        ShardEvent::Halted { group, halt: Halt::Removed } => {
            tracing::info!(%shard, %group, "the group left: it isn't on this node any more");
        }
        ShardEvent::PlacementUnreadable { group } => {
            tracing::error!(
                %shard, %group,
                "the system group says of a group what this version doesn't understand: it is left \
                 as it is"
            );
        }
        ShardEvent::GroupCame { group, joins: false } => {
            tracing::info!(%shard, %group, "a group begins");
        }
        ShardEvent::GroupCame { group, joins: true } => {
            tracing::info!(%shard, %group, "a group comes to this node, and waits to be added");
        }
        ShardEvent::Halted { group, halt: Halt::RolledBack } => {
            tracing::error!(
                %shard, %group,
                "the data directory is an older copy: the group refuses to serve"
            );
        }
        ShardEvent::RolledBack { lacked, start } => {
            let (peer, met, start) = (lacked.by, lacked.start.number, start.number);
            tracing::error!(
                %shard, %peer, met, start,
                "this node's data directory is an older copy: a peer met it in a start that isn't \
                 in it, so it forgot what it promised since, and refuses to serve; stop it and \
                 give it its newest directory back"
            );
        }
        ShardEvent::SlowWrite { group, index, total, stage, span } => {
            let (total_us, slowest, slowest_us) = (total.get(), stage.name(), span.get());
            tracing::warn!(%group, %index, total_us, slowest, slowest_us, "slow write");
        }
        ShardEvent::SnapshotTaken { group, last, bytes, took, reason } => {
            let (took_us, because) = (took.get(), reason.name());
            tracing::info!(%shard, %group, %last, bytes, took_us, because, "snapshot taken");
        }
        ShardEvent::SnapshotFailed { group, error } => {
            tracing::error!(%shard, %group, %error, "a snapshot can't be written: tried again");
        }
        ShardEvent::SnapshotUnreadable { group, number, error } => {
            tracing::error!(
                %shard, %group, number, %error,
                "a snapshot can't be read: a running node takes another one; a start goes by an \
                 older one and the log, or the group refuses to serve"
            );
        }
        ShardEvent::SnapshotInstalled { group, from, sources, last, bytes, took } => {
            let took_us = took.get();
            tracing::info!(
                %shard, %group, %last, %from, sources, bytes, took_us, "snapshot installed"
            );
        }
        ShardEvent::InstallFailed { group, error } => {
            tracing::error!(
                %shard, %group, %error,
                "a snapshot is needed here, and none can be had or stored: tried again"
            );
        }
        ShardEvent::MembersChanged { group, index, phase, voters, learners, is_member } => {
            let what = match phase {
                Phase::Stable if is_member => "members changed",
                Phase::Stable => "members changed: this node isn't one of them any more",
                Phase::Joint => "members change: both majorities decide until it is done",
                Phase::Held => {
                    "members change: both majorities decide until somebody goes on, or back"
                }
                Phase::Aborted => "members are as before: a change was given up",
            };
            tracing::info!(%shard, %group, %index, voters, learners, "{what}");
        }
        ShardEvent::HandedOver { group, to, took, reason } => {
            let millis = took.0 / 1_000;
            let why = reason_of(reason);
            tracing::info!(%group, %to, millis, why, "handed over: another node leads");
        }
        ShardEvent::NotHandedOver { group, to, took, reason } => {
            let millis = took.0 / 1_000;
            let why = reason_of(reason);
            tracing::warn!(%group, %to, millis, why, "not handed over: that node didn't take it");
        }
        ShardEvent::Paused(true) => {
            tracing::warn!(%shard, "elections are paused: groups here don't stand, and are handed over");
        }
        ShardEvent::Paused(false) => {
            tracing::info!(%shard, "elections are resumed: groups here stand as before");
        }
        ShardEvent::Memory { level: MemoryLevel::Full, bytes, bytes_max, .. } => {
            tracing::error!(
                bytes,
                bytes_max,
                "the memory for data is full: writes that grow are refused"
            );
        }
        ShardEvent::Memory { level: MemoryLevel::Warning, before, bytes, bytes_max } => {
            match before {
                MemoryLevel::Full => tracing::warn!(
                    bytes,
                    bytes_max,
                    "the memory for data has room again: writes are accepted"
                ),
                _ => tracing::warn!(bytes, bytes_max, "the memory for data is nearly full"),
            }
        }
        ShardEvent::Memory { level: MemoryLevel::Normal, bytes, bytes_max, .. } => {
            tracing::info!(bytes, bytes_max, "the memory for data has room");
        }
        ShardEvent::PeerMemory { node, is_full: true } => {
            tracing::error!(%shard, %node, "a node's memory is full: where it votes, writes that grow are refused");
        }
        ShardEvent::PeerMemory { node, is_full: false } => {
            tracing::info!(%shard, %node, "a node's memory isn't full any more");
        }
        ShardEvent::DiskFull(true) => {
            tracing::error!(%shard, "the disk is full: writes are refused, reads go on");
        }
        ShardEvent::DiskFull(false) => {
            tracing::info!(%shard, "the disk has space again: writes are accepted");
        }
        ShardEvent::DiskStuck(true) => {
            tracing::error!(%shard, "the disk is stuck: groups here don't lead until it moves");
        }
        ShardEvent::DiskStuck(false) => {
            tracing::info!(%shard, "the disk moves again: groups here take part again");
        }
        ShardEvent::StoodStill { late } => {
            let millis = late.0 / 1_000;
            tracing::warn!(%shard, millis, "the shard stood still: what it led may be led elsewhere");
        }
        ShardEvent::Leaderless { groups, first, waited } => {
            let seconds = waited.0 / 1_000_000;
            tracing::error!(
                %shard, groups, %first, seconds,
                "nobody leads groups here: they serve nothing that is up to date"
            );
        }
    }
}

/// Why a group is handed over, for people.
fn reason_of(reason: TransferReason) -> &'static str {
    match reason {
        TransferReason::Asked => "asked for",
        TransferReason::Paused => "elections are paused",
        TransferReason::Stopping => "the node stops",
        TransferReason::Priority => "it has a higher priority",
        TransferReason::Spread => "leaders are spread",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shard::metrics::Stage;
    use ringraft_shard::{InstallFailure, SnapshotReason};
    use ringraft_types::{Index, LogId, Sequence, Term, Ticks};
    use ringraft_wal::{ReadError, SnapshotError};
    use std::sync::Mutex;

    /// What the events write, a line each.
    fn lines(events: &[LogEvent]) -> Vec<String> {
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("lock").write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Arc::new(Mutex::new(Vec::new()));
        let to = written.clone();
        let lines = fmt::layer().without_time().with_ansi(false).with_target(false);
        let lines = lines.with_writer(move || Lines(to.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            events.iter().for_each(LogEvent::emit);
        });
        let text = String::from_utf8(written.lock().expect("lock").clone()).expect("text");
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Goal: what a shard says becomes one line, which names the group or the shard, and tells the
    /// two reasons to halt apart.
    #[test]
    fn what_a_shard_says_is_a_line() {
        let (group, term) = (GroupId(7), Term(3));
        let slow = ShardEvent::SlowWrite {
            group,
            index: Index(9),
            total: Ticks(1500),
            stage: Stage::Sync,
            span: Ticks(1200),
        };
        let rot = ReadError::Rot { segment: 4, offset: 8192, sequence: Sequence(12), errno: 0 };
        let unknown = Halt::UnknownCommand(Index(9));
        let said = [
            (ShardEvent::SteppedDown { group, term }, "INFO steps down group=7 term=3"),
            (
                ShardEvent::EntriesLost {
                    group,
                    first: Index(9),
                    promised: LogId::new(term, Index(12)),
                },
                "ERROR rot took entries of the log: they are taken from the other nodes again \
                 shard=2 group=7 first=9 promised=3.12",
            ),
            (
                ShardEvent::Repaired { group, last: Index(12) },
                "WARN what rot took is here again: the group is whole and serves shard=2 group=7 \
                 last=12",
            ),
            (
                ShardEvent::Halted { group, halt: Halt::Damaged },
                "ERROR the log has rot: the group refuses to serve shard=2 group=7",
            ),
            (
                ShardEvent::Unreadable { group, error: rot },
                "ERROR entries of the log can't be read back: the other nodes are asked for them \
                 shard=2 group=7 error=the block at 8192 of segment 4 is rotten (errno 0)",
            ),
            (
                ShardEvent::Mended { group, first: Index(7), last: Index(9), entries: 3 },
                "WARN what couldn't be read is here again, in another place of the log shard=2 \
                 group=7 first=7 last=9 entries=3",
            ),
            (
                ShardEvent::Scrubbed {
                    bytes: 4096,
                    rotten: 1,
                    rotten_snapshots: 0,
                    took: Ticks(2500),
                },
                "INFO the log and the snapshots were read through shard=2 bytes=4096 rotten=1 \
                 rotten_snapshots=0 took_ms=2",
            ),
            (
                ShardEvent::NotMended { group, first: Index(9) },
                "ERROR no node that was asked has the entries that can't be read here; they are \
                 asked for again shard=2 group=7 first=9",
            ),
            (
                ShardEvent::Halted { group, halt: unknown },
                "ERROR an entry is unknown to this version: the group refuses to serve; run a \
                 newer one shard=2 group=7 index=9",
            ),
            (
                slow,
                "WARN slow write group=7 index=9 total_us=1500 slowest=\"sync\" slowest_us=1200",
            ),
            (
                ShardEvent::SnapshotTaken {
                    group,
                    last: Index(9),
                    bytes: 8192,
                    took: Ticks(1500),
                    reason: SnapshotReason::Asked,
                },
                "INFO snapshot taken shard=2 group=7 last=9 bytes=8192 took_us=1500 \
                 because=\"it was asked for\"",
            ),
            (
                ShardEvent::SnapshotFailed { group, error: SnapshotError::Full },
                "ERROR a snapshot can't be written: tried again shard=2 group=7 error=the disk is \
                 full",
            ),
            (
                ShardEvent::SnapshotInstalled {
                    group,
                    from: NodeId(3),
                    sources: 2,
                    last: Index(9),
                    bytes: 8192,
                    took: Ticks(1500),
                },
                "INFO snapshot installed shard=2 group=7 last=9 from=3 sources=2 bytes=8192 \
                 took_us=1500",
            ),
            (
                ShardEvent::MembersChanged {
                    group,
                    index: Index(12),
                    phase: Phase::Stable,
                    voters: 3,
                    learners: 1,
                    is_member: false,
                },
                "INFO members changed: this node isn't one of them any more shard=2 group=7 index=12 \
                 voters=3 learners=1",
            ),
            (
                ShardEvent::InstallFailed { group, error: InstallFailure::NoSource },
                "ERROR a snapshot is needed here, and none can be had or stored: tried again shard=2 \
                 group=7 error=no node of the group gives a snapshot",
            ),
            (
                ShardEvent::Memory {
                    level: MemoryLevel::Full,
                    before: MemoryLevel::Warning,
                    bytes: 101,
                    bytes_max: 100,
                },
                "ERROR the memory for data is full: writes that grow are refused bytes=101 \
                 bytes_max=100",
            ),
            (
                ShardEvent::PeerMemory { node: NodeId(3), is_full: true },
                "ERROR a node's memory is full: where it votes, writes that grow are refused \
                 shard=2 node=3",
            ),
            (
                ShardEvent::DiskFull(true),
                "ERROR the disk is full: writes are refused, reads go on shard=2",
            ),
            (
                ShardEvent::DiskStuck(true),
                "ERROR the disk is stuck: groups here don't lead until it moves shard=2",
            ),
            (
                ShardEvent::StoodStill { late: Ticks::from_millis(1_200) },
                "WARN the shard stood still: what it led may be led elsewhere shard=2 millis=1200",
            ),
            (
                ShardEvent::Leaderless { groups: 3, first: group, waited: Ticks(61_000_000) },
                "ERROR nobody leads groups here: they serve nothing that is up to date shard=2 \
                 groups=3 first=7 seconds=61",
            ),
        ];
        let events: Vec<LogEvent> =
            said.iter().map(|&(event, _)| LogEvent::Shard(ShardId(2), event)).collect();
        let expected: Vec<&str> = said.iter().map(|&(_, line)| line).collect();
        assert_eq!(lines(&events), expected);
    }
}
