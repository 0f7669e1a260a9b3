//! Frames of clients: writes become proposals, reads wait for a round, the rest is answered here.

use crate::apply::Answer;
use crate::error::{FrameRefusal, ShardError};
use crate::group::{Group, ReadBatch, Waiting};
use crate::limits::{READ_WAIT_MAX, UNPROPOSED_PART_OF_CACHE};
use crate::links::{ConnectionId, Links};
use crate::machine::CommandKind;
use crate::metrics::Stage;
use crate::peer_frames::Carried;
use crate::session::Verdict;
use crate::shard::Shard;
use crate::share::Pending;
use ringraft_net::client_wire::{
    self, BatchWriter, Consistency, Local, LocateReply, Reply, Requests,
};
use ringraft_net::status::{GroupRole, GroupStatus, NodeStatus};
use ringraft_net::{Frame, Identity, Kind, Outbox};
use ringraft_raft::{Input, RoleKind};
use ringraft_types::command::Envelope;
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{GroupId, NodeId, Status, Ticks};
use ringraft_wal::device::{Device, Durability};

impl<D: Device, L: Links> Shard<D, L> {
    /// Takes a frame of a client.
    pub(crate) fn client_frame(
        &mut self,
        now: Ticks,
        from: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<Result<(), FrameRefusal>, ShardError> {
        let kind = frame.header.kind;
        let group = frame.header.group;
        let malformed = |error| FrameRefusal::malformed(kind, error);
        match kind {
            Kind::Writes | Kind::Reads => {
                let opened = match kind {
                    Kind::Writes => client_wire::writes(frame),
                    _ => client_wire::reads(frame),
                };
                let requests = match opened {
                    Ok(requests) => requests,
                    Err(error) => return Ok(Err(malformed(error))),
                };
                let Some(&slot) = self.slots.get(&group) else {
                    self.forward_or_refuse(from, frame, &requests);
                    return Ok(Ok(()));
                };
                if kind == Kind::Writes {
                    self.take_writes(now, slot, from, &requests);
                    self.propose_if_many(now)?;
                } else {
                    self.take_reads(now, slot, from, frame.body, &requests)?;
                }
            }
            Kind::Locate => {
                if let Some(&slot) = self.slots.get(&group) {
                    self.answer_locate(slot, from);
                } else if !self.is_elsewhere(group) {
                    let reply = LocateReply {
                        status: Status::NoSuchGroup,
                        leader: NodeId::ZERO,
                        ready: false,
                        term: ringraft_types::Term::ZERO,
                        applied: ringraft_types::Index::ZERO,
                        members: Vec::new(),
                    };
                    let sender = self.settings.identity;
                    if let Some(outbox) = self.links.client(from) {
                        reply.write(outbox, group, sender);
                    }
                } else {
                    // A client whose question finds no room asks again after its patience.
                    self.links.forward(self.router.home(group), from, frame);
                }
            }
            Kind::Status => {
                let status = self.status(now);
                let sender = self.settings.identity;
                if let Some(outbox) = self.links.client(from) {
                    status.write(outbox, sender);
                }
            }
            Kind::Lead => return self.lead_frame(now, from, frame),
            Kind::Barrier => return self.barrier_frame(now, from, frame),
            Kind::Members | Kind::Change => return self.member_frame(now, from, frame),
            kind => return Ok(Err(FrameRefusal::WrongPort { kind })),
        }
        Ok(Ok(()))
    }

    fn is_elsewhere(&self, group: GroupId) -> bool {
        self.router.home(group) != self.settings.shard
    }

    fn forward_or_refuse(
        &mut self,
        from: ConnectionId,
        frame: &Frame<'_>,
        requests: &Requests<'_>,
    ) {
        let group = frame.header.group;
        if let Some(status) = self.forward(from, frame, requests.len() as u64) {
            self.refuse_all(from, group, requests, status, NodeId::ZERO);
        }
    }

    /// Gives a frame of a group that isn't here, with so many requests, to the shard where it is.
    /// Returns why not, if it can't be.
    pub(crate) fn forward(
        &mut self,
        from: ConnectionId,
        frame: &Frame<'_>,
        requests: u64,
    ) -> Option<Status> {
        let group = frame.header.group;
        if !self.is_elsewhere(group) {
            return Some(Status::NoSuchGroup);
        }
        let is_gone = self.links.forward(self.router.home(group), from, frame);
        if !is_gone {
            self.metrics.refused_busy += requests;
        }
        (!is_gone).then_some(Status::Busy)
    }

    /// Why the group takes no requests now, if so.
    pub(crate) fn refusal(&self, slot: usize) -> Option<(Status, NodeId)> {
        let group = &self.groups[slot];
        if group.is_out() {
            return Some((Status::Damaged, NodeId::ZERO));
        }
        if group.raft.role() != RoleKind::Leader {
            let leader = group.raft.leader().unwrap_or(NodeId::ZERO);
            return Some((Status::NotLeader, leader));
        }
        (!group.raft.is_ready()).then_some((Status::NotReady, NodeId::ZERO))
    }

    /// Why the group takes no reads that see all that was done, if so. A node that follows a leader
    /// asks it what they must see.
    pub(crate) fn read_refusal(&self, slot: usize) -> Option<(Status, NodeId)> {
        let group = &self.groups[slot];
        let may_ask = group.halt.is_none() && group.raft.role() == RoleKind::Follower;
        if may_ask && group.leader().is_some() {
            return None;
        }
        self.refusal(slot)
    }

    fn refuse_all(
        &mut self,
        from: ConnectionId,
        group: GroupId,
        requests: &Requests<'_>,
        status: Status,
        hint: NodeId,
    ) {
        let sender = self.settings.identity;
        if let Some(outbox) = self.links.client(from) {
            let calls = requests.iter().map(|request| request.call);
            write_refusals(outbox, group, sender, calls, status, hint);
        }
    }

    /// Encodes writes into the cache, in order; they are proposed together in this turn. From the
    /// first that is refused on, the rest of the frame is refused too: a session's writes apply
    /// in order, so they would be gaps.
    fn take_writes(
        &mut self,
        now: Ticks,
        slot: usize,
        from: ConnectionId,
        requests: &Requests<'_>,
    ) {
        let group = self.groups[slot].id;
        let stopping = self.is_stopping.then_some((Status::Stopping, NodeId::ZERO));
        let group_state = &self.groups[slot];
        let transferring = group_state.raft.transfers_to().map(|to| (Status::Transferring, to));
        if let Some((status, hint)) = self.refusal(slot).or(stopping).or(transferring) {
            match status {
                Status::NotLeader => self.metrics.refused_not_leader += requests.len() as u64,
                _ => self.metrics.refused_other += requests.len() as u64,
            }
            self.refuse_all(from, group, requests, status, hint);
            return;
        }
        let log_bytes = self.log.pending_bytes() + self.unproposed_bytes;
        let is_log_full = log_bytes >= self.settings.limits.log_bytes_max;
        let is_disk_full = self.log.space_exhausted();
        let refuses_growth = self.refuses_growth(now, slot);
        let Self { groups, cache, settings, metrics, touched, unproposed_bytes, .. } = self;
        let (answers, bodies) = (&mut self.answers, &mut self.scratch.reply);
        answers.clear();
        bodies.clear();
        let limits = settings.limits;
        let state = &mut groups[slot];
        let before = Pending::of(state);
        let all = Pending { count: limits.shard_writes_max, bytes: limits.shard_bytes_max };
        let one = Pending { count: limits.group_writes_max, bytes: limits.group_bytes_max };
        let most = self.pending.most(before, all, one);
        let term = state.raft.term();
        let mut blocked = match (is_disk_full, is_log_full) {
            (true, _) => Some(Status::NoSpace),
            (_, true) => Some(Status::Busy),
            _ => None,
        };
        for request in requests.iter() {
            let verdict = if let Some(status) = blocked {
                Verdict::Refuse(status)
            } else if state.waiting.len() >= most.count || state.waiting_bytes >= most.bytes {
                blocked = Some(Status::Busy);
                Verdict::Refuse(Status::Busy)
            } else {
                judge_write(state, request.payload, refuses_growth)
            };
            match verdict {
                Verdict::Apply => {
                    let index = state.next_proposal();
                    let bytes = record::encoded_bytes(request.payload.len());
                    cache.push_with(slot, index, bytes, |out| {
                        let payload = [request.payload, &b""[..]];
                        record::encode(out, RecordKind::Command, group, index, term, payload);
                    });
                    if state.proposals.is_empty() {
                        state.proposals_arrived = now;
                    }
                    state.proposals.push(bytes as u32);
                    state.waiting_bytes += bytes;
                    *unproposed_bytes += bytes;
                    state.waiting.push_back(Waiting {
                        index,
                        connection: from,
                        call: request.call,
                        bytes: bytes as u32,
                    });
                }
                Verdict::Reply(stored) => {
                    let start = bodies.len() as u32;
                    bodies.extend_from_slice(&stored.body);
                    answers.push(Answer {
                        connection: from,
                        call: request.call,
                        status: stored.status,
                        revision: stored.revision,
                        index: stored.index,
                        body: (start, bodies.len() as u32),
                    });
                }
                Verdict::Refuse(status) => {
                    match status {
                        // It was applied before, so the session's next ones are no gaps.
                        Status::AlreadyAnswered => {}
                        // Without this one they are: not worth a place in the log.
                        _ => blocked = blocked.or(Some(Status::Gap)),
                    }
                    match status {
                        Status::Busy => metrics.refused_busy += 1,
                        Status::MemoryFull => metrics.refused_memory += 1,
                        _ => metrics.refused_other += 1,
                    }
                    answers.push(Answer::bare(from, request.call, status));
                }
            }
        }
        if !state.proposals.is_empty() && !state.touched {
            state.touched = true;
            touched.push(slot);
        }
        self.pending.change(before, Pending::of(state));
        self.answer(slot);
    }

    fn take_reads(
        &mut self,
        now: Ticks,
        slot: usize,
        from: ConnectionId,
        body: &[u8],
        requests: &Requests<'_>,
    ) -> Result<(), ShardError> {
        let group = self.groups[slot].id;
        let consistency = requests.consistency();
        let refusal = match consistency {
            Consistency::Local(local) => self.local_refusal(now, slot, local),
            _ => self.read_refusal(slot),
        };
        if let Some((status, hint)) = refusal {
            self.refuse_all(from, group, requests, status, hint);
            return Ok(());
        }
        if self.are_reads_full(slot) {
            self.metrics.refused_busy += requests.len() as u64;
            self.refuse_all(from, group, requests, Status::Busy, NodeId::ZERO);
            return Ok(());
        }
        // A leader applies what it commits; another node may be cut off from that.
        let state = &self.groups[slot];
        let waits_until = match state.raft.role() {
            RoleKind::Leader => Ticks::NEVER,
            _ => now.after(READ_WAIT_MAX),
        };
        let (index, until) = match consistency {
            Consistency::Linearizable => (None, waits_until),
            // `now` was read after the frame came in: see decision 0020.
            Consistency::Lease => (state.raft.lease_index(now), waits_until),
            Consistency::Local(Local { at_least, wait_ms, .. }) => {
                (Some(at_least), now.after(Ticks::from_millis(u64::from(wait_ms))))
            }
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut copy = self.read_buffers.pop().unwrap_or_default();
        copy.extend_from_slice(body);
        let is_local = !consistency.is_of_leader();
        let batch = ReadBatch { ticket, connection: from, index, until, is_local, body: copy };
        let group = &mut self.groups[slot];
        group.reading.add(batch.body.len());
        self.reading.add(batch.body.len());
        if index.is_some() {
            if consistency == Consistency::Lease {
                self.metrics.reads_by_lease += requests.len() as u64;
                self.stir(now, slot);
            }
            let group = &mut self.groups[slot];
            self.reads_until = self.reads_until.min(until);
            group.reads_placed.push_back(batch);
            self.list_for_apply(slot);
            return Ok(());
        }
        group.reads.push_back(batch);
        self.touch(slot);
        self.step(now, slot, Input::Read { ticket }, Carried::Cache)
    }

    /// Whether as many reads of a group wait as may: its own limit, and its part of the shard's. Barriers that wait for a round are among them, and
    /// the shard's own read.
    pub(crate) fn are_reads_full(&self, slot: usize) -> bool {
        let (limits, group) = (&self.settings.limits, &self.groups[slot]);
        let all = Pending { count: limits.shard_reads_max, bytes: limits.shard_reads_bytes_max };
        let one = Pending { count: limits.group_reads_max, bytes: limits.group_reads_bytes_max };
        let most = self.reading.most(group.reading, all, one);
        let asked = group.reading.count + self.barriers.asking(slot);
        let waiting = asked + usize::from(group.id == GroupId::SYSTEM && self.placing.is_asking());
        waiting >= most.count || group.reading.bytes >= most.bytes
    }

    /// Why a local read isn't served here, if so. A member that follows nobody may be asked as well,
    /// if the reader doesn't mind the age.
    fn local_refusal(&self, now: Ticks, slot: usize, local: Local) -> Option<(Status, NodeId)> {
        let group = &self.groups[slot];
        if group.halt.is_some() {
            return Some((Status::Damaged, NodeId::ZERO));
        }
        let age_max = Ticks::from_millis(u64::from(local.age_ms_max));
        let is_fresh = local.age_ms_max == u32::MAX
            || self.contact_age(now, slot).is_some_and(|age| age <= age_max);
        let hint = group.leader().unwrap_or(NodeId::ZERO);
        (!is_fresh).then_some((Status::TooStale, hint))
    }

    /// Hands writes over before their turn when they fill too much of the cache: an entry that is
    /// evicted before it is proposed would be lost.
    fn propose_if_many(&mut self, now: Ticks) -> Result<(), ShardError> {
        let most = self.settings.limits.cache_bytes_max / UNPROPOSED_PART_OF_CACHE;
        if self.unproposed_bytes <= most {
            return Ok(());
        }
        for at in 0..self.touched.len() {
            let slot = self.touched[at];
            self.propose(now, slot)?;
        }
        Ok(())
    }

    pub(crate) fn touch(&mut self, slot: usize) {
        if !self.groups[slot].touched {
            self.groups[slot].touched = true;
            self.touched.push(slot);
        }
    }

    /// Step 3 of the turn: one proposal and one read round for each group that has some.
    pub(crate) fn propose_touched(&mut self, now: Ticks) -> Result<(), ShardError> {
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            self.groups[slot].touched = false;
            if self.groups[slot].is_muted {
                continue;
            }
            self.propose(now, slot)?;
            let mut output = std::mem::take(&mut self.scratch.output);
            output.clear();
            self.groups[slot].raft.flush_reads(now, &mut output);
            let result = self.carry_out(now, slot, &output, Carried::Cache);
            self.scratch.output = output;
            result?;
        }
        self.touched = touched;
        Ok(())
    }

    /// Hands over the writes of a group that were encoded and wait, if there are any.
    pub(crate) fn propose(&mut self, now: Ticks, slot: usize) -> Result<(), ShardError> {
        if self.groups[slot].proposals.is_empty() {
            return Ok(());
        }
        let mut proposals = std::mem::take(&mut self.groups[slot].proposals);
        let count = proposals.len() as u64;
        self.unproposed_bytes -= proposals.iter().map(|&bytes| bytes as usize).sum::<usize>();
        let arrived = self.groups[slot].proposals_arrived;
        self.metrics.writes_proposed += count;
        self.metrics.stage(Stage::Queue, now.since(arrived), count);
        self.step(now, slot, Input::Propose { bytes: &proposals }, Carried::Cache)?;
        proposals.clear();
        let sequence = self.gates.newest().expect("the proposal's batch was just handed over");
        let group = &mut self.groups[slot];
        group.proposals = proposals;
        group.batches.push_back(crate::group::Batch {
            last: group.raft.last(),
            count,
            arrived,
            proposed: now,
            sequence,
            submitted: None,
            durable: None,
            committed: None,
        });
        if !self.unsubmitted.contains(&slot) {
            self.unsubmitted.push(slot);
        }
        Ok(())
    }

    fn answer_locate(&mut self, slot: usize, from: ConnectionId) {
        let group = &self.groups[slot];
        let shard = self.router.home(group.id);
        let reply = LocateReply {
            status: if group.is_out() { Status::Damaged } else { Status::Ok },
            leader: group.leader().unwrap_or(NodeId::ZERO),
            ready: group.raft.is_ready() && !self.is_stopping,
            term: group.raft.term(),
            applied: group.applied,
            members: group
                .book
                .newest()
                .each()
                .iter()
                .map(|member| client_wire::Member {
                    node: member.node,
                    shard,
                    address: self.client_address(member),
                })
                .collect(),
        };
        let sender = self.settings.identity;
        let id = group.id;
        if let Some(outbox) = self.links.client(from) {
            reply.write(outbox, id, sender);
        }
    }

    /// How this shard is.
    pub fn status(&self, now: Ticks) -> NodeStatus {
        let stats = self.log.stats();
        let groups = self.slots.values().map(|&slot| (slot, &self.groups[slot]));
        let groups = groups.map(|(slot, group)| {
            let lag = match group.raft.role() {
                RoleKind::Leader => {
                    let slowest = group.raft.peers_progress().map(|(_, matched, _)| matched).min();
                    slowest.map_or(0, |matched| group.raft.last().0.saturating_sub(matched.0))
                }
                _ => group.committed.0.saturating_sub(group.applied.0),
            };
            GroupStatus {
                group: group.id,
                role: role_of(group, self.settings.identity.node),
                term: group.raft.term(),
                leader: group.raft.leader().unwrap_or(NodeId::ZERO),
                commit: group.committed,
                applied: group.applied,
                last: group.raft.last(),
                revision: group.machine.revision(),
                state_hash: group.state_hash(),
                lag_entries: lag,
                damaged: group.halt.is_some(),
                data_bytes: group.data_bytes,
                snapshot: group.snapshot_index(),
                activity: self.snapshot_activity(slot),
            }
        });
        let memory = self.memory();
        NodeStatus {
            node: self.settings.identity.node,
            shard: self.settings.shard,
            name: self.settings.name.clone(),
            uptime: now.since(self.started.unwrap_or(now)),
            sync_p50_us: stats.latency.value_at_quantile(0.5) as u32,
            sync_p99_us: stats.latency.value_at_quantile(0.99) as u32,
            durable: self.log.settings().durability != Durability::None,
            is_paused: self.is_paused(),
            priority: self.lead_rules().priority,
            spreads: self.lead_rules().spreads,
            data_bytes: memory.bytes,
            data_bytes_max: memory.bytes_max,
            memory: memory.level,
            groups: groups.collect(),
        }
    }
}

/// What a group does here, for people: who doesn't vote is no follower to them.
fn role_of(group: &Group, own: NodeId) -> GroupRole {
    let configuration = group.raft.configuration();
    match group.raft.role() {
        RoleKind::Follower if !configuration.is_member(own) => GroupRole::Outsider,
        RoleKind::Follower if !configuration.is_voter(own) => GroupRole::Learner,
        RoleKind::Follower => GroupRole::Follower,
        RoleKind::PreCandidate => GroupRole::PreCandidate,
        RoleKind::Candidate => GroupRole::Candidate,
        RoleKind::Leader => GroupRole::Leader,
    }
}

/// Writes the same refusal to every one of these calls. Returns how many there are.
pub(crate) fn write_refusals(
    outbox: &mut Outbox,
    group: GroupId,
    sender: Identity,
    calls: impl Iterator<Item = u64>,
    status: Status,
    hint: NodeId,
) -> u64 {
    let mut batch = BatchWriter::begin(outbox, Kind::Replies, group, sender);
    for call in calls {
        batch.reply(&Reply::refusal(call, status, hint));
    }
    let count = batch.len() as u64;
    batch.finish();
    count
}

/// Whether a write goes into the log: what is in the log must apply everywhere. A retry of what
/// was applied is answered from its session: what is applied is committed, so the answer holds,
/// whatever has become of this leader meanwhile.
fn judge_write<'a>(group: &'a Group, payload: &[u8], refuses_growth: bool) -> Verdict<'a> {
    let Ok((envelope, command)) = Envelope::decode(payload) else {
        return Verdict::Refuse(Status::Invalid);
    };
    match group.sessions.lookup(&envelope) {
        Verdict::Apply => {}
        answered => return answered,
    }
    match group.machine.check(command) {
        Ok(CommandKind::Write) if refuses_growth && group.machine.grows(command) => {
            Verdict::Refuse(Status::MemoryFull)
        }
        Ok(CommandKind::Write) => Verdict::Apply,
        // A read in a write frame would take a place in the log for nothing.
        Ok(CommandKind::Read) => Verdict::Refuse(Status::Invalid),
        Err(status) => Verdict::Refuse(status),
    }
}
