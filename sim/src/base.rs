//! What every part of a world needs: the time, chance, what happens next, and counts.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use ringraft_types::Ticks;

use crate::random::Random;

/// Something that happens at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A lane of a node turns.
    Lane { node: usize, lane: usize, life: u64 },
    /// An operation of a disk completes.
    Disk { node: usize, lane: usize, life: u64, operation: u64 },
    /// Somebody connects.
    Connect { connection: u64 },
    /// The first bytes that this side sent may arrive.
    Arrive { connection: u64, side: usize },
    /// This side learns that the connection is gone.
    Reset { connection: u64, side: usize },
    /// The system's patience with a connection may be over.
    Patience { connection: u64 },
    /// A client looks around.
    Client { client: usize },
    /// A node's process starts.
    Start { node: usize },
    /// An old answer comes again, from one node to another, of one shard.
    Again { from: usize, to: usize, shard: u16 },
    /// A fault strikes, by its place in the list of kinds.
    Fault { kind: usize },
    /// A lasting fault ends.
    Mend { fault: u64 },
    /// The checks look at everything.
    Probe,
}

struct Entry {
    at: Ticks,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest; of one time, what was planned first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// A process on a host: a lane of a node, or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// Nodes first, then clients.
    pub(crate) host: usize,
    /// Which life of the process.
    pub(crate) life: u64,
    /// The lane; zero for a client.
    pub(crate) lane: usize,
}

/// The ground that a world stands on.
pub(crate) struct Base {
    /// True time, which no node knows.
    pub(crate) now: Ticks,
    pub(crate) random: Random,
    queue: BinaryHeap<Entry>,
    order: u64,
    /// Who has something to look at, and on which connection.
    pub(crate) news: Vec<(Owner, u64)>,
    /// Since when the memory of every node that runs is full, if it is (FC-07).
    pub(crate) full_since: Option<Ticks>,
    /// How often what happened, by name.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Base {
    /// The ground of a seed's world.
    pub(crate) fn new(random: Random) -> Self {
        Self {
            now: Ticks::from_millis(1_000),
            random,
            queue: BinaryHeap::new(),
            order: 0,
            news: Vec::new(),
            full_since: None,
            counts: BTreeMap::new(),
        }
    }

    /// Plans an event.
    pub(crate) fn at(&mut self, at: Ticks, event: Event) {
        let at = at.max(self.now);
        self.order += 1;
        self.queue.push(Entry { at, order: self.order, event });
    }

    /// Plans an event after a span.
    pub(crate) fn after(&mut self, span: Ticks, event: Event) {
        self.at(self.now.after(span), event);
    }

    /// The next event no later than `until`; time moves on to it, or to `until`.
    pub(crate) fn next(&mut self, until: Ticks) -> Option<Event> {
        if self.queue.peek().is_none_or(|entry| entry.at > until) {
            self.now = self.now.max(until);
            return None;
        }
        let entry = self.queue.pop().expect("just seen");
        self.now = entry.at;
        Some(entry.event)
    }

    /// Counts something.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A span of time from `low` to `high`.
    pub(crate) fn span(&mut self, low: Ticks, high: Ticks) -> Ticks {
        Ticks(self.random.between(low.0, high.0.max(low.0)))
    }
}
