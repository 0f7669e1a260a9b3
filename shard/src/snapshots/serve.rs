//! Giving snapshots to peers that lack them, chunk by chunk, as they ask.
//!
//! Any node may be asked, whether it leads or not: a snapshot holds what is committed. The newest
//! one kept is offered. While a peer asks for chunks of it, its file stays, also when there is a
//! newer one: a slow peer gets to its end. A peer holds one file per shard, and for as long as it
//! goes on asking.

use std::collections::{BTreeMap, VecDeque};

use ringraft_net::bulk_wire::{ChunkAsk, ChunkHead, SnapshotAsk, SnapshotOffer};
use ringraft_types::{GroupId, NodeId, Ticks};
use ringraft_wal::device::Device;
use ringraft_wal::snapshot::CHUNK_ROOM;
use ringraft_wal::{Chunk, ChunkDone, SnapshotHead};

use super::LoadFailure;
use super::pace::{Pace, PaceRules};
use crate::event::ShardEvent;
use crate::links::Links;
use crate::shard::Shard;

/// Chunks of one peer that wait to be read; what it asks for beyond them is not answered, and
/// asked for again.
const ASKS_PER_PEER_MAX: usize = 8;
/// Chunks that are read at once, or wait to be sent.
const CHUNKS_MAX: usize = 4;
/// The part of the log's room that may go while a snapshot is given: what is left is for loading it.
const LOG_PARTS: u64 = 2;
/// For how long a file stays after the last chunk of it was asked for.
const HOLD_TIME: Ticks = Ticks::from_millis(30_000);

/// A chunk that a peer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    to: NodeId,
    group: GroupId,
    ask: ChunkAsk,
}

/// The snapshot that a peer fetches.
#[derive(Clone, Copy, Debug)]
struct Hold {
    head: SnapshotHead,
    until: Ticks,
}

/// What peers fetch from this shard.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    holds: BTreeMap<NodeId, Hold>,
    asks: VecDeque<Wanted>,
    /// By ticket.
    reads: BTreeMap<u64, Wanted>,
    done: VecDeque<(Wanted, ChunkDone)>,
    /// Snapshots that are kept for peers only.
    old: Vec<SnapshotHead>,
    /// Of all chunks together, since somebody was last offered a snapshot: what the log has grown
    /// by before hurries nobody.
    pace: Option<Pace>,
}

