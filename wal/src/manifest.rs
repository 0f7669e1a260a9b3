//! The data directory's identity: which cluster, node and life it belongs to, who votes first, how
//! often its node was started, and which logs must be in it.
//!
//! Two copies, `manifest-a` and `manifest-b`, of one size, rewritten in place: a start must not need
//! room on a full disk, for what frees some is recovery, which comes after. The newer one is never
//! overwritten before the other one is as new, so of two writes one can be torn, not both. A copy
//! that isn't whole is made anew: aside, synced, renamed, synced with the directory. One good copy
//! is enough; the newer generation counts. Written at format and boot, with plain blocking files.
//!
//! ```text
//!  0  [8]   magic         "ringmani"
//!  8  u32   checksum      CRC-32/IEEE of bytes 0..8, then 12 to the end
//! 12  u16   version       1
//! 14  u16   zero
//! 16  u128  cluster
//! 32  u64   incarnation
//! 40  u64   generation    counts the writes, from 1
//! 48  u64   feature level
//! 56  u32   node
//! 60  u32   nonces        that follow, at most 1,024
//! 64  u64   start         the number of the newest start; zero: none yet
//! 72  [32]  logs          a bit for each that was begun: log 1 is bit 0 of byte 0
//! 104 u64   lacked        a start that it doesn't hold, though its node was met in it: its number;
//!                         zero: none is known
//! 112 u64   its nonce
//! 120 u32   who met the node in it
//! 124 u32   first         one more than there are first voters; zero: they aren't known
//! 128 [8]*  the nonces of the newest starts, the newest last
//!     zeros up to 8,320
//! 8,320 u32* the first voters, ascending, at most 15
//!     zeros up to 12,288
//! ```

use crate::format::{checksum, put, round_up};
use ringraft_types::bytes::{u16_at, u32_at, u64_at, u128_at};
use ringraft_types::limits::{BLOCK_ALIGN_MIN, NODES_MAX};
use ringraft_types::{ClusterId, Incarnation, Lacked, NodeId, Start, Starts};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The manifest's format version.
pub const VERSION: u16 = 1;
/// The copies' file names.
pub const COPIES: [&str; 2] = ["manifest-a", "manifest-b"];
const MAGIC: [u8; 8] = *b"ringmani";
/// Bytes before the nonces.
const HEAD_BYTES: usize = 128;
const LOGS_AT: usize = 72;
const LOGS_BYTES: usize = 32;
const LACKED_AT: usize = LOGS_AT + LOGS_BYTES;
const FIRST_COUNT_AT: usize = 124;
const FIRST_AT: usize = HEAD_BYTES + 8 * Starts::REMEMBERED_MAX;
/// A copy: whole pages, so that writing one never has to read what may not be readable.
const COPY_BYTES: usize = round_up(FIRST_AT + 4 * NODES_MAX, BLOCK_ALIGN_MIN);

/// Logs of a node, by their numbers from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logs([u8; LOGS_BYTES]);

impl Logs {
    /// The largest number.
    pub const ID_MAX: u64 = 8 * LOGS_BYTES as u64;

    /// Adds one.
    ///
    /// # Panics
    /// If its number isn't from 1 to [`Logs::ID_MAX`].
    pub fn insert(&mut self, log_id: u64) {
        assert!((1..=Self::ID_MAX).contains(&log_id), "there is no log {log_id}");
        let bit = log_id as usize - 1;
        self.0[bit / 8] |= 1 << (bit % 8);
    }

    /// Whether it is among them.
    pub fn holds(&self, log_id: u64) -> bool {
        let Some(bit) = log_id.checked_sub(1).map(|bit| bit as usize) else { return false };
        self.0.get(bit / 8).is_some_and(|byte| byte & 1 << (bit % 8) != 0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; LOGS_BYTES]
    }
}

/// Who a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// This life of the directory.
    pub incarnation: Incarnation,
    /// The feature level in force when it was written.
    pub feature_level: u64,
    /// The voters that every group begins with, ascending; empty: others began the groups, and this
    /// node is to join them. `None`: not written down by who formatted it.
    pub first: Option<Vec<NodeId>>,
    /// The starts of its node.
    pub starts: Starts,
    /// The logs that were begun: a block of each was durable once.
    pub logs: Logs,
    /// A peer said that this is an older copy of the node's directory: no start may serve from it.
    pub lacked: Option<Lacked>,
}

