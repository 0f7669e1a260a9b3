//! The sessions of a group: what makes a retried write apply once. Part of the replicated state.
//!
//! Driven only by the log: [`Sessions::admit`] judges every committed command by its envelope, and
//! [`Sessions::record`] keeps the reply of each one applied. The same log makes the same table on
//! every replica, evictions included. A session begins with its client's write number 1; the
//! session whose newest applied write is the oldest in the log makes room for the next.
//!
//! A retry after an eviction must not become a second first write. So a session may begin only if
//! its client opened it (knew a log index) no earlier than the newest eviction: an evicted client
//! opened before that, and is told [`Status::SessionExpired`] for ever.
//!
//! Memory: 128 bytes and an index entry for an idle session, its newest reply included. A body of more than
//! [`STORED_BODY_BYTES_MAX`], or any that would take the group over
//! [`STORED_BODIES_BYTES_MAX`], isn't kept; a retry then learns that the write was applied, and
//! where, but not its body ([`Status::AlreadyAnswered`]).
#![forbid(unsafe_code)]

mod snapshot;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use ringraft_types::command::Envelope;
use ringraft_types::limits::{SESSION_UNANSWERED_MAX, SESSIONS_PER_GROUP_MAX};
use ringraft_types::{ClientId, Index, Revision, Status};
use xxhash_rust::xxh3::xxh3_64;

use snapshot::{Loading, Snapshot};
use table::Table;

/// The longest body of one reply that is kept for a retry, bytes.
pub const STORED_BODY_BYTES_MAX: usize = 4 << 10;
/// What the bodies kept by all sessions of a group may take together, bytes.
pub const STORED_BODIES_BYTES_MAX: usize = 64 << 20;
/// Replies kept by all sessions of a group, beyond which a session that has an unanswered write
/// is refused another ([`Status::WindowFull`]). One write at a time always goes on.
pub const STORED_REPLIES_MAX: usize = 1 << 20;

/// The reply to a write, as it is kept for a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// The revision the machine was at after the write.
    pub revision: Revision,
    /// The entry that applied it.
    pub index: Index,
    /// How it went; [`Status::AlreadyAnswered`] if its body was too long to keep.
    pub status: Status,
    /// The reply's body; empty ones take no memory.
    pub body: Box<[u8]>,
}

/// What to do with a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is the session's next: apply it, then [`Sessions::record`] its reply.
    Apply,
    /// It was applied before: this was the reply.
    Reply(&'a StoredReply),
    /// It is not applied now; the status says what that means.
    Refuse(Status),
}

/// One client's session.
#[derive(Debug)]
struct Session {
    client: ClientId,
    /// The number of its newest applied write.
    sequence: u64,
    /// The client has the answers up to here; `received <= sequence`.
    received: u64,
    /// The entry that applied its newest write.
    used: Index,
    /// The reply to `sequence`, unless received.
    newest: Option<StoredReply>,
    /// The replies to `received + 1 .. sequence`.
    before: VecDeque<StoredReply>,
}

/// The sessions of one group.
#[derive(Debug)]
pub struct Sessions {
    table: Table,
    /// The entry that evicted a session last; zero: none did.
    evicted_at: Index,
    hash: u64,
    bodies_bytes: usize,
    /// Replies kept.
    replies: usize,
    replies_max: usize,
    /// The session whose write was admitted and is not recorded yet.
    admitted: Option<u32>,
    sessions_max: usize,
    /// The one that is being taken.
    snapshot: Option<Box<Snapshot>>,
    /// The one that is being loaded.
    loading: Option<Box<Loading>>,
}

impl Sessions {
    /// No sessions, with room for [`SESSIONS_PER_GROUP_MAX`].
    pub fn new() -> Self {
        Self::with_limits(SESSIONS_PER_GROUP_MAX, STORED_REPLIES_MAX)
    }

    /// No sessions, with room for so many and their replies. Every replica must have the same.
    ///
    /// # Panics
    /// If there is to be no room at all.
    fn with_limits(sessions_max: usize, replies_max: usize) -> Self {
        assert!(sessions_max > 0, "a group has room for a session");
        Self {
            table: Table::new(),
            evicted_at: Index::ZERO,
            hash: 0,
            bodies_bytes: 0,
            replies: 0,
            replies_max,
            admitted: None,
            sessions_max,
            snapshot: None,
            loading: None,
        }
    }

