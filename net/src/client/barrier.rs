//! Barriers: a client that waits until an entry is at a level, and a write that does when it is
//! applied.
//!
//! A server is asked for a short while at a time, by questions that may be asked again of any
//! leader: so a connection that died shows, a client that died leaves nothing behind for long, and
//! how far the level has come is known when the time is over. A write that waits for more than a
//! majority is a write, and then a barrier at its entry: from then on it is done, whatever becomes
//! of the barrier.

use std::fmt;
use std::time::Duration;

use ringraft_types::{GroupId, Index, Level, NodeId, Revision, Status, Ticks};

use super::calls::{CallKind, Calls};
use super::core::Core;
use super::driver::{Client, Response};
use super::session::Advice;
use super::{Answer, CallId, Reason, SubmitError};
use crate::barrier_wire::{BarrierAsk, BarrierReply};
use crate::error::ClientError;
use crate::frame::Frame;

/// For so long a server is asked to wait at most: less than a connection may be silent.
const WAIT_MAX: Ticks = Ticks::from_millis(500);
/// With less time left than this nobody is asked again.
const WAIT_MIN: Ticks = Ticks::from_millis(20);

/// What a write that was done lacks to be at the level that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Which level was asked for.
    pub level: Level,
    /// Up to which entry it had come, as was heard last; `None`: nobody said.
    pub reached: Option<Index>,
    /// Who was the furthest behind then.
    pub behind: Option<NodeId>,
    /// Why it isn't waited for any longer.
    pub reason: Reason,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {} wasn't seen reached", self.level)?;
        if let Some(reached) = self.reached {
            write!(f, ", it is at entry {reached}")?;
        }
        if let Some(behind) = self.behind {
            write!(f, ", and node {behind} is the furthest behind")?;
        }
        match self.reason {
            Reason::Deadline => Ok(()),
            Reason::Refused(status) => write!(f, " ({status:?})"),
        }
    }
}

/// What a call that waits for a level must know.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// The entry, as soon as it is known.
    index: Option<Index>,
    /// What its write was answered.
    written: Option<Response>,
    /// What was heard last of the level.
    last: Option<BarrierReply>,
}

impl Calls {
    /// A write was answered as done. Whether it goes on as a barrier at its entry.
    pub(super) fn waits_on(&mut self, slot: u32, answer: Answer<'_>) -> bool {
        let call = self.get_mut(slot);
        if call.level == Level::Majority || call.reported {
            return false;
        }
        let Answer { flags, revision, index, body } = answer;
        let written = Some(Response { flags, revision, index, body: body.to_vec() });
        call.waits = Some(Box::new(Waits { index: Some(index), written, last: None }));
        (call.kind, call.sequence, call.in_doubt) = (CallKind::Barrier, 0, false);
        true
    }

    /// A call waits no longer, and wasn't done; of a barrier, it is told what is known.
    pub(super) fn give_up(&mut self, slot: u32, reason: Reason) {
        let call = self.get_mut(slot);
        let level = call.level;
        match call.waits.take().map(|waits| *waits) {
            Some(Waits { written: Some(written), last, .. }) => {
                let reached = last.map(|last| last.reached);
                let behind = last.map(|last| last.behind).filter(|&node| node != NodeId::ZERO);
                let shortfall = Shortfall { level, reached, behind, reason };
                self.below(slot, written.answer(), shortfall);
            }
            Some(Waits { last: Some(last), .. }) if reason == Reason::Deadline => {
                self.done(slot, bare(&last.encode()));
            }
            _ => self.not_done(slot, reason),
        }
    }
}

fn bare(body: &[u8]) -> Answer<'_> {
    Answer { flags: 0, revision: Revision(0), index: Index(0), body }
}

