//! Committed entries into the machine, in order, and the answers that were waiting for them.
//!
//! A reply to a write leaves only after its entry is applied here (I-06). Every entry goes through
//! the session table, on every replica alike, so that a retry is applied once (V8).

use crate::client_frames::write_refusals;
use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::group::{Group, Halt, ReadBatch, Waiting};
use crate::limits::{
    APPLY_ENTRIES_PER_TURN, APPLY_FETCH_BYTES_MAX, APPLY_FETCH_BYTES_MIN, FETCH_BYTES_MAX,
    READS_PER_TURN, REPLY_BYTES_PER_TURN,
};
use crate::links::{ConnectionId, Links};
use crate::machine::{Applied, CommandKind, StateMachine};
use crate::metrics::Metrics;
use crate::session::{Sessions, StoredReply, Verdict};
use crate::shard::{FetchFor, Shard};
use crate::share::Pending;
use ringraft_net::client_wire::{self, BatchWriter, Reply, Request};
use ringraft_net::{Frame, FrameHeader, Identity, Kind};
use ringraft_types::command::Envelope;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{GroupId, Index, NodeId, Revision, Status, Ticks};
use ringraft_wal::device::Device;

/// One answer on its way into its client's outbox; the body lies in a shared buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) connection: ConnectionId,
    pub(crate) call: u64,
    pub(crate) status: Status,
    pub(crate) revision: Revision,
    pub(crate) index: Index,
    pub(crate) body: (u32, u32),
}

