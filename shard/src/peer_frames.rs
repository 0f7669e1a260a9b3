//! Frames between nodes: the wire's structs in, the protocol's messages out, and back.

use crate::error::{FrameRefusal, ShardError};
use crate::links::Links;
use crate::members::Own;
use crate::shard::Shard;
use ringraft_net::wire::{
    self, AppendHead, AppendReplyItem, Ballot, BallotKind, BeatItem, BeatReplyItem, Health,
    InstallItem, ReadAnswerItem, ReadAskItem, StandItem,
};
use ringraft_net::{Frame, Kind};
use ringraft_raft::output::Envelope;
use ringraft_raft::{
    Append, AppendOutcome, Breach, Configured, Entries, EntryHead, Input, Message, NUMBER_MAX, Span,
};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{Configuration, GroupId, Index, LogId, NodeId, Ticks};
use ringraft_wal::device::Device;

/// Where the bytes of entries are while a step's output is carried out.
#[derive(Clone, Copy)]
pub(crate) enum Carried<'a> {
    /// In the shard's cache.
    Cache,
    /// Here: verified records of consecutive entries, `first` first; `offsets` says where each
    /// begins, and where the last ends.
    Records { first: Index, offsets: &'a [u32], bytes: &'a [u8] },
}

impl<'a> Carried<'a> {
    /// The records of a span, if all of it is here.
    pub(crate) fn slice(&self, span: Span) -> Option<&'a [u8]> {
        let Carried::Records { first, offsets, bytes } = *self else { return None };
        let from = usize::try_from(span.first.0.checked_sub(first.0)?).ok()?;
        let to = usize::try_from(span.last.0.checked_sub(first.0)? + 1).ok()?;
        Some(&bytes[*offsets.get(from)? as usize..*offsets.get(to)? as usize])
    }
}

