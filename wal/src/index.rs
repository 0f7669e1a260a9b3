//! Where entries live: per group, one span per block, not per entry; and where blocks live: per
//! segment, one place per block. 24 bytes for a span and 16 for a place.

use ringraft_types::{GroupId, Index, Sequence};
use std::collections::{HashMap, VecDeque};

/// Entries of one group in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Index,
    pub(crate) last: Index,
    pub(crate) sequence: Sequence,
}

/// The spans of one group, ascending, without overlap. Gaps are possible where recovery found rot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans {
    spans: VecDeque<Span>,
    /// Counts removals, so that a read that began before one notices.
    pub(crate) removals: u64,
}

impl Spans {
    fn remove_from(&mut self, from: Index) {
        let Some(back) = self.spans.back() else { return };
        if back.last < from {
            return;
        }
        self.removals += 1;
        while self.spans.back().is_some_and(|back| back.first >= from) {
            self.spans.pop_back();
        }
        if let Some(back) = self.spans.back_mut() {
            back.last = back.last.min(from.previous());
        }
    }
}

/// All groups of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupIndex {
    groups: HashMap<GroupId, Spans>,
}

impl GroupIndex {
    /// Entries `first` to `last` were appended in the block `sequence`: earlier ones from `first`
    /// on are forgotten, and everything before them if the new ones don't follow on.
    pub(crate) fn append(&mut self, group: GroupId, first: Index, last: Index, sequence: Sequence) {
        assert!(first <= last && first > Index::ZERO, "a run holds entries, and index 0 is none");
        let spans = self.groups.entry(group).or_default();
        spans.remove_from(first);
        match spans.spans.back_mut() {
            Some(back) if back.last.next() == first && back.sequence == sequence => {
                back.last = last;
            }
            back => {
                if back.is_some_and(|back| back.last.next() != first) {
                    spans.spans.clear();
                    spans.removals += 1;
                }
                spans.spans.push_back(Span { first, last, sequence });
            }
        }
    }

    /// The entry `index` was carried to the block `sequence`.
    pub(crate) fn carry(&mut self, group: GroupId, index: Index, sequence: Sequence) {
        self.place(group, Span { first: index, last: index, sequence });
    }

    /// Puts a span where it belongs, in the place of what is there.
    pub(crate) fn place(&mut self, group: GroupId, new: Span) {
        let spans = self.groups.entry(group).or_default();
        let mut rebuilt: VecDeque<Span> = VecDeque::with_capacity(spans.spans.len() + 2);
        let mut pending = Some(new);
        for span in spans.spans.drain(..) {
            if span.first < new.first {
                rebuilt.push_back(Span { last: span.last.min(new.first.previous()), ..span });
            }
            if span.last > new.last {
                if let Some(new) = pending.take() {
                    push_joined(&mut rebuilt, new);
                }
                rebuilt.push_back(Span { first: span.first.max(new.last.next()), ..span });
            }
        }
        if let Some(new) = pending {
            push_joined(&mut rebuilt, new);
        }
        spans.spans = rebuilt;
    }

    /// Adds a span behind all others, after a gap or not: what recovery found.
    pub(crate) fn extend(&mut self, group: GroupId, span: Span) {
        let spans = self.groups.entry(group).or_default();
        assert!(spans.spans.back().is_none_or(|back| back.last < span.first), "in order");
        push_joined(&mut spans.spans, span);
    }

    /// The group's entries from `from` on are forgotten.
    pub(crate) fn truncate(&mut self, group: GroupId, from: Index) {
        if let Some(spans) = self.groups.get_mut(&group) {
            spans.remove_from(from);
        }
    }

    /// The group's entries up to `through` are forgotten: a snapshot covers them.
    pub(crate) fn release(&mut self, group: GroupId, through: Index) {
        let Some(spans) = self.groups.get_mut(&group) else { return };
        while spans.spans.front().is_some_and(|front| front.last <= through) {
            spans.spans.pop_front();
        }
        if let Some(front) = spans.spans.front_mut() {
            front.first = front.first.max(through.next());
        }
    }

