//! Disaster recovery, offline: what the data directories hold that survived the loss of a majority,
//! and a new cluster that goes on from it (decision 0016).
//!
//! The surviving directories are locked and read, never changed. The new one is another cluster's:
//! nothing of the old one can talk to it. Its manifest is written last, so a directory that is half
//! made is no node's.

use crate::boot::{LOG_FOLDER, MachineFactory};
use crate::clock;
use crate::config::{Config, Member};
use ringraft_shard::router::Router;
use ringraft_shard::salvage::{self, Held, NewLog, SalvageError, Salvaged};
use ringraft_types::{
    Addresses, Configuration, GroupId, Incarnation, NodeId, ShardId, Starts, Words,
};
use ringraft_wal::LogSettings;
use ringraft_wal::device::files::FilesDevice;
use ringraft_wal::device::geometry::{self, GeometryError};
use ringraft_wal::device::uring::parse_file_name;
use ringraft_wal::lock::{self, LockError};
use ringraft_wal::manifest::{Logs, Manifest, ManifestError};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file in a recovered directory that says what was done, a line each time.
pub const AUDIT_FILE: &str = "recovered.jsonl";

/// How long the last write of a node that was just killed is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why nothing was found, or formed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// No data directory.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A node runs on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A log of it.
    #[error("log {log} in {directory}: {error}")]
    Salvage {
        /// The data directory, the surviving or the new one.
        directory: PathBuf,
        /// Which log.
        log: u64,
        /// What is wrong.
        error: SalvageError,
    },
    /// The new directory's file system can't do what a log needs.
    #[error(transparent)]
    FileSystem(#[from] GeometryError),
    /// A system call failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// As the system says.
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    let path = path.to_path_buf();
    move |source| RecoverError::Io { what, path, source }
}

/// A data directory that survived. No node can start on it as long as this is there.
#[derive(Debug)]
pub struct Survivor {
    /// Where it is.
    pub directory: PathBuf,
    /// Whose it is.
    pub manifest: Manifest,
    /// Logs that were begun and aren't there: any group may have been in them.
    pub logs_missing: Vec<u64>,
    /// What it holds, ascending by group.
    pub groups: Vec<Holding>,
    _lock: Option<File>,
}

/// What a directory holds of a group.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The log that it is in.
    pub log: u64,
    /// How much that log holds.
    pub held: Held,
    /// Who voted as of the newest entry; none: not known.
    pub voters: Vec<NodeId>,
    /// The state's hash, as `status` shows it.
    pub state_hash: u64,
}

impl Holding {
    /// Whether nothing that it had promised is missing.
    pub fn is_whole(&self) -> bool {
        self.held.missing.is_none()
    }

    fn of(log: u64, salvaged: Salvaged, first: &[NodeId]) -> Self {
        let state_hash = salvaged.state_hash();
        let held = salvaged.held;
        let voters: Vec<NodeId> = held.members.configuration.all_voters().collect();
        Self {
            log,
            held,
            voters: if voters.is_empty() { first.to_vec() } else { voters },
            state_hash,
        }
    }
}

/// Looks at a data directory that no node runs on. Nothing in it is changed.
///
/// # Errors
/// If it isn't one, is in use, or can't be read.
pub fn survey(directory: &Path, machines: &MachineFactory) -> Result<Survivor, RecoverError> {
    let manifest = Manifest::load(directory)?.manifest;
    let lock = lock::look(directory, PATIENCE)?;
    let logs = logs_of(directory)?;
    let begun = (1..=Logs::ID_MAX).filter(|&log| manifest.logs.holds(log));
    let logs_missing = begun.filter(|log| !logs.contains(log)).collect();
    let first = manifest.first.clone().unwrap_or_default();
    let mut groups = Vec::new();
    for log in logs {
        let found = salvage_log(directory, &manifest, log, machines)?;
        groups.extend(found.into_iter().map(|salvaged| Holding::of(log, salvaged, &first)));
    }
    groups.sort_by_key(|holding| holding.held.group);
    let directory = directory.to_path_buf();
    Ok(Survivor { directory, manifest, logs_missing, groups, _lock: lock })
}

/// The logs of which there are files.
fn logs_of(directory: &Path) -> Result<BTreeSet<u64>, RecoverError> {
    let folder = directory.join(LOG_FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(failed("reading", &folder)(error)),
    };
    let mut logs = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(failed("reading", &folder))?.file_name();
        logs.extend(name.to_str().and_then(parse_file_name).map(|file| file.owner));
    }
    Ok(logs)
}

