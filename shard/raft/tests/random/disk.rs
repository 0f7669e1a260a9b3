//! What survives a crash: a log in which entries are cut and appended, and a snapshot beside it.

use crate::node::Entry;
use ringraft_raft::{HardState, LogShape, Token};
use ringraft_types::{Index, LogId, Term};

/// What one step asked to persist.
pub(crate) struct Batch {
    pub(crate) token: Token,
    pub(crate) truncate_from: Option<Index>,
    pub(crate) append: Option<(Index, Vec<Entry>)>,
    pub(crate) hard_state: Option<HardState>,
}

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    /// The entry before the first one of the log.
    before: u64,
    log: Vec<Entry>,
    /// Everything up to the snapshot's end; a machine's state is the commands that made it.
    pub(crate) snapshot: Vec<Entry>,
    /// What a start would have found when rot took the end of the log; empty once that is as new
    /// again, as the log's replay finds out.
    pub(crate) lost: Vec<Entry>,
}

/// The last entry of a log that begins with the first.
pub(crate) fn end_of(entries: &[Entry]) -> LogId {
    let term = entries.last().map_or(Term::ZERO, |entry| entry.term);
    LogId::new(term, Index(entries.len() as u64))
}

impl Disk {
    fn cut(&mut self, index: Index) {
        if index.0 <= self.before {
            (self.before, self.log) = (index.0 - 1, Vec::new());
        }
        self.log.truncate((index.0 - 1 - self.before) as usize);
    }

    /// As the write-ahead log does: what doesn't follow on takes the place of everything.
    pub(crate) fn write(&mut self, batch: Batch) {
        if let Some(index) = batch.truncate_from {
            self.cut(index);
        }
        if let Some((first, entries)) = batch.append {
            self.cut(first);
            if self.before + self.log.len() as u64 + 1 != first.0 {
                (self.before, self.log) = (first.0 - 1, Vec::new());
            }
            for entry in entries {
                self.log.push(entry);
                let index = Index(self.before + self.log.len() as u64);
                if LogId::new(entry.term, index) >= end_of(&self.lost) {
                    self.lost.clear();
                }
            }
        }
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
    }

    /// Rot takes the end of the log, as much of it as chance wants; says whether there was any.
    pub(crate) fn rot(&mut self, chance: u64) -> bool {
        let whole = self.whole();
        if self.log.is_empty() {
            return false;
        }
        if end_of(&whole) > end_of(&self.lost) {
            self.lost = whole;
        }
        self.log.truncate((chance % self.log.len() as u64) as usize);
        true
    }

    /// Whether a node that finds this is to vote as if it held more.
    pub(crate) fn is_damaged(&self) -> bool {
        let (lost, snapshot) = (end_of(&self.lost), end_of(&self.snapshot));
        lost.index > snapshot.index && lost > snapshot
    }

    /// Forgets entries that the snapshot holds, as many as these.
    pub(crate) fn purge(&mut self, through: u64) {
        let gone = through.min(self.snapshot.len() as u64).saturating_sub(self.before);
        let gone = (gone as usize).min(self.log.len());
        self.log.drain(..gone);
        self.before += gone as u64;
    }

    /// How many entries of the log stand behind the snapshot, told without the core's own rule.
    fn behind(&self) -> &[Entry] {
        let snapshot = self.snapshot.len() as u64;
        let Some(at) = snapshot.checked_sub(self.before) else { panic!("entries are missing") };
        let is_held = at == 0
            || self.log.get(at as usize - 1).is_some_and(|one| Some(one) == self.snapshot.last());
        if is_held { &self.log[at as usize..] } else { &[] }
    }

    /// Everything that a start finds.
    pub(crate) fn whole(&self) -> Vec<Entry> {
        [&self.snapshot[..], self.behind()].concat()
    }

    pub(crate) fn get(&self, position: usize) -> Option<&Entry> {
        match position.checked_sub(self.snapshot.len()) {
            None => self.snapshot.get(position),
            Some(behind) => self.behind().get(behind),
        }
    }

    /// Whether a start finds these entries from the first one on.
    pub(crate) fn begins_with(&self, entries: &[Entry]) -> bool {
        let (covered, rest) = entries.split_at(entries.len().min(self.snapshot.len()));
        self.snapshot.starts_with(covered) && self.behind().starts_with(rest)
    }

    /// What the log alone looks like, as an owner reads it back.
    pub(crate) fn shape(&self) -> LogShape {
        let mut runs: Vec<(Index, Term)> = Vec::new();
        for (index, entry) in (self.before + 1..).zip(&self.log) {
            if runs.last().is_none_or(|run| run.1 < entry.term) {
                runs.push((Index(index), entry.term));
            }
        }
        let last = Index(self.before + self.log.len() as u64);
        LogShape { base: LogId::new(Term::ZERO, Index(self.before)), runs, last }
    }
}
