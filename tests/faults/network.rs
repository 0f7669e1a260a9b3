//! A network of namespaces: every node in one of its own, on one bridge, and links between them
//! that can be cut in one direction or both. The clients live in the bridge's namespace.
//!
//! ```text
//! hub:  bridge 10.77.0.254 ---- veth ---- node 1: 10.77.0.1
//!                          \--- veth ---- node 2: 10.77.0.2 ...
//! ```
//! It takes root, `ip` and `nft`. Where they are missing the tests that need them say so and end;
//! with RINGRAFT_NAMESPACES=required in the environment they fail instead.

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const PORT: u16 = 7400;
const RULES: &str = "table inet cut {
    chain in { type filter hook input priority 0; policy accept; }
}";

/// The namespaces; they go when it goes.
#[derive(Debug)]
pub(crate) struct Network {
    hub: String,
    nodes: Vec<String>,
}

fn run(line: &str) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a command"))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Network {
    /// A network for so many nodes; the calling thread, and those that it starts, move into it.
    /// `None` where namespaces can't be made, after saying why.
    pub(crate) fn new(nodes: usize) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("ringraft-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let network = Self {
            hub: format!("{name}-hub"),
            nodes: (1..=nodes).map(|node| format!("{name}-n{node}")).collect(),
        };
        match network.make() {
            Ok(()) => Some(network),
            Err(error) => {
                let is_required =
                    std::env::var("RINGRAFT_NAMESPACES").is_ok_and(|value| value == "required");
                assert!(!is_required, "network namespaces are required: {error}");
                println!("SKIPPED: no network namespaces here ({error}); run it as root, with nft");
                None
            }
        }
    }

    fn make(&self) -> Result<(), String> {
        run("nft --version")?;
        let hub = &self.hub;
        run(&format!("ip netns add {hub}"))?;
        run(&format!("ip -n {hub} link add bridge type bridge"))?;
        run(&format!("ip -n {hub} addr add 10.77.0.254/24 dev bridge"))?;
        run(&format!("ip -n {hub} link set bridge up"))?;
        run(&format!("ip -n {hub} link set lo up"))?;
        for (number, node) in self.nodes.iter().enumerate() {
            let address = self.address(number);
            run(&format!("ip netns add {node}"))?;
            run(&format!(
                "ip -n {hub} link add port{number} type veth peer name eth0 netns {node}"
            ))?;
            run(&format!("ip -n {hub} link set port{number} master bridge up"))?;
            run(&format!("ip -n {node} addr add {address}/24 dev eth0"))?;
            run(&format!("ip -n {node} link set eth0 up"))?;
            run(&format!("ip -n {node} link set lo up"))?;
            self.rules(number, RULES)?;
        }
        let path = format!("/run/netns/{hub}");
        let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("{path}: {error}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("setns: {error}"))
    }

    fn rules(&self, node: usize, rules: &str) -> Result<(), String> {
        use std::io::Write as _;
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.nodes[node], "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("nft: {error}"))?;
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(rules.as_bytes()).map_err(|error| format!("nft: {error}"))?;
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| format!("nft: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(()) } else { Err(format!("nft: {said}")) }
    }

    /// The namespace of a node, by its number from zero.
    pub(crate) fn namespace(&self, node: usize) -> &str {
        &self.nodes[node]
    }

    fn address(&self, node: usize) -> String {
        format!("10.77.0.{}", node + 1)
    }

    /// Where a node takes clients.
    pub(crate) fn client_address(&self, node: usize) -> String {
        format!("{}:{PORT}", self.address(node))
    }

    /// The ports of every node: clients', peers', HTTP.
    pub(crate) fn ports() -> [u16; 3] {
        [PORT, PORT + 1, PORT + 2]
    }

    /// Drops what one node sends to another.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) {
        let rule = format!("add rule inet cut in ip saddr {} drop", self.address(from));
        self.rules(to, &rule).expect("rules can be added");
    }

    /// Drops what two nodes send to each other.
    pub(crate) fn cut(&self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Every link carries again.
    pub(crate) fn mend(&self) {
        for node in 0..self.nodes.len() {
            self.rules(node, "flush chain inet cut in").expect("rules can be removed");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.nodes.iter().chain([&self.hub]) {
            // Some may not exist, if making them failed.
            let _ = run(&format!("ip netns del {name}"));
        }
    }
}
