//! A group that lost entries to rot is whole again (decision 0013).

use crate::event::ShardEvent;
use crate::group::Halt;
use crate::links::Links;
use crate::shard::Shard;
use ringraft_wal::device::Device;

impl<D: Device, L: Links> Shard<D, L> {
    /// What a start found missing came again from the group's leader and is durable: the group
    /// votes and stands as any other, and serves from where its machine stands.
    pub(crate) fn repaired(&mut self, slot: usize) {
        let group = &mut self.groups[slot];
        assert!(!group.is_muted, "a group that takes no part isn't stepped");
        self.metrics.repairs += 1;
        self.events.push(ShardEvent::Repaired { group: group.id, last: group.raft.persisted() });
        // Whatever else it halts for stays.
        if group.halt == Some(Halt::Damaged) {
            (group.halt, group.halt_told) = (None, false);
            self.list_for_apply(slot);
        }
    }
}