/// A manifest as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The manifest.
    pub manifest: Manifest,
    /// Its generation.
    pub generation: u64,
    /// Copies that are missing, rotten or older; [`Manifest::store`] repairs them.
    pub copies_bad: u32,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Neither copy exists.
    #[error("{directory} holds no manifest; has it been formatted?")]
    Missing {
        /// The data directory.
        directory: PathBuf,
    },
    /// No copy is intact.
    #[error("no copy of the manifest in {directory} is intact; replace this node")]
    Rotten {
        /// The data directory.
        directory: PathBuf,
    },
    /// The copies name different owners.
    #[error("the copies of the manifest in {directory} name different owners; was it copied?")]
    Contradiction {
        /// The data directory.
        directory: PathBuf,
    },
    /// Another version wrote it.
    #[error("the manifest in {directory} has version {version}, this program knows {VERSION}")]
    Version {
        /// The data directory.
        directory: PathBuf,
        /// In the file.
        version: u16,
    },
    /// A system call failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// As the system says.
        source: io::Error,
    },
}

enum Copy {
    Missing,
    Rotten,
    Version(u16),
    Good(Manifest, u64),
}

impl Manifest {
    /// Whether a directory holds a copy, intact or not.
    pub fn exists(directory: &Path) -> bool {
        COPIES.iter().any(|name| directory.join(name).symlink_metadata().is_ok())
    }

    /// Reads the manifest of a data directory.
    ///
    /// # Errors
    /// If no copy is intact, or they contradict each other.
    pub fn load(directory: &Path) -> Result<Found, ManifestError> {
        let directory_path = || directory.to_path_buf();
        let mut newest: Option<(Manifest, u64)> = None;
        let mut found = 0;
        let mut good: Vec<u64> = Vec::new();
        for name in COPIES {
            match read_copy(&directory.join(name))? {
                Copy::Missing => {}
                Copy::Rotten => found += 1,
                Copy::Version(version) => {
                    return Err(ManifestError::Version { directory: directory_path(), version });
                }
                Copy::Good(manifest, generation) => {
                    found += 1;
                    good.push(generation);
                    if let Some((other, _)) = &newest
                        && (other.cluster, other.node, other.incarnation)
                            != (manifest.cluster, manifest.node, manifest.incarnation)
                    {
                        let directory = directory_path();
                        return Err(ManifestError::Contradiction { directory });
                    }
                    if newest.as_ref().is_none_or(|(_, newest)| generation > *newest) {
                        newest = Some((manifest, generation));
                    }
                }
            }
        }
        match newest {
            Some((manifest, generation)) => {
                let current = good.iter().filter(|&&copy| copy == generation).count();
                let copies_bad = (COPIES.len() - current) as u32;
                Ok(Found { manifest, generation, copies_bad })
            }
            None if found == 0 => Err(ManifestError::Missing { directory: directory_path() }),
            None => Err(ManifestError::Rotten { directory: directory_path() }),
        }
    }

    /// Writes both copies, durably, as this generation: one more than the last, 1 at format. Where
    /// both are whole, this takes no room on the disk.
    ///
    /// # Errors
    /// If a system call fails; then at least one copy, the old or the new, is intact.
    pub fn store(&self, directory: &Path, generation: u64) -> Result<(), ManifestError> {
        let bytes = self.encode(generation);
        let [first, second] = order(directory)?;
        // What a killed process wrote last may not be on the disk yet, and is what counts if the
        // write of the other copy is torn.
        sync_if_there(&second)?;
        for path in [first, second] {
            let is_whole = path.symlink_metadata().is_ok_and(|found| {
                // A name of its own elsewhere is a copy of the directory that must stay as it is.
                found.is_file() && found.nlink() == 1 && found.len() == COPY_BYTES as u64
            });
            match is_whole.then(|| write_in_place(&path, &bytes)) {
                Some(Ok(())) => {}
                // Another place of the disk may do.
                Some(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    write_anew(directory, &path, &bytes)?;
                }
                Some(Err(source)) => {
                    return Err(ManifestError::Io { what: "writing", path, source });
                }
                None => write_anew(directory, &path, &bytes)?,
            }
        }
        Ok(())
    }

