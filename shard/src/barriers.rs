//! Barriers: clients that wait until an entry is at a level, and are told when it is, or that it
//! isn't in time, or that this node leads no more.
//!
//! The protocol says how far each level has come (`ringraft_raft::Standing`); here is who waits for
//! it. Nobody waits, nothing is done. A barrier changes nothing and names its entry by the index,
//! so who asked may ask another leader the same.
//!
//! An index behind the end of the log is waited for, not refused: a leader that was deposed and
//! doesn't know it has a shorter log than the one that acknowledged the entry.

use crate::error::{FrameRefusal, ShardError};
use crate::limits::{BARRIER_WAIT_MAX, GROUP_BARRIERS_MAX, SHARD_BARRIERS_MAX};
use crate::links::{ConnectionId, Links};
use crate::peer_frames::Carried;
use crate::shard::Shard;
use ringraft_net::barrier_wire::{BarrierAsk, BarrierReply};
use ringraft_net::{Frame, Kind};
use ringraft_raft::Input;
use ringraft_types::{GroupId, Index, Level, NodeId, Status, Ticks};
use ringraft_wal::device::Device;
use std::collections::{BTreeMap, BTreeSet};

/// Who waits.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    connection: ConnectionId,
    call: u64,
    level: Level,
    until: Ticks,
}

/// Those of one group.
#[derive(Debug, Default)]
struct Waits {
    /// By level: by the entry that is waited for, and a number of its own.
    levels: BTreeMap<Level, BTreeMap<(Index, u64), Waiter>>,
    /// Those for the newest entry, by the ticket of the read round that says which one that is.
    asking: BTreeMap<u64, Waiter>,
    count: usize,
    /// The peers were told of this commit index on behalf of those who wait.
    told: Index,
}

/// All barriers of a shard.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    /// By group (slot); none without a barrier.
    groups: BTreeMap<usize, Waits>,
    count: usize,
    /// Until when each waits whose entry is known: also its group, level and place there.
    until: BTreeSet<(Ticks, usize, Level, Index, u64)>,
}

impl Barriers {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// How many of a group (by slot) take a place among its reads.
    pub(crate) fn asking(&self, slot: usize) -> usize {
        self.groups.get(&slot).map_or(0, |waits| waits.asking.len())
    }

    /// Whether anybody waits for a group (by slot).
    pub(crate) fn concerns(&self, slot: usize) -> bool {
        self.groups.contains_key(&slot)
    }

    fn place(&mut self, slot: usize, index: Index, number: u64, waiter: Waiter) {
        let waits = self.groups.entry(slot).or_default();
        waits.count += 1;
        self.count += 1;
        self.until.insert((waiter.until, slot, waiter.level, index, number));
        waits.levels.entry(waiter.level).or_default().insert((index, number), waiter);
    }

    fn ask(&mut self, slot: usize, ticket: u64, waiter: Waiter) {
        let waits = self.groups.entry(slot).or_default();
        waits.count += 1;
        self.count += 1;
        waits.asking.insert(ticket, waiter);
    }

    /// Takes out who waits for a ticket.
    fn take_asking(&mut self, slot: usize, ticket: u64) -> Option<Waiter> {
        let waits = self.groups.get_mut(&slot)?;
        let waiter = waits.asking.remove(&ticket)?;
        self.left(slot, 1);
        Some(waiter)
    }

    /// Takes out one whose level has come as far as its entry.
    fn take_reached(&mut self, slot: usize, level: Level, to: Index) -> Option<(Index, Waiter)> {
        let places = self.groups.get_mut(&slot)?.levels.get_mut(&level)?;
        let first = places.first_entry().filter(|first| first.key().0 <= to)?;
        let ((index, number), waiter) = first.remove_entry();
        self.until.remove(&(waiter.until, slot, level, index, number));
        self.left(slot, 1);
        Some((index, waiter))
    }

    /// Takes out one that has waited for as long as it would.
    fn take_expired(&mut self, now: Ticks) -> Option<(usize, Index, Waiter)> {
        let &(_, slot, level, index, number) = self.until.first().filter(|it| it.0 <= now)?;
        self.until.pop_first();
        let waits = self.groups.get_mut(&slot).expect("who expires waits");
        let places = waits.levels.get_mut(&level).expect("who expires waits");
        let waiter = places.remove(&(index, number)).expect("who expires waits");
        self.left(slot, 1);
        Some((slot, index, waiter))
    }

