//! The limit of data: while all nodes are full none takes a write that grows, and deletes and a
//! compaction end that (FC-07).

use ringraft_types::{GroupId, MemoryLevel, Ticks};

use super::World;
use crate::client::Client;
use crate::history::{Ask, Bytes, Delete, KeySet};

/// So long may it take until everything is removed and a write is taken by every group.
const CLEAR_TIME: Ticks = Ticks::from_millis(120_000);
/// And so long what is asked for on the way.
const STEP_TIME: Ticks = Ticks::from_millis(20_000);

impl World {
    /// Notes since when all nodes that run are full.
    pub(super) fn look_at_memory(&mut self) {
        if self.options.limits.data_bytes_max == 0 {
            return;
        }
        let shards = usize::from(self.options.shards);
        let is_full = self.nodes.iter().filter(|node| node.is_up).all(|node| {
            let full =
                node.lanes().filter(|lane| lane.shard.memory().level == MemoryLevel::Full).count();
            full == shards
        });
        match (is_full, self.base.full_since) {
            (true, None) => {
                self.base.full_since = Some(self.base.now);
                self.base.count("all nodes are full");
            }
            (false, Some(_)) => self.base.full_since = None,
            _ => {}
        }
    }

    /// All keys are removed and all history compacted: every group takes writes again.
    pub(super) fn must_clear(&mut self) {
        if self.options.limits.data_bytes_max == 0 {
            return;
        }
        for client in &mut self.clients {
            client.is_done = true;
        }
        let until = self.base.now.after(CLEAR_TIME);
        self.run_until(until, |world| world.clients.iter().all(Client::is_idle));
        let mut missing: Vec<GroupId> = (1..=self.options.groups).map(GroupId).collect();
        while !missing.is_empty() {
            assert!(
                self.base.now < until,
                "FC-07: groups {missing:?} take no write {CLEAR_TIME} us after everything is gone"
            );
            self.ask_all(|_, _| {
                let keys = KeySet::Prefix(Bytes::from(""));
                Ask::Delete(Delete { keys, previous: false })
            });
            self.ask_all(|client, group| Ask::Compact(client.known_revision(group)));
            for client in &mut self.clients {
                client.count_from(self.base.now);
            }
            self.ask_all(|client, _| client.errand().0);
            let wrote = |group: &GroupId| {
                let done = self.clients.iter().filter_map(|client| client.done().get(group));
                done.map(|done| done.0).sum::<u64>() > 0
            };
            missing.retain(|group| !wrote(group));
        }
    }

    /// Asks this of every group, and waits for the answers.
    fn ask_all(&mut self, mut ask: impl FnMut(&mut Client, GroupId) -> Ask) {
        for group in (1..=self.options.groups).map(GroupId) {
            let Self { clients, base, history, .. } = self;
            let at = group.0 as usize % clients.len();
            let ask = ask(&mut clients[at], group);
            clients[at].submit(base, history, group, ask);
            clients[at].wake(base, base.now);
        }
        let until = self.base.now.after(STEP_TIME);
        self.run_until(until, |world| world.clients.iter().all(Client::is_idle));
    }
}
