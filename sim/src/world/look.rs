//! What nodes did, held against what they may do.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use ringraft_net::status::GroupRole;
use ringraft_shard::{Halt, ShardError, ShardEvent};
use ringraft_types::limits::FRAME_BODY_BYTES_MAX;
use ringraft_types::{Configuration, GroupId, Index, MemoryLevel, NodeId, ShardId, Term, Ticks};

use super::World;
use crate::audit;
use crate::base::Event;
use crate::checker::Dump;
use crate::faults::FaultKind;
use crate::node::{Found, Node, Place, Stop};
use crate::trace::{self, What};

impl World {
    /// What a lane sent to peers.
    fn look_at_frames(&mut self, node: usize, lane: usize) {
        let id = self.nodes[node].id;
        let Place::Running(running) = &mut self.nodes[node].places[lane] else { return };
        let now = self.base.now;
        let told = std::mem::take(&mut running.told);
        for sent in std::mem::take(&mut running.sent) {
            self.snoop.sent(id, sent.to, &sent.bytes, |header| {
                trace::note(
                    now,
                    What::Sent {
                        from: id,
                        to: sent.to,
                        shard: ShardId(lane as u16),
                        kind: header.kind as u8,
                        group: header.group,
                        bytes: header.frame_bytes(),
                    },
                );
            });
        }
        for (group, reply) in told {
            self.told_level(node, lane, group, &reply);
        }
    }

