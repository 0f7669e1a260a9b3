//! What has come of a snapshot that is being fetched, and who gives what of it (decision 0017).
//!
//! The chunks of a snapshot are in stretches: its strands, then the rest. A strand holds the same at
//! every node that keeps a snapshot of the same entry, in another order. So each stretch comes from
//! one source at a time, in order; sources that have nothing to give take the next one that nobody
//! gives. If a source is given up its stretch begins anew with another, and its chunks take the place
//! of those that are in the file. The rest may differ in length from node to node: it stands last.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ringraft_net::bulk_wire::{ChunkHead, SnapshotOffer};
use ringraft_types::{LogId, NodeId, STRANDS, Ticks};
use ringraft_wal::snapshot::{CHUNK_ROOM, Layout};

/// Chunks of one source that are asked for, or have come and wait for those before them.
const CHUNKS_AHEAD: u32 = 4;
/// Sources of one snapshot at once: with their chunks ahead, what is held in memory, 4 MiB.
const SOURCES_MAX: usize = 4;
/// An answer that takes longer is asked for again.
pub(super) const ANSWER_TIME: Ticks = Ticks::from_millis(2_000);
/// A source of which nothing new comes for this long is given up.
pub(super) const SOURCE_TIME: Ticks = Ticks::from_millis(10_000);

/// The place of the rest among the stretches.
const REST: usize = STRANDS;

/// What an offer says of the chunks; `None` if it contradicts itself.
pub(super) fn layout(offer: &SnapshotOffer) -> Option<Layout> {
    let layout = Layout::new(offer.strands, offer.bytes)?;
    (offer.chunks > 0 && layout.chunks() == offer.chunks).then_some(layout)
}

/// A chunk that came: its bytes, and the checksum of them that its source found on its disk.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) content: u32,
}

/// A chunk that isn't in the file.
#[derive(Debug)]
enum Ahead {
    AskedAt(Ticks),
    There(Piece),
}

/// A stretch on its way.
#[derive(Debug)]
struct Coming {
    chunks: Range<u32>,
    /// The next one to be put into the file.
    next: u32,
    /// Who gives it, or gave it.
    source: Option<NodeId>,
    /// When each of the next ones was asked for, or that it is there.
    ahead: BTreeMap<u32, Ahead>,
}

impl Coming {
    fn is_complete(&self) -> bool {
        self.next == self.chunks.end
    }
}

/// A node that gives a part of it.
#[derive(Debug)]
struct Source {
    node: NodeId,
    /// The file's number there.
    number: u64,
    layout: Layout,
    /// When something last came of it, or was first asked of it.
    heard: Ticks,
    /// The stretch that it gives.
    stretch: Option<usize>,
}

impl Source {
    fn rest(&self) -> (u32, u64) {
        let rest = self.layout.stretches().nth(REST).expect("there is a rest");
        (rest.chunks.end, rest.bytes)
    }
}

/// A chunk to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) source: NodeId,
    /// The file's number there.
    pub(super) number: u64,
    pub(super) chunk: u32,
}

/// What became of a chunk that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It was asked for.
    Taken,
    /// It wasn't, or is here already.
    LetGo,
    /// The source hasn't got it any more, or it isn't what was offered.
    Wrong,
}

/// What has come of a snapshot.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Of the file here.
    pub(super) number: u64,
    offer: SnapshotOffer,
    sources: Vec<Source>,
    /// Who may give a part of it too, and when it was asked whether it has it.
    asked: BTreeMap<NodeId, Option<Ticks>>,
    stretches: Vec<Coming>,
    /// Chunks of the rest that were put into the file, of whichever source had most.
    rest_put: u32,
    /// The stretch after which the next is looked at.
    last_put: usize,
}

