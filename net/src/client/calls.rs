//! The calls under way, in slots that are used again: a call's name is its slot and how often the
//! slot was used, so a late or doubled reply finds nobody. A slot keeps the memory of its command.

use std::ops::Range;

use ringraft_types::{Index, Level, Revision, Ticks};

use super::barrier::Waits;
use super::{Answer, CallId, Outcome, Reason, Shortfall, SubmitError};
use crate::client_wire::Consistency;

/// A free slot keeps at most this much memory, bytes.
const IDLE_BYTES: usize = 4 << 10;

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    Free,
    Write,
    Read,
    /// A read asked of one node.
    ReadAt,
    Locate,
    Status,
    /// The members of a group, asked of its leader.
    Members,
    /// The members of a group, asked of one node.
    MembersAt,
    /// A change of a group's members.
    Change,
    /// That another node leads a group.
    HandOver,
    /// That a shard stands for election no more, or again.
    Pause,
    /// When an entry is at a level, be it asked by itself or of a write that was done.
    Barrier,
}

impl CallKind {
    /// Whether it is for one node, and waits with its link.
    pub(super) const fn is_of_link(self) -> bool {
        matches!(self, Self::Status | Self::MembersAt | Self::Pause | Self::ReadAt)
    }

    /// Whether an attempt without an answer may have been done.
    pub(super) const fn leaves_doubt(self) -> bool {
        matches!(self, Self::Change | Self::HandOver | Self::Pause)
    }
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    generation: u32,
    pub(super) kind: CallKind,
    /// Whether its outcome is reported already; a write may live on to fill its gap.
    pub(super) reported: bool,
    /// A write or a change of which an attempt may lie in a log.
    pub(super) in_doubt: bool,
    /// A read or a matter of members whose attempt is unanswered, and where.
    pub(super) out_on: Option<u32>,
    pub(super) group: u32,
    /// What a read may see.
    pub(super) consistency: Consistency,
    /// Which level a barrier waits for, or a write when it is done.
    pub(super) level: Level,
    /// Of a barrier.
    pub(super) waits: Option<Box<Waits>>,
    /// A write's number in its session; zero as long as it has none.
    pub(super) sequence: u64,
    pub(super) deadline: Ticks,
    pub(super) command: Vec<u8>,
}

/// All calls under way, and those completed but not yet taken.
#[derive(Debug)]
pub(super) struct Calls {
    slots: Vec<Call>,
    free: Vec<u32>,
    limit: usize,
    /// No live, unreported call has an earlier deadline.
    earliest: Ticks,
    ready: Batch,
    taken: Batch,
}

#[derive(Debug, Default)]
struct Batch {
    items: Vec<Completion>,
    bodies: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Completion {
    call: CallId,
    verdict: Verdict,
}

#[derive(Clone, Debug)]
enum Verdict {
    Done { flags: u8, revision: Revision, index: Index, body: Range<usize> },
    Below { flags: u8, revision: Revision, index: Index, body: Range<usize>, lacks: Shortfall },
    NotDone(Reason),
    Unknown(Reason),
}

/// A call that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed<'a> {
    /// Which.
    pub call: CallId,
    /// What became of it.
    pub outcome: Outcome<'a>,
}

/// The calls completed since the last look.
#[derive(Clone, Debug)]
pub struct Completions<'a> {
    items: std::slice::Iter<'a, Completion>,
    bodies: &'a [u8],
}