fn salvage_log(
    directory: &Path,
    manifest: &Manifest,
    log: u64,
    machines: &MachineFactory,
) -> Result<Vec<Salvaged>, RecoverError> {
    let Manifest { cluster, node, incarnation, .. } = *manifest;
    let mut settings = LogSettings::new(cluster, node, incarnation, log);
    settings.is_begun = manifest.logs.holds(log);
    let mut device = FilesDevice::looking_at(&directory.join(LOG_FOLDER));
    let mut machine = |group| machines(group);
    salvage::load(settings, &mut device, &mut machine)
        .and_then(|loaded| salvage::salvage(loaded, &mut device, &mut machine))
        .map_err(|error| RecoverError::Salvage { directory: directory.to_path_buf(), log, error })
}

/// Of each group the survivor that holds the most of it: the newest entry counts, by its term first,
/// as in an election; among equals, one that misses nothing.
pub fn best(survivors: &[Survivor]) -> BTreeMap<GroupId, usize> {
    let mut best: BTreeMap<GroupId, (usize, &Holding)> = BTreeMap::new();
    for (at, survivor) in survivors.iter().enumerate() {
        for holding in &survivor.groups {
            let rank = |holding: &Holding| (holding.held.last, holding.is_whole());
            match best.get(&holding.held.group) {
                Some((_, other)) if rank(other) >= rank(holding) => {}
                _ => drop(best.insert(holding.held.group, (at, holding))),
            }
        }
    }
    best.into_iter().map(|(group, (at, _))| (group, at)).collect()
}

/// Forms a new cluster of the configuration's node alone: its data directory, which must be empty or
/// missing, gets of each group what the survivor holds that is named for it. Others join it later.
///
/// # Errors
/// If a directory can't be read, or the new one can't be written.
pub fn apply(
    config: &Config,
    incarnation: Incarnation,
    survivors: &[Survivor],
    from: &BTreeMap<GroupId, usize>,
    machines: &MachineFactory,
) -> Result<(), RecoverError> {
    let folder = config.data_dir.join(LOG_FOLDER);
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&folder).map_err(failed("making", &folder))?;
    let lock = lock::acquire(&config.data_dir, Duration::ZERO)?;
    let geometry = geometry::probe(&folder, false)?.geometry;
    let own = config.nodes.iter().find(|node| node.id == config.node);
    let configuration = alone(own.expect("a configuration names its own node"), incarnation);
    let mut new = New {
        config,
        incarnation,
        configuration,
        device: FilesDevice::writing_to(&folder, geometry),
        logs: BTreeMap::new(),
        begun: Logs::default(),
    };
    for (at, survivor) in survivors.iter().enumerate() {
        let wanted = |group| from.get(&group) == Some(&at);
        let holdings = survivor.groups.iter().filter(|holding| wanted(holding.held.group));
        let sources: BTreeSet<u64> = holdings.map(|holding| holding.log).collect();
        for source in sources {
            let found = salvage_log(&survivor.directory, &survivor.manifest, source, machines)?;
            for salvaged in found.into_iter().filter(|salvaged| wanted(salvaged.held.group)) {
                new.add(salvaged)?;
            }
        }
    }
    let begun = new.begun;
    audit(config, survivors, from)?;
    let levels = survivors.iter().map(|survivor| survivor.manifest.feature_level);
    let manifest = Manifest {
        cluster: config.cluster,
        node: config.node,
        incarnation,
        feature_level: levels.max().unwrap_or(1),
        first: Some(vec![config.node]),
        starts: Starts::default(),
        logs: begun,
        lacked: None,
    };
    manifest.store(&config.data_dir, 1)?;
    drop(lock);
    Ok(())
}

/// The payload of a configuration in which this node votes alone.
fn alone(own: &Member, incarnation: Incarnation) -> Vec<u8> {
    let configuration = Configuration::first(vec![own.id], Vec::new()).expect("one voter");
    let (peer, client) = (own.addresses.peer.to_string(), own.addresses.client.to_string());
    let addresses = Addresses { peer: peer.as_bytes(), client: client.as_bytes() };
    let encoded = configuration.encode(|_| Words { incarnation, addresses });
    encoded.expect("addresses are checked where the file is read")
}

/// The logs of a directory that is being made.
struct New<'a> {
    config: &'a Config,
    incarnation: Incarnation,
    configuration: Vec<u8>,
    device: FilesDevice,
    logs: BTreeMap<u64, NewLog>,
    begun: Logs,
}

impl New<'_> {
    fn add(&mut self, salvaged: Salvaged) -> Result<(), RecoverError> {
        let Self { config, incarnation, configuration, device, logs, begun } = self;
        let ShardId(shard) = Router::new(config.cpu.shards.len() as u16).home(salvaged.held.group);
        let log_id = u64::from(shard) + 1;
        let wrap = |error| {
            let directory = config.data_dir.clone();
            RecoverError::Salvage { directory, log: log_id, error }
        };
        let log = match logs.entry(log_id) {
            Entry::Occupied(log) => log.into_mut(),
            Entry::Vacant(place) => {
                let settings = LogSettings {
                    segment_bytes: config.wal.segment_bytes,
                    ..LogSettings::new(config.cluster, config.node, *incarnation, log_id)
                };
                place.insert(NewLog::begin(settings, device).map_err(wrap)?)
            }
        };
        if log.add(device, salvaged, configuration).map_err(wrap)? {
            begun.insert(log_id);
        }
        Ok(())
    }
}

