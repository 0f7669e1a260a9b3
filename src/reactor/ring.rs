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
    cure: String,
}

impl RingError {
    fn diagnose(error: std::io::Error) -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        let disabled = disabled.map(|text| text.trim().to_owned()).unwrap_or_default();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
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
                String::from("the limit of locked memory (memlock) is too small for its rings"),
                "raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
            ),
            _ => (error.to_string(), "see dmesg, and io_uring_setup(2) for this error"),
        };
        Self { what, cure: cure.to_owned() }
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
