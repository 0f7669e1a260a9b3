//! One core's worth of groups: a plain synchronous object behind two doors.
//!
//! Nothing here opens a file or a socket, reads a clock, starts a thread or draws a random number.
//! What happens enters by [`Shard::collect`], time by [`Shard::turn`]; see `turn.rs`.

use crate::apply::Answer;
use crate::barriers::Barriers;
use crate::cache::Cache;
use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::gate::Gates;
use crate::group::{Group, Halt};
use crate::heartbeat::Staged;
use crate::hibernation::Hibernation;
use crate::homes::{self, Homes};
use crate::leading::HandingOver;
use crate::limits::{ENTRY_CACHE_BYTES_MIN, Limits};
use crate::links::Links;
use crate::machine::StateMachine;
use crate::members::{Book, Doubt, Members};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::node_record::NodeRecord;
use crate::notice::Notices;
use crate::placement::Placing;
use crate::repair::{Holes, Mending};
use crate::router::Router;
use crate::scrub::{ScrubRules, Scrubbing};
use crate::share::Pending;
use crate::snapshots::{
    Fetching, Loaded, LoadedGroup, LoadedState, Serving, SnapshotReason, SnapshotRules, Snapshots,
};
use crate::spread::{LeadRules, Spread};
use crate::stages::Leaving;
use crate::start;
use crate::states::Notes;
use crate::sweep::Together;
use crate::watch::DiskWatch;
use ringraft_net::Identity;
use ringraft_raft::{Boot, Configured, HardState, Output, Raft, Settings};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{
    Addresses, GroupId, Incarnation, Index, LogId, Met, NodeId, Sequence, ShardId, Starts, Term,
    Ticks, Words,
};
use ringraft_wal::Log;
use ringraft_wal::device::Device;
use std::collections::{BTreeMap, BTreeSet};

/// A node of the cluster, as clients and peers must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub node: NodeId,
    /// Where other nodes reach it, as configured.
    pub peer_address: String,
    /// Where clients reach it, as configured.
    pub client_address: String,
}

impl Member {
    /// What a configuration says of it. The life of its directory isn't known.
    pub(crate) fn words(&self) -> Words<'_> {
        let (peer, client) = (self.peer_address.as_bytes(), self.client_address.as_bytes());
        Words { incarnation: Incarnation(0), addresses: Addresses { peer, client } }
    }
}

/// What a shard is started with.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Who we are; goes into every frame.
    pub identity: Identity,
    /// The starts of this node, the present one the newest.
    pub starts: Starts,
    /// Which shard of the node this is.
    pub shard: ShardId,
    /// How many shards every node has.
    pub shards: u16,
    /// Nodes of the cluster as this one's file reaches them, this one among them, ascending: a
    /// configuration's addresses count for others.
    pub members: Vec<Member>,
    /// The voters that every group began with, some of `members`. Empty: this node joins groups
    /// that others began.
    pub voters: Vec<NodeId>,
    /// The groups of this node; those that live on other shards are ignored.
    pub groups: Vec<GroupId>,
    /// Timing and windows of every group.
    pub raft: Settings,
    /// Who is to lead.
    pub lead: LeadRules,
    /// Bounds.
    pub limits: Limits,
    /// When snapshots are taken, and how many are kept.
    pub snapshots: SnapshotRules,
    /// Entries of a group from one note of its state's hash to the next, at least one: replicas are
    /// compared by them. [`crate::limits::STATE_NOTE_ENTRIES`] on all nodes that serve.
    pub state_note_entries: u64,
    /// How often the log is read through to find rot.
    pub scrub: ScrubRules,
    /// A write that takes longer is reported with its slowest stage; `None`: never.
    pub slow_write: Option<Ticks>,
    /// Seeds the groups' election jitter.
    pub seed: u64,
    /// The node's name, for people.
    pub name: String,
}