impl Core {
    /// Asks a group's leader when an entry is at a level; without an index, the newest that is
    /// committed when it is asked. The answer's body is that of a `BarrierReply`: also when the
    /// level wasn't reached before the deadline, if it was heard how far it is.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_barrier(
        &mut self,
        group: GroupId,
        level: Level,
        index: Option<Index>,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let (place, slot) = self.submit(CallKind::Barrier, group, &[], deadline)?;
        let call = self.calls.get_mut(slot);
        call.level = level;
        call.waits = Some(Box::new(Waits { index, ..Waits::default() }));
        self.groups[place].asks.push_back(slot);
        Ok(self.calls.id(slot))
    }

    /// What is to be asked of a server now.
    pub(super) fn barrier_ask(calls: &Calls, slot: u32, now: Ticks) -> BarrierAsk {
        let (id, call) = (calls.id(slot), calls.get(slot));
        let left = call.deadline.since(now);
        // Its answer is to be here before the deadline.
        let wait = WAIT_MAX.min(Ticks(left.0 - left.0 / 8));
        let index = call.waits.as_ref().and_then(|waits| waits.index);
        let wait_ms = (wait.0 / 1_000) as u32;
        BarrierAsk { call: id.0, level: call.level, index, wait_ms }
    }

    /// An answer to a barrier arrived. A late or doubled one finds nobody.
    pub(super) fn take_barrier_reply(
        &mut self,
        now: Ticks,
        at: usize,
        frame: &Frame<'_>,
        reply: &BarrierReply,
    ) {
        let Some(slot) = self.calls.find(reply.call) else { return };
        let Some(place) = self.place_of(frame.header.group) else { return };
        let call = self.calls.get_mut(slot);
        let is_asked = call.kind == CallKind::Barrier && call.group as usize == place;
        if !is_asked || call.out_on != Some(at as u32) || call.level != reply.level {
            return;
        }
        call.out_on = None;
        let deadline = call.deadline;
        let waits = call.waits.as_mut().expect("a barrier waits");
        let mut advice = Advice::Continue;
        match reply.status {
            Status::Ok => {
                match waits.written.take() {
                    Some(written) => self.calls.done(slot, written.answer()),
                    None => self.calls.done(slot, bare(frame.body)),
                }
                self.calls.close(slot);
            }
            Status::NotReached => {
                // Of the newest entry: it is this one from now on.
                waits.index = waits.index.or(Some(reply.index)).filter(|&it| it != Index::ZERO);
                waits.last = Some(*reply);
                if deadline.since(now) < WAIT_MIN {
                    self.calls.give_up(slot, Reason::Deadline);
                    self.calls.close(slot);
                } else {
                    self.groups[place].asks.push_back(slot);
                }
            }
            status if status.is_retryable() => {
                let group = &mut self.groups[place];
                group.asks.push_back(slot);
                group.hint = Some(reply.leader).filter(|leader| leader.0 != 0);
                advice = match status {
                    Status::NotLeader
                    | Status::NoSuchGroup
                    | Status::LeadershipLost
                    | Status::Stopping => Advice::Seek,
                    _ => Advice::Pause,
                };
            }
            status => {
                self.calls.give_up(slot, Reason::Refused(status));
                self.calls.close(slot);
            }
        }
        self.heed(now, at, place, advice);
    }
}

/// A level is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The entry that was waited for.
    pub index: Index,
    /// Every entry up to here is at the level; at least `index`.
    pub reached: Index,
}

/// Why a level isn't known to be reached.
#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    /// The time is over, and this is how far the level has come.
    #[error(
        "entry {index} isn't at level {level} yet: that is reached up to entry {reached}{}",
        .behind.map_or(String::new(), |node| format!(", and node {node} is the furthest behind"))
    )]
    NotReached {
        /// The entry that was waited for; zero: the newest, which wasn't found in time.
        index: Index,
        /// The level.
        level: Level,
        /// Up to where it is reached.
        reached: Index,
        /// Who is the furthest behind.
        behind: Option<NodeId>,
    },
    /// What can go wrong with any call.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Client {
    /// Waits until an entry is at a level: without an index, the newest that was acknowledged to
    /// anybody before this call. At most for `timeout`. If leadership changes meanwhile the next
    /// leader is asked.
    ///
    /// # Errors
    /// If the level isn't reached in time, which says how far it is; or if no leader answers.
    pub fn barrier(
        &mut self,
        group: GroupId,
        level: Level,
        index: Option<Index>,
        timeout: Duration,
    ) -> Result<Reached, BarrierError> {
        let deadline = self.after(timeout);
        let call = self.core_mut().submit_barrier(group, level, index, deadline);
        let response = self.finish(call.map_err(ClientError::from)?)?;
        let reply = BarrierReply::decode(&response.body).map_err(ClientError::from)?;
        let BarrierReply { status, index, reached, behind, .. } = reply;
        match status {
            Status::Ok => Ok(Reached { index, reached }),
            _ => {
                let behind = Some(behind).filter(|&node| node != NodeId::ZERO);
                Err(BarrierError::NotReached { index, level, reached, behind })
            }
        }
    }
}
