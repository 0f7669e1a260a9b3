//! Having entries again that can't be read, or that a start found missing: who is asked, and what
//! becomes of the answer.

use crate::error::{FrameRefusal, ShardError};
use crate::event::ShardEvent;
use crate::group::{Group, Need};
use crate::limits::REPAIR_BYTES_MAX;
use crate::links::Links;
use crate::peer_frames::{Carried, scan};
use crate::shard::{Peer, Shard};
use ringraft_net::wire::{self, ASK_RUNS_MAX, AnswerState, RepairAsk, RunItem};
use ringraft_net::{Frame, Kind};
use ringraft_raft::{EntryHead, Input};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Index, NodeId, Sequence, Term, Ticks};
use ringraft_wal::device::Device;
use ringraft_wal::{AppendError, Log};

/// Rotten blocks of a group that are noted at most; what lies in others is found when it is read
/// again.
const BLOCKS_MAX: usize = 64;
/// Questions of a shard that wait for their answer at most; other groups wait for theirs.
const ASKED_MAX: usize = 4;
/// How long an answer is waited for, the present pause not counted.
const ANSWER_WAIT: Ticks = Ticks::from_millis(1_000);
/// From the last peer that had nothing to the next question.
const PAUSE_MIN: Ticks = Ticks::from_millis(100);
/// The same, when nobody had anything many times in a row.
const PAUSE_MAX: Ticks = Ticks::from_millis(5_000);

/// A question that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    node: NodeId,
    round: u64,
    first: Index,
    last: Index,
    until: Ticks,
}

/// What of a group can't be read, and how far it is with having it again.
#[derive(Debug)]
pub(crate) struct Mending {
    /// The rotten blocks: what the log still reads from them is wanted.
    blocks: Vec<Sequence>,
    /// People hear of it when it is done: something was found unreadable while the node ran, or all
    /// was had that a start found missing.
    is_known: bool,
    /// The newest block that carries some of it.
    carried: Sequence,
    asked: Option<Asked>,
    /// Who doesn't have the entry that is asked for.
    tried: Vec<NodeId>,
    /// Nobody has this one: those behind it are asked for first.
    after: Index,
    /// No question before this.
    next_at: Ticks,
    pause: Ticks,
    /// The group halted for it.
    pub(super) is_halted: bool,
    /// People were told that nobody has it.
    is_told: bool,
    /// Entries that were carried: how many, and the first and last of them.
    entries: u64,
    span: Option<(Index, Index)>,
}

impl Mending {
    /// Nobody is asked before `next_at`.
    pub(crate) fn new(next_at: Ticks) -> Self {
        Self {
            blocks: Vec::new(),
            is_known: false,
            carried: Sequence::ZERO,
            asked: None,
            tried: Vec::new(),
            after: Index::ZERO,
            next_at,
            pause: PAUSE_MIN,
            is_halted: false,
            is_told: false,
            entries: 0,
            span: None,
        }
    }

    /// A block is rotten; whether that is new.
    pub(super) fn note(&mut self, block: Sequence) -> bool {
        let is_new = self.blocks.len() < BLOCKS_MAX && !self.blocks.contains(&block);
        if is_new {
            self.is_known = true;
            self.blocks.push(block);
        }
        is_new
    }

    /// Whether nothing is read from the rotten blocks any more, and nothing is missing.
    fn is_done(&mut self, log: &Log, group: &Group) -> bool {
        self.blocks.retain(|&block| needed(log, group, block).next().is_some());
        self.blocks.is_empty() && group.holes.is_none()
    }

    /// The first entries that are wanted, behind those that nobody has.
    fn wanted(&self, log: &Log, group: &Group) -> Option<(Index, Index)> {
        let runs = self.blocks.iter().flat_map(|&block| needed(log, group, block));
        let runs = runs.chain(group.holes.iter().flat_map(|holes| holes.missing()));
        let after = self.after;
        let behind = runs.filter(|(_, last)| *last > after);
        behind.map(|(first, last)| (first.max(after.next()), last)).min()
    }

