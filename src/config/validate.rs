//! The relations between settings, each refusal with both values and the cure.

use super::raw::{At, AutoOrList, CountOrList, RawFile, RawMember};
use super::{
    Address, Addresses, Config, ConfigError, Cpu, Layer, Limits, Log, LogLevel, Machine, Member,
    Raft, SyncMethod, Wal,
};
use ringraft_raft::Settings;
use ringraft_shard::limits::ENTRY_CACHE_BYTES_MIN;
use ringraft_shard::snapshots::STRANDS_BYTES;
use ringraft_shard::{LeadRules, ScrubRules, SnapshotRules};
use ringraft_types::limits::{
    BLOCK_ALIGN_MIN, BLOCK_BYTES_MAX, FRAME_BODY_BYTES_MAX, NODES_MAX, RECORD_BYTES_MAX, SHARDS_MAX,
};
use ringraft_types::{ClusterId, GroupId, NodeId, Ticks};
use std::ops::Range;
use std::path::Path;

/// Groups that a configuration may start with.
const GROUPS_INITIAL_MAX: u64 = 100_000;
/// The smallest limit of data: a largest value and what its key costs are far below.
const DATA_BYTES_LEAST: u64 = 16 << 20;
/// Bytes of an append frame around its records.
const APPEND_OVERHEAD_BYTES: u64 = 4096;
/// The largest segment, so that an offset in it fits 32 bits.
const SEGMENT_BYTES_MAX: u64 = 4 << 30;
/// Blocks of the largest size that a segment must be able to hold.
const SEGMENT_BLOCKS_MIN: u64 = 4;

/// The files of a configuration, the strongest first, the defaults last.
pub(crate) struct Layers(pub(crate) Vec<Layer>);

/// A value with the file and the place where it is written.
#[derive(Clone)]
struct Setting<'a, T> {
    value: T,
    layer: &'a Layer,
    span: Range<usize>,
    key: &'static str,
}

impl<T> Setting<'_, T> {
    /// Refuses this value: what is wrong with it, and the cure.
    fn refuse(&self, what: impl AsRef<str>, cure: impl Into<String>) -> ConfigError {
        refuse_at(self.layer, self.span.clone(), self.key, what.as_ref(), cure)
    }
}

impl<T: PartialOrd + std::fmt::Display + Copy> Setting<'_, T> {
    /// The value, if it is within the bounds.
    fn within(&self, min: T, max: T) -> Result<T, ConfigError> {
        if self.value < min || self.value > max {
            let what = format!("{} is outside {min} to {max}", self.value);
            return Err(self.refuse(what, format!("choose a value from {min} to {max}")));
        }
        Ok(self.value)
    }
}

fn refuse_at(
    layer: &Layer,
    span: Range<usize>,
    key: &str,
    what: &str,
    cure: impl Into<String>,
) -> ConfigError {
    let message = format!("{key}: {what}");
    ConfigError::at((&layer.name, &layer.text), span, message, what.to_owned(), cure.into())
}

impl Layers {
    /// The node file.
    fn node(&self) -> &Layer {
        &self.0[0]
    }

    /// A setting that the defaults have: the strongest layer that names it wins.
    fn get<T: Clone>(
        &self,
        key: &'static str,
        of: impl for<'r> Fn(&'r RawFile) -> &'r At<T>,
    ) -> Setting<'_, T> {
        let named = |layer| self.named(layer, key, &of);
        self.0.iter().find_map(named).expect("defaults.toml names every setting")
    }

    fn named<'a, T: Clone>(
        &self,
        layer: &'a Layer,
        key: &'static str,
        of: impl for<'r> Fn(&'r RawFile) -> &'r At<T>,
    ) -> Option<Setting<'a, T>> {
        let at = of(&layer.raw).as_ref()?;
        Some(Setting { value: at.get_ref().clone(), layer, span: at.span(), key })
    }

    /// What only the node file can say, and must.
    fn must<T: Clone>(
        &self,
        key: &'static str,
        of: impl for<'r> Fn(&'r RawFile) -> &'r At<T>,
    ) -> Result<Setting<'_, T>, ConfigError> {
        let node = self.node();
        self.named(node, key, of).ok_or_else(|| {
            let section = key.split('.').next().unwrap_or(key);
            let start = node.text.find(&format!("[{section}]")).unwrap_or(0);
            let line = node.text[start..].lines().next().unwrap_or_default().len();
            let cure = "`ringraft init` writes files that have it";
            refuse_at(node, start..start + line, key, "is missing", cure)
        })
    }
}