impl Transfer {
    /// One that this node offers; others may give a part of it.
    pub(super) fn new(
        now: Ticks,
        number: u64,
        node: NodeId,
        offer: SnapshotOffer,
        others: impl Iterator<Item = NodeId>,
    ) -> Self {
        let layout = layout(&offer).expect("it was judged");
        let stretches = layout.stretches().map(|stretch| Coming {
            next: stretch.chunks.start,
            chunks: stretch.chunks,
            source: None,
            ahead: BTreeMap::new(),
        });
        let stretches = stretches.collect();
        let is_parted = offer.strands != [0; STRANDS];
        let asked = others.filter(|_| is_parted).map(|node| (node, None)).collect();
        let first = Source { node, number: offer.number, layout, heard: now, stretch: None };
        let sources = vec![first];
        Self { number, offer, sources, asked, stretches, rest_put: 0, last_put: REST }
    }

    /// The newest entry in it.
    pub(super) fn last(&self) -> LogId {
        self.offer.last()
    }

    /// Whether every chunk was put into the file.
    pub(super) fn is_complete(&self) -> bool {
        self.stretches.iter().all(Coming::is_complete)
    }

    /// Who gives it, the one that was asked first in front.
    pub(super) fn sources(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.sources.iter().map(|source| source.node)
    }

    /// How many nodes gave it, once it is complete, and who gave the rest.
    pub(super) fn gave(&self) -> (usize, Option<NodeId>) {
        let given = self.stretches.iter().filter(|stretch| !stretch.chunks.is_empty());
        let gave: BTreeSet<NodeId> = given.filter_map(|stretch| stretch.source).collect();
        (gave.len(), self.stretches[REST].source)
    }

    /// Chunks that are in the file, and that there are.
    pub(super) fn progress(&self) -> (u32, u32) {
        let put = self.stretches.iter().map(|it| it.next - it.chunks.start).sum();
        (put, self.stretches[REST].chunks.end)
    }

    /// Nodes that are to be asked whether they have it.
    pub(super) fn to_ask(&self, now: Ticks) -> Vec<NodeId> {
        let is_due = |asked: Option<Ticks>| asked.is_none_or(|at| now >= at.after(ANSWER_TIME));
        let due = self.asked.iter().filter(|(_, asked)| is_due(**asked));
        due.map(|(&node, _)| node).collect()
    }

    /// A node was asked.
    pub(super) fn was_asked(&mut self, now: Ticks, node: NodeId) {
        self.asked.insert(node, Some(now));
    }

    /// A node that was asked says what it has: if that is the same, it is a source from now on.
    pub(super) fn offered(&mut self, now: Ticks, node: NodeId, offer: &SnapshotOffer) {
        if self.asked.remove(&node).is_none() {
            return;
        }
        let is_same = offer.number > 0
            && offer.last() == self.offer.last()
            && offer.strands == self.offer.strands;
        if let Some(layout) = layout(offer).filter(|_| is_same)
            && self.sources.len() < SOURCES_MAX
        {
            let number = offer.number;
            self.sources.push(Source { node, number, layout, heard: now, stretch: None });
        }
    }

    /// Whether a source's rest may stand where another's was begun: a file doesn't get shorter.
    fn may_give_rest(&self, source: &Source) -> bool {
        u64::from(self.rest_put) * CHUNK_ROOM as u64 <= source.rest().1
    }

    /// Gives every source that gives nothing a stretch that nobody gives. Returns whether it can come
    /// to its end with these sources.
    pub(super) fn share_out(&mut self, now: Ticks) -> bool {
        for at in 0..self.sources.len() {
            if self.sources[at].stretch.is_some() {
                continue;
            }
            let is_free = |it: &Coming| it.source.is_none() && !it.is_complete();
            let may_give_rest = self.may_give_rest(&self.sources[at]);
            let rest = Some(REST).filter(|_| may_give_rest && is_free(&self.stretches[REST]));
            let stretch = rest.or_else(|| self.stretches[..REST].iter().position(is_free));
            let source = &mut self.sources[at];
            let Some(place) = stretch else { continue };
            (source.stretch, source.heard) = (Some(place), now);
            self.stretches[place].source = Some(source.node);
            if place == REST {
                self.stretches[REST].chunks.end = source.rest().0;
            }
        }
        let rest = &self.stretches[REST];
        let is_given = rest.is_complete() || rest.source.is_some();
        !self.sources.is_empty()
            && (is_given || self.sources.iter().any(|source| self.may_give_rest(source)))
    }

