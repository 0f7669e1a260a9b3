//! The start order of a node: lock the data directory, know who we are, take the ports, recover
//! the logs, wire the mesh, listen.
//!
//! Nothing is listened to before every check that can refuse has passed, and nothing is served
//! before the logs are recovered.

mod directory;
mod leave;

use self::directory::{Keeper, LOST, open_directory};
use crate::config::{Addresses, Config, SyncMethod};
use crate::control::{LogEvent, StopSignals};
use crate::cores::{self, Doorbells, Resolver};
use crate::events::EventSink;
use crate::feed::MeshFeed;
use crate::parcel::Parcel;
use crate::reactor::{self, Lane, LaneError, Reactor, RingError, Stop};
use crate::seats::Seats;
use crate::wires::Wires;
use crate::{clock, control};
use ringraft_net::Identity;
use ringraft_net::Role;
use ringraft_raft::Settings;
use ringraft_shard::limits::{LOG_RESERVE_BYTES, Limits};
use ringraft_shard::machine::{KvMachine, StateMachine};
use ringraft_shard::mesh::{Mesh, MeshEnd, MeshLimits, Wake};
use ringraft_shard::{Loading, Member, Shard, ShardError, ShardSettings};
use ringraft_types::{GroupId, Lacked, NodeId, ShardId, Starts, Ticks};
use ringraft_wal::device::uring::UringDevice;
use ringraft_wal::device::{Durability, geometry};
use ringraft_wal::{LogSettings, Recovered, RecoveredGroup, WalError};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// The folder of the logs within a data directory.
pub const LOG_FOLDER: &str = "wal";
/// What a node is started with beside its configuration.
#[derive(Debug)]
pub struct RunOptions {
    /// Accept a file system without direct I/O; for `dev` only.
    pub allow_buffered: bool,
    /// Changes the level of logs at run time.
    pub log: control::LogControl,
    /// Says when the node is to stop.
    pub stop: control::StopSignals,
    /// Who is told what happens, if anybody.
    pub(crate) events: Option<EventSink>,
}

