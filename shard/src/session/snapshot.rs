//! Snapshots of the sessions, taken piece by piece while writes go on: as the machine's are.
//!
//! A session that changes before the walk has come to it is saved as it was. Its replies follow it,
//! so that a session of a thousand replies is cut into pieces like everything else.
//!
//! ```text
//!  0  u8   kind: 1 head, 2 session, 3 reply     an item; all numbers are little-endian
//!  1  u8   reply: its status
//!  2  u16  reply: bytes of its body
//!  4  u32  zero
//!  8  u64  session: number of its newest write    reply: revision    head: sessions
//! 16  u64  session: number received               reply: entry       head: entry that evicted last
//! 24  u64  session: entry of its newest write     reply: zero        head: hash
//! 32  u128 session and reply: the client
//! 48       reply: the body
//! ```
//! The head comes first, a session's replies right behind it in the order of their numbers.

use ringraft_types::bytes::{u16_at, u32_at, u64_at, u128_at};
use ringraft_types::{ClientId, Index, Revision, Status};

use super::{STORED_BODIES_BYTES_MAX, STORED_BODY_BYTES_MAX, Session, Sessions, StoredReply};
use crate::machine::LoadError;
use crate::machine::items::{Saved, load_items};

const ITEM_BYTES: usize = 48;
const KIND_HEAD: u8 = 1;
const KIND_SESSION: u8 = 2;
const KIND_REPLY: u8 = 3;

/// A snapshot under way.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// By slot, as many as there were when it began: whether the session is written.
    written: Vec<bool>,
    /// Slots before this one are written.
    next: usize,
    /// Items that wait for a piece.
    saved: Saved,
}

/// Sessions that are being loaded, and what the head says of them.
#[derive(Debug)]
pub(super) struct Loading {
    sessions: u64,
    /// With the entry of the newest write: their order in the list.
    found: Vec<Session>,
}

struct Item<'a> {
    kind: u8,
    status: u8,
    numbers: [u64; 3],
    client: ClientId,
    body: &'a [u8],
}

impl Item<'_> {
    fn write(&self, out: &mut impl Extend<u8>) {
        out.extend([self.kind, self.status]);
        out.extend((self.body.len() as u16).to_le_bytes());
        out.extend([0; 4]);
        for number in self.numbers {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.client.0.to_le_bytes());
        out.extend(self.body.iter().copied());
    }

    /// The item at the beginning of `bytes`, and how many it takes.
    fn read(bytes: &[u8]) -> Result<(Item<'_>, usize), &'static str> {
        if bytes.len() < ITEM_BYTES {
            return Err("an item is cut short");
        }
        let body_bytes = usize::from(u16_at(bytes, 2));
        if body_bytes > STORED_BODY_BYTES_MAX || u32_at(bytes, 4) != 0 {
            return Err("the item is none");
        }
        let end = ITEM_BYTES + body_bytes;
        let body = bytes.get(ITEM_BYTES..end).ok_or("a reply's body is cut short")?;
        let numbers = [8, 16, 24].map(|place| u64_at(bytes, place));
        let client = ClientId(u128_at(bytes, 32));
        Ok((Item { kind: bytes[0], status: bytes[1], numbers, client, body }, end))
    }
}

impl Snapshot {
    /// The session in this slot is about to change, or the walk has come to it.
    pub(super) fn save(&mut self, slot: usize, session: &Session) {
        if self.written.get(slot) != Some(&false) {
            return;
        }
        self.written[slot] = true;
        let client = session.client;
        let numbers = [session.sequence, session.received, session.used.0];
        let (kind, status, body) = (KIND_SESSION, 0, &b""[..]);
        let item = Item { kind, status, numbers, client, body };
        self.saved.push(|out| item.write(out));
        for reply in session.replies() {
            let numbers = [reply.revision.0, reply.index.0, 0];
            let (kind, status, body) = (KIND_REPLY, reply.status as u8, &reply.body);
            let item = Item { kind, status, numbers, client, body };
            self.saved.push(|out| item.write(out));
        }
    }
}

impl Sessions {
    /// Begins a snapshot of the sessions as they are; one that was under way is given up.
    ///
    /// # Panics
    /// If the last admitted command wasn't recorded.
    pub fn begin_snapshot(&mut self) {
        assert!(self.admitted.is_none(), "no command is half done");
        let numbers = [self.len() as u64, self.evicted_at.0, self.hash];
        let mut saved = Saved::default();
        let (kind, client) = (KIND_HEAD, ClientId::ZERO);
        let head = Item { kind, status: 0, numbers, client, body: b"" };
        saved.push(|out| head.write(out));
        let written = self.table.slots().map(|session| session.sequence == 0).collect();
        self.snapshot = Some(Box::new(Snapshot { written, next: 0, saved }));
    }

