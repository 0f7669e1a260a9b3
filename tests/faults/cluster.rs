//! A cluster of node processes in a directory of its own. Only processes that were started here are
//! ever signalled, and none outlives the test.

use crate::network::Network;
use crate::raw::Raw;
use ringraft_net::client_wire::LocateReply;
use ringraft_net::status::{GroupRole, GroupStatus};
use ringraft_net::{Client, ClientOptions};
use ringraft_types::GroupId;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A wait that takes longer than this is a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Below the ports that the kernel gives to outgoing connections, so that a node's ports stay free
/// while it is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Lines of a node's log that a failure prints.
const LOG_LINES: usize = 60;

/// Polls until `look` finds something; panics with `what` when it takes too long.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether `found` is; the form of [`wait_for`] for conditions.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// Three ports in a row that nobody listens on, and that no other test of this process was given.
fn free_ports() -> [u16; 3] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = (PORTS.end - PORTS.start) / 3;
    // Other processes begin elsewhere.
    let start = (std::process::id() as u16).wrapping_mul(97) % span;
    wait_for("three free ports", || {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let first = PORTS.start + (start + step) % span * 3;
        let ports = [first, first + 1, first + 2];
        let are_free = ports.iter().all(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        are_free.then_some(ports)
    })
}

/// A command of the binary under test.
pub(crate) fn ringraft(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringraft"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Both streams of a command that ended, for messages.
pub(crate) fn text_of(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}\n{out}{err}", output.status)
}

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    pub(crate) groups: u64,
    /// Lines of the configuration that differ from the defaults: key and value.
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Default for Shape {
    fn default() -> Self {
        // Small segments: making one writes all of it, and a restart makes new ones.
        let settings = vec![("segment_bytes", (8 << 20).to_string())];
        Self { nodes: 3, groups: 1, settings }
    }
}

impl Shape {
    pub(crate) fn set(mut self, key: &'static str, value: impl ToString) -> Self {
        self.settings.retain(|(known, _)| *known != key);
        self.settings.push((key, value.to_string()));
        self
    }
}

/// One node, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) config: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) client: String,
    pub(crate) ports: [u16; 3],
    /// The network namespace that it runs in, if not the test's own.
    namespace: Option<String>,
    /// What its boot clock is ahead of the machine's, seconds.
    clock_ahead: i64,
    log: PathBuf,
    child: Option<Child>,
}

/// A cluster; its nodes go when it goes.
#[derive(Debug)]
pub(crate) struct Cluster {
    test: &'static str,
    pub(crate) directory: PathBuf,
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// A cluster that is configured, but neither formatted nor started.
    pub(crate) fn configured(test: &'static str, shape: &Shape) -> Self {
        Self::configured_in(test, shape, None)
    }