/// Why a node doesn't start, or doesn't go on. Each has an exit code in `cli/exit.rs`.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The data directory is missing, in use, or somebody else's.
    #[error("{0}")]
    DataDirectory(String),
    /// The file system can't do what the log needs.
    #[error(transparent)]
    FileSystem(#[from] geometry::GeometryError),
    /// A port can't be listened on.
    #[error(transparent)]
    Port(#[from] control::BindError),
    /// io_uring isn't to be had.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A log can't be recovered.
    #[error("shard {shard}: {error}")]
    Recovery {
        /// The shard.
        shard: u16,
        /// Why not.
        error: WalError,
    },
    /// A lane stopped: the node stops with it.
    #[error("shard {shard} stopped: {error}")]
    Lane {
        /// The shard.
        shard: u16,
        /// Why.
        error: LaneError,
    },
    /// The system refused something else.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> BootError {
    move |error| BootError::System { what, error }
}

/// Makes the state machine of a group; called on its shard's thread.
pub type MachineFactory = Arc<dyn Fn(GroupId) -> Box<dyn StateMachine> + Send + Sync>;

/// The same, but for the system group: it has the built-in machine on every node.
fn with_system(machines: MachineFactory) -> MachineFactory {
    Arc::new(move |group| match group {
        GroupId::SYSTEM => Box::new(KvMachine::new()),
        group => machines(group),
    })
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// If it can't start, or had to stop.
pub fn run(config: Config, options: RunOptions, machines: MachineFactory) -> Result<(), BootError> {
    abort_on_panic();
    let machines = with_system(machines);
    let seats = Seats::new(connections_max(&config));
    let directory = open_directory(&config)?;
    let lock = directory.lock;
    geometry::probe(&config.data_dir.join(LOG_FOLDER), options.allow_buffered)?;
    let identity = Identity {
        cluster: config.cluster,
        incarnation: directory.found.manifest.incarnation,
        node: config.node,
    };
    drop(reactor::ring(8)?);
    let listeners = listen(&config.listen)?;
    let http = control::bind("http", &config.listen.http)?;
    // The last that can refuse, so that a start that is refused for something else isn't counted.
    let keeper = Keeper::new(&config, directory.found);
    let manifest = keeper.count_start(&config.nodes)?;
    let (starts, voters) = (manifest.starts, manifest.first.expect("written with the start"));

    let shards = config.cpu.shards.len();
    let stop = Arc::new(AtomicBool::new(false));
    let doorbells = Doorbells::new(shards + 1).map_err(system("making doorbells"))?;
    let resolvers = Resolver::start(shards, &doorbells).map_err(system("starting the resolver"))?;
    let limits = MeshLimits { requests: 1024, notices: 4096 };
    let mut ends = Mesh::<Parcel>::new(shards + 1, limits).into_ends();
    let control_end = ends.pop().expect("there is a lane for control");

    // This thread keeps the log too: who drops it last writes out what waits, and no more after it.
    let log = options.log.clone();
    let sink = options.events.clone();
    // Before a shard accepts: who connects must not take the descriptors that this lane needs.
    let control = start_control(&config, http, control_end, &doorbells, &stop, (log, sink))?;

    let (outcomes, ended) = channel();
    let note_older_copy = {
        let outcomes = outcomes.clone();
        // The main thread outlives every lane.
        move |lacked| drop(outcomes.send(Outcome::OlderCopy(lacked)))
    };
    let mut threads = Vec::new();
    let mut listeners = Some(listeners);
    for (shard, (mesh, resolver)) in ends.into_iter().zip(resolvers).enumerate() {
        let part = Part {
            shard: ShardId(shard as u16),
            config: config.clone(),
            identity,
            starts: starts.clone(),
            voters: voters.clone(),
            keeper: keeper.clone(),
            directory: config.data_dir.join(LOG_FOLDER),
            allow_buffered: options.allow_buffered,
            listeners: listeners.take().unwrap_or_default(),
            stop: stop.clone(),
            doorbells: doorbells.clone(),
            mesh,
            resolver,
            machines: machines.clone(),
            seats: seats.clone(),
            note_older_copy: Box::new(note_older_copy.clone()),
            lock: lock.try_clone().map_err(system("sharing the lock"))?.into(),
        };
        let outcomes = outcomes.clone();
        let core = config.cpu.shards[shard];
        let thread = cores::spawn(format!("shard-{shard}"), Some(core), move || {
            let result = part.run();
            // The main thread outlives every lane.
            let _ = outcomes.send(Outcome::Ended(shard as u16, result));
        });
        threads.push(thread.map_err(system("starting a shard's thread"))?);
    }
    stop_on_signals(options.stop, outcomes.clone())?;

    // The first lane to end, or a signal, ends the node.
    let mut first = loop {
        match ended.recv().expect("this thread holds a sender") {
            Outcome::OlderCopy(lacked) => keeper.lacks(lacked),
            end => break end,
        }
    };
    if let (Outcome::Signal, Some(limit)) = (&first, config.leave_on_stop) {
        first = leave::leave(&config, identity, limit, &outcomes, &ended, &keeper);
    }
    stop.store(true, Ordering::Release);
    (0..=shards).for_each(|lane| doorbells.wake(lane));
    let mut result = Ok(());
    let mut note = |outcome: Outcome| match outcome {
        Outcome::Ended(shard, Ok(Stop::Late)) => {
            tracing::warn!(shard, "stopped before all that was taken on was done and answered");
        }
        Outcome::Ended(_, Err(error)) if result.is_ok() => result = Err(error),
        Outcome::OlderCopy(lacked) => keeper.lacks(lacked),
        Outcome::Ended(..) | Outcome::Signal | Outcome::Left => {}
    };
    note(first);
    for thread in threads {
        // A panic aborts the process; a thread that ends has sent its outcome.
        let _ = thread.join();
    }
    while let Ok(outcome) = ended.try_recv() {
        note(outcome);
    }
    let _ = control.join();
    drop(lock);
    drop((options.log, options.events));
    result
}

/// Descriptors that connections never take: a log without one for its next segment would stop the
/// node.
const DESCRIPTORS_RESERVED: u64 = 256;

/// How many clients the node may have: as configured, unless the system allows fewer descriptors.
/// The soft limit is raised as far as it goes.
fn connections_max(config: &Config) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it is refused, the limit in force counts.
    let _ = setrlimit(Resource::Nofile, limit);
    let wanted = config.limits.connections_max;
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return wanted };
    let reserved = DESCRIPTORS_RESERVED + config.limits.http_connections_max as u64;
    let left = descriptors.saturating_sub(reserved);
    let most = usize::try_from(left).unwrap_or(usize::MAX).max(1);
    if most < wanted {
        tracing::warn!(
            descriptors,
            "limits.connections_max is {wanted}, the system's limit of open files leaves room for \
             {most}: raise it (ulimit -n, or LimitNOFILE in the unit)"
        );
    }
    wanted.min(most)
}

