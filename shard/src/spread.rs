//! Who of a group's voters is to lead (EL-07, decision 0026): the one of the highest priority, and of
//! equals each as many groups of a shard as the others.
//!
//! There is no coordinator. Shards that take part tell the same shard of each peer what they are, and
//! how much they lead, once in an election timeout. When nothing of that has changed for a while,
//! every shard computes from the same numbers what it has too much, and hands that over by ordinary
//! transfers: no term is raised, and a target that lacks anything isn't told to stand.
//!
//! Who was in trouble isn't preferred for a while, and for longer each time: a node that comes and
//! goes would move its groups each time. Nothing is sent, and no turn is asked for, where neither this
//! node nor any peer has a priority or spreads.

use crate::error::ShardError;
use crate::leading::TransferReason;
use crate::links::Links;
use crate::shard::Shard;
use ringraft_net::wire::LeadWord;
use ringraft_raft::RoleKind;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{NodeId, Phase, Ticks};
use ringraft_wal::device::Device;
use std::collections::BTreeMap;

/// So many groups of a shard are handed over after one look.
const MOVES_MAX: usize = 32;
/// Nothing is moved before all numbers were the same for so many election timeouts.
const CALM_TIMEOUTS: u64 = 5;
/// What a peer said holds for so many.
const WORD_TIMEOUTS: u64 = 4;
/// Who was in trouble isn't preferred for so many, and twice as many each time that it is in trouble
/// again soon after.
const DOUBT_TIMEOUTS: u64 = 10;
/// As often is that doubled.
const DOUBLINGS_MAX: u32 = 3;

/// Who is to lead, as a node is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeadRules {
    /// A voter of a higher one is preferred; equal ones aren't told apart.
    pub priority: u8,
    /// Whether the leaders of groups are spread evenly over nodes of equal priority that spread too.
    pub spreads: bool,
}

/// For how long somebody isn't preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Doubt {
    until: Ticks,
    doublings: u32,
}

impl Doubt {
    /// There was trouble.
    fn rise(&mut self, now: Ticks, election_timeout: Ticks) {
        let span = |doublings: u32| Ticks((DOUBT_TIMEOUTS * election_timeout.0) << doublings);
        let is_again = self.until > Ticks::ZERO && now < self.until.after(span(DOUBLINGS_MAX));
        // Trouble that goes on is one trouble.
        let is_same =
            now.after(span(self.doublings)) < self.until.after(Ticks(2 * election_timeout.0));
        if is_again && !is_same {
            self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
        } else if !is_again {
            self.doublings = 0;
        }
        self.until = now.after(span(self.doublings));
    }
}

/// What is known of a peer's shard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    word: LeadWord,
    at: Ticks,
    /// It didn't take over what it was told to.
    doubt: Doubt,
}

/// What a shard knows about who leads how much. A row for each peer that takes part.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    heard: BTreeMap<NodeId, Heard>,
    /// What was said last, and how much of it was led.
    said: LeadWord,
    /// When any number changed last.
    changed_at: Ticks,
    look_at: Ticks,
    /// About this shard.
    doubt: Doubt,
    /// The start counts as trouble.
    has_begun: bool,
    /// A group was lost to another leader that it wasn't handed to, since somebody last looked.
    pub(crate) has_lost: bool,
}