impl Serving {
    /// Whether nobody waits for a chunk.
    pub(super) fn is_idle(&self) -> bool {
        self.asks.is_empty() && self.reads.is_empty() && self.done.is_empty()
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// A peer asks what there is.
    pub(crate) fn snapshot_asked(
        &mut self,
        now: Ticks,
        from: NodeId,
        group: GroupId,
        ask: SnapshotAsk,
    ) {
        let Some(&slot) = self.slots.get(&group) else { return };
        let group_here = &self.groups[slot];
        if group_here.is_muted {
            return;
        }
        let newest = group_here.kept.last().filter(|head| head.last.index >= ask.base_index);
        let mut offer = SnapshotOffer::default();
        if let Some(&head) = newest {
            offer.number = head.number;
            (offer.term, offer.index) = (head.last.term, head.last.index);
            (offer.bytes, offer.chunks, offer.strands) = (head.bytes, head.chunks, head.strands);
            self.hold(from, head, now);
            self.serving.pace = None;
        }
        if let Some(outbox) = self.links.serve(from).filter(|outbox| !outbox.is_full()) {
            offer.write(outbox, group, self.settings.identity);
        }
    }

    /// A peer asks for a chunk.
    pub(crate) fn chunk_asked(&mut self, now: Ticks, from: NodeId, group: GroupId, ask: ChunkAsk) {
        if let Some(head) = self.kept_snapshot(group, ask.number) {
            self.hold(from, head, now);
        }
        let wanted = Wanted { to: from, group, ask };
        let of_peer = self.serving.asks.iter().filter(|waiting| waiting.to == from).count();
        if of_peer < ASKS_PER_PEER_MAX && !self.serving.asks.contains(&wanted) {
            self.serving.asks.push_back(wanted);
            self.snapshots.rouse();
        }
    }

    fn hold(&mut self, peer: NodeId, head: SnapshotHead, now: Ticks) {
        let until = now.after(HOLD_TIME);
        let before = self.serving.holds.insert(peer, Hold { head, until });
        if let Some(before) = before.filter(|before| before.head.number != head.number) {
            self.let_go(before.head.number);
        }
    }

    /// Nobody fetches this file any more, unless another peer does.
    pub(crate) fn let_go(&mut self, number: u64) {
        if self.is_held(number) {
            return;
        }
        let old = &mut self.serving.old;
        match old.iter().position(|head| head.number == number) {
            Some(at) => {
                old.swap_remove(at);
                self.log.remove_snapshot(&mut self.device, number);
            }
            None => self.log.close_snapshot(&mut self.device, number),
        }
    }

    fn is_held(&self, number: u64) -> bool {
        let mut reads = self.serving.reads.values();
        self.serving.holds.values().any(|hold| hold.head.number == number)
            || reads.any(|wanted| wanted.ask.number == number)
            || self.scrubbing.reads(number)
    }

    /// A snapshot that this node needs no more: its file goes, once no peer fetches it.
    pub(super) fn give_up_snapshot(&mut self, head: SnapshotHead) {
        if self.is_held(head.number) {
            self.serving.old.push(head);
        } else {
            self.log.remove_snapshot(&mut self.device, head.number);
        }
    }

    /// The snapshots of a group hold what isn't right: they are offered and given no more, and their
    /// files go, one that is being read just now when it was.
    pub(crate) fn give_up_all_snapshots(&mut self, slot: usize) {
        let id = self.groups[slot].id;
        self.serving.holds.retain(|_, hold| hold.head.group != id);
        self.serving.asks.retain(|wanted| wanted.group != id);
        let old = self.serving.old.extract_if(.., |head| head.group == id);
        let mut all: Vec<SnapshotHead> = old.collect();
        all.append(&mut self.groups[slot].kept);
        for head in all {
            self.give_up_snapshot(head);
        }
    }

    /// Holds of peers that ask no more end.
    pub(super) fn look_for_holds(&mut self, now: Ticks) {
        let over: Vec<(NodeId, u64)> = self
            .serving
            .holds
            .iter()
            .filter(|(_, hold)| hold.until <= now)
            .map(|(&peer, hold)| (peer, hold.head.number))
            .collect();
        for (peer, number) in over {
            self.serving.holds.remove(&peer);
            self.let_go(number);
        }
    }

    /// A chunk was read for a peer.
    pub(super) fn chunk_read(&mut self, done: ChunkDone) {
        let wanted = self.serving.reads.remove(&done.ticket).expect("read for somebody");
        if let Err(error) = done.result {
            self.snapshot_unreadable(wanted.group, error.number, error.into());
        }
        self.serving.done.push_back((wanted, done));
        self.let_go(wanted.ask.number);
    }

    /// A snapshot that was durable can't be read: it is offered no more, and another one is taken of
    /// what the machine holds. Its file stays until that one is durable.
    pub(crate) fn snapshot_unreadable(&mut self, group: GroupId, number: u64, error: LoadFailure) {
        self.events.push(ShardEvent::SnapshotUnreadable { group, number, error });
        let Some(&slot) = self.slots.get(&group) else { return };
        let group = &mut self.groups[slot];
        if let Some(at) = group.kept.iter().position(|head| head.number == number) {
            group.kept.remove(at);
            group.unreadable.push(number);
            self.want_another(slot);
        }
    }

    /// Sends one chunk, and has the next ones read, as fast as the pace is. Returns when there is
    /// more to do.
    pub(super) fn serve_snapshots(&mut self, now: Ticks) -> Ticks {
        let mut at = Ticks::NEVER;
        if let Some((wanted, done)) = self.serving.done.pop_front() {
            self.send_chunk(wanted, done.result.as_ref().ok());
            at = now;
        }
        while self.serving.reads.len() + self.serving.done.len() < CHUNKS_MAX
            && let Some(&wanted) = self.serving.asks.front()
        {
            let Some(head) = self.kept_snapshot(wanted.group, wanted.ask.number) else {
                self.serving.asks.pop_front();
                self.send_chunk(wanted, None);
                at = now;
                continue;
            };
            let paced_at = self.pace_chunks(now, &head);
            if paced_at > now {
                return at.min(paced_at);
            }
            self.serving.asks.pop_front();
            at = now;
            if wanted.ask.chunk < head.chunks {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.serving.reads.insert(ticket, wanted);
                self.log.read_chunk(ticket, &head, wanted.ask.chunk);
            }
        }
        at
    }

    /// When a chunk of this snapshot may be read: if now, it is counted. The log waits for whoever
    /// fetches it, and ends at `lag_bytes` all the same: it must be done before.
    fn pace_chunks(&mut self, now: Ticks, head: &SnapshotHead) -> Ticks {
        let rules = self.settings.snapshots;
        let room = rules.lag_bytes.saturating_sub(rules.log_bytes).max(rules.log_bytes);
        let rules = PaceRules {
            bytes_per_second: rules.bytes_per_second,
            log_bytes: room / LOG_PARTS,
            whole_bytes: head.length,
        };
        let logged = self.log.stats().bytes;
        let pace = self.serving.pace.get_or_insert_with(|| Pace::new(now, logged));
        let at = pace.look(now, logged, rules);
        if at <= now {
            pace.spend(CHUNK_ROOM);
        }
        at
    }

    fn kept_snapshot(&self, group: GroupId, number: u64) -> Option<SnapshotHead> {
        let &slot = self.slots.get(&group)?;
        if self.fenced.contains(&slot) {
            return None;
        }
        let kept = self.groups[slot].kept.iter().chain(&self.serving.old);
        kept.copied().find(|head| (head.group, head.number) == (group, number))
    }

    /// What finds no room is as good as lost: it is asked for again.
    fn send_chunk(&mut self, wanted: Wanted, read: Option<&Chunk>) {
        let Wanted { to, group, ask: ChunkAsk { number, chunk } } = wanted;
        let content = read.map_or(0, |read| read.content);
        let head = ChunkHead { number, chunk, content, found: read.is_some() };
        let bytes = read.map_or(&[][..], |read| &read.bytes);
        if let Some(outbox) = self.links.serve(to).filter(|outbox| !outbox.is_full()) {
            head.write(outbox, group, self.settings.identity, bytes);
        }
    }
}
