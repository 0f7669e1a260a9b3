//! Fetching a snapshot that the leader's log begins behind, or that holds what nobody has in a log
//! any more, and going on from it.
//!
//! ```text
//!  wanted -> asking -> fetching -> ending -> loading -> installed
//!              ^          |                     |
//!              +----------+---------------------+  another source, after a pause
//! ```
//! One group of a shard at a time. Nodes that keep a snapshot of the same entry give it together
//! (`transfer.rs`). What comes is written to a file of this node's own log; when that
//! is durable it is read back into a new machine, which takes the old one's place in one step with
//! the protocol's: nobody is told of it before (A22). A snapshot is of what is committed, so whose
//! it is doesn't matter: the leader is asked first, then the others in turn. A connection that
//! breaks, or another leader, doesn't begin it anew: the chunks that are missing are asked for again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringraft_net::bulk_wire::{ChunkAsk, ChunkHead, SnapshotAsk, SnapshotOffer};
use ringraft_raft::{Input, NUMBER_MAX};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{GroupId, LogId, NodeId, Term, Ticks};
use ringraft_wal::device::Device;
use ringraft_wal::{ChunkDone, SnapshotError, SnapshotWritten};

use super::LoadedState;
use super::loader::{FETCH_PAUSE, Loader, Progress};
use super::transfer::{self, ANSWER_TIME, Came, SOURCE_TIME, Transfer};
use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::group::Need;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::Shard;

/// After something failed: the time until the next attempt.
const RETRY_AFTER: Ticks = Ticks::from_millis(2_000);
/// What one turn loads, bytes: about as many as one takes of a snapshot that is taken.
const LOAD_BYTES_PER_TURN: usize = 32 << 10;

/// Why a snapshot was not installed. It is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallFailure {
    /// No node of the group gives one.
    #[error("no node of the group gives a snapshot")]
    NoSource,
    /// What came couldn't be stored.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// What was stored couldn't be loaded.
    #[error(transparent)]
    Load(#[from] super::LoadFailure),
}

/// How far the snapshot is that a group here is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallProgress {
    /// The group.
    pub group: GroupId,
    /// Who gives it, or gave it; of several the one that was asked first.
    pub from: NodeId,
    /// How many nodes give it.
    pub sources: usize,
    /// Chunks that are here.
    pub fetched: u32,
    /// Chunks that are loaded.
    pub loaded: u32,
    /// Chunks that there are; zero as long as that isn't known.
    pub chunks: u32,
}

enum Step {
    /// The source is asked what it has; since when.
    Asking(Option<Ticks>),
    Fetching(Transfer),
    /// Everything is in this file, of so many chunks; it is made durable.
    Ending {
        number: u64,
        chunks: u32,
    },
    Loading(Box<Loader>),
}

struct Install {
    slot: usize,
    need: Need,
    source: NodeId,
    /// Who may be asked after it.
    others: VecDeque<NodeId>,
    /// One node gives all of it: what several gave before couldn't be loaded.
    is_alone: bool,
    /// Who was the first to give it; how many nodes gave it in the end.
    first: NodeId,
    gave: usize,
    began: Ticks,
    /// When the source was asked first.
    heard: Ticks,
    step: Step,
}

/// Snapshots that groups here need.
#[derive(Default)]
pub(crate) struct Fetching {
    /// Groups that are told to install.
    wanted: BTreeSet<usize>,
    /// The group that was tried last: the one after it is next.
    last_tried: usize,
    under: Option<Install>,
    retry_at: Ticks,
    /// Groups whose last attempt brought what couldn't be loaded, and whom it came from first.
    doubted: BTreeMap<usize, NodeId>,
}

impl Fetching {
    /// Whether nothing is fetched, and nothing wanted.
    pub(super) fn is_idle(&self) -> bool {
        self.under.is_none() && self.wanted.is_empty()
    }

    /// Whether a snapshot is being fetched for this group: none is taken of it meanwhile, for files
    /// are numbered in the order of what they hold.
    pub(super) fn is_under(&self, slot: usize) -> bool {
        self.under.as_ref().is_some_and(|under| under.slot == slot)
    }

