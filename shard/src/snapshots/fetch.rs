//! Fetching a snapshot that the leader's log begins behind, and going on from it.
//!
//! ```text
//!  wanted -> asking -> fetching -> ending -> loading -> installed
//!              ^          |                     |
//!              +----------+---------------------+  another source, after a pause
//! ```
//! One group of a shard at a time. What comes is written to a file of this node's own log; when that
//! is durable it is read back into a new machine, which takes the old one's place in one step with
//! the protocol's: nobody is told of it before (A22). A snapshot is of what is committed, so whose
//! it is doesn't matter: the leader is asked first, then the others in turn. A connection that
//! breaks, or another leader, doesn't begin it anew: the chunks that are missing are asked for again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringraft_net::bulk_wire::{ChunkAsk, ChunkHead, SnapshotAsk, SnapshotOffer};
use ringraft_raft::{Input, NUMBER_MAX};
use ringraft_types::{GroupId, LogId, NodeId, Ticks};
use ringraft_wal::device::Device;
use ringraft_wal::snapshot::CHUNK_ROOM;
use ringraft_wal::{ChunkDone, SnapshotError, SnapshotWritten};

use super::LoadedState;
use super::loader::{Loader, Progress};
use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::Shard;

/// Chunks that are asked for, or have come and wait for those before them.
const CHUNKS_AHEAD: u32 = 4;
/// An answer that takes longer is asked for again.
const ANSWER_TIME: Ticks = Ticks::from_millis(2_000);
/// A source of which nothing new comes for this long is given up for another.
const SOURCE_TIME: Ticks = Ticks::from_millis(10_000);
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
    /// Who gives it.
    pub from: NodeId,
    /// Chunks that are here.
    pub fetched: u32,
    /// Chunks that are loaded.
    pub loaded: u32,
    /// Chunks that there are; zero as long as that isn't known.
    pub chunks: u32,
}

/// What has come of a snapshot.
#[derive(Debug)]
struct Transfer {
    offer: SnapshotOffer,
    /// Of the file here.
    number: u64,
    /// Chunks in the file, in order.
    added: u32,
    /// When each of the next ones was asked for, or that it is there.
    ahead: BTreeMap<u32, Ahead>,
}

impl Transfer {
    /// The next chunk in order, if it is there.
    fn take_next(&mut self) -> Option<Vec<u8>> {
        let Some(Ahead::There(bytes)) = self.ahead.get_mut(&self.added) else { return None };
        let bytes = std::mem::take(bytes);
        self.ahead.remove(&self.added);
        self.added += 1;
        Some(bytes)
    }
}

/// A chunk that isn't in the file.
#[derive(Debug)]
enum Ahead {
    AskedAt(Ticks),
    There(Vec<u8>),
}

enum Step {
    /// The source is asked what it has; since when.
    Asking(Option<Ticks>),
    Fetching(Transfer),
    /// Everything is here; it is made durable.
    Ending(Transfer),
    Loading(Box<Loader>),
}

struct Install {
    slot: usize,
    /// What the snapshot must cover.
    base: LogId,
    source: NodeId,
    /// Who may be asked after it.
    others: VecDeque<NodeId>,
    began: Ticks,
    /// When the source last brought it on.
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
}

impl Fetching {
    /// Whether a snapshot is being fetched for this group: none is taken of it meanwhile, for files
    /// are numbered in the order of what they hold.
    pub(super) fn is_under(&self, slot: usize) -> bool {
        self.under.as_ref().is_some_and(|under| under.slot == slot)
    }