pub(crate) fn validate(
    layers: &Layers,
    directory: &Path,
    machine: &Machine,
) -> Result<Config, ConfigError> {
    let mut warnings = Vec::new();
    let cluster = cluster(layers)?;
    let nodes = members(layers)?;
    let own = own(layers, &nodes)?;
    let data_dir = layers.must("node.data_dir", |raw| &raw.node.data_dir)?;
    if data_dir.value.is_empty() {
        return Err(data_dir.refuse("\"\" is not a path", "name a directory on a local disk"));
    }
    let listen = listen(layers, &own)?;
    let cpu = cpu(layers, machine, &mut warnings)?;
    let raft = raft(layers)?;
    let wal = wal(layers, &raft, &mut warnings)?;
    let snapshot = snapshot(layers, &wal)?;
    let scrub = scrub(layers)?;
    Ok(Config {
        cluster,
        node: own.id,
        name: own.name.clone(),
        data_dir: directory.join(&data_dir.value),
        nodes,
        listen,
        groups: groups(layers)?,
        cpu,
        wal,
        snapshot,
        scrub,
        raft,
        lead: lead(layers)?,
        limits: limits(layers)?,
        leave_on_stop: leave_on_stop(layers)?,
        log: log(layers)?,
        profile: layers.node().raw.profile.as_ref().map(|profile| profile.get_ref().clone()),
        warnings,
    })
}

fn cluster(layers: &Layers) -> Result<ClusterId, ConfigError> {
    let id = layers.must("cluster.id", |raw| &raw.cluster.id)?;
    let hex = id.value.len() == 32 && id.value.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u128::from_str_radix(&id.value, 16) {
        Ok(number) if hex && number != 0 => Ok(ClusterId(number)),
        _ => Err(id.refuse(
            format!("{:?} is not 32 hexadecimal digits", id.value),
            "use the id that `ringraft init` made, the same in every node's file",
        )),
    }
}

fn members(layers: &Layers) -> Result<Vec<Member>, ConfigError> {
    let layer = layers.node();
    let rows = &layer.raw.nodes;
    if rows.is_empty() {
        let cure = "add one [[nodes]] table per node, or let `ringraft init` write the file";
        return Err(refuse_at(layer, 0..0, "nodes", "there are none", cure));
    }
    if rows.len() > NODES_MAX {
        let what = format!("{} nodes, the limit is {NODES_MAX}", rows.len());
        return Err(refuse_at(layer, rows[NODES_MAX].span(), "nodes", &what, "list fewer nodes"));
    }
    let mut nodes: Vec<Member> = Vec::new();
    let mut taken: Vec<Address> = Vec::new();
    for row in rows {
        let member = member(layer, row.get_ref(), row.span())?;
        let id_span = row.get_ref().id.as_ref().map_or(row.span(), toml::Spanned::span);
        if let Some(twin) = nodes.iter().find(|other| other.id == member.id) {
            let what = format!("{} is also the id of node {:?}", member.id, twin.name);
            return Err(refuse_at(layer, id_span, "nodes.id", &what, "give each node its own id"));
        }
        if nodes.iter().any(|other| other.name == member.name) {
            let what = format!("{:?} names two nodes", member.name);
            let cure = "give each node its own name";
            return Err(refuse_at(layer, id_span, "nodes.name", &what, cure));
        }
        let Addresses { peer, client, http } = &member.addresses;
        for address in [peer, client, http] {
            if taken.contains(address) {
                let what = format!("{address} is given twice");
                let cure = "give each port of each node its own address";
                return Err(refuse_at(layer, row.span(), "nodes", &what, cure));
            }
            taken.push(address.clone());
        }
        nodes.push(member);
    }
    nodes.sort_by_key(|node| node.id);
    Ok(nodes)
}

