//! One io_uring, with the files and buffers it works on: the only unsafe code of this crate.
//!
//! The ring owns its buffers and files, so neither can go while the kernel works on them, and it
//! keeps the books on what is lent: bytes that the kernel may write can't be looked at, bytes that
//! it may read can't be changed (I-08). Dropped, it cancels what is in flight and waits for it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::error::BenchError;

/// Operations that may be queued between two submits; more is a mistake of the caller.
const ENTRIES: u32 = 256;

/// A buffer of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferId(u16);

/// A file or socket of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(u16);

/// An operation that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// What the caller named it.
    pub(crate) tag: u32,
    /// Bytes moved; zero for a write followed by a sync.
    pub(crate) bytes: usize,
}

/// What an operation does with its buffer, and what its result has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// The kernel writes the buffer; any count is fine.
    Receive = 1,
    /// The kernel reads the buffer, all of it.
    Send,
    /// The kernel reads the buffer, all of it.
    Write,
    /// The first half of a linked pair: silent unless it fails, and then the second is silent.
    WriteOfPair,
    /// The second half: ends the pair.
    SyncOfPair,
}

/// Zeroed memory with an alignment, as direct I/O asks for.
pub(crate) struct AlignedBytes {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned and reached only through this value, as a `Vec<u8>`'s is.
unsafe impl Send for AlignedBytes {}

impl AlignedBytes {
    /// `bytes` zeros.
    pub(crate) fn zeroed(bytes: usize, align: usize) -> Self {
        assert!(bytes > 0, "an empty buffer serves nothing");
        let layout = Layout::from_size_align(bytes, align).expect("a power of two, and it fits");
        // SAFETY: the layout's size is not zero, asserted above.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        Self { start, layout }
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: allocated and zeroed with this length, and nobody else has the pointer.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A buffer and what of it is lent to the kernel.
struct Buffer {
    memory: AlignedBytes,
    /// Operations in flight that read it.
    readers: u32,
    /// Bytes that the one disk write in flight has to take.
    writing: Option<usize>,
    /// The range that the one receive in flight may write.
    receiving: Option<Range<usize>>,
}

impl Buffer {
    fn is_receiving_in(&self, range: &Range<usize>) -> bool {
        self.receiving.as_ref().is_some_and(|at| at.start < range.end && range.start < at.end)
    }

    fn check(&self, range: &Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.memory.layout.size());
    }

    /// The address of a position, which the caller has checked.
    fn at(&self, position: usize) -> *mut u8 {
        // SAFETY: `check` has bounded the position by the allocation.
        unsafe { self.memory.start.as_ptr().add(position) }
    }
}

/// A ring for one thread: it sleeps in [`Ring::submit_and_wait`] and never spins.
pub(crate) struct Ring {
    ring: IoUring,
    files: Vec<OwnedFd>,
    buffers: Vec<Buffer>,
    /// Operations (a pair is one) whose completion was not seen yet.
    in_flight: u32,
}

impl Ring {
    /// A ring for the calling thread, and for no other (SINGLE_ISSUER).
    ///
    /// # Errors
    /// If the kernel has none to give.
    pub(crate) fn new() -> Result<Self, BenchError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)
            .map_err(|source| BenchError::Ring { source })?;
        Ok(Self { ring, files: Vec::new(), buffers: Vec::new(), in_flight: 0 })
    }

    /// Takes a file or socket; it is closed with the ring.
    pub(crate) fn add_file(&mut self, file: OwnedFd) -> FileId {
        self.files.push(file);
        FileId(u16::try_from(self.files.len() - 1).expect("few files"))
    }

    /// Makes a zeroed buffer; it is freed with the ring.
    pub(crate) fn add_buffer(&mut self, bytes: usize, align: usize) -> BufferId {
        let memory = AlignedBytes::zeroed(bytes, align);
        self.buffers.push(Buffer { memory, readers: 0, writing: None, receiving: None });
        BufferId(u16::try_from(self.buffers.len() - 1).expect("few buffers"))
    }

