//! Mapping a segment file into memory, for offline commands only.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A file's bytes, mapped read-only.
#[derive(Debug)]
pub struct Sealed {
    map: Option<Mmap>,
}

impl Sealed {
    /// Maps a file. No process may be writing to it: the caller holds the data directory's lock,
    /// or looks at a copy.
    ///
    /// # Errors
    /// If the file can't be opened or mapped.
    pub fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is read-only and private to this value, and segments are changed
        // only by the process that holds the data directory's lock; the caller has seen to it
        // that there is none. Nothing derived from these bytes is trusted before its checksum
        // matched, and a file that shrinks meanwhile ends an offline command, nothing else.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map: Some(map) })
    }
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes are as in the file; an empty file is no bytes; a missing one is an error.
    #[test]
    fn maps_files() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        assert!(Sealed::map(&path).is_err());
        std::fs::write(&path, b"").expect("written");
        assert_eq!(&*Sealed::map(&path).expect("mapped"), b"");
        for length in [1usize, 4095, 4096, 1 << 20] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            std::fs::write(&path, &bytes).expect("written");
            assert!(*Sealed::map(&path).expect("mapped") == *bytes);
        }
    }
}