fn member(layer: &Layer, row: &RawMember, span: Range<usize>) -> Result<Member, ConfigError> {
    let missing = |key: &str| {
        let cure = "each [[nodes]] table has id, name, peer, client and http";
        refuse_at(layer, span.clone(), key, "is missing", cure)
    };
    let id = row.id.as_ref().ok_or_else(|| missing("nodes.id"))?;
    if *id.get_ref() == 0 {
        let cure = "count nodes from 1";
        return Err(refuse_at(layer, id.span(), "nodes.id", "0 is not an id", cure));
    }
    let name = row.name.as_ref().ok_or_else(|| missing("nodes.name"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.get_ref().is_empty() || !name.get_ref().chars().all(plain) {
        let what = format!("{:?} is not a plain name", name.get_ref());
        let cure = "use letters, digits, '-', '_' and '.'";
        return Err(refuse_at(layer, name.span(), "nodes.name", &what, cure));
    }
    let address = |key: &'static str, at: &At<String>| {
        let at = at.as_ref().ok_or_else(|| missing(key))?;
        parse_address(layer, key, at.get_ref(), at.span())
    };
    Ok(Member {
        id: NodeId(*id.get_ref()),
        name: name.get_ref().clone(),
        addresses: Addresses {
            peer: address("nodes.peer", &row.peer)?,
            client: address("nodes.client", &row.client)?,
            http: address("nodes.http", &row.http)?,
        },
    })
}

fn parse_address(
    layer: &Layer,
    key: &str,
    text: &str,
    span: Range<usize>,
) -> Result<Address, ConfigError> {
    text.parse().map_err(|error: super::AddressError| {
        let cure = "write HOST:PORT, as in \"10.0.0.1:7400\" or \"[::1]:7400\"";
        refuse_at(layer, span, key, &error.to_string(), cure)
    })
}

/// This node's row: `node.id` must be one of them, and `node.name`, if given, must be its name.
fn own(layers: &Layers, nodes: &[Member]) -> Result<Member, ConfigError> {
    let id = layers.must("node.id", |raw| &raw.node.id)?;
    let Some(own) = nodes.iter().find(|node| node.id.get() == id.value) else {
        let known: Vec<String> = nodes.iter().map(|node| node.id.to_string()).collect();
        let cure = format!("use one of the ids in [[nodes]]: {}", known.join(", "));
        return Err(id.refuse(format!("{} is not in [[nodes]]", id.value), cure));
    };
    if let Some(name) = layers.named(layers.node(), "node.name", |raw| &raw.node.name)
        && name.value != own.name
    {
        let what = format!("{:?}, but [[nodes]] calls node {} {:?}", name.value, own.id, own.name);
        return Err(name.refuse(what, "make the two names equal, or check node.id"));
    }
    Ok(own.clone())
}

fn listen(layers: &Layers, own: &Member) -> Result<Addresses, ConfigError> {
    let address = |key, of: fn(&RawFile) -> &At<String>, default: &Address| match layers.named(
        layers.node(),
        key,
        of,
    ) {
        Some(at) => parse_address(at.layer, key, &at.value, at.span.clone()),
        None => Ok(default.clone()),
    };
    let Addresses { peer, client, http } = &own.addresses;
    let listen = Addresses {
        peer: address("listen.peer", |raw| &raw.listen.peer, peer)?,
        client: address("listen.client", |raw| &raw.listen.client, client)?,
        http: address("listen.http", |raw| &raw.listen.http, http)?,
    };
    let Addresses { peer, client, http } = &listen;
    if let Some(twin) = [(peer, client), (client, http), (peer, http)].iter().find(|(a, b)| a == b)
    {
        let written = &layers.node().raw.listen;
        let place = [&written.peer, &written.client, &written.http].into_iter().flatten().next();
        let span = place.map_or(0..0, toml::Spanned::span);
        let what = format!("{} is given twice", twin.0);
        return Err(refuse_at(layers.node(), span, "listen", &what, "use three different ports"));
    }
    Ok(listen)
}

fn groups(layers: &Layers) -> Result<Vec<GroupId>, ConfigError> {
    let initial = layers.get("groups.initial", |raw| &raw.groups.initial);
    let count = match &initial.value {
        CountOrList::Count(count) => *count,
        CountOrList::List(list) => list.len() as u64,
    };
    if count == 0 || count > GROUPS_INITIAL_MAX {
        let what = format!("{count} groups is outside 1 to {GROUPS_INITIAL_MAX}");
        return Err(initial.refuse(what, "write a count, as in 1, or a list of ids, as in [1, 2]"));
    }
    let list = match &initial.value {
        CountOrList::Count(count) => return Ok((1..=*count).map(GroupId).collect()),
        CountOrList::List(list) => list,
    };
    let is_taken = |id: &&toml::Spanned<u64>| *id.get_ref() >= GroupId::SYSTEM.0;
    if let Some(taken) = list.iter().find(is_taken) {
        let what = format!("{} is an id of groups that are created at run time", taken.get_ref());
        let cure = format!("number these groups below {}", GroupId::SYSTEM);
        return Err(refuse_at(initial.layer, taken.span(), initial.key, &what, &cure));
    }
    let mut ids: Vec<(u64, Range<usize>)> =
        list.iter().map(|id| (*id.get_ref(), id.span())).collect();
    ids.sort_by_key(|(id, span)| (*id, span.start));
    if let Some((_, span)) = ids.iter().find(|(id, _)| *id == 0) {
        let cure = "count groups from 1";
        return Err(refuse_at(initial.layer, span.clone(), initial.key, "0 is not an id", cure));
    }
    if let Some(twins) = ids.windows(2).find(|twins| twins[0].0 == twins[1].0) {
        let what = format!("group {} is listed twice", twins[1].0);
        let span = twins[1].1.clone();
        return Err(refuse_at(initial.layer, span, initial.key, &what, "list each group once"));
    }
    Ok(ids.into_iter().map(|(id, _)| GroupId(id)).collect())
}

fn cpu(layers: &Layers, machine: &Machine, warnings: &mut Vec<String>) -> Result<Cpu, ConfigError> {
    let asked = layers.get("cpu.shards", |raw| &raw.cpu.shards);
    let count = layers.get("cpu.auto_count", |raw| &raw.cpu.auto_count);
    let start = layers.get("cpu.auto_start", |raw| &raw.cpu.auto_start);
    let shards = match &asked.value {
        AutoOrList::List(_) => listed_cores(&asked, machine)?,
        AutoOrList::Auto => {
            let cores = machine.cores.len();
            if count.value > cores {
                let what = format!(
                    "{} shards need a core each, this process may use {cores} (core {})",
                    count.value,
                    machine.list()
                );
                return Err(count.refuse(what, format!("choose at most {cores}")));
            }
            machine.from(start.value, count.within(1, SHARDS_MAX)?)
        }
    };
    if shards.len() > SHARDS_MAX {
        let what = format!("{} shards, the limit is {SHARDS_MAX}", shards.len());
        return Err(asked.refuse(what, "list fewer cores"));
    }
    let asked = layers.get("cpu.control", |raw| &raw.cpu.control);
    let control = match &asked.value {
        AutoOrList::List(_) => listed_cores(&asked, machine)?,
        AutoOrList::Auto => vec![machine.spare(&shards)],
    };
    if let Some(core) = control.iter().find(|core| shards.contains(core)) {
        warnings.push(format!(
            "cpu.control: core {core} is also a shard's: housekeeping will add to its latency; \
             leave a core free if there is one"
        ));
    }
    let spin = layers.get("cpu.spin_us", |raw| &raw.cpu.spin_us);
    Ok(Cpu { shards, control, spin: Ticks(spin.within(0, 1_000_000)?) })
}

/// The cores of a list: each exists, none twice.
fn listed_cores(
    asked: &Setting<'_, AutoOrList>,
    machine: &Machine,
) -> Result<Vec<usize>, ConfigError> {
    let AutoOrList::List(list) = &asked.value else { return Ok(Vec::new()) };
    if list.is_empty() {
        return Err(asked.refuse("[] names no core", "list at least one core, or write \"auto\""));
    }
    let mut cores = Vec::new();
    for core in list {
        let number = *core.get_ref();
        let refuse = |what: String, cure: String| {
            Err(refuse_at(asked.layer, core.span(), asked.key, &what, cure))
        };
        if cores.contains(&number) {
            let what = format!("core {number} is listed twice");
            return refuse(what, "give each core once: two shards can't share a core".into());
        }
        if !machine.cores.contains(&number) {
            let what = format!("core {number} is not one that this process may use");
            return refuse(what, format!("choose among core {}", machine.list()));
        }
        cores.push(number);
    }
    Ok(cores)
}

fn raft(layers: &Layers) -> Result<Raft, ConfigError> {
    let heartbeat = layers.get("raft.heartbeat_ms", |raw| &raw.raft.heartbeat_ms);
    let election = layers.get("raft.election_timeout_ms", |raw| &raw.raft.election_timeout_ms);
    let heartbeat_ms = heartbeat.within(1, 60_000)?;
    let election_ms = election.within(3, 600_000)?;
    if heartbeat_ms * 3 > election_ms {
        // The one that the user wrote is the one to point at.
        let place = if heartbeat.layer.name == layers.node().name { &heartbeat } else { &election };
        return Err(place.refuse(
            format!(
                "a heartbeat every {heartbeat_ms} ms is more than a third of the election timeout \
                 of {election_ms} ms: one late heartbeat would depose a healthy leader"
            ),
            format!(
                "set heartbeat_ms to at most {}, or election_timeout_ms to at least {}",
                election_ms / 3,
                heartbeat_ms * 3
            ),
        ));
    }
    let hibernate = layers.get("raft.hibernate_after_ms", |raw| &raw.raft.hibernate_after_ms);
    let hibernate_ms = hibernate.within(0, 86_400_000)?;
    if (1..election_ms).contains(&hibernate_ms) {
        return Err(hibernate.refuse(
            format!("{hibernate_ms} ms is less than the election timeout of {election_ms} ms"),
            format!("set it to at least {election_ms}, or to 0 for never"),
        ));
    }
    let append = layers.get("raft.append_bytes_max", |raw| &raw.raft.append_bytes_max);
    let append_bytes_max =
        append.within(4096, FRAME_BODY_BYTES_MAX as u64 - APPEND_OVERHEAD_BYTES)?;
    let inflight = layers.get("raft.inflight_bytes_max", |raw| &raw.raft.inflight_bytes_max);
    let inflight_bytes_max = inflight.within(4096, 1 << 30)?;
    if inflight_bytes_max < append_bytes_max {
        let what = format!("{inflight_bytes_max} is less than one append of {append_bytes_max}");
        return Err(inflight.refuse(what, "set it to at least raft.append_bytes_max"));
    }
    let entries = layers.get("raft.append_entries_max", |raw| &raw.raft.append_entries_max);
    let has_lease = layers.get("reads.lease", |raw| &raw.reads.lease).value;
    let drift = layers.get("reads.drift_permille", |raw| &raw.reads.drift_permille);
    let drift = drift.within(1, 500)?;
    let appends = layers.get("raft.inflight_appends_max", |raw| &raw.raft.inflight_appends_max);
    let election_timeout = Ticks::from_millis(election_ms);
    Ok(Raft {
        heartbeat_interval: Ticks::from_millis(heartbeat_ms),
        election_timeout,
        hibernate_after: Ticks::from_millis(hibernate_ms),
        lease: if has_lease { Settings::lease_of(election_timeout, drift) } else { Ticks::ZERO },
        append_entries_max: entries.within(1, 65_536)?,
        append_bytes_max,
        inflight_appends_max: appends.within(1, 4096)?,
        inflight_bytes_max,
        commits_by_half: layers.get("raft.commits_by_half", |raw| &raw.raft.commits_by_half).value,
    })
}

fn wal(layers: &Layers, raft: &Raft, warnings: &mut Vec<String>) -> Result<Wal, ConfigError> {
    let segment = layers.get("wal.segment_bytes", |raw| &raw.wal.segment_bytes);
    let min = SEGMENT_BLOCKS_MIN * BLOCK_BYTES_MAX as u64;
    let segment_bytes = segment.within(min, SEGMENT_BYTES_MAX)?;
    let align = BLOCK_ALIGN_MIN as u64;
    if !segment_bytes.is_multiple_of(align) {
        let what = format!("{segment_bytes} is not a multiple of {align}");
        let nearest = segment_bytes.next_multiple_of(align);
        return Err(segment.refuse(what, format!("set it to {nearest}")));
    }
    let sync = layers.get("wal.sync", |raw| &raw.wal.sync);
    let method = SyncMethod::ALL.into_iter().find(|method| method.name() == sync.value);
    let Some(method) = method else {
        let names: Vec<&str> = SyncMethod::ALL.iter().map(|method| method.name()).collect();
        let what = format!("{:?} is not a method", sync.value);
        return Err(sync.refuse(what, format!("choose one of {}", names.join(", "))));
    };
    if !method.is_durable() {
        warnings.push(
            "wal.sync: \"none\" is NOT DURABLE: a power cut loses acknowledged writes; \
             for experiments only"
                .into(),
        );
    }
    let inflight = layers.get("wal.inflight", |raw| &raw.wal.inflight);
    if method == SyncMethod::Blocking && inflight.value != 1 {
        let what = format!("{} with sync = \"blocking\", which has no second one", inflight.value);
        return Err(inflight.refuse(what, "set wal.inflight to 1"));
    }
    let wait = layers.get("wal.group_commit_wait_us", |raw| &raw.wal.group_commit_wait_us);
    let heartbeat_us = raft.heartbeat_interval.get();
    if wait.value > heartbeat_us / 2 {
        let what =
            format!("{} us is more than half of raft.heartbeat_ms ({heartbeat_us} us)", wait.value);
        return Err(wait.refuse(what, format!("set it to at most {}", heartbeat_us / 2)));
    }
    let stuck = layers.get("wal.stuck_limit_ms", |raw| &raw.wal.stuck_limit_ms);
    let least = 2 * raft.election_timeout.get() / 1_000;
    if stuck.value < least || stuck.value > 3_600_000 {
        let what = format!(
            "{} ms is outside {least} (twice raft.election_timeout_ms) to 3600000",
            stuck.value
        );
        return Err(stuck.refuse(what, format!("set it to {}", least.max(20_000))));
    }
    Ok(Wal {
        segment_bytes,
        sync: method,
        inflight: inflight.within(1, 64)?,
        group_commit_wait: Ticks(wait.value),
        stuck_limit: Ticks::from_millis(stuck.value),
    })
}

fn snapshot(layers: &Layers, wal: &Wal) -> Result<SnapshotRules, ConfigError> {
    let log = layers.get("snapshot.log_bytes", |raw| &raw.snapshot.log_bytes);
    let entries = layers.get("snapshot.entries", |raw| &raw.snapshot.entries);
    let interval = layers.get("snapshot.interval_s", |raw| &raw.snapshot.interval_s);
    let on_stop = layers.get("snapshot.on_stop", |raw| &raw.snapshot.on_stop);
    let lag = layers.get("snapshot.lag_bytes", |raw| &raw.snapshot.lag_bytes);
    let speed = layers.get("snapshot.bytes_per_second", |raw| &raw.snapshot.bytes_per_second);
    let kept = layers.get("snapshot.kept", |raw| &raw.snapshot.kept);
    let least = 2 * wal.segment_bytes;
    if log.value != 0 && log.value < least {
        // A log gives up whole segments, and never the one that is written to.
        let what = format!("{} is less than two segments (wal.segment_bytes)", log.value);
        return Err(log.refuse(what, format!("set it to at least {least}, or to 0")));
    }
    if lag.value < log.value {
        let what = format!("{} is less than snapshot.log_bytes, {}", lag.value, log.value);
        return Err(lag.refuse(what, format!("set it to at least {}", log.value)));
    }
    // A chunk that a peer asks for has to come before it asks again.
    let bytes_per_second = if speed.value == 0 { 0 } else { speed.within(1 << 20, 64 << 30)? };
    Ok(SnapshotRules {
        log_bytes: log.value,
        entries: entries.value,
        interval: Ticks::from_millis(interval.within(0, 31_536_000)? * 1_000),
        on_stop: on_stop.value,
        lag_bytes: lag.value,
        bytes_per_second,
        strands_bytes: STRANDS_BYTES,
        kept: kept.within(1, 16)?,
    })
}

fn scrub(layers: &Layers) -> Result<ScrubRules, ConfigError> {
    let interval = layers.get("scrub.interval_s", |raw| &raw.scrub.interval_s);
    let bytes = layers.get("scrub.bytes_per_second", |raw| &raw.scrub.bytes_per_second);
    Ok(ScrubRules {
        interval: Ticks::from_millis(interval.within(0, 31_536_000)? * 1_000),
        // A block at least: less would be a pass that never ends.
        bytes_per_second: bytes.within(64 << 10, 64 << 30)?,
    })
}

fn lead(layers: &Layers) -> Result<LeadRules, ConfigError> {
    let priority = layers.get("leadership.priority", |raw| &raw.leadership.priority);
    let spreads = layers.get("leadership.spread", |raw| &raw.leadership.spread).value;
    Ok(LeadRules { priority: priority.within(0, 255)? as u8, spreads })
}

fn leave_on_stop(layers: &Layers) -> Result<Option<Ticks>, ConfigError> {
    let leaves = layers.get("members.leave_on_stop", |raw| &raw.members.leave_on_stop).value;
    let limit = layers.get("members.leave_limit_s", |raw| &raw.members.leave_limit_s);
    let limit = Ticks::from_millis(limit.within(1, 3_600)? * 1_000);
    Ok(leaves.then_some(limit))
}

fn limits(layers: &Layers) -> Result<Limits, ConfigError> {
    let writes = layers.get("limits.pending_writes_max", |raw| &raw.limits.pending_writes_max);
    let bytes =
        layers.get("limits.pending_write_bytes_max", |raw| &raw.limits.pending_write_bytes_max);
    let reads = layers.get("limits.pending_reads_max", |raw| &raw.limits.pending_reads_max);
    let connections = layers.get("limits.connections_max", |raw| &raw.limits.connections_max);
    let http = layers.get("limits.http_connections_max", |raw| &raw.limits.http_connections_max);
    let cache = layers.get("limits.entry_cache_bytes", |raw| &raw.limits.entry_cache_bytes);
    let all_writes =
        layers.get("limits.node_pending_writes_max", |raw| &raw.limits.node_pending_writes_max);
    let all_bytes = layers
        .get("limits.node_pending_write_bytes_max", |raw| &raw.limits.node_pending_write_bytes_max);
    let all_reads =
        layers.get("limits.node_pending_reads_max", |raw| &raw.limits.node_pending_reads_max);
    let all_read_bytes = layers
        .get("limits.node_pending_read_bytes_max", |raw| &raw.limits.node_pending_read_bytes_max);
    let data = layers.get("limits.data_bytes_max", |raw| &raw.limits.data_bytes_max);
    if data.value > 0 && data.value < DATA_BYTES_LEAST {
        let what = format!("{} is too little to be of use", data.value);
        let cure = format!("choose at least {DATA_BYTES_LEAST}, or 0 for no limit");
        return Err(data.refuse(what, cure));
    }
    Ok(Limits {
        data_bytes_max: data.value,
        pending_writes_max: writes.within(1, 1 << 20)?,
        // The largest write must fit, or it could never be accepted.
        pending_write_bytes_max: bytes.within(RECORD_BYTES_MAX, 4 << 30)?,
        // A shard's part must be of use.
        node_pending_writes_max: all_writes.within(SHARDS_MAX * 16, 1 << 24)?,
        node_pending_write_bytes_max: all_bytes.within(RECORD_BYTES_MAX, 64 << 30)?,
        pending_reads_max: reads.within(1, 1 << 20)?,
        node_pending_reads_max: all_reads.within(SHARDS_MAX * 16, 1 << 24)?,
        node_pending_read_bytes_max: all_read_bytes.within(SHARDS_MAX << 16, 64 << 30)?,
        connections_max: connections.within(1, 1 << 20)?,
        http_connections_max: http.within(1, 65_536)?,
        entry_cache_bytes: cache.within(ENTRY_CACHE_BYTES_MIN, 64 << 30)?,
    })
}

fn log(layers: &Layers) -> Result<Log, ConfigError> {
    let level = layers.get("log.level", |raw| &raw.log.level);
    let Some(found) = LogLevel::from_name(&level.value) else {
        let names: Vec<&str> = LogLevel::ALL.iter().map(|level| level.name()).collect();
        let what = format!("{:?} is not a level", level.value);
        return Err(level.refuse(what, format!("choose one of {}", names.join(", "))));
    };
    let format = layers.get("log.format", |raw| &raw.log.format);
    let json = match format.value.as_str() {
        "text" => false,
        "json" => true,
        other => {
            let what = format!("{other:?} is not a format");
            return Err(format.refuse(what, "choose \"text\" or \"json\""));
        }
    };
    let slow = layers.get("log.slow_write_ms", |raw| &raw.log.slow_write_ms).within(0, 600_000)?;
    let slow_write = (slow > 0).then(|| Ticks::from_millis(slow));
    Ok(Log { level: found, json, slow_write })
}