impl Answer {
    /// A status and nothing else.
    pub(crate) fn bare(connection: ConnectionId, call: u64, status: Status) -> Self {
        let (revision, index) = (Revision::ZERO, Index::ZERO);
        Self { connection, call, status, revision, index, body: (0, 0) }
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    pub(crate) fn list_for_apply(&mut self, slot: usize) {
        let group = &mut self.groups[slot];
        if !group.apply_listed {
            group.apply_listed = true;
            self.to_apply.push(slot);
        }
    }

    /// Applies what is committed, within the turn's budget, and serves the reads that waited for
    /// it. Groups of which something is left stay listed.
    pub(crate) fn apply_all(&mut self, now: Ticks) -> Result<(), ShardError> {
        let mut slots = std::mem::take(&mut self.to_apply);
        for slot in slots.drain(..) {
            self.groups[slot].apply_listed = false;
            let entries_left = self.apply_group(now, slot);
            let reads_left = self.serve_reads(slot);
            if self.groups[slot].members_applied {
                self.members_applied(now, slot)?;
            }
            self.save_if_due(now, slot);
            let tidies = self.groups[slot].machine.tidy();
            self.account(slot);
            if entries_left || reads_left || tidies {
                self.list_for_apply(slot);
            }
        }
        // What was listed meanwhile is for the next turn; keep the larger buffer.
        slots.append(&mut self.to_apply);
        self.to_apply = slots;
        Ok(())
    }

    /// Applies one group's entries. Returns whether its budget ran out before its entries did.
    fn apply_group(&mut self, now: Ticks, slot: usize) -> bool {
        let Self { groups, cache, metrics, answers, scratch, leaving, log, .. } = self;
        let is_sweeping = self.is_sweeping;
        let group = &mut groups[slot];
        let start = group.applied;
        let waiting = Pending::of(group);
        let mut budget = APPLY_ENTRIES_PER_TURN;
        let bodies = &mut scratch.reply;
        bodies.clear();
        answers.clear();
        let mut is_elsewhere = false;
        #[cfg(ringraft_plant)]
        if planted(Plant::ClockInApply) && now.0 % 1_000_000 < 20_000 {
            group.sessions = Sessions::new();
        }
        // A snapshot begins between two entries, also between two that are committed.
        let save_at = group.save_at.map_or(Index(u64::MAX), |(at, _)| at.max(group.applied));
        while group.applied < group.committed.min(save_at)
            && group.halt.is_none()
            && budget > 0
            && bodies.len() < REPLY_BYTES_PER_TURN
        {
            let index = group.applied.next();
            if let Some((from, to)) = group.stocked(index) {
                let (records, _) = group.apply_stock.take().expect("it was just found");
                apply_logged(group, index, &records[from..to], answers, bodies);
                group.apply_stock = Some((records, to));
            } else if let Some(record) = cache.get(slot, index) {
                apply_entry(group, index, record, answers, bodies);
            } else {
                is_elsewhere = true;
                break;
            }
            budget -= 1;
        }
        let group = &mut groups[slot];
        let is_spent = |(records, at): &mut (Vec<u8>, usize)| is_elsewhere || *at == records.len();
        if let Some((records, _)) = group.apply_stock.take_if(is_spent) {
            log.give_read(records);
        }
        assert!(group.applied <= group.committed, "only what is committed is applied (I-01)");
        metrics.entries_applied += group.applied.0 - start.0;
        group.note_applied(metrics, now, leaving);
        let left = Pending::of(group);
        self.pending.change(waiting, left);
        self.answer(slot);
        self.tell_halt(slot);
        if self.groups[slot].notes.is_newer_than(start) {
            self.list_to_compare(slot);
        }
        let group = &mut self.groups[slot];
        let is_left = group.applied < group.committed && group.halt.is_none() && !group.apply_fetch;
        // What a sweep leaves is fetched when it has ended.
        if is_elsewhere && !group.apply_fetch && !is_sweeping {
            group.apply_fetch = true;
            let (first, last) = (group.applied.next(), group.committed);
            let part = APPLY_FETCH_BYTES_MAX / self.groups.len() as u64;
            let bytes_max = part.clamp(APPLY_FETCH_BYTES_MIN, FETCH_BYTES_MAX);
            self.fetch(slot, FetchFor::Apply { slot, first }, first, last, bytes_max);
        }
        is_left && !is_elsewhere
    }

    /// A read of the log brought entries for apply.
    pub(crate) fn stock_for_apply(&mut self, slot: usize, records: Vec<u8>) {
        let group = &mut self.groups[slot];
        group.apply_fetch = false;
        group.apply_stock = Some((records, 0));
        self.list_for_apply(slot);
    }

    /// Writes the answers of one group into their clients' outboxes, one frame per client.
    pub(crate) fn answer(&mut self, slot: usize) {
        if self.answers.is_empty() {
            return;
        }
        let Self { answers, scratch, links, settings, groups, .. } = self;
        let id = groups[slot].id;
        let first = answers[0].connection;
        if answers.iter().any(|answer| answer.connection != first) {
            // Stable: the answers of one client keep their order.
            answers.sort_by_key(|answer| answer.connection);
        }
        for run in answers.chunk_by(|a, b| a.connection == b.connection) {
            let Some(outbox) = links.client(run[0].connection) else { continue };
            write_answers(outbox, id, settings.identity, run, &scratch.reply);
        }
        answers.clear();
    }

    /// A majority confirmed a read's round, or the leader that was asked.
    pub(crate) fn read_confirmed(&mut self, slot: usize, ticket: u64, index: Index) {
        if self.barrier_placed(slot, ticket, index) || self.placing.read_placed(ticket, index) {
            return;
        }
        let group = &mut self.groups[slot];
        if let Ok(at) = group.reads.binary_search_by_key(&ticket, |batch| batch.ticket) {
            group.reads[at].index = Some(index);
            // What this node is told to see may be long in coming.
            if index > group.applied && group.reads[at].until < Ticks::NEVER {
                let batch = group.reads.remove(at).expect("it was just found");
                self.reads_until = self.reads_until.min(batch.until);
                group.reads_placed.push_back(batch);
            }
        }
        self.list_for_apply(slot);
    }

    /// Leadership was lost under a read, or the leader that was asked.
    pub(crate) fn read_lost(&mut self, slot: usize, ticket: u64) {
        if self.barrier_lost(slot, ticket) || self.placing.read_lost(ticket) {
            return;
        }
        let group = &mut self.groups[slot];
        let found = group.reads.binary_search_by_key(&ticket, |batch| batch.ticket);
        let Some(batch) = found.ok().and_then(|at| group.reads.remove(at)) else { return };
        let hint = group.raft.leader().unwrap_or(NodeId::ZERO);
        self.read_ended(slot, &batch);
        self.refuse_reads(slot, &batch, Status::NotLeader, hint);
    }

    /// A read that waited is taken out.
    fn read_ended(&mut self, slot: usize, batch: &ReadBatch) {
        let ended = Pending { count: 1, bytes: batch.body.len() };
        self.groups[slot].reading.remove(ended);
        self.reading.remove(ended);
    }

    fn refuse_reads(&mut self, slot: usize, batch: &ReadBatch, status: Status, hint: NodeId) {
        let sender = self.settings.identity;
        let frame = read_frame(self.groups[slot].id, &batch.body);
        if let Some(outbox) = self.links.client(batch.connection) {
            let requests = client_wire::reads(&frame).expect("it was checked when it came");
            let calls = requests.iter().map(|request| request.call);
            write_refusals(outbox, frame.header.group, sender, calls, status, hint);
        }
    }

    /// A group that halts says so once, to people and to everybody who waits for it: what was
    /// proposed here may still be applied elsewhere, what was to be read is not.
    fn tell_halt(&mut self, slot: usize) {
        let group = &mut self.groups[slot];
        let Some(halt) = group.halt else { return };
        if std::mem::replace(&mut group.halt_told, true) {
            return;
        }
        let mut reads = std::mem::take(&mut group.reads);
        reads.append(&mut group.reads_placed);
        self.reading.remove(std::mem::take(&mut group.reading));
        self.events.push(ShardEvent::Halted { group: group.id, halt });
        let is_gone = halt == Halt::Removed;
        let status = if is_gone { Status::NoSuchGroup } else { Status::Damaged };
        for batch in reads {
            self.refuse_reads(slot, &batch, status, NodeId::ZERO);
        }
        self.writes_unknown(slot);
    }

    /// Serves the reads whose index is applied, in the order in which they came. Returns whether
    /// the turn's budget ran out before they did.
    fn serve_reads(&mut self, slot: usize) -> bool {
        let Self { groups, links, settings, metrics, scratch, read_buffers, reading, .. } = self;
        let group = &mut groups[slot];
        let mut served = 0;
        #[cfg(ringraft_plant)]
        if planted(Plant::ReadBeforeApply) {
            for batch in group.reads.iter_mut().filter(|batch| batch.index.is_some()) {
                batch.index = Some(Index::ZERO);
            }
        }
        let sender = settings.identity;
        let mut serve = |group: &mut Group, batch: ReadBatch| {
            let ended = Pending { count: 1, bytes: batch.body.len() };
            group.reading.remove(ended);
            reading.remove(ended);
            let served = serve_batch(group, links, sender, &batch, metrics, &mut scratch.reply);
            give_back(read_buffers, batch.body);
            served
        };
        let mut at = 0;
        while let Some(batch) = group.reads_placed.get(at) {
            if batch.index.is_none_or(|index| index > group.applied) {
                at += 1;
                continue;
            }
            if served >= READS_PER_TURN {
                return true;
            }
            let batch = group.reads_placed.remove(at).expect("it was just seen");
            served += serve(group, batch);
        }
        while let Some(batch) = group.reads.front()
            && batch.index.is_some_and(|index| index <= group.applied)
        {
            if served >= READS_PER_TURN {
                return true;
            }
            let batch = group.reads.pop_front().expect("its front was just seen");
            served += serve(group, batch);
        }
        false
    }

    /// Refuses the reads that have waited for their entry for as long as they would. Returns when
    /// to look again.
    pub(crate) fn expire_reads(&mut self, now: Ticks) -> Ticks {
        if now < self.reads_until {
            return self.reads_until;
        }
        self.reads_until = Ticks::NEVER;
        for slot in 0..self.groups.len() {
            let mut at = 0;
            while let Some(batch) = self.groups[slot].reads_placed.get(at) {
                let group = &self.groups[slot];
                // What is applied is served when there is room for it in a turn.
                let is_applied = batch.index.is_some_and(|index| index <= group.applied);
                if batch.until > now || is_applied {
                    let look_at = if is_applied { Ticks::NEVER } else { batch.until };
                    self.reads_until = self.reads_until.min(look_at);
                    at += 1;
                    continue;
                }
                let group = &mut self.groups[slot];
                let batch = group.reads_placed.remove(at).expect("it was just seen");
                let hint = group.raft.leader().unwrap_or(NodeId::ZERO);
                self.read_ended(slot, &batch);
                self.metrics.refused_other += 1;
                let status = if batch.is_local { Status::NotYet } else { Status::NotLeader };
                self.refuse_reads(slot, &batch, status, hint);
            }
        }
        self.reads_until
    }

    /// Leadership is lost: whoever waits for apply is told that the outcome is unknown. A retry
    /// under the same session and number is safe.
    pub(crate) fn writes_unknown(&mut self, slot: usize) {
        let group = &mut self.groups[slot];
        assert!(group.proposals.is_empty(), "proposals are stepped before anything else is");
        self.scratch.reply.clear();
        self.answers.clear();
        let status = Status::Unknown;
        #[cfg(ringraft_plant)]
        let status = if planted(Plant::UnknownAsRefused) { Status::NotLeader } else { status };
        let waiting = Pending::of(group);
        self.pending.change(waiting, Pending::default());
        let unknown = |one: Waiting| Answer::bare(one.connection, one.call, status);
        self.answers.extend(group.waiting.drain(..).map(unknown));
        group.waiting_bytes = 0;
        group.batches.clear();
        self.answer(slot);
    }
}

/// Spare buffers for reads that are kept.
const READ_BUFFERS_MAX: usize = 64;
/// The largest that is kept, bytes.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Keeps a served read's buffer for the next one.
fn give_back(read_buffers: &mut Vec<Vec<u8>>, mut body: Vec<u8>) {
    body.clear();
    if read_buffers.len() < READ_BUFFERS_MAX && body.capacity() <= READ_BUFFER_BYTES {
        read_buffers.push(body);
    }
}

/// Answers the reads of one frame, in as many frames as the replies take. Reads that find the
/// outbox full are answered "busy": their client asks for more than it takes in. Returns how many
/// there were.
fn serve_batch(
    group: &Group,
    links: &mut impl Links,
    sender: Identity,
    batch: &ReadBatch,
    metrics: &mut Metrics,
    body: &mut Vec<u8>,
) -> u64 {
    let frame = read_frame(group.id, &batch.body);
    let requests = client_wire::reads(&frame).expect("it was checked when it came");
    let count = requests.len() as u64;
    let mut requests = requests.iter();
    let mut pending = requests.next().map(|request| query(group, &request, body));
    while let Some((call, _)) = pending
        && let Some(outbox) = links.client(batch.connection)
    {
        if outbox.is_full() {
            let calls = std::iter::once(call).chain(requests.map(|request| request.call));
            let (status, hint) = (Status::Busy, NodeId::ZERO);
            metrics.refused_busy += write_refusals(outbox, group.id, sender, calls, status, hint);
            break;
        }
        let mut writer = BatchWriter::begin(outbox, Kind::Replies, group.id, sender);
        while let Some((call, applied)) = pending
            && (writer.is_empty() || writer.fits(body.len()))
        {
            writer.reply(&Reply {
                call,
                status: applied.status,
                flags: 0,
                revision: applied.revision,
                index: group.applied,
                hint: NodeId::ZERO,
                body,
            });
            metrics.reads_served += 1;
            pending = requests.next().map(|request| query(group, &request, body));
        }
        writer.finish();
    }
    count
}

/// Answers one read from the machine; its body replaces what `body` held.
fn query(group: &Group, request: &Request<'_>, body: &mut Vec<u8>) -> (u64, Applied) {
    body.clear();
    let revision = group.machine.revision();
    let applied = match group.machine.check(request.payload) {
        Ok(CommandKind::Read) => group.machine.query(request.payload, body),
        Ok(CommandKind::Write) => Applied { status: Status::Invalid, revision },
        Err(status) => Applied { status, revision },
    };
    (request.call, applied)
}

/// The frame that a read's body came in, as far as opening it again needs.
fn read_frame(group: GroupId, body: &[u8]) -> Frame<'_> {
    let header = FrameHeader {
        kind: Kind::Reads,
        group,
        sender: Identity::default(),
        body_bytes: body.len() as u32,
        body_checksum: 0,
    };
    Frame { header, body }
}

