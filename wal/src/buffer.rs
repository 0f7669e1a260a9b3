//! Aligned memory that travels to the disk and back.
//!
//! A buffer has one owner; in flight, the owner is the device (I-08). It is moved, never shared,
//! and there is no way to reach its memory without owning it. All of it is initialised from the
//! start, so that no byte of old heap can ever reach a disk.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// An owned, aligned, initialised piece of memory, and a window on it: the window is what an
/// operation reads or writes.
pub struct Buffer {
    memory: NonNull<u8>,
    layout: Layout,
    start: usize,
    end: usize,
}

// SAFETY: a buffer owns its memory alone (I-08), so moving it moves every access with it.
unsafe impl Send for Buffer {}
// SAFETY: a shared reference to a buffer only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Zeroed memory of `bytes` bytes, aligned to `align`; the window is all of it.
    ///
    /// # Panics
    /// If `bytes` is zero or `align` isn't a power of two.
    pub fn zeroed(bytes: usize, align: usize) -> Self {
        assert!(bytes > 0, "a buffer holds at least one byte");
        let layout = Layout::from_size_align(bytes, align)
            .expect("the alignment is a power of two and the size is far below the address space");
        // SAFETY: the layout's size isn't zero (asserted above).
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { memory, layout, start: 0, end: bytes }
    }

    /// Bytes of memory, inside and outside of the window.
    pub fn capacity(&self) -> usize {
        self.layout.size()
    }

    /// What the memory is aligned to, bytes.
    pub fn align(&self) -> usize {
        self.layout.align()
    }

    /// Sets the window to the first `bytes` bytes of the memory.
    ///
    /// # Panics
    /// If that is more than the capacity.
    pub fn set_window(&mut self, bytes: usize) {
        assert!(bytes <= self.capacity(), "a window is no larger than its memory");
        self.start = 0;
        self.end = bytes;
    }

    /// Moves the start of the window: what is left after a short write.
    ///
    /// # Panics
    /// If the window holds fewer bytes.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.len(), "a window can't start behind its end");
        self.start += bytes;
    }

    /// Where the window starts within the memory, bytes.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The window's address, for the kernel.
    pub fn as_mut_pointer(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: start <= end <= capacity always, and the memory is initialised and owned (I-08).
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr().add(self.start), self.end - self.start)
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is the only access (I-08).
        unsafe {
            std::slice::from_raw_parts_mut(
                self.memory.as_ptr().add(self.start),
                self.end - self.start,
            )
        }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.capacity(), self.align());
        copy.start = self.start;
        copy.end = self.end;
        copy.copy_from_slice(self);
        copy
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, and freed once, by its one owner.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}..{} of {})", self.start, self.end, self.capacity())
    }
}

/// Buffers of one size, kept for their next use. A buffer from the pool holds bytes of its former
/// use: who takes it writes every byte of the window before it goes anywhere.
#[derive(Debug)]
pub struct BufferPool {
    free: Vec<Buffer>,
    bytes: usize,
    align: usize,
    kept_max: usize,
}

impl BufferPool {
    /// A pool of buffers of `bytes` bytes aligned to `align`, of which at most `kept_max` are kept
    /// while nobody uses them.
    pub fn new(bytes: usize, align: usize, kept_max: usize) -> Self {
        Self { free: Vec::with_capacity(kept_max), bytes, align, kept_max }
    }

    /// Keeps so many more from now on, for as long as more are in use.
    pub fn keep_more(&mut self, more: usize) {
        self.kept_max += more;
    }

    /// Keeps so many fewer again; what is beyond goes.
    ///
    /// # Panics
    /// If it never kept that many.
    pub fn keep_fewer(&mut self, fewer: usize) {
        self.kept_max = self.kept_max.checked_sub(fewer).expect("as many were added");
        self.free.truncate(self.kept_max);
        self.free.shrink_to(self.kept_max);
    }

    /// A buffer; its window is all of it.
    pub fn take(&mut self) -> Buffer {
        self.free.pop().unwrap_or_else(|| Buffer::zeroed(self.bytes, self.align))
    }

    /// Gives a buffer back.
    ///
    /// # Panics
    /// If it isn't of this pool's size.
    pub fn give(&mut self, mut buffer: Buffer) {
        assert_eq!(buffer.capacity(), self.bytes, "a buffer comes home to its own pool");
        buffer.set_window(self.bytes);
        if self.free.len() < self.kept_max {
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a pool that is to keep more does so, and lets go what is beyond when it isn't any more.
    #[test]
    fn a_pool_keeps_more_for_a_while() {
        let mut pool = BufferPool::new(4096, 4096, 2);
        let give = |pool: &mut BufferPool| {
            let taken: Vec<Buffer> = (0..8).map(|_| pool.take()).collect();
            taken.into_iter().for_each(|buffer| pool.give(buffer));
            pool.free.len()
        };
        assert_eq!(give(&mut pool), 2);
        pool.keep_more(3);
        assert_eq!(give(&mut pool), 5);
        pool.keep_fewer(3);
        assert_eq!((pool.free.len(), give(&mut pool)), (2, 2));
    }

    /// Thousands of buffers of all sizes, moved between threads, advanced and cloned, keep their
    /// bytes and their alignment.
    #[test]
    fn stress() {
        let threads: Vec<_> = (0..4u8)
            .map(|thread| {
                std::thread::spawn(move || {
                    let mut pool = BufferPool::new(8192, 4096, 3);
                    let mut held = std::collections::VecDeque::new();
                    for round in 0..2_000usize {
                        let mut buffer = pool.take();
                        assert_eq!(buffer.as_ptr() as usize % 4096, 0);
                        let byte = thread ^ (round as u8);
                        buffer.fill(byte);
                        buffer.set_window(4096 + round % 4096);
                        buffer.advance(round % 512);
                        held.push_back((byte, buffer));
                        if held.len() > round % 7 {
                            let (byte, buffer) = held.pop_front().expect("just pushed");
                            let copy = buffer.clone();
                            assert!(buffer.iter().chain(copy.iter()).all(|&b| b == byte));
                            pool.give(buffer);
                        }
                    }
                    held
                })
            })
            .collect();
        for thread in threads {
            for (byte, buffer) in thread.join().expect("no thread panics") {
                assert!(buffer.iter().all(|&b| b == byte));
            }
        }
        for align in [1, 8, 512, 4096, 65536] {
            for bytes in [1, 4095, 4096, 1 << 20] {
                let buffer = Buffer::zeroed(bytes, align);
                assert_eq!(buffer.as_ptr() as usize % align, 0);
                assert!(buffer.iter().all(|&b| b == 0));
            }
        }
    }
}
