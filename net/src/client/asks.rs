//! What a client asks about the members of groups and who leads them, and has changed of that.
//!
//! A change is not a write of a session: it names the configuration that it is meant for, and a
//! leader that has made it refuses it the second time. So it may be sent again after its connection
//! broke; from then on it is *in doubt*, and a refusal doesn't say that it wasn't done.

use ringraft_types::{GroupId, Index, NodeId, Revision, ShardId, Status, Ticks};

use super::calls::CallKind;
use super::core::Core;
use super::session::Advice;
use super::{Answer, CallId, Reason, SubmitError};
use crate::frame::Frame;
use crate::lead_wire::{self, LeadAsk, LeadReply, Leading};
use crate::members_wire::{self, ChangeAsk, MembersReply};

/// The flag of an answer to a change that was in doubt.
pub(super) const WAS_IN_DOUBT: u8 = 1;

impl Core {
    /// Asks a group's leader who the members are. The answer's body is that of a `MembersReply`.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_members(
        &mut self,
        group: GroupId,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let (place, slot) = self.submit(CallKind::Members, group, &[], deadline)?;
        self.groups[place].asks.push_back(slot);
        Ok(self.calls.id(slot))
    }

    /// Asks the node at `address` who the members of a group are, whoever leads.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_members_at(
        &mut self,
        address: &str,
        group: GroupId,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let (_, slot) = self.submit(CallKind::MembersAt, group, &[], deadline)?;
        Ok(self.queue_at(address, slot))
    }

    /// Takes a change of a group's members for its leader. The answer's body is that of a
    /// `MembersReply`, also if the leader refused; its flag 1 says that an earlier attempt may have
    /// been made.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_change(
        &mut self,
        group: GroupId,
        ask: &ChangeAsk,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let mut body = Vec::new();
        ask.encode(&mut body).map_err(|error| SubmitError::Members { error })?;
        let (place, slot) = self.submit(CallKind::Change, group, &body, deadline)?;
        self.groups[place].asks.push_back(slot);
        Ok(self.calls.id(slot))
    }

    /// Asks a group's leader that another node leads. The answer's body is that of a `LeadReply`,
    /// also if it was refused; its flag 1 says that an earlier attempt may have been made.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_hand_over(
        &mut self,
        group: GroupId,
        to: Option<NodeId>,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let body = LeadAsk { call: 0, leading: Leading::HandOver { to } }.encode();
        let (place, slot) = self.submit(CallKind::HandOver, group, &body, deadline)?;
        self.groups[place].asks.push_back(slot);
        Ok(self.calls.id(slot))
    }

    /// Asks a shard of the node at `address` what concerns all its groups: to stand for election no
    /// more, or again, or to have another priority. The answer's body is that of a `LeadReply`.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    ///
    /// # Panics
    /// If it is to hand a group over: ask the group ([`Self::submit_hand_over`]).
    pub fn submit_leading(
        &mut self,
        address: &str,
        shard: Option<ShardId>,
        leading: Leading,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        assert!(!matches!(leading, Leading::HandOver { .. }), "that is asked of a group");
        let body = LeadAsk { call: 0, leading }.encode();
        self.submit_to_link(CallKind::Pause, (address, shard), &body, deadline)
    }

    /// An answer about who leads arrived. A late or doubled one finds nobody.
    pub(super) fn take_lead_reply(
        &mut self,
        now: Ticks,
        at: usize,
        frame: &Frame<'_>,
        reply: &LeadReply<'_>,
    ) {
        let Some(slot) = self.calls.find(reply.call) else { return };
        let call = self.calls.get_mut(slot);
        if call.out_on != Some(at as u32) {
            return;
        }
        if call.kind == CallKind::Pause {
            call.out_on = None;
            self.complete_with_body(slot, frame.body);
            return;
        }
        let Some(place) = self.place_of(frame.header.group) else { return };
        let call = self.calls.get_mut(slot);
        if call.kind != CallKind::HandOver || call.group as usize != place {
            return;
        }
        call.out_on = None;
        self.settle_ask(now, at, (place, slot), (reply.status, reply.leader), frame.body);
    }

    /// A group's answer to what it was asked: to ask again elsewhere or later, or the end.
    fn settle_ask(
        &mut self,
        now: Ticks,
        at: usize,
        (place, slot): (usize, u32),
        (status, leader): (Status, NodeId),
        body: &[u8],
    ) {
        if status.is_retryable() {
            let group = &mut self.groups[place];
            group.asks.push_back(slot);
            group.hint = Some(leader).filter(|leader| leader.0 != 0);
            let advice = match status {
                Status::NotLeader | Status::NoSuchGroup | Status::Stopping | Status::Unknown => {
                    Advice::Seek
                }
                _ => Advice::Pause,
            };
            self.heed(now, at, place, advice);
            return;
        }
        let in_doubt = self.calls.get(slot).in_doubt;
        match status {
            Status::Ok | Status::Refused => {
                let flags = if in_doubt { WAS_IN_DOUBT } else { 0 };
                let (revision, index) = (Revision(0), Index(0));
                self.calls.done(slot, Answer { flags, revision, index, body });
            }
            _ if in_doubt => self.calls.unknown(slot, Reason::Refused(status)),
            _ => self.calls.not_done(slot, Reason::Refused(status)),
        }
        self.calls.close(slot);
        self.heed(now, at, place, Advice::Continue);
    }

    /// Sends a group's questions about members and changes of them to its leader.
    pub(super) fn flush_asks(&mut self, now: Ticks, place: usize, at: usize) {
        let Self { groups, links, calls, identity, .. } = self;
        let (group, link) = (&mut groups[place], &mut links[at]);
        while now >= group.reads_retry_at && !link.outbox.is_full() {
            let Some(slot) = group.asks.pop_front() else { return };
            let id = calls.id(slot).0;
            let call = calls.get_mut(slot);
            call.out_on = Some(at as u32);
            if call.kind == CallKind::HandOver {
                LeadAsk::name(&mut call.command, id);
                let body = &call.command;
                lead_wire::write_encoded(&mut link.outbox, group.id, *identity, body);
            } else if call.kind == CallKind::Barrier {
                let ask = Self::barrier_ask(calls, slot, now);
                ask.write(&mut link.outbox, group.id, *identity);
            } else if call.kind == CallKind::Change {
                ChangeAsk::name(&mut call.command, id);
                members_wire::write_change(&mut link.outbox, group.id, *identity, &call.command);
            } else {
                members_wire::write_members(&mut link.outbox, group.id, *identity, id);
            }
            link.owe(1, now);
        }
    }

    /// An answer about members arrived. A late or doubled one finds nobody.
    pub(super) fn take_members_reply(
        &mut self,
        now: Ticks,
        at: usize,
        frame: &Frame<'_>,
        reply: &MembersReply<'_>,
    ) {
        let Some(slot) = self.calls.find(reply.call) else { return };
        let Some(place) = self.place_of(frame.header.group) else { return };
        let call = self.calls.get_mut(slot);
        let is_asked =
            matches!(call.kind, CallKind::Members | CallKind::MembersAt | CallKind::Change);
        if !is_asked || call.group as usize != place || call.out_on != Some(at as u32) {
            return;
        }
        call.out_on = None;
        if call.kind == CallKind::MembersAt {
            self.complete_with_body(slot, frame.body);
            return;
        }
        let is_question = call.kind == CallKind::Members;
        // A node that doesn't lead answers a question all the same, but a leader knows more.
        let status = match reply.status {
            Status::Ok if is_question && !reply.is_leader => Status::NotLeader,
            status => status,
        };
        self.settle_ask(now, at, (place, slot), (status, reply.leader), frame.body);
    }
}