    /// The next chunk that can be put into the file, which takes what `takes` says.
    pub(super) fn take_next(&mut self, takes: impl Fn(u32) -> bool) -> Option<(u32, Piece)> {
        let count = self.stretches.len();
        for at in (1..=count).map(|step| (self.last_put + step) % count) {
            let coming = &mut self.stretches[at];
            let chunk = coming.next;
            let Some(Ahead::There(piece)) = coming.ahead.get_mut(&chunk) else { continue };
            if !takes(chunk) {
                continue;
            }
            let piece = std::mem::take(piece);
            coming.ahead.remove(&chunk);
            coming.next += 1;
            self.last_put = at;
            if at == REST {
                self.rest_put = self.rest_put.max(coming.next - coming.chunks.start);
            }
            if coming.is_complete() {
                let source = self.sources.iter_mut().find(|it| it.stretch == Some(at));
                source.expect("what comes has a source").stretch = None;
            }
            return Some((chunk, piece));
        }
        None
    }

    /// The chunks that are to be asked for, in the order of their sources, and when to look again.
    pub(super) fn due(&self, now: Ticks) -> (Vec<Due>, Ticks) {
        let (mut due, mut at) = (Vec::new(), Ticks::NEVER);
        for source in &self.sources {
            let Some(stretch) = source.stretch else { continue };
            let coming = &self.stretches[stretch];
            let end = coming.chunks.end.min(coming.next.saturating_add(CHUNKS_AHEAD));
            for chunk in coming.next..end {
                match coming.ahead.get(&chunk) {
                    Some(Ahead::There(_)) => continue,
                    // Others come before it: it isn't late as long as they do.
                    Some(Ahead::AskedAt(asked)) => {
                        let late_at = source.heard.max(*asked).after(ANSWER_TIME);
                        if now < late_at {
                            at = at.min(late_at);
                            continue;
                        }
                    }
                    None => {}
                }
                due.push(Due { source: source.node, number: source.number, chunk });
            }
            if !self.waits_for_us(source) {
                at = at.min(source.heard.after(SOURCE_TIME));
            }
        }
        for asked in self.asked.values().flatten() {
            at = at.min(asked.after(ANSWER_TIME));
        }
        (due, at)
    }

    /// A chunk was asked for.
    pub(super) fn chunk_asked(&mut self, now: Ticks, due: Due) {
        let coming = self
            .stretches
            .iter_mut()
            .find(|it| it.source == Some(due.source) && it.chunks.contains(&due.chunk));
        let coming = coming.expect("it was due");
        coming.ahead.insert(due.chunk, Ahead::AskedAt(now));
    }

    /// A chunk came.
    pub(super) fn chunk_came(
        &mut self,
        now: Ticks,
        from: NodeId,
        head: ChunkHead,
        bytes: &[u8],
    ) -> Came {
        let is_of = |source: &&mut Source| source.node == from && source.number == head.number;
        let Some(source) = self.sources.iter_mut().find(is_of) else { return Came::LetGo };
        let Some(stretch) = source.stretch else { return Came::LetGo };
        let ahead = self.stretches[stretch].ahead.get_mut(&head.chunk);
        let Some(ahead @ Ahead::AskedAt(_)) = ahead else { return Came::LetGo };
        if !head.found || bytes.len() != source.layout.room(head.chunk) {
            return Came::Wrong;
        }
        *ahead = Ahead::There(Piece { bytes: bytes.to_vec(), content: head.content });
        source.heard = now;
        Came::Taken
    }