/// What `own` is to give, to whom, so that each leads its part: `led` are all who take part, ascending,
/// with how much each leads. What can't be divided falls to who has it, where there is one shard, and
/// by turns where there are more: else one node could have the odd group of every shard.
fn gifts(shard: u16, shards: u16, own: NodeId, led: &[(NodeId, u64)]) -> Vec<(NodeId, u64)> {
    let nodes = led.len() as u64;
    let total: u64 = led.iter().map(|(_, led)| led).sum();
    let mut order: Vec<usize> = (0..led.len()).collect();
    if shards == 1 {
        order.sort_by_key(|&at| std::cmp::Reverse(led[at].1));
    } else {
        order.rotate_left(usize::from(shard) % led.len().max(1));
    }
    let mut part = vec![total / nodes.max(1); led.len()];
    order.iter().take((total % nodes.max(1)) as usize).for_each(|&at| part[at] += 1);
    // All that is too much, and all that lacks, as two lines of the same length: who gives what to
    // whom is where they lie beside each other. So nobody is given anything twice.
    let mut from = 0;
    let mut mine = 0..0;
    for (at, &(node, led)) in led.iter().enumerate() {
        let surplus = led.saturating_sub(part[at]);
        if node == own {
            mine = from..from + surplus;
        }
        from += surplus;
    }
    let (mut gifts, mut to) = (Vec::new(), 0);
    for (at, &(node, led)) in led.iter().enumerate() {
        let lack = part[at].saturating_sub(led);
        let (first, end) = (mine.start.max(to), mine.end.min(to + lack));
        if first < end {
            gifts.push((node, end - first));
        }
        to += lack;
    }
    gifts
}

impl<D: Device, L: Links> Shard<D, L> {
    /// How this node is set to lead.
    pub fn lead_rules(&self) -> LeadRules {
        self.settings.lead
    }

    /// Sets it otherwise. It isn't written down: a start goes by its settings.
    pub fn set_lead_rules(&mut self, rules: LeadRules) {
        self.settings.lead = rules;
        self.spread.look_at = Ticks::ZERO;
    }

    /// This shard was in trouble: it isn't preferred for a while.
    pub(crate) fn doubt_itself(&mut self, now: Ticks) {
        self.spread.doubt.rise(now, self.settings.raft.election_timeout);
    }

    /// A node didn't take over, or did.
    pub(crate) fn note_taken_over(&mut self, now: Ticks, node: NodeId, has_taken: bool) {
        let timeout = self.settings.raft.election_timeout;
        self.spread.changed_at = now;
        if let Some(heard) = self.spread.heard.get_mut(&node)
            && !has_taken
        {
            heard.doubt.rise(now, timeout);
        }
    }

    /// A peer says what it is and how much it leads.
    pub(crate) fn hear_lead_word(&mut self, now: Ticks, from: NodeId, word: LeadWord) {
        let before = self.spread.heard.get(&from).copied();
        let doubt = before.map(|heard| heard.doubt).unwrap_or_default();
        if before.is_none_or(|heard| heard.word != word) {
            self.spread.changed_at = now;
        }
        self.spread.heard.insert(from, Heard { word, at: now, doubt });
    }

    /// Says what this shard is and how much it leads, and hands over what others are to lead. Returns
    /// when to look again.
    pub(crate) fn spread_leaders(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        let LeadRules { priority, spreads } = self.settings.lead;
        let takes_part = priority > 0 || spreads;
        if !takes_part && self.spread.heard.is_empty() {
            return Ok(Ticks::NEVER);
        }
        if now < self.spread.look_at {
            return Ok(self.spread.look_at);
        }
        let timeout = self.settings.raft.election_timeout;
        self.spread.look_at = now.after(timeout);
        if !std::mem::replace(&mut self.spread.has_begun, true) {
            self.doubt_itself(now);
        }
        let has_lost = std::mem::take(&mut self.spread.has_lost);
        if has_lost || self.watch.wait() >= self.settings.raft.heartbeat_interval {
            self.doubt_itself(now);
        }
        let word = self.lead_word(now);
        if word != self.spread.said {
            (self.spread.said, self.spread.changed_at) = (word, now);
        }
        if takes_part {
            self.say_lead_word(word);
        }
        let lasts = Ticks(WORD_TIMEOUTS * timeout.0);
        let known = self.spread.heard.len();
        self.spread.heard.retain(|_, heard| now.since(heard.at) <= lasts);
        if self.spread.heard.len() < known {
            self.spread.changed_at = now;
        }
        let is_calm = now.since(self.spread.changed_at) >= Ticks(CALM_TIMEOUTS * timeout.0);
        // Who is in trouble itself gives what it has all the same, if it is to another of a higher
        // priority; a paused or stopping node hands over by other rules.
        if is_calm && !self.is_paused() && !self.is_stopping && !self.is_handing_over() {
            let moved = self.give_by_priority(now)?;
            if moved == 0 && spreads && word.is_fit {
                self.give_evenly(now, word)?;
            }
        }
        Ok(self.spread.look_at)
    }

