//! On what idle groups rest: that the shards of their members show each other that they live.
//!
//! Of a group that hibernates (`ringraft_raft`) no message leaves. Its leader and its followers rest on
//! each other's shards instead: while any group of a shard hibernates the shard says every heartbeat
//! interval, in one frame to each peer, that it turns. A peer that says nothing for an election
//! timeout, or whose connection is lost, wakes the groups that rest on it, so many at a time: a node
//! that led thousands of them costs the others no storm of elections.
//!
//! ```text
//!   peer silent, or its link lost -> its groups are queued -> woken in waves -> elections as ever
//! ```

use crate::error::ShardError;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::Shard;
use ringraft_raft::{Input, RoleKind};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{NodeId, Ticks};
use ringraft_wal::device::Device;
use std::collections::BTreeMap;

/// So many groups are woken at once, and then none for [`WAVE_PAUSE`]: 10,000 take some 0.8 s.
const WAVE_GROUPS: usize = 128;
const WAVE_PAUSE: Ticks = Ticks::from_millis(10);

/// The groups of a shard that hibernate.
#[derive(Debug, Default)]
pub(crate) struct Hibernation {
    /// How many.
    resting: usize,
    /// When the peers are told the next time that this shard turns.
    stamp_at: Ticks,
    /// Places (slots) of groups to be woken, and when the node on which they rest was heard last.
    waking: BTreeMap<usize, Ticks>,
    /// None is woken before this.
    wake_at: Ticks,
}

impl Hibernation {
    /// One more, or one less, hibernates.
    pub(crate) fn count(&mut self, rests: bool) {
        match rests {
            true => self.resting += 1,
            false => self.resting -= 1,
        }
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// How many groups hibernate.
    pub fn groups_hibernating(&self) -> u64 {
        self.hibernation.resting as u64
    }

    /// Shows the peers that this shard turns, looks which of them don't, and wakes what rests on
    /// those. Returns when to look again.
    pub(crate) fn look_after_resting(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        if self.hibernation.resting == 0 {
            self.hibernation.waking.clear();
            return Ok(Ticks::NEVER);
        }
        if now >= self.hibernation.stamp_at {
            let interval = self.settings.raft.heartbeat_interval.0;
            // With the heartbeats of other groups, if there are any.
            self.hibernation.stamp_at = Ticks((now.0 / interval + 1) * interval);
            self.peers.values_mut().for_each(|peer| peer.staged.is_due = true);
            self.peers_due.staged = true;
            let patience = self.settings.raft.election_timeout;
            let silent: Vec<(NodeId, Ticks)> = self
                .peers
                .iter_mut()
                .filter(|(_, peer)| !peer.is_silent && now.since(peer.heard_at) >= patience)
                .map(|(&node, peer)| {
                    peer.is_silent = true;
                    (node, peer.heard_at)
                })
                .collect();
            for (node, heard_at) in silent {
                self.wake_all(now, node, heard_at)?;
            }
        }
        self.wake_some(now)?;
        let hibernation = &self.hibernation;
        let wake_at = match hibernation.waking.is_empty() {
            true => Ticks::NEVER,
            false => hibernation.wake_at,
        };
        Ok(hibernation.stamp_at.min(wake_at))
    }

    /// The groups that rest on a node are woken: those in which it follows a leader here, at once, for
    /// that may lead no more; and those that it leads, in their turn.
    pub(crate) fn wake_all(
        &mut self,
        now: Ticks,
        node: NodeId,
        heard_at: Ticks,
    ) -> Result<(), ShardError> {
        if self.hibernation.resting == 0 {
            return Ok(());
        }
        #[cfg(ringraft_plant)]
        if planted(Plant::SilenceUnnoticed) {
            return Ok(());
        }
        for slot in 0..self.groups.len() {
            let group = &self.groups[slot];
            if !group.rests {
                continue;
            }
            let is_here = group.raft.role() == RoleKind::Leader;
            if is_here && group.raft.configuration().is_member(node) {
                self.wake(now, slot, heard_at)?;
            } else if group.leader() == Some(node) {
                self.hibernation.waking.insert(slot, heard_at);
            }
        }
        Ok(())
    }

    fn wake_some(&mut self, now: Ticks) -> Result<(), ShardError> {
        if self.hibernation.waking.is_empty() || now < self.hibernation.wake_at {
            return Ok(());
        }
        for _ in 0..WAVE_GROUPS {
            let Some((slot, heard_at)) = self.hibernation.waking.pop_first() else { break };
            self.wake(now, slot, heard_at)?;
        }
        self.hibernation.wake_at = now.after(WAVE_PAUSE);
        Ok(())
    }

    fn wake(&mut self, now: Ticks, slot: usize, heard_at: Ticks) -> Result<(), ShardError> {
        let group = &self.groups[slot];
        if !group.rests {
            return Ok(());
        }
        // One that waited long for its turn isn't to stand at once with all others.
        let longest = self.settings.raft.election_timeout;
        let is_leader = group.raft.role() == RoleKind::Leader;
        let heard_at = if is_leader { heard_at } else { heard_at.max(now.since(longest)) };
        self.step(now, slot, Input::Wake { heard_at }, Carried::Cache)
    }

    /// A group may have come to rest, or woken, and may want its tick at another time.
    #[inline]
    pub(crate) fn note_rest(&mut self, now: Ticks, slot: usize) {
        let group = &mut self.groups[slot];
        let rests = group.raft.hibernates();
        if rests != group.rests {
            group.rests = rests;
            self.hibernation.count(rests);
        }
        let due = self.groups[slot].wake_at();
        self.next_tick = self.next_tick.min(due.max(now));
    }

    /// A group answers a read by its lease: no step tells the protocol that it is used.
    pub(crate) fn stir(&mut self, now: Ticks, slot: usize) {
        self.groups[slot].raft.stir(now);
        self.note_rest(now, slot);
    }

    /// How long ago this node was in touch with the leader of a group, or as its leader with a
    /// majority; `None`: not since the start. Of a group that hibernates its members' shards speak.
    pub(crate) fn contact_age(&self, now: Ticks, slot: usize) -> Option<Ticks> {
        let group = &self.groups[slot];
        if !group.rests {
            return group.raft.contact_age(now);
        }
        let age = |node: NodeId| self.peers.get(&node).map(|peer| now.since(peer.heard_at));
        if group.raft.role() != RoleKind::Leader {
            return age(group.leader()?);
        }
        let own = self.settings.identity.node;
        let voters = group.raft.voters();
        let mut ages: Vec<Ticks> = voters
            .iter()
            .filter(|&&voter| voter != own)
            .map(|&voter| age(voter).unwrap_or(Ticks::NEVER))
            .collect();
        ages.sort_unstable();
        // So many others make a majority with this node.
        let others = voters.len() / 2;
        others.checked_sub(1).map_or(Some(Ticks::ZERO), |last| ages.get(last).copied())
    }
}
