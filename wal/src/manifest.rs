//! The data directory's identity: which cluster, node and life it belongs to.
//!
//! Two copies, `manifest-a` and `manifest-b`, each written aside, synced, renamed and synced with
//! the directory, one after the other. One good copy is enough; the newer generation counts. Used
//! at format and boot only, with plain blocking files.
//!
//! ```text
//!  0  [8]   magic         "ringmani"
//!  8  u32   checksum      CRC-32/IEEE of bytes 0..8, then 12..72
//! 12  u16   version       1
//! 14  u16   zero
//! 16  u128  cluster
//! 32  u64   incarnation
//! 40  u64   generation    counts the writes, from 1
//! 48  u64   feature level
//! 56  u32   node
//! 60  [12]  zeros
//! ```

use crate::format::put;
use ringraft_types::bytes::{u16_at, u32_at, u64_at, u128_at};
use ringraft_types::{ClusterId, Incarnation, NodeId};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The manifest's format version.
pub const VERSION: u16 = 1;
/// The copies' file names.
pub const COPIES: [&str; 2] = ["manifest-a", "manifest-b"];
const MAGIC: [u8; 8] = *b"ringmani";
const BYTES: usize = 72;

/// Who a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// This life of the directory.
    pub incarnation: Incarnation,
    /// The feature level in force when it was written.
    pub feature_level: u64,
}

/// A manifest as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
                    if let Some((other, _)) = newest
                        && (other.cluster, other.node, other.incarnation)
                            != (manifest.cluster, manifest.node, manifest.incarnation)
                    {
                        let directory = directory_path();
                        return Err(ManifestError::Contradiction { directory });
                    }
                    if newest.is_none_or(|(_, newest)| generation > newest) {
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

    /// Writes both copies, durably, as this generation: one more than the last, 1 at format.
    ///
    /// # Errors
    /// If a system call fails; then at least one copy, the old or the new, is intact.
    pub fn store(&self, directory: &Path, generation: u64) -> Result<(), ManifestError> {
        for name in COPIES {
            let path = directory.join(name);
            let aside = directory.join(format!("{name}.new"));
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
            file.write_all(&self.encode(generation)).map_err(wrap("writing", &aside))?;
            file.sync_all().map_err(wrap("syncing", &aside))?;
            fs::rename(&aside, &path).map_err(wrap("renaming to", &path))?;
            let sync = File::open(directory).and_then(|directory| directory.sync_all());
            sync.map_err(wrap("syncing", directory))?;
        }
        Ok(())
    }

    fn encode(&self, generation: u64) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        put(&mut out, 0, &MAGIC);
        put(&mut out, 12, &VERSION.to_le_bytes());
        put(&mut out, 16, &self.cluster.0.to_le_bytes());
        put(&mut out, 32, &self.incarnation.0.to_le_bytes());
        put(&mut out, 40, &generation.to_le_bytes());
        put(&mut out, 48, &self.feature_level.to_le_bytes());
        put(&mut out, 56, &self.node.0.to_le_bytes());
        let checksum = checksum(&out);
        put(&mut out, 8, &checksum.to_le_bytes());
        out
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..8]);
    hasher.update(&bytes[12..]);
    hasher.finalize()
}

fn read_copy(path: &Path) -> Result<Copy, ManifestError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Copy::Missing),
        Err(source) => {
            return Err(ManifestError::Io { what: "reading", path: path.to_path_buf(), source });
        }
    };
    if bytes.len() != BYTES || bytes[..8] != MAGIC || u32_at(&bytes, 8) != checksum(&bytes) {
        return Ok(Copy::Rotten);
    }
    let version = u16_at(&bytes, 12);
    if version != VERSION {
        return Ok(Copy::Version(version));
    }
    let manifest = Manifest {
        cluster: ClusterId(u128_at(&bytes, 16)),
        node: NodeId(u32_at(&bytes, 56)),
        incarnation: Incarnation(u64_at(&bytes, 32)),
        feature_level: u64_at(&bytes, 48),
    };
    Ok(Copy::Good(manifest, u64_at(&bytes, 40)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: Manifest = Manifest {
        cluster: ClusterId(0xC1),
        node: NodeId(2),
        incarnation: Incarnation(0x17),
        feature_level: 1,
    };

    /// One good copy is enough, none is an error, and every bit flip is noticed.
    #[test]
    fn one_good_copy_is_enough() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let directory = directory.path();
        assert!(matches!(Manifest::load(directory), Err(ManifestError::Missing { .. })));
        MANIFEST.store(directory, 1).expect("stored");
        let found = Manifest::load(directory).expect("just stored");
        assert_eq!((found.manifest, found.generation, found.copies_bad), (MANIFEST, 1, 0));
        let path = directory.join(COPIES[0]);
        let good = fs::read(&path).expect("just stored");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).expect("written");
            let found = Manifest::load(directory).expect("the other copy is good");
            assert_eq!((found.manifest, found.copies_bad), (MANIFEST, 1));
        }
        Manifest { feature_level: 2, ..MANIFEST }.store(directory, 2).expect("stored");
        fs::write(&path, &good).expect("an older generation");
        let found = Manifest::load(directory).expect("both are good");
        assert_eq!((found.generation, found.copies_bad), (2, 1));
        let other = Manifest { node: NodeId(9), ..MANIFEST };
        fs::write(&path, other.encode(3)).expect("written");
        assert!(matches!(Manifest::load(directory), Err(ManifestError::Contradiction { .. })));
        for name in COPIES {
            fs::write(directory.join(name), b"rot").expect("written");
        }
        assert!(matches!(Manifest::load(directory), Err(ManifestError::Rotten { .. })));
    }
}
