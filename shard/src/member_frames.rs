//! Frames of clients about the members of groups: who they are, and changing that. Anybody is told
//! by any node what its log says; only a leader changes it, and knows how far the others are.

use crate::error::{FrameRefusal, ShardError};
use crate::links::{ConnectionId, Links};
use crate::members::MemberChange;
use crate::shard::Shard;
use ringraft_net::members_wire::{self, ChangeAsk, MembersReply, Peer, Refusal};
use ringraft_net::{Frame, Kind};
use ringraft_raft::{Allow, ChangeRefused, RoleKind};
use ringraft_types::{Addresses, GroupId, Incarnation, Member, NodeId, Status, Ticks, Words};
use ringraft_wal::device::Device;

/// What becomes of a question or a change.
struct Verdict {
    status: Status,
    refusal: Option<Refusal>,
    sentence: String,
}

impl Verdict {
    fn of(status: Status) -> Self {
        Self { status, refusal: None, sentence: String::new() }
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Takes a `Members` or a `Change` frame. It is answered exactly once, here or by the shard that
    /// owns the group.
    pub(crate) fn member_frame(
        &mut self,
        now: Ticks,
        from: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<Result<(), FrameRefusal>, ShardError> {
        let (kind, group) = (frame.header.kind, frame.header.group);
        let opened = match kind {
            Kind::Members => members_wire::members(frame).map(|call| (call, None)),
            _ => ChangeAsk::read(frame).map(|ask| (ask.call, Some(ask))),
        };
        let (call, ask) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                return Ok(Err(FrameRefusal::malformed(kind, error)));
            }
        };
        let Some(&slot) = self.slots.get(&group) else {
            let Some(status) = self.forward(from, frame, 1) else { return Ok(Ok(())) };
            let (reply, sender) =
                (MembersReply::refusal(call, status, NodeId::ZERO), self.settings.identity);
            if let Some(outbox) = self.links.client(from) {
                reply.write(outbox, group, sender);
            }
            return Ok(Ok(()));
        };
        let verdict = match ask {
            None => Verdict::of(Status::Ok),
            Some(ask) => self.take_change(now, group, slot, &ask)?,
        };
        self.answer_members(now, slot, from, call, &verdict);
        Ok(Ok(()))
    }

    fn take_change(
        &mut self,
        now: Ticks,
        group: GroupId,
        slot: usize,
        ask: &ChangeAsk,
    ) -> Result<Verdict, ShardError> {
        if self.groups[slot].is_out() {
            return Ok(Verdict::of(Status::Damaged));
        }
        if self.is_stopping {
            return Ok(Verdict::of(Status::Stopping));
        }
        if self.log.space_exhausted() {
            return Ok(Verdict::of(Status::NoSpace));
        }
        if self.log.pending_bytes() + self.unproposed_bytes >= self.settings.limits.log_bytes_max {
            self.metrics.refused_busy += 1;
            return Ok(Verdict::of(Status::Busy));
        }
        let members: Vec<Member<'_>>;
        let change = match &ask.change {
            members_wire::MemberChange::To { target, is_held, allow_majority, allow_unready } => {
                let member = |member| as_entry_holds_it(member);
                members = target.members.iter().map(member).collect();
                let allow = Allow { majority: *allow_majority, unready: *allow_unready };
                let (target, members) = (&target.configuration, &members);
                MemberChange::To { target, members, is_held: *is_held, allow }
            }
            members_wire::MemberChange::Commit => MemberChange::Commit,
            members_wire::MemberChange::Abort => MemberChange::Abort,
        };
        let refused = match self.change_members(now, group, ask.expected, change)? {
            Ok(_) => return Ok(Verdict::of(Status::Ok)),
            Err(refused) => refused,
        };
        let refusal = match refused {
            ChangeRefused::NotLeader(_) => {
                self.metrics.refused_not_leader += 1;
                return Ok(Verdict::of(Status::NotLeader));
            }
            ChangeRefused::NotReady => return Ok(Verdict::of(Status::NotReady)),
            ChangeRefused::Transferring { .. } => return Ok(Verdict::of(Status::Transferring)),
            ChangeRefused::UnderWay { .. } => Refusal::UnderWay,
            ChangeRefused::Conflict { .. } => Refusal::Conflict,
            ChangeRefused::Unchanged => Refusal::Unchanged,
            ChangeRefused::NotHeld { .. } => Refusal::NotHeld,
            ChangeRefused::Invalid(_) => Refusal::Invalid,
            ChangeRefused::AddsMajority { .. } => Refusal::AddsMajority,
            ChangeRefused::Behind { .. } => Refusal::Behind,
            ChangeRefused::Unreachable { .. } => Refusal::Unreachable,
            ChangeRefused::Unfit { .. } => Refusal::Unfit,
            ChangeRefused::NoReadyMajority { .. } => Refusal::NoReadyMajority,
            ChangeRefused::WhichLife { .. } | ChangeRefused::UnknownLife { .. } => {
                Refusal::WhichLife
            }
        };
        self.metrics.refused_other += 1;
        let (status, sentence) = (Status::Refused, refused.to_string());
        Ok(Verdict { status, refusal: Some(refusal), sentence })
    }

    fn answer_members(
        &mut self,
        now: Ticks,
        slot: usize,
        from: ConnectionId,
        call: u64,
        verdict: &Verdict,
    ) {
        let Self { groups, peers, links, settings, .. } = self;
        let Some(outbox) = links.client(from) else { return };
        let group = &groups[slot];
        let raft = &group.raft;
        let peers = raft.peers_progress().map(|(node, matched, commit)| {
            let met = peers.get(&node).and_then(|peer| peer.met);
            let incarnation = met.map_or(Incarnation::ZERO, |met| met.incarnation);
            Peer { node, is_heard: raft.has_heard(now, node), matched, commit, incarnation }
        });
        let known = group.book.newest();
        let reply = MembersReply {
            call,
            status: verdict.status,
            refusal: verdict.refusal,
            is_committed: raft.is_configuration_committed(),
            is_leader: raft.role() == RoleKind::Leader && !group.is_muted,
            leader: group.leader().unwrap_or(NodeId::ZERO),
            index: known.index,
            commit: raft.commit(),
            peers: peers.collect(),
            members: &known.payload,
            sentence: &verdict.sentence,
        };
        reply.write(outbox, group.id, settings.identity);
    }
}

/// A member that a client names, as an entry says it.
fn as_entry_holds_it(member: &members_wire::Member) -> Member<'_> {
    let (peer, client) = (member.peer.as_bytes(), member.client.as_bytes());
    let addresses = Addresses { peer, client };
    Member { node: member.node, words: Words { incarnation: member.incarnation, addresses } }
}