/// A broken promise of our own code ends the process, whichever thread finds it: no half of a node
/// goes on (P03).
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// What the main thread is told.
enum Outcome {
    /// The node is to stop.
    Signal,
    /// It left its groups before, as far as that could be.
    Left,
    /// A lane came to its end.
    Ended(u16, Result<Stop, BootError>),
    /// The data directory is an older copy: to be written down.
    OlderCopy(Lacked),
}

fn stop_on_signals(stop: StopSignals, outcomes: Sender<Outcome>) -> Result<(), BootError> {
    cores::spawn(String::from("signals"), None, move || {
        // The second ends what the first began that may take long.
        for _ in 0..2 {
            stop.wait();
            // If nobody listens any more, the node stops already.
            let _ = outcomes.send(Outcome::Signal);
        }
    })
    .map(drop)
    .map_err(system("starting the signal thread"))
}

fn start_control(
    config: &Config,
    http: TcpListener,
    mesh: MeshEnd<Parcel>,
    doorbells: &Doorbells,
    stop: &Arc<AtomicBool>,
    (log, sink): (control::LogControl, Option<EventSink>),
) -> Result<JoinHandle<()>, BootError> {
    let (ready, is_ready) = channel::<()>();
    let feed = MeshFeed::new(config, mesh, doorbells.clone(), stop.clone(), sink);
    let core = config.cpu.control[0];
    let http_connections_max = config.limits.http_connections_max;
    let log_dir = config.data_dir.join(LOG_FOLDER);
    let control = cores::spawn(String::from("control"), None, move || {
        let options = control::ControlOptions {
            core: Some(core),
            connections_max: http_connections_max,
            patience: control::ControlOptions::PATIENCE,
            log_dir,
        };
        if let Err(error) = control::serve(http, options, feed, log, || drop(ready)) {
            // Consensus goes on without it.
            tracing::error!("the control lane stopped: {error}");
        }
    })
    .map_err(system("starting the control lane"))?;
    // Whether it is ready or has stopped: nobody sends, the sender is dropped.
    let _ = is_ready.recv();
    Ok(control)
}

fn listen(addresses: &Addresses) -> Result<Vec<(OwnedFd, Role)>, BootError> {
    let mut listeners = Vec::new();
    for (what, address, role) in
        [("client", &addresses.client, Role::Client), ("peer", &addresses.peer, Role::Peer)]
    {
        let listener = control::bind(what, address)?;
        // The ring waits by itself; a non-blocking socket would make it give up instead.
        listener.set_nonblocking(false).map_err(system("preparing a listener"))?;
        listeners.push((OwnedFd::from(listener), role));
    }
    Ok(listeners)
}

/// What one shard's thread takes along.
struct Part {
    shard: ShardId,
    config: Config,
    identity: Identity,
    starts: Starts,
    voters: Vec<NodeId>,
    keeper: Keeper,
    directory: PathBuf,
    allow_buffered: bool,
    listeners: Vec<(OwnedFd, Role)>,
    stop: Arc<AtomicBool>,
    doorbells: Doorbells,
    mesh: MeshEnd<Parcel>,
    resolver: Resolver,
    machines: MachineFactory,
    seats: Seats,
    note_older_copy: Box<dyn Fn(Lacked) + Send>,
    lock: OwnedFd,
}

