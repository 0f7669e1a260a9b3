//! Snapshots: taken, given up for, fetched, loaded.

use crate::disk::end_of;
use crate::members::in_force;
use crate::node::Entry;
use crate::world::{Event, World};
use ringraft_raft::{Input, Install};
use ringraft_types::Index;

impl World {
    /// A node begins a snapshot of what it has applied, or of some of it.
    pub(crate) fn take_snapshot(&mut self, node: usize) {
        let own = &mut self.nodes[node];
        let (applied, before) = (own.commit.0, own.disk.snapshot.len() as u64);
        if own.raft.is_none() || own.is_snapshotting || applied <= before {
            return;
        }
        own.is_snapshotting = true;
        let through = match self.random.permille(500) {
            true => applied,
            false => self.random.between(before + 1, applied + 1),
        };
        let own = &self.nodes[node];
        let (life, snapshot) = (own.life, own.log[..through as usize].to_vec());
        let delay = self.random.between(100, 20_000);
        self.plan(delay, Event::Taken { node, life, snapshot });
    }

    /// It is durable: the log may give up what it holds, now, later or never.
    pub(crate) fn taken(&mut self, node: usize, snapshot: Vec<Entry>) {
        let purged = self.random.below(snapshot.len() as u64 + 1);
        let own = &mut self.nodes[node];
        own.is_snapshotting = false;
        let Some(raft) = &own.raft else { return };
        if own.disk.snapshot.len() < snapshot.len() {
            own.disk.snapshot = snapshot;
        }
        let mut through = own.disk.snapshot.len() as u64;
        if self.keeps_needed {
            through = through.min(raft.needed_from().0 - 1);
        }
        if through <= raft.base().index.0 || self.random.permille(200) {
            return;
        }
        self.reached.releases += 1;
        self.step(node, Input::Released { through: Index(through) }, &[]);
        self.nodes[node].disk.purge(purged.min(through));
    }

    /// A node was told to install: it looks for a snapshot that is new enough, wherever it is.
    pub(crate) fn fetch_snapshot(&mut self, node: usize, install: Install) {
        self.reached.offers += 1;
        let own = &self.nodes[node];
        if own.is_snapshotting || !self.is_healed && self.random.permille(200) {
            return;
        }
        let count = self.nodes.len() as u64;
        let start = self.random.below(count);
        let found = (start..start + count)
            .map(|at| &self.nodes[(at % count) as usize])
            .find(|other| other.disk.snapshot.len() as u64 >= install.base.index.0);
        let snapshot = found.expect("the leader has one").disk.snapshot.clone();
        let held = snapshot[install.base.index.0 as usize - 1].term;
        assert_eq!(held, install.base.term, "all snapshots agree");
        self.fetch(node, snapshot);
    }

    /// A node goes on with what an earlier leader asked for, wherever its own log is now.
    pub(crate) fn fetch_unasked(&mut self, node: usize) {
        let other = self.random.below(self.nodes.len() as u64) as usize;
        let (own, other) = (&self.nodes[node], &self.nodes[other]);
        let is_newer = other.disk.snapshot.len() as u64 > own.commit.0;
        if is_newer && own.raft.is_some() && !own.is_snapshotting {
            self.fetch(node, other.disk.snapshot.clone());
        }
    }

    fn fetch(&mut self, node: usize, snapshot: Vec<Entry>) {
        let (life, delay) = (self.nodes[node].life, self.random.between(1_000, 400_000));
        self.nodes[node].is_snapshotting = true;
        self.plan(delay, Event::Stored { node, life, snapshot });
    }

    /// What was fetched is durable; loading it takes a while, and may be cut short by a crash.
    pub(crate) fn stored(&mut self, node: usize, snapshot: Vec<Entry>) {
        let own = &mut self.nodes[node];
        if own.disk.snapshot.len() < snapshot.len() {
            own.disk.snapshot = snapshot;
        }
        let (life, delay) = (own.life, self.random.between(100, 20_000));
        self.plan(delay, Event::Loaded { node, life });
        if !self.is_healed && self.random.permille(50) {
            self.crash(node);
        }
    }

    /// The machine is the snapshot's, if that still is of use.
    pub(crate) fn loaded(&mut self, node: usize) {
        let own = &mut self.nodes[node];
        own.is_snapshotting = false;
        let last = end_of(&own.disk.snapshot);
        let raft = own.raft.as_ref().expect("of this life");
        if !raft.may_install(last) {
            self.reached.late += 1;
            return;
        }
        let (held, was) = (raft.term_at(last.index), raft.last());
        let own = &self.nodes[node];
        let configuration = &in_force(&self.configurations, &own.first, &own.disk.snapshot);
        self.step(node, Input::Installed { last, configuration }, &[]);
        let own = &self.nodes[node];
        assert!(own.log.starts_with(&own.disk.snapshot), "the log holds what the snapshot does");
        self.reached.installs += 1;
        match held {
            Some(term) if term == last.term => {
                assert_eq!(own.log.len() as u64, was.0, "what follows the snapshot stays");
                self.reached.kept += u64::from(was > last.index);
            }
            Some(_) => self.reached.cut += 1,
            None => self.reached.emptied += 1,
        }
    }
}
