//! Where entries live: per group, one span per block, not per entry; and where blocks live: per
//! segment, one place per block. 24 bytes for a span and 16 for a place.

use ringraft_types::{GroupId, Index, Sequence};
use rustc_hash::FxHashMap;
use std::collections::{BTreeSet, VecDeque};

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
    /// Some span lies in an older block than the one before it: its entries were carried.
    is_carried: bool,
    /// The oldest block that holds any of these, as [`GroupIndex::oldest`] has it.
    oldest: Option<Sequence>,
}

impl Spans {
    /// Puts a span behind all others, or makes the last one longer.
    fn push(&mut self, new: Span) {
        match self.spans.back_mut() {
            Some(back) if back.last.next() == new.first && back.sequence == new.sequence => {
                back.last = new.last;
            }
            back => {
                self.is_carried |= back.is_some_and(|back| back.sequence > new.sequence);
                self.spans.push_back(new);
            }
        }
    }

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

/// How spans changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    /// Nothing went, and what came lies in no older block than all else.
    Grown,
    /// In any other way.
    Otherwise,
}

/// All groups of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupIndex {
    groups: FxHashMap<GroupId, Spans>,
    /// Of each group with entries, the oldest block that holds any of them.
    oldest: BTreeSet<(Sequence, GroupId)>,
    /// More removals than any group that was forgotten had: where others begin to count.
    forgotten: u64,
}

impl GroupIndex {
    /// Changes the spans of a group, and `oldest` with them. Only a group of which entries were
    /// carried is looked through for that, and not when it just grows: all others' blocks ascend.
    fn change(&mut self, group: GroupId, change: impl FnOnce(&mut Spans) -> Changed) {
        let removals = self.forgotten;
        let spans =
            self.groups.entry(group).or_insert_with(|| Spans { removals, ..Spans::default() });
        if change(spans) == Changed::Grown && spans.oldest.is_some() {
            return;
        }
        let sequences = || spans.spans.iter().map(|span| span.sequence);
        spans.is_carried = spans.is_carried && !sequences().is_sorted();
        let oldest = if spans.is_carried { sequences().min() } else { sequences().next() };
        if oldest != spans.oldest {
            if let Some(old) = spans.oldest {
                self.oldest.remove(&(old, group));
            }
            self.oldest.extend(oldest.map(|new| (new, group)));
            spans.oldest = oldest;
        }
    }

    /// Entries `first` to `last` were appended in the block `sequence`: earlier ones from `first`
    /// on are forgotten, and everything before them if the new ones don't follow on.
    pub(crate) fn append(&mut self, group: GroupId, first: Index, last: Index, sequence: Sequence) {
        assert!(first <= last && first > Index::ZERO, "a run holds entries, and index 0 is none");
        self.change(group, |spans| {
            let removals = spans.removals;
            spans.remove_from(first);
            if spans.spans.back().is_some_and(|back| back.last.next() != first) {
                spans.spans.clear();
                spans.removals += 1;
            }
            spans.push(Span { first, last, sequence });
            if spans.removals == removals { Changed::Grown } else { Changed::Otherwise }
        });
    }

    /// The entry `index` was carried to the block `sequence`.
    pub(crate) fn carry(&mut self, group: GroupId, index: Index, sequence: Sequence) {
        self.place(group, Span { first: index, last: index, sequence });
    }

    /// Puts a span where it belongs, in the place of what is there.
    pub(crate) fn place(&mut self, group: GroupId, new: Span) {
        self.change(group, |spans| {
            let count = spans.spans.len() + 2;
            let old = std::mem::replace(&mut spans.spans, VecDeque::with_capacity(count));
            let mut pending = Some(new);
            for span in old {
                if span.first < new.first {
                    spans.push(Span { last: span.last.min(new.first.previous()), ..span });
                }
                if span.last > new.last {
                    if let Some(new) = pending.take() {
                        spans.push(new);
                    }
                    spans.push(Span { first: span.first.max(new.last.next()), ..span });
                }
            }
            if let Some(new) = pending {
                spans.push(new);
            }
            Changed::Otherwise
        });
    }

    /// Adds a span behind all others, after a gap or not: what recovery found.
    pub(crate) fn extend(&mut self, group: GroupId, span: Span) {
        self.change(group, |spans| {
            assert!(spans.spans.back().is_none_or(|back| back.last < span.first), "in order");
            spans.push(span);
            let is_newer = spans.oldest.is_some_and(|oldest| oldest <= span.sequence);
            if is_newer { Changed::Grown } else { Changed::Otherwise }
        });
    }

    /// The group's entries from `from` on are forgotten.
    pub(crate) fn truncate(&mut self, group: GroupId, from: Index) {
        self.change(group, |spans| {
            spans.remove_from(from);
            Changed::Otherwise
        });
    }

    /// The group's entries up to `through` are forgotten: a snapshot covers them.
    pub(crate) fn release(&mut self, group: GroupId, through: Index) {
        self.change(group, |spans| {
            while spans.spans.front().is_some_and(|front| front.last <= through) {
                spans.spans.pop_front();
            }
            if let Some(front) = spans.spans.front_mut() {
                front.first = front.first.max(through.next());
            }
            Changed::Otherwise
        });
    }

