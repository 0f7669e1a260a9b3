//! Files to write to: opened for direct I/O, without a name (a killed run leaves nothing behind),
//! and either zero-filled like a segment of the log or merely allocated.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use serde::Serialize;

use crate::error::BenchError;
use crate::ring::AlignedBytes;

/// Writes are sized and placed in multiples of this.
pub(crate) const ALIGN_BYTES: usize = 4096;

/// How a write is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMethod {
    /// A write and an fdatasync, linked on a ring.
    #[default]
    Linked,
    /// One write with RWF_DSYNC, on a ring.
    Dsync,
    /// `pwrite`, then `fdatasync`, blocking the thread.
    Blocking,
}

impl SyncMethod {
    /// The name used in options and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linked => "linked",
            Self::Dsync => "dsync",
            Self::Blocking => "blocking",
        }
    }
}

/// What the space was before the benchmark wrote to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Space {
    /// Written with zeros and synced, as segments of the log are.
    #[default]
    Zeroed,
    /// Allocated and never written: a sync then writes metadata too.
    Fresh,
}

impl Space {
    /// The name used in options and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zeroed => "zeroed",
            Self::Fresh => "fresh",
        }
    }
}

/// The name of the file system that holds `dir`.
///
/// # Errors
/// If it can't be asked, or keeps its files in memory.
pub(crate) fn file_system(dir: &Path) -> Result<&'static str, BenchError> {
    let facts = rustix::fs::statfs(dir)
        .map_err(|error| BenchError::io(format!("statfs {}", dir.display()))(error.into()))?;
    let (name, in_memory) = match facts.f_type as u32 {
        0x0102_1994 => ("tmpfs", true),
        0x8584_58f6 => ("ramfs", true),
        0xef53 => ("ext4", false),
        0x5846_5342 => ("xfs", false),
        0x9123_683e => ("btrfs", false),
        0xf2f5_2010 => ("f2fs", false),
        0x2fc1_2fc1 => ("zfs", false),
        0x794c_7630 => ("overlayfs", false),
        0x6573_5546 => ("fuse", false),
        0x0102_1997 => ("9p", false),
        0x6969 => ("nfs", false),
        _ => ("unknown", false),
    };
    if in_memory {
        return Err(BenchError::FileSystem { dir: dir.display().to_string(), file_system: name });
    }
    Ok(name)
}

/// A file of `bytes` in `dir`, ready for direct writes.
///
/// # Errors
/// If the file system refuses any of it.
pub(crate) fn create(dir: &Path, bytes: u64, space: Space) -> Result<OwnedFd, BenchError> {
    let name = dir.join(format!("ringraft-bench-{}-{}", std::process::id(), unique()));
    let doing = |what: &str| format!("{what} in {}", dir.display());
    let file = rustix::fs::open(
        &name,
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )
    .map_err(|error| BenchError::io(doing("open a file with O_DIRECT"))(error.into()))?;
    rustix::fs::unlink(&name)
        .map_err(|error| BenchError::io(doing("unlink the benchmark's file"))(error.into()))?;
    renew(&file, bytes, space)?;
    Ok(file)
}

/// Makes the space what it was when it was created.
///
/// # Errors
/// If the file system refuses any of it.
pub(crate) fn renew(file: &OwnedFd, bytes: u64, space: Space) -> Result<(), BenchError> {
    let failed = |what: &str| {
        let doing = format!("{what} {bytes} bytes of the benchmark's file");
        |error: rustix::io::Errno| BenchError::io(doing)(error.into())
    };
    rustix::fs::ftruncate(file, 0).map_err(failed("truncate"))?;
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes).map_err(failed("allocate"))?;
    if space == Space::Zeroed {
        let zeros = AlignedBytes::zeroed(1 << 20, ALIGN_BYTES);
        let mut offset = 0;
        while offset < bytes {
            let take =
                zeros.bytes().len().min(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
            write_at(file, &zeros.bytes()[..take], offset)?;
            offset += take as u64;
        }
    }
    let file = File::from(file.try_clone().map_err(BenchError::io("duplicate a descriptor"))?);
    file.sync_all().map_err(BenchError::io("sync the benchmark's file"))
}

/// Writes all of `bytes` at `offset`, blocking.
///
/// # Errors
/// If the write fails or is short.
pub(crate) fn write_at(file: impl AsFd, bytes: &[u8], offset: u64) -> Result<(), BenchError> {
    let took = rustix::io::pwrite(file, bytes, offset)
        .map_err(|error| BenchError::io(format!("write at {offset}"))(error.into()))?;
    if took != bytes.len() {
        return Err(BenchError::ShortWrite { asked: bytes.len(), took });
    }
    Ok(())
}

/// Syncs the data of `file`, blocking.
///
/// # Errors
/// If the kernel says so: what was written is then in doubt.
pub(crate) fn sync(file: impl AsFd) -> Result<(), BenchError> {
    rustix::fs::fdatasync(file).map_err(|error| BenchError::io("fdatasync")(error.into()))
}

/// A number that no other file of this process has.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Pairs with nothing: only uniqueness is wanted.
    NEXT.fetch_add(1, Ordering::Relaxed)
}
