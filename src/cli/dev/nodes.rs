//! The nodes of `ringraft dev`: their directories, and their processes.

use super::{DevArgs, STOP_WITHIN};
use crate::cli::exit::{Exit, Failure};
use crate::cli::format;
use crate::cli::init::{NodeFile, random_cluster_id, write_new};
use crate::config::{Address, Addresses, Config, Machine, Member};
use crate::control::bind;
use ringraft_types::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Ports from one node's client port to the next one's.
const PORT_STEP: u16 = 10;
/// The configuration's file name in a node's directory.
const CONFIG_FILE: &str = "node.toml";
/// Bytes of a log that are shown when a node ends at once.
const LOG_TAIL_BYTES: usize = 2000;

/// One node of `ringraft dev`.
#[derive(Debug)]
pub(super) struct DevNode {
    pub(super) config: Config,
    pub(super) dir: PathBuf,
    process: Option<Child>,
    /// The process that was started last.
    pid: u32,
    /// How it ended, if it has.
    status: Option<ExitStatus>,
}

/// The nodes that a directory holds, or new ones.
pub(super) fn open_or_make(dir: &Path, args: &DevArgs) -> Result<Vec<DevNode>, Failure> {
    let names: Vec<String> = (b'a'..=b'o').map(|letter| char::from(letter).to_string()).collect();
    let is_made = names.iter().any(|name| dir.join(name).join(CONFIG_FILE).exists());
    if !is_made {
        make(dir, args, &names)?;
    }
    let mut nodes = Vec::new();
    for name in names.iter().filter(|name| dir.join(name).join(CONFIG_FILE).exists()) {
        let node_dir = dir.join(name);
        let config = Config::load(&node_dir.join(CONFIG_FILE))?;
        if !config.data_dir.exists() {
            format::format(&config, format::Voters::OfTheFile)?;
        }
        nodes.push(DevNode { config, dir: node_dir, process: None, pid: 0, status: None });
    }
    let expected = nodes.first().map_or(0, |node| node.config.nodes.len());
    if nodes.len() != expected {
        let message =
            format!("{} holds {} of its cluster's {expected} nodes", dir.display(), nodes.len());
        return Err(Failure::new(Exit::DataDir, message)
            .cure("remove the directory if its data are not wanted, or choose another --dir"));
    }
    refuse_other_flags(dir, args, &nodes)?;
    Ok(nodes)
}

fn make(dir: &Path, args: &DevArgs, names: &[String]) -> Result<(), Failure> {
    let base = args.base_port.unwrap_or(7400);
    let count = args.nodes.unwrap_or(3);
    let shards = args.shards.unwrap_or(1);
    if base.checked_add(count * PORT_STEP).is_none() {
        return Err(Failure::new(Exit::Usage, format!("--base-port {base} leaves no room")));
    }
    let address = |port: u16| Address { host: "127.0.0.1".into(), port };
    let members: Vec<Member> = (0..count)
        .map(|i| {
            let port = base + i * PORT_STEP;
            let addresses = Addresses {
                client: address(port),
                peer: address(port + 1),
                http: address(port + 2),
            };
            Member { id: NodeId(u32::from(i) + 1), name: names[usize::from(i)].clone(), addresses }
        })
        .collect();
    // Before anything is written: the next try may well be with other ports.
    for node in &members {
        refuse_taken_ports(node.id, &node.name, &node.addresses)?;
    }
    let cluster = random_cluster_id()?;
    let mut files = Vec::new();
    for (i, node) in members.iter().enumerate() {
        let file = NodeFile {
            cluster,
            nodes: &members,
            node,
            data_dir: "data",
            profile: Some(args.profile.as_deref().unwrap_or("dev-laptop")),
            // The nodes spread over the cores: they share this machine.
            settings: vec![
                ("groups", "initial", args.groups.unwrap_or(1).to_string()),
                ("cpu", "auto_count", shards.to_string()),
                ("cpu", "auto_start", (i * usize::from(shards)).to_string()),
            ],
        };
        let path = dir.join(&node.name).join(CONFIG_FILE);
        // Judged before it is there: a refused file would be found by every later start.
        Config::from_text(&path, &file.text(), &Machine::here()).map_err(|error| {
            let message = format!("these flags make a file that is refused: {error}");
            Failure::new(Exit::Usage, message).cure(error.cure())
        })?;
        files.push((path, file.text()));
    }
    for (path, text) in files {
        let node_dir = path.parent().expect("a file in a node's directory");
        std::fs::create_dir_all(node_dir).map_err(|error| {
            Failure::environment(format!("making {}", node_dir.display()), &error)
        })?;
        write_new(&path, &text)?;
    }
    Ok(())
}

