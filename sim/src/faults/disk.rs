//! Faults of disks: slow, hung and full ones, operations that fail, and damage to what was durable.

use ringraft_types::Ticks;

use crate::base::Event;
use crate::damage;
use crate::faults::{Armed, FaultKind, Lasting};
use crate::world::World;

impl World {
    pub(super) fn inflict_on_disk(&mut self, kind: FaultKind, node: usize) -> bool {
        let lane = self.base.random.below(u64::from(self.options.shards)) as usize;
        self.say(format!("disk {}/{lane}: {kind}", node + 1));
        match kind {
            FaultKind::SlowDisk => {
                self.nodes[node].moods[lane].slowness = self.base.random.pick(&[10, 100, 1_000]);
                self.nodes[node].moods[lane].was_slow = true;
                self.last(Lasting::SlowDisk(node, lane), 50, 3_000);
            }
            FaultKind::HungDisk => {
                self.nodes[node].moods[lane].is_hung = true;
                self.nodes[node].moods[lane].was_slow = true;
                self.last(Lasting::HungDisk(node, lane), 10, 6_000);
            }
            FaultKind::DiskFull => {
                let room = self.base.random.pick(&[0, 4_096, 100_000, 300_000]);
                let disk = self.nodes[node].disk_mut(lane);
                let capacity = disk.used_bytes() + room;
                disk.memory_mut().set_capacity(capacity);
                self.last(Lasting::DiskFull(node, lane), 100, 5_000);
            }
            _ => {
                let is_often = matches!(kind, FaultKind::ShortIo | FaultKind::Transient);
                let count = if is_often { self.base.random.between(1, 6) } else { 1 };
                // One of a kind at a time: a disk that interrupts everything, again and again, may
                // be given up.
                let armed = &mut self.nodes[node].moods[lane].armed;
                if armed.iter().any(|armed| armed.kind == kind) {
                    return false;
                }
                armed.push(Armed { kind, count });
            }
        }
        true
    }

    /// A hung disk completes what it was told to do.
    pub(super) fn release(&mut self, node: usize, lane: usize) {
        let mood = &mut self.nodes[node].moods[lane];
        mood.is_hung = false;
        let held = std::mem::take(&mut mood.held);
        self.say(format!("disk {}/{lane} goes on", node + 1));
        for (life, operation) in held {
            let later = self.base.span(Ticks(1), Ticks(5_000));
            self.base.after(later, Event::Disk { node, lane, life, operation });
        }
    }

    pub(super) fn damage(&mut self, kind: FaultKind) -> bool {
        if self.options.doomed.is_empty() {
            return false;
        }
        let node = self.base.random.pick(&self.options.doomed);
        let lane = self.base.random.below(u64::from(self.options.shards)) as usize;
        if kind == FaultKind::BitRot && self.base.random.coin() {
            // Between the start that reads the log and the machine that needs it once more.
            let is_ended = self.end_and_start(node, None, "its log will rot when it is read");
            if is_ended {
                self.rots_when_read.insert((node, lane));
            }
            return is_ended;
        }
        let done = if kind == FaultKind::BadSector && self.base.random.coin() {
            // Where the disk wrote when the power went.
            let keep = self.keep();
            self.end_and_start(node, Some(keep), "power cut, and a sector goes bad");
            damage::spoil_newest(self.nodes[node].disk_mut(lane), &mut self.base.random)
        } else {
            let disk = self.nodes[node].disk_mut(lane);
            damage::inflict(disk, kind, &mut self.base.random)
        };
        let Some(done) = done else { return false };
        self.is_damaged(node, lane, kind, &done);
        true
    }

    fn is_damaged(&mut self, node: usize, lane: usize, kind: FaultKind, done: &str) {
        self.damaged.insert(node);
        self.say(format!("disk {}/{lane}: {kind}: {done}", node + 1));
    }

    /// A start has read its log: it may rot before the entries are read again.
    pub(crate) fn rot_after_reading(&mut self, node: usize, lane: usize) {
        if self.is_calm || !self.rots_when_read.remove(&(node, lane)) {
            return;
        }
        let kind = FaultKind::BitRot;
        let disk = self.nodes[node].disk_mut(lane);
        if let Some(done) = damage::inflict(disk, kind, &mut self.base.random) {
            self.is_damaged(node, lane, kind, &done);
        }
    }
}