/// Another node, as this shard sees it.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// As whom it was met last, durable or on its way; its incarnation never changes by itself.
    pub(crate) met: Option<Met>,
    /// As whom it greeted last; it is met with its first frame.
    pub(crate) greeted: Option<Met>,
    /// It greeted in another life than the one that counts here, and is let in on the word of
    /// others: as one that may lead, and nothing else.
    pub(crate) is_vouched: bool,
    /// Another life that greeted than the one that counts here.
    pub(crate) doubt: Option<Doubt>,
    /// The link is up.
    pub(crate) connected: bool,
    /// How many groups here name it.
    pub(crate) named: usize,
    /// When a frame of it came last.
    pub(crate) heard_at: Ticks,
    /// What rests on it was woken, and none of its frames came since.
    pub(crate) is_silent: bool,
    /// For how long its disk has held a write, as it said last.
    pub(crate) disk_wait: Ticks,
    /// When it said last that its memory for data is full, unless it said otherwise since.
    pub(crate) memory_full: Option<Ticks>,
    /// The record of `met` is on its way to the disk: nothing is believed before.
    pub(crate) awaits: Option<Sequence>,
    /// What waits to leave as one frame at the end of the turn.
    pub(crate) staged: Staged,
    /// Groups (by slot) of which an append did not fit the outbox.
    pub(crate) postponed: Vec<usize>,
}

impl Peer {
    /// The group of this place left.
    pub(crate) fn forget_group(&mut self, slot: usize) {
        self.postponed.retain(|&of| of != slot);
        if let Some(doubt) = &mut self.doubt {
            doubt.forget_group(slot);
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        let is_met = self.greeted == self.met || self.is_vouched;
        self.connected && self.awaits.is_none() && is_met
    }
}

/// Whether any peer has something of a kind that a turn looks after; it may have gone meanwhile.
/// Most turns have nothing of most kinds, and so don't look at the peers at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeersDue {
    /// Some peer is met when its record is durable ([`Peer::awaits`]).
    pub(crate) awaits: bool,
    /// Something waits to leave ([`Peer::staged`]).
    pub(crate) staged: bool,
    /// Some append is to be tried again ([`Peer::postponed`]).
    pub(crate) postponed: bool,
}

/// A read of the log on its way, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchFor {
    Apply { slot: usize, first: Index },
    Peer { slot: usize, peer: NodeId, first: Index },
    Lend { slot: usize, peer: NodeId, round: u64, first: Index },
}

/// One core's groups.
pub struct Shard<D: Device, L: Links> {
    pub(crate) settings: ShardSettings,
    /// The disk door.
    pub device: D,
    /// The network door.
    pub links: L,
    pub(crate) log: Log,
    pub(crate) router: Router,
    pub(crate) groups: Vec<Group>,
    pub(crate) slots: BTreeMap<GroupId, usize>,
    pub(crate) placing: Placing,
    pub(crate) hibernation: Hibernation,
    /// Groups that came and left, beside those that the settings name.
    pub(crate) homes: Homes,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    /// What of the peers a turn has to look at.
    pub(crate) peers_due: PeersDue,
    /// As whom nodes were met that aren't peers any more.
    pub(crate) strangers: BTreeMap<NodeId, Met>,
    /// A link was lost, or a stranger greeted, since the last turn.
    pub(crate) may_part: bool,
    pub(crate) cache: Cache,
    pub(crate) gates: Gates,
    /// Groups with something to propose or read in this turn.
    pub(crate) touched: Vec<usize>,
    /// Groups whose joint configuration is committed, and isn't to stay.
    pub(crate) completing: Vec<usize>,
    /// Record bytes of the proposals that no group has handed to the log yet.
    pub(crate) unproposed_bytes: usize,
    /// Groups with something to apply.
    pub(crate) to_apply: Vec<usize>,
    /// Groups with something new to tell of their state, or to compare.
    pub(crate) to_compare: Vec<usize>,
    /// Groups that hold another state than the others, until they are rebuilt.
    pub(crate) fenced: BTreeSet<usize>,
    pub(crate) fetches: BTreeMap<u64, FetchFor>,
    /// The log was asked for entries since it last had its turn.
    pub(crate) fetch_asked: bool,
    pub(crate) notices: Notices,
    /// The log is read through for apply: nothing is fetched for that meanwhile.
    pub(crate) is_sweeping: bool,
    /// What came of it and isn't applied yet.
    pub(crate) together: Together,
    pub(crate) next_ticket: u64,
    /// No group wants a tick before this.
    pub(crate) next_tick: Ticks,
    pub(crate) metrics: Metrics,
    pub(crate) started: Option<Ticks>,
    pub(crate) scratch: Scratch,
    /// The answers of the group that is being applied.
    pub(crate) answers: Vec<Answer>,
    /// Batches that are applied and not yet on their way.
    pub(crate) leaving: Vec<Leaving>,
    /// Groups with batches that the log has not submitted.
    pub(crate) unsubmitted: Vec<usize>,
    /// What people may want to read; bounded by what one turn can bring.
    pub(crate) events: Vec<ShardEvent>,
    pub(crate) disk_was_full: bool,
    pub(crate) watch: DiskWatch,
    pub(crate) memory: Memory,
    /// Writes of all groups that wait for apply.
    pub(crate) pending: Pending,
    /// Frames of reads of all groups that wait.
    pub(crate) reading: Pending,
    /// Groups (by slot) of which entries can't be read.
    pub(crate) mending: BTreeMap<usize, Mending>,
    pub(crate) scrubbing: Scrubbing,
    pub(crate) snapshots: Snapshots,
    pub(crate) fetching: Fetching,
    pub(crate) serving: Serving,
    /// Makes the empty machine of a group.
    pub(crate) make_machine: Box<dyn FnMut(GroupId) -> Box<dyn StateMachine>>,
    pub(crate) handing_over: HandingOver,
    pub(crate) spread: Spread,
    /// Clients that wait for entries to come far enough.
    pub(crate) barriers: Barriers,
    /// Nothing new is taken on: what was is brought to its end.
    pub(crate) is_stopping: bool,
    /// The data directory is an older copy: no group takes part.
    pub(crate) is_rolled_back: bool,
    /// The newest record of the node itself was lost: no group takes part, and none is written.
    pub(crate) is_node_damaged: bool,
    pub(crate) torn_blocks: u64,
    pub(crate) segments_found: u64,
    /// Spare buffers for reads that wait.
    pub(crate) read_buffers: Vec<Vec<u8>>,
    /// No read that waits for its entry expires before this.
    pub(crate) reads_until: Ticks,
}