    /// The span that holds this entry.
    pub(crate) fn find(&self, group: GroupId, index: Index) -> Option<Span> {
        let spans = &self.groups.get(&group)?.spans;
        let at = spans.partition_point(|span| span.last < index);
        spans.get(at).copied().filter(|span| span.first <= index)
    }

    /// The spans of a group that lie in this block, ascending.
    pub(crate) fn within(
        &self,
        group: GroupId,
        sequence: Sequence,
    ) -> impl Iterator<Item = (Index, Index)> + '_ {
        let spans = self.groups.get(&group).into_iter().flat_map(|spans| &spans.spans);
        let here = spans.filter(move |span| span.sequence == sequence);
        here.map(|span| (span.first, span.last))
    }

    /// How often entries of this group were removed.
    pub(crate) fn removals(&self, group: GroupId) -> u64 {
        self.groups.get(&group).map_or(0, |spans| spans.removals)
    }

    /// First and last entry held of a group.
    pub(crate) fn bounds(&self, group: GroupId) -> Option<(Index, Index)> {
        let spans = &self.groups.get(&group)?.spans;
        Some((spans.front()?.first, spans.back()?.last))
    }

    /// Whether any group still needs a block up to this one.
    pub(crate) fn needs_up_to(&self, sequence: Sequence) -> bool {
        // Oldest first, so a pinned segment is mostly noticed at the first group that pins it.
        let mut spans = self.groups.values().flat_map(|spans| &spans.spans);
        spans.any(|span| span.sequence <= sequence)
    }

    /// The groups of which an entry lies below a sequence, in order.
    pub(crate) fn groups_below(&self, sequence: Sequence) -> Vec<GroupId> {
        let is_below = |spans: &Spans| spans.spans.iter().any(|span| span.sequence < sequence);
        let mut groups: Vec<GroupId> =
            self.groups.iter().filter(|(_, spans)| is_below(spans)).map(|(&id, _)| id).collect();
        groups.sort_unstable();
        groups
    }
}

fn push_joined(spans: &mut VecDeque<Span>, new: Span) {
    match spans.back_mut() {
        Some(back) if back.last.next() == new.first && back.sequence == new.sequence => {
            back.last = new.last;
        }
        _ => spans.push_back(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn spans(index: &GroupIndex) -> Vec<(u64, u64, u64)> {
        let spans = &index.groups[&GROUP].spans;
        spans.iter().map(|span| (span.first.0, span.last.0, span.sequence.0)).collect()
    }

    /// Appends join, overwrite and jump; truncation and release only remove; carried entries take
    /// the place of what they carry.
    #[test]
    fn spans_follow_the_records() {
        let mut index = GroupIndex::default();
        let mut append = |first, last, sequence| {
            index.append(GROUP, Index(first), Index(last), Sequence(sequence));
            spans(&index)
        };
        assert_eq!(append(1, 5, 1), [(1, 5, 1)]);
        assert_eq!(append(6, 6, 1), [(1, 6, 1)]);
        assert_eq!(append(7, 9, 2), [(1, 6, 1), (7, 9, 2)]);
        assert_eq!(append(8, 8, 3), [(1, 6, 1), (7, 7, 2), (8, 8, 3)]);
        assert_eq!(append(5, 6, 4), [(1, 4, 1), (5, 6, 4)]);
        assert_eq!(append(20, 29, 5), [(20, 29, 5)]);
        index.truncate(GROUP, Index(25));
        assert_eq!(spans(&index), [(20, 24, 5)]);
        index.release(GROUP, Index(20));
        assert_eq!(spans(&index), [(21, 24, 5)]);
        index.carry(GROUP, Index(21), Sequence(8));
        index.carry(GROUP, Index(22), Sequence(8));
        assert_eq!(spans(&index), [(21, 22, 8), (23, 24, 5)]);
        index.carry(GROUP, Index(19), Sequence(9));
        assert_eq!(spans(&index), [(19, 19, 9), (21, 22, 8), (23, 24, 5)]);
        assert_eq!(index.find(GROUP, Index(20)), None);
        assert_eq!(index.find(GROUP, Index(23)).map(|span| span.sequence), Some(Sequence(5)));
        assert!(index.needs_up_to(Sequence(5)) && !index.needs_up_to(Sequence(4)));
    }
}