    /// A file, for a blocking call.
    pub(crate) fn file(&self, file: FileId) -> BorrowedFd<'_> {
        self.files[file.0 as usize].as_fd()
    }

    /// Operations in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Bytes of a buffer, none of which the kernel may be writing.
    pub(crate) fn bytes(&self, buffer: BufferId, range: Range<usize>) -> &[u8] {
        let buffer = &self.buffers[buffer.0 as usize];
        buffer.check(&range);
        assert!(!buffer.is_receiving_in(&range));
        // SAFETY: inside the allocation; no receive in flight may write here (asserted), none can
        // be queued while `self` is borrowed, and Rust writes only through `&mut self`.
        unsafe {
            std::slice::from_raw_parts(buffer.memory.start.as_ptr().add(range.start), range.len())
        }
    }

    /// Bytes of a buffer, to change: the kernel reads nothing of it and writes none of these.
    pub(crate) fn bytes_mut(&mut self, buffer: BufferId, range: Range<usize>) -> &mut [u8] {
        let buffer = &self.buffers[buffer.0 as usize];
        buffer.check(&range);
        assert!(buffer.readers == 0);
        assert!(!buffer.is_receiving_in(&range));
        // SAFETY: inside the allocation; the kernel touches none of it (asserted), and `&mut self`
        // keeps everybody else of this process away.
        unsafe {
            std::slice::from_raw_parts_mut(
                buffer.memory.start.as_ptr().add(range.start),
                range.len(),
            )
        }
    }

    /// Copies bytes from one buffer to the start of another.
    pub(crate) fn copy(&mut self, source: BufferId, range: Range<usize>, target: BufferId) {
        assert!(source != target);
        let length = range.len();
        let from = self.bytes(source, range).as_ptr();
        let to = self.bytes_mut(target, 0..length).as_mut_ptr();
        // SAFETY: both ranges were just checked to be readable and writable, and they are of two
        // different allocations.
        unsafe { std::ptr::copy_nonoverlapping(from, to, length) }
    }

    /// Receives into a range of a buffer; one receive a buffer at a time.
    pub(crate) fn receive(
        &mut self,
        file: FileId,
        buffer: BufferId,
        range: Range<usize>,
        tag: u32,
    ) {
        let lent = &mut self.buffers[buffer.0 as usize];
        lent.check(&range);
        assert!(!range.is_empty(), "no room to receive into");
        assert!(lent.receiving.is_none() && lent.readers == 0);
        let (start, length) = (lent.at(range.start), length_of(&range));
        lent.receiving = Some(range);
        let entry = opcode::Recv::new(self.descriptor(file), start, length).build();
        self.push(&[entry.user_data(name(Kind::Receive, buffer, tag))]);
    }

    /// Sends all of a range.
    pub(crate) fn send(&mut self, file: FileId, buffer: BufferId, range: Range<usize>, tag: u32) {
        let (start, length) = self.lend(buffer, &range);
        let entry = opcode::Send::new(self.descriptor(file), start, length)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.push(&[entry.user_data(name(Kind::Send, buffer, tag))]);
    }

    /// Writes a range with RWF_DSYNC: durable when it completes.
    pub(crate) fn write_dsync(
        &mut self,
        file: FileId,
        buffer: BufferId,
        range: Range<usize>,
        offset: u64,
        tag: u32,
    ) {
        let (start, length) = self.lend_to_disk(buffer, &range);
        let entry = opcode::Write::new(self.descriptor(file), start, length)
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        self.push(&[entry.user_data(name(Kind::Write, buffer, tag))]);
    }

    /// Writes a range, then syncs the file's data, as one linked pair with one completion.
    pub(crate) fn write_then_sync(
        &mut self,
        file: FileId,
        buffer: BufferId,
        range: Range<usize>,
        offset: u64,
        tag: u32,
    ) {
        let (start, length) = self.lend_to_disk(buffer, &range);
        let write = opcode::Write::new(self.descriptor(file), start, length)
            .offset(offset)
            .build()
            .flags(squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS)
            .user_data(name(Kind::WriteOfPair, buffer, tag));
        let sync = opcode::Fsync::new(self.descriptor(file))
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(name(Kind::SyncOfPair, buffer, tag));
        self.push(&[write, sync]);
    }

    /// Hands everything queued to the kernel and sleeps until `completions` are there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn submit_and_wait(&mut self, completions: usize) -> Result<(), BenchError> {
        loop {
            match self.ring.submit_and_wait(completions) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BenchError::io("io_uring_enter")(error)),
            }
        }
    }

    /// The next operation that ended, if there is one.
    ///
    /// # Errors
    /// If it failed, or moved fewer bytes than it should.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Completion>, BenchError> {
        let Some(entry) = self.ring.completion().next() else { return Ok(None) };
        self.settle(&entry).map(Some)
    }

    /// Takes back what an operation had borrowed, and judges its result.
    fn settle(&mut self, entry: &cqueue::Entry) -> Result<Completion, BenchError> {
        let named = entry.user_data();
        let (kind, tag) = ((named >> 56) as u8, named as u32);
        let buffer = &mut self.buffers[(named >> 32 & 0xffff) as usize];
        self.in_flight -= 1;
        let mut written = None;
        if kind == Kind::Receive as u8 {
            buffer.receiving = None;
        } else {
            buffer.readers -= 1;
            if kind != Kind::Send as u8 {
                written = buffer.writing.take();
            }
        }
        let bytes = usize::try_from(entry.result()).map_err(|_| {
            let source = io::Error::from_raw_os_error(-entry.result());
            match source.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => BenchError::Closed,
                _ => BenchError::Io { doing: format!("operation of kind {kind}"), source },
            }
        })?;
        match written {
            // A pair that went well is silent in its first half.
            Some(asked) if kind != Kind::SyncOfPair as u8 && bytes < asked => {
                Err(BenchError::ShortWrite { asked, took: bytes })
            }
            _ => Ok(Completion { tag, bytes }),
        }
    }

    fn descriptor(&self, file: FileId) -> types::Fd {
        types::Fd(self.files[file.0 as usize].as_raw_fd())
    }

    /// Lends a range to an operation that reads it.
    fn lend(&mut self, buffer: BufferId, range: &Range<usize>) -> (*const u8, u32) {
        let lent = &mut self.buffers[buffer.0 as usize];
        lent.check(range);
        assert!(lent.receiving.is_none());
        lent.readers += 1;
        (lent.at(range.start).cast_const(), length_of(range))
    }

    /// Lends a range to the one disk write that a buffer may have in flight.
    fn lend_to_disk(&mut self, buffer: BufferId, range: &Range<usize>) -> (*const u8, u32) {
        let lent = &mut self.buffers[buffer.0 as usize];
        assert!(lent.writing.is_none());
        lent.writing = Some(range.len());
        self.lend(buffer, range)
    }

    /// Queues entries that end in one completion.
    fn push(&mut self, entries: &[squeue::Entry]) {
        // SAFETY: the entries name files and buffers of this ring, which live until it is dropped,
        // and it isn't before every operation has ended (`drop`); the books above keep Rust code
        // from touching the bytes meanwhile.
        unsafe { self.ring.submission().push_multiple(entries) }
            .expect("fewer operations are queued than the ring has entries");
        self.in_flight += 1;
    }

    /// Cancels what can be cancelled and waits for everything.
    fn quiesce(&mut self) -> io::Result<()> {
        self.ring.submit()?;
        while self.in_flight > 0 {
            let cancelled =
                self.ring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
            match cancelled.map_err(|error| (error.raw_os_error(), error)) {
                Ok(()) | Err((Some(libc::ENOENT | libc::EALREADY | libc::EINTR), _)) => {}
                Err((_, error)) => return Err(error),
            }
            self.ring.submit_and_wait(1)?;
            // A failed operation has ended as well: its result is of no interest any more.
            while matches!(self.next(), Ok(Some(_)) | Err(_)) {}
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight > 0 && self.quiesce().is_err() {
            // The kernel may still use the memory: better lost than freed.
            std::mem::forget(std::mem::take(&mut self.buffers));
        }
    }
}

