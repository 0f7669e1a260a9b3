//! What a group is started with.

use crate::log::Log;
use ringraft_types::{Configuration, Index, LogId, NodeId, Term, Ticks};

/// Timing and limits of one group. Relations are checked where the configuration is read.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A follower that hears from no leader for this long, plus a random part of up to as much
    /// again, stands for election (thesis 3.4). Also: a leader that hears from no majority for
    /// this long steps down (check-quorum), and a voter that heard from its leader within it
    /// refuses (pre-)votes (stickiness, thesis 4.2.3).
    pub election_timeout: Ticks,
    /// A leader sends heartbeats at least this often. At most a third of `election_timeout`.
    pub heartbeat_interval: Ticks,
    /// Entries in one append.
    pub append_entries_max: u32,
    /// Record bytes in one append; a single longer record still travels alone.
    pub append_bytes_max: u64,
    /// Appends in flight to one follower.
    pub inflight_appends_max: usize,
    /// Record bytes in flight to one follower.
    pub inflight_bytes_max: u64,
    /// Reads waiting for a round, or for the leader's answer; more are refused with
    /// [`crate::Refusal::Busy`].
    pub reads_waiting_max: usize,
    /// An even number of voters commits, confirms reads and keeps a leader with half of them, the
    /// leader included; a majority elects as ever, and any has one of the half among it. Nodes may
    /// differ in this.
    pub commits_by_half: bool,
    /// For how long a leader is sure that nobody else leads, from when the heartbeats left that a
    /// majority answered: at most `election_timeout`, less what clocks may differ in their rates
    /// ([`Settings::lease_of`]). Zero: never, and [`crate::Raft::lease_index`] knows of nothing.
    pub lease: Ticks,
    /// A group of which nothing was asked for this long hibernates (module `hibernation`); zero:
    /// never. Nodes may differ in this: where one never does, none of the group does.
    pub hibernate_after: Ticks,
}

impl Settings {
    /// The lease that clocks allow whose rates differ by at most `drift` parts per thousand: the
    /// faster one counts an election timeout while the slower one counts so much less.
    ///
    /// # Panics
    /// If `drift` isn't less than a thousand.
    pub fn lease_of(election_timeout: Ticks, drift: u32) -> Ticks {
        assert!(drift < 1000, "a drift of {drift} parts of a thousand");
        Ticks(election_timeout.0 * u64::from(1000 - drift) / 1000)
    }
}

/// Term, vote and commit: what a group must find again after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Whom this node voted for in `term`.
    pub vote: Option<NodeId>,
    /// The commit index, as far as it is known to be durable; a hint, never ahead of the truth.
    pub commit: Index,
}

/// The shape of the log found at start: terms by runs, without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogShape {
    /// The entry before the first one held; zero if nothing was ever given up. Of a log read back
    /// from the disk only the index is known: [`LogShape::after_snapshot`] brings the term.
    pub base: LogId,
    /// Runs of equal terms: the first index of each, ascending; the last run ends at `last`.
    pub runs: Vec<(Index, Term)>,
    /// The newest entry's index, or `base.index` if there is none.
    pub last: Index,
}

/// Neither the snapshot nor the log holds these entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "entries {first} to {last} are missing: the snapshot ends before them, the log begins after"
)]
pub struct EntriesMissing {
    /// The first one.
    pub first: Index,
    /// The last one.
    pub last: Index,
}

impl LogShape {
    /// What is left of a log beside a snapshot that ends with `snapshot`: what is behind it, if
    /// the log holds that entry or begins after it; else nothing, for a log that ends before it or
    /// differs there says nothing about what comes after it (thesis 5).
    ///
    /// Also, from where on the entries of the log that was found must be removed before anything
    /// is appended: else a start after that would take those that differ and what was appended
    /// behind them for one log, and drop both.
    ///
    /// # Errors
    /// If entries between the two are missing.
    pub fn after_snapshot(
        self,
        snapshot: LogId,
    ) -> Result<(LogShape, Option<Index>), EntriesMissing> {
        if self.base.index > snapshot.index {
            return Err(EntriesMissing { first: snapshot.index.next(), last: self.base.index });
        }
        if self.base.index == snapshot.index {
            if self.runs.first().is_some_and(|run| run.1 < snapshot.term) {
                // What an older leader left behind it: a log's terms don't descend.
                let shape = Self { base: snapshot, runs: Vec::new(), last: snapshot.index };
                return Ok((shape, Some(snapshot.index.next())));
            }
            return Ok((Self { base: snapshot, ..self }, None));
        }
        let mut log = Log::new(self);
        let truncate_from = log.install(snapshot);
        Ok((log.shape(), truncate_from))
    }
}

