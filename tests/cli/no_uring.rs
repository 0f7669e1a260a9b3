//! Machines that refuse io_uring: a seccomp filter answers for the kernel.

use crate::quorum::{Process, Said, free_ports, program, ringraft, temp_dir, text, turn};
use rustix::process::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::fs::{self, File};

/// Runs a command in which the kernel answers `io_uring_setup` with this error.
fn without_uring(errno: i32, args: &[&str]) -> Said {
    filtered(errno, Vec::new(), || ringraft(args))
}

/// Does something in a thread for which the kernel answers `io_uring_setup` with this error, under
/// any of these rules; without rules, always.
fn filtered<T: Send>(errno: i32, rules: Vec<SeccompRule>, act: impl FnOnce() -> T + Send) -> T {
    let action = SeccompAction::Errno(errno.unsigned_abs());
    let rules = [(libc::SYS_io_uring_setup, rules)].into();
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that it knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).expect("a filter");
    let filter: BpfProgram = filter.try_into().expect("a program");
    // A filter holds for its thread and the processes that it starts, and can't be taken back.
    std::thread::scope(|scope| {
        let filtered = scope.spawn(|| {
            seccompiler::apply_filter(&filter).expect("everybody may filter itself");
            act()
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

/// Goal: a node whose control lane can't have a ring serves its clients without it, and says so.
#[test]
fn consensus_goes_on_without_the_control_lane() {
    let _turn = turn();
    let temp = temp_dir();
    let dir = temp.path();
    let client = format!("127.0.0.1:{}", free_ports());
    ringraft(&["init", "--nodes", &format!("a={client}"), "--out", text(dir)]).exits(0);
    let config = dir.join("a.toml");
    ringraft(&["format", "--config", text(&config)]).exits(0);
    // The sizes of the rings that a lane asks for; the control lane's are others.
    let other = |entries| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, entries).expect("sound")
    };
    let others = SeccompRule::new(vec![other(8), other(1024)]).expect("a rule");
    let log = dir.join("log");
    let mut command = program();
    command.args(["node", "--config", text(&config)]).stderr(File::create(&log).expect("a file"));
    let spawned = filtered(libc::ENOMEM, vec![others], || command.spawn().expect("spawn"));
    let mut node = Process(spawned);
    ringraft(&["put", "k", "v", "--endpoints", &client, "--timeout", "30s"]).exits(0);
    assert_eq!(node.end(Signal::TERM), Some(0));
    let log = fs::read_to_string(&log).expect("a log");
    assert!(log.contains("the control lane stopped"), "{log}");
}
