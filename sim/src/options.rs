//! What a seed draws for its run: the cluster's shape, its settings, and how often what goes
//! wrong. Drawn in a fixed order; what a person asks for instead is put over it afterwards, so that
//! the rest of the run stays as it was drawn.

use std::collections::BTreeMap;

use ringraft_raft::Settings;
use ringraft_shard::limits::Limits;
use ringraft_shard::{LeadRules, ScrubRules, SnapshotRules};
use ringraft_types::{GroupId, Ticks};
use ringraft_wal::LogSettings;
use ringraft_wal::device::Durability;

use crate::faults::{Family, FaultKind};
use crate::links::OutboxLimits;
use crate::net::Weather;
use crate::random::Random;

/// What of a log's settings a run draws.
#[derive(Clone, Debug)]
pub(crate) struct LogOptions {
    segment_bytes: u64,
    block_bytes_max: usize,
    inflight_max: usize,
    durability: Durability,
    group_commit_wait: Ticks,
}

impl LogOptions {
    /// Whether a write and its sync are one operation, with one outcome.
    pub(crate) fn is_dsync(&self) -> bool {
        self.durability == Durability::Dsync
    }

    /// These settings over others.
    pub(crate) fn over(&self, settings: LogSettings) -> LogSettings {
        LogSettings {
            segment_bytes: self.segment_bytes,
            block_bytes_max: self.block_bytes_max,
            inflight_max: self.inflight_max,
            durability: self.durability,
            group_commit_wait: self.group_commit_wait,
            unsubmitted_bytes_max: 56 << 20,
            ..settings
        }
    }
}

/// What a run is.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) nodes: u32,
    /// So many of them begin the groups, the first; the others are to join.
    pub(crate) voters: u32,
    pub(crate) shards: u16,
    pub(crate) groups: u64,
    pub(crate) clients: usize,
    /// Calls that a client has under way at most.
    pub(crate) pipeline: u64,
    /// A client's pause between looks at its work.
    pub(crate) think: Ticks,
    /// Bytes of a long value.
    pub(crate) value_bytes: u64,
    /// How long faults go on.
    pub(crate) safety: Ticks,
    pub(crate) raft: Settings,
    /// How each node is set to lead, by place.
    pub(crate) lead: Vec<LeadRules>,
    pub(crate) limits: Limits,
    pub(crate) snapshots: SnapshotRules,
    pub(crate) scrub: ScrubRules,
    pub(crate) log: LogOptions,
    pub(crate) align: usize,
    pub(crate) outbox: OutboxLimits,
    pub(crate) weather: Weather,
    /// What a lane's round takes.
    pub(crate) turn_cost: (Ticks, Ticks),
    /// What a write takes, and what a read does, microseconds.
    pub(crate) disk_time: (Ticks, Ticks),
    /// Rates of clocks, parts per million of the true one.
    pub(crate) clock_rate: (u64, u64),
    /// The kinds of fault there are, and the mean time between two.
    pub(crate) faults: BTreeMap<FaultKind, Ticks>,
    /// The nodes, by place, that may lose what they promised to keep: a minority.
    pub(crate) doomed: Vec<usize>,
}

/// What a person, or the search for a smaller run, asks for instead of what was drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// So many nodes.
    pub nodes: Option<u32>,
    /// So many groups at most.
    pub groups_max: Option<u64>,
    /// So many clients at most.
    pub clients_max: Option<usize>,
    /// Faults go on so long at most.
    pub safety_max: Option<Ticks>,
    /// Without these kinds of fault.
    pub without: Vec<FaultKind>,
}

impl Options {
    /// How many of so many voters commit.
    pub(crate) fn enough(&self, voters: usize) -> usize {
        if self.raft.commits_by_half { voters.div_ceil(2) } else { voters / 2 + 1 }
    }