    /// Whether a snapshot is wanted or fetched for this group.
    pub(crate) fn concerns(&self, slot: usize) -> bool {
        self.is_under(slot) || self.wanted.contains(&slot)
    }

    /// The group left: what is fetched for it ends as soon as that is seen.
    pub(crate) fn forget(&mut self, slot: usize) {
        self.wanted.remove(&slot);
        self.doubted.remove(&slot);
    }

    /// Whether this file is one that is being fetched.
    pub(super) fn is_of(&self, number: u64) -> bool {
        let under = self.under.as_ref().map(|under| &under.step);
        match under {
            Some(Step::Fetching(transfer)) => transfer.number == number,
            Some(Step::Ending { number: own, .. }) => *own == number,
            _ => false,
        }
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// A group needs a snapshot.
    pub(crate) fn want_install(&mut self, slot: usize, need: Need) {
        self.groups[slot].install = Some(need);
        self.fetching.wanted.insert(slot);
        self.snapshots.rouse();
    }

    /// Whether a group needs a snapshot that isn't here yet.
    pub(crate) fn is_install_wanted(&self, slot: usize) -> bool {
        self.groups[slot].install.is_some() || self.fetching.is_under(slot)
    }

    /// How far a snapshot is that is being fetched or loaded.
    pub fn install_progress(&self) -> Option<InstallProgress> {
        let under = self.fetching.under.as_ref()?;
        let (mut from, mut sources) = (under.source, under.gave);
        let (fetched, loaded, chunks) = match &under.step {
            Step::Asking(_) => (0, 0, 0),
            Step::Fetching(transfer) => {
                sources = transfer.sources().len();
                from = transfer.sources().next().unwrap_or(from);
                let (fetched, chunks) = transfer.progress();
                (fetched, 0, chunks)
            }
            Step::Ending { chunks, .. } => (*chunks, 0, *chunks),
            Step::Loading(loader) => {
                let chunks = loader.head().chunks;
                (chunks, loader.loaded(), chunks)
            }
        };
        let group = self.groups[under.slot].id;
        Some(InstallProgress { group, from, sources, fetched, loaded, chunks })
    }

    /// Goes on with the snapshot that is being fetched. Returns when it wants another turn.
    pub(crate) fn fetch_snapshots(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        if self.fetching.under.is_none() && !self.fetching.wanted.is_empty() {
            if now < self.fetching.retry_at {
                return Ok(self.fetching.retry_at);
            }
            self.begin_install(now);
        }
        let Some(mut under) = self.fetching.under.take() else { return Ok(Ticks::NEVER) };
        if !self.groups[under.slot].needs(under.need) {
            match &mut under.step {
                Step::Asking(_) | Step::Fetching(_) => {
                    self.drop_file(&under);
                    return Ok(now);
                }
                // Told when it has ended; what it reads is on its way.
                Step::Ending { .. } => {}
                Step::Loading(loader) => loader.give_up(),
            }
        }
        let at = match &mut under.step {
            // Who isn't connected doesn't answer: others needn't wait for that.
            Step::Asking(_)
                if now >= under.heard.after(SOURCE_TIME) || !self.is_connected(under.source) =>
            {
                self.next_source(now, under);
                return Ok(now);
            }
            Step::Asking(asked) => {
                let at = self.ask_source(now, under.slot, under.source, under.need, asked);
                at.min(under.heard.after(SOURCE_TIME))
            }
            Step::Fetching(transfer) => match self.fetch_on(now, under.slot, transfer) {
                Some(_) if transfer.is_complete() => {
                    let (gave, source) = transfer.gave();
                    (under.gave, under.source) = (gave, source.unwrap_or(under.source));
                    let number = transfer.number;
                    self.log.end_snapshot(number);
                    under.step = Step::Ending { number, chunks: transfer.progress().1 };
                    now
                }
                Some(at) => at,
                None => {
                    self.next_source(now, under);
                    return Ok(now);
                }
            },
            Step::Ending { .. } => Ticks::NEVER,
            Step::Loading(loader) => match loader.step(&mut self.log, LOAD_BYTES_PER_TURN) {
                Progress::Works => now,
                Progress::Waits => Ticks::NEVER,
                Progress::Fetches => now.after(FETCH_PAUSE),
                Progress::Ended => {
                    self.loaded(now, under)?;
                    return Ok(now);
                }
            },
        };
        self.fetching.under = Some(under);
        Ok(at)
    }

    fn is_connected(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.connected)
    }