    /// What a lane did in its turn.
    pub(super) fn look_at(&mut self, node: usize, lane: usize) {
        self.look_at_frames(node, lane);
        let id = self.nodes[node].id;
        let Place::Running(running) = &mut self.nodes[node].places[lane] else { return };
        let now = self.base.now;
        for (from, refusal) in std::mem::take(&mut running.refused) {
            let is_sound = [node, from.0 as usize - 1].iter().all(|at| !self.damaged.contains(at));
            assert!(!is_sound, "V13: node {id} refuses what node {from} says: {refusal}");
        }
        let mut lacks = None;
        let mut elections = 0;
        let (mut repaired, mut mended) = (Vec::new(), Vec::new());
        let (mut met_rot, mut given_up) = (false, Vec::new());
        for event in running.shard.take_events() {
            match event {
                ShardEvent::BecameLeader { group, term, last } => {
                    trace::note(now, What::Leads { node: id, group, term, last: last.0 });
                    self.base.count("leaders");
                    elections += 1;
                    running.leads(group);
                    let is_lost = self.lost.contains(&node);
                    assert!(
                        !is_lost,
                        "S36: node {id} forgot its promises, and leads group {group}"
                    );
                    let newest = self.ledger.borrow().newest(group);
                    self.snoop.leads(id, group, term, last, newest);
                }
                ShardEvent::Unreadable { group, error } => {
                    let is_damaged = self.damaged.contains(&node);
                    assert!(is_damaged, "I-11: node {id} can't read group {group}: {error}");
                    self.base.count("rot met by a read");
                    met_rot = true;
                }
                ShardEvent::Mended { group, first, last, .. } => {
                    mended.push((group, [first, last]))
                }
                ShardEvent::NotMended { group, .. } => {
                    self.base.count("rot that nobody asked can mend");
                    given_up.push(group);
                }
                ShardEvent::Scrubbed { .. } => self.base.count("logs read through"),
                ShardEvent::EntriesLost { group, first, promised } => {
                    assert!(
                        self.damaged.contains(&node),
                        "I-11: node {id} lacks entries {first} to {promised} of group {group}, and \
                         its log was never damaged"
                    );
                    self.base.count("groups that lost entries");
                }
                ShardEvent::Repaired { group, .. } => repaired.push(group),
                ShardEvent::Halted { group, halt } => {
                    if halt == Halt::Removed && group >= GroupId::FIRST_CREATED {
                        self.seen.retain(|&(at, _, of), _| (at, of) != (node, group));
                        self.snoop.left(id, group);
                        self.base.count("groups that left a node");
                        continue;
                    }
                    assert!(
                        self.damaged.contains(&node),
                        "I-11: node {id} halts group {group}, whose log was never damaged: {halt:?}"
                    );
                    self.base.count("groups that refuse as damaged");
                }
                ShardEvent::SnapshotTaken { group, last, bytes, .. } => {
                    let text = format!("node {id} has a snapshot of group {group} at {last}");
                    trace::note(now, What::Text(format!("{text}, {bytes} bytes")));
                    self.base.count("snapshots taken");
                    let found = audit::saved_hash(running.shard.device.memory(), group, last);
                    let (number, hash) = found.expect("S29: a snapshot that was taken is there");
                    self.saved.insert((node, lane, number), (group, last, hash));
                }
                ShardEvent::SnapshotInstalled { group, from, sources, last, .. } => {
                    let text = format!("node {id} installs a snapshot of group {group} at {last}");
                    let text = format!("{text}, from node {from}, {sources} in all");
                    trace::note(now, What::Text(text));
                    self.base.count("snapshots installed");
                    if sources > 1 {
                        self.base.count("snapshots installed from several nodes");
                    }
                    // What it applied before is what everybody applied before.
                    let (before, _) = self.ledger.borrow().before(group, last);
                    let made = self.made.borrow()[&(node, group)].clone();
                    let is_ahead = made.borrow().iter().all(|step| step.index > last);
                    assert!(is_ahead, "V8: node {id} applied again what a snapshot holds");
                    made.borrow_mut().splice(0..0, before);
                    self.steps.insert((node, group), made);
                    let found = audit::saved_hash(running.shard.device.memory(), group, last);
                    let (number, hash) = found.expect("S29: what is installed is there");
                    self.saved.insert((node, lane, number), (group, last, hash));
                    let giver = from.0 as usize - 1;
                    let of_giver = (giver, lane, 0)..(giver, lane + 1, 0);
                    let given = self.saved.range(of_giver).map(|(_, &saved)| saved);
                    let given: Vec<_> = given.filter(|saved| saved.0 == group).collect();
                    // One that was there before its node could say so isn't known, and a disk may
                    // have been damaged since what came was read back.
                    let is_known =
                        given.iter().any(|saved| saved.1 == last) && !self.damaged.contains(&node);
                    assert!(
                        !is_known || given.contains(&(group, last, hash)),
                        "V13: node {id} installs another snapshot of group {group} at {last} than \
                         node {from} saved"
                    );
                }
                // No machine here goes wrong.
                ShardEvent::Diverged { group, index, .. }
                | ShardEvent::Undecided { group, index, .. } => {
                    panic!("V7: replicas of group {group} are said to differ at entry {index}");
                }
                ShardEvent::InstallFailed { .. } => self.base.count("installs that failed"),
                ShardEvent::SnapshotFailed { .. } => self.base.count("snapshots that failed"),
                ShardEvent::SnapshotUnreadable { group, number, error } => {
                    assert!(
                        self.damaged.contains(&node),
                        "S29: node {id} can't load snapshot {number} of group {group}: {error}"
                    );
                    self.base.count("snapshots that can't be loaded");
                }
                ShardEvent::RolledBack { lacked, .. } => {
                    lacks = Some(lacked);
                    running.tell_older_copy(usize::from(self.options.shards));
                }
                ShardEvent::SteppedDown { group, term } => {
                    let text = format!("node {id} leads group {group} no more, in term {term}");
                    trace::note(now, What::Text(text));
                }
                ShardEvent::HandedOver { .. } => self.base.count("groups handed over"),
                ShardEvent::NotHandedOver { .. } => self.base.count("groups not handed over"),
                ShardEvent::DiskStuck(true) => self.base.count("disk is stuck"),
                ShardEvent::StoodStill { .. } => self.base.count("shards that stood still"),
                ShardEvent::Leaderless { .. } => self.base.count("groups led by nobody for long"),
                ShardEvent::Memory { level: MemoryLevel::Full, .. } => {
                    self.base.count("memory is full");
                }
                ShardEvent::PeerMemory { is_full: true, .. } => {
                    self.base.count("memory of a peer is full");
                }
                ShardEvent::DiskFull(true) => self.base.count("disk is full"),
                _ => {}
            }
        }
        let (limits, pending) = (self.options.limits, running.shard.pending_write_bytes());
        let most = limits.shard_bytes_max + 4 * self.options.value_bytes as usize + 4_096;
        assert!(pending <= most, "A39: node {id} has {pending} bytes of writes under way");
        let reads = running.shard.pending_reads();
        assert!(reads <= limits.shard_reads_max as u64, "A39: node {id} has {reads} reads waiting");
        let tells_data = running.tell_data(usize::from(self.options.shards));
        if let Some(lacked) = lacks {
            let node = &mut self.nodes[node];
            node.lacked.get_or_insert(lacked);
            // Its next round rings the lanes that it told.
            node.wake(&mut self.base, lane, now);
        }
        if tells_data {
            // Its next round rings the lanes that it told.
            self.nodes[node].wake(&mut self.base, lane, now);
        }
        self.look_at_memory();
        if met_rot {
            self.note_unreadable(node, lane);
        }
        for group in given_up {
            self.note_given_up(node, group);
        }
        for (group, ends) in mended {
            self.says_mended(node, lane, group, ends);
        }
        for group in repaired {
            self.repaired(node, lane, group);
        }
        for _ in 0..elections {
            self.was_elected(node, lane);
        }
    }

