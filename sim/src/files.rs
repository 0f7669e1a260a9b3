//! What lies in the files of a disk, block by block and chunk by chunk, as far as it is intact.

use ringraft_types::limits::BLOCK_ALIGN_MIN;
use ringraft_wal::SnapshotHead;
use ringraft_wal::block::Block;
use ringraft_wal::device::FileKind;
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::format::SEGMENT_HEADER_BYTES;
use ringraft_wal::snapshot::HEAD_BYTES;

/// The intact blocks of a segment, each with its offset.
pub(crate) fn blocks(segment: &[u8]) -> impl Iterator<Item = (usize, Block<'_>)> {
    let mut at = SEGMENT_HEADER_BYTES;
    std::iter::from_fn(move || {
        while at < segment.len() {
            let place = at;
            if let Ok(block) = Block::parse(&segment[place..]) {
                at += block.bytes.len();
                return Some((place, block));
            }
            at += BLOCK_ALIGN_MIN;
        }
        None
    })
}

/// The heads of the snapshots on a disk that are finished.
pub(crate) fn snapshots(disk: &MemoryDevice) -> Vec<SnapshotHead> {
    let files = disk.files().into_iter().filter(|(file, _)| file.kind == FileKind::Snapshot);
    let heads = files.filter_map(|(file, length)| {
        SnapshotHead::decode(disk.content(file).get(..HEAD_BYTES)?, file, length).ok()
    });
    heads.collect()
}
