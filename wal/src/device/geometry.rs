//! What a data directory's file system can do: asked, not assumed.

use super::Geometry;
use crate::settings::ALIGN_MAX;
use ringraft_types::limits::BLOCK_ALIGN_MIN;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Why a directory can't hold a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The file system ignores or lacks direct I/O.
    #[error(
        "{directory} is on {file_system}, which has no direct I/O of its own; put the data \
         directory on ext4, XFS or Btrfs (for development only, allow buffered files)"
    )]
    NoDirectIo {
        /// The data directory.
        directory: PathBuf,
        /// The file system's name.
        file_system: String,
    },
    /// The alignment is larger than the log can do.
    #[error("{directory} demands an alignment of {align} bytes, the log can do up to 1 MiB")]
    Alignment {
        /// The data directory.
        directory: PathBuf,
        /// What it demands.
        align: usize,
    },
    /// A system call failed.
    #[error("{what} in {directory} failed with errno {errno}; check its owner and mode")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The data directory.
        directory: PathBuf,
        /// As the kernel says.
        errno: i32,
    },
}

impl GeometryError {
    pub(crate) fn io(what: &'static str, directory: &Path, errno: Errno) -> Self {
        Self::Io { what, directory: directory.to_path_buf(), errno: errno.raw_os_error() }
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// What the device demands.
    pub geometry: Geometry,
    /// The file system's name.
    pub file_system: String,
    /// Direct I/O isn't used, because it can't be and buffered files were allowed.
    pub is_buffered: bool,
}

/// Asks the file system of a directory what direct I/O demands: with a file of its own there,
/// which is gone afterwards, or with a segment if there is no room for one.
///
/// # Errors
/// If direct I/O isn't possible and `allow_buffered` isn't set.
pub fn probe(directory: &Path, allow_buffered: bool) -> Result<Probed, GeometryError> {
    let stat = rustix::fs::statfs(directory)
        .map_err(|errno| GeometryError::io("statfs", directory, errno))?;
    let (file_system, is_refused) = name(stat.f_type as u64);
    let refusal = || GeometryError::NoDirectIo {
        directory: directory.to_path_buf(),
        file_system: file_system.clone(),
    };
    let buffered = || Probed {
        geometry: Geometry { align: BLOCK_ALIGN_MIN },
        file_system: file_system.clone(),
        is_buffered: true,
    };
    if is_refused {
        return if allow_buffered { Ok(buffered()) } else { Err(refusal()) };
    }
    let path = directory.join(format!(".probe-{}", std::process::id()));
    let result = probe_file(directory, &path);
    let (offset_align, physical) = match result {
        Ok(found) => found,
        Err(Errno::INVAL) if allow_buffered => return Ok(buffered()),
        Err(Errno::INVAL) => return Err(refusal()),
        Err(errno) => return Err(GeometryError::io("probing a file", directory, errno)),
    };
    let align = offset_align.max(physical).max(BLOCK_ALIGN_MIN);
    if !align.is_power_of_two() || align > ALIGN_MAX {
        return Err(GeometryError::Alignment { directory: directory.to_path_buf(), align });
    }
    Ok(Probed { geometry: Geometry { align }, file_system, is_buffered: false })
}

/// Offset alignment of direct I/O and the physical block size, bytes.
fn probe_file(directory: &Path, path: &Path) -> Result<(usize, usize), Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
    let own = flags | OFlags::CREATE | OFlags::TRUNC;
    let opened = rustix::fs::open(path, own, Mode::RUSR | Mode::WUSR);
    // Without room for a file of its own, one that is there does: a full disk is no reason not to
    // start, for a start may free some of it.
    let opened = opened.or_else(|errno| {
        let is_full = matches!(errno, Errno::NOSPC | Errno::DQUOT);
        let there = is_full.then(|| segment_in(directory)).flatten().ok_or(errno)?;
        rustix::fs::open(there, flags, Mode::empty())
    });
    let result = opened.and_then(|file| measure(&file));
    // Whatever happened, the file isn't wanted.
    let _ = rustix::fs::unlink(path);
    result
}

/// A segment of the directory, if there is one.
fn segment_in(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.find(|path| path.extension().is_some_and(|extension| extension == "seg"))
}

fn measure(file: &OwnedFd) -> Result<(usize, usize), Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN;
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
    let has_align = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    if has_align && stat.stx_dio_offset_align == 0 {
        return Err(Errno::INVAL);
    }
    let offset_align = if has_align { stat.stx_dio_offset_align as usize } else { BLOCK_ALIGN_MIN };
    let (major, minor) = (stat.stx_dev_major, stat.stx_dev_minor);
    Ok((offset_align, physical_block_bytes(major, minor).unwrap_or(BLOCK_ALIGN_MIN)))
}

/// The physical block size of a device or of the disk that a partition is on, bytes.
fn physical_block_bytes(major: u32, minor: u32) -> Option<usize> {
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let own = device.join("queue/physical_block_size");
    let disk = device.join("../queue/physical_block_size");
    let text = std::fs::read_to_string(own).or_else(|_| std::fs::read_to_string(disk)).ok()?;
    text.trim().parse().ok().filter(|bytes: &usize| bytes.is_power_of_two())
}

/// The name of a file system, and whether it is refused.
fn name(magic: u64) -> (String, bool) {
    let (name, is_refused) = match magic & 0xffff_ffff {
        0xef53 => ("ext4", false),
        0x5846_5342 => ("xfs", false),
        0x9123_683e => ("btrfs", false),
        0x2fc1_2fc1 => ("zfs", false),
        0xf2f5_2010 => ("f2fs", false),
        0x0102_1994 => ("tmpfs", true),
        0x8584_58f6 => ("ramfs", true),
        0x794c_7630 => ("overlayfs", true),
        0x6573_5546 => ("FUSE", true),
        0x0102_1997 => ("9p", true),
        0x6969 => ("NFS", true),
        0xff53_4d42 | 0xfe53_4d42 => ("SMB", true),
        0x6a65_6a63 => ("virtiofs", true),
        other => return (format!("file system {other:#x}"), false),
    };
    (name.to_string(), is_refused)
}