/// The name of an operation in its completion: kind, buffer, and the caller's tag.
fn name(kind: Kind, buffer: BufferId, tag: u32) -> u64 {
    (kind as u64) << 56 | u64::from(buffer.0) << 32 | u64::from(tag)
}

fn length_of(range: &Range<usize>) -> u32 {
    u32::try_from(range.len()).expect("buffers are far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// What is sent arrives; a ring dropped with a receive in flight ends it and returns.
    #[test]
    fn send_receive_and_drop_in_flight() {
        let (left, right) = UnixStream::pair().expect("a socket pair");
        let mut ring = Ring::new().expect("a ring");
        let (left, right) = (ring.add_file(left.into()), ring.add_file(right.into()));
        let (out, inbox) = (ring.add_buffer(64, 8), ring.add_buffer(64, 8));
        ring.bytes_mut(out, 0..5).copy_from_slice(b"hello");
        ring.send(left, out, 0..5, 1);
        ring.receive(right, inbox, 8..64, 2);
        let mut ended = Vec::new();
        while ended.len() < 2 {
            ring.submit_and_wait(1).expect("submitted");
            while let Some(completion) = ring.next().expect("all went well") {
                ended.push(completion);
            }
        }
        ended.sort_by_key(|completion| completion.tag);
        assert_eq!(ended[0], Completion { tag: 1, bytes: 5 });
        assert_eq!(ended[1], Completion { tag: 2, bytes: 5 });
        assert_eq!(ring.bytes(inbox, 8..13), b"hello");
        ring.receive(right, inbox, 0..64, 3);
        ring.submit_and_wait(0).expect("submitted");
        assert_eq!(ring.in_flight(), 1);
    }

    /// Bytes that the kernel may write can't be looked at (I-08).
    #[test]
    fn lent_bytes_are_out_of_reach() {
        let (left, _right) = UnixStream::pair().expect("a socket pair");
        let mut ring = Ring::new().expect("a ring");
        let left = ring.add_file(left.into());
        let inbox = ring.add_buffer(64, 8);
        ring.receive(left, inbox, 32..64, 0);
        assert!(!ring.buffers[0].is_receiving_in(&(0..32)));
        assert!(ring.buffers[0].is_receiving_in(&(31..33)));
    }

    /// A write that fails ends its linked pair with one error, whatever follows it in the chain.
    #[test]
    fn a_failed_pair_is_one_error() {
        let mut ring = Ring::new().expect("a ring");
        let null = std::fs::File::open("/dev/null").expect("there is one");
        let file = ring.add_file(null.into());
        let buffer = ring.add_buffer(4096, 4096);
        ring.write_then_sync(file, buffer, 0..4096, 0, 7);
        ring.submit_and_wait(1).expect("submitted");
        assert!(ring.next().is_err(), "opened for reading only");
        assert_eq!(ring.in_flight(), 0);
        assert_eq!(ring.next().expect("nothing more"), None);
    }
}