    /// What a seed draws.
    pub(crate) fn draw(random: &mut Random, asked: &Asked) -> Self {
        let nodes = random.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
        let shards = random.pick(&[1, 1, 1, 2, 2, 3]);
        let groups = match random.below(10) {
            0..=2 => 1,
            3..=7 => random.between(2, 6),
            8 => random.between(7, 16),
            _ => random.between(17, 64),
        };
        let mut options = Self {
            nodes,
            voters: nodes,
            shards,
            groups,
            clients: random.between(1, 5) as usize,
            pipeline: random.pick(&[1, 2, 4, 8, 32]),
            think: random.pick(&[2, 5, 10, 30].map(Ticks::from_millis)),
            value_bytes: random.pick(&[64, 512, 2_000, 6_000]),
            safety: Ticks::from_millis(random.between(2_000, 8_000)),
            raft: raft(random),
            lead: Vec::new(),
            limits: limits(random),
            snapshots: SnapshotRules::default(),
            scrub: ScrubRules::default(),
            log: log(random),
            align: random.pick(&[4096, 4096, 4096, 8192]),
            outbox: OutboxLimits {
                client: random.pick(&[32 << 10, 1 << 20, 8 << 20]),
                peer: random.pick(&[64 << 10, 1 << 20, 16 << 20]),
            },
            weather: weather(random),
            turn_cost: (Ticks(2), Ticks(random.pick(&[10, 30, 100]))),
            disk_time: (
                Ticks(random.pick(&[60, 150, 400, 2_000])),
                Ticks(random.pick(&[30, 100, 500])),
            ),
            clock_rate: (1_000_000, 1_000_000),
            faults: BTreeMap::new(),
            doomed: Vec::new(),
        };
        if random.coin() {
            options.clock_rate =
                random.pick(&[(990_000, 1_010_000), (950_000, 1_050_000), (800_000, 1_200_000)]);
        }
        for &kind in FaultKind::ALL.iter().filter(|kind| !kind.dooms() && !kind.is_later()) {
            let is_on = random.below(100) < 45;
            let mean = Ticks::from_millis(random.between(300, 4_000));
            if is_on {
                options.faults.insert(kind, mean);
            }
        }
        // From a generator of its own: what a doomed node suffers changes nothing above.
        let mut random = Random::new(random.peek() ^ 0xd00d);
        let mut options = options.over(asked);
        options.doom(&mut random, asked);
        options.weather.window_bytes = random.pick(&[8 << 10, 64 << 10, 256 << 10]);
        // These two; what came after them is drawn by itself.
        let later =
            |kind: &&FaultKind| matches!(kind, FaultKind::PingPong | FaultKind::LateAnswers);
        for &kind in FaultKind::ALL.iter().filter(later) {
            let is_on = random.below(100) < 30;
            let mean = Ticks::from_millis(random.between(300, 4_000));
            if is_on && !asked.without.contains(&kind) {
                options.faults.insert(kind, mean);
            }
        }
        options.focus(&mut random, asked);
        options.snapshots = snapshots(&mut random, options.log.segment_bytes);
        options.scrub = scrub(&mut random);
        options.change_members(&mut Random::new(random.peek() ^ 0x3e3b), asked);
        options.change_leaders(&mut Random::new(random.peek() ^ 0x1ead), asked);
        options.give_leases(&mut Random::new(random.peek() ^ 0x1ea5));
        options.change_groups(&mut Random::new(random.peek() ^ 0x67f5), asked);
        options.lead = lead(&mut Random::new(random.peek() ^ 0x57ea), options.nodes);
        options
    }

    /// In a part of the runs groups are handed over, and nodes kept from leading.
    fn change_leaders(&mut self, random: &mut Random, asked: &Asked) {
        for kind in [FaultKind::HandOver, FaultKind::PauseElections] {
            let is_on = random.below(100) < 40;
            let mean = Ticks::from_millis(random.between(50, 1_500));
            if is_on && !asked.without.contains(&kind) {
                self.faults.insert(kind, mean);
            }
        }
    }

    /// In a quarter of the runs there is a system group, and groups come and go.
    fn change_groups(&mut self, random: &mut Random, asked: &Asked) {
        let is_on = random.below(100) < 25;
        let mean = Ticks::from_millis(random.between(50, 800));
        if is_on && !asked.without.contains(&FaultKind::Groups) {
            self.faults.insert(FaultKind::Groups, mean);
        }
    }

    /// The groups that nodes are configured with.
    pub(crate) fn all_groups(&self) -> Vec<GroupId> {
        let system = self.faults.contains_key(&FaultKind::Groups).then_some(GroupId::SYSTEM);
        (1..=self.groups).map(GroupId).chain(system).collect()
    }

    /// In half of the runs leaders have leases. There no clock jumps, and none runs faster than
    /// another by more than the leases allow; by so much they may.
    fn give_leases(&mut self, random: &mut Random) {
        if random.coin() {
            return;
        }
        let (low, high) = random.pick(&[
            (990_000, 1_010_000),
            (950_000, 1_050_000),
            (900_000, 1_100_000),
            (800_000, 1_200_000),
        ]);
        self.clock_rate = (low, high);
        let drift = 1_000 - low * 1_000 / high;
        self.raft.lease = Settings::lease_of(self.raft.election_timeout, drift as u32);
        self.faults.remove(&FaultKind::ClockJump);
    }

