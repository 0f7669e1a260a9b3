//! Handing leadership over: because a client asks, because the node is paused, or because it stops.
//!
//! The protocol says to whom it can be and does it (`ringraft_raft`); here is who waits for it, and
//! what comes next: a node that is paused or stops hands over group after group, a bounded number at
//! a time, each to another target if the first one doesn't take it.

use crate::error::{FrameRefusal, ShardError};
use crate::event::ShardEvent;
use crate::links::{ConnectionId, Links};
use crate::peer_frames::Carried;
use crate::shard::Shard;
use crate::spread::LeadRules;
use ringraft_net::lead_wire::{LeadAsk, LeadRefusal, LeadReply, Leading};
use ringraft_net::{Frame, Kind};
use ringraft_raft::{Input, RoleKind, TransferRefused};
use ringraft_types::{GroupId, NodeId, Status, Term, Ticks};
use ringraft_wal::device::Device;
use std::collections::BTreeMap;

/// So many groups of a shard are handed over at a time: the others wait for their turn, so that the
/// targets' elections don't come all at once.
const AT_ONCE_MAX: usize = 32;
/// So many clients wait for one transfer; more are told "busy".
const WAITING_MAX: usize = 64;

/// Why a group is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferReason {
    /// A client asked for it.
    Asked,
    /// The node is not to lead.
    Paused,
    /// The node stops.
    Stopping,
    /// The other node has a higher priority (EL-07).
    Priority,
    /// This shard leads more than its part.
    Spread,
}

/// A transfer under way, and who waits for its end.
#[derive(Debug)]
struct HandOver {
    slot: usize,
    term: Term,
    to: NodeId,
    reason: TransferReason,
    began_at: Ticks,
    /// The protocol gives up after an election timeout; whoever won by then is known soon after.
    ends_at: Ticks,
    waiting: Vec<(ConnectionId, u64)>,
}

/// What became of one.
enum Ending {
    Done,
    /// The leader goes on.
    TimedOut,
    /// Another node leads, or none is known to.
    Overtaken(Option<NodeId>),
}

/// What a shard does about who leads.
#[derive(Debug, Default)]
pub(crate) struct HandingOver {
    under_way: Vec<HandOver>,
    /// The node is not to lead until it is told otherwise, or starts anew.
    is_paused: bool,
    /// What this shard leads was not looked through since it was told to give it up.
    is_due: bool,
    /// When to try again with those who could not be handed over.
    again_at: Ticks,
    /// Per group (by slot), who was told and didn't take over.
    tried: BTreeMap<usize, Vec<NodeId>>,
}

