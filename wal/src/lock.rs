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
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(wrap)?;
    let file = hold(file, directory, patience)?;
    // In the place of the number before, and only for messages: a disk without room is no reason
    // not to start.
    let _ = file.write_all_at(format!("{:<PID_DIGITS$}\n", std::process::id()).as_bytes(), 0);
    Ok(file)
}

/// Takes the lock of a data directory that is only looked at: nothing in it is changed. One that
/// never had a lock is nobody's. Blocks for up to `patience`.
///
/// # Errors
/// If another process holds it all the time, or a system call fails.
pub fn look(directory: &Path, patience: Duration) -> Result<Option<File>, LockError> {
    let path = directory.join(FILE_NAME);
    match File::open(&path) {
        Ok(file) => hold(file, directory, patience).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LockError::Io { path, source }),
    }
}

/// Locks the open file.
fn hold(mut file: File, directory: &Path, patience: Duration) -> Result<File, LockError> {
    // Counted in pauses, so that nothing here reads a clock.
    let mut pauses = patience.as_micros().div_ceil(PAUSE.as_micros());
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) if pauses > 0 => {
                pauses -= 1;
                std::thread::sleep(PAUSE);
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                let (directory, holder) = (directory.to_path_buf(), holder(&mut file));
                return Err(LockError::Held { directory, holder });
            }
            Err(errno) => {
                let path = directory.join(FILE_NAME);
                return Err(LockError::Io { path, source: errno.into() });
            }
        }
    }
}

/// What the holder wrote into the file; only for messages: an unreadable one is no reason to fail
/// differently.
fn holder(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    holder.trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who only looks leaves no trace, and neither disturbs who holds the lock nor is let in beside
    /// it.
    #[test]
    fn a_look_changes_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(FILE_NAME);
        assert!(
            look(directory.path(), Duration::ZERO).expect("nobody's").is_none() && !path.exists()
        );
        std::fs::write(&path, "77\n").expect("written");
        let held = look(directory.path(), Duration::ZERO).expect("free");
        assert!(
            matches!(look(directory.path(), Duration::ZERO), Err(LockError::Held { holder, .. }) if holder == "77")
        );
        let refused = acquire(directory.path(), Duration::ZERO);
        assert!(matches!(refused, Err(LockError::Held { .. })));
        drop(held);
        let taken = acquire(directory.path(), Duration::ZERO).expect("free again");
        let own = std::process::id().to_string();
        let refused = look(directory.path(), Duration::ZERO);
        assert!(matches!(refused, Err(LockError::Held { holder, .. }) if holder == own));
        drop(taken);
    }

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