    fn encode(&self, generation: u64) -> Vec<u8> {
        let nonces = self.starts.nonces();
        let first = self.first.as_deref();
        assert!(is_voters(first.unwrap_or_default()), "nobody votes so: {first:?}");
        let mut out = vec![0; COPY_BYTES];
        put(&mut out, 0, &MAGIC);
        put(&mut out, 12, &VERSION.to_le_bytes());
        put(&mut out, 16, &self.cluster.0.to_le_bytes());
        put(&mut out, 32, &self.incarnation.0.to_le_bytes());
        put(&mut out, 40, &generation.to_le_bytes());
        put(&mut out, 48, &self.feature_level.to_le_bytes());
        put(&mut out, 56, &self.node.0.to_le_bytes());
        put(&mut out, 60, &(nonces.len() as u32).to_le_bytes());
        put(&mut out, 64, &self.starts.newest().number.to_le_bytes());
        put(&mut out, LOGS_AT, &self.logs.0);
        if let Some(Lacked { start, by }) = self.lacked {
            put(&mut out, LACKED_AT, &start.to_bytes());
            put(&mut out, LACKED_AT + Start::BYTES, &by.0.to_le_bytes());
        }
        let count = first.map_or(0, |first| first.len() as u32 + 1);
        put(&mut out, FIRST_COUNT_AT, &count.to_le_bytes());
        for (place, node) in first.unwrap_or_default().iter().enumerate() {
            put(&mut out, FIRST_AT + 4 * place, &node.0.to_le_bytes());
        }
        for (place, nonce) in nonces.iter().enumerate() {
            put(&mut out, HEAD_BYTES + 8 * place, &nonce.to_le_bytes());
        }
        let checksum = checksum(&out);
        put(&mut out, 8, &checksum.to_le_bytes());
        out
    }
}

/// Whether these may be a group's first voters, or are none.
fn is_voters(nodes: &[NodeId]) -> bool {
    let ascend = nodes.is_sorted_by(|one, next| one < next);
    nodes.len() <= NODES_MAX && ascend && nodes.first() != Some(&NodeId::ZERO)
}

/// The copies in the order in which they may be overwritten: the one that counts least first.
fn order(directory: &Path) -> Result<[PathBuf; 2], ManifestError> {
    let [a, b] = COPIES.map(|name| directory.join(name));
    let generation = |path| {
        Ok(match read_copy(path)? {
            Copy::Good(_, generation) => Some(generation),
            Copy::Missing | Copy::Rotten | Copy::Version(_) => None,
        })
    };
    Ok(if generation(&a)? <= generation(&b)? { [a, b] } else { [b, a] })
}

fn sync_if_there(path: &Path) -> Result<(), ManifestError> {
    match File::open(path).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ManifestError::Io { what: "syncing", path: path.into(), source }),
        Ok(()) => Ok(()),
    }
}

fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

fn write_anew(directory: &Path, path: &Path, bytes: &[u8]) -> Result<(), ManifestError> {
    let aside = path.with_extension("new");
    let wrap = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| ManifestError::Io { what, path, source }
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .map_err(wrap("creating", &aside))?;
    file.write_all(bytes).map_err(wrap("writing", &aside))?;
    file.sync_all().map_err(wrap("syncing", &aside))?;
    fs::rename(&aside, path).map_err(wrap("renaming to", path))?;
    let sync = File::open(directory).and_then(|directory| directory.sync_all());
    sync.map_err(wrap("syncing", directory))
}

fn read_copy(path: &Path) -> Result<Copy, ManifestError> {
    match fs::read(path) {
        Ok(bytes) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Copy::Missing),
        // The other copy is enough, and this one is written anew with the next start.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(Copy::Rotten),
        Err(source) => Err(ManifestError::Io { what: "reading", path: path.to_path_buf(), source }),
    }
}