    /// Judges the committed command at `index`. A verdict of [`Verdict::Apply`] must be followed
    /// by [`Sessions::record`] before the next command.
    ///
    /// # Panics
    /// If the last admitted command wasn't recorded.
    pub fn admit(&mut self, index: Index, envelope: &Envelope) -> Verdict<'_> {
        assert!(self.admitted.is_none(), "an admitted write is recorded before the next");
        let Some(slot) = self.table.find(envelope.client) else {
            return match self.judge_new(index, envelope) {
                Ok(()) => {
                    self.begin(index, envelope.client);
                    Verdict::Apply
                }
                Err(status) => Verdict::Refuse(status),
            };
        };
        self.receive(slot, envelope.received);
        let session = self.table.session(slot);
        if envelope.sequence <= session.sequence {
            return session.answer(envelope.sequence);
        }
        let unanswered = SESSION_UNANSWERED_MAX as u64;
        if envelope.sequence > session.received.saturating_add(unanswered) {
            return Verdict::Refuse(Status::WindowFull);
        }
        if envelope.sequence > session.sequence + 1 {
            return Verdict::Refuse(Status::Gap);
        }
        if self.replies >= self.replies_max && session.newest.is_some() {
            return Verdict::Refuse(Status::WindowFull);
        }
        self.admitted = Some(slot);
        Verdict::Apply
    }

    /// Keeps the reply of the write that was admitted last. The body is kept within the bounds
    /// named at the top of this file.
    ///
    /// # Panics
    /// If that write isn't the one admitted.
    pub fn record(&mut self, client: ClientId, sequence: u64, mut reply: StoredReply) {
        let slot = self.admitted.take().expect("a write was admitted");
        let room = STORED_BODIES_BYTES_MAX - self.bodies_bytes;
        if reply.body.len() > STORED_BODY_BYTES_MAX.min(room) {
            reply.body = Box::default();
            reply.status = Status::AlreadyAnswered;
        }
        self.bodies_bytes += reply.body.len();
        self.replies += 1;
        self.fold(client, sequence, reply.index, reply.revision, reply.status as u64);
        self.before_change(slot);
        let session = self.table.session_mut(slot);
        assert!(session.client == client, "the session admitted is the session recorded");
        assert!(session.sequence + 1 == sequence, "the write admitted is the write recorded");
        session.sequence = sequence;
        session.used = reply.index;
        if let Some(newest) = session.newest.replace(reply) {
            session.before.push_back(newest);
        }
        self.table.touch(slot);
    }

    /// What the table can say before a command is proposed: a reply or refusal that will stay
    /// true; else [`Verdict::Apply`], "propose it", as writes before it may still be on their way.
    pub fn lookup(&self, envelope: &Envelope) -> Verdict<'_> {
        match self.table.find(envelope.client) {
            Some(slot) if envelope.sequence <= self.table.session(slot).sequence => {
                return self.table.session(slot).answer(envelope.sequence);
            }
            None if envelope.opened < self.evicted_at => {
                return Verdict::Refuse(Status::SessionExpired);
            }
            Some(_) | None => {}
        }
        // Only by its own mark: a copy of it that is on its way passed here by the same.
        if envelope.sequence - envelope.received > SESSION_UNANSWERED_MAX as u64 {
            return Verdict::Refuse(Status::WindowFull);
        }
        Verdict::Apply
    }

    /// Sessions there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry that evicted a session last; zero if none did. A client that opens a session now
    /// must know an index at least as new.
    pub const fn evicted_at(&self) -> Index {
        self.evicted_at
    }

    /// A hash over everything that changed the table, to be compared between replicas. It starts
    /// at zero; every write recorded, mark advanced and session evicted folds in:
    /// `xxh3_64(hash before, client, number, index, revision, what)`, all little-endian u64 but
    /// the u128 client; `what` is the status of a write, 256 for a mark, 257 for an eviction.
    pub const fn state_hash(&self) -> u64 {
        self.hash
    }

    /// Memory the table takes, bytes, to within a fifth or so. Not replicated.
    pub fn memory_bytes(&self) -> usize {
        // Each session's newest reply lies in its slot.
        let queued = self.replies.saturating_sub(self.len()) * size_of::<StoredReply>();
        self.table.memory_bytes() + queued + self.bodies_bytes
    }

    /// Whether a client without a session may begin one with this command.
    fn judge_new(&self, index: Index, envelope: &Envelope) -> Result<(), Status> {
        if envelope.opened >= index {
            // It claims to know an entry that wasn't there when it was proposed: believed, it
            // could begin again after any eviction.
            return Err(Status::Invalid);
        }
        if envelope.opened < self.evicted_at {
            return Err(Status::SessionExpired);
        }
        if envelope.sequence != 1 {
            return Err(Status::Gap);
        }
        Ok(())
    }

    fn begin(&mut self, index: Index, client: ClientId) {
        if self.table.len() == self.sessions_max {
            if let Some(oldest) = self.table.oldest() {
                self.before_change(oldest);
            }
            let evicted = self.table.evict_oldest();
            let bodies: usize = evicted.replies().map(|reply| reply.body.len()).sum();
            self.bodies_bytes -= bodies;
            self.replies -= evicted.replies().count();
            self.evicted_at = index;
            self.fold(evicted.client, evicted.sequence, index, Revision::ZERO, 257);
        }
        self.admitted = Some(self.table.insert(Session::new(client)));
    }

    /// Drops the replies that the client says it has.
    fn receive(&mut self, slot: u32, received: u64) {
        let session = self.table.session_mut(slot);
        let received = received.min(session.sequence);
        if received <= session.received {
            return;
        }
        self.before_change(slot);
        let session = self.table.session_mut(slot);
        let mut bytes = 0;
        let dropped = (received - session.received) as usize;
        while session.received < received {
            let reply = session.before.pop_front().or_else(|| session.newest.take());
            bytes += reply.expect("every unanswered write has its reply").body.len();
            session.received += 1;
        }
        if session.before.is_empty() {
            // An idle session keeps no queue.
            session.before = VecDeque::new();
        }
        let client = session.client;
        self.bodies_bytes -= bytes;
        self.replies -= dropped;
        self.fold(client, received, Index::ZERO, Revision::ZERO, 256);
    }

    /// A session is about to change: a snapshot that lacks it keeps it as it is.
    #[inline]
    fn before_change(&mut self, slot: u32) {
        if self.snapshot.is_some() {
            self.save(slot);
        }
    }

    #[cold]
    fn save(&mut self, slot: u32) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.save(slot as usize, self.table.session(slot));
        }
    }

    fn fold(&mut self, client: ClientId, number: u64, index: Index, at: Revision, what: u64) {
        let mut bytes = [0u8; 56];
        bytes[..8].copy_from_slice(&self.hash.to_le_bytes());
        bytes[8..24].copy_from_slice(&client.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&number.to_le_bytes());
        bytes[32..40].copy_from_slice(&index.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&at.0.to_le_bytes());
        bytes[48..].copy_from_slice(&what.to_le_bytes());
        self.hash = xxh3_64(&bytes);
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    const fn new(client: ClientId) -> Self {
        Self {
            client,
            sequence: 0,
            received: 0,
            used: Index::ZERO,
            newest: None,
            before: VecDeque::new(),
        }
    }

    /// The answer to a write that was applied before.
    fn answer(&self, sequence: u64) -> Verdict<'_> {
        assert!(sequence <= self.sequence, "only an applied write was answered");
        if sequence <= self.received {
            return Verdict::Refuse(Status::AlreadyAnswered);
        }
        let place = (sequence - self.received - 1) as usize;
        let reply = self.before.get(place).or(self.newest.as_ref());
        Verdict::Reply(reply.expect("every unanswered write has its reply"))
    }

    fn replies(&self) -> impl Iterator<Item = &StoredReply> {
        self.before.iter().chain(&self.newest)
    }
}
