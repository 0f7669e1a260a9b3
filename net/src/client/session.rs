//! A session: the writes of one client to one group that are numbered and unanswered, oldest
//! first. The rules are in the module's documentation (`client`).

use std::collections::VecDeque;

use ringraft_types::command::Envelope;
use ringraft_types::limits::SESSION_UNANSWERED_MAX;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{ClientId, Index, Status, Ticks};

use super::calls::Calls;
use super::{Answer, Reason};
use crate::client_wire::Reply;

/// Where one number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To be sent, for the first time or again.
    Waiting,
    /// Sent on the current connection, not answered.
    Out,
    /// Answered for good; waits only for the numbers before it.
    Answered,
    /// Given up, and definitely not done.
    Hole,
    /// Given up, though an attempt may lie in a log.
    DoubtfulHole,
}

impl Place {
    const fn is_hole(self) -> bool {
        matches!(self, Self::Hole | Self::DoubtfulHole)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The call; of an answered number or a hole, nobody's.
    slot: u32,
    place: Place,
}

/// What the group must do after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nothing.
    Continue,
    /// Wait a little before the next attempt.
    Pause,
    /// Look for the leader.
    Seek,
}

/// So often may a leader find a gap where there is none, before the session is given up.
const GAPS_MAX: u32 = 8;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    client: ClientId,
    /// The leader's applied index when the session began; `None` before it is known.
    opened: Option<Index>,
    /// The number of `ring[0]`; all before it are answered.
    base: u64,
    ring: VecDeque<Entry>,
    /// The first of the ring that is not yet sent on the current connection.
    next: usize,
    /// Numbers that are [`Place::Out`].
    out: usize,
    holes: usize,
    /// Something was refused or lost: nothing is sent until all that is out is answered, then all
    /// is sent again in order.
    draining: bool,
    /// The server has evicted the session.
    expired: bool,
    /// How often in a row the oldest number was refused for a gap, though all before it are
    /// answered.
    gaps: u32,
    /// Not before this is anything sent again.
    pub(super) retry_at: Ticks,
}

impl Session {
    pub(super) fn new(client: ClientId) -> Self {
        Self {
            client,
            opened: None,
            base: 1,
            ring: VecDeque::new(),
            next: 0,
            out: 0,
            holes: 0,
            draining: false,
            expired: false,
            gaps: 0,
            retry_at: Ticks::ZERO,
        }
    }

    /// The session begins now, if it hasn't: the leader has applied this much.
    pub(super) fn open(&mut self, applied: Index) {
        self.opened.get_or_insert(applied);
    }

    /// Whether it has begun. It can't be used before.
    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Whether no number is unanswered.
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether any attempt is unanswered.
    pub(super) fn is_out(&self) -> bool {
        self.out > 0
    }

    /// Whether something could be sent now: a number again, or a new write.
    pub(super) fn may_send(&self, now: Ticks, has_queued: bool) -> bool {
        let has_room = self.ring.len() < SESSION_UNANSWERED_MAX && self.holes == 0;
        let has_more = match self.ring.get(self.next) {
            Some(entry) => !entry.place.is_hole(),
            None => has_queued && has_room,
        };
        !self.draining && self.is_open() && now >= self.retry_at && has_more
    }

    /// The next write to send with its envelope: an old number again, or a new number for the
    /// oldest of `queue`. It is out from now on.
    pub(super) fn next(
        &mut self,
        calls: &mut Calls,
        queue: &mut VecDeque<u32>,
    ) -> Option<(u32, Envelope)> {
        assert!(!self.draining, "all that is out is answered first");
        let opened = self.opened.expect("the session has begun");
        while self.ring.get(self.next).is_some_and(|entry| entry.place == Place::Answered) {
            self.next += 1;
        }
        if self.next == self.ring.len() {
            if self.ring.len() == SESSION_UNANSWERED_MAX || self.holes > 0 {
                return None;
            }
            let slot = queue.pop_front()?;
            self.ring.push_back(Entry { slot, place: Place::Waiting });
            calls.get_mut(slot).sequence = self.base + self.next as u64;
        }
        let entry = &mut self.ring[self.next];
        if entry.place.is_hole() {
            return None;
        }
        assert!(entry.place == Place::Waiting, "sent twice on one connection");
        entry.place = Place::Out;
        self.out += 1;
        let sequence = self.base + self.next as u64;
        self.next += 1;
        assert_eq!(calls.get(entry.slot).sequence, sequence, "the call knows its number");
        let received = self.base - 1;
        Some((entry.slot, Envelope { client: self.client, sequence, received, opened }))
    }