impl Part {
    fn run(self) -> Result<Stop, BootError> {
        let shard = self.shard.0;
        let lane = |error| BootError::Lane { shard, error };
        let mut ring = reactor::ring(reactor::RING_ENTRIES)?;
        // Registered, it stays locked until the last write of this ring is gone, even after a
        // kill.
        reactor::hold_lock(&ring, &self.lock).map_err(system("registering the lock"))?;
        let mut device = UringDevice::open(&self.directory, self.allow_buffered)?;
        let began = clock::now();
        let log_id = u64::from(shard) + 1;
        let is_begun = self.keeper.is_begun(log_id);
        let settings = self.log_settings(log_id, is_begun);
        let (log, recovered) =
            reactor::recover(&mut ring, &mut device, settings).map_err(|error| match error {
                reactor::RecoverError::Log(WalError::Lost { .. }) => {
                    let files = self.directory.join(format!("wal-{log_id:016x}-*.seg"));
                    BootError::DataDirectory(format!("log {log_id}, {}, {LOST}", files.display()))
                }
                reactor::RecoverError::Log(error) => BootError::Recovery { shard, error },
                reactor::RecoverError::Ring(error) => lane(LaneError::Ring(error)),
            })?;
        let machines = self.machines.clone();
        let loading = Loading::new(log, recovered, &self.config.all_groups());
        let loaded = reactor::load(&mut ring, &mut device, loading, &*machines).map_err(lane)?;
        let mut wires = Wires::new(
            self.identity,
            self.starts.newest(),
            self.shard,
            self.config.cpu.shards.len() as u16,
            self.mesh,
            self.seats,
        );
        for event in told_by_recovery(self.shard, loaded.recovered(), clock::now().since(began)) {
            // The ring is empty: there is room.
            let _ = wires.mesh.send(self.config.cpu.shards.len(), Parcel::Log(event, 0));
        }
        let settings =
            shard_settings(&self.config, self.identity, self.starts, self.voters, self.shard);
        let machine = move |group| machines(group);
        let mut shard_object = Shard::new(settings, device, wires, loaded, clock::now(), machine)
            .map_err(|error: ShardError| lane(LaneError::Shard(error)))?;
        let waits = |group: &&GroupId| shard_object.waits_to_be_added(**group);
        let groups = self.config.all_groups().iter().filter(waits).count() as u64;
        if groups > 0 {
            let event = LogEvent::WaitsToBeAdded { shard: self.shard, groups };
            let _ =
                shard_object.links.mesh.send(self.config.cpu.shards.len(), Parcel::Log(event, 0));
        }
        if !is_begun {
            // Nothing is promised before it is known that the log must be there.
            let began = reactor::begin(&mut ring, &mut shard_object, &self.stop).map_err(lane)?;
            if began {
                self.keeper.begun(log_id)?;
            }
        }
        let doorbell = self.doorbells.of(usize::from(shard)).map_err(system("a doorbell"))?;
        let lane_parts = Lane {
            ring,
            doorbell,
            ringer: self.doorbells,
            listeners: self.listeners,
            spin: self.config.cpu.spin,
            stop: self.stop,
            resolver: self.resolver,
            control: self.config.cpu.shards.len(),
            note_older_copy: self.note_older_copy,
        };
        Reactor::new(lane_parts, shard_object).run().map_err(lane)
    }

    fn log_settings(&self, log_id: u64, is_begun: bool) -> LogSettings {
        let wal = &self.config.wal;
        let Identity { cluster, node, incarnation } = self.identity;
        let limits = Limits::default();
        LogSettings {
            is_begun,
            segment_bytes: wal.segment_bytes,
            inflight_max: wal.inflight,
            durability: match wal.sync {
                SyncMethod::Dsync => Durability::Dsync,
                SyncMethod::Fdatasync => Durability::LinkedSync,
                SyncMethod::Blocking => Durability::Blocking,
                SyncMethod::None => Durability::None,
            },
            group_commit_wait: wal.group_commit_wait,
            unsubmitted_bytes_max: limits.log_bytes_max + LOG_RESERVE_BYTES,
            ..LogSettings::new(cluster, node, incarnation, log_id)
        }
    }
}