    pub(super) fn recovered(&mut self, node: usize, lane: usize, found: &Found) {
        let Found { recovered, snapshots } = found;
        let id = self.nodes[node].id;
        let shard = ShardId(lane as u16);
        self.note_recovered(node, lane, recovered);
        let rot = recovered.rot.len();
        let (torn, stale) = (recovered.torn_blocks, recovered.stale_blocks);
        trace::note(self.base.now, What::Recovered { node: id, shard, torn, stale, rot });
        self.base.count("recoveries");
        let shards = u64::from(self.options.shards);
        for (&(at, group), made) in self.made.borrow().iter() {
            if (at, group.0 % shards) == (node, lane as u64) {
                self.steps.insert((node, group), made.clone());
            }
        }
        for (&group, &(last, hash)) in snapshots {
            // What it applied before is what everybody applied before.
            let (before, state) = self.ledger.borrow().before(group, last.index);
            assert!(
                state.is_none_or(|state| state == hash),
                "V7: node {id} loads a snapshot of group {group} that isn't its state at entry {}",
                last.index
            );
            *self.steps[&(node, group)].borrow_mut() = before;
            let now = audit::saved_hash(self.nodes[node].disk(lane).memory(), group, last.index);
            let is_same = now.is_some_and(|(number, hash)| {
                let then = self.saved.get(&(node, lane, number));
                // A file that nobody was told of, or of a directory before this one, isn't known.
                let then = then.filter(|then| (then.0, then.1) == (group, last.index));
                then.is_none_or(|then| then.2 == hash)
            });
            // A disk may have been damaged since it was read.
            let is_damaged = self.damaged.contains(&node);
            assert!(
                is_same || is_damaged,
                "V13: node {id} loads a snapshot of group {group} at entry {} that isn't what it \
                 saved",
                last.index
            );
            self.base.count("snapshots loaded");
        }
        if torn > 0 {
            self.base.count("recovery: torn tail cut");
        }
        if stale > 0 {
            self.base.count("recovery: stale blocks");
        }
        if rot > 0 {
            self.base.count("recovery: rot");
        }
        if recovered.node_damaged {
            self.base.count("recovery: rot that silences a log");
        }
        assert!(
            recovered.rot.is_empty() || self.damaged.contains(&node),
            "I-11: node {id}/{lane} finds rot where there is none: {:?}",
            recovered.rot
        );
        if self.lost.contains(&node) {
            // It knows nothing of what it promised, and nobody believes it.
            return;
        }
        let is_damaged = self.damaged.contains(&node);
        let mut saved: BTreeMap<GroupId, Index> =
            snapshots.iter().map(|(&group, &(last, _))| (group, last.index)).collect();
        // What a snapshot that can't be loaded covered is known by its head, and owed: see below.
        for head in recovered.snapshots.iter().filter(|_| is_damaged) {
            let newest = saved.entry(head.group).or_default();
            *newest = head.last.index.max(*newest);
        }
        let shard = (shard.0, self.options.shards);
        self.snoop.recovered(id, shard, recovered, &saved, is_damaged);
        if let Some(running) = self.nodes[node].lane(lane).filter(|_| is_damaged) {
            let votes = |group| running.shard.votes_as_holding(group);
            self.snoop.votes_as_holding(id, shard, votes);
        }
    }