fn decode(bytes: &[u8]) -> Copy {
    let is_sized = bytes.len() == COPY_BYTES;
    if !is_sized || bytes[..8] != MAGIC || u32_at(bytes, 8) != checksum(bytes) {
        return Copy::Rotten;
    }
    let version = u16_at(bytes, 12);
    if version != VERSION {
        return Copy::Version(version);
    }
    let count = u32_at(bytes, 60) as usize;
    let Some(nonces) = bytes[HEAD_BYTES..FIRST_AT].get(..8 * count) else { return Copy::Rotten };
    let nonces = nonces.chunks_exact(8).map(|nonce| u64_at(nonce, 0)).collect();
    let Some(starts) = Starts::new(u64_at(bytes, 64), nonces) else { return Copy::Rotten };
    let count = (u32_at(bytes, FIRST_COUNT_AT) as usize).checked_sub(1);
    let first = count.map(|count| bytes[FIRST_AT..].get(..4 * count));
    if first == Some(None) {
        return Copy::Rotten;
    }
    let voters = |bytes: &[u8]| bytes.chunks_exact(4).map(|node| NodeId(u32_at(node, 0))).collect();
    let first: Option<Vec<NodeId>> = first.flatten().map(voters);
    if !is_voters(first.as_deref().unwrap_or_default()) {
        return Copy::Rotten;
    }
    let lacked = Start::at(bytes, LACKED_AT);
    let by = NodeId(u32_at(bytes, LACKED_AT + Start::BYTES));
    let manifest = Manifest {
        cluster: ClusterId(u128_at(bytes, 16)),
        node: NodeId(u32_at(bytes, 56)),
        incarnation: Incarnation(u64_at(bytes, 32)),
        feature_level: u64_at(bytes, 48),
        first,
        starts,
        logs: Logs(bytes[LOGS_AT..LACKED_AT].try_into().expect("32 bytes")),
        lacked: (lacked.number != 0).then_some(Lacked { start: lacked, by }),
    };
    Copy::Good(manifest, u64_at(bytes, 40))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let mut logs = Logs::default();
        assert!(logs.is_empty());
        for log in [1, 10, Logs::ID_MAX] {
            logs.insert(log);
        }
        Manifest {
            cluster: ClusterId(0xC1),
            node: NodeId(2),
            incarnation: Incarnation(0x17),
            feature_level: 1,
            first: Some(vec![NodeId(2), NodeId(7)]),
            starts: Starts::new(2, vec![0xA, 0xB]).expect("two starts"),
            logs,
            lacked: Some(Lacked { start: Start { number: 0xC, nonce: 0xD }, by: NodeId(3) }),
        }
    }

    /// Goal: the starts come back as they were, also when there are more than are remembered.
    #[test]
    fn starts_come_back() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut manifest = Manifest { starts: Starts::default(), ..manifest() };
        let most = Starts::REMEMBERED_MAX as u64;
        for generation in 1..=most + 3 {
            if generation <= 3 || generation > most {
                manifest.store(directory.path(), generation).expect("stored");
                let found = Manifest::load(directory.path()).expect("just stored");
                assert_eq!(found.manifest, manifest);
            }
            manifest.starts.begin(generation << 32);
        }
    }

    /// Goal: the logs that were begun are told from all others.
    #[test]
    fn logs_are_told_apart() {
        let Manifest { logs, .. } = manifest();
        let held: Vec<u64> = (0..=Logs::ID_MAX + 1).filter(|&log| logs.holds(log)).collect();
        assert_eq!(held, [1, 10, Logs::ID_MAX]);
        assert!(!logs.is_empty());
    }

    /// Goal: the first voters come back, none and unknown told apart, also beside as many starts as
    /// are remembered; what nobody can have written is no manifest.
    #[test]
    fn first_voters_come_back() {
        let most: Vec<NodeId> = (1..=NODES_MAX as u32).map(NodeId).collect();
        for first in [None, Some(Vec::new()), Some(vec![NodeId(9)]), Some(most)] {
            let nonces = (1..=Starts::REMEMBERED_MAX as u64).collect();
            let starts = Starts::new(5000, nonces).expect("as many as are remembered");
            let manifest = Manifest { first, starts, ..manifest() };
            let Copy::Good(read, 3) = decode(&manifest.encode(3)) else { panic!("just encoded") };
            assert_eq!(read, manifest);
        }
        let bytes = manifest().encode(3);
        let changed = |at: usize, number: u32| {
            let mut bytes = bytes.clone();
            put(&mut bytes, at, &number.to_le_bytes());
            let checksum = checksum(&bytes);
            put(&mut bytes, 8, &checksum.to_le_bytes());
            decode(&bytes)
        };
        assert!(
            matches!(changed(124, 2), Copy::Good(read, _) if read.first == Some(vec![NodeId(2)]))
        );
        for (at, number) in [
            (124, 4),
            (124, NODES_MAX as u32 + 2),
            (124, u32::MAX),
            (8320, 0),
            (8320, 7),
            (8324, 1),
            (60, 1025),
        ] {
            assert!(matches!(changed(at, number), Copy::Rotten), "{number} at {at}");
        }
    }

    /// The layout of version 1 never changes.
    #[test]
    fn golden_bytes() {
        let bytes = manifest().encode(3);
        assert_eq!(bytes.len(), 12_288);
        assert_eq!(&bytes[..8], b"ringmani");
        assert_eq!(bytes[12..16], [1, 0, 0, 0]);
        assert_eq!(bytes[32..40], 0x17u64.to_le_bytes());
        assert_eq!((bytes[40], bytes[48]), (3, 1));
        assert_eq!(bytes[56..72], [2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((bytes[72], bytes[73], bytes[103]), (1, 2, 0x80));
        assert_eq!(bytes[74..103], [0; 29]);
        assert_eq!(bytes[104..120], [0xC, 0, 0, 0, 0, 0, 0, 0, 0xD, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[120..128], [3, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(bytes[128..144], [0xA, 0, 0, 0, 0, 0, 0, 0, 0xB, 0, 0, 0, 0, 0, 0, 0]);
        assert!(bytes[144..8320].iter().all(|&byte| byte == 0));
        assert_eq!(bytes[8320..8328], [2, 0, 0, 0, 7, 0, 0, 0]);
        assert!(bytes[8328..].iter().all(|&byte| byte == 0));
        let whole = Manifest { lacked: None, ..manifest() };
        assert!(matches!(decode(&whole.encode(3)), Copy::Good(read, 3) if read == whole));
    }

    /// One good copy is enough, none is an error, and every bit flip is noticed.
    #[test]
    fn one_good_copy_is_enough() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let directory = directory.path();
        assert!(matches!(Manifest::load(directory), Err(ManifestError::Missing { .. })));
        manifest().store(directory, 1).expect("stored");
        let found = Manifest::load(directory).expect("just stored");
        assert_eq!((found.manifest, found.generation, found.copies_bad), (manifest(), 1, 0));
        let path = directory.join(COPIES[0]);
        let good = fs::read(&path).expect("just stored");
        for byte in 0..good.len() {
            // Of the padding one bit of each byte.
            for bit in 0..if byte < 144 || (8320..8328).contains(&byte) { 8 } else { 1 } {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                assert!(matches!(decode(&bad), Copy::Rotten), "bit {bit} of byte {byte}");
            }
        }
        fs::write(&path, &good[..good.len() - 1]).expect("written");
        let found = Manifest::load(directory).expect("the other copy is good");
        assert_eq!((found.manifest, found.copies_bad), (manifest(), 1));
        Manifest { feature_level: 2, ..manifest() }.store(directory, 2).expect("stored");
        fs::write(&path, &good).expect("an older generation");
        let found = Manifest::load(directory).expect("both are good");
        assert_eq!((found.generation, found.copies_bad), (2, 1));
        let other = Manifest { node: NodeId(9), ..manifest() };
        fs::write(&path, other.encode(3)).expect("written");
        assert!(matches!(Manifest::load(directory), Err(ManifestError::Contradiction { .. })));
        for name in COPIES {
            fs::write(directory.join(name), b"rot").expect("written");
        }
        assert!(matches!(Manifest::load(directory), Err(ManifestError::Rotten { .. })));
    }

    /// S09: whatever became of one copy, the other is read, and the next store, of which each start
    /// does one, leaves two good ones. A copy of another node, or two that are rotten, stop the start.
    #[test]
    fn s09_a_store_repairs_the_other_copy() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let directory = directory.path();
        let good = manifest().encode(7);
        let other = Manifest { node: NodeId(9), ..manifest() };
        let mut flipped = good.clone();
        flipped[40] ^= 1;
        let shifted: Vec<u8> = good[512..].iter().chain(&good[..512]).copied().collect();
        let states: [(&str, Option<&[u8]>); 7] = [
            ("missing", None),
            ("empty", Some(b"")),
            ("cut", Some(&good[..1000])),
            ("flipped", Some(&flipped)),
            ("misplaced", Some(&shifted)),
            ("an older generation", Some(&manifest().encode(6))),
            ("zeros", Some(&[0; COPY_BYTES])),
        ];
        for at in 0..2 {
            for (what, state) in states {
                let paths = COPIES.map(|name| directory.join(name));
                fs::write(&paths[1 - at], &good).expect("written");
                match state {
                    Some(bytes) => fs::write(&paths[at], bytes).expect("written"),
                    None => drop(fs::remove_file(&paths[at])),
                }
                let found = Manifest::load(directory).expect("one copy is good");
                let read = (found.manifest, found.generation, found.copies_bad);
                assert_eq!(read, (manifest(), 7, 1), "{what}");
                manifest().store(directory, 8).expect("stored");
                let found = Manifest::load(directory).expect("just stored");
                assert_eq!((found.generation, found.copies_bad), (8, 0), "{what}");
            }
            // Whose of the two this directory is can't be known: nothing is served.
            let paths = COPIES.map(|name| directory.join(name));
            fs::write(&paths[1 - at], &good).expect("written");
            fs::write(&paths[at], other.encode(7)).expect("written");
            assert!(Manifest::load(directory).is_err(), "another node's");
            for path in paths {
                fs::write(path, b"rot").expect("written");
            }
            assert!(matches!(Manifest::load(directory), Err(ManifestError::Rotten { .. })));
        }
    }

    /// A store takes no room: both copies stay the files that they are. What has a second name
    /// elsewhere, as in a copy of links, is left as it is.
    #[test]
    fn a_store_takes_no_room() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let directory = directory.path();
        let files = || COPIES.map(|name| fs::metadata(directory.join(name)).expect("there"));
        let places = || files().map(|file| (file.ino(), file.len()));
        manifest().store(directory, 1).expect("stored");
        let before = places();
        let mut manifest = manifest();
        for generation in 2..5 {
            manifest.starts.begin(generation);
            manifest.store(directory, generation).expect("stored");
            assert_eq!(places(), before);
            let found = Manifest::load(directory).expect("just stored");
            assert_eq!((found.manifest, found.copies_bad), (manifest.clone(), 0));
        }
        let (path, link) = (directory.join(COPIES[1]), directory.join("link"));
        fs::hard_link(&path, &link).expect("linked");
        let old = fs::read(&link).expect("linked");
        manifest.store(directory, 5).expect("stored");
        assert!(fs::read(&link).expect("linked") == old);
        assert!(fs::read(&path).expect("stored") == manifest.encode(5));
        assert_eq!(fs::read_dir(directory).expect("there").count(), 3, "nothing is left aside");
    }

    /// A store that is cut at any sector leaves the old manifest or the new one, whatever state the
    /// copies were in before: the one that counts is never the first to be overwritten.
    #[test]
    fn a_torn_store_loses_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let directory = directory.path();
        let old = manifest();
        let new = Manifest { starts: Starts::new(3, vec![1, 2, 3]).expect("three"), ..manifest() };
        let (older, bytes) = (manifest().encode(8), new.encode(10));
        let states: [&[u8]; 4] = [&old.encode(9), &older, b"rot", b""];
        for (newest, other) in [(0, 1), (1, 0)] {
            for state in states {
                let set = || {
                    let paths = COPIES.map(|name| directory.join(name));
                    fs::write(&paths[newest], old.encode(9)).expect("written");
                    let _ = fs::remove_file(&paths[other]);
                    if !state.is_empty() {
                        fs::write(&paths[other], state).expect("written");
                    }
                };
                for step in 0..2 {
                    for sector in 0..=COPY_BYTES / 512 {
                        set();
                        let order = order(directory).expect("readable");
                        let whole = order.iter().take(step).map(|path| fs::write(path, &bytes));
                        whole.for_each(|written| written.expect("written"));
                        let torn = fs::read(&order[step]).unwrap_or_default();
                        let mut torn = if torn.is_empty() { vec![0; COPY_BYTES] } else { torn };
                        torn.resize(COPY_BYTES, 0);
                        torn[..sector * 512].copy_from_slice(&bytes[..sector * 512]);
                        fs::write(&order[step], &torn).expect("written");
                        let found = Manifest::load(directory).expect("one copy is intact");
                        let is_new = found.manifest == new && found.generation == 10;
                        let is_old = found.manifest == old && found.generation == 9;
                        assert!(is_new || is_old && step == 0, "{step} {sector}: {found:?}");
                    }
                }
                set();
                new.store(directory, 10).expect("stored");
                let found = Manifest::load(directory).expect("just stored");
                assert_eq!((found.manifest, found.copies_bad), (new.clone(), 0));
            }
        }
    }
}
