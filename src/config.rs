//! Raw TOML into a validated [`Config`]: every default (`config/defaults.toml`) and every relation
//! between settings lives here. After this border nobody checks again and nobody has a hidden
//! default.
//!
//! Three layers, the first that names a setting wins: the node file, the profile that it names,
//! the built-in defaults. A refusal names the file, the line, the value and the cure.

mod address;
mod error;
mod placement;
mod raw;
mod validate;

pub use address::{Address, AddressError};
pub use error::ConfigError;
pub use placement::Machine;

use raw::{FileKind, RawFile};
use ringraft_shard::{LeadRules, ScrubRules, SnapshotRules};
use ringraft_types::{ClusterId, GroupId, NodeId, Ticks};
use std::fmt;
use std::path::{Path, PathBuf};

/// The profiles that are compiled in: name and text.
pub const PROFILES: &[(&str, &str)] = &[
    ("dev-laptop", include_str!("../tuning/dev-laptop.toml")),
    ("container", include_str!("../tuning/container.toml")),
    ("low-latency", include_str!("../tuning/low-latency.toml")),
];

/// The built-in defaults as text: every setting with its unit and reason.
pub const DEFAULTS_TEXT: &str = raw::DEFAULTS;

/// What a node runs with. Every relation between these values holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster's random name.
    pub cluster: ClusterId,
    /// This node's number, one of `nodes`.
    pub node: NodeId,
    /// This node's name, for people.
    pub name: String,
    /// The data directory, absolute if the configuration file's path was.
    pub data_dir: PathBuf,
    /// Every node of the cluster, this one among them, ascending by id.
    pub nodes: Vec<Member>,
    /// Where this node listens; its row in `nodes` says where it is reached.
    pub listen: Addresses,
    /// The groups that exist from the start, beside the system group, ascending.
    pub groups: Vec<GroupId>,
    /// Cores.
    pub cpu: Cpu,
    /// The write-ahead log.
    pub wal: Wal,
    /// When snapshots are taken, and how many are kept.
    pub snapshot: SnapshotRules,
    /// How often the log is read through to find rot.
    pub scrub: ScrubRules,
    /// Elections and replication.
    pub raft: Raft,
    /// Who is to lead.
    pub lead: LeadRules,
    /// What is refused, and from when on.
    pub limits: Limits,
    /// A node that is told to stop leaves its groups before, within this time; `None`: it stays a
    /// member of them.
    pub leave_on_stop: Option<Ticks>,
    /// Logs for people.
    pub log: Log,
    /// The profile's name, if one is used.
    pub profile: Option<String>,
    /// What works but is probably not meant. To be logged at start.
    pub warnings: Vec<String>,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Where it is reached.
    pub addresses: Addresses,
}

/// The three ports of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For the other nodes.
    pub peer: Address,
    /// For native clients.
    pub client: Address,
    /// For HTTP: health, metrics, status.
    pub http: Address,
}

/// Cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The core of each shard; all different.
    pub shards: Vec<usize>,
    /// The housekeeping cores, at least one.
    pub control: Vec<usize>,
    /// How long an idle shard spins before it sleeps.
    pub spin: Ticks,
}

/// The write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wal {
    /// The size of one segment; a multiple of 4096.
    pub segment_bytes: u64,
    /// How a write becomes durable.
    pub sync: SyncMethod,
    /// Batches on their way to disk at once.
    pub inflight: usize,
    /// How long a batch waits for company.
    pub group_commit_wait: Ticks,
    /// For how long the disk may hold one write before the node stops.
    pub stuck_limit: Ticks,
}

/// How a write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMethod {
    /// One write with RWF_DSYNC.
    Dsync,
    /// A write linked to an fdatasync.
    Fdatasync,
    /// pwrite and fdatasync in the shard's own thread.
    Blocking,
    /// Not at all: for experiments, and labelled as such everywhere.
    None,
}

/// Elections and replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raft {
    /// A leader sends heartbeats at least this often.
    pub heartbeat_interval: Ticks,
    /// Silence before an election; a random part of up to as much again is added.
    pub election_timeout: Ticks,
    /// A group that is idle for so long hibernates; zero: never.
    pub hibernate_after: Ticks,
    /// For how long a majority's answer makes a leader sure that it leads; zero: never.
    pub lease: Ticks,
    /// Entries in one append.
    pub append_entries_max: u32,
    /// Record bytes in one append.
    pub append_bytes_max: u64,
    /// Appends in flight to one follower.
    pub inflight_appends_max: usize,
    /// Record bytes in flight to one follower.
    pub inflight_bytes_max: u64,
    /// Half of an even number of voters commits.
    pub commits_by_half: bool,
}

