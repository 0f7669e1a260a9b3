//! The stream that a snapshot is, but for its strands: who the members are, pieces of the machine,
//! then pieces of the sessions.
//!
//! ```text
//! 0  u32  bytes of the piece     then the piece; numbers are little-endian
//! 4  u32  1: machine, 2: sessions, 3: the end, without a piece, 4: members, once
//! ```
//! The piece that says who the members are:
//!
//! ```text
//! 0  u64  the configuration's entry, zero: the group began with it
//! 8       the configuration, as an entry holds it
//! ```

use ringraft_types::Index;
use ringraft_types::bytes::u32_at;

use crate::machine::{LoadError, StateMachine, StrandPieces};
use crate::session::Sessions;

/// The head of a piece, bytes.
const HEAD_BYTES: usize = 8;
/// What one slice adds to a snapshot, bytes, give or take one item. A turn of a shard without other
/// work takes some ten microseconds for it.
pub(crate) const SLICE_BYTES: usize = 32 << 10;
/// The same if the log grows so fast that the snapshot falls behind.
pub(super) const SLICE_BYTES_MAX: usize = 128 << 10;
/// The longest piece that is read back: as much as a loader holds at once.
pub(super) const PIECE_BYTES_MAX: usize = 64 << 20;

/// What a piece is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Machine = 1,
    Sessions = 2,
    End = 3,
    Members = 4,
}

impl Part {
    fn from_u32(number: u32) -> Option<Self> {
        let all = [Self::Machine, Self::Sessions, Self::End, Self::Members];
        all.into_iter().find(|&part| part as u32 == number)
    }

    /// Cuts the next slice of a snapshot that was begun, of about so many bytes; `piece` is it, head
    /// included, or nothing. What is of strands, if the snapshot is kept in some, goes to `strands`.
    /// Returns what the slice after it is of.
    ///
    /// # Panics
    /// If this is no part that is cut: members are written first, and nothing follows the end.
    pub(crate) fn cut(
        self,
        bytes: usize,
        machine: &mut dyn StateMachine,
        sessions: &mut Sessions,
        piece: &mut Vec<u8>,
        strands: Option<&mut StrandPieces>,
    ) -> Self {
        piece.clear();
        piece.resize(HEAD_BYTES, 0);
        let mut next = self;
        match self {
            Self::Machine => {
                let is_last = match strands {
                    Some(strands) => machine.snapshot_strands(bytes, piece, strands),
                    None => machine.snapshot(bytes, piece),
                };
                if is_last {
                    machine.end_snapshot();
                    next = Self::Sessions;
                }
            }
            Self::Sessions => {
                if sessions.snapshot(bytes, piece) {
                    sessions.end_snapshot();
                    next = Self::End;
                }
            }
            Self::End | Self::Members => unreachable!("written at the beginning, or the end"),
        }
        if piece.len() > HEAD_BYTES {
            head(piece, self);
        } else {
            piece.clear();
        }
        next
    }
}

/// The piece that says who the members are: the first.
pub(crate) fn members_piece(index: Index, payload: &[u8]) -> Vec<u8> {
    let mut piece = [&[0; HEAD_BYTES][..], &index.0.to_le_bytes(), payload].concat();
    head(&mut piece, Part::Members);
    piece
}

/// The last piece.
pub(crate) fn end_piece() -> Vec<u8> {
    let mut piece = vec![0; HEAD_BYTES];
    head(&mut piece, Part::End);
    piece
}

/// Fills in the head of the piece that `bytes` is, its first bytes kept free for it.
fn head(bytes: &mut [u8], part: Part) {
    let length = bytes.len() - HEAD_BYTES;
    assert!(length <= PIECE_BYTES_MAX, "a piece of {length} bytes: a machine cuts them shorter");
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[4..HEAD_BYTES].copy_from_slice(&(part as u32).to_le_bytes());
}

/// Puts pieces together again from bytes that come in any portions.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    held: Vec<u8>,
    is_ended: bool,
}

impl Pieces {
    /// The next bytes; every piece that is whole now is handed over.
    ///
    /// # Errors
    /// If they are no pieces, or one is refused.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut piece: impl FnMut(Part, &[u8]) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = self.held[at..].first_chunk::<HEAD_BYTES>() {
            let error = |what| LoadError { at: 0, what };
            let length = u32_at(head, 0) as usize;
            let part = Part::from_u32(u32_at(head, 4)).ok_or(error("a piece of unknown kind"))?;
            if self.is_ended || length > PIECE_BYTES_MAX || (part == Part::End && length > 0) {
                return Err(error("the pieces' heads contradict each other"));
            }
            let start = at + HEAD_BYTES;
            let Some(body) = self.held.get(start..start + length) else { break };
            if part == Part::End {
                self.is_ended = true;
            } else {
                piece(part, body)?;
            }
            at = start + length;
        }
        self.held.drain(..at);
        Ok(())
    }

    /// Whether the last piece was seen, and nothing after it.
    pub(super) fn is_whole(&self) -> bool {
        self.is_ended && self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut out = Vec::new();
        for (part, body) in [(Part::Machine, &b"abc"[..]), (Part::Machine, b""), (Part::End, b"")] {
            let mut piece = vec![0; HEAD_BYTES];
            piece.extend_from_slice(body);
            head(&mut piece, part);
            out.extend(piece);
        }
        out
    }

    /// However the bytes are cut, the same pieces come out.
    #[test]
    fn any_portions() {
        let bytes = stream();
        for portion in 1..=bytes.len() {
            let (mut pieces, mut found) = (Pieces::default(), Vec::new());
            for bytes in bytes.chunks(portion) {
                assert!(!pieces.is_whole());
                let fed = pieces.feed(bytes, |part, body| {
                    found.push((part, body.to_vec()));
                    Ok(())
                });
                fed.expect("they are pieces");
            }
            assert!(pieces.is_whole());
            assert_eq!(found, [(Part::Machine, b"abc".to_vec()), (Part::Machine, vec![])]);
        }
    }

    /// What comes after the end, an unknown kind and a length beyond reason are refused.
    #[test]
    fn what_is_no_stream_is_refused() {
        let feed = |bytes: &[u8]| Pieces::default().feed(bytes, |_, _| Ok(()));
        let good = stream();
        for (at, byte) in [(4, 9), (3, 0xFF), (good.len() - HEAD_BYTES, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(feed(&bad).is_err(), "byte {at}");
        }
        assert!(feed(&[good.clone(), good].concat()).is_err(), "something follows the end");
    }
}
