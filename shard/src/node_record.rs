//! What a shard's log says of its node, beside its groups: how many shards the node has, and as
//! whom it met its peers. One record says all of it, so the newest is enough: one that was lost to
//! rot and has a successor is no loss.
//!
//! ```text
//!  0  u16   shards
//!  2  u16   zero
//!  4  u32   peers
//!  8  [32]* each, by number:
//!       0  u32   node
//!       4  u32   zero
//!       8  u64   its incarnation
//!      16  [16]  its newest start that was met
//! ```

use ringraft_types::bytes::{u16_at, u32_at, u64_at};
use ringraft_types::record::{Record, RecordError};
use ringraft_types::{Incarnation, Met, NodeId, Start};
use std::collections::BTreeMap;

const HEAD_BYTES: usize = 8;
const PEER_BYTES: usize = 32;

/// The payload of a record of the node itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRecord {
    /// How many shards the node has: a group's home depends on it.
    pub shards: u16,
    /// As whom each peer was met last.
    pub met: BTreeMap<NodeId, Met>,
}

impl NodeRecord {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + PEER_BYTES * self.met.len());
        out.extend_from_slice(&self.shards.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(self.met.len() as u32).to_le_bytes());
        for (node, met) in &self.met {
            out.extend_from_slice(&node.0.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&met.incarnation.0.to_le_bytes());
            out.extend_from_slice(&met.start.to_bytes());
        }
        out
    }

    /// What a record of the log says.
    ///
    /// # Errors
    /// If its payload isn't one of these.
    pub fn decode(record: &Record<'_>) -> Result<Self, RecordError> {
        let payload = record.payload;
        let short = |need| RecordError::Short { have: payload.len(), need };
        if payload.len() < HEAD_BYTES {
            return Err(short(HEAD_BYTES));
        }
        let peers = u32_at(payload, 4) as usize;
        let need = peers.saturating_mul(PEER_BYTES).saturating_add(HEAD_BYTES);
        if payload.len() != need {
            return Err(short(need));
        }
        let mut met = BTreeMap::new();
        let mut is_zero = u16_at(payload, 2) == 0;
        for peer in payload[HEAD_BYTES..].chunks_exact(PEER_BYTES) {
            is_zero &= u32_at(peer, 4) == 0;
            let (incarnation, start) = (Incarnation(u64_at(peer, 8)), Start::at(peer, 16));
            met.insert(NodeId(u32_at(peer, 0)), Met { incarnation, start });
        }
        if !is_zero || met.len() != peers {
            return Err(RecordError::Reserved);
        }
        Ok(Self { shards: u16_at(payload, 0), met })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_types::record::{self, RecordKind};
    use ringraft_types::{GroupId, Index, Term};

    fn of(payload: &[u8]) -> Result<NodeRecord, RecordError> {
        let mut bytes = Vec::new();
        let (group, index) = (GroupId::ZERO, Index::ZERO);
        record::encode(&mut bytes, RecordKind::Node, group, index, Term::ZERO, [payload, b""]);
        NodeRecord::decode(&record::decode(&bytes).expect("just encoded"))
    }

    /// Goal: the layout of version 1 never changes; what was written is read, and nothing else.
    #[test]
    fn golden_bytes() {
        let met = |incarnation, number, nonce| Met {
            incarnation: Incarnation(incarnation),
            start: Start { number, nonce },
        };
        let peers = [(NodeId(2), met(3, 4, 5)), (NodeId(7), met(8, 9, 10))];
        let known = NodeRecord { shards: 258, met: peers.into() };
        let bytes = known.encode();
        assert_eq!(bytes[..8], [2, 1, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[8..24], [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..40], [4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((bytes.len(), bytes[40], bytes[48], bytes[56], bytes[64]), (72, 7, 8, 9, 10));
        assert_eq!(of(&bytes), Ok(known));
        for length in 0..bytes.len() {
            assert!(of(&bytes[..length]).is_err(), "cut to {length}");
        }
        for zero in [2, 3, 12, 15, 44, 47] {
            let mut wrong = bytes.clone();
            wrong[zero] = 1;
            assert_eq!(of(&wrong), Err(RecordError::Reserved), "byte {zero}");
        }
        let mut twice = bytes.clone();
        twice[40] = 2;
        assert_eq!(of(&twice), Err(RecordError::Reserved), "a peer twice");
    }
}