/// A configuration and the entry that holds it; zero: the group began with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// The entry's index.
    pub index: Index,
    /// What it says.
    pub configuration: Configuration,
    /// Where it names this node, it means another life of its data directory, which has forgotten
    /// what that one promised: this node doesn't stand by it, nor lead alone.
    pub is_of_another: bool,
}

/// What a group starts from.
#[derive(Clone, Debug)]
pub struct Boot {
    /// This node.
    pub id: NodeId,
    /// The configuration in force at the log's base: the snapshot's, or the one that the group
    /// began with. Nobody's ([`Configuration::none`]) on a node that is to join, whatever a file
    /// says: nodes that believe different beginnings could elect each their own leader.
    pub configuration: Configured,
    /// Those in the log's entries, ascending. What the log begins after, or ends before, isn't
    /// looked at.
    pub logged: Vec<Configured>,
    /// As found in the log; the default for a new group.
    pub hard_state: HardState,
    /// As found in the log; all of it is durable. Behind a snapshot, which the owner has loaded,
    /// if its base isn't zero.
    pub log: LogShape,
    /// Entries that were acknowledged and then rotted: the group votes as if its log ended here,
    /// and doesn't campaign, until its durable log is as new again: then `Output::repaired` says so
    /// (S05). Until then its owner refuses to serve. `None` for a sound log. At or before the base
    /// it means nothing: the snapshot holds them.
    pub vote_floor: Option<LogId>,
    /// Seeds the group's own random numbers (election jitter).
    pub seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(Term(term), Index(index))
    }

    /// Every snapshot beside logs that were read back from the disk, from their first entry on or
    /// from a later one.
    #[test]
    fn a_start_puts_snapshot_and_log_together() {
        for before in [0, 3] {
            // Entries of term 2, then of term 4.
            let terms = |index: u64| if index <= 5 { 2 } else { 4 };
            let found = LogShape {
                base: id(0, before),
                runs: vec![(Index(before + 1), Term(2)), (Index(6), Term(4))],
                last: Index(8),
            };
            for index in 0..=10u64 {
                for term in 1..=5u64 {
                    let snapshot = if index == 0 { LogId::ZERO } else { id(term, index) };
                    let whole = found.clone().after_snapshot(snapshot);
                    if index < before {
                        let missing =
                            EntriesMissing { first: Index(index + 1), last: Index(before) };
                        assert_eq!(whole, Err(missing));
                        continue;
                    }
                    let (shape, cut) = whole.expect("nothing is missing");
                    assert_eq!(shape.base, snapshot);
                    if index == before && snapshot.term.0 > terms(index + 1) {
                        // A tail that an older leader left.
                        assert_eq!((shape.last, shape.runs), (Index(index), vec![]));
                        assert_eq!(cut, Some(Index(index + 1)));
                    } else if index == before || index <= 8 && term == terms(index) {
                        assert_eq!((shape.last, cut), (Index(8), None));
                        let mut runs: Vec<(Index, Term)> = Vec::new();
                        for at in index + 1..=8 {
                            if runs.last().is_none_or(|run| run.1.0 < terms(at)) {
                                runs.push((Index(at), Term(terms(at))));
                            }
                        }
                        assert_eq!(shape.runs, runs);
                    } else {
                        assert_eq!((shape.last, shape.runs), (Index(index), vec![]));
                        assert_eq!(cut, (index <= 8).then_some(Index(index)));
                    }
                }
            }
        }
    }

    /// A log that holds nothing, wherever it would go on, is whole beside a snapshot that reaches
    /// that far.
    #[test]
    fn an_empty_log_begins_after_its_snapshot() {
        let found = LogShape { base: id(0, 6), runs: vec![], last: Index(6) };
        for index in [6, 7] {
            let expected = LogShape { base: id(3, index), runs: vec![], last: Index(index) };
            assert_eq!(found.clone().after_snapshot(id(3, index)), Ok((expected, None)));
        }
        let missing = EntriesMissing { first: Index(6), last: Index(6) };
        let error = found.after_snapshot(id(3, 5)).expect_err("entry 6 is nowhere");
        assert_eq!(error, missing);
        assert!(error.to_string().starts_with("entries 6 to 6 are missing"));
    }
}