impl<'a> Iterator for Completions<'a> {
    type Item = Completed<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let Completion { call, verdict } = self.items.next()?;
        let bodies = self.bodies;
        let outcome = match verdict {
            Verdict::Done { flags, revision, index, body } => {
                let (flags, revision, index) = (*flags, *revision, *index);
                Outcome::Done(Answer { flags, revision, index, body: &bodies[body.clone()] })
            }
            Verdict::Below { flags, revision, index, body, lacks } => {
                let (flags, revision, index) = (*flags, *revision, *index);
                let answer = Answer { flags, revision, index, body: &bodies[body.clone()] };
                Outcome::Below(answer, *lacks)
            }
            Verdict::NotDone(reason) => Outcome::NotDone(*reason),
            Verdict::Unknown(reason) => Outcome::Unknown(*reason),
        };
        Some(Completed { call: *call, outcome })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

impl ExactSizeIterator for Completions<'_> {}

impl Calls {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            limit,
            earliest: Ticks::NEVER,
            ready: Batch::default(),
            taken: Batch::default(),
        }
    }

    /// Takes a slot for a new call.
    pub(super) fn open(
        &mut self,
        kind: CallKind,
        group: u32,
        command: &[u8],
        deadline: Ticks,
    ) -> Result<u32, SubmitError> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.limit => {
                self.slots.push(Call {
                    generation: 0,
                    kind: CallKind::Free,
                    reported: false,
                    in_doubt: false,
                    out_on: None,
                    group,
                    consistency: Consistency::Linearizable,
                    level: Level::Majority,
                    waits: None,
                    sequence: 0,
                    deadline,
                    command: Vec::new(),
                });
                (self.slots.len() - 1) as u32
            }
            None => return Err(SubmitError::Busy { limit: self.limit }),
        };
        let call = &mut self.slots[slot as usize];
        assert!(call.kind == CallKind::Free, "a free slot is free");
        call.generation = call.generation.wrapping_add(1);
        call.kind = kind;
        call.reported = false;
        call.in_doubt = false;
        call.out_on = None;
        call.group = group;
        call.consistency = Consistency::Linearizable;
        call.level = Level::Majority;
        call.sequence = 0;
        call.deadline = deadline;
        call.command.extend_from_slice(command);
        self.earliest = self.earliest.min(deadline);
        Ok(slot)
    }

    /// Gives a slot back.
    pub(super) fn close(&mut self, slot: u32) {
        let call = &mut self.slots[slot as usize];
        assert!(call.kind != CallKind::Free, "closed twice");
        assert!(call.reported, "nobody was told");
        call.kind = CallKind::Free;
        call.waits = None;
        call.command.clear();
        if call.command.capacity() > IDLE_BYTES {
            call.command.shrink_to(IDLE_BYTES);
        }
        self.free.push(slot);
    }

    pub(super) fn get(&self, slot: u32) -> &Call {
        &self.slots[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Call {
        &mut self.slots[slot as usize]
    }

    /// The call's name on the wire and towards the user.
    pub(super) fn id(&self, slot: u32) -> CallId {
        CallId(u64::from(self.slots[slot as usize].generation) << 32 | u64::from(slot))
    }

    /// The slot of a call that lives, whatever it asks for.
    pub(super) fn find(&self, id: u64) -> Option<u32> {
        let slot = id as u32;
        let call = self.slots.get(slot as usize)?;
        let lives = call.kind != CallKind::Free && u64::from(call.generation) == id >> 32;
        lives.then_some(slot)
    }

    /// Reports a call as done.
    pub(super) fn done(&mut self, slot: u32, answer: Answer<'_>) {
        let Answer { flags, revision, index, body } = answer;
        let body = self.keep(body);
        self.report(slot, Verdict::Done { flags, revision, index, body });
    }

    /// Reports a write as done, and not at the level that was asked for.
    pub(super) fn below(&mut self, slot: u32, answer: Answer<'_>, lacks: Shortfall) {
        let Answer { flags, revision, index, body } = answer;
        let body = self.keep(body);
        self.report(slot, Verdict::Below { flags, revision, index, body, lacks });
    }

    fn keep(&mut self, body: &[u8]) -> Range<usize> {
        let start = self.ready.bodies.len();
        self.ready.bodies.extend_from_slice(body);
        start..self.ready.bodies.len()
    }

    /// Reports a call as not done.
    pub(super) fn not_done(&mut self, slot: u32, reason: Reason) {
        self.report(slot, Verdict::NotDone(reason));
    }

    /// Reports a call's fate as unknown.
    pub(super) fn unknown(&mut self, slot: u32, reason: Reason) {
        self.report(slot, Verdict::Unknown(reason));
    }

    /// The user hears of a call once; what becomes known later is kept to ourselves.
    fn report(&mut self, slot: u32, verdict: Verdict) {
        let call = self.id(slot);
        let reported = &mut self.slots[slot as usize].reported;
        if !*reported {
            *reported = true;
            self.ready.items.push(Completion { call, verdict });
        }
    }

    /// The live, unreported calls whose deadline has passed go to `expired`.
    pub(super) fn expire(&mut self, now: Ticks, expired: &mut Vec<u32>) {
        expired.clear();
        if now < self.earliest {
            return;
        }
        self.earliest = Ticks::NEVER;
        for (slot, call) in self.slots.iter().enumerate() {
            if call.kind == CallKind::Free || call.reported {
                continue;
            }
            if call.deadline <= now {
                expired.push(slot as u32);
            } else {
                self.earliest = self.earliest.min(call.deadline);
            }
        }
    }

    /// Calls beside writes that were sent on a connection and not answered.
    pub(super) fn out_on(&self, link: u32) -> impl Iterator<Item = u32> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(move |(_, call)| call.kind != CallKind::Free && call.out_on == Some(link))
            .map(|(slot, _)| slot as u32)
    }

    pub(super) fn earliest(&self) -> Ticks {
        self.earliest
    }

    pub(super) fn has_completed(&self) -> bool {
        !self.ready.items.is_empty()
    }

    /// How many calls are under way, those included that only fill a gap.
    pub(super) fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes one call out of those completed, if it is among them.
    pub(super) fn take_one<T>(
        &mut self,
        call: CallId,
        take: impl FnOnce(Outcome<'_>) -> T,
    ) -> Option<T> {
        let at = self.ready.items.iter().position(|item| item.call == call)?;
        let completion = self.ready.items.remove(at);
        let mut one = Completions {
            items: std::slice::from_ref(&completion).iter(),
            bodies: &self.ready.bodies,
        };
        let taken = take(one.next()?.outcome);
        if self.ready.items.is_empty() {
            self.ready.bodies.clear();
        }
        Some(taken)
    }

    /// What completed since the last look.
    pub(super) fn take_completed(&mut self) -> Completions<'_> {
        self.taken.items.clear();
        self.taken.bodies.clear();
        std::mem::swap(&mut self.ready, &mut self.taken);
        Completions { items: self.taken.items.iter(), bodies: &self.taken.bodies }
    }
}
