//! The write-ahead log: one per shard, shared by its groups.