/// Names a taken port before anything is started.
pub(super) fn refuse_taken_ports(
    id: NodeId,
    name: &str,
    addresses: &Addresses,
) -> Result<(), Failure> {
    let Addresses { peer, client, http } = addresses;
    for (port, address) in [("client", client), ("peer", peer), ("http", http)] {
        bind(port, address).map_err(|error| {
            Failure::new(Exit::Environment, format!("node {id} ({name}): {error}"))
                .cure("stop that process, or choose another --base-port and --dir")
        })?;
    }
    Ok(())
}

/// Flags that contradict what the directory holds would be ignored silently: refused instead.
fn refuse_other_flags(dir: &Path, args: &DevArgs, nodes: &[DevNode]) -> Result<(), Failure> {
    let config = &nodes[0].config;
    let own = |number: usize| number.to_string();
    let flags = [
        ("--nodes", args.nodes.map(|n| n.to_string()), own(nodes.len())),
        (
            "--base-port",
            args.base_port.map(|port| port.to_string()),
            config.own().addresses.client.port.to_string(),
        ),
        ("--shards", args.shards.map(|n| n.to_string()), own(config.cpu.shards.len())),
        ("--groups", args.groups.map(|n| n.to_string()), own(config.groups.len())),
        ("--profile", args.profile.clone(), config.profile.clone().unwrap_or_default()),
    ];
    for (flag, asked, has) in flags {
        if let Some(asked) = asked
            && asked != has
        {
            let message = format!("{flag} {asked}, but {} was made with {has}", dir.display());
            return Err(Failure::new(Exit::Usage, message).cure(format!(
                "leave {flag} out, edit the node.toml files in it, or choose another --dir"
            )));
        }
    }
    Ok(())
}

impl DevNode {
    pub(super) fn id(&self) -> NodeId {
        self.config.node
    }

    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    pub(super) fn client(&self) -> String {
        self.config.own().addresses.client.to_string()
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.dir.join("node.log")
    }

    /// Starts the node's process. From the main thread only: the node asks the kernel to be told
    /// when the thread that started it is gone.
    pub(super) fn start(&mut self, allow_buffered: bool) -> Result<(), Failure> {
        let environment = |what: &str| {
            let what = format!("{what} node {} ({})", self.id(), self.name());
            move |error: std::io::Error| Failure::environment(what, &error)
        };
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.map_err(environment("opening the log of"))?;
        let second = log.try_clone().map_err(environment("opening the log of"))?;
        let program = std::env::current_exe().map_err(environment("finding the program of"))?;
        let mut command = Command::new(program);
        command
            .arg("node")
            .arg("--config")
            .arg(self.dir.join(CONFIG_FILE))
            .args(["--parent", &std::process::id().to_string()])
            .args(allow_buffered.then_some("--allow-buffered"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(second)
            // Ctrl-C is for `dev`, which then stops the nodes in order.
            .process_group(0);
        let child = command.spawn().map_err(environment("starting"))?;
        self.pid = child.id();
        self.process = Some(child);
        self.status = None;
        Ok(())
    }

    /// How the process ended, said once.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().ok()??;
        self.process = None;
        self.status = Some(status);
        Some(status)
    }

    /// The exit code of the process as ours, if it is one of ours.
    pub(super) fn exit_code(&self) -> Option<Exit> {
        let code = self.status?.code()?;
        Exit::ALL.iter().map(|(exit, _)| *exit).find(|exit| i32::from(*exit as u8) == code)
    }

    pub(super) fn ask_to_stop(&mut self) {
        if self.process.is_some()
            && let Some(pid) = Pid::from_raw(self.pid as i32)
        {
            // It may have ended on its own this moment: that is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until the process has ended, or kills it; says whether it ended by itself.
    pub(super) fn wait_until(&mut self, deadline: Instant) -> bool {
        while self.process.is_some() && self.exited().is_none() {
            if Instant::now() >= deadline {
                if let Some(mut child) = self.process.take() {
                    // Ended or killed: both are the end of it.
                    let _ = child.kill();
                    let _ = child.wait();
                }
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Stops the process if it runs, and starts it again.
    pub(super) fn restart(&mut self, allow_buffered: bool) -> Result<(), Failure> {
        self.ask_to_stop();
        self.wait_until(Instant::now() + STOP_WITHIN);
        self.start(allow_buffered)
    }

    /// The end of the log.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).trim_end().to_owned()
    }
}
