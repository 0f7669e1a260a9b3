//! Whether the replicas of a group hold the same state (V7, decision 0030).
//!
//! Every replica notes the hash of its state at the same entries, and tells its leader. The leader
//! compares. Who differs from what a majority of the voters holds is odd: it serves nobody from then
//! on, gives up its snapshots, and is rebuilt from one of the leader's. Its log is right, so it goes on
//! to take entries, and votes.
//!
//! ```text
//!  applied 1,024 n -> noted -> told       by a follower or learner, to its leader
//!                             compared   by the leader, with its own note of that entry
//!                 a majority agrees -> "odd" to who differs -> fenced -> wants a snapshot -> rebuilt
//!                 none does         -> people are told, nobody is fenced
//! ```

use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::group::{Halt, Need};
use crate::limits::REBUILDS_PER_HOUR;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::Shard;
use crate::snapshots::SnapshotReason;
use ringraft_net::wire::StateWord;
use ringraft_raft::{Input, RoleKind};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{GroupId, Index, NodeId, Phase, Term, Ticks};
use ringraft_wal::device::Device;

/// Notes are kept of multiples of what separates two, times these: a replica that lags by much has one
/// in common with its leader.
const SPANS: [u64; 3] = [1, 1 << 5, 1 << 10];
/// The newest so many of each.
const NOTES_PER_SPAN: usize = 2;
/// What a leader keeps of one member; the oldest goes first.
const HEARD_PER_NODE: usize = SPANS.len() * NOTES_PER_SPAN;
/// A group that is fenced asks its leader for a snapshot so often.
const ASK_TIME: Ticks = Ticks::from_millis(500);
const HOUR: Ticks = Ticks::from_millis(3_600_000);

/// The hash of a state when an entry was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    index: Index,
    hash: u64,
}

/// The newest notes of a group: about a hundred bytes, whatever it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    /// Entries from one to the next.
    every: u64,
    /// Of each span, the newest first.
    kept: [[Note; NOTES_PER_SPAN]; SPANS.len()],
}

impl Notes {
    /// None yet; one is due at each multiple of `every` entries.
    pub(crate) fn new(every: u64) -> Self {
        assert!(every > 0, "notes are of some entries");
        Self { every, kept: Default::default() }
    }

    /// Whether the state behind this entry is to be noted.
    pub(crate) fn is_due(&self, index: Index) -> bool {
        index.0.is_multiple_of(self.every)
    }

    /// Notes a hash that is due.
    pub(crate) fn take(&mut self, index: Index, hash: u64) {
        for (notes, span) in self.kept.iter_mut().zip(SPANS) {
            if index.0.is_multiple_of(self.every * span) {
                notes.rotate_right(1);
                notes[0] = Note { index, hash };
            }
        }
    }

    /// What was noted is of another state.
    fn clear(&mut self) {
        *self = Self::new(self.every);
    }

    /// Whether one was taken of an entry behind this one.
    pub(crate) fn is_newer_than(&self, index: Index) -> bool {
        self.kept[0][0].index > index
    }

    fn at(&self, index: Index) -> Option<u64> {
        let mut notes = self.kept.iter().flatten().filter(|note| note.index > Index::ZERO);
        notes.find(|note| note.index == index).map(|note| note.hash)
    }

    /// The oldest that is kept.
    fn oldest(&self) -> Index {
        let notes = self.kept.iter().flatten().filter(|note| note.index > Index::ZERO);
        notes.map(|note| note.index).min().unwrap_or(Index::ZERO)
    }

    /// Those behind an entry, ascending, each once.
    fn behind(&self, index: Index) -> Vec<Note> {
        let notes = self.kept.iter().flatten().copied();
        let mut notes: Vec<Note> = notes.filter(|note| note.index > index).collect();
        notes.sort_unstable_by_key(|note| note.index);
        notes.dedup_by_key(|note| note.index);
        notes
    }
}