    /// In a part of the runs members change, some of them to nodes that begin with nothing.
    fn change_members(&mut self, random: &mut Random, asked: &Asked) {
        self.voters = self.nodes;
        let is_on = random.below(100) < 60 && !asked.without.contains(&FaultKind::Members);
        let spares = random.below(3) as u32;
        let mean = Ticks::from_millis(random.between(30, 600));
        if is_on && self.doomed.is_empty() {
            self.faults.insert(FaultKind::Members, mean);
            self.nodes += if asked.nodes.is_some() { 0 } else { spares };
        }
    }

    /// Half of the runs have nodes that may lose what they promised to keep.
    fn doom(&mut self, random: &mut Random, asked: &Asked) {
        let most = (u64::from(self.nodes) - 1) / 2;
        if random.coin() || most == 0 {
            return;
        }
        let mut nodes: Vec<usize> = (0..self.nodes as usize).collect();
        random.shuffle(&mut nodes);
        nodes.truncate(random.between(1, most) as usize);
        nodes.sort_unstable();
        for &kind in FaultKind::ALL.iter().filter(|kind| kind.dooms()) {
            let is_on = random.below(100) < 45;
            let mean = Ticks::from_millis(random.between(300, 4_000));
            if is_on && !asked.without.contains(&kind) {
                self.faults.insert(kind, mean);
                self.doomed.clone_from(&nodes);
            }
        }
    }

    /// A part of the runs has faults of one family only: what one of them begins no other ends.
    fn focus(&mut self, random: &mut Random, asked: &Asked) {
        let family = random.pick(Family::ALL);
        if random.below(100) >= 25 {
            return;
        }
        self.faults.retain(|kind, _| kind.family() == family);
        let fits = |kind: &&FaultKind| {
            kind.family() == family && !kind.dooms() && **kind != FaultKind::Members
        };
        let others = FaultKind::ALL.iter().filter(fits);
        for &kind in others {
            let is_on = random.coin();
            let mean = Ticks::from_millis(random.between(300, 2_000));
            if is_on && !asked.without.contains(&kind) {
                self.faults.entry(kind).or_insert(mean);
            }
        }
        if !self.faults.keys().any(|kind| kind.dooms()) {
            self.doomed.clear();
        }
        let weather = weather(random);
        let is_on = |kind| u32::from(self.faults.contains_key(&kind));
        self.weather.loss = weather.loss * is_on(FaultKind::Loss);
        self.weather.replay = weather.replay * is_on(FaultKind::Replay);
    }

    fn over(mut self, asked: &Asked) -> Self {
        self.nodes = asked.nodes.unwrap_or(self.nodes);
        self.groups = self.groups.min(asked.groups_max.unwrap_or(u64::MAX)).max(1);
        self.clients = self.clients.min(asked.clients_max.unwrap_or(usize::MAX)).max(1);
        self.safety = self.safety.min(asked.safety_max.unwrap_or(Ticks::NEVER));
        self.faults.retain(|kind, _| !asked.without.contains(kind));
        if !self.faults.contains_key(&FaultKind::Loss) {
            self.weather.loss = 0;
        }
        if !self.faults.contains_key(&FaultKind::Replay) {
            self.weather.replay = 0;
        }
        self
    }
}

fn raft(random: &mut Random) -> Settings {
    let election = random.pick(&[150, 300, 300, 600, 1_000]);
    let beats = random.pick(&[3, 5, 8]);
    let settings = Settings {
        election_timeout: Ticks::from_millis(election),
        heartbeat_interval: Ticks::from_millis(election / beats),
        append_entries_max: random.pick(&[1, 4, 64, 1024]),
        append_bytes_max: random.pick(&[1 << 10, 16 << 10, 512 << 10]),
        inflight_appends_max: random.pick(&[1, 4, 64]) as usize,
        inflight_bytes_max: random.pick(&[8 << 10, 256 << 10, 4 << 20]),
        reads_waiting_max: 1024,
        commits_by_half: false,
        lease: Ticks::ZERO,
        hibernate_after: Ticks::ZERO,
    };
    // Both hang on what was drawn, as below.
    let timeouts = match settings.inflight_bytes_max {
        0..16_384 => 0,
        16_384..1_000_000 => 1,
        _ => 3,
    };
    Settings {
        commits_by_half: settings.inflight_appends_max == 64,
        hibernate_after: Ticks(settings.election_timeout.0 * timeouts),
        ..settings
    }
}