    /// A process ends by itself; what the lane sent before left nevertheless.
    pub(super) fn stopped(&mut self, node: usize, lane: usize, stop: &Stop) {
        self.look_at_frames(node, lane);
        let id = self.nodes[node].id;
        trace::note(self.base.now, What::Text(format!("node {id} stops: {stop}")));
        let is_given_up = matches!(stop, Stop::Shard(ShardError::DiskStuck { .. }))
            && self.nodes[node].moods.iter().any(|mood| mood.was_slow);
        assert!(
            is_given_up || self.nodes[node].has_disk_errors() || self.damaged.contains(&node),
            "I-10: node {id} stops, and nothing went wrong with its disk: {stop}"
        );
        self.base.count(match stop {
            Stop::Recovery(_) => "stopped in recovery",
            Stop::Shard(_) => "stopped by its disk",
        });
        if matches!(stop, Stop::Recovery(_)) {
            self.note_refused(node);
        }
        self.end(node, None, "an error of its disk");
        let later = self.base.span(Ticks::from_millis(1), Ticks::from_millis(1_000));
        self.base.after(later, Event::Start { node });
    }

    /// What the nodes applied, from their disks.
    pub(super) fn dumps(&self, quorum: &[usize]) -> Vec<Dump> {
        let mut dumps = Vec::new();
        let lanes = 0..usize::from(self.options.shards);
        // What a snapshot of another node brought was written there.
        let ever = |lane| {
            let of_node = move |it: &'_ Node| {
                let id = it.id;
                it.disk(lane).segments_ever().into_iter().map(move |segment| (id, segment))
            };
            self.nodes.iter().flat_map(of_node)
        };
        let written = |lane| LazyCell::new(move || audit::Written::of(ever(lane)));
        let written: Vec<_> = lanes.clone().map(written).collect();
        let quorum = quorum.iter().flat_map(|&at| lanes.clone().map(move |lane| (at, lane)));
        for (at, lane) in quorum.chain(self.proven()) {
            let node = &self.nodes[at];
            let mut found = audit::open(node.disk(lane).flushed(), node.log_settings(lane));
            for (&(_, group), steps) in self.steps.range((at, GroupId(0))..(at + 1, GroupId(0))) {
                let is_here = group.0 % u64::from(self.options.shards) == lane as u64;
                // Nobody's history has what becomes of those.
                let is_asked = group < GroupId::SYSTEM;
                if is_here && is_asked && self.is_member(node.id, group) {
                    dumps.push(found.dump(node.id, group, &steps.borrow(), &written[lane]));
                }
            }
        }
        dumps
    }

    /// Everything that was applied anywhere lies intact on a quorum of disks, counting only what is
    /// flushed (V5).
    pub(super) fn audit(&mut self) {
        self.base.count("disks audited");
        let mut copies: BTreeMap<(GroupId, Term), BTreeSet<NodeId>> = BTreeMap::new();
        // In a snapshot, and not in the log any more.
        let mut saved: BTreeMap<GroupId, BTreeSet<NodeId>> = BTreeMap::new();
        for (_, node) in self.nodes.iter().enumerate().filter(|(at, _)| !self.damaged.contains(at))
        {
            for lane in 0..usize::from(self.options.shards) {
                let found = audit::open(node.disk(lane).flushed(), node.log_settings(lane));
                let snapshots = &found.recovered.snapshots;
                for (&group, found) in &found.recovered.groups {
                    let newest = self.ledger.borrow().newest(group);
                    let mut heads = snapshots.iter().filter(|head| head.group == group);
                    if let Some(term) = audit::term_at(found, newest) {
                        copies.entry((group, term)).or_default().insert(node.id);
                    } else if heads.any(|head| head.last.index >= newest) {
                        saved.entry(group).or_default().insert(node.id);
                    }
                }
            }
        }
        for group in (1..=self.options.groups).map(GroupId) {
            let newest = self.ledger.borrow().newest(group);
            let of_group = (group, Term::ZERO)..=(group, Term(u64::MAX));
            let saved = saved.remove(&group).unwrap_or_default();
            let mut holders: Vec<BTreeSet<NodeId>> =
                copies.range(of_group).map(|(_, copies)| copies | &saved).collect();
            holders.push(saved);
            let is_held = holders.iter().any(|holders| self.is_enough(group, holders));
            assert!(
                newest == Index::ZERO || is_held,
                "V5: entry {newest} of group {group} was applied, and only these disks hold it: \
                 {holders:?}"
            );
        }
    }

    /// Whether these nodes are enough to commit in a group, as some node knows its members.
    fn is_enough(&self, group: GroupId, nodes: &BTreeSet<NodeId>) -> bool {
        let is_enough = |voters: &[NodeId]| {
            // What a damaged disk held counts: its node votes as if it held it still.
            let is_there = |node: &&NodeId| {
                nodes.contains(node) || self.damaged.contains(&(node.0 as usize - 1))
            };
            voters.is_empty()
                || voters.iter().filter(is_there).count() >= self.options.enough(voters.len())
        };
        let first = (1..=self.options.voters).map(NodeId).collect();
        let first = Configuration::first(first, Vec::new()).expect("it is sound");
        let all = self.configurations(group);
        let are_known = all.iter().any(|it| !it.voters().is_empty());
        let all = if are_known { all } else { vec![first] };
        let mut all = all.iter().filter(|it| !it.voters().is_empty());
        // Who doesn't run may be the only one that knows who decides now.
        let lane = (group.0 % u64::from(self.options.shards)) as usize;
        let all_run = self.nodes.iter().all(|node| node.lane(lane).is_some());
        if !all_run && self.snoop.voters_asked(group).any(|voters| is_enough(voters)) {
            return true;
        }
        // Nobody runs that knows who the members are.
        let is_unknown = !are_known && self.options.faults.contains_key(&FaultKind::Members);
        // While voters change, who leads next has a majority of either list: holders that are one of
        // one list keep an entry. They need be no more: the entry that ended the change may have
        // decided that they are enough, and be lost in a power cut.
        let is_kept = |it: &Configuration| {
            is_enough(it.voters()) || !it.outgoing().is_empty() && is_enough(it.outgoing())
        };
        is_unknown || all.any(is_kept)
    }

    /// Looks at all groups of all nodes that serve.
    pub(super) fn probe(&mut self) {
        if self.base.random.chance(100_000) {
            self.audit();
        }
        let mut states: BTreeMap<(GroupId, Index), (NodeId, u64)> = BTreeMap::new();
        let mut leaders: BTreeMap<GroupId, u64> = BTreeMap::new();
        for node in &self.nodes {
            let now = node.clock.read(self.base.now);
            for lane in node.lanes() {
                // V14: what waits anywhere is bounded.
                let waiting = lane.shard.links.waiting_bytes_max();
                let most = 4 * self.options.outbox.client.max(self.options.outbox.peer);
                assert!(waiting <= most + FRAME_BODY_BYTES_MAX, "V14: {waiting} bytes wait");
                for group in lane.shard.status(now).groups {
                    let (id, host) = (group.group, node.host());
                    assert!(
                        group.applied <= group.commit && group.commit <= group.last,
                        "I-01: node {} group {id}: {group:?}",
                        node.id
                    );
                    assert!(
                        group.role != GroupRole::Leader || lane.may_lead(id, &self.options),
                        "N02: node {} leads group {id}, and heard no majority for two election \
                         timeouts",
                        node.id
                    );
                    for counted in lane.shard.peers_counted(id) {
                        self.snoop.counts(node.id, id, group.term, counted);
                    }
                    *leaders.entry(id).or_default() += u64::from(group.role == GroupRole::Leader);
                    let seen = self.seen.entry((host, node.life, id)).or_default();
                    assert!(
                        group.commit >= seen.0 && group.applied >= seen.1,
                        "V2: node {} group {id} went back from {seen:?}: {group:?}",
                        node.id
                    );
                    *seen = (group.commit, group.applied);
                    let key = (id, group.applied);
                    let first = *states.entry(key).or_insert((node.id, group.state_hash));
                    assert!(
                        first.1 == group.state_hash,
                        "V7: nodes {} and {} differ at entry {} of group {id}",
                        first.0,
                        node.id,
                        group.applied
                    );
                }
            }
        }
        if leaders.values().any(|&leaders| leaders > 1) {
            self.base.count("a leader beside an older one");
        }
    }
}