/// What a group knows of its replicas' states.
#[derive(Debug, Default)]
pub(crate) struct Comparing {
    /// What its leader was told, and in which term.
    told: (Term, Index),
    /// What this leader was told: a few notes of each member.
    heard: Vec<(NodeId, Note)>,
    /// The entry at which states differed, and nobody knew who was right; zero: none did.
    undecided: Index,
    /// It stands for no election because it is fenced, and not for rot.
    pub(crate) stood_aside: bool,
    /// How often it was fenced, of late.
    rebuilds: u32,
    /// Since when that is counted.
    counted_since: Ticks,
    /// When it asks for a snapshot next.
    ask_at: Ticks,
}

impl Comparing {
    fn hear(&mut self, from: NodeId, note: Note) {
        self.heard.retain(|(node, old)| (*node, old.index) != (from, note.index));
        if self.heard.iter().filter(|(node, _)| *node == from).count() >= HEARD_PER_NODE {
            let of_node = self.heard.iter().enumerate().filter(|(_, (node, _))| *node == from);
            let oldest = of_node.min_by_key(|(_, (_, note))| note.index).map(|(at, _)| at);
            self.heard.swap_remove(oldest.expect("there are some"));
        }
        self.heard.push((from, note));
    }

    /// Counts a fence, and says how long to wait before the group is rebuilt.
    fn count(&mut self, now: Ticks) -> Ticks {
        if self.rebuilds == 0 || now.since(self.counted_since) >= HOUR {
            (self.rebuilds, self.counted_since) = (0, now);
        }
        self.rebuilds += 1;
        let waits = match self.rebuilds > REBUILDS_PER_HOUR {
            true => self.counted_since.after(HOUR).since(now),
            false => Ticks::ZERO,
        };
        self.ask_at = now.after(waits);
        waits
    }
}

/// What follows from the notes of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// All that are known are equal.
    Equal,
    /// A majority of the voters holds this; who doesn't is odd.
    Majority(u64),
    /// No majority holds the same, whatever is still to come.
    Undecided,
    /// What is still to come decides.
    Waits,
}