/// Buffers that a turn reuses.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) output: Output,
    pub(crate) heads: Vec<ringraft_raft::EntryHead>,
    pub(crate) configurations: Vec<Configured>,
    pub(crate) offsets: Vec<u32>,
    pub(crate) record: Vec<u8>,
    pub(crate) reply: Vec<u8>,
    pub(crate) trimmed: Vec<u32>,
}

impl<D: Device, L: Links> Shard<D, L> {
    /// A shard over a log that was just recovered, and whose snapshots were loaded. `machine` makes
    /// the state machine of a group without one; everything committed behind the snapshot is
    /// applied again, in order.
    ///
    /// # Errors
    /// If a record of the log is unknown to this version.
    ///
    /// # Panics
    /// If the bounds contradict each other.
    pub fn new(
        settings: ShardSettings,
        device: D,
        links: L,
        loaded: Loaded,
        now: Ticks,
        machine: impl FnMut(GroupId) -> Box<dyn StateMachine> + 'static,
    ) -> Result<Self, ShardError> {
        let Loaded { log, recovered, groups: mut loaded } = loaded;
        let (reads, waiting) = (settings.limits.group_reads_max, settings.raft.reads_waiting_max);
        assert!(reads <= waiting, "{reads} reads are taken, the protocol takes {waiting}");
        let (cache, least) = (settings.limits.cache_bytes_max, ENTRY_CACHE_BYTES_MIN);
        assert!(cache >= least, "an entry cache of {cache} bytes, {least} are needed");
        let router = Router::new(settings.shards);
        let (mut shards_found, mut strangers) = (None, BTreeMap::new());
        for bytes in &recovered.node_records {
            let record = record::decode(bytes).map_err(ShardError::Record)?;
            if record.header.kind == RecordKind::Node {
                let found = NodeRecord::decode(&record).map_err(ShardError::Record)?;
                shards_found = Some(found.shards);
                // Who is named by a group comes out of them.
                strangers.extend(found.met);
            }
        }
        let cache = Cache::new(settings.limits.cache_bytes_max);
        let mut shard = Self {
            router,
            device,
            links,
            log,
            groups: Vec::new(),
            slots: BTreeMap::new(),
            placing: Placing::default(),
            hibernation: Hibernation::default(),
            homes: Homes::of(&recovered)?,
            peers: BTreeMap::new(),
            peers_due: PeersDue::default(),
            strangers,
            may_part: false,
            cache,
            gates: Gates::default(),
            touched: Vec::new(),
            completing: Vec::new(),
            unproposed_bytes: 0,
            to_apply: Vec::new(),
            to_compare: Vec::new(),
            fenced: BTreeSet::new(),
            fetches: BTreeMap::new(),
            fetch_asked: false,
            is_sweeping: false,
            notices: Notices::default(),
            together: Together::default(),
            next_ticket: 1,
            next_tick: Ticks::ZERO,
            metrics: Metrics::default(),
            started: None,
            scratch: Scratch::default(),
            answers: Vec::new(),
            leaving: Vec::new(),
            unsubmitted: Vec::new(),
            events: Vec::new(),
            disk_was_full: false,
            watch: DiskWatch::default(),
            memory: Memory::default(),
            pending: Pending::default(),
            reading: Pending::default(),
            mending: BTreeMap::new(),
            scrubbing: Scrubbing::default(),
            snapshots: Snapshots::default(),
            fetching: Fetching::default(),
            serving: Serving::default(),
            make_machine: Box::new(machine),
            handing_over: HandingOver::default(),
            spread: Spread::default(),
            barriers: Barriers::default(),
            is_stopping: false,
            is_rolled_back: false,
            is_node_damaged: recovered.node_damaged,
            torn_blocks: recovered.torn_blocks,
            segments_found: recovered.segments,
            read_buffers: Vec::new(),
            reads_until: Ticks::NEVER,
            settings,
        };
        match shards_found {
            Some(found) if found != shard.settings.shards => {
                return Err(ShardError::Shards { found, configured: shard.settings.shards });
            }
            Some(_) => {}
            None if shard.is_node_damaged => {}
            // A group's home depends on the number of shards.
            None => drop(shard.write_node_record()?),
        }
        // Rot that took the node's own records, or nobody knows what: a peer's other life could
        // pass for the one that was known, or a vote be given twice. Every group stays silent.
        let is_muted = shard.is_node_damaged;
        for id in shard.homes.groups(&shard.settings.groups) {
            if shard.router.home(id) == shard.settings.shard {
                let found = recovered.groups.get(&id);
                let loaded = loaded.remove(&id).unwrap_or_default();
                let first = match shard.homes.first(id) {
                    Some(payload) => homes::first_members(payload)?,
                    None => shard.first_members(),
                };
                shard.add_group(id, first, found, loaded, is_muted, now)?;
            }
        }
        // Their groups left, and the node stopped before it had removed them.
        for head in recovered.snapshots.iter().filter(|head| shard.homes.is_orphan(head.group)) {
            shard.log.remove_snapshot(&mut shard.device, head.number);
        }
        // Only all groups together say who counts by which life.
        for slot in 0..shard.groups.len() {
            shard.check_lives(now, slot)?;
        }
        for slot in 0..shard.groups.len() {
            shard.account(slot);
        }
        shard.look_for_seeds(now);
        shard.begin_sweep();
        Ok(shard)
    }

