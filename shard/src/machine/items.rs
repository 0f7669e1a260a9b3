//! The items that pieces of a snapshot are made of, whatever they say: kept until a piece has room,
//! and read back one by one.

use std::collections::VecDeque;

use super::LoadError;

/// Reads a piece item by item, and hands each one over. `read` gives the item at the beginning of
/// what it is shown, and how many bytes it takes.
///
/// # Errors
/// The first item that can't be read or is refused, and where it begins.
pub(crate) fn load_items<'p, I>(
    piece: &'p [u8],
    read: impl Fn(&'p [u8]) -> Result<(I, usize), &'static str>,
    mut load: impl FnMut(I) -> Result<(), &'static str>,
) -> Result<(), LoadError> {
    let mut at = 0;
    while at < piece.len() {
        let error = |what| LoadError { at, what };
        let (item, length) = read(&piece[at..]).map_err(error)?;
        load(item).map_err(error)?;
        at += length;
    }
    Ok(())
}

/// Items that were written before a piece had room for them: in their order, each taken whole.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    bytes: VecDeque<u8>,
    lengths: VecDeque<usize>,
}

impl Saved {
    /// Adds what `write` appends, as one item.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut VecDeque<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.lengths.push_back(self.bytes.len() - before);
    }

    /// Moves items to the end of a piece until it is `until` bytes long or there are no more.
    pub(crate) fn take(&mut self, until: usize, piece: &mut Vec<u8>) {
        while piece.len() < until
            && let Some(length) = self.lengths.pop_front()
        {
            let (front, back) = self.bytes.as_slices();
            let in_front = length.min(front.len());
            piece.extend_from_slice(&front[..in_front]);
            piece.extend_from_slice(&back[..length - in_front]);
            self.bytes.drain(..length);
        }
        if self.lengths.is_empty() {
            // A burst of writes leaves nothing behind.
            self.bytes = VecDeque::new();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Bytes that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.lengths.capacity() * size_of::<usize>()
    }
}