    fn configured_in(test: &'static str, shape: &Shape, network: Option<&Network>) -> Self {
        let name = format!("faults-{test}-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Left by a process that failed and had the same id.
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("a directory for the test");
        let names: Vec<String> = (0..shape.nodes).map(|i| format!("n{}", i + 1)).collect();
        let nodes: Vec<Node> = names
            .into_iter()
            .enumerate()
            .map(|(number, name)| {
                let ports = if network.is_some() { Network::ports() } else { free_ports() };
                let loopback = format!("127.0.0.1:{}", ports[0]);
                Node {
                    config: directory.join(format!("{name}.toml")),
                    data_dir: directory.join(format!("{name}-data")),
                    log: directory.join(format!("{name}.log")),
                    client: network.map_or(loopback, |network| network.client_address(number)),
                    namespace: network.map(|network| network.namespace(number).to_owned()),
                    clock_ahead: 0,
                    ports,
                    name,
                    child: None,
                }
            })
            .collect();
        let cluster = Self { test, directory, nodes };
        let list: Vec<String> =
            cluster.nodes.iter().map(|node| format!("{}={}", node.name, node.client)).collect();
        let out = cluster.directory.display().to_string();
        let groups = shape.groups.to_string();
        let init = ["init", "--nodes", &list.join(","), "--out", &out, "--groups", &groups];
        let output = ringraft(&init).output().expect("init runs");
        assert!(output.status.success(), "init: {}", text_of(&output));
        for (i, node) in cluster.nodes.iter().enumerate() {
            for (key, value) in &shape.settings {
                node.set(key, value);
            }
            // Nodes share this machine's cores: their shards don't all go to the same one.
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            node.set("auto_start", &(i % cores).to_string());
        }
        cluster
    }

    /// A cluster that is formatted and runs.
    pub(crate) fn start(test: &'static str, shape: &Shape) -> Self {
        Self::configured(test, shape).started()
    }

    /// The same, every node in a namespace of the network.
    pub(crate) fn start_in(test: &'static str, shape: &Shape, network: &Network) -> Self {
        Self::configured_in(test, shape, Some(network)).started()
    }

    fn started(mut self) -> Self {
        for node in &mut self.nodes {
            node.format();
            node.start();
        }
        self
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// A client that knows all nodes.
    pub(crate) fn client(&self) -> Client {
        client(self.endpoints())
    }

    /// The node that leads the group and may serve reads, once there is one among those that
    /// answer; with two of them, the one of the later term.
    pub(crate) fn leader(&self, group: GroupId) -> usize {
        self.leader_of_the_others(usize::MAX, group)
    }

    /// The same, without asking one of them.
    pub(crate) fn leader_of_the_others(&self, unasked: usize, group: GroupId) -> usize {
        wait_for("a leader that is ready", || {
            let nodes = self.nodes.iter().enumerate();
            let answers = nodes.filter(|(i, node)| *i != unasked && node.is_running());
            let ready = answers.filter_map(|(i, node)| {
                let reply = Raw::connect(&node.client, None).ok()?.locate(group).ok()?;
                reply.ready.then_some((reply.term, i))
            });
            ready.max().map(|(_, i)| i)
        })
    }

    /// Waits until a node has applied what the group's leader has applied by now.
    pub(crate) fn wait_caught_up(&self, node: usize, group: GroupId) {
        let goal = self.locate(self.leader(group), group).applied;
        wait_until(&format!("{} to apply up to {goal}", self.nodes[node].name), || {
            self.locate(node, group).applied >= goal
        });
    }

    /// What a node knows about where a group is.
    pub(crate) fn locate(&self, node: usize, group: GroupId) -> LocateReply {
        wait_for(&format!("{} to answer", self.nodes[node].name), || {
            Raw::connect(&self.nodes[node].client, None).ok()?.locate(group).ok()
        })
    }

    /// One more node, formatted to join, and started: it is a member of nothing yet.
    pub(crate) fn join(&mut self) {
        self.join_at(free_ports());
    }

    /// The same at these ports; the node that had them, if there is one, isn't in its file.
    pub(crate) fn join_at(&mut self, ports: [u16; 3]) {
        let id = self.nodes.len() + 1;
        let (name, first) = (format!("n{id}"), &self.nodes[0]);
        let text = std::fs::read_to_string(&first.config).expect("the node's file");
        let [client, peer, http] = ports.map(|port| format!("127.0.0.1:{port}"));
        let own = format!(
            "[[nodes]]\nid = {id}\nname = \"{name}\"\npeer = \"{peer}\"\n\
             client = \"{client}\"\nhttp = \"{http}\"\n\n[groups]"
        );
        let (head, rest) = text.split_once("[[nodes]]").expect("a list of nodes");
        let head = head.replacen("id = 1", &format!("id = {id}"), 1);
        let head = head.replacen(&format!("{}-data", first.name), &format!("{name}-data"), 1);
        let (others, rest) = rest.split_once("[groups]").expect("groups follow the nodes");
        let is_other = |table: &&str| !table.contains(&format!("\"{peer}\""));
        let others: Vec<&str> = others.split("[[nodes]]").filter(is_other).collect();
        let text = [&head, "[[nodes]]", &others.join("[[nodes]]"), &own, rest].concat();
        let config = self.directory.join(format!("{name}.toml"));
        std::fs::write(&config, text).expect("the node's file");
        let mut node = Node {
            config,
            data_dir: self.directory.join(format!("{name}-data")),
            log: self.directory.join(format!("{name}.log")),
            client,
            namespace: None,
            clock_ahead: 0,
            ports,
            name,
            child: None,
        };
        let file = node.config.display().to_string();
        let format = ringraft(&["format", "--join", "--config", &file]).output();
        let output = format.expect("the command runs");
        assert!(output.status.success(), "format: {}", text_of(&output));
        node.start();
        self.nodes.push(node);
    }

    /// Waits until every node has applied the same, and checks that it led to the same state.
    pub(crate) fn assert_replicas_agree(&self) {
        self.assert_copies_agree(self.nodes.len());
    }

    /// The same of the members, where there are so many. Nobody may write meanwhile: see
    /// [`Cluster::assert_caught_up`].
    pub(crate) fn assert_copies_agree(&self, nodes: usize) {
        let mut client = self.client();
        wait_until("all nodes to apply the same", || {
            let groups = copies(&mut client);
            let same = groups.chunk_by(|a, b| a.group == b.group).all(|copies| {
                let first = &copies[0];
                for copy in copies.iter().filter(|copy| copy.applied == first.applied) {
                    let (a, b) = (first.state_hash, copy.state_hash);
                    assert_eq!(a, b, "{:?}: one log led to two states", first.group);
                }
                copies.len() == nodes && copies.iter().all(|copy| copy.applied == first.applied)
            });
            !groups.is_empty() && same
        });
    }

    /// Waits, while others write, until so many copies of each group have applied what the first of
    /// them had applied at the call.
    pub(crate) fn assert_caught_up(&self, nodes: usize) {
        let mut client = self.client();
        let goals = wait_for("every group to be told of", || {
            let groups = copies(&mut client);
            let of_group = groups.chunk_by(|a, b| a.group == b.group);
            let goals: Vec<_> = of_group
                .filter_map(|copies| {
                    Some((copies[0].group, copies.iter().map(|copy| copy.applied).max()?))
                })
                .collect();
            (!goals.is_empty()).then_some(goals)
        });
        wait_until("all nodes to apply what one of them had", || {
            let groups = copies(&mut client);
            goals.iter().all(|&(group, goal)| {
                let has_it = |copy: &&GroupStatus| copy.group == group && copy.applied >= goal;
                groups.iter().filter(has_it).count() == nodes
            })
        });
    }
}

/// What the members say of their copies, by group.
fn copies(client: &mut Client) -> Vec<GroupStatus> {
    let all = client.status_all().into_iter().flatten();
    let groups = all.flat_map(|status| status.groups);
    let mut groups: Vec<_> = groups.filter(|group| group.role != GroupRole::Outsider).collect();
    groups.sort_by_key(|group| group.group.0);
    groups
}

/// A client of some nodes.
pub(crate) fn client(endpoints: Vec<String>) -> Client {
    let timeout = Duration::from_secs(30);
    Client::connect(ClientOptions { timeout, ..ClientOptions::new(endpoints) }).expect("a client")
}

impl Node {
    /// Changes a line of the node's file, commented out or not.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let text = std::fs::read_to_string(&self.config).expect("the node's file");
        let mut found = 0;
        let lines: Vec<String> = text
            .lines()
            .map(|line| {
                let bare = line.strip_prefix('#').unwrap_or(line);
                let is_it = bare.split_once(" = ").is_some_and(|(name, _)| name == key);
                found += usize::from(is_it);
                if is_it { format!("{key} = {value}") } else { line.to_owned() }
            })
            .collect();
        assert!(found == 1, "{key} stands {found} times in {}", self.config.display());
        std::fs::write(&self.config, lines.join("\n")).expect("the node's file");
    }

    /// Runs a command on the node's file to its end.
    pub(crate) fn run(&self, verb: &str) -> Output {
        ringraft(&[verb, "--config", &self.config.display().to_string()])
            .output()
            .expect("the command runs")
    }

    pub(crate) fn format(&self) {
        let output = self.run("format");
        assert!(output.status.success(), "format: {}", text_of(&output));
    }

    /// Starts the process; it isn't waited for.
    pub(crate) fn start(&mut self) {
        self.start_by(self.command());
    }

    /// The same, with so many descriptors at most.
    pub(crate) fn start_with_descriptors(&mut self, most: u64) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\"")]);
        shell.arg(env!("CARGO_BIN_EXE_ringraft")).stdin(Stdio::null());
        self.start_by(shell);
    }

    fn start_by(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "{} was started already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let child = command
            .args(["node", "--config", &self.config.display().to_string()])
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("the node starts");
        self.child = Some(child);
    }

    /// The body of a GET.
    pub(crate) fn http_get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.ports[2])).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
    }

    /// Its process, in the namespaces that it is to have; the wrappers become it by exec.
    fn command(&self) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.extend(["ip", "netns", "exec", namespace].map(String::from));
        }
        if self.clock_ahead != 0 {
            let ahead = self.clock_ahead.to_string();
            // A time namespace is entered by the next child: unshare execs in it.
            words.extend(["unshare", "--time", "--boottime", &ahead].map(String::from));
        }
        words.push(env!("CARGO_BIN_EXE_ringraft").to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }

    /// From its next start on, its boot clock has another origin.
    pub(crate) fn move_clock(&mut self, seconds_ahead: i64) {
        self.clock_ahead = seconds_ahead;
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The most memory that the process ever held, bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("our own child's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse::<u64>().ok()).expect("a number of KiB") << 10
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Everything that the node ever said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("our own child can be signalled");
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.reap();
        assert!(status.code().is_none(), "{} ended by itself: {status}\n{}", self.name, self.log());
    }

    /// SIGTERM; its exit status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let child = self.child.as_mut().expect("it runs");
        let status = wait_for(&format!("{name} to end"), || child.try_wait().expect("our child"));
        self.child = None;
        status
    }

    fn reap(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        child.wait().expect("our own child can be waited for")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut died = Vec::new();
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                if let Ok(Some(status)) = child.try_wait() {
                    died.push(format!("{} ended by itself: {status}", node.name));
                }
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        let is_panicking = std::thread::panicking();
        if !is_panicking && died.is_empty() {
            // What a test leaves behind is only for whoever looks for a fault.
            let _ = std::fs::remove_dir_all(&self.directory);
            return;
        }
        for node in &self.nodes {
            let log = node.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("---- {} (the end of its log)\n{}", node.name, tail.join("\n"));
        }
        let wal = self.nodes[0].data_dir.join("wal");
        eprintln!(
            "---- {}\nkept: {}\n  look inside: ringraft wal ls {}\n  run it again: \
             cargo test -p ringraft --test faults {} -- --nocapture",
            died.join("\n"),
            self.directory.display(),
            wal.display(),
            self.test,
        );
        // Two of three go on without the third: a node that fell must not go unnoticed.
        assert!(is_panicking, "nobody stopped it: {}", died.join(", "));
    }
}