    /// Whether this file is one that is being fetched.
    pub(super) fn is_of(&self, number: u64) -> bool {
        let under = self.under.as_ref().map(|under| &under.step);
        matches!(under, Some(Step::Fetching(it) | Step::Ending(it)) if it.number == number)
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// A leader says that its log begins behind what this node has.
    pub(crate) fn want_install(&mut self, slot: usize, from: NodeId, base: LogId) {
        self.groups[slot].install = Some((from, base));
        self.fetching.wanted.insert(slot);
    }

    /// How far a snapshot is that is being fetched or loaded.
    pub fn install_progress(&self) -> Option<InstallProgress> {
        let under = self.fetching.under.as_ref()?;
        let (fetched, loaded, chunks) = match &under.step {
            Step::Asking(_) => (0, 0, 0),
            Step::Fetching(it) | Step::Ending(it) => (it.added, 0, it.offer.chunks),
            Step::Loading(loader) => {
                let chunks = loader.head().chunks;
                (chunks, loader.loaded(), chunks)
            }
        };
        let group = self.groups[under.slot].id;
        Some(InstallProgress { group, from: under.source, fetched, loaded, chunks })
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
        let is_over = {
            let group = &self.groups[under.slot];
            group.is_muted || group.raft.commit() >= under.base.index
        };
        if is_over {
            match &mut under.step {
                Step::Asking(_) | Step::Fetching(_) => {
                    self.drop_file(&under);
                    return Ok(now);
                }
                // Told when it has ended; what it reads is on its way.
                Step::Ending(_) => {}
                Step::Loading(loader) => loader.give_up(),
            }
        }
        let is_late = now >= under.heard.after(SOURCE_TIME);
        if is_late && matches!(under.step, Step::Asking(_) | Step::Fetching(_)) {
            self.next_source(now, under);
            return Ok(now);
        }
        let mut at = under.heard.after(SOURCE_TIME);
        match &mut under.step {
            Step::Asking(asked) => {
                at = at.min(self.ask_source(now, under.slot, under.source, under.base, asked));
            }
            Step::Fetching(transfer) => {
                at = at.min(self.fetch_on(now, under.slot, (under.source, under.heard), transfer));
                if transfer.added == transfer.offer.chunks {
                    self.log.end_snapshot(transfer.number);
                    let Step::Fetching(transfer) = under.step else { unreachable!("just matched") };
                    under.step = Step::Ending(transfer);
                    at = now;
                }
            }
            Step::Ending(_) => at = Ticks::NEVER,
            Step::Loading(loader) => match loader.step(&mut self.log, LOAD_BYTES_PER_TURN) {
                Progress::Works => at = now,
                Progress::Waits => at = Ticks::NEVER,
                Progress::Ended => {
                    let Step::Loading(loader) = under.step else { unreachable!("just matched") };
                    let (slot, source, began) = (under.slot, under.source, under.began);
                    self.loaded(now, slot, source, began, *loader)?;
                    return Ok(now);
                }
            },
        }
        self.fetching.under = Some(under);
        Ok(at)
    }

    fn begin_install(&mut self, now: Ticks) {
        loop {
            let wanted = &self.fetching.wanted;
            let next = wanted.range(self.fetching.last_tried + 1..).next().or(wanted.first());
            let Some(&slot) = next else { return };
            self.fetching.wanted.remove(&slot);
            self.fetching.last_tried = slot;
            let group = &mut self.groups[slot];
            let Some((source, base)) = group.install.take() else { continue };
            if group.is_muted || group.raft.commit() >= base.index {
                continue;
            }
            let others = self.peers.keys().copied().filter(|&node| node != source);
            let others = others.filter(|&node| self.may_lead(slot, node)).collect();
            let step = Step::Asking(None);
            let (began, heard) = (now, now);
            let install = Install { slot, base, source, others, began, heard, step };
            self.fetching.under = Some(install);
            return;
        }
    }

    fn ask_source(
        &mut self,
        now: Ticks,
        slot: usize,
        source: NodeId,
        base: LogId,
        asked: &mut Option<Ticks>,
    ) -> Ticks {
        if asked.is_none_or(|asked| now >= asked.after(ANSWER_TIME))
            && let Some(outbox) = self.links.pull(source)
        {
            let ask = SnapshotAsk { base_term: base.term, base_index: base.index };
            ask.write(outbox, self.groups[slot].id, self.settings.identity);
            *asked = Some(now);
        }
        asked.map_or(Ticks::NEVER, |asked| asked.after(ANSWER_TIME))
    }

    /// Adds the chunks that are there, and asks for the next ones.
    fn fetch_on(
        &mut self,
        now: Ticks,
        slot: usize,
        (source, heard): (NodeId, Ticks),
        transfer: &mut Transfer,
    ) -> Ticks {
        let mut at = Ticks::NEVER;
        if self.log.snapshot_has_room(transfer.number)
            && let Some(bytes) = transfer.take_next()
        {
            self.log.add_to_snapshot(transfer.number, &bytes);
            at = now;
        }
        let end = transfer.offer.chunks.min(transfer.added + CHUNKS_AHEAD);
        for chunk in transfer.added..end {
            match transfer.ahead.get(&chunk) {
                Some(Ahead::There(_)) => continue,
                // Others come before it: it isn't late as long as they do.
                Some(Ahead::AskedAt(asked)) if now < heard.max(*asked).after(ANSWER_TIME) => {
                    at = at.min(heard.max(*asked).after(ANSWER_TIME));
                    continue;
                }
                _ => {}
            }
            let Some(outbox) = self.links.pull(source).filter(|outbox| !outbox.is_full()) else {
                break;
            };
            let ask = ChunkAsk { number: transfer.offer.number, chunk };
            ask.write(outbox, self.groups[slot].id, self.settings.identity);
            transfer.ahead.insert(chunk, Ahead::AskedAt(now));
        }
        at
    }

    /// The connection to a source is lost: what was asked for over it is asked for again.
    pub(crate) fn pull_lost(&mut self, node: NodeId) {
        let Some(under) = self.fetching.under.as_mut().filter(|under| under.source == node) else {
            return;
        };
        match &mut under.step {
            Step::Asking(asked) => *asked = None,
            Step::Fetching(transfer) => {
                transfer.ahead.retain(|_, ahead| matches!(ahead, Ahead::There(_)));
            }
            Step::Ending(_) | Step::Loading(_) => {}
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
        let is_asked = matches!(under.step, Step::Asking(Some(_)));
        if !is_asked || under.source != from || self.groups[under.slot].id != group {
            return;
        }
        let is_sound = offer.index.0 <= NUMBER_MAX
            && offer.term.0 <= NUMBER_MAX
            && offer.bytes.div_ceil(CHUNK_ROOM as u64) == u64::from(offer.chunks);
        let is_of_use = is_sound
            && offer.number > 0
            && offer.chunks > 0
            && offer.index >= under.base.index
            && self.groups[under.slot].raft.may_install(offer.last());
        if !is_of_use {
            let under = self.fetching.under.take().expect("just seen");
            self.next_source(now, under);
            return;
        }
        under.heard = now;
        let number = self.log.begin_snapshot(group, offer.last());
        let ahead = BTreeMap::new();
        under.step = Step::Fetching(Transfer { offer, number, added: 0, ahead });
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
        let Step::Fetching(transfer) = &mut under.step else { return };
        let is_from_there = under.source == from && self.groups[under.slot].id == group;
        if !is_from_there || transfer.offer.number != head.number {
            return;
        }
        // What wasn't asked for, or came already, is let go.
        let Some(ahead @ Ahead::AskedAt(_)) = transfer.ahead.get_mut(&head.chunk) else { return };
        let before = u64::from(head.chunk) * CHUNK_ROOM as u64;
        let length = (transfer.offer.bytes - before).min(CHUNK_ROOM as u64);
        if !head.found || bytes.len() as u64 != length {
            let under = self.fetching.under.take().expect("just seen");
            self.next_source(now, under);
            return;
        }
        *ahead = Ahead::There(bytes.to_vec());
        under.heard = now;
    }

    /// The source has none, or gives none: another one is asked, from the beginning, because no two
    /// nodes keep the same file.
    fn next_source(&mut self, now: Ticks, mut under: Install) {
        self.drop_file(&under);
        match under.others.pop_front() {
            Some(source) => {
                (under.source, under.heard, under.step) = (source, now, Step::Asking(None));
                self.fetching.under = Some(under);
            }
            None => self.install_failed(now, under.slot, InstallFailure::NoSource),
        }
    }

    /// What came of it isn't needed any more.
    fn drop_file(&mut self, under: &Install) {
        if let Step::Fetching(transfer) = &under.step {
            self.log.drop_snapshot(transfer.number);
        }
    }

    /// Said, and tried again after a pause if the leader still asks for it.
    fn install_failed(&mut self, now: Ticks, slot: usize, error: InstallFailure) {
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
            self.install_failed(now, under.slot, error.into());
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
    fn loaded(
        &mut self,
        now: Ticks,
        slot: usize,
        from: NodeId,
        began: Ticks,
        loader: Loader,
    ) -> Result<(), ShardError> {
        let (head, result) = loader.end();
        let is_of_use = self.groups[slot].raft.may_install(head.last);
        let state = match result {
            Ok(state) if is_of_use => state,
            result => {
                self.log.remove_snapshot(&mut self.device, head.number);
                if let Err(error) = result
                    && is_of_use
                {
                    self.install_failed(now, slot, error.into());
                }
                return Ok(());
            }
        };
        self.log.close_snapshot(&mut self.device, head.number);
        self.stop_taking(slot);
        let own = self.own();
        let group = &mut self.groups[slot];
        assert!(head.last.index > group.applied, "what is installed is ahead of what is applied");
        let LoadedState { last, machine, sessions, members } = state;
        let configured = members.configured(own);
        group.book.install(last.index, members);
        (group.machine, group.sessions, group.applied) = (machine, sessions, last.index);
        group.apply_stock = None;
        group.snapshot_at = now;
        let (id, bytes, took) = (group.id, head.length, now.since(began));
        let configuration = &configured;
        self.step(now, slot, Input::Installed { last, configuration }, Carried::Cache)?;
        self.members_applied(now, slot)?;
        self.metrics.snapshots_installed += 1;
        let last = last.index;
        self.events.push(ShardEvent::SnapshotInstalled { group: id, from, last, bytes, took });
        self.keep(slot, head);
        // The log doesn't lead from an older one to where it goes on.
        self.name(slot, head)
    }
}