    /// A connection is lost: what was asked for over it is asked for again.
    pub(super) fn pull_lost(&mut self, node: NodeId) {
        if let Some(asked) = self.asked.get_mut(&node) {
            *asked = None;
        }
        for coming in self.stretches.iter_mut().filter(|it| it.source == Some(node)) {
            coming.ahead.retain(|_, ahead| matches!(ahead, Ahead::There(_)));
        }
    }

    /// A source that brought nothing for too long, though there was something to bring.
    pub(super) fn silent(&self, now: Ticks) -> Option<NodeId> {
        let is_silent =
            |source: &&Source| now >= source.heard.after(SOURCE_TIME) && !self.waits_for_us(source);
        self.sources.iter().find(is_silent).map(|source| source.node)
    }

    /// Whether a source has given all that it was asked for, or was asked for nothing.
    fn waits_for_us(&self, source: &Source) -> bool {
        let Some(stretch) = source.stretch else { return true };
        let ahead = &self.stretches[stretch].ahead;
        !ahead.is_empty() && ahead.values().all(|it| matches!(it, Ahead::There(_)))
    }

    /// A source is given up: what it hasn't given to the end begins anew with another.
    pub(super) fn give_up(&mut self, node: NodeId) {
        self.sources.retain(|source| source.node != node);
        for coming in self.stretches.iter_mut().filter(|it| it.source == Some(node)) {
            if !coming.is_complete() {
                (coming.next, coming.source) = (coming.chunks.start, None);
                coming.ahead.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_types::{Index, Term};

    const ROOM: u64 = CHUNK_ROOM as u64;
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn offer(number: u64, rest: u64) -> SnapshotOffer {
        let mut strands = [0; STRANDS];
        (strands[0], strands[5]) = (2 * ROOM, 10);
        let bytes = strands.iter().sum::<u64>() + rest;
        let chunks = Layout::new(strands, bytes).expect("it is one").chunks();
        let (term, index) = (Term(2), Index(9));
        SnapshotOffer { number, term, index, bytes, chunks, strands }
    }

    /// Asks for what is due of a source, and brings it.
    fn bring(transfer: &mut Transfer, now: Ticks, from: NodeId, chunks: usize) {
        let (due, _) = transfer.due(now);
        for due in due.into_iter().filter(|due| due.source == from).take(chunks) {
            transfer.chunk_asked(now, due);
            let head = ChunkHead { number: due.number, chunk: due.chunk, content: 0, found: true };
            let source = transfer.sources.iter().find(|it| it.node == from).expect("a source");
            let bytes = vec![from.0 as u8; source.layout.room(due.chunk)];
            assert_eq!(transfer.chunk_came(now, from, head, &bytes), Came::Taken);
            assert_eq!(transfer.chunk_came(now, from, head, &bytes), Came::LetGo);
        }
    }

    fn put_all(transfer: &mut Transfer) -> Vec<u32> {
        std::iter::from_fn(|| transfer.take_next(|_| true).map(|(chunk, _)| chunk)).collect()
    }

    fn two(rest_of_a: u64, rest_of_b: u64) -> Transfer {
        let now = Ticks(5);
        let mut transfer = Transfer::new(now, 7, A, offer(3, rest_of_a), [B].into_iter());
        assert_eq!(transfer.to_ask(now), [B]);
        transfer.was_asked(now, B);
        assert_eq!(transfer.to_ask(now), []);
        transfer.offered(now, B, &offer(4, rest_of_b));
        assert_eq!(transfer.sources().collect::<Vec<_>>(), [A, B]);
        assert!(transfer.share_out(now));
        transfer
    }

    /// Who was asked first gives the rest, the others strands; a source that has come to an end takes
    /// the next stretch.
    #[test]
    fn stretches_are_shared_out() {
        let mut transfer = two(3 * ROOM, 3 * ROOM + 1);
        bring(&mut transfer, Ticks(6), B, 9);
        assert_eq!(put_all(&mut transfer), [0, 1]);
        assert!(transfer.share_out(Ticks(7)));
        bring(&mut transfer, Ticks(7), B, 9);
        bring(&mut transfer, Ticks(7), A, 9);
        assert_eq!(put_all(&mut transfer), [2, 3, 4, 5]);
        assert!(transfer.is_complete() && transfer.share_out(Ticks(8)));
        assert_eq!((transfer.progress(), transfer.gave()), ((6, 6), (2, Some(A))));
    }

    /// A source that is given up leaves what it gave to the end; what it began, others begin anew.
    #[test]
    fn what_was_begun_begins_anew() {
        let mut transfer = two(3 * ROOM, 3 * ROOM + 1);
        bring(&mut transfer, Ticks(6), A, 2);
        bring(&mut transfer, Ticks(6), B, 2);
        assert_eq!(put_all(&mut transfer).len(), 4);
        transfer.give_up(A);
        assert_eq!(transfer.progress().0, 2, "the strand stays");
        assert!(transfer.share_out(Ticks(7)), "the rest is longer there");
        bring(&mut transfer, Ticks(8), B, 9);
        assert_eq!(put_all(&mut transfer), [3, 4, 5, 6]);
        assert!(transfer.share_out(Ticks(9)));
        bring(&mut transfer, Ticks(9), B, 9);
        assert_eq!(put_all(&mut transfer), [2]);
        assert!(transfer.is_complete());
        assert_eq!(transfer.gave(), (1, Some(B)));
    }

    /// A rest that is shorter than what is in the file can't take its place: all begins anew.
    #[test]
    fn a_file_does_not_get_shorter() {
        let mut transfer = two(3 * ROOM, 2 * ROOM - 1);
        bring(&mut transfer, Ticks(6), A, 2);
        put_all(&mut transfer);
        transfer.give_up(A);
        assert!(!transfer.share_out(Ticks(7)));
        let mut transfer = two(3 * ROOM, 2 * ROOM - 1);
        bring(&mut transfer, Ticks(6), A, 1);
        put_all(&mut transfer);
        transfer.give_up(A);
        assert!(transfer.share_out(Ticks(7)));
    }

    /// A node that has another snapshot, or none, or says what can't be, is no source.
    #[test]
    fn who_has_another_one_is_no_source() {
        let good = offer(4, ROOM);
        let mut shifted = good.strands;
        shifted.swap(0, 1);
        for bad in [
            SnapshotOffer::default(),
            SnapshotOffer { index: Index(10), ..good },
            SnapshotOffer { term: Term(1), ..good },
            SnapshotOffer { strands: shifted, ..good },
            SnapshotOffer { chunks: good.chunks + 1, ..good },
            SnapshotOffer { bytes: 1, ..good },
        ] {
            let mut transfer = Transfer::new(Ticks(5), 7, A, offer(3, ROOM), [B].into_iter());
            transfer.was_asked(Ticks(5), B);
            transfer.offered(Ticks(6), B, &bad);
            assert_eq!(transfer.sources().len(), 1, "{bad:?}");
            assert_eq!(transfer.to_ask(Ticks(60_000_000)), []);
        }
    }

    /// A source is silent if something is asked of it and nothing comes; not while what came waits.
    #[test]
    fn who_waits_for_us_is_not_silent() {
        let mut transfer = two(3 * ROOM, ROOM);
        let late = Ticks(6).after(SOURCE_TIME);
        assert_eq!(transfer.silent(late), Some(A), "asked for nothing yet, but given a stretch");
        bring(&mut transfer, Ticks(6), A, 9);
        bring(&mut transfer, Ticks(6), B, 1);
        let due = Due { source: B, number: 4, chunk: 1 };
        transfer.chunk_asked(Ticks(6), due);
        assert_eq!(transfer.silent(late), Some(B));
        transfer.give_up(B);
        assert_eq!(transfer.silent(late), None);
        transfer.pull_lost(A);
        assert_eq!(put_all(&mut transfer), [3, 4, 5], "what came is kept");
    }
}