    /// Appends the snapshot's next piece: whole items, until it is `bytes` long or there are no
    /// more. Returns whether this was the last.
    ///
    /// # Panics
    /// If no snapshot was begun.
    pub fn snapshot(&mut self, bytes: usize, piece: &mut Vec<u8>) -> bool {
        let bytes = piece.len() + bytes;
        let snapshot = self.snapshot.as_mut().expect("a snapshot was begun");
        loop {
            snapshot.saved.take(bytes, piece);
            if snapshot.next == snapshot.written.len() || piece.len() >= bytes {
                break;
            }
            snapshot.save(snapshot.next, self.table.session(snapshot.next as u32));
            snapshot.next += 1;
        }
        snapshot.saved.is_empty() && snapshot.next == snapshot.written.len()
    }

    /// Ends the snapshot that is under way, if one is.
    pub fn end_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// Adds a piece of a snapshot to a table that held nothing before its first.
    ///
    /// # Errors
    /// If it is none. The table is of no use then.
    pub fn load(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        load_items(piece, Item::read, |item| self.load_item(&item))
    }

    /// The last piece is loaded: the table is the one whose snapshot it was.
    ///
    /// # Errors
    /// If something is missing, or contradicts itself. The table is of no use then.
    pub fn end_load(&mut self) -> Result<(), LoadError> {
        let error = |what| LoadError { at: 0, what };
        let loading = self.loading.take().ok_or(error("there is no head"))?;
        let Loading { sessions, mut found } = *loading;
        if found.len() as u64 != sessions {
            return Err(error("there are other sessions than the head counts"));
        }
        if found.last().is_some_and(Session::lacks_replies) {
            return Err(error("a session's replies are missing"));
        }
        found.sort_unstable_by_key(|session| session.used);
        if found.windows(2).any(|pair| pair[0].used == pair[1].used) {
            return Err(error("two sessions were used by one entry"));
        }
        for session in found {
            if self.table.find(session.client).is_some() {
                return Err(error("a session comes twice"));
            }
            self.table.insert(session);
        }
        Ok(())
    }

    fn load_item(&mut self, item: &Item<'_>) -> Result<(), &'static str> {
        let [first, second, third] = item.numbers;
        let Some(loading) = &mut self.loading else {
            assert!(self.is_empty() && self.hash == 0, "only an empty table is loaded");
            if item.kind != KIND_HEAD || first > self.sessions_max as u64 {
                return Err("there is no head");
            }
            (self.evicted_at, self.hash) = (Index(second), third);
            self.loading = Some(Box::new(Loading { sessions: first, found: Vec::new() }));
            return Ok(());
        };
        let last = loading.found.last_mut();
        match item.kind {
            KIND_SESSION => {
                if last.is_some_and(|last| last.lacks_replies()) {
                    return Err("a session's replies are missing");
                }
                let (sequence, received, used) = (first, second, Index(third));
                if loading.found.len() as u64 == loading.sessions
                    || sequence == 0
                    || received > sequence
                {
                    return Err("the session is none");
                }
                let session = Session { sequence, received, used, ..Session::new(item.client) };
                loading.found.push(session);
                Ok(())
            }
            KIND_REPLY => {
                let session =
                    last.filter(|last| last.client == item.client && last.lacks_replies());
                let session = session.ok_or("a reply has no session")?;
                let status = Status::from_u8(item.status).ok_or("a reply has no status")?;
                self.bodies_bytes += item.body.len();
                self.replies += 1;
                if self.bodies_bytes > STORED_BODIES_BYTES_MAX
                    || self.replies > self.replies_max + self.sessions_max
                {
                    return Err("there are more replies than are kept");
                }
                let (revision, index, body) =
                    (Revision(first), Index(second), Box::from(item.body));
                let reply = StoredReply { revision, index, status, body };
                if let Some(newest) = session.newest.replace(reply) {
                    session.before.push_back(newest);
                }
                Ok(())
            }
            _ => Err("an item of a kind that this version doesn't know"),
        }
    }
}

impl Session {
    /// Whether replies to unanswered writes are still to be loaded.
    fn lacks_replies(&self) -> bool {
        let held = self.before.len() + usize::from(self.newest.is_some());
        (held as u64) < self.sequence - self.received
    }
}