    /// This peer has nothing, or doesn't answer.
    fn tried(&mut self, node: NodeId) {
        self.asked = None;
        self.tried.push(node);
    }

    /// Nothing is asked for a while, and for longer each time.
    fn rest(&mut self, now: Ticks) {
        self.next_at = now.after(self.pause);
        self.pause = Ticks(self.pause.0 * 2).min(PAUSE_MAX);
        self.tried.clear();
        self.after = Index::ZERO;
    }
}

/// The entries of a group that lie in a block and are needed: the log gives up a little later what a
/// snapshot covers.
fn needed(
    log: &Log,
    group: &Group,
    block: Sequence,
) -> impl Iterator<Item = (Index, Index)> + use<> {
    let (first, last) = (group.raft.base().index.next(), group.promised());
    let runs = log.held_in(group.id, block).into_iter();
    let runs = runs.map(move |run| (run.0.max(first), run.1.min(last)));
    runs.filter(|(first, last)| first <= last)
}

/// How many of these entries, which a peer holds, are those that the group had.
fn agreed(group: &Group, first: Index, heads: &[EntryHead]) -> usize {
    let raft = &group.raft;
    if let Some(holes) = group.holes.as_ref().filter(|_| first > raft.last()) {
        return holes.agrees(first, heads);
    }
    let is_same = |&(index, head): &(Index, &EntryHead)| {
        index > raft.base().index && raft.term_at(index) == Some(head.term)
    };
    (first.0..).map(Index).zip(heads).take_while(is_same).count()
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Goes on with every group of which something can't be read. Returns when to come back.
    pub(crate) fn mend_all(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        let mut wake = Ticks::NEVER;
        if self.mending.is_empty() {
            return Ok(wake);
        }
        let slots: Vec<usize> = self.mending.keys().copied().collect();
        for slot in slots {
            wake = wake.min(self.mend(now, slot)?);
        }
        Ok(wake)
    }

    fn mend(&mut self, now: Ticks, slot: usize) -> Result<Ticks, ShardError> {
        let Self { groups, mending, log, peers, .. } = self;
        let group = &groups[slot];
        if group.is_muted {
            mending.remove(&slot);
            return Ok(Ticks::NEVER);
        }
        let at = mending.get_mut(&slot).expect("the caller saw it");
        if at.is_done(log, group) {
            let is_durable = at.carried <= log.durable();
            #[cfg(ringraft_plant)]
            let is_durable = is_durable || planted(Plant::MendedEarly);
            if !is_durable {
                return Ok(Ticks::NEVER);
            }
            return self.mended(now, slot).map(|()| Ticks::NEVER);
        }
        if let Some(asked) = at.asked {
            let is_up = peers.get(&asked.node).is_some_and(|peer| peer.is_up());
            if is_up && now < asked.until {
                return Ok(asked.until);
            }
            at.tried(asked.node);
        }
        if now < at.next_at {
            return Ok(at.next_at);
        }
        self.ask(now, slot)
    }

    /// Nothing of the rotten blocks is needed any more.
    fn mended(&mut self, now: Ticks, slot: usize) -> Result<(), ShardError> {
        let mending = self.mending.remove(&slot).expect("the caller saw it");
        let group = self.groups[slot].id;
        let (first, last) = mending.span.unwrap_or_default();
        let entries = mending.entries;
        if !mending.is_known {
            // A leader was there before.
            return Ok(());
        }
        self.events.push(ShardEvent::Mended { group, first, last, entries });
        if mending.is_halted {
            self.step(now, slot, Input::Mended, Carried::Cache)?;
        }
        Ok(())
    }

    /// Takes what is wanted next from the cache, or asks the next peer for it.
    fn ask(&mut self, now: Ticks, slot: usize) -> Result<Ticks, ShardError> {
        let busy = self.mending.values().filter(|other| other.asked.is_some()).count();
        let Self { groups, mending, log, cache, .. } = self;
        let group = &groups[slot];
        let at = mending.get_mut(&slot).expect("the caller saw it");
        let Some((first, last)) = at.wanted(log, group) else {
            // All that is left was asked of everybody.
            at.rest(now);
            let next_at = at.next_at;
            if !self.want_repair(slot) {
                self.not_mended(slot);
            }
            return Ok(next_at);
        };
        let (count, records) = cache.copy(slot, first, last, REPAIR_BYTES_MAX);
        if count > 0 {
            return self.carry(now, slot, first, &records);
        }
        if busy >= ASKED_MAX {
            return Ok(now.after(PAUSE_MIN));
        }
        let leader = group.raft.leader();
        let all = leader.into_iter().chain(self.peers.keys().copied());
        let is_free = |node: &NodeId| {
            let is_believed = |peer: &Peer| peer.is_up() && !peer.is_vouched;
            !at.tried.contains(node) && self.peers.get(node).is_some_and(is_believed)
        };
        let Some(node) = all.into_iter().find(is_free) else {
            if at.tried.is_empty() {
                // Nobody is there to be asked.
                at.rest(now);
                return Ok(at.next_at);
            }
            at.tried.clear();
            at.after = first;
            return Ok(now);
        };
        self.ask_of(now, slot, node, first, last);
        Ok(self.mending[&slot].asked.map_or(now, |asked| asked.until))
    }

    /// Nobody has in a log what a start found missing: a snapshot that covers it is as good, whoever
    /// gives it, for it holds what is committed. Whether one is asked for: a leader that is there
    /// knows what this node needs.
    fn want_repair(&mut self, slot: usize) -> bool {
        let group = &self.groups[slot];
        let missing = group.holes.as_ref().and_then(|holes| holes.missing().next());
        let Some((first, _)) = missing.filter(|_| group.raft.leader().is_none()) else {
            return false;
        };
        if !self.is_install_wanted(slot) {
            self.want_install(slot, Need::Repair(first));
        }
        true
    }

    /// People are told, once, that nobody has what is wanted.
    pub(crate) fn not_mended(&mut self, slot: usize) {
        let Self { groups, mending, log, events, .. } = self;
        let group = &groups[slot];
        let Some(at) = mending.get_mut(&slot) else { return };
        if !std::mem::replace(&mut at.is_told, true) {
            let after = std::mem::take(&mut at.after);
            let first = at.wanted(log, group).map_or(Index::ZERO, |(first, _)| first);
            at.after = after;
            events.push(ShardEvent::NotMended { group: group.id, first });
        }
    }

    fn ask_of(&mut self, now: Ticks, slot: usize, node: NodeId, first: Index, mut last: Index) {
        let Self { groups, mending, links, settings, .. } = self;
        let group = &groups[slot];
        let at = mending.get_mut(&slot).expect("the caller saw it");
        let mut runs: Vec<RunItem> = Vec::new();
        for index in (first.0..=last.0).map(Index) {
            let term = group.term_at(index).expect("what is wanted was held");
            if runs.last().is_none_or(|run| run.term != term) {
                // There is room for one more, behind what isn't known.
                if runs.len() == ASK_RUNS_MAX - 1 {
                    last = index.previous();
                    break;
                }
                runs.push(RunItem { first: index, term });
            }
        }
        if let Some(holes) = &group.holes
            && runs.last().is_some_and(|run| run.term == Term::ZERO)
        {
            // Who holds this one holds those before it as they were here.
            let told = holes.told_from(last);
            runs.push(RunItem { first: told.index, term: told.term });
            last = told.index;
        }
        let Some(outbox) = links.peer(node).filter(|outbox| !outbox.is_urgent_full()) else {
            at.tried(node);
            return;
        };
        let round = self.next_ticket;
        self.next_ticket += 1;
        RepairAsk { round, last }.write(outbox, group.id, settings.identity, &runs);
        let until = now.after(ANSWER_WAIT).after(at.pause);
        at.asked = Some(Asked { node, round, first, last, until });
    }

    /// Writes verified records of what is wanted to a new place.
    fn carry(
        &mut self,
        now: Ticks,
        slot: usize,
        first: Index,
        records: &[u8],
    ) -> Result<Ticks, ShardError> {
        let at = self.mending.get_mut(&slot).expect("the caller saw it");
        if self.log.pending_bytes() >= self.settings.limits.log_bytes_max {
            at.rest(now);
            return Ok(at.next_at);
        }
        let group = self.groups[slot].id;
        match self.log.carry_run(group, first, records) {
            Ok((sequence, entries)) => {
                at.carried = sequence;
                at.entries += entries;
                let last = Index(first.0 + entries - 1);
                let (lowest, highest) = at.span.unwrap_or((first, last));
                at.span = Some((lowest.min(first), highest.max(last)));
                self.metrics.entries_mended += entries;
                (at.pause, at.next_at, at.is_told) = (PAUSE_MIN, now, false);
                at.tried.clear();
                at.after = Index::ZERO;
                let holes = self.groups[slot].holes.as_mut();
                if holes.is_some_and(|holes| holes.fill(first, records)) {
                    self.refill(now, slot)?;
                }
                Ok(now)
            }
            // Blocks that were made shorter since hold no record with another around it.
            Err(AppendError::Full { .. } | AppendError::TooLong { .. }) => {
                at.rest(now);
                Ok(at.next_at)
            }
            Err(error @ AppendError::Stopped) => Err(error.into()),
        }
    }

    /// All that a start found missing is in the log again: the group's log is what it was. At once,
    /// not when that is durable: what a leader appends meanwhile comes behind all of it, and a start
    /// after that would find no hole, and take what it removes for something that nobody promised.
    pub(super) fn refill(&mut self, now: Ticks, slot: usize) -> Result<(), ShardError> {
        let own = self.own();
        let group = &mut self.groups[slot];
        let holes = group.holes.take().expect("nothing of them is missing any more");
        let (runs, last) = (holes.runs(), holes.last().index);
        let mut configurations = Vec::new();
        for members in holes.into_members() {
            configurations.push(members.configured(own));
            group.book.append(members);
        }
        let at = self.mending.get_mut(&slot).expect("a group with holes mends");
        at.is_known |= at.entries > 0;
        let input = Input::Refilled { runs: &runs, last, configurations: &configurations };
        self.step(now, slot, input, Carried::Cache)
    }

    /// A peer answers a question.
    pub(crate) fn repair_answer(
        &mut self,
        now: Ticks,
        from: NodeId,
        frame: &Frame<'_>,
    ) -> Result<Result<(), FrameRefusal>, ShardError> {
        let (answer, records) = match wire::repair_answer(frame) {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(FrameRefusal::malformed(Kind::RepairAnswer, error))),
        };
        let group = frame.header.group;
        let Some(&slot) = self.slots.get(&group) else { return Ok(Ok(())) };
        let own = self.own();
        let Some(at) = self.mending.get_mut(&slot) else { return Ok(Ok(())) };
        let is_asked = |asked: &Asked| (asked.node, asked.round) == (from, answer.round);
        // Of a question that was given up.
        let Some(asked) = at.asked.filter(is_asked) else { return Ok(Ok(())) };
        at.asked = None;
        if answer.state != AnswerState::Here {
            at.tried(from);
            return Ok(Ok(()));
        }
        let (mut heads, mut offsets) = (Vec::new(), Vec::new());
        // The group knows its configurations: it holds these entries.
        let known = &mut Vec::new();
        if let Err(what) = scan(group, asked.first, records, own, &mut heads, known, &mut offsets) {
            return Ok(Err(FrameRefusal::Record { group, what }));
        }
        let most = asked.last.0 - asked.first.0 + 1;
        if heads.len() != answer.count as usize || heads.len() as u64 > most {
            let what = format!("{} records where {} are promised", heads.len(), answer.count);
            return Ok(Err(FrameRefusal::Record { group, what }));
        }
        // What was asked for may have been removed, or given up, meanwhile.
        let good = agreed(&self.groups[slot], asked.first, &heads);
        if good == 0 {
            at.tried(from);
            return Ok(Ok(()));
        }
        self.carry(now, slot, asked.first, &records[..offsets[good] as usize])?;
        Ok(Ok(()))
    }
}