    /// A group takes part from now on, with what was found of it.
    pub(crate) fn add_group(
        &mut self,
        id: GroupId,
        first: Members,
        found: Option<&ringraft_wal::RecoveredGroup>,
        loaded: LoadedGroup,
        is_muted: bool,
        now: Ticks,
    ) -> Result<usize, ShardError> {
        let LoadedGroup { mut state, kept, failed } = loaded;
        for &(head, error) in &failed {
            let number = head.number;
            self.events.push(ShardEvent::SnapshotUnreadable { group: id, number, error });
        }
        let mut hard_state = HardState::default();
        let snapshot = state.as_ref().map(|state| state.last);
        let unloaded = failed.iter().map(|(head, _)| head.last).max();
        let (mut shape, mut floor, cut) = start::shape(found, snapshot, unloaded);
        let is_name_lost = floor.is_some_and(|floor| floor.index == Index(u64::MAX));
        let held = shape.runs.last().map_or(shape.base, |run| LogId::new(run.1, shape.last));
        let owed = self.homes.owed(id).filter(|owed| *owed > held);
        #[cfg(ringraft_plant)]
        let owed = owed.filter(|_| !planted(Plant::LeftForgotten));
        // It gave its log up, and no disk lost it.
        let owes_only = floor.is_none() && owed.is_some();
        floor = floor.max(owed);
        let mut is_muted = is_muted;
        if let Some(found) = found {
            if let Some((term, vote, commit)) = found.hard {
                let vote = (vote != 0).then_some(NodeId(vote));
                hard_state = HardState { term, vote, commit };
                #[cfg(ringraft_plant)]
                if planted(Plant::VoteForgotten) {
                    hard_state.vote = None;
                }
            }
            match found.hard_lost {
                None => {}
                // Whom it voted for in that term is lost: it votes for nobody else there (S08).
                Some(term) if term < Term(u64::MAX) => {
                    hard_state.term = hard_state.term.max(term);
                    hard_state.vote = Some(self.settings.identity.node);
                }
                Some(_) => is_muted = true,
            }
        }
        if let Some(last) = snapshot {
            // It was committed, also if the disk doesn't say so yet.
            hard_state.commit = hard_state.commit.max(last.index);
        }
        if is_name_lost {
            // How much it promised isn't known, but that nothing of it is of a newer term than this
            // (V4). It goes on to the next term, in which nobody has its vote: who leads from then on
            // was elected by others, and holds what counts of that.
            floor = Some(LogId::new(hard_state.term, Index(u64::MAX)));
            (hard_state.term, hard_state.vote) = (hard_state.term.next(), None);
        }
        if is_muted {
            // Nothing it holds is believed, so it starts as if from nothing, and says nothing.
            (hard_state, shape, floor, state) = Default::default();
        } else if let Some(from) = cut {
            self.append_record(RecordKind::Truncate, id, from, hard_state.term, &[])?;
        }
        let promised = found.filter(|_| !is_muted && cut.is_none());
        let promised = promised.and_then(|found| start::promised(found, &shape));
        let (mut logged, mut behind) = (Vec::new(), Vec::new());
        for (index, payload) in found.into_iter().flat_map(|found| &found.configurations) {
            if *index > shape.base.index {
                let into = if *index <= shape.last { &mut logged } else { &mut behind };
                into.push(Members::decode(*index, payload).map_err(ShardError::Members)?);
            }
        }
        // A log that is whole tells all of it; else the snapshot knows what was before.
        let known = state.as_ref().filter(|_| shape.base.index > Index::ZERO);
        let before = known.map_or(first, |state| state.members.clone());
        let boot = Boot {
            id: self.settings.identity.node,
            configuration: before.configured(self.own()),
            logged: logged.iter().map(|members| members.configured(self.own())).collect(),
            hard_state,
            log: shape,
            vote_floor: floor,
            seed: self.settings.seed ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        let raft = Raft::new(now, self.settings.raft, boot);
        let floor = raft.vote_floor();
        let is_lost = floor.is_some() && !owes_only;
        let halt = (is_muted || is_lost).then_some(Halt::Damaged);
        if let Some(promised) = floor.filter(|_| is_lost) {
            let first = raft.last().next();
            self.events.push(ShardEvent::EntriesLost { group: id, first, promised });
        }
        let mut book = Book::new(before, logged);
        let slot = self.next_slot();
        assert!(slot <= self.groups.len(), "cache and groups share their slots");
        let mut group = match state {
            None => Group::new(id, raft, book, (self.make_machine)(id), halt),
            Some(LoadedState { last, machine, sessions, members: _ }) => {
                book.forget_before(last.index);
                let mut group = Group::new(id, raft, book, machine, halt);
                (group.sessions, group.applied) = (sessions, last.index);
                #[cfg(ringraft_plant)]
                if planted(Plant::SessionsUnloaded) {
                    group.sessions = crate::session::Sessions::new();
                }
                group
            }
        };
        group.notes = Notes::new(self.settings.state_note_entries);
        (group.is_muted, group.is_name_lost) = (is_muted, is_name_lost);
        group.comparing.stood_aside = floor.is_some() && owes_only;
        group.holes = promised
            .filter(|_| floor.is_some())
            .and_then(|promised| Holes::new(promised, group.raft.last(), behind))
            .filter(|holes| holes.last().term <= group.raft.term())
            .map(Box::new);
        if group.holes.is_some() {
            // A leader that is there sends them before that.
            let ask_at = now.after(self.settings.raft.election_timeout);
            self.mending.insert(slot, Mending::new(ask_at));
        }
        group.committed = group.raft.commit();
        (group.kept, group.snapshot_at) = (kept, now);
        group.unreadable = failed.into_iter().map(|(head, _)| head.number).collect();
        group.named = found.and_then(|found| found.named);
        group.named_durable = group.named.map_or(Index::ZERO, |named| named.last.index);
        group.released = group.named_durable;
        if slot == self.groups.len() {
            self.groups.push(group);
        } else {
            self.groups[slot] = group;
        }
        self.slots.insert(id, slot);
        // Others may want no tick ever.
        self.next_tick = self.next_tick.min(self.groups[slot].wake_at().max(now));
        if !is_muted && !is_lost {
            self.log.repaired(id);
        }
        if !is_muted && found.is_some_and(|found| found.hard_lost.is_some()) {
            // What is lost may be all that says so, and an older one that is intact be written again.
            self.append_hard_state(slot, hard_state)?;
        }
        self.members_moved(now, slot);
        self.list_for_apply(slot);
        if !is_muted {
            self.name_oldest(slot)?;
        }
        Ok(slot)
    }

    /// Whether frames of peers should be read now: not while the log has more than it may hold.
    pub fn reads_peers(&self) -> bool {
        self.log.pending_bytes() < self.settings.limits.log_bytes_max
    }

    /// Writes what the log holds, before the first turn; whether all of it is durable.
    ///
    /// # Errors
    /// If the log can't go on; the process must stop.
    pub fn write_out(&mut self, now: Ticks) -> Result<bool, ShardError> {
        self.log.turn(now, &mut self.device)?;
        Ok(self.log.is_idle())
    }

    /// Takes on nothing new from now on: no writes of clients, no entries and no votes. What was
    /// taken goes on to its end, and what is led here is handed over in the next turns, as far as
    /// somebody can take it.
    pub fn stop(&mut self) {
        if !self.is_stopping && self.settings.snapshots.on_stop {
            self.want_snapshots(SnapshotReason::Stop);
        }
        if !self.is_stopping {
            self.give_up_leading();
        }
        self.is_stopping = true;
    }

    /// Whether nothing waits for the disk but snapshots.
    pub fn is_quiet(&self) -> bool {
        self.log.is_idle() && self.gates.is_empty()
    }

    /// Whether snapshots are being taken, or wait for their turn.
    pub fn is_saving(&self) -> bool {
        self.snapshots.is_busy()
    }

    /// The groups that this shard leads and may serve.
    pub fn ready_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.iter().filter(|group| group.raft.is_ready()).map(|group| group.id)
    }