/// What people want to know of a recovery.
fn told_by_recovery(shard: ShardId, recovered: &Recovered, took: Ticks) -> Vec<LogEvent> {
    let entries = |group: &RecoveredGroup| (group.last.0 + 1).saturating_sub(group.first.0);
    let mut events = vec![LogEvent::Recovered {
        shard,
        groups: recovered.groups.len() as u64,
        entries: recovered.groups.values().map(entries).sum(),
        took_us: took.0,
    }];
    if recovered.torn_blocks > 0 {
        events.push(LogEvent::TailCut { shard, blocks: recovered.torn_blocks });
    }
    events
}

/// A shard's settings from the node's configuration.
fn shard_settings(
    config: &Config,
    identity: Identity,
    starts: Starts,
    voters: Vec<NodeId>,
    shard: ShardId,
) -> ShardSettings {
    let raft = &config.raft;
    let limits = &config.limits;
    ShardSettings {
        identity,
        starts,
        shard,
        shards: config.cpu.shards.len() as u16,
        members: config
            .nodes
            .iter()
            .map(|node| Member {
                node: node.id,
                peer_address: node.addresses.peer.to_string(),
                client_address: node.addresses.client.to_string(),
            })
            .collect(),
        voters,
        groups: config.all_groups(),
        raft: Settings {
            election_timeout: raft.election_timeout,
            heartbeat_interval: raft.heartbeat_interval,
            append_entries_max: raft.append_entries_max,
            append_bytes_max: raft.append_bytes_max,
            inflight_appends_max: raft.inflight_appends_max,
            inflight_bytes_max: raft.inflight_bytes_max,
            reads_waiting_max: limits.pending_reads_max,
            commits_by_half: raft.commits_by_half,
            lease: raft.lease,
            hibernate_after: raft.hibernate_after,
        },
        lead: config.lead,
        limits: Limits {
            group_writes_max: limits.pending_writes_max,
            group_bytes_max: limits.pending_write_bytes_max,
            shard_writes_max: limits.node_pending_writes_max / config.cpu.shards.len(),
            shard_bytes_max: limits.node_pending_write_bytes_max / config.cpu.shards.len(),
            group_reads_max: limits.pending_reads_max,
            shard_reads_max: limits.node_pending_reads_max / config.cpu.shards.len(),
            shard_reads_bytes_max: limits.node_pending_read_bytes_max / config.cpu.shards.len(),
            cache_bytes_max: limits.entry_cache_bytes,
            data_bytes_max: limits.data_bytes_max,
            disk_wait_max: config.wal.stuck_limit,
            ..Limits::default()
        },
        snapshots: config.snapshot,
        scrub: config.scrub,
        state_note_entries: ringraft_shard::limits::STATE_NOTE_ENTRIES,
        slow_write: config.log.slow_write,
        seed: seed(identity, shard),
        name: config.name.clone(),
    }
}

/// Differs between nodes, lives and shards; the protocol needs no more of its jitter.
fn seed(identity: Identity, shard: ShardId) -> u64 {
    let now = clock::now();
    identity.incarnation.0
        ^ u64::from(identity.node.0).rotate_left(40)
        ^ u64::from(shard.0).rotate_left(56)
        ^ now.since(Ticks::ZERO).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    /// Set in the process that is to panic.
    const PANICS: &str = "RINGRAFT_TEST_PANICS";

    /// P03: a panic in one thread ends the process, and is told before; it leaves nothing half alive.
    #[test]
    fn p03_a_panic_in_one_thread_ends_the_process() {
        if std::env::var_os(PANICS).is_some() {
            abort_on_panic();
            let _ = std::thread::spawn(|| panic!("a broken promise")).join();
            std::process::exit(0);
        }
        let own = std::env::current_exe().expect("this test has a program");
        let name = "boot::tests::p03_a_panic_in_one_thread_ends_the_process";
        let ended = Command::new(own)
            .args(["--exact", name, "--nocapture"])
            .env(PANICS, "1")
            .stdin(Stdio::null())
            .output()
            .expect("it runs again");
        const SIGABRT: i32 = 6;
        assert_eq!(ended.status.signal(), Some(SIGABRT), "{ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains("a broken promise"), "{said}");
    }
}