    fn lead_word(&self, now: Ticks) -> LeadWord {
        let own = self.settings.identity.node;
        let (mut led, mut votes) = (0, 0);
        for group in &self.groups {
            let configuration = group.raft.configuration();
            let is_shared = configuration.voters().len() > 1 && configuration.is_voter(own);
            votes += u32::from(is_shared && group.halt.is_none() && !group.is_muted);
            led += u32::from(is_shared && group.raft.role() == RoleKind::Leader);
        }
        let is_out = self.is_paused() || self.is_stopping || self.is_rolled_back;
        LeadWord {
            priority: u32::from(self.settings.lead.priority),
            led,
            votes,
            spreads: self.settings.lead.spreads,
            is_fit: !is_out && !self.is_sweeping && now >= self.spread.doubt.until,
        }
    }

    fn say_lead_word(&mut self, word: LeadWord) {
        let Self { peers, links, settings, is_rolled_back, .. } = self;
        for (&node, _) in peers.iter().filter(|(_, peer)| peer.is_up() && !*is_rolled_back) {
            let outbox = links.peer(node);
            if let Some(outbox) = outbox.filter(|outbox| !outbox.is_urgent_full()) {
                word.write(outbox, settings.identity);
            }
        }
    }

    /// Peers that may be told to lead.
    fn fit_peers(&self, now: Ticks) -> BTreeMap<NodeId, LeadWord> {
        let fits = |heard: &Heard| heard.word.is_fit && now >= heard.doubt.until;
        let heard = self.spread.heard.iter().filter(|(_, heard)| fits(heard));
        heard.map(|(&node, heard)| (node, heard.word)).collect()
    }

    /// Whether a group is led here and may be handed over: its members don't change.
    fn may_move(&self, slot: usize) -> bool {
        let group = &self.groups[slot];
        group.raft.role() == RoleKind::Leader
            && !group.is_out()
            && group.raft.transfers_to().is_none()
            && group.raft.configuration().phase() != Phase::Joint
            && group.raft.is_configuration_committed()
    }

    /// Hands over what a voter of a higher priority is to lead: of each group to the highest, and of
    /// equals to who leads least. Returns how many transfers began.
    fn give_by_priority(&mut self, now: Ticks) -> Result<usize, ShardError> {
        let own = u32::from(self.settings.lead.priority);
        let mut higher = self.fit_peers(now);
        higher.retain(|_, word| word.priority > own);
        let mut moved = 0;
        if higher.is_empty() {
            return Ok(0);
        }
        for slot in 0..self.groups.len() {
            if moved == MOVES_MAX || !self.may_move(slot) {
                continue;
            }
            let voters = self.groups[slot].raft.configuration().voters();
            let fits = higher.iter().filter(|(node, _)| voters.contains(node));
            let best = fits
                .max_by_key(|(node, word)| (word.priority, std::cmp::Reverse((word.led, node.0))));
            let Some((&to, _)) = best else { continue };
            if self.begin_transfer(now, slot, Some(to), TransferReason::Priority, None)?.is_ok() {
                higher.get_mut(&to).expect("just found").led += 1;
                moved += 1;
            }
        }
        Ok(moved)
    }

