//! A disk that remembers: one file in a FUSE file system, served from memory, whose writes and
//! flushes are kept in order; and mounts of it, and of what a power cut may make of it.

use fastrand::Rng;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use ringraft_types::Sequence;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

const DISK_BYTES: usize = 32 << 20;
const SECTOR_BYTES: usize = 512;
const FILE: INodeNo = INodeNo(2);
const NAME: &str = "disk";
const TTL: Duration = Duration::from_secs(3_600);

/// Something that happened to the disk, in order.
#[derive(Clone, Debug)]
enum Event {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    /// Every write before it is stable.
    Flush,
    /// The log said that it is durable up to here.
    Durable(Sequence),
}

/// What was recorded, from a state that was stable.
#[derive(Clone, Debug)]
pub(crate) struct Tape {
    base: Vec<u8>,
    events: Vec<Event>,
    /// Power cuts before this event are somebody else's matter.
    begin: usize,
}

/// A disk after a power cut.
pub(crate) struct Crash {
    pub(crate) image: Vec<u8>,
    /// What the log had said to be durable.
    pub(crate) durable: Sequence,
    /// Sectors written, not flushed, and not kept.
    pub(crate) lost: usize,
    /// Sectors written, not flushed, and kept.
    kept: usize,
    at: usize,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { durable, lost, kept, at, .. } = self;
        write!(f, "after event {at}, {kept} sectors kept, {lost} lost, {durable} durable")
    }
}

impl Tape {
    pub(crate) fn writes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Write { .. })).count()
    }

    pub(crate) fn flushes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Flush)).count()
    }

    /// The disk after a power cut at a moment drawn: what was flushed is there; of the sectors
    /// written since, each is there or not.
    pub(crate) fn crash(&self, rng: &mut Rng) -> Crash {
        let at = rng.usize(self.begin..=self.events.len());
        let before = &self.events[..at];
        let flushed = before.iter().rposition(|event| matches!(event, Event::Flush));
        let flushed = flushed.expect("a story begins after a flush");
        // All, none, half, nearly all: each shows other mistakes.
        let keep = [0, 10, 50, 90, 100][rng.usize(..5)];
        let mut crash =
            Crash { image: self.base.clone(), durable: Sequence::ZERO, lost: 0, kept: 0, at };
        for (number, event) in before.iter().enumerate() {
            match event {
                Event::Durable(sequence) => crash.durable = *sequence,
                Event::Flush => {}
                Event::Write { offset, bytes } => {
                    for (sector, bytes) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        let start = offset + sector * SECTOR_BYTES;
                        if number > flushed {
                            if rng.u32(..100) >= keep {
                                crash.lost += 1;
                                continue;
                            }
                            crash.kept += 1;
                        }
                        crash.image[start..start + bytes.len()].copy_from_slice(bytes);
                    }
                }
            }
        }
        crash
    }
}

#[derive(Debug)]
struct State {
    image: Vec<u8>,
    tape: Tape,
}

#[derive(Clone, Debug)]
struct Server(Arc<Mutex<State>>);

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while the disk is held")
    }
}

fn attributes(inode: INodeNo) -> FileAttr {
    let is_file = inode == FILE;
    FileAttr {
        ino: inode,
        size: if is_file { DISK_BYTES as u64 } else { 0 },
        blocks: if is_file { (DISK_BYTES / SECTOR_BYTES) as u64 } else { 0 },
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_file { FileType::RegularFile } else { FileType::Directory },
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&TTL, &attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache: what the loop device sends arrives here, in its order.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let start = (offset as usize).min(DISK_BYTES);
        let end = (start + size as usize).min(DISK_BYTES);
        reply.data(&self.state().image[start..end]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let offset = offset as usize;
        let mut state = self.state();
        if offset + data.len() > DISK_BYTES {
            return reply.error(Errno::ENOSPC);
        }
        state.image[offset..offset + data.len()].copy_from_slice(data);
        state.tape.events.push(Event::Write { offset, bytes: data.to_vec() });
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.state().tape.events.push(Event::Flush);
        reply.ok();
    }
}

/// The disk, served; gone when it goes, after what is mounted of it.
pub(crate) struct Disk {
    server: Server,
    session: Option<BackgroundSession>,
    folder: TempDir,
}

impl Disk {
    /// A disk with an empty ext4 on it.
    pub(crate) fn new() -> Result<Self, String> {
        let folder = folder()?;
        let blank = folder.path().join("blank");
        std::fs::write(&blank, vec![0; DISK_BYTES]).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-b", "4096"], &blank)?;
        let image = std::fs::read(&blank).map_err(|error| error.to_string())?;
        let mount = folder.path().join("fuse");
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let tape = Tape { base: image.clone(), events: Vec::new(), begin: 0 };
        let server = Server(Arc::new(Mutex::new(State { image, tape })));
        let session = fuser::spawn_mount(server.clone(), &mount, &Config::default())
            .map_err(|error| format!("FUSE: {error}"))?;
        Ok(Self { server, session: Some(session), folder })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("fuse").join(NAME)
    }

    /// The story begins: what came before is flushed.
    pub(crate) fn begin(&self) {
        let mut state = self.server.state();
        state.tape.begin = state.tape.events.len();
    }

    /// Notes what is durable by now.
    pub(crate) fn mark(&self, durable: Sequence) {
        let mut state = self.server.state();
        let events = &mut state.tape.events;
        let known = events.iter().rev().find_map(|event| match event {
            Event::Durable(sequence) => Some(*sequence),
            Event::Write { .. } | Event::Flush => None,
        });
        if known != Some(durable) {
            events.push(Event::Durable(durable));
        }
    }

    /// Rot strikes where these bytes lie, unseen by whoever remembers them.
    pub(crate) fn rot(&self, bytes: &[u8]) {
        let image = &mut self.server.state().image;
        let at = image.windows(bytes.len()).position(|window| window == bytes);
        image[at.expect("they are on the disk") + bytes.len() / 2] ^= 1;
    }

    pub(crate) fn tape(&self) -> Tape {
        self.server.state().tape.clone()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.umount_and_join().expect("nothing is mounted of the disk any more");
        }
    }
}

/// A mounted ext4; unmounted when it goes.
pub(crate) struct Mount {
    folder: TempDir,
}

impl Mount {
    /// The disk behind a file, through a loop device that passes by the page cache.
    pub(crate) fn device(file: PathBuf) -> Result<Self, String> {
        Self::new(&file)
    }

    /// A disk of its own with these bytes.
    pub(crate) fn image(image: &[u8]) -> Result<Self, String> {
        let folder = folder()?;
        let file = folder.path().join("image");
        std::fs::write(&file, image).map_err(|error| error.to_string())?;
        Self::new(&file)
    }

    fn new(file: &Path) -> Result<Self, String> {
        let folder = folder()?;
        run(
            "mount",
            &["-t", "ext4", "-o", "loop,noatime", &file.display().to_string()],
            folder.path(),
        )?;
        Ok(Self { folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A ring is torn down after its descriptor is closed, and holds its files until then.
        for _ in 0..500 {
            if run("umount", &[], self.folder.path()).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // It goes with its last user.
        if let Err(error) = run("umount", &["--lazy"], self.folder.path()) {
            eprintln!("left mounted: {}: {error}", self.folder.path().display());
        }
    }
}

fn folder() -> Result<TempDir, String> {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())
}

fn run(program: &str, arguments: &[&str], last: &Path) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .arg(last)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