    /// Takes out all of a group.
    fn take_all(&mut self, slot: usize) -> Vec<(Index, Waiter)> {
        let Some(waits) = self.groups.remove(&slot) else { return Vec::new() };
        self.count -= waits.count;
        let mut all: Vec<_> = waits.asking.into_values().map(|it| (Index::ZERO, it)).collect();
        for (level, places) in waits.levels {
            for ((index, number), waiter) in places {
                self.until.remove(&(waiter.until, slot, level, index, number));
                all.push((index, waiter));
            }
        }
        all
    }

    fn left(&mut self, slot: usize, count: usize) {
        self.count -= count;
        let waits = self.groups.get_mut(&slot).expect("who left was there");
        waits.count -= count;
        if waits.count == 0 {
            self.groups.remove(&slot);
        }
    }

    /// Whether somebody waits to hear that this commit index is known, and nobody was told of it.
    fn must_tell(&mut self, slot: usize, commit: Index) -> bool {
        let Some(waits) = self.groups.get_mut(&slot).filter(|waits| waits.told < commit) else {
            return false;
        };
        let mut of_knowledge = waits.levels.iter().filter(|(level, _)| level.is_of_knowledge());
        let must_tell = of_knowledge.any(|(_, places)| {
            places.first_key_value().is_some_and(|(&(index, _), _)| index <= commit)
        });
        if must_tell {
            waits.told = commit;
        }
        must_tell
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Takes a `Barrier` frame. It is answered by a turn, this one's at the earliest.
    pub(crate) fn barrier_frame(
        &mut self,
        now: Ticks,
        from: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<Result<(), FrameRefusal>, ShardError> {
        let group = frame.header.group;
        let ask = match BarrierAsk::read(frame) {
            Ok(ask) => ask,
            Err(error) => return Ok(Err(FrameRefusal::malformed(Kind::Barrier, error))),
        };
        let wait = Ticks::from_millis(u64::from(ask.wait_ms)).min(BARRIER_WAIT_MAX);
        let BarrierAsk { call, level, index, .. } = ask;
        let waiter = Waiter { connection: from, call, level, until: now.after(wait) };
        let Some(&slot) = self.slots.get(&group) else {
            if let Some(status) = self.forward(from, frame, 1) {
                self.refuse_barrier(group, &waiter, index, (status, NodeId::ZERO));
            }
            return Ok(Ok(()));
        };
        if let Some(refused) = self.barrier_refusal(slot) {
            match refused.0 {
                Status::NotLeader => self.metrics.refused_not_leader += 1,
                _ => self.metrics.refused_other += 1,
            }
            self.refuse_barrier(group, &waiter, index, refused);
            return Ok(Ok(()));
        }
        let of_group = self.barriers.groups.get(&slot).map_or(0, |waits| waits.count);
        let is_full = of_group >= GROUP_BARRIERS_MAX || self.barriers.len() >= SHARD_BARRIERS_MAX;
        if is_full || index.is_none() && self.are_reads_full(slot) {
            self.metrics.refused_busy += 1;
            self.refuse_barrier(group, &waiter, index, (Status::Busy, NodeId::ZERO));
            return Ok(Ok(()));
        }
        let number = self.next_ticket;
        self.next_ticket += 1;
        if let Some(index) = index {
            self.barriers.place(slot, index, number, waiter);
            return Ok(Ok(()));
        }
        // As of a read: the newest entry that was acknowledged before is known after a round.
        self.barriers.ask(slot, number, waiter);
        self.touch(slot);
        self.step(now, slot, Input::Read { ticket: number }, Carried::Cache)?;
        Ok(Ok(()))
    }

    /// Why a group has no barriers now, if so.
    fn barrier_refusal(&self, slot: usize) -> Option<(Status, NodeId)> {
        let stopping = self.is_stopping.then_some((Status::Stopping, NodeId::ZERO));
        self.refusal(slot).or(stopping)
    }

    /// A read round of a barrier is confirmed. Whether the ticket was a barrier's.
    pub(crate) fn barrier_placed(&mut self, slot: usize, ticket: u64, index: Index) -> bool {
        let taken = self.barriers.take_asking(slot, ticket);
        if let Some(waiter) = taken {
            self.barriers.place(slot, index, ticket, waiter);
        }
        taken.is_some()
    }

    /// Leadership was lost under the read round of a barrier. Whether the ticket was a barrier's.
    pub(crate) fn barrier_lost(&mut self, slot: usize, ticket: u64) -> bool {
        let taken = self.barriers.take_asking(slot, ticket);
        if let Some(waiter) = taken {
            let leader = self.groups[slot].leader().unwrap_or(NodeId::ZERO);
            let group = self.groups[slot].id;
            self.refuse_barrier(group, &waiter, None, (Status::LeadershipLost, leader));
        }
        taken.is_some()
    }

    /// Answers the barriers whose level is reached, and those that wait no longer. Returns when to
    /// look again if nothing happens before.
    pub(crate) fn answer_barriers(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        if self.barriers.len() == 0 {
            return Ok(Ticks::NEVER);
        }
        let slots: Vec<usize> = self.barriers.groups.keys().copied().collect();
        for slot in slots {
            if let Some((status, leader)) = self.barrier_refusal(slot) {
                let lost = match status {
                    Status::NotLeader => Status::LeadershipLost,
                    status => status,
                };
                let group = self.groups[slot].id;
                for (index, waiter) in self.barriers.take_all(slot) {
                    let index = Some(index).filter(|&index| index != Index::ZERO);
                    self.refuse_barrier(group, &waiter, index, (lost, leader));
                }
                continue;
            }
            self.answer_reached(slot);
            if self.barriers.must_tell(slot, self.groups[slot].raft.commit()) {
                let mut output = std::mem::take(&mut self.scratch.output);
                output.clear();
                self.groups[slot].raft.tell_commit(now, &mut output);
                let result = self.carry_out(now, slot, &output, Carried::Cache);
                self.scratch.output = output;
                result?;
            }
        }
        while let Some((slot, index, waiter)) = self.barriers.take_expired(now) {
            self.metrics.barriers_timed_out += 1;
            self.tell_barrier(slot, &waiter, index, Status::NotReached);
        }
        Ok(self.barriers.until.first().map_or(Ticks::NEVER, |first| first.0))
    }

    fn answer_reached(&mut self, slot: usize) {
        for level in Level::ALL {
            let Some(standing) = self.groups[slot].raft.standing(level) else { return };
            while let Some((index, waiter)) =
                self.barriers.take_reached(slot, level, standing.index)
            {
                self.metrics.barriers_reached += 1;
                self.tell_barrier(slot, &waiter, index, Status::Ok);
            }
        }
    }

    /// Tells who waited how far its level has come.
    fn tell_barrier(&mut self, slot: usize, waiter: &Waiter, index: Index, status: Status) {
        let group = &self.groups[slot];
        let standing = group.raft.standing(waiter.level);
        let standing = standing.expect("only a leader's barriers are told of levels");
        let behind = match status {
            Status::NotReached => standing.behind.unwrap_or(NodeId::ZERO),
            _ => NodeId::ZERO,
        };
        let reply = BarrierReply {
            call: waiter.call,
            status,
            level: waiter.level,
            leader: NodeId::ZERO,
            index,
            reached: standing.index,
            behind,
        };
        self.write_barrier(group.id, waiter.connection, &reply);
    }

    fn refuse_barrier(
        &mut self,
        group: GroupId,
        waiter: &Waiter,
        index: Option<Index>,
        (status, leader): (Status, NodeId),
    ) {
        let reply = BarrierReply {
            call: waiter.call,
            status,
            level: waiter.level,
            leader,
            index: index.unwrap_or_default(),
            reached: Index::ZERO,
            behind: NodeId::ZERO,
        };
        self.write_barrier(group, waiter.connection, &reply);
    }

    fn write_barrier(&mut self, group: GroupId, to: ConnectionId, reply: &BarrierReply) {
        let sender = self.settings.identity;
        // Who is gone isn't told.
        if let Some(outbox) = self.links.client(to) {
            reply.write(outbox, group, sender);
        }
    }
}
