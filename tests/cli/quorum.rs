//! Runs the program as a person would: one command and what it said, or a whole `ringraft dev`.
//! What was started here is gone when its owner is dropped, also when a test fails.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whatever takes longer hangs.
pub(crate) const HANG: Duration = Duration::from_secs(60);
/// Between two looks at something that another process changes.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Holds the command to an exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The JSON of a command that was asked for it: its only line on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:#?}");
        self.last_json()
    }

    /// The JSON that is the last line on stdout.
    #[track_caller]
    pub(crate) fn last_json(&self) -> Value {
        assert!(self.out.ends_with('\n'), "{self:#?}");
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// A refusal, with each of these words in its message for people.
    #[track_caller]
    pub(crate) fn complains(self, code: i32, words: &[&str]) -> Self {
        let said = self.exits(code);
        // Messages are wrapped to the width of a terminal.
        let text = said.err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>();
        let text = text.join(" ");
        for word in words {
            assert!(text.contains(word), "{word:?} is missing in {said:#?}");
        }
        said
    }
}

/// The program, without what the tester's own shell says.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringraft"));
    command.env_remove("RINGRAFT_ENDPOINTS").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs the program with these arguments.
pub(crate) fn ringraft(args: &[&str]) -> Said {
    let mut command = program();
    command.args(args);
    run(&mut command)
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Said {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    finish(child)
}

/// Runs a command with this on its stdin.
pub(crate) fn run_with(command: &mut Command, input: Vec<u8>) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("spawn");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may end without reading all of it.
    std::thread::spawn(move || stdin.write_all(&input));
    finish(child)
}

fn finish(child: Child) -> Said {
    let pid = child.id();
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(HANG) else {
        signal(pid, Signal::KILL);
        panic!("a command hangs; process {pid} was killed");
    };
    let output = output.expect("output");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    // It may be gone already.
    let _ = kill_process(pid, signal);
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANG;
    while !is_so() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A directory on the disk that the build is on: the log needs direct I/O.
pub(crate) fn temp_dir() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of plain characters")
}

/// The first of a hundred ports that nobody listens on, below those that the kernel hands out.
pub(crate) fn free_ports() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..200 {
        let number = std::process::id().wrapping_mul(7) + NEXT.fetch_add(1, Ordering::Relaxed);
        let base = 10_000 + (number % 220) as u16 * 100;
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (0..10).flat_map(|node| (0..3).map(move |i| base + node * 10 + i)).all(is_free) {
            return base;
        }
    }
    panic!("no free ports");
}

/// One cluster at a time: a test machine may have two cores.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The status and the body of a GET.
pub(crate) fn http_get(address: &str, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(HANG)).expect("timeout");
    write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("send");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("receive");
    let status = answer.split(' ').nth(1).expect("status line").parse().expect("status");
    (status, answer.split_once("\r\n\r\n").expect("head").1.to_owned())
}

/// A process that is killed with its owner.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Sends a signal, and waits for the end; the exit code.
    pub(crate) fn end(&mut self, with: Signal) -> Option<i32> {
        signal(self.0.id(), with);
        let mut code = None;
        wait_until("a process ends", || {
            let status = self.0.try_wait().expect("wait");
            code = status.and_then(|status| status.code());
            status.is_some()
        });
        code
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Reaped already or killed now: both are the end of it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One node, as the line of JSON has it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) dir: PathBuf,
    pub(crate) http: String,
}

/// A `ringraft dev` that runs.
#[derive(Debug)]
pub(crate) struct Dev {
    process: Process,
    lines: Receiver<String>,
    pub(crate) dir: PathBuf,
    pub(crate) said: Value,
    pub(crate) endpoints: String,
    pub(crate) nodes: Vec<Node>,
}

impl Dev {
    /// Starts it and waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn start(dir: &Path, flags: &[&str]) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        // Canonical, so that a node's command line tells whose it is.
        let dir = fs::canonicalize(dir).expect("a path");
        let errors = dir.with_extension("stderr");
        let mut command = program();
        command.args(["dev", "--output", "json", "--dir", text(&dir)]).args(flags);
        command.stdout(Stdio::piped()).stderr(File::create(&errors).expect("a file"));
        let mut process = Process(command.spawn().expect("spawn"));
        let stdout = process.0.stdout.take().expect("a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        // Made before anything can fail: its drop removes the nodes.
        let (endpoints, nodes) = (String::new(), Vec::new());
        let mut dev = Self { process, lines, dir, said: Value::Null, endpoints, nodes };
        let Ok(line) = dev.lines.recv_timeout(HANG) else {
            panic!("dev didn't get ready: {}", fs::read_to_string(errors).unwrap_or_default());
        };
        dev.said = serde_json::from_str(&line).expect("JSON");
        let strings = |value: &Value| -> Vec<String> {
            let all = value.as_array().expect("a list").iter();
            all.map(|one| one.as_str().expect("text").to_owned()).collect()
        };
        dev.endpoints = strings(&dev.said["endpoints"]).join(",");
        let node = |node: &Value| Node {
            id: node["id"].as_u64().expect("id"),
            name: node["name"].as_str().expect("name").to_owned(),
            pid: node["pid"].as_u64().expect("pid") as u32,
            dir: node["dir"].as_str().expect("dir").into(),
            http: node["http"].as_str().expect("http").to_owned(),
        };
        dev.nodes = dev.said["nodes"].as_array().expect("nodes").iter().map(node).collect();
        dev
    }

    /// Runs a command against it.
    pub(crate) fn ask(&self, args: &[&str]) -> Said {
        run(&mut self.command(args))
    }

    /// The same, with JSON as the answer.
    #[track_caller]
    pub(crate) fn ask_json(&self, args: &[&str]) -> Value {
        run(self.command(args).args(["--output", "json"])).exits(0).json()
    }

    /// The same, with this on stdin.
    pub(crate) fn ask_with(&self, args: &[&str], input: Vec<u8>) -> Said {
        run_with(&mut self.command(args), input)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command.env("RINGRAFT_ENDPOINTS", &self.endpoints).args(args);
        command
    }

    /// Stops it as Ctrl-C does: nothing is left of it, and its line was the last one.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        assert_eq!(self.process.end(Signal::INT), Some(0));
        assert_eq!(self.running(), Vec::<u32>::new(), "nodes are left");
        assert_eq!(self.lines.recv_timeout(HANG).ok(), None, "a line after the last");
    }

    /// The node processes that are there: all whose command line names this directory.
    fn running(&self) -> Vec<u32> {
        let mark = format!("{}/", text(&self.dir));
        let is_ours = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&mark)
        };
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(is_ours).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
        for pid in self.running() {
            signal(pid, Signal::KILL);
        }
    }
}
