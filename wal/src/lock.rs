//! The data directory's lock: one process at a time.
//!
//! The lock belongs to an open file. The reactor registers that file in every ring, so that the
//! kernel holds the lock until the last write of a killed process is gone; a plain lock would be
//! free while such writes still land. That is also why taking it is retried for a while.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The lock's file name.
pub const FILE_NAME: &str = "lock";
/// How long a starting node waits for its predecessor's last write.
pub const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// Room for every process id.
const PID_DIGITS: usize = 10;

/// Why the lock wasn't taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{directory} is in use by process {holder}; stop it, or wait for its last write")]
    Held {
        /// The data directory.
        directory: PathBuf,
        /// What the holder wrote into the file: its process id.
        holder: String,
    },
    /// A system call failed.
    #[error("locking {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// As the system says.
        source: io::Error,
    },
}

/// Takes the lock of a data directory. The lock is held until every descriptor of the returned
/// file is closed, also those registered in a ring. Blocks for up to `patience`
/// ([`PATIENCE`] for a server, zero for a command).
///
/// # Errors
/// If another process holds it all the time, or a system call fails.
pub fn acquire(directory: &Path, patience: Duration) -> Result<File, LockError> {
    let path = directory.join(FILE_NAME);
    let wrap = |source: io::Error| LockError::Io { path: path.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(wrap)?;
    // Counted in pauses, so that nothing here reads a clock.
    let mut pauses = patience.as_micros().div_ceil(PAUSE.as_micros());
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK | Errno::INTR) if pauses > 0 => {
                pauses -= 1;
                std::thread::sleep(PAUSE);
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                let mut holder = String::new();
                // Only for the message: an unreadable holder is no reason to fail differently.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim().to_string();
                return Err(LockError::Held { directory: directory.to_path_buf(), holder });
            }
            Err(errno) => return Err(wrap(errno.into())),
        }
    }
    // In the place of the number before, and only for messages: a disk without room is no reason
    // not to start.
    let _ = file.write_all_at(format!("{:<PID_DIGITS$}\n", std::process::id()).as_bytes(), 0);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second one is refused with the holder's name, and served when the first one lets go.
    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = acquire(directory.path(), Duration::ZERO).expect("free");
        let refused = acquire(directory.path(), Duration::from_millis(30));
        match refused {
            Err(LockError::Held { holder, .. }) => {
                assert_eq!(holder, std::process::id().to_string());
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
        drop(first);
        // A longer number that was there before leaves no digit behind.
        let path = directory.path().join(FILE_NAME);
        std::fs::write(&path, "4194304123\n").expect("written");
        drop(acquire(directory.path(), Duration::ZERO).expect("free again"));
        let holder = std::fs::read_to_string(path).expect("there");
        assert_eq!(holder.trim(), std::process::id().to_string());
    }
}
