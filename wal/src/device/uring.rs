//! The disk door on the core's io_uring.
//!
//! The device owns no ring. It queues submission entries, which the reactor drains into its ring
//! ([`UringDevice::drain`]), and is told what completed ([`UringDevice::on_completion`]). Buffers,
//! paths and descriptors of an operation stay in a slab until its last completion came (I-08).
//! Files are opened for direct I/O. Creating, opening, listing and blocking writes happen within
//! `submit`; they are rare, or asked for as blocking. A file that is removed loses its name when the
//! kernel says so, and its room in steps afterwards (`reclaim.rs`).

use super::reclaim::Reclaim;
use super::{Completion, Device, Durability, FileId, FileKind, Geometry, Operation, ReadFrom};
use crate::buffer::Buffer;
use crate::device::geometry::{GeometryError, probe};
use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use ringraft_types::tag::{Owner, Tag};
use rustix::fs::{Advice, AtFlags, Mode, OFlags};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which of the two completions of a linked write; of a file that is cut, first the pause.
const STEP_FIRST: u64 = 0;
const STEP_SYNC: u64 = 1;

/// What lies between two steps of a file whose room is given back.
static RECLAIM_PAUSE: types::Timespec = types::Timespec::new().nsec(20_000_000);

/// Whose operation it is.
#[derive(Clone, Copy, Debug)]
enum For {
    /// The log's, which is told.
    Log(Tag),
    /// The log's: a file loses its name.
    Removal(Tag),
    /// The device's own.
    Reclaim,
}

/// An operation that the kernel may be working on.
#[derive(Debug)]
struct Pending {
    owner: For,
    buffer: Option<Buffer>,
    /// Held open and alive until the operation is done; of a removal, the file, if it is open.
    file: Option<Arc<OwnedFd>>,
    _path: Option<CString>,
    result: i32,
    sync_result: Option<i32>,
    /// Completions to come.
    waiting: u8,
}

/// The disk door on a ring that the reactor owns.
#[derive(Debug)]
pub struct UringDevice {
    directory: PathBuf,
    directory_fd: Arc<OwnedFd>,
    geometry: Geometry,
    is_buffered: bool,
    files: BTreeMap<FileId, Arc<OwnedFd>>,
    /// Those that are read by way of the page cache, each by a descriptor of its own for that.
    remembered: BTreeMap<FileId, Arc<OwnedFd>>,
    slab: Vec<Option<Pending>>,
    free: Vec<usize>,
    /// Each with whether the next one is linked to it.
    queue: VecDeque<(Entry, bool)>,
    completed: Vec<Completion>,
    reclaim: Reclaim,
}

/// What the names of a kind's files begin and end with.
fn affixes(kind: FileKind) -> (&'static str, &'static str) {
    match kind {
        FileKind::Segment => ("wal-", ".seg"),
        FileKind::Snapshot => ("snap-", ".snp"),
    }
}

/// A file's name within the data directory.
pub fn file_name(file: FileId) -> String {
    let (prefix, suffix) = affixes(file.kind);
    format!("{prefix}{:016x}-{:016x}{suffix}", file.owner, file.number)
}

/// The file with this name, if it is one of ours.
pub fn parse_file_name(name: &str) -> Option<FileId> {
    let (kind, rest) = [FileKind::Segment, FileKind::Snapshot].into_iter().find_map(|kind| {
        let (prefix, suffix) = affixes(kind);
        Some((kind, name.strip_prefix(prefix)?.strip_suffix(suffix)?))
    })?;
    let (owner, number) = rest.split_once('-')?;
    let parse = |digits: &str| {
        let plain = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (digits.len() == 16 && plain).then(|| u64::from_str_radix(digits, 16).ok())?
    };
    Some(FileId { kind, owner: parse(owner)?, number: parse(number)? })
}

/// The files of ours in a data directory, and their lengths.
pub(crate) fn list_files(directory: &Path) -> std::io::Result<Vec<(FileId, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let Some(file) = entry.file_name().to_str().and_then(parse_file_name) else {
            continue;
        };
        let metadata = std::fs::symlink_metadata(entry.path())?;
        if !metadata.is_file() {
            return Err(std::io::Error::from_raw_os_error(libc::ELOOP));
        }
        files.push((file, metadata.len()));
    }
    Ok(files)
}

