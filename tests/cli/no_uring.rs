//! Machines that refuse io_uring: a seccomp filter answers for the kernel.

use crate::quorum::{Said, free_ports, ringraft, temp_dir, text, turn};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Runs a command in which the kernel answers `io_uring_setup` with this error.
fn without_uring(errno: i32, args: &[&str]) -> Said {
    let action = SeccompAction::Errno(errno.unsigned_abs());
    let rules = [(libc::SYS_io_uring_setup, Vec::new())].into();
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that it knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).expect("a filter");
    let filter: BpfProgram = filter.try_into().expect("a program");
    // A filter holds for its thread and the processes that it starts, and can't be taken back.
    std::thread::scope(|scope| {
        let filtered = scope.spawn(|| {
            seccompiler::apply_filter(&filter).expect("everybody may filter itself");
            ringraft(args)
        });
        filtered.join().expect("no panic")
    })
}

/// Goal: whatever needs io_uring says what is missing and the cure, and ends with exit code 7.
#[test]
fn a_machine_without_io_uring_is_named() {
    let _turn = turn();
    let temp = temp_dir();
    let dir = temp.path();
    let nodes = format!("a=127.0.0.1:{}", free_ports());
    ringraft(&["init", "--nodes", &nodes, "--out", text(dir)]).exits(0);
    let config = dir.join("a.toml");
    let node = ["node", "--config", text(&config)];
    ringraft(&["format", "--config", text(&config)]).exits(0);
    let seccomp = "allow io_uring_setup, io_uring_enter and io_uring_register";
    for (errno, words) in [
        (libc::EPERM, ["most likely a container's seccomp filter", seccomp]),
        (libc::ENOSYS, ["has no io_uring, or a seccomp filter hides it", seccomp]),
        (libc::EINVAL, ["lacks SINGLE_ISSUER or DEFER_TASKRUN", "Linux 6.1 or newer"]),
        (libc::ENOMEM, ["the limit of locked memory (memlock)", "LimitMEMLOCK=infinity"]),
    ] {
        without_uring(errno, &node).complains(7, &words);
    }
    let said = without_uring(libc::EPERM, &[&node[..], &["-o", "json"]].concat()).exits(7);
    assert_eq!(said.last_json()["error"], "io_uring");

    let floor = ["bench", "floor", "--seconds", "0.1", "--dir", text(dir)];
    without_uring(libc::EPERM, &floor).complains(7, &["io_uring can't be used", seccomp]);
    let (quorum, port) = (dir.join("quorum"), free_ports().to_string());
    let dev = ["dev", "--nodes", "1", "--dir", text(&quorum), "--base-port", &port];
    without_uring(libc::EPERM, &dev).complains(7, &["ended at once", seccomp]);
}