    /// The group isn't here any more.
    pub(crate) fn forget(&mut self, group: GroupId) {
        let Some(spans) = self.groups.remove(&group) else { return };
        if let Some(oldest) = spans.oldest {
            self.oldest.remove(&(oldest, group));
        }
        self.forgotten = self.forgotten.max(spans.removals + 1);
    }

    /// The span that holds this entry.
    #[cfg(test)]
    pub(crate) fn find(&self, group: GroupId, index: Index) -> Option<Span> {
        let spans = &self.groups.get(&group)?.spans;
        let at = spans.partition_point(|span| span.last < index);
        spans.get(at).copied().filter(|span| span.first <= index)
    }

    /// The span that holds this entry, for who asks for one after the other: `near` is where it was
    /// the last time.
    pub(crate) fn find_near(&self, group: GroupId, index: Index, near: &mut usize) -> Option<Span> {
        let spans = &self.groups.get(&group)?.spans;
        let holds =
            |at: usize| spans.get(at).is_some_and(|it| it.first <= index && index <= it.last);
        if !holds(*near) {
            let is_next = holds(*near + 1);
            let at = if is_next { *near + 1 } else { spans.partition_point(|it| it.last < index) };
            *near = at;
        }
        spans.get(*near).copied().filter(|span| span.first <= index)
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

    /// The groups of which entries lie in this block, in order.
    pub(crate) fn groups_in(&self, sequence: Sequence) -> Vec<GroupId> {
        let is_in = |spans: &Spans| spans.spans.iter().any(|span| span.sequence == sequence);
        let mut groups: Vec<GroupId> =
            self.groups.iter().filter(|(_, spans)| is_in(spans)).map(|(&id, _)| id).collect();
        groups.sort_unstable();
        groups
    }

    /// How often entries of this group were removed.
    pub(crate) fn removals(&self, group: GroupId) -> u64 {
        self.groups.get(&group).map_or(self.forgotten, |spans| spans.removals)
    }

    /// First and last entry held of a group.
    pub(crate) fn bounds(&self, group: GroupId) -> Option<(Index, Index)> {
        let spans = &self.groups.get(&group)?.spans;
        Some((spans.front()?.first, spans.back()?.last))
    }

    /// Whether any group still needs a block up to this one.
    pub(crate) fn needs_up_to(&self, sequence: Sequence) -> bool {
        self.oldest.first().is_some_and(|(oldest, _)| *oldest <= sequence)
    }

    /// The groups of which an entry lies below a sequence, in order.
    pub(crate) fn groups_below(&self, sequence: Sequence) -> Vec<GroupId> {
        let below = self.oldest.range(..(sequence, GroupId::ZERO));
        let mut groups: Vec<GroupId> = below.map(|(_, group)| *group).collect();
        groups.sort_unstable();
        groups
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
        // Wherever it is looked first, the same is found.
        for (at, near) in (17..27).flat_map(|at| (0..5).map(move |near| (at, near))) {
            let found = index.find_near(GROUP, Index(at), &mut { near });
            assert_eq!(found, index.find(GROUP, Index(at)), "{at}, near {near}");
        }
        assert_eq!(index.find(GROUP, Index(23)).map(|span| span.sequence), Some(Sequence(5)));
        assert!(index.needs_up_to(Sequence(5)) && !index.needs_up_to(Sequence(4)));
    }

    /// Whatever happens to the spans, which groups need old blocks is answered as a look at every
    /// span would.
    #[test]
    fn oldest_blocks_are_those_of_all_spans() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let mut index = GroupIndex::default();
            let mut next = [1; 4];
            for sequence in 1..=60 {
                let at = random.usize(..4);
                let group = GroupId(at as u64 + 1);
                let any = Index(random.u64(1..=next[at]));
                match random.u32(..11) {
                    10 => {
                        let removals = index.removals(group);
                        index.forget(group);
                        assert!(index.removals(group) > removals || removals == index.forgotten);
                    }
                    0 => index.truncate(group, any),
                    1 => index.release(group, any),
                    2 => index.carry(group, any, Sequence(sequence)),
                    3 => index.append(
                        group,
                        Index(next[at] + 7),
                        Index(next[at] + 9),
                        Sequence(sequence),
                    ),
                    _ => {
                        index.append(group, any, Index(any.0 + random.u64(..5)), Sequence(sequence))
                    }
                }
                next[at] = index.bounds(group).map_or(1, |(_, last)| last.0 + 1);
                let asked = Sequence(random.u64(..=sequence + 1));
                let is_held = |id, up_to: u64| {
                    let spans = index.groups.get(&GroupId(id));
                    let mut spans = spans.into_iter().flat_map(|spans| &spans.spans);
                    spans.any(|span| span.sequence.0 < up_to)
                };
                let below: Vec<GroupId> =
                    (1..=4).filter(|&id| is_held(id, asked.0)).map(GroupId).collect();
                assert_eq!(index.groups_below(asked), below);
                let is_needed = (1..=4).any(|id| is_held(id, asked.0 + 1));
                assert_eq!(index.needs_up_to(asked), is_needed);
            }
        }
    }
}