/// Judges what voters, of so many, and others said of one entry.
fn judge(voters: usize, said: &[(bool, u64)]) -> Judgement {
    if said.windows(2).all(|two| two[0].1 == two[1].1) {
        return Judgement::Equal;
    }
    let of_voters = || said.iter().filter(|(is_voter, _)| *is_voter).map(|(_, hash)| *hash);
    let count = |hash: u64| of_voters().filter(|other| *other == hash).count();
    let most = of_voters().max_by_key(|hash| count(*hash));
    let (hash, held) = most.map_or((0, 0), |hash| (hash, count(hash)));
    let majority = voters / 2 + 1;
    if held >= majority {
        Judgement::Majority(hash)
    } else if held + (voters - of_voters().count()) < majority {
        Judgement::Undecided
    } else {
        Judgement::Waits
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Groups that hold another state than the others, and aren't rebuilt yet.
    pub fn groups_diverged(&self) -> u64 {
        self.fenced.len() as u64
    }

    pub(crate) fn list_to_compare(&mut self, slot: usize) {
        let group = &mut self.groups[slot];
        if !group.compare_listed {
            group.compare_listed = true;
            self.to_compare.push(slot);
        }
    }

    /// Another node leads a group, or the way to it was gone: it is told all that is noted.
    pub(crate) fn tell_states_again(&mut self, slot: usize) {
        self.groups[slot].comparing.told = (Term::ZERO, Index::ZERO);
        self.groups[slot].comparing.heard.clear();
        self.list_to_compare(slot);
    }

    /// Tells and compares what is new. Returns when it wants another turn. A turn in which nothing
    /// was noted finds that in one place.
    pub(crate) fn compare_states(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        let mut slots = std::mem::take(&mut self.to_compare);
        for slot in slots.drain(..) {
            self.groups[slot].compare_listed = false;
            if self.groups[slot].raft.role() == RoleKind::Leader {
                self.compare(now, slot)?;
            } else {
                self.tell_notes(slot);
            }
        }
        slots.append(&mut self.to_compare);
        self.to_compare = slots;
        Ok(self.ask_for_states(now))
    }

    /// Tells the leader what it wasn't told.
    fn tell_notes(&mut self, slot: usize) {
        let group = &self.groups[slot];
        let Some(leader) = group.leader() else { return };
        let (term, told) = (group.raft.term(), group.comparing.told);
        let after = if told.0 == term { told.1 } else { Index::ZERO };
        for Note { index, hash } in group.notes.behind(after) {
            let word = StateWord { term, index, hash, said: StateWord::NOTED };
            if !self.say_state(slot, leader, word) {
                // What finds no room is told with the next note.
                return;
            }
            self.groups[slot].comparing.told = (term, index);
        }
    }

    /// Sends a word, if there is room for it.
    fn say_state(&mut self, slot: usize, to: NodeId, word: StateWord) -> bool {
        let Self { peers, links, groups, settings, is_rolled_back, .. } = self;
        if *is_rolled_back || !peers.get(&to).is_some_and(|peer| peer.is_up()) {
            return false;
        }
        let outbox = links.peer(to).filter(|outbox| !outbox.is_urgent_full());
        let Some(outbox) = outbox else { return false };
        word.write(outbox, groups[slot].id, settings.identity);
        true
    }

    /// A peer tells of a state. What is of another term is told again when that has settled.
    pub(crate) fn hear_state_word(
        &mut self,
        now: Ticks,
        from: NodeId,
        group: GroupId,
        word: StateWord,
    ) -> Result<(), ShardError> {
        let Some(&slot) = self.slots.get(&group) else { return Ok(()) };
        let group = &mut self.groups[slot];
        if group.is_muted || word.term != group.raft.term() {
            return Ok(());
        }
        let StateWord { index, hash, said, .. } = word;
        let leads = group.raft.role() == RoleKind::Leader;
        let is_member = group.named_nodes.contains(&from);
        match said {
            StateWord::NOTED if leads && is_member => {
                group.comparing.hear(from, Note { index, hash });
                self.list_to_compare(slot);
            }
            StateWord::ODD if !leads && group.leader() == Some(from) => {
                // What was told before a snapshot was installed says nothing of what is here now.
                if let Some(own) = group.notes.at(index).filter(|own| *own != hash) {
                    self.fence(now, slot, Note { index, hash: own }, hash)?;
                }
            }
            StateWord::WANTED if leads && is_member && group.snapshot_index() < index => {
                self.want_snapshot(slot, SnapshotReason::Rebuild);
            }
            _ => {}
        }
        Ok(())
    }

    /// Compares what members told with what this leader noted.
    fn compare(&mut self, now: Ticks, slot: usize) -> Result<(), ShardError> {
        let own_node = self.settings.identity.node;
        let group = &mut self.groups[slot];
        let oldest = group.notes.oldest();
        group.comparing.heard.retain(|(_, note)| note.index >= oldest);
        // While members change, two majorities count: it is compared when they have.
        let is_moving = group.raft.configuration().phase() == Phase::Joint;
        if group.halt.is_some() || is_moving || group.comparing.heard.is_empty() {
            return Ok(());
        }
        #[cfg(ringraft_plant)]
        if planted(Plant::StatesUncompared) {
            return Ok(());
        }
        for Note { index, hash: own } in group.notes.behind(Index::ZERO) {
            let group = &mut self.groups[slot];
            let configuration = group.raft.configuration();
            let voters = configuration.voters();
            let heard = group.comparing.heard.iter().filter(|(_, note)| note.index == index);
            let all: Vec<(NodeId, u64)> = heard.map(|(node, note)| (*node, note.hash)).collect();
            let said: Vec<(bool, u64)> = std::iter::once((own_node, own))
                .chain(all.iter().copied())
                .map(|(node, hash)| (voters.contains(&node), hash))
                .collect();
            let told = said.iter().filter(|(is_voter, _)| *is_voter).count();
            match judge(voters.len(), &said) {
                Judgement::Waits => {}
                Judgement::Equal => {
                    if told == voters.len() && index > group.comparing.undecided {
                        group.comparing.undecided = Index::ZERO;
                    }
                }
                Judgement::Undecided => {
                    let differs = |(_, hash): &&(NodeId, u64)| *hash != own;
                    let is_new = group.comparing.undecided == Index::ZERO;
                    group.comparing.undecided = group.comparing.undecided.max(index);
                    if let Some(&(other, hash)) = all.iter().find(differs)
                        && is_new
                    {
                        let group = group.id;
                        self.metrics.divergences_undecided += 1;
                        self.events.push(ShardEvent::Undecided { group, index, own, other, hash });
                    }
                }
                Judgement::Majority(hash) => {
                    let term = group.raft.term();
                    for &(node, _) in all.iter().filter(|(_, other)| *other != hash) {
                        let word = StateWord { term, index, hash, said: StateWord::ODD };
                        if self.say_state(slot, node, word) {
                            let heard = &mut self.groups[slot].comparing.heard;
                            heard.retain(|(of, note)| *of != node || note.index > index);
                        }
                    }
                    if own != hash {
                        return self.fence(now, slot, Note { index, hash: own }, hash);
                    }
                }
            }
        }
        Ok(())
    }

    /// The state here is another one than a majority's. Nobody is served from it, and no snapshot of
    /// it is left for a start or for others: without one a start has the state of its log, if that
    /// begins with the first entry, or is damaged and has it from its leader.
    fn fence(
        &mut self,
        now: Ticks,
        slot: usize,
        own: Note,
        majority: u64,
    ) -> Result<(), ShardError> {
        let group = &mut self.groups[slot];
        // Who serves nobody for another reason tells and compares when that is over.
        if group.halt.is_some() {
            return Ok(());
        }
        group.halt = Some(Halt::Diverged);
        group.comparing.stood_aside = group.raft.vote_floor().is_none();
        group.notes.clear();
        group.comparing.heard.clear();
        let waits = group.comparing.count(now);
        let (id, Note { index, hash: own }) = (group.id, own);
        self.metrics.divergences += 1;
        self.events.push(ShardEvent::Diverged { group: id, index, own, majority, waits });
        self.fenced.insert(slot);
        self.stop_taking(slot);
        let is_durable = true;
        #[cfg(ringraft_plant)]
        let is_durable = is_durable && !planted(Plant::FenceForgotten);
        if is_durable {
            self.give_up_all_snapshots(slot);
            self.log.sync_removals(&mut self.device);
        }
        self.list_for_apply(slot);
        self.step(now, slot, Input::Damaged, Carried::Cache)
    }

    /// Has the leaders of fenced groups take a snapshot, and asks for it, again and again.
    fn ask_for_states(&mut self, now: Ticks) -> Ticks {
        let mut at = Ticks::NEVER;
        if self.fenced.is_empty() {
            return at;
        }
        for slot in self.fenced.iter().copied().collect::<Vec<_>>() {
            let group = &mut self.groups[slot];
            if now >= group.comparing.ask_at {
                group.comparing.ask_at = now.after(ASK_TIME);
                let (term, index) = (group.raft.term(), group.applied);
                if let Some(leader) = group.leader() {
                    let word = StateWord { term, index, hash: 0, said: StateWord::WANTED };
                    self.say_state(slot, leader, word);
                    if !self.is_install_wanted(slot) {
                        self.want_install(slot, Need::State(leader, index));
                    }
                }
            }
            at = at.min(self.groups[slot].comparing.ask_at);
        }
        at
    }

    /// Another state took the place of a group's. What was noted of the old one is of no use, and
    /// one that was fenced serves again.
    pub(crate) fn state_replaced(
        &mut self,
        now: Ticks,
        slot: usize,
        last: Index,
    ) -> Result<(), ShardError> {
        let is_rotten = self.mending.contains_key(&slot);
        let group = &mut self.groups[slot];
        group.notes.clear();
        if !self.fenced.remove(&slot) {
            return Ok(());
        }
        group.halt = is_rotten.then_some(Halt::Damaged);
        group.halt_told = is_rotten;
        self.metrics.states_rebuilt += 1;
        self.events.push(ShardEvent::Rebuilt { group: group.id, last });
        self.list_for_apply(slot);
        if is_rotten { Ok(()) } else { self.step(now, slot, Input::Mended, Carried::Cache) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::STATE_NOTE_ENTRIES;

    /// Goal: a majority of the voters decides, however many others say what; without one nobody does,
    /// and nothing is decided before it must be.
    #[test]
    fn a_majority_decides() {
        let said = |all: &[(u8, u64)]| -> Vec<(bool, u64)> {
            all.iter().map(|(voter, hash)| (*voter == 1, *hash)).collect()
        };
        let check = |voters, all: &[(u8, u64)], judgement| {
            assert_eq!(judge(voters, &said(all)), judgement, "{voters} {all:?}");
        };
        check(3, &[(1, 5)], Judgement::Equal);
        check(3, &[(1, 5), (1, 5), (1, 5)], Judgement::Equal);
        check(3, &[(1, 5), (1, 6)], Judgement::Waits);
        check(3, &[(1, 5), (1, 6), (1, 6)], Judgement::Majority(6));
        check(3, &[(1, 5), (1, 5), (1, 6)], Judgement::Majority(5));
        check(3, &[(1, 5), (1, 6), (1, 7)], Judgement::Undecided);
        check(2, &[(1, 5), (1, 6)], Judgement::Undecided);
        check(2, &[(1, 5), (1, 6), (0, 6)], Judgement::Undecided);
        check(2, &[(1, 5), (1, 5), (0, 6)], Judgement::Majority(5));
        check(1, &[(1, 5), (0, 6), (0, 6)], Judgement::Majority(5));
        check(3, &[(1, 5), (0, 6)], Judgement::Waits);
        check(5, &[(1, 5), (1, 6), (1, 7), (1, 8)], Judgement::Undecided);
    }

    /// Goal: a replica that lags by a million entries has a note in common with its leader, and each is
    /// told once.
    #[test]
    fn notes_reach_back() {
        let mut notes = Notes::new(STATE_NOTE_ENTRIES);
        assert!(!notes.is_newer_than(Index::ZERO));
        for at in 1..=3_000 {
            notes.take(Index(at * STATE_NOTE_ENTRIES), at);
        }
        let behind: Vec<u64> = notes.behind(Index::ZERO).iter().map(|note| note.hash).collect();
        assert_eq!(behind, [1_024, 2_048, 2_944, 2_976, 2_999, 3_000]);
        assert_eq!(notes.at(Index(2_048 * STATE_NOTE_ENTRIES)), Some(2_048));
        assert_eq!(notes.at(Index(2_998 * STATE_NOTE_ENTRIES)), None);
        assert_eq!(notes.oldest(), Index(1_024 * STATE_NOTE_ENTRIES));
        assert!(std::mem::size_of::<Notes>() <= 104, "10,000 groups of a node have them");
    }

    /// Goal: what a leader keeps of a member is bounded, and is the newest.
    #[test]
    fn what_is_heard_is_bounded() {
        let mut comparing = Comparing::default();
        for at in 1..=100 {
            comparing.hear(NodeId(2), Note { index: Index(at), hash: at });
            comparing.hear(NodeId(2), Note { index: Index(at), hash: at });
        }
        comparing.hear(NodeId(3), Note { index: Index(1), hash: 1 });
        assert_eq!(comparing.heard.len(), HEARD_PER_NODE + 1);
        assert!(comparing.heard.iter().all(|(node, note)| *node == NodeId(3) || note.index.0 > 94));
    }

    /// Goal: a group that goes wrong again and again is rebuilt so often in an hour, and not more.
    #[test]
    fn rebuilds_are_bounded() {
        let mut comparing = Comparing::default();
        let mut now = Ticks::from_millis(1_000);
        for _ in 0..REBUILDS_PER_HOUR {
            assert_eq!(comparing.count(now), Ticks::ZERO);
            now = now.after(Ticks::from_millis(60_000));
        }
        let waits = Ticks::from_millis(3_600_000 - 60_000 * u64::from(REBUILDS_PER_HOUR));
        assert_eq!(comparing.count(now), waits);
        assert_eq!(comparing.ask_at, now.after(waits));
        assert_eq!(comparing.count(now.after(waits)), Ticks::ZERO);
    }
}