impl HandingOver {
    /// The group of this place left.
    pub(crate) fn forget(&mut self, slot: usize) {
        self.tried.remove(&slot);
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Whether this node is not to stand for election (EL-12).
    pub fn is_paused(&self) -> bool {
        self.handing_over.is_paused
    }

    /// Whether a group is being handed over, or may be in the next turn.
    pub fn is_handing_over(&self) -> bool {
        self.handing_over.is_due || !self.handing_over.under_way.is_empty()
    }

    /// What this shard leads is to be handed over from now on.
    pub(crate) fn give_up_leading(&mut self) {
        self.handing_over.is_due = true;
        self.handing_over.again_at = Ticks::ZERO;
        self.handing_over.tried.clear();
    }

    /// Begins to hand a group over, to the named node or to the best. It goes on by itself; who leads
    /// then is seen by [`Shard::status`].
    ///
    /// # Errors
    /// If the log can't go on; the inner error says why it isn't begun.
    pub fn hand_over(
        &mut self,
        now: Ticks,
        group: GroupId,
        to: Option<NodeId>,
    ) -> Result<Result<NodeId, TransferRefused>, ShardError> {
        match self.slots.get(&group) {
            Some(&slot) => self.begin_transfer(now, slot, to, TransferReason::Asked, None),
            None => Ok(Err(TransferRefused::NotLeader(None))),
        }
    }

    /// Has this shard stand in no election and hand over what it leads, or not any more. It isn't
    /// written down: a start forgets it.
    ///
    /// # Errors
    /// If the log can't go on.
    pub fn pause(&mut self, now: Ticks, is_paused: bool) -> Result<(), ShardError> {
        if is_paused == self.handing_over.is_paused {
            return Ok(());
        }
        self.handing_over.is_paused = is_paused;
        self.events.push(ShardEvent::Paused(is_paused));
        if is_paused {
            self.give_up_leading();
        }
        for slot in 0..self.groups.len() {
            self.step(now, slot, Input::Paused(is_paused), Carried::Cache)?;
        }
        Ok(())
    }

    /// Takes a `Lead` frame. A transfer is answered when it has ended, everything else at once.
    pub(crate) fn lead_frame(
        &mut self,
        now: Ticks,
        from: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<Result<(), FrameRefusal>, ShardError> {
        let group = frame.header.group;
        let LeadAsk { call, leading } = match LeadAsk::read(frame) {
            Ok(ask) => ask,
            Err(error) => return Ok(Err(FrameRefusal::malformed(Kind::Lead, error))),
        };
        let to = match leading {
            Leading::HandOver { to } => to,
            _ if self.is_stopping => {
                self.answer_lead(from, group, call, Status::Stopping);
                return Ok(Ok(()));
            }
            Leading::Priority(priority) => {
                self.set_lead_rules(LeadRules { priority, ..self.lead_rules() });
                self.answer_lead(from, group, call, Status::Ok);
                return Ok(Ok(()));
            }
            Leading::Pause | Leading::Resume => {
                self.pause(now, leading == Leading::Pause)?;
                self.answer_lead(from, group, call, Status::Ok);
                return Ok(Ok(()));
            }
        };
        let Some(&slot) = self.slots.get(&group) else {
            if let Some(status) = self.forward(from, frame, 1) {
                self.answer_lead(from, group, call, status);
            }
            return Ok(Ok(()));
        };
        let status = if self.groups[slot].is_out() {
            Status::Damaged
        } else if self.is_stopping {
            Status::Stopping
        } else {
            let waits = Some((from, call));
            match self.begin_transfer(now, slot, to, TransferReason::Asked, waits)? {
                Ok(_) => return Ok(Ok(())),
                Err(TransferRefused::NotLeader(_)) => {
                    self.metrics.refused_not_leader += 1;
                    Status::NotLeader
                }
                Err(refused) => {
                    self.metrics.refused_other += 1;
                    let (refusal, sentence) = (refusal_of(refused), refused.to_string());
                    self.answer_refused(from, slot, call, refusal, &sentence);
                    return Ok(Ok(()));
                }
            }
        };
        self.answer_lead(from, group, call, status);
        Ok(Ok(()))
    }

    /// Begins a transfer, or joins the one under way if that is what is asked for.
    pub(crate) fn begin_transfer(
        &mut self,
        now: Ticks,
        slot: usize,
        to: Option<NodeId>,
        reason: TransferReason,
        waits: Option<(ConnectionId, u64)>,
    ) -> Result<Result<NodeId, TransferRefused>, ShardError> {
        self.propose(now, slot)?;
        let timeout = self.settings.raft.election_timeout;
        let mut unfit = self.unfit_peers();
        if to.is_none() {
            unfit.extend(self.handing_over.tried.get(&slot).into_iter().flatten());
        }
        let group = &self.groups[slot];
        let (term, is_out) = (group.raft.term(), group.is_out());
        if is_out {
            return Ok(Err(TransferRefused::NotLeader(group.leader())));
        }
        let under_way = self.handing_over.under_way.iter_mut();
        let mut same = under_way.filter(|it| it.slot == slot && it.term == term);
        if let Some(one) = same.find(|it| to.is_none_or(|to| to == it.to))
            && one.waiting.len() < WAITING_MAX
            && group.raft.transfers_to() == Some(one.to)
        {
            one.waiting.extend(waits);
            return Ok(Ok(one.to));
        }
        let to = match group.raft.transfer_target(now, to, &unfit) {
            Ok(to) => to,
            Err(refused) => return Ok(Err(refused)),
        };
        self.step(now, slot, Input::Transfer { to }, Carried::Cache)?;
        let (began_at, ends_at) = (now, now.after(Ticks(2 * timeout.0)));
        let waiting = waits.into_iter().collect();
        let one = HandOver { slot, term, to, reason, began_at, ends_at, waiting };
        self.handing_over.under_way.push(one);
        Ok(Ok(to))
    }

    /// Ends what has ended, and begins what is to be handed over. Returns when to look again.
    pub(crate) fn hand_over_all(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        let is_idle = self.handing_over.under_way.is_empty();
        let gives_up = self.handing_over.is_paused || self.is_stopping;
        if is_idle && !gives_up {
            return Ok(Ticks::NEVER);
        }
        let began = self.handing_over.under_way.len();
        let mut at = 0;
        while at < self.handing_over.under_way.len() {
            match self.ending(now, at) {
                Some(ending) => self.end_transfer(now, at, &ending),
                None => at += 1,
            }
        }
        let has_ended = self.handing_over.under_way.len() < began;
        if gives_up && (has_ended || now >= self.handing_over.again_at) {
            self.give_up_more(now)?;
        }
        let ends = self.handing_over.under_way.iter().map(|one| one.ends_at).min();
        let again = if gives_up { self.handing_over.again_at } else { Ticks::NEVER };
        // Whatever ends one wakes the shard; a leader that goes on does so by its own tick.
        Ok(ends.unwrap_or(Ticks::NEVER).min(again.max(now.after(Ticks(1)))))
    }

    fn ending(&self, now: Ticks, at: usize) -> Option<Ending> {
        let one = &self.handing_over.under_way[at];
        let raft = &self.groups[one.slot].raft;
        let is_same = raft.role() == RoleKind::Leader && raft.term() == one.term;
        match raft.leader() {
            _ if is_same && raft.transfers_to().is_some() => None,
            _ if is_same => Some(Ending::TimedOut),
            Some(leader) if leader == one.to => Some(Ending::Done),
            // The old leader's word of before.
            Some(_) if raft.term() == one.term => None,
            Some(leader) => Some(Ending::Overtaken(Some(leader))),
            None => (now >= one.ends_at).then_some(Ending::Overtaken(None)),
        }
    }

    fn end_transfer(&mut self, now: Ticks, at: usize, ending: &Ending) {
        let HandOver { slot, to, reason, began_at, waiting, .. } =
            self.handing_over.under_way.swap_remove(at);
        let (group, took) = (self.groups[slot].id, now.since(began_at));
        let timeout = self.settings.raft.election_timeout;
        let refused = match ending {
            Ending::Done => {
                self.metrics.transfers += 1;
                let is_spread = matches!(reason, TransferReason::Priority | TransferReason::Spread);
                self.metrics.transfers_spread += u64::from(is_spread);
                self.note_taken_over(now, to, true);
                self.handing_over.tried.remove(&slot);
                self.events.push(ShardEvent::HandedOver { group, to, took, reason });
                None
            }
            Ending::TimedOut => {
                let sentence = format!(
                    "node {to} didn't take over within {} ms, and the leader goes on",
                    timeout.0 / 1_000
                );
                Some((LeadRefusal::TimedOut, sentence))
            }
            Ending::Overtaken(leader) => {
                let sentence = match leader {
                    Some(leader) => format!("node {leader} leads now, not node {to}"),
                    None => "no leader is known yet: the election goes on".to_owned(),
                };
                Some((LeadRefusal::Overtaken, sentence))
            }
        };
        if let Some((refusal, sentence)) = refused {
            self.metrics.transfers_failed += 1;
            self.events.push(ShardEvent::NotHandedOver { group, to, took, reason });
            self.note_taken_over(now, to, false);
            if matches!(reason, TransferReason::Paused | TransferReason::Stopping) {
                self.handing_over.tried.entry(slot).or_default().push(to);
            }
            for (from, call) in waiting {
                self.answer_refused(from, slot, call, refusal, &sentence);
            }
            return;
        }
        for (from, call) in waiting {
            self.answer_lead(from, group, call, Status::Ok);
        }
    }

    /// Whether this group is being handed over.
    pub(crate) fn hands_over(&self, slot: usize) -> bool {
        self.handing_over.under_way.iter().any(|one| one.slot == slot)
    }

    /// Begins to hand over what is led here and can be, up to a number at a time.
    fn give_up_more(&mut self, now: Ticks) -> Result<(), ShardError> {
        self.handing_over.is_due = false;
        let reason =
            if self.is_stopping { TransferReason::Stopping } else { TransferReason::Paused };
        let mut is_left = false;
        for slot in 0..self.groups.len() {
            let raft = &self.groups[slot].raft;
            if raft.role() != RoleKind::Leader || raft.transfers_to().is_some() {
                continue;
            }
            if self.handing_over.under_way.len() >= AT_ONCE_MAX {
                // The next one begins when one of these has ended.
                self.handing_over.again_at = Ticks::NEVER;
                return Ok(());
            }
            if self.begin_transfer(now, slot, None, reason, None)?.is_err() {
                is_left = true;
            }
        }
        let settings = &self.settings.raft;
        self.handing_over.again_at = match (self.is_stopping, is_left) {
            // What can't be handed over now isn't later: a node that stops has no time.
            (true, _) => Ticks::NEVER,
            (false, true) => {
                self.handing_over.tried.clear();
                now.after(settings.election_timeout)
            }
            // It may come to lead another one yet: it stood before it was paused.
            (false, false) => now.after(settings.heartbeat_interval),
        };
        Ok(())
    }

    fn answer_lead(&mut self, from: ConnectionId, group: GroupId, call: u64, status: Status) {
        self.write_lead(from, group, call, status, None, "");
    }

    fn answer_refused(
        &mut self,
        from: ConnectionId,
        slot: usize,
        call: u64,
        refusal: LeadRefusal,
        sentence: &str,
    ) {
        let group = self.groups[slot].id;
        self.write_lead(from, group, call, Status::Refused, Some(refusal), sentence);
    }

    fn write_lead(
        &mut self,
        from: ConnectionId,
        group: GroupId,
        call: u64,
        status: Status,
        refusal: Option<LeadRefusal>,
        sentence: &str,
    ) {
        let found = self.slots.get(&group).map(|&slot| &self.groups[slot]);
        let leader = found.and_then(|group| group.leader()).unwrap_or(NodeId::ZERO);
        let term = found.map_or(Term::ZERO, |group| group.raft.term());
        let sender = self.settings.identity;
        if let Some(outbox) = self.links.client(from) {
            let reply = LeadReply { call, status, refusal, leader, term, sentence };
            reply.write(outbox, group, sender);
        }
    }
}

fn refusal_of(refused: TransferRefused) -> LeadRefusal {
    match refused {
        TransferRefused::NotLeader(_) => LeadRefusal::Overtaken,
        TransferRefused::AlreadyLeads { .. } => LeadRefusal::AlreadyLeads,
        TransferRefused::UnderWay { .. } => LeadRefusal::UnderWay,
        TransferRefused::NoVoter { .. } => LeadRefusal::NoVoter,
        TransferRefused::Unreachable { .. } => LeadRefusal::Unreachable,
        TransferRefused::Behind { .. } => LeadRefusal::Behind,
        TransferRefused::Unfit { .. } => LeadRefusal::Unfit,
        TransferRefused::NoTarget => LeadRefusal::NoTarget,
    }
}