impl UringDevice {
    /// A device on this data directory. `allow_buffered`, for development only, takes file systems
    /// without direct I/O too.
    ///
    /// # Errors
    /// If the directory can't be opened or its file system can't do direct I/O.
    pub fn open(directory: &Path, allow_buffered: bool) -> Result<Self, GeometryError> {
        let probed = probe(directory, allow_buffered)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(directory, flags, Mode::empty())
            .map_err(|errno| GeometryError::io("opening the directory", directory, errno))?;
        Ok(Self {
            directory: directory.to_path_buf(),
            directory_fd: Arc::new(fd),
            geometry: probed.geometry,
            is_buffered: probed.is_buffered,
            files: BTreeMap::new(),
            remembered: BTreeMap::new(),
            slab: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            completed: Vec::new(),
            reclaim: Reclaim::default(),
        })
    }

    /// Submission entries that wait to be drained.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// What files that were removed still take on the disk, bytes: their room is given back in steps.
    pub fn reclaiming_bytes(&self) -> u64 {
        self.reclaim.bytes()
    }

    /// Operations that the kernel may be working on, or that wait to be drained.
    pub fn in_flight(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    /// Hands over at most `room` submission entries, in order. A write and the sync linked to it
    /// are handed over together or not at all; chains don't span submissions.
    ///
    /// What is handed over must be submitted, and its completion must be given to
    /// [`UringDevice::on_completion`].
    pub fn drain(&mut self, room: usize, push: &mut impl FnMut(Entry)) -> usize {
        let mut given = 0;
        while let Some(&(_, is_linked)) = self.queue.front() {
            let count = if is_linked { 2 } else { 1 };
            if given + count > room {
                break;
            }
            for (entry, _) in self.queue.drain(..count) {
                push(entry);
            }
            given += count;
        }
        given
    }

    /// A completion whose user data has the owner [`Owner::Device`].
    ///
    /// # Panics
    /// If it isn't the completion of an operation in flight.
    pub fn on_completion(&mut self, user_data: u64, result: i32) {
        let tag = Tag(user_data);
        assert_eq!(tag.owner(), Some(Owner::Device), "the reactor sorts completions by owner");
        let place = (tag.number() >> 1) as usize;
        let pending = self.slab[place].as_mut().expect("an operation in flight completes once");
        match tag.number() & 1 {
            STEP_FIRST => pending.result = result,
            _ => pending.sync_result = Some(result),
        }
        pending.waiting -= 1;
        if pending.waiting == 0 {
            let pending = self.slab[place].take().expect("looked at just now");
            self.free.push(place);
            self.ended(pending);
            self.reclaim_on();
        }
    }

    fn ended(&mut self, pending: Pending) {
        let Pending { owner, buffer, file, result, sync_result, .. } = pending;
        let tag = match owner {
            For::Log(tag) => tag,
            For::Removal(tag) => {
                if let Some(file) = file.filter(|_| result == 0) {
                    self.reclaim.add(file);
                }
                tag
            }
            For::Reclaim => {
                drop(file);
                self.reclaim.step_ended(sync_result.expect("told with the last completion"));
                return;
            }
        };
        self.completed.push(Completion { tag, result, sync_result, buffer, files: Vec::new() });
    }

    /// Goes on giving back the room of files that were removed, after a pause.
    fn reclaim_on(&mut self) {
        let Some((fd, length)) = self.reclaim.begin_step() else { return };
        let raw = types::Fd(fd.as_raw_fd());
        let (place, _) = self.keep(Pending {
            owner: For::Reclaim,
            buffer: None,
            file: Some(fd),
            _path: None,
            result: 0,
            sync_result: None,
            waiting: 2,
        });
        let pause = opcode::Timeout::new(&raw const RECLAIM_PAUSE)
            .flags(types::TimeoutFlags::ETIME_SUCCESS)
            .build()
            .flags(Flags::IO_LINK);
        self.queue.push_back((pause.user_data(user_data(place, STEP_FIRST)), true));
        let cut = opcode::Ftruncate::new(raw, length).build();
        self.queue.push_back((cut.user_data(user_data(place, STEP_SYNC)), false));
    }

    fn complete(&mut self, tag: Tag, result: i32, buffer: Option<Buffer>) {
        let files = Vec::new();
        self.completed.push(Completion { tag, result, sync_result: None, buffer, files });
    }

    /// A place in the slab: what the kernel needs stays there until the last completion.
    fn keep(&mut self, pending: Pending) -> (usize, &mut Pending) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            self.slab.len() - 1
        });
        (place, self.slab[place].insert(pending))
    }

    fn open_file(&mut self, tag: Tag, file: FileId, is_new: bool) {
        let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if !self.is_buffered {
            flags |= OFlags::DIRECT;
        }
        if is_new {
            flags |= OFlags::CREATE | OFlags::EXCL;
        }
        let mode = Mode::RUSR | Mode::WUSR;
        let opened = rustix::fs::openat(&*self.directory_fd, file_name(file), flags, mode);
        let result = match opened {
            Ok(fd) => {
                self.files.insert(file, Arc::new(fd));
                self.remembered.remove(&file);
                0
            }
            Err(errno) => -errno.raw_os_error(),
        };
        self.complete(tag, result, None);
    }

    fn list(&mut self, tag: Tag) {
        let (files, result) = match list_files(&self.directory) {
            Ok(files) => (files, 0),
            Err(error) => (Vec::new(), -error.raw_os_error().unwrap_or(libc::EIO)),
        };
        self.completed.push(Completion { tag, result, sync_result: None, buffer: None, files });
    }

    fn write(&mut self, tag: Tag, file: FileId, offset: u64, buffer: Buffer, how: Durability) {
        let Some(fd) = self.files.get(&file).cloned() else {
            return self.complete(tag, -libc::EBADF, Some(buffer));
        };
        if how == Durability::Blocking {
            return self.write_blocking(tag, &fd, offset, buffer);
        }
        let raw = types::Fd(fd.as_raw_fd());
        let is_linked = how == Durability::LinkedSync;
        let (place, pending) = self.keep(Pending {
            owner: For::Log(tag),
            buffer: Some(buffer),
            file: Some(fd),
            _path: None,
            result: 0,
            sync_result: None,
            waiting: if is_linked { 2 } else { 1 },
        });
        let buffer = pending.buffer.as_mut().expect("put there just now");
        let rw_flags = if how == Durability::Dsync { libc::RWF_DSYNC } else { 0 };
        let mut write = opcode::Write::new(raw, buffer.as_mut_pointer(), buffer.len() as u32)
            .offset(offset)
            .rw_flags(rw_flags)
            .build()
            .user_data(user_data(place, STEP_FIRST));
        if is_linked {
            write = write.flags(Flags::IO_LINK);
        }
        self.queue.push_back((write, is_linked));
        if is_linked {
            let sync = opcode::Fsync::new(raw).flags(types::FsyncFlags::DATASYNC).build();
            self.queue.push_back((sync.user_data(user_data(place, STEP_SYNC)), false));
        }
    }

    fn write_blocking(&mut self, tag: Tag, fd: &OwnedFd, offset: u64, buffer: Buffer) {
        let (result, sync_result) = match rustix::io::pwrite(fd, &buffer, offset) {
            Ok(count) if count == buffer.len() => {
                let sync = rustix::fs::fdatasync(fd);
                (count as i32, sync.map_or_else(|errno| -errno.raw_os_error(), |()| 0))
            }
            // As a link is broken: the sync didn't run.
            Ok(count) => (count as i32, -libc::ECANCELED),
            Err(errno) => (-errno.raw_os_error(), -libc::ECANCELED),
        };
        self.completed.push(Completion {
            tag,
            result,
            sync_result: Some(sync_result),
            buffer: Some(buffer),
            files: Vec::new(),
        });
    }

    fn read(&mut self, tag: Tag, file: FileId, offset: u64, buffer: Buffer, from: ReadFrom) {
        let direct = self.files.get(&file).cloned();
        let fd = match from {
            ReadFrom::Disk => direct,
            ReadFrom::Cache => direct.map(|direct| self.remember(file).unwrap_or(direct)),
        };
        let Some(fd) = fd else {
            return self.complete(tag, -libc::EBADF, Some(buffer));
        };
        let raw = types::Fd(fd.as_raw_fd());
        let (place, pending) = self.keep(Pending {
            owner: For::Log(tag),
            buffer: Some(buffer),
            file: Some(fd),
            _path: None,
            result: 0,
            sync_result: None,
            waiting: 1,
        });
        let buffer = pending.buffer.as_mut().expect("put there just now");
        let read = opcode::Read::new(raw, buffer.as_mut_pointer(), buffer.len() as u32)
            .offset(offset)
            .build()
            .user_data(user_data(place, STEP_FIRST));
        self.queue.push_back((read, false));
    }

    /// The descriptor by which an open file is read by way of the page cache. What an earlier
    /// process left there is dropped first: rot below it would stay unseen. `None`: there is none,
    /// and the disk's own answers are as good.
    fn remember(&mut self, file: FileId) -> Option<Arc<OwnedFd>> {
        if let Some(fd) = self.remembered.get(&file) {
            return Some(fd.clone());
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let name = file_name(file);
        let fd = rustix::fs::openat(&*self.directory_fd, name, flags, Mode::empty()).ok()?;
        rustix::fs::fadvise(&fd, 0, None, Advice::DontNeed).ok()?;
        let fd = Arc::new(fd);
        self.remembered.insert(file, fd.clone());
        Some(fd)
    }

    fn forget(&mut self, tag: Tag, file: FileId) {
        let Some(fd) = self.remembered.remove(&file) else { return self.complete(tag, 0, None) };
        let raw = types::Fd(fd.as_raw_fd());
        let (place, _) = self.keep(Pending {
            owner: For::Log(tag),
            buffer: None,
            file: Some(fd),
            _path: None,
            result: 0,
            sync_result: None,
            waiting: 1,
        });
        let forget = opcode::Fadvise::new(raw, 0, libc::POSIX_FADV_DONTNEED).build();
        self.queue.push_back((forget.user_data(user_data(place, STEP_FIRST)), false));
    }

    fn sync(&mut self, tag: Tag, fd: Option<Arc<OwnedFd>>, flags: types::FsyncFlags) {
        let Some(fd) = fd else { return self.complete(tag, -libc::EBADF, None) };
        let raw = types::Fd(fd.as_raw_fd());
        let (place, _) = self.keep(Pending {
            owner: For::Log(tag),
            buffer: None,
            file: Some(fd),
            _path: None,
            result: 0,
            sync_result: None,
            waiting: 1,
        });
        let sync = opcode::Fsync::new(raw).flags(flags).build();
        self.queue.push_back((sync.user_data(user_data(place, STEP_FIRST)), false));
    }

    fn remove(&mut self, tag: Tag, file: FileId) {
        let name = file_name(file);
        // What can't be opened is removed all the same, its room given back at once.
        self.remembered.remove(&file);
        let fd = self.files.remove(&file).or_else(|| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let opened = rustix::fs::openat(&*self.directory_fd, &name, flags, Mode::empty());
            opened.ok().map(Arc::new)
        });
        let path = CString::new(name).expect("a file name of hexadecimal digits");
        let raw = types::Fd(self.directory_fd.as_raw_fd());
        let (place, pending) = self.keep(Pending {
            owner: For::Removal(tag),
            buffer: None,
            file: fd,
            _path: Some(path),
            result: 0,
            sync_result: None,
            waiting: 1,
        });
        let path = pending._path.as_ref().expect("put there just now").as_ptr();
        let unlink = opcode::UnlinkAt::new(raw, path).flags(AtFlags::empty().bits() as i32).build();
        self.queue.push_back((unlink.user_data(user_data(place, STEP_FIRST)), false));
    }
}