    /// Who may give a group's snapshot, beside one.
    fn other_sources(
        &self,
        slot: usize,
        beside: Option<NodeId>,
    ) -> impl Iterator<Item = NodeId> + '_ {
        let others = self.peers.keys().copied().filter(move |&node| Some(node) != beside);
        others.filter(move |&node| self.may_lead(slot, node))
    }

    fn begin_install(&mut self, now: Ticks) {
        loop {
            let wanted = &self.fetching.wanted;
            let next = wanted.range(self.fetching.last_tried + 1..).next().or(wanted.first());
            let Some(&slot) = next else { return };
            self.fetching.wanted.remove(&slot);
            self.fetching.last_tried = slot;
            let group = &mut self.groups[slot];
            let Some(need) = group.install.take() else { continue };
            if !group.needs(need) {
                continue;
            }
            let leader = match need {
                Need::Leader(leader, _) | Need::State(leader, _) => Some(leader),
                Need::Repair(_) => None,
            };
            // Of the others nobody knows whether they agree with it.
            let is_of_leader = matches!(need, Need::State(..));
            let others = self.other_sources(slot, leader).filter(|_| !is_of_leader);
            let mut all: VecDeque<NodeId> = leader.into_iter().chain(others).collect();
            let doubted = self.fetching.doubted.get(&slot);
            if let Some(at) = all.iter().position(|node| Some(node) == doubted) {
                all.rotate_left(at + 1);
            }
            let Some(source) = all.pop_front() else {
                self.install_failed(now, slot, need, InstallFailure::NoSource);
                continue;
            };
            let others = all;
            let is_alone = is_of_leader || doubted.is_some();
            let step = Step::Asking(None);
            let (began, heard) = (now, now);
            let (first, gave) = (source, 0);
            self.fetching.under = Some(Install {
                slot,
                need,
                source,
                others,
                is_alone,
                first,
                gave,
                began,
                heard,
                step,
            });
            return;
        }
    }

    fn ask_source(
        &mut self,
        now: Ticks,
        slot: usize,
        source: NodeId,
        need: Need,
        asked: &mut Option<Ticks>,
    ) -> Ticks {
        if asked.is_none_or(|asked| now >= asked.after(ANSWER_TIME))
            && let Some(outbox) = self.links.pull(source)
        {
            let base_term = match need {
                Need::Leader(_, base) => base.term,
                Need::Repair(_) | Need::State(..) => Term::ZERO,
            };
            let ask = SnapshotAsk { base_term, base_index: need.least() };
            ask.write(outbox, self.groups[slot].id, self.settings.identity);
            *asked = Some(now);
        }
        asked.map_or(Ticks::NEVER, |asked| asked.after(ANSWER_TIME))
    }

    /// Adds a chunk that is there, and asks for the next ones. Returns when to come back; `None` if
    /// nobody is left who can give what is missing.
    fn fetch_on(&mut self, now: Ticks, slot: usize, transfer: &mut Transfer) -> Option<Ticks> {
        while let Some(silent) = transfer.silent(now) {
            transfer.give_up(silent);
        }
        if !transfer.share_out(now) {
            return None;
        }
        let mut came = false;
        let Self { log, links, groups, settings, .. } = self;
        let number = transfer.number;
        if let Some((chunk, piece)) = transfer.take_next(|chunk| log.snapshot_takes(number, chunk))
        {
            log.put_chunk(number, chunk, &piece.bytes, piece.content);
            came = true;
        }
        let (group, identity) = (groups[slot].id, settings.identity);
        for node in transfer.to_ask(now) {
            if let Some(outbox) = links.pull(node).filter(|outbox| !outbox.is_full()) {
                let LogId { term: base_term, index: base_index } = transfer.last();
                SnapshotAsk { base_term, base_index }.write(outbox, group, identity);
                transfer.was_asked(now, node);
            }
        }
        let (due, at) = transfer.due(now);
        for due in due {
            let Some(outbox) = links.pull(due.source).filter(|outbox| !outbox.is_full()) else {
                continue;
            };
            ChunkAsk { number: due.number, chunk: due.chunk }.write(outbox, group, identity);
            transfer.chunk_asked(now, due);
        }
        Some(if came { now } else { at })
    }

    /// The connection to a source is lost: what was asked for over it is asked for again.
    pub(crate) fn pull_lost(&mut self, node: NodeId) {
        let Some(under) = self.fetching.under.as_mut() else { return };
        match &mut under.step {
            Step::Asking(asked) if under.source == node => *asked = None,
            Step::Fetching(transfer) => transfer.pull_lost(node),
            _ => {}
        }
    }

    /// A source says what it has.
    pub(crate) fn snapshot_offered(
        &mut self,
        now: Ticks,
        from: NodeId,
        group: GroupId,
        offer: SnapshotOffer,
    ) {
        let Some(under) = self.fetching.under.as_mut() else { return };
        if self.groups[under.slot].id != group {
            return;
        }
        if let Step::Fetching(transfer) = &mut under.step {
            transfer.offered(now, from, &offer);
            return;
        }
        if under.source != from || !matches!(under.step, Step::Asking(Some(_))) {
            return;
        }
        let is_sound = offer.index.0 <= NUMBER_MAX
            && offer.term.0 <= NUMBER_MAX
            && transfer::layout(&offer).is_some();
        let is_of_use = is_sound
            && offer.number > 0
            && offer.index >= under.need.least()
            && self.groups[under.slot].may_install(under.need, offer.last());
        if !is_of_use {
            let under = self.fetching.under.take().expect("just seen");
            self.next_source(now, under);
            return;
        }
        let slot = under.slot;
        let others: Vec<NodeId> = match under.is_alone {
            true => Vec::new(),
            false => self.other_sources(slot, Some(from)).collect(),
        };
        let number = self.log.begin_snapshot(group, offer.last(), offer.strands);
        let transfer = Transfer::new(now, number, from, offer, others.into_iter());
        let under = self.fetching.under.as_mut().expect("just seen");
        under.step = Step::Fetching(transfer);
    }

    /// A chunk came.
    pub(crate) fn chunk_came(
        &mut self,
        now: Ticks,
        from: NodeId,
        group: GroupId,
        head: ChunkHead,
        bytes: &[u8],
    ) {
        let Some(under) = self.fetching.under.as_mut() else { return };
        if self.groups[under.slot].id != group {
            return;
        }
        let Step::Fetching(transfer) = &mut under.step else { return };
        if transfer.chunk_came(now, from, head, bytes) == Came::Wrong {
            transfer.give_up(from);
            if !transfer.share_out(now) {
                let under = self.fetching.under.take().expect("just seen");
                self.next_source(now, under);
            }
        }
    }

    /// The source has none, and nobody else gives this one: another node is asked, from the beginning,
    /// because it may keep one of another entry.
    fn next_source(&mut self, now: Ticks, mut under: Install) {
        self.drop_file(&under);
        match under.others.pop_front() {
            Some(source) => {
                (under.source, under.first) = (source, source);
                (under.heard, under.step) = (now, Step::Asking(None));
                self.fetching.under = Some(under);
            }
            None => self.install_failed(now, under.slot, under.need, InstallFailure::NoSource),
        }
    }

    /// What came of it isn't needed any more.
    fn drop_file(&mut self, under: &Install) {
        if let Step::Fetching(transfer) = &under.step {
            self.log.drop_snapshot(transfer.number);
        }
    }

    /// Said, and tried again after a pause if it is asked for again.
    fn install_failed(&mut self, now: Ticks, slot: usize, need: Need, error: InstallFailure) {
        if matches!(need, Need::Repair(_)) && error == InstallFailure::NoSource {
            // As with the entries that nobody has: they are asked for together.
            self.not_mended(slot);
            return;
        }
        if matches!(need, Need::State(..)) && error == InstallFailure::NoSource {
            // The leader was asked to take one, and is asked for it again.
            return;
        }
        self.metrics.installs_failed += 1;
        self.fetching.retry_at = now.after(RETRY_AFTER);
        self.events.push(ShardEvent::InstallFailed { group: self.groups[slot].id, error });
    }

    /// The file is durable, or could not be written.
    pub(super) fn fetched_written(
        &mut self,
        now: Ticks,
        SnapshotWritten { head, result }: SnapshotWritten,
    ) {
        let mut under = self.fetching.under.take().expect("a file of its own was written");
        if let Err(error) = result {
            self.install_failed(now, under.slot, under.need, error.into());
            return;
        }
        let machine = (self.make_machine)(head.group);
        under.step = Step::Loading(Box::new(Loader::new(head, machine)));
        self.fetching.under = Some(under);
    }

    /// A chunk was read to be loaded.
    pub(super) fn chunk_to_load(&mut self, done: ChunkDone) {
        let under = self.fetching.under.as_mut().map(|under| &mut under.step);
        let Some(Step::Loading(loader)) = under else {
            panic!("a loader ends when nothing of it is on its way")
        };
        loader.arrived(done);
    }

    /// The snapshot is in a machine, or can't be loaded. If it is still of use it takes the place
    /// of all that this node has of the group.
    fn loaded(&mut self, now: Ticks, under: Install) -> Result<(), ShardError> {
        let Install { slot, need, source: from, first, gave: sources, began, step, .. } = under;
        let Step::Loading(loader) = step else { unreachable!("it was being loaded") };
        let (head, result) = loader.end();
        let group = &self.groups[slot];
        let is_of_use = group.needs(need) && group.may_install(need, head.last);
        let state = match result {
            Ok(state) if is_of_use => state,
            result => {
                self.log.remove_snapshot(&mut self.device, head.number);
                if let Err(error) = result
                    && is_of_use
                {
                    self.fetching.doubted.insert(slot, first);
                    self.install_failed(now, slot, need, error.into());
                }
                return Ok(());
            }
        };
        self.log.close_snapshot(&mut self.device, head.number);
        self.fetching.doubted.remove(&slot);
        self.stop_taking(slot);
        let own = self.own();
        let group = &mut self.groups[slot];
        let is_in_log = group.is_in_log(need, head.last);
        assert!(
            is_in_log || head.last.index > group.applied,
            "what is installed is ahead of what is applied"
        );
        let LoadedState { last, machine, sessions, members } = state;
        let configured = members.configured(own);
        if !is_in_log {
            group.book.install(last.index, members);
        }
        (group.machine, group.sessions, group.applied) = (machine, sessions, last.index);
        group.apply_stock = None;
        group.snapshot_at = now;
        let (id, bytes, took) = (group.id, head.length, now.since(began));
        let goes_on = group.goes_on_behind(last);
        #[cfg(ringraft_plant)]
        let goes_on = goes_on && !planted(Plant::OutlineForgotten);
        let holes = group.holes.take().filter(|_| goes_on);
        let configuration = &configured;
        if !is_in_log {
            self.step(now, slot, Input::Installed { last, configuration }, Carried::Cache)?;
        }
        if let Some(holes) = holes {
            self.go_on_behind(now, slot, last, *holes)?;
        }
        self.account(slot);
        self.members_applied(now, slot)?;
        self.metrics.snapshots_installed += 1;
        let last = last.index;
        let group = id;
        self.events.push(ShardEvent::SnapshotInstalled { group, from, sources, last, bytes, took });
        self.keep(slot, head);
        self.state_replaced(now, slot, last)?;
        self.placement_replaced(group);
        // A newer one that was named is lost, and the log begins anew below its end. A record of it
        // that is written again would cover what comes now; what it held is owed without it.
        self.groups[slot].named.take_if(|named| named.last.index > last);
        // The log doesn't lead from an older one to where it goes on.
        self.name(slot, head)
    }
}