fn write_answers(
    outbox: &mut ringraft_net::Outbox,
    group: GroupId,
    sender: Identity,
    answers: &[Answer],
    bodies: &[u8],
) {
    let mut rest = answers;
    while !rest.is_empty() {
        let mut batch = BatchWriter::begin(outbox, Kind::Replies, group, sender);
        let mut taken = 0;
        for answer in rest {
            let body = &bodies[answer.body.0 as usize..answer.body.1 as usize];
            if !batch.is_empty() && !batch.fits(body.len()) {
                break;
            }
            batch.reply(&Reply {
                call: answer.call,
                status: answer.status,
                flags: 0,
                revision: answer.revision,
                index: answer.index,
                hint: NodeId::ZERO,
                body,
            });
            taken += 1;
        }
        batch.finish();
        rest = &rest[taken..];
    }
}

/// Applies one entry that the log brought back.
pub(crate) fn apply_logged(
    group: &mut Group,
    index: Index,
    bytes: &[u8],
    answers: &mut Vec<Answer>,
    bodies: &mut Vec<u8>,
) {
    #[cfg(ringraft_plant)]
    if planted(Plant::ReplayTwice)
        && let Ok(record) = record::decode(bytes)
        && let Ok((_, command)) = Envelope::decode(record.payload)
    {
        let _ = group.machine.apply(index, command, &mut Vec::new());
    }
    apply_entry(group, index, bytes, answers, bodies);
}