fn user_data(place: usize, step: u64) -> u64 {
    Tag::new(Owner::Device, (place as u64) << 1 | step).0
}

impl Device for UringDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, tag: Tag, operation: Operation) {
        match operation {
            Operation::List => self.list(tag),
            Operation::Create(file) => self.open_file(tag, file, true),
            Operation::Open(file) => self.open_file(tag, file, false),
            Operation::Write { file, offset, buffer, durability } => {
                self.write(tag, file, offset, buffer, durability);
            }
            Operation::Read { file, offset, buffer, from } => {
                self.read(tag, file, offset, buffer, from);
            }
            Operation::Forget(file) => self.forget(tag, file),
            Operation::Sync(file) => {
                let fd = self.files.get(&file).cloned();
                self.sync(tag, fd, types::FsyncFlags::DATASYNC);
            }
            Operation::SyncDirectory => {
                let fd = Some(self.directory_fd.clone());
                self.sync(tag, fd, types::FsyncFlags::empty());
            }
            Operation::Close(file) => {
                // Operations in flight hold the descriptor; it closes with the last of them.
                self.files.remove(&file);
                self.remembered.remove(&file);
                self.complete(tag, 0, None);
            }
            Operation::Remove(file) => self.remove(tag, file),
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        // Who finds the disk full tries again: what was removed must not keep its room by then.
        if self.completed.iter().any(|done| done.result == -libc::ENOSPC) {
            self.reclaim.give_all_back();
        }
        completions.append(&mut self.completed);
    }
}

impl Drop for UringDevice {
    /// The kernel may still be writing to buffers in flight: they are given up, not freed (V15).
    /// So are descriptors. A request says which file it means by a number, and one that waits, for
    /// a linked one or for a worker, looks the number up when it begins (since Linux 5.19): whatever
    /// was opened since under a number that was closed would be synced instead, or cut.
    fn drop(&mut self) {
        for pending in self.slab.drain(..).flatten() {
            if let (For::Reclaim, Some(nameless)) = (pending.owner, &pending.file) {
                // Its room is free at once, though it stays open. A failure costs room, no more.
                let _ = rustix::fs::ftruncate(nameless, 0);
            }
            std::mem::forget((pending, self.directory_fd.clone()));
        }
    }
}