    /// A reply to a numbered write arrived.
    pub(super) fn reply(&mut self, calls: &mut Calls, slot: u32, reply: &Reply<'_>) -> Advice {
        let at = self.at(calls, slot);
        if self.ring[at].place != Place::Out {
            return Advice::Continue;
        }
        self.out -= 1;
        let status = reply.status;
        let in_doubt = calls.get(slot).in_doubt;
        if status == Status::Ok {
            let Reply { flags, revision, index, body, .. } = *reply;
            let answer = Answer { flags, revision, index, body };
            if calls.waits_on(slot, answer) {
                self.used_up(at);
            } else {
                calls.done(slot, answer);
                self.answered(calls, at);
            }
            return Advice::Continue;
        }
        if status == Status::AlreadyAnswered {
            // Applied, but the answer is lost: it can't be called done without one.
            calls.unknown(slot, Reason::Refused(status));
            self.answered(calls, at);
            return Advice::Continue;
        }
        let is_final = !status.is_retryable() && status != Status::SessionExpired;
        if is_final && reply.index != Index::ZERO {
            // Logged, and without effect: the number is used up.
            calls.not_done(slot, Reason::Refused(status));
            self.answered(calls, at);
            return Advice::Continue;
        }
        self.draining = true;
        self.ring[at].place = Place::Waiting;
        match status {
            Status::Unknown => calls.get_mut(slot).in_doubt = true,
            Status::SessionExpired => self.expired = true,
            Status::Gap if at == 0 => {
                // There is no gap. A leader that insists has lost the session.
                self.gaps += 1;
                self.expired = self.gaps >= GAPS_MAX;
            }
            // The next leader may do better, and the write may be done already.
            Status::Damaged if in_doubt => {}
            _ if is_final && in_doubt => {
                calls.unknown(slot, Reason::Refused(status));
                self.give_up(calls, at, Place::DoubtfulHole);
            }
            _ if in_doubt => {}
            _ if calls.get(slot).reported => self.give_up(calls, at, Place::Hole),
            _ if is_final => {
                calls.not_done(slot, Reason::Refused(status));
                self.give_up(calls, at, Place::Hole);
            }
            _ => {}
        }
        match status {
            Status::NotLeader
            | Status::Stopping
            | Status::Unknown
            | Status::SessionExpired
            | Status::NoSuchGroup => Advice::Seek,
            // Another attempt at the same place would only be refused again.
            _ if is_final && self.ring[at].place.is_hole() => Advice::Continue,
            _ => Advice::Pause,
        }
    }

    /// No node has the group: what waits is refused, and nothing more is known of what may be done.
    pub(super) fn refuse_waiting(&mut self, calls: &mut Calls, reason: Reason) {
        for at in 0..self.ring.len() {
            if self.ring[at].place != Place::Waiting {
                continue;
            }
            self.draining = true;
            let slot = self.ring[at].slot;
            let call = calls.get(slot);
            let (in_doubt, reported) = (call.in_doubt, call.reported);
            match (in_doubt, reported) {
                (true, _) => calls.unknown(slot, reason),
                (false, false) => calls.not_done(slot, reason),
                (false, true) => {}
            }
            self.give_up(calls, at, if in_doubt { Place::DoubtfulHole } else { Place::Hole });
        }
    }

    /// The deadline of a numbered write has passed.
    pub(super) fn expire(&mut self, calls: &mut Calls, slot: u32) {
        let at = self.at(calls, slot);
        #[cfg(ringraft_plant)]
        if planted(Plant::NumberReused) && self.ring[at].place == Place::Waiting {
            calls.unknown(slot, Reason::Deadline);
            self.draining = true;
            self.give_up(calls, at, Place::Hole);
            return;
        }
        if self.ring[at].place == Place::Out || calls.get(slot).in_doubt {
            // It stays, and is sent until it is answered.
            calls.unknown(slot, Reason::Deadline);
        } else {
            assert!(self.ring[at].place == Place::Waiting, "answered writes don't expire");
            calls.not_done(slot, Reason::Deadline);
            self.draining = true;
            self.give_up(calls, at, Place::Hole);
        }
    }