    /// Ends the shard and gives its doors back: a simulated disk outlives its node.
    pub fn into_doors(self) -> (D, L) {
        (self.device, self.links)
    }

    /// What happened since the last call that people may want to read.
    pub fn take_events(&mut self) -> Vec<ShardEvent> {
        std::mem::take(&mut self.events)
    }

    /// What a group's leader counts of every other voter in this term: up to where its log agrees,
    /// and the newest read round that it answered. Nothing if it isn't led here.
    pub fn peers_counted(&self, group: GroupId) -> impl Iterator<Item = (NodeId, Index, u64)> + '_ {
        let slot = self.slots.get(&group);
        slot.into_iter().flat_map(|&slot| self.groups[slot].raft.peers_counted())
    }

    /// The entry up to which a group votes as if it held its log, also if rot took some of it; `None`:
    /// it isn't here, or takes no part in anything.
    pub fn votes_as_holding(&self, group: GroupId) -> Option<LogId> {
        let group = &self.groups[*self.slots.get(&group)?];
        (!group.is_muted).then(|| group.raft.vote_last())
    }

    /// Writes proposed here and not yet answered.
    pub fn pending_writes(&self) -> u64 {
        let counted: usize = self.groups.iter().map(|group| group.waiting.len()).sum();
        assert!(counted == self.pending.count, "what waits is counted as it comes and goes");
        counted as u64
    }

    /// Record bytes of those.
    pub const fn pending_write_bytes(&self) -> usize {
        self.pending.bytes
    }

    /// Frames of reads that wait here.
    pub fn pending_reads(&self) -> u64 {
        let of = |group: &Group| group.reads.len() + group.reads_placed.len();
        let counted: usize = self.groups.iter().map(of).sum();
        assert!(counted == self.reading.count, "what waits is counted as it comes and goes");
        counted as u64
    }

    /// Their bytes.
    pub const fn pending_read_bytes(&self) -> usize {
        self.reading.bytes
    }

    /// Segment files of the log.
    pub fn segments(&self) -> u64 {
        let stats = self.log.stats();
        (self.segments_found + stats.segments_made).saturating_sub(stats.segments_removed)
    }

    /// Blocks that recovery cut as torn.
    pub fn torn_blocks(&self) -> u64 {
        self.torn_blocks
    }

    /// What this shard measured of itself.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The log, for its statistics.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What the shard was started with.
    pub fn settings(&self) -> &ShardSettings {
        &self.settings
    }
}
