//! Making a ring, or saying what is missing and how to get it.

use io_uring::IoUring;
use std::os::fd::{AsRawFd, OwnedFd};

/// Makes a ring, or says what is missing and how to get it.
///
/// # Errors
/// If the kernel refuses: too old (6.1 is the floor), switched off, or filtered.
pub fn ring(entries: u32) -> Result<IoUring, RingError> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        // Without the flag nobody who spins would see that completions wait to be fetched.
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(entries * 4)
        .build(entries)
        .map_err(RingError::diagnose)
}

/// io_uring can't be used here.
#[derive(Debug, thiserror::Error)]
#[error("io_uring can't be used: {what}; {cure}")]
pub struct RingError {
    what: String,
    cure: &'static str,
}

impl RingError {
    /// Says why this machine refused a ring.
    pub fn diagnose(error: std::io::Error) -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self::judge(&error, disabled.unwrap_or_default().trim(), &release)
    }

    /// What the kernel said, `kernel.io_uring_disabled`, the kernel's release.
    fn judge(error: &std::io::Error, disabled: &str, release: &str) -> Self {
        let (what, cure) = match error.raw_os_error() {
            Some(libc::ENOSYS) => (
                format!("the kernel ({release}) has no io_uring, or a seccomp filter hides it"),
                "run on Linux 6.1 or newer, and allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's seccomp profile",
            ),
            Some(libc::EPERM) if disabled == "1" || disabled == "2" => (
                format!("it is switched off, kernel.io_uring_disabled={disabled}"),
                "set it to 0: sysctl -w kernel.io_uring_disabled=0",
            ),
            Some(libc::EPERM | libc::EACCES) => (
                String::from("the system refuses it, most likely a container's seccomp filter"),
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile",
            ),
            Some(libc::EINVAL) => (
                format!("the kernel ({release}) lacks SINGLE_ISSUER or DEFER_TASKRUN"),
                "run on Linux 6.1 or newer",
            ),
            Some(libc::ENOMEM) => (
                String::from(
                    "no memory for its rings: the limit of locked memory (memlock), or of \
                 the container, is too small",
                ),
                "raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
            ),
            _ => (error.to_string(), "see dmesg, and io_uring_setup(2) for this error"),
        };
        Self { what, cure }
    }
}

/// Keeps the data directory's lock with the ring: a ring outlives its killed process until its
/// last operation is done, and so does what is registered with it (S22).
///
/// # Errors
/// If the kernel refuses to register the file.
pub fn hold_lock(ring: &IoUring, lock: &OwnedFd) -> std::io::Result<()> {
    ring.submitter().register_files(&[lock.as_raw_fd()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(errno: i32, disabled: &str) -> String {
        let error = std::io::Error::from_raw_os_error(errno);
        RingError::judge(&error, disabled, "5.15.0").to_string()
    }

    /// Goal: every way in which a kernel refuses names what is missing and the cure. What a real
    /// process says, and its exit code, is held by `tests/cli/no_uring.rs`.
    #[test]
    fn every_refusal_names_the_cure() {
        for disabled in ["1", "2"] {
            let said = said(libc::EPERM, disabled);
            assert!(said.contains(&format!("kernel.io_uring_disabled={disabled}")), "{said}");
            assert!(said.contains("sysctl -w kernel.io_uring_disabled=0"), "{said}");
        }
        for (errno, disabled, words) in [
            (libc::EPERM, "0", ["seccomp", "allow io_uring_setup"]),
            // An older kernel has no such setting.
            (libc::EPERM, "", ["seccomp", "allow io_uring_setup"]),
            (libc::EACCES, "0", ["seccomp", "allow io_uring_setup"]),
            (libc::ENOSYS, "", ["5.15.0", "Linux 6.1 or newer"]),
            (libc::EINVAL, "0", ["5.15.0", "Linux 6.1 or newer"]),
            (libc::ENOMEM, "0", ["memlock", "LimitMEMLOCK"]),
            (libc::EMFILE, "0", ["os error 24", "io_uring_setup(2)"]),
        ] {
            let said = said(errno, disabled);
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }
}
