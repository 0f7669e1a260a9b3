//! Which shard a group lives on. The same answer on every core.

use ringraft_types::{GroupId, ShardId};

/// A group's home by arithmetic: what holds until homes are records of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    shards: u16,
}

impl Router {
    /// A router over this many shards.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(shards: u16) -> Self {
        assert!(shards > 0, "a node has at least one shard");
        Self { shards }
    }

    /// The shard that owns the group.
    pub fn home(&self, group: GroupId) -> ShardId {
        ShardId((group.0 % u64::from(self.shards)) as u16)
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixteen groups over two shards are spread evenly, and the answer is a function of both.
    #[test]
    fn groups_are_spread_evenly() {
        let router = Router::new(2);
        let on_zero = (1..=16).filter(|&g| router.home(GroupId(g)) == ShardId(0)).count();
        assert_eq!(on_zero, 8);
    }
}