fn limits(random: &mut Random) -> Limits {
    let limits = Limits {
        group_writes_max: random.pick(&[4, 64, 16_384, 16_384]) as usize,
        group_bytes_max: random.pick(&[16 << 10, 1 << 20, 32 << 20]) as usize,
        shard_writes_max: 131_072,
        shard_bytes_max: 256 << 20,
        group_reads_max: random.pick(&[4, 64, 1024]) as usize,
        group_reads_bytes_max: 1 << 20,
        shard_reads_max: 131_072,
        shard_reads_bytes_max: 4 << 20,
        log_bytes_max: random.pick(&[64 << 10, 1 << 20, 16 << 20]) as usize,
        cache_bytes_max: 8 << 20,
        data_bytes_max: 0,
        disk_wait_max: Ticks::from_millis(20_000),
    };
    // Hangs on what was drawn: a draw of its own would change every run there is.
    let data_bytes_max = match (limits.group_reads_max, limits.log_bytes_max) {
        (4, 65_536) => 24 << 10,
        (4, 1_048_576) => 96 << 10,
        _ => 0,
    };
    let (shard_writes_max, shard_bytes_max) = match limits.group_bytes_max {
        16_384 => (8, 16 << 10),
        1_048_576 => (64, 24 << 10),
        _ => (limits.shard_writes_max, limits.shard_bytes_max),
    };
    let shard_reads_max = if limits.group_reads_max == 64 { 8 } else { limits.shard_reads_max };
    Limits { data_bytes_max, shard_writes_max, shard_bytes_max, shard_reads_max, ..limits }
}

/// In half of the runs leaders are spread, in half of them some nodes have a priority.
fn lead(random: &mut Random, nodes: u32) -> Vec<LeadRules> {
    let (spreads, has_priority) = (random.coin(), random.coin());
    let mut rules = |_| {
        let priority = if has_priority { random.pick(&[0, 0, 1, 1, 7]) } else { 0 };
        LeadRules { priority: priority as u8, spreads }
    };
    (0..nodes).map(&mut rules).collect()
}

/// Most runs take snapshots all the time, some none.
fn snapshots(random: &mut Random, segment_bytes: u64) -> SnapshotRules {
    let rules = SnapshotRules {
        log_bytes: segment_bytes * random.pick(&[0, 1, 1, 3]),
        entries: random.pick(&[0, 0, 20, 100]),
        interval: Ticks::from_millis(random.pick(&[0, 0, 300, 2_000])),
        on_stop: random.coin(),
        lag_bytes: segment_bytes * random.pick(&[0, 2, 8]),
        bytes_per_second: 0,
        strands_bytes: u64::MAX,
        kept: random.pick(&[1, 1, 2, 3]) as usize,
    };
    // Hangs on what was drawn: a draw of its own would change every run there is.
    let bytes_per_second = match (rules.on_stop, rules.kept) {
        (true, 1) => 0,
        (false, 1) => 1 << 20,
        _ => 8 << 20,
    };
    // States are small here: they are kept in strands all the same, or never.
    let strands_bytes = if rules.kept == 1 { 1 } else { u64::MAX };
    SnapshotRules { bytes_per_second, strands_bytes, ..rules }
}

/// Most runs read their logs through all the time, some never.
fn scrub(random: &mut Random) -> ScrubRules {
    ScrubRules {
        interval: Ticks::from_millis(random.pick(&[0, 50, 300, 1_500])),
        bytes_per_second: random.pick(&[1 << 20, 16 << 20, 256 << 20]),
    }
}

fn log(random: &mut Random) -> LogOptions {
    let block_bytes_max = random.pick(&[32 << 10, 64 << 10, 128 << 10]) as usize;
    LogOptions {
        segment_bytes: random.pick(&[3, 4, 8]) * block_bytes_max as u64,
        block_bytes_max,
        inflight_max: random.pick(&[1, 1, 2, 4]) as usize,
        durability: random.pick(&[
            Durability::Dsync,
            Durability::Dsync,
            Durability::LinkedSync,
            Durability::Blocking,
        ]),
        group_commit_wait: Ticks(random.pick(&[0, 0, 100, 1_000])),
    }
}

fn weather(random: &mut Random) -> Weather {
    let least = random.pick(&[20, 100, 500, 2_000]);
    let most = least * random.pick(&[2, 4, 20]);
    Weather {
        delay: (Ticks(least), Ticks(most)),
        loss: random.pick(&[1_000, 10_000, 50_000]),
        split: random.pick(&[0, 20_000, 300_000]),
        replay: random.pick(&[1_000, 20_000, 200_000]),
        window_bytes: 256 << 10,
    }
}
