//! Where sessions live: slots, found by client, in a list from the one used last to the oldest.

use ringraft_types::ClientId;
use xxhash_rust::xxh3::xxh3_64;

use super::Session;
use crate::machine::index::HashIndex;

/// The end of the list.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    session: Session,
    /// The session used next after this one.
    newer: u32,
    /// The session used last before this one.
    older: u32,
}

// An idle session with a kept reply, its links and its index entry at the table's lowest load.
const _: () = assert!(size_of::<Slot>() + 3 * size_of::<u64>() <= 152);

#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    index: HashIndex,
    newest: u32,
    oldest: u32,
    /// A slot whose session was evicted, for the next to begin.
    free: Option<u32>,
}

fn hash(client: ClientId) -> u64 {
    xxh3_64(&client.0.to_le_bytes())
}

impl Table {
    pub(super) fn new() -> Self {
        let index = HashIndex::new();
        Self { slots: Vec::new(), index, newest: NONE, oldest: NONE, free: None }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - usize::from(self.free.is_some())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.index.memory_bytes()
    }

    /// The sessions by slot; one whose newest write is zero is none.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().map(|slot| &slot.session)
    }

    /// The session that was used longest ago.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    pub(super) fn session(&self, slot: u32) -> &Session {
        &self.slots[slot as usize].session
    }

    pub(super) fn session_mut(&mut self, slot: u32) -> &mut Session {
        &mut self.slots[slot as usize].session
    }

    #[inline]
    pub(super) fn find(&self, client: ClientId) -> Option<u32> {
        // A group with one busy client is the common case: it was used last.
        if let Some(slot) = self.slots.get(self.newest as usize)
            && slot.session.client == client
        {
            return Some(self.newest);
        }
        self.index.find(hash(client), |slot| self.session(slot).client == client)
    }

    /// Adds a session, as the one used last.
    pub(super) fn insert(&mut self, session: Session) -> u32 {
        let client = session.client;
        let entry = Slot { session, newer: NONE, older: NONE };
        let slot = match self.free.take() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                self.slots.len() as u32 - 1
            }
        };
        self.index.insert(hash(client), slot);
        self.link(slot);
        slot
    }

    /// Marks a session as the one used last.
    #[inline]
    pub(super) fn touch(&mut self, slot: u32) {
        if slot != self.newest {
            self.unlink(slot);
            self.link(slot);
        }
    }

    /// Takes out the session that was used longest ago.
    pub(super) fn evict_oldest(&mut self) -> Session {
        assert!(self.free.is_none(), "an evicted slot is reused at once");
        let slot = self.oldest;
        assert!(slot != NONE, "a full table has an oldest session");
        self.unlink(slot);
        let client = self.session(slot).client;
        self.index.remove(hash(client), slot);
        self.free = Some(slot);
        std::mem::replace(self.session_mut(slot), Session::new(ClientId::ZERO))
    }

    fn link(&mut self, slot: u32) {
        let older = self.newest;
        self.slots[slot as usize].newer = NONE;
        self.slots[slot as usize].older = older;
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { newer, older, .. } = self.slots[slot as usize];
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }
}