    /// Hands over what this shard leads beyond its part.
    fn give_evenly(&mut self, now: Ticks, own: LeadWord) -> Result<(), ShardError> {
        let node = self.settings.identity.node;
        let mut equal = self.fit_peers(now);
        equal.insert(node, own);
        equal.retain(|_, word| word.priority == own.priority && word.spreads && word.votes > 0);
        let led: Vec<_> = equal.iter().map(|(&node, word)| (node, u64::from(word.led))).collect();
        let gifts = gifts(self.settings.shard.0, self.settings.shards, node, &led);
        #[cfg(ringraft_plant)]
        let gifts = if planted(Plant::SpreadUncounted) {
            led.iter().filter(|one| one.0 != node).take(1).map(|one| (one.0, 1)).collect()
        } else {
            gifts
        };
        let mut moved = 0;
        for (to, mut count) in gifts {
            for slot in 0..self.groups.len() {
                if count == 0 || moved == MOVES_MAX {
                    break;
                }
                let is_voter = self.groups[slot].raft.configuration().voters().contains(&to);
                if !is_voter || !self.may_move(slot) {
                    continue;
                }
                let reason = TransferReason::Spread;
                if self.begin_transfer(now, slot, Some(to), reason, None)?.is_ok() {
                    (count, moved) = (count - 1, moved + 1);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(shard: u16, shards: u16, led: &[u64]) -> Vec<u64> {
        let rows: Vec<_> = (1..).map(NodeId).zip(led.iter().copied()).collect();
        let mut after = led.to_vec();
        for &(node, _) in &rows {
            for (to, count) in gifts(shard, shards, node, &rows) {
                assert_ne!(node, to);
                after[node.0 as usize - 1] -= count;
                after[to.0 as usize - 1] += count;
            }
        }
        after
    }

    /// Goal: whatever is led, one round of gifts by all makes it even, and a second one moves nothing.
    #[test]
    fn one_round_makes_it_even() {
        for shards in [1, 3] {
            for mut number in 0..6_u64.pow(4) {
                let led: Vec<u64> = (0..4).map(|_| (number % 6, number /= 6).0).collect();
                let after = given(2, shards, &led);
                assert_eq!(after.iter().sum::<u64>(), led.iter().sum::<u64>());
                assert!(after.iter().max().unwrap() - after.iter().min().unwrap() <= 1, "{led:?}");
                assert_eq!(given(2, shards, &after), after, "{led:?}");
            }
        }
    }

    /// Goal: an only group stays where it is on one shard; on many, each node has its part of them.
    #[test]
    fn odd_groups_go_by_turns() {
        assert_eq!(given(0, 1, &[0, 0, 1]), [0, 0, 1]);
        assert_eq!(given(0, 1, &[3, 4, 3]), [3, 4, 3]);
        for shard in 0..3_u16 {
            let mut one = [0; 3];
            one[usize::from(shard)] = 1;
            assert_eq!(given(shard, 3, &[1, 0, 0]), one);
        }
        assert_eq!(given(0, 1, &[5]), [5]);
    }

    /// Goal: doubt lasts longer with each trouble that comes soon, not with one that goes on, and is
    /// bounded; after a quiet while it begins anew.
    #[test]
    fn doubt_grows_and_ends() {
        let (timeout, step) = (Ticks(100), DOUBT_TIMEOUTS * 100);
        let mut doubt = Doubt::default();
        doubt.rise(Ticks(1_000), timeout);
        assert_eq!(doubt.until, Ticks(1_000 + step));
        doubt.rise(Ticks(1_050), timeout);
        assert_eq!(doubt.until, Ticks(1_050 + step), "the same trouble");
        let mut now = doubt.until;
        for doublings in [1, 2, 3, 3, 3] {
            doubt.rise(now, timeout);
            assert_eq!(doubt.until, now.after(Ticks(step << doublings)));
            now = doubt.until;
        }
        doubt.rise(now.after(Ticks(step << 4)), timeout);
        assert_eq!(doubt.doublings, 0);
    }
}
