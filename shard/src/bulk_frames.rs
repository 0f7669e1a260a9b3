//! Frames of the connections that carry snapshots, on both ends.

use crate::error::FrameRefusal;
use crate::links::Links;
use crate::shard::Shard;
use ringraft_net::{Frame, Kind, bulk_wire};
use ringraft_types::{Met, NodeId, Ticks};
use ringraft_wal::device::Device;

impl<D: Device, L: Links> Shard<D, L> {
    /// Whether a peer may fetch snapshots here, or give some: only a node that is linked as a peer,
    /// in the same start. Who it is was judged there.
    pub fn admit_bulk(&self, node: NodeId, from: Met) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.is_up() && peer.greeted == Some(from))
    }

    /// Takes a frame of a peer that asks for snapshots, or answers.
    pub(crate) fn bulk_frame(
        &mut self,
        now: Ticks,
        from: NodeId,
        frame: &Frame<'_>,
    ) -> Result<(), FrameRefusal> {
        let kind = frame.header.kind;
        // Who it is was known by the link, which may be gone, and the peer with it if no group here
        // counts it any more: as who learns of the others' members late.
        if !self.peers.get(&from).is_some_and(|peer| peer.is_up()) || self.is_stopping {
            return Ok(());
        }
        if !self.is_sent_by(from, frame) {
            return Err(FrameRefusal::WrongSender);
        }
        let group = frame.header.group;
        let malformed = |error| FrameRefusal::malformed(kind, error);
        match kind {
            Kind::SnapshotAsk => {
                let ask = bulk_wire::snapshot_ask(frame).map_err(malformed)?;
                self.snapshot_asked(now, from, group, ask);
            }
            Kind::ChunkAsk => {
                let ask = bulk_wire::chunk_ask(frame).map_err(malformed)?;
                self.chunk_asked(now, from, group, ask);
            }
            Kind::SnapshotOffer => {
                let offer = bulk_wire::snapshot_offer(frame).map_err(malformed)?;
                self.snapshot_offered(now, from, group, offer);
            }
            Kind::Chunk => {
                let (head, bytes) = bulk_wire::chunk(frame).map_err(malformed)?;
                self.chunk_came(now, from, group, head, bytes);
            }
            kind => return Err(FrameRefusal::WrongPort { kind }),
        }
        Ok(())
    }
}
