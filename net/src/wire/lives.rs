//! Another life of a node than the one that is known, asked about (decision 0015).
//!
//! ```text
//! LifeAsk        the node, and the life that it greets as
//! LifeAnswer     the same, then each group of which it is a member in that life
//! ```

use ringraft_types::limits::FRAME_BODY_BYTES_MAX;
use ringraft_types::{GroupId, Incarnation, Index, NodeId};
use rkyv::{Archive, Serialize};

use crate::archive::{Travels, access_fixed, access_head, access_items, archive, fixed};
use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Identity, Kind};
use crate::outbox::Outbox;
use crate::wire::write_archive;

const HEAD_BYTES: usize = 12;
const ITEM_BYTES: usize = 16;

/// Groups that one answer names at most.
pub const LIFE_ITEMS_MAX: usize = (FRAME_BODY_BYTES_MAX - HEAD_BYTES) / ITEM_BYTES;

fixed! {
    /// A node in one life of its data directory: asked about, and named by the answer.
    Life, LifeWire, ArchivedLifeWire, 12 {
        /// The node.
        node: NodeId,
        /// The life.
        life: Incarnation,
    }
}

fixed! {
    /// A group that means this life.
    LifeItem, LifeItemWire, ArchivedLifeItemWire, 16 {
        /// The group.
        group: GroupId,
        /// The entry of the configuration that says so; it is committed.
        index: Index,
    }
}

/// The layouts of these frames, for [`super::layout_hash`].
pub(super) const LAYOUTS: [&str; 2] = [Life::LAYOUT, LifeItem::LAYOUT];

impl Life {
    /// Asks about it, in one frame.
    pub fn ask(&self, out: &mut Outbox, sender: Identity) {
        write_archive(out, Kind::LifeAsk, GroupId::ZERO, sender, &self.to_wire());
    }

    /// Says in one frame which groups mean it.
    ///
    /// # Panics
    /// If there are more than [`LIFE_ITEMS_MAX`].
    pub fn answer(&self, out: &mut Outbox, sender: Identity, items: &[LifeItem]) {
        assert!(items.len() <= LIFE_ITEMS_MAX, "an answer of {} groups", items.len());
        let mut writer = FrameWriter::begin(out, Kind::LifeAnswer, GroupId::ZERO, sender);
        archive(&mut writer, &self.to_wire());
        for item in items {
            archive(&mut writer, &item.to_wire());
        }
        writer.finish();
    }
}

/// Opens the body of a `LifeAsk` frame.
///
/// # Errors
/// If it isn't one.
pub fn life_ask(frame: &Frame<'_>) -> Result<Life, WireError> {
    let archived: &ArchivedLifeWire = access_fixed(frame, Kind::LifeAsk, frame.body)?;
    Ok(Life::from_wire(archived))
}

/// Opens the body of a `LifeAnswer` frame: about whom, and the groups.
///
/// # Errors
/// If it isn't one.
pub fn life_answer(frame: &Frame<'_>) -> Result<(Life, Vec<LifeItem>), WireError> {
    let kind = Kind::LifeAnswer;
    let (head, items): (&ArchivedLifeWire, _) = access_head(frame, kind)?;
    let items = access_items::<ArchivedLifeItemWire>(frame, kind, items);
    let groups: Result<_, _> = items.map(|item| item.map(LifeItem::from_wire)).collect();
    Ok((Life::from_wire(head), groups?))
}