/// What is refused, and from when on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unanswered writes of one group.
    pub pending_writes_max: usize,
    /// Their record bytes.
    pub pending_write_bytes_max: usize,
    /// Unanswered writes of all groups of the node.
    pub node_pending_writes_max: usize,
    /// Their record bytes.
    pub node_pending_write_bytes_max: usize,
    /// Waiting frames of reads of one group.
    pub pending_reads_max: usize,
    /// Waiting frames of reads of all groups of the node.
    pub node_pending_reads_max: usize,
    /// Their bytes.
    pub node_pending_read_bytes_max: usize,
    /// Native client connections of the node.
    pub connections_max: usize,
    /// HTTP connections of the node.
    pub http_connections_max: usize,
    /// Data that the node may hold in all its groups; zero: no limit.
    pub data_bytes_max: u64,
    /// Newest entries kept in memory by one shard.
    pub entry_cache_bytes: usize,
}

/// Logs for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The level at start.
    pub level: LogLevel,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// A write slower than this is logged with its slowest stage; `None`: never.
    pub slow_write: Option<Ticks>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what stops something.
    Error,
    /// And what is probably not meant.
    Warn,
    /// And what an operator wants to have seen.
    Info,
    /// And what a developer wants to have seen.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// All of them, the quietest first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level with this name, in small letters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl SyncMethod {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Dsync, Self::Fdatasync, Self::Blocking, Self::None];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dsync => "dsync",
            Self::Fdatasync => "fdatasync",
            Self::Blocking => "blocking",
            Self::None => "none",
        }
    }

    /// Whether an acknowledged write survives a power cut.
    pub const fn is_durable(self) -> bool {
        !matches!(self, Self::None)
    }
}

impl fmt::Display for SyncMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Config {
    /// All groups that exist from the start, ascending.
    pub fn all_groups(&self) -> Vec<GroupId> {
        self.groups.iter().copied().chain([GroupId::SYSTEM]).collect()
    }

    /// Reads a node file and the profile that it names, for this machine.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let cure = "name a file that `ringraft init` made, as in --config a.toml".to_owned();
            ConfigError::unreadable(path, &error, cure)
        })?;
        Self::from_text(path, &text, &Machine::here())
    }

    /// Reads a node file that is already in memory; `path` is for messages and for the paths in
    /// the file, which are relative to it.
    pub fn from_text(path: &Path, text: &str, machine: &Machine) -> Result<Self, ConfigError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let node = Layer::parse(path.display().to_string(), text.to_owned(), FileKind::Node)?;
        let profile = profile_layer(&node, directory)?;
        let defaults =
            Layer::parse("built-in defaults".into(), raw::DEFAULTS.into(), FileKind::Profile)?;
        let layers = match profile {
            Some(profile) => vec![node, profile, defaults],
            None => vec![node, defaults],
        };
        validate::validate(&validate::Layers(layers), directory, machine)
    }

    /// This node's own row.
    pub fn own(&self) -> &Member {
        self.nodes.iter().find(|node| node.id == self.node).expect("validate found it")
    }

    /// The other nodes.
    pub fn peers(&self) -> impl Iterator<Item = &Member> {
        self.nodes.iter().filter(|node| node.id != self.node)
    }
}

/// One file of the configuration, parsed.
pub(crate) struct Layer {
    name: String,
    text: String,
    raw: RawFile,
}

impl Layer {
    fn parse(name: String, text: String, kind: FileKind) -> Result<Self, ConfigError> {
        let raw = raw::parse(&name, &text, kind)?;
        Ok(Self { name, text, raw })
    }
}

/// The profile that the node file names: one that is compiled in, or a path.
fn profile_layer(node: &Layer, directory: &Path) -> Result<Option<Layer>, ConfigError> {
    let Some(named) = &node.raw.profile else { return Ok(None) };
    let name = named.get_ref();
    if let Some((name, text)) = PROFILES.iter().find(|(known, _)| known == name) {
        let layer = Layer::parse(format!("profile {name}"), (*text).into(), FileKind::Profile)?;
        return Ok(Some(layer));
    }
    let refuse = |message: String| {
        let known: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
        ConfigError::at(
            (&node.name, &node.text),
            named.span(),
            message,
            "not a profile".into(),
            format!("use one of {}, or the path of a TOML file", known.join(", ")),
        )
    };
    if !name.contains('/') && !name.ends_with(".toml") {
        return Err(refuse(format!("profile {name:?} is not known")));
    }
    let path = directory.join(name);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| refuse(format!("profile {} cannot be read: {error}", path.display())))?;
    Layer::parse(path.display().to_string(), text, FileKind::Profile).map(Some)
}

#[cfg(test)]
mod tests;