/// Verifies `records` as consecutive entries of one group, and notes their heads and offsets.
/// Returns why not, if they aren't.
pub(crate) fn scan(
    group: GroupId,
    first: Index,
    records: &[u8],
    own: Own,
    heads: &mut Vec<EntryHead>,
    configurations: &mut Vec<Configured>,
    offsets: &mut Vec<u32>,
) -> Result<(), String> {
    heads.clear();
    configurations.clear();
    offsets.clear();
    let mut at = 0;
    let mut index = first;
    offsets.push(0);
    while at < records.len() {
        let record = record::decode(&records[at..]).map_err(|error| error.to_string())?;
        let header = record.header;
        if header.group != group || header.index != index || !header.kind.is_entry() {
            return Err(format!(
                "{:?} {} of group {} where entry {index} is expected",
                header.kind, header.index, header.group
            ));
        }
        if header.kind == RecordKind::Configuration {
            let decoded = Configuration::decode(record.payload);
            let (configuration, members) = decoded.map_err(|error| error.to_string())?;
            let said = members.iter().find(|member| member.node == own.node);
            let is_of_another = own.is_another(said.map(|member| member.words.incarnation));
            configurations.push(Configured { index, configuration, is_of_another });
        }
        let bytes = record.bytes.len();
        heads.push(EntryHead { term: header.term, bytes: bytes as u32 });
        at += bytes;
        offsets.push(at as u32);
        index = index.next();
    }
    Ok(())
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Takes a frame of a peer. Frames are not believed before it is durable here
    /// who the peer is.
    pub(crate) fn peer_frame(
        &mut self,
        now: Ticks,
        from: NodeId,
        frame: &Frame<'_>,
    ) -> Result<Result<(), FrameRefusal>, ShardError> {
        let kind = frame.header.kind;
        self.metrics.peer_frames += 1;
        self.metrics.peer_bytes += frame.header.frame_bytes() as u64;
        if !self.is_sent_by(from, frame) {
            return Ok(Err(FrameRefusal::WrongSender));
        }
        let peer = &self.peers[&from];
        if peer.greeted != peer.met && !peer.is_vouched {
            self.meet(from)?;
        }
        // Who takes over needs votes, maybe this node's.
        let is_kept = self.is_handing_over() && kind == Kind::Ballot;
        let peer = self.peers.get_mut(&from).expect("it was just found");
        let is_new = matches!(kind, Kind::Append | Kind::Ballot | Kind::Install | Kind::TimeoutNow);
        if !peer.is_up() || self.is_stopping && is_new && !is_kept {
            return Ok(Ok(()));
        }
        (peer.heard_at, peer.is_silent) = (now, false);
        let is_leaders = matches!(kind, Kind::Append | Kind::Beats | Kind::Install);
        if peer.is_vouched && !is_leaders {
            return Ok(Ok(()));
        }
        let malformed = |error| FrameRefusal::malformed(kind, error);
        match kind {
            Kind::Beats => {
                let view = match wire::beats(frame) {
                    Ok(view) => view,
                    Err(error) => return Ok(Err(malformed(error))),
                };
                for item in view.items() {
                    let message = Message::Heartbeat {
                        term: item.term,
                        commit: item.commit,
                        round: item.round,
                        hibernate: item.hibernate,
                    };
                    if let Err(refusal) = self.message(now, from, item.group, message)? {
                        return Ok(Err(refusal));
                    }
                }
                self.hear_of_health(now, from, view.health())?;
            }
            Kind::BeatReplies => {
                let view = match wire::beat_replies(frame) {
                    Ok(view) => view,
                    Err(error) => return Ok(Err(malformed(error))),
                };
                for item in view.items() {
                    let message = Message::HeartbeatReply {
                        term: item.term,
                        round: item.round,
                        commit: item.commit,
                        hibernates: item.hibernates,
                    };
                    if let Err(refusal) = self.message(now, from, item.group, message)? {
                        return Ok(Err(refusal));
                    }
                }
                self.hear_of_health(now, from, view.health())?;
            }
            Kind::AppendReplies => {
                let view = match wire::append_replies(frame) {
                    Ok(view) => view,
                    Err(error) => return Ok(Err(malformed(error))),
                };
                for item in view.items() {
                    let outcome = if item.accepted {
                        AppendOutcome::Accepted { matched: item.matched_or_prev }
                    } else {
                        AppendOutcome::Rejected {
                            prev: item.matched_or_prev,
                            hint: LogId::new(item.hint_term, item.hint_index),
                        }
                    };
                    let message = Message::AppendReply {
                        term: item.term,
                        append_term: item.append_term,
                        outcome,
                        commit: item.commit,
                    };
                    if let Err(refusal) = self.message(now, from, item.group, message)? {
                        return Ok(Err(refusal));
                    }
                }
                self.hear_of_health(now, from, view.health())?;
            }
            Kind::ReadAsks => {
                let view = match wire::read_asks(frame) {
                    Ok(view) => view,
                    Err(error) => return Ok(Err(malformed(error))),
                };
                for item in view.items() {
                    let ReadAskItem { group, term, question } = item;
                    let message = Message::ReadAsk { term, question };
                    if let Err(refusal) = self.message(now, from, group, message)? {
                        return Ok(Err(refusal));
                    }
                    // Its round begins with those of this turn's own reads.
                    if let Some(&slot) = self.slots.get(&group) {
                        self.touch(slot);
                    }
                }
                self.hear_of_health(now, from, view.health())?;
            }
            Kind::ReadAnswers => {
                let view = match wire::read_answers(frame) {
                    Ok(view) => view,
                    Err(error) => return Ok(Err(malformed(error))),
                };
                for item in view.items() {
                    let ReadAnswerItem { group, term, question, index } = item;
                    let message = Message::ReadAnswer { term, question, index };
                    if let Err(refusal) = self.message(now, from, group, message)? {
                        return Ok(Err(refusal));
                    }
                }
                self.hear_of_health(now, from, view.health())?;
            }
            Kind::Ballot => {
                let ballot = match wire::ballot(frame) {
                    Ok(ballot) => ballot,
                    Err(error) => return Ok(Err(malformed(error))),
                };
                let Ballot { term, last, granted, .. } = ballot;
                let message = match ballot.kind {
                    BallotKind::PreVote => Message::PreVote { term, last },
                    BallotKind::PreVoteReply => Message::PreVoteReply { term, granted },
                    BallotKind::Vote => Message::Vote { term, last, is_transfer: false },
                    BallotKind::TransferVote => Message::Vote { term, last, is_transfer: true },
                    BallotKind::VoteReply => Message::VoteReply { term, granted },
                };
                return self.message(now, from, frame.header.group, message);
            }
            Kind::Install => {
                let (item, address) = match wire::install(frame) {
                    Ok(opened) => opened,
                    Err(error) => return Ok(Err(malformed(error))),
                };
                let InstallItem { term, base_term, base_index, commit, .. } = item;
                let base = LogId::new(base_term, base_index);
                let message = Message::Install { term, base, commit };
                let judged = self.message(now, from, frame.header.group, message)?;
                if judged.is_ok() {
                    self.hear_of_address(now, from, frame.header.group, address);
                }
                return Ok(judged);
            }
            Kind::TimeoutNow => {
                let StandItem { term } = match wire::timeout_now(frame) {
                    Ok(item) => item,
                    Err(error) => return Ok(Err(malformed(error))),
                };
                return self.message(now, from, frame.header.group, Message::TimeoutNow { term });
            }
            Kind::LeadWord => match wire::lead_word(frame) {
                Ok(word) => self.hear_lead_word(now, from, word),
                Err(error) => return Ok(Err(malformed(error))),
            },
            Kind::StateWord => match wire::state_word(frame) {
                Ok(word) => self.hear_state_word(now, from, frame.header.group, word)?,
                Err(error) => return Ok(Err(malformed(error))),
            },
            Kind::Append => return self.append_frame(now, from, frame),
            Kind::RepairAsk => return Ok(self.repair_ask(from, frame)),
            Kind::RepairAnswer => return self.repair_answer(now, from, frame),
            Kind::SaveAt => return Ok(self.save_at(from, frame)),
            Kind::LifeAsk => return Ok(self.life_ask(from, frame)),
            Kind::LifeAnswer => return Ok(self.life_answer(frame)),
            kind => return Ok(Err(FrameRefusal::WrongPort { kind })),
        }
        Ok(Ok(()))
    }

    /// Whether a frame says that it is of the node whose connection it came over, in the life that
    /// greeted.
    pub(crate) fn is_sent_by(&self, from: NodeId, frame: &Frame<'_>) -> bool {
        let Some(peer) = self.peers.get(&from) else { return false };
        let sender = frame.header.sender;
        sender.node == from
            && sender.cluster == self.settings.identity.cluster
            && peer.greeted.is_some_and(|peer| peer.incarnation == sender.incarnation)
    }

    /// Steps a message without entries. A group that isn't here is not answered: its node may be
    /// about to learn of it.
    fn message(
        &mut self,
        now: Ticks,
        from: NodeId,
        group: GroupId,
        message: Message,
    ) -> Result<Result<(), FrameRefusal>, ShardError> {
        let Some(&slot) = self.slots.get(&group) else {
            if matches!(message, Message::Heartbeat { .. }) {
                self.wanted_by_leader(group);
            }
            return Ok(Ok(()));
        };
        if !self.heeds(now, slot, from, &message) {
            return Ok(Ok(()));
        }
        if let Err(breach) = self.groups[slot].raft.judge(from, &message, Entries::default()) {
            return Ok(Err(FrameRefusal::Breach { group, breach }));
        }
        let input = Input::Message { from, message, entries: Entries::default() };
        self.step(now, slot, input, Carried::Cache).map(Ok)
    }

    fn append_frame(
        &mut self,
        now: Ticks,
        from: NodeId,
        frame: &Frame<'_>,
    ) -> Result<Result<(), FrameRefusal>, ShardError> {
        let group = frame.header.group;
        let (head, records) = match wire::append(frame) {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(FrameRefusal::malformed(Kind::Append, error))),
        };
        let Some(&slot) = self.slots.get(&group) else { return Ok(Ok(())) };
        if head.prev_index.0 > NUMBER_MAX {
            let breach = Breach::OutOfReach(head.prev_index.0);
            return Ok(Err(FrameRefusal::Breach { group, breach }));
        }
        let message = Message::Append(Append {
            term: head.term,
            prev: LogId::new(head.prev_term, head.prev_index),
            commit: head.commit,
            count: head.count,
        });
        if !self.heeds(now, slot, from, &message) {
            return Ok(Ok(()));
        }
        let mut heads = std::mem::take(&mut self.scratch.heads);
        let mut offsets = std::mem::take(&mut self.scratch.offsets);
        let first = head.prev_index.next();
        let mut configurations = std::mem::take(&mut self.scratch.configurations);
        let mut scanned =
            scan(group, first, records, self.own(), &mut heads, &mut configurations, &mut offsets);
        if scanned.is_ok() && heads.len() != head.count as usize {
            scanned = Err(format!("{} records where {} are promised", heads.len(), head.count));
        }
        let entries = Entries { heads: &heads, configurations: &configurations };
        let judged = self.groups[slot].raft.judge(from, &message, entries);
        let result = match (scanned, judged) {
            (Err(what), _) => Ok(Err(FrameRefusal::Record { group, what })),
            (Ok(()), Err(breach)) => Ok(Err(FrameRefusal::Breach { group, breach })),
            (Ok(()), Ok(())) => {
                let input = Input::Message { from, message, entries };
                let carried = Carried::Records { first, offsets: &offsets, bytes: records };
                self.step(now, slot, input, carried).map(Ok)
            }
        };
        self.scratch.heads = heads;
        self.scratch.configurations = configurations;
        self.scratch.offsets = offsets;
        result
    }

    /// Entries that a lagging follower needs were read back from the log.
    pub(crate) fn fetched(
        &mut self,
        now: Ticks,
        slot: usize,
        peer: NodeId,
        first: Index,
        records: &[u8],
    ) -> Result<(), ShardError> {
        let mut heads = std::mem::take(&mut self.scratch.heads);
        let mut offsets = std::mem::take(&mut self.scratch.offsets);
        let group = self.groups[slot].id;
        let mut configurations = std::mem::take(&mut self.scratch.configurations);
        if scan(group, first, records, self.own(), &mut heads, &mut configurations, &mut offsets)
            .is_err()
        {
            heads.clear();
            offsets.clear();
        }
        let input = Input::Fetched { peer, first, heads: &heads };
        let carried = Carried::Records { first, offsets: &offsets, bytes: records };
        let result = self.step(now, slot, input, carried);
        self.scratch.heads = heads;
        self.scratch.configurations = configurations;
        self.scratch.offsets = offsets;
        result
    }

    /// Sends one message, or stages it for the end of the turn.
    pub(crate) fn send(&mut self, slot: usize, envelope: &Envelope, carried: Carried<'_>) {
        let group = self.groups[slot].id;
        let Some(peer) = self.peers.get_mut(&envelope.to) else { return };
        if !peer.is_up() {
            return;
        }
        self.peers_due.staged |= !matches!(envelope.message, Message::Append(_));
        match envelope.message {
            Message::Heartbeat { term, commit, round, hibernate } => {
                peer.staged.beat(BeatItem { group, term, commit, round, hibernate });
            }
            Message::HeartbeatReply { term, round, commit, hibernates } => {
                let item = BeatReplyItem { group, term, round, commit, hibernates };
                peer.staged.beat_reply(item);
            }
            Message::ReadAsk { term, question } => {
                peer.staged.read_ask(ReadAskItem { group, term, question });
            }
            Message::ReadAnswer { term, question, index } => {
                peer.staged.read_answer(ReadAnswerItem { group, term, question, index });
            }
            Message::AppendReply { term, append_term, outcome, commit } => {
                let item = match outcome {
                    AppendOutcome::Accepted { matched } => AppendReplyItem {
                        accepted: true,
                        matched_or_prev: matched,
                        ..AppendReplyItem::default()
                    },
                    AppendOutcome::Rejected { prev, hint } => AppendReplyItem {
                        accepted: false,
                        matched_or_prev: prev,
                        hint_term: hint.term,
                        hint_index: hint.index,
                        ..AppendReplyItem::default()
                    },
                };
                peer.staged.append_reply(AppendReplyItem {
                    group,
                    term,
                    append_term,
                    commit,
                    ..item
                });
            }
            Message::PreVote { term, last } => {
                self.ballot(envelope.to, group, BallotKind::PreVote, term, last, false);
            }
            Message::PreVoteReply { term, granted } => {
                let kind = BallotKind::PreVoteReply;
                self.ballot(envelope.to, group, kind, term, LogId::ZERO, granted);
            }
            Message::Vote { term, last, is_transfer } => {
                let kind = if is_transfer { BallotKind::TransferVote } else { BallotKind::Vote };
                self.ballot(envelope.to, group, kind, term, last, false);
            }
            Message::TimeoutNow { term } => {
                let sender = self.settings.identity;
                let outbox = self.links.peer(envelope.to);
                if let Some(outbox) = outbox.filter(|outbox| !outbox.is_urgent_full()) {
                    StandItem { term }.write(outbox, group, sender);
                }
            }
            Message::VoteReply { term, granted } => {
                let kind = BallotKind::VoteReply;
                self.ballot(envelope.to, group, kind, term, LogId::ZERO, granted);
            }
            Message::Install { term, base, commit } => {
                let LogId { term: base_term, index: base_index } = base;
                let item = InstallItem { term, base_term, base_index, commit, address_bytes: 0 };
                self.install(slot, envelope.to, item);
            }
            Message::Append(append) => self.send_append(slot, envelope.to, append, carried),
        }
    }

    fn ballot(
        &mut self,
        to: NodeId,
        group: GroupId,
        kind: BallotKind,
        term: ringraft_types::Term,
        last: LogId,
        granted: bool,
    ) {
        let sender = self.settings.identity;
        if let Some(outbox) = self.links.peer(to).filter(|outbox| !outbox.is_urgent_full()) {
            Ballot { kind, term, last, granted }.write(outbox, group, sender);
        }
    }

    /// Tells a follower to install. What doesn't fit is as good as lost: it is said again.
    fn install(&mut self, slot: usize, to: NodeId, item: InstallItem) {
        let sender = self.settings.identity;
        let group = self.groups[slot].id;
        let address = self.address_of(slot, sender.node).unwrap_or_default();
        if let Some(outbox) = self.links.peer(to).filter(|outbox| !outbox.is_urgent_full()) {
            item.write(outbox, group, sender, address.as_bytes());
        }
    }

    /// Writes an append with its entries. One that finds the outbox full, or whose entries left
    /// the cache between the step and now, is as good as lost: the group probes again.
    fn send_append(&mut self, slot: usize, to: NodeId, append: Append, carried: Carried<'_>) {
        let Self { groups, cache, links, peers, peers_due, settings, metrics, .. } = self;
        let group = groups[slot].id;
        let head = AppendHead {
            term: append.term,
            prev_term: append.prev.term,
            prev_index: append.prev.index,
            commit: append.commit,
            count: append.count,
            pad: 0,
        };
        let Some(outbox) = links.peer(to) else { return };
        let mut sent = !outbox.is_full();
        if sent && append.count == 0 {
            head.write(outbox, group, settings.identity, []);
        } else if sent {
            let first = append.prev.index.next();
            let last = Index(append.prev.index.0 + u64::from(append.count));
            if let Some(records) = carried.slice(Span { first, last }) {
                head.write(outbox, group, settings.identity, [records]);
            } else {
                let mut writer = head.begin(outbox, group, settings.identity);
                sent = cache.runs(slot, first, last, |_, _, bytes| writer.extend(bytes));
                if sent {
                    writer.finish();
                }
            }
        }
        if !sent {
            metrics.appends_postponed += 1;
            peers.get_mut(&to).expect("the caller found it").postponed.push(slot);
            peers_due.postponed = true;
        }
    }

    /// Writes what the links' frames wait for.
    pub(crate) fn flush_staged(&mut self) {
        if !std::mem::take(&mut self.peers_due.staged) {
            return;
        }
        let is_memory_full = self.is_memory_full();
        let Self { peers, links, settings, watch, is_rolled_back, .. } = self;
        let health = Health { disk_wait: watch.wait(), is_memory_full };
        for (&node, peer) in peers {
            if peer.staged.is_empty() {
                continue;
            }
            // A peer that knows no better would meet an older copy with its first frame.
            match links.peer(node).filter(|_| !*is_rolled_back) {
                Some(outbox) => peer.staged.flush(outbox, settings.identity, health),
                None => peer.staged.clear(),
            }
        }
    }
}