    /// The connection is gone: all that was out is in doubt.
    pub(super) fn lost(&mut self, calls: &mut Calls) {
        for entry in &mut self.ring {
            if entry.place == Place::Out {
                entry.place = Place::Waiting;
                #[cfg(ringraft_plant)]
                if planted(Plant::DoubtForgotten) {
                    continue;
                }
                calls.get_mut(entry.slot).in_doubt = true;
            }
        }
        self.out = 0;
        self.draining = true;
    }

    /// If something was refused or lost and nothing is out any more, puts the session in order, to
    /// be sent again from its start. `fresh` names a new session, if one is needed.
    pub(super) fn settle(
        &mut self,
        calls: &mut Calls,
        queue: &mut VecDeque<u32>,
        fresh: impl FnOnce() -> ClientId,
    ) {
        if !self.draining || self.out > 0 {
            return;
        }
        self.draining = false;
        self.next = 0;
        if self.expired {
            for entry in &self.ring {
                if entry.place == Place::Waiting && calls.get(entry.slot).in_doubt {
                    calls.unknown(entry.slot, Reason::Refused(Status::SessionExpired));
                }
            }
            self.requeue_from(calls, queue, 0);
            self.begin(fresh());
            return;
        }
        let Some(hole) = self.ring.iter().position(|entry| entry.place.is_hole()) else { return };
        let is_hole_doubtful = self.ring[hole].place == Place::DoubtfulHole;
        let mut after = self.ring.range(hole + 1..);
        let is_doubtful =
            after.any(|entry| entry.place == Place::Waiting && calls.get(entry.slot).in_doubt);
        if !is_hole_doubtful && !is_doubtful {
            self.requeue_from(calls, queue, hole);
        } else if hole == 0 {
            for entry in self.ring.iter().filter(|entry| entry.place == Place::Waiting) {
                if !is_hole_doubtful {
                    // It can't have been applied without the hole's number (see `client`).
                    calls.get_mut(entry.slot).in_doubt = false;
                } else if calls.get(entry.slot).in_doubt {
                    calls.unknown(entry.slot, Reason::Refused(Status::Unknown));
                }
            }
            self.requeue_from(calls, queue, 0);
            self.begin(fresh());
        }
        // Otherwise: what stands before the hole is answered first.
    }

    /// The writes from `at` on lose their numbers and go back to the queue's front, in order;
    /// those that were reported already are forgotten.
    fn requeue_from(&mut self, calls: &mut Calls, queue: &mut VecDeque<u32>, at: usize) {
        while self.ring.len() > at {
            let entry = self.ring.pop_back().expect("longer than `at`");
            match entry.place {
                Place::Out => unreachable!("nothing is out while the session settles"),
                Place::Answered => {}
                Place::Hole | Place::DoubtfulHole => self.holes -= 1,
                Place::Waiting if calls.get(entry.slot).reported => calls.close(entry.slot),
                Place::Waiting => {
                    calls.get_mut(entry.slot).sequence = 0;
                    queue.push_front(entry.slot);
                }
            }
        }
    }

    /// Begins a new session in place of an empty one.
    fn begin(&mut self, client: ClientId) {
        assert!(self.ring.is_empty(), "a new session has no past");
        let retry_at = self.retry_at;
        *self = Self { retry_at, ..Self::new(client) };
    }

    fn at(&self, calls: &Calls, slot: u32) -> usize {
        let at = (calls.get(slot).sequence - self.base) as usize;
        assert_eq!(self.ring[at].slot, slot, "the call stands where its number says");
        at
    }

    /// A number is used up, and its call reported.
    fn answered(&mut self, calls: &mut Calls, at: usize) {
        calls.close(self.ring[at].slot);
        self.used_up(at);
    }

    /// A number is used up, and its call goes on without the session.
    fn used_up(&mut self, at: usize) {
        self.gaps = 0;
        self.ring[at] = Entry { slot: u32::MAX, place: Place::Answered };
        while self.ring.front().is_some_and(|entry| entry.place == Place::Answered) {
            self.ring.pop_front();
            self.base += 1;
            self.next = self.next.saturating_sub(1);
        }
        if self.holes > 0 {
            // The hole may have come to the front.
            self.draining = true;
        }
    }

    /// A number will never be sent again, and its call is reported.
    fn give_up(&mut self, calls: &mut Calls, at: usize, place: Place) {
        calls.close(self.ring[at].slot);
        self.ring[at] = Entry { slot: u32::MAX, place };
        self.holes += 1;
    }
}