/// Writes down what was done, for whoever asks later why this cluster begins where it does.
fn audit(
    config: &Config,
    survivors: &[Survivor],
    from: &BTreeMap<GroupId, usize>,
) -> Result<(), RecoverError> {
    let path = config.data_dir.join(AUDIT_FILE);
    let groups = survivors.iter().enumerate().flat_map(|(at, survivor)| {
        let taken = survivor.groups.iter().filter(move |it| from.get(&it.held.group) == Some(&at));
        taken.map(move |holding| (survivor, holding))
    });
    let groups = groups.map(|(survivor, holding)| {
        serde_json::json!({
            "group": holding.held.group.get(),
            "from": survivor.directory.display().to_string(),
            "from_node": survivor.manifest.node.get(),
            "from_incarnation": format!("{:016x}", survivor.manifest.incarnation.get()),
            "last": {"term": holding.held.last.term.get(), "index": holding.held.last.index.get()},
            "commit": holding.held.commit.get(),
            "missing": holding
                .held
                .missing
                .map(|id| serde_json::json!({"term": id.term.get(), "index": id.index.get()})),
        })
    });
    let old = survivors.first().map(|survivor| format!("{:032x}", survivor.manifest.cluster.get()));
    let line = serde_json::json!({
        "what": "recovered without a majority: what only the nodes that are gone held is lost",
        "unix_seconds": clock::unix_seconds(),
        "old_cluster": old,
        "cluster": format!("{:032x}", config.cluster.get()),
        "node": config.node.get(),
        "version": env!("CARGO_PKG_VERSION"),
        "groups": groups.collect::<Vec<_>>(),
    });
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("making", &path))?;
    writeln!(file, "{line}").map_err(failed("writing", &path))?;
    file.sync_all().map_err(failed("syncing", &path))?;
    let directory = File::open(&config.data_dir).and_then(|directory| directory.sync_all());
    directory.map_err(failed("syncing", &config.data_dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shard::Members;
    use ringraft_types::{ClusterId, Index, LogId, Term};

    fn holding(group: u64, (term, index): (u64, u64), missing: bool) -> Holding {
        let last = LogId::new(Term(term), Index(index));
        let held = Held {
            group: GroupId(group),
            term: last.term,
            last,
            commit: Index::ZERO,
            snapshot: None,
            unreadable: Vec::new(),
            missing: missing.then_some(last),
            members: Members::none(),
        };
        Holding { log: 1, held, voters: Vec::new(), state_hash: 0 }
    }

    fn survivor(node: u32, groups: Vec<Holding>) -> Survivor {
        let manifest = Manifest {
            cluster: ClusterId(1),
            node: NodeId(node),
            incarnation: Incarnation(1),
            feature_level: 1,
            first: None,
            starts: Starts::default(),
            logs: Logs::default(),
            lacked: None,
        };
        let directory = PathBuf::from(format!("{node}"));
        Survivor { directory, manifest, logs_missing: Vec::new(), groups, _lock: None }
    }

    /// Goal: of each group the newest entry decides, by term before index; among equals, one that
    /// misses nothing, and else the first.
    #[test]
    fn the_newest_entry_decides() {
        let survivors = [
            survivor(1, vec![holding(1, (3, 90), false), holding(2, (5, 7), true)]),
            survivor(2, vec![holding(1, (4, 80), true), holding(2, (5, 7), false)]),
            survivor(3, vec![holding(1, (4, 79), false), holding(2, (5, 7), false)]),
            survivor(4, vec![holding(3, (0, 0), false)]),
        ];
        let found: Vec<(u64, usize)> =
            best(&survivors).into_iter().map(|(group, at)| (group.0, at)).collect();
        assert_eq!(found, [(1, 1), (2, 1), (3, 3)]);
    }

    /// Goal: a directory that holds no manifest, or no log of those that were begun, is told apart
    /// from one that holds nothing yet.
    #[test]
    fn a_directory_without_logs_is_told() {
        let machines: MachineFactory = crate::server::key_value();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        assert!(matches!(survey(path, &machines), Err(RecoverError::Manifest(_))));
        let mut manifest = survivor(1, Vec::new()).manifest;
        manifest.store(path, 1).expect("stored");
        let found = survey(path, &machines).expect("it was formatted");
        assert!(found.groups.is_empty() && found.logs_missing.is_empty());
        manifest.logs.insert(1);
        manifest.logs.insert(7);
        manifest.store(path, 2).expect("stored");
        let found = survey(path, &machines).expect("it was formatted");
        assert_eq!(found.logs_missing, [1, 7]);
    }
}