/// Applies one entry and notes the answer, if somebody here waits for it.
fn apply_entry(
    group: &mut Group,
    index: Index,
    bytes: &[u8],
    answers: &mut Vec<Answer>,
    bodies: &mut Vec<u8>,
) {
    let header = record::peek(bytes).expect("records are verified where they enter");
    assert!(
        header.group == group.id && header.index == index,
        "entry {index} of group {} is where {} of {} is expected (V13)",
        header.group,
        header.index,
        group.id,
    );
    let payload = &bytes[ringraft_types::limits::RECORD_HEADER_BYTES..][..header.length as usize];
    let body_start = bodies.len();
    let mut outcome = (Status::Ok, Revision::ZERO, index);
    if header.kind == RecordKind::Command {
        let (sessions, machine) = (&mut group.sessions, &mut *group.machine);
        match apply_command(sessions, machine, index, payload, bodies) {
            Ok(applied) => outcome = applied,
            Err(()) => {
                group.halt = Some(Halt::UnknownCommand(index));
                bodies.truncate(body_start);
                return;
            }
        }
    }
    if header.kind == RecordKind::Configuration {
        assert!(group.book.has(index), "the book has what is applied: a snapshot tells it (I-14)");
        group.members_applied = true;
    }
    group.applied = index;
    if group.notes.is_due(index) {
        let hash = group.state_hash();
        group.notes.take(index, hash);
    }
    while let Some(waiting) = group.waiting.front()
        && waiting.index <= index
    {
        let waiting = group.waiting.pop_front().expect("its front was just seen");
        group.waiting_bytes -= waiting.bytes as usize;
        assert!(waiting.index == index, "a waiting write was passed over (I-06)");
        answers.push(Answer {
            connection: waiting.connection,
            call: waiting.call,
            status: outcome.0,
            revision: outcome.1,
            index: outcome.2,
            body: (body_start as u32, bodies.len() as u32),
        });
    }
    if answers.last().is_none_or(|answer| answer.body.0 as usize != body_start) {
        bodies.truncate(body_start);
    }
}

/// Applies one command under its session. The result is its status, revision and index (of the
/// first application, for a retry); the reply's body is appended to `bodies`.
pub(crate) fn apply_command(
    sessions: &mut Sessions,
    machine: &mut dyn StateMachine,
    index: Index,
    payload: &[u8],
    bodies: &mut Vec<u8>,
) -> Result<(Status, Revision, Index), ()> {
    let (envelope, command) = Envelope::decode(payload).map_err(drop)?;
    match sessions.admit(index, &envelope) {
        Verdict::Apply => {
            let start = bodies.len();
            let applied = machine.apply(index, command, bodies).map_err(drop)?;
            let reply = StoredReply {
                revision: applied.revision,
                index,
                status: applied.status,
                body: bodies[start..].into(),
            };
            sessions.record(envelope.client, envelope.sequence, reply);
            Ok((applied.status, applied.revision, index))
        }
        #[cfg(ringraft_plant)]
        Verdict::Reply(_) if planted(Plant::RetryApplied) => {
            let applied = machine.apply(index, command, bodies).map_err(drop)?;
            Ok((applied.status, applied.revision, index))
        }
        Verdict::Reply(stored) => {
            bodies.extend_from_slice(&stored.body);
            Ok((stored.status, stored.revision, stored.index))
        }
        Verdict::Refuse(status) => Ok((status, machine.revision(), index)),
    }
}

impl Group {
    /// Where the record at `index` lies in what the log brought back, if it is there.
    fn stocked(&self, index: Index) -> Option<(usize, usize)> {
        let (records, at) = self.apply_stock.as_ref()?;
        let header = record::peek(records.get(*at..)?).ok()?;
        (header.index == index).then(|| (*at, at + record::encoded_bytes(header.length as usize)))
    }

    /// The machine's and the sessions' hash as one.
    pub(crate) fn state_hash(&self) -> u64 {
        state_hash(&*self.machine, &self.sessions)
    }
}

/// The hash of a state.
pub(crate) fn state_hash(machine: &dyn StateMachine, sessions: &Sessions) -> u64 {
    machine.state_hash() ^ sessions.state_hash().rotate_left(32)
}
