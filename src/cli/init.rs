//! `ringraft init`: a cluster id, and one commented configuration file per node; later the file of
//! one more.

mod join;

use super::exit::{Exit, Failure};
use super::output::{self, Output};
use crate::config::{Address, Addresses, DEFAULTS_TEXT, Member};
use ringraft_types::limits::NODES_MAX;
use ringraft_types::{ClusterId, NodeId};
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What `ringraft init` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The nodes, separated by commas. PORT is for clients; PORT+1 is for the other nodes and
    /// PORT+2 for HTTP, unless given as in a=10.0.0.1:7400/7401/7402
    #[arg(long, required_unless_present = "join", value_delimiter = ',',
        value_name = "NAME=HOST:PORT,…", value_parser = node)]
    nodes: Vec<NodeSpec>,
    /// One more node, for the cluster whose files are in --out: it is to join as `ringraft format
    /// --join` and `ringraft node add` have it, with the settings of the first node's file
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = node,
        conflicts_with_all = ["nodes", "groups", "profile"])]
    join: Option<NodeSpec>,
    /// The number of the one more [default: the one after the highest that the files have]
    // A requirement that is in conflict with what is there isn't asked for.
    #[arg(long, value_name = "ID", requires = "join", conflicts_with = "nodes",
        value_parser = clap::value_parser!(u32).range(1..))]
    number: Option<u32>,
    /// Where the files go
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
    /// How many groups the cluster starts with
    #[arg(long, default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    groups: u64,
    /// A tuning profile that the nodes use: a name, or the path of a TOML file
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

/// One node as it is given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSpec {
    name: String,
    addresses: Addresses,
}

/// What a node file says beyond the defaults.
pub(crate) struct NodeFile<'a> {
    pub(crate) cluster: ClusterId,
    pub(crate) nodes: &'a [Member],
    pub(crate) node: &'a Member,
    pub(crate) data_dir: &'a str,
    pub(crate) profile: Option<&'a str>,
    /// Settings that differ from the defaults: section, key, TOML value.
    pub(crate) settings: Vec<(&'a str, &'a str, String)>,
}

pub(crate) fn run(args: &InitArgs, output: Output) -> Result<Exit, Failure> {
    if let Some(joins) = &args.join {
        return join::run(joins, args, output);
    }
    let nodes = members(&args.nodes)?;
    let cluster = random_cluster_id()?;
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::environment(format!("making {}", args.out.display()), &error))?;
    let paths: Vec<PathBuf> = nodes.iter().map(|node| file_path(&args.out, &node.name)).collect();
    // All or none: a new cluster id in some of the files would be worse than no file.
    if let Some(taken) = paths.iter().find(|path| path.exists()) {
        let message = format!("{} exists already; no file was written", taken.display());
        return Err(Failure::new(Exit::Environment, message)
            .cure("choose another --out, or remove the file if its cluster was never used"));
    }
    for (node, path) in nodes.iter().zip(&paths) {
        let data_dir = format!("{}-data", node.name);
        let file = NodeFile {
            cluster,
            nodes: &nodes,
            node,
            data_dir: &data_dir,
            profile: args.profile.as_deref(),
            settings: vec![("groups", "initial", args.groups.to_string())],
        };
        write_new(path, &file.text())?;
    }
    report(cluster, &nodes, &paths, false, output)?;
    Ok(Exit::Ok)
}

/// Where a node's file is.
fn file_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.toml"))
}

fn report(
    cluster: ClusterId,
    nodes: &[Member],
    paths: &[PathBuf],
    joins: bool,
    output: Output,
) -> Result<(), Failure> {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    if output == Output::Json {
        let rows = nodes.iter().zip(&paths);
        let rows = rows
            .map(|(node, path)| json!({"id": node.id.get(), "name": node.name, "config": path}));
        return output::json(&json!({
            "cluster": format!("{cluster:032x}", cluster = cluster.get()),
            "nodes": rows.collect::<Vec<_>>(),
        }));
    }
    let mut text = format!("cluster {:032x}\n", cluster.get());
    for (node, path) in nodes.iter().zip(&paths) {
        let _ = writeln!(text, "node {} ({}): {path}", node.id, node.name);
    }
    let first = &paths[0];
    let _ = match joins {
        false => write!(
            text,
            "\nCopy each file to its server, then on each:\n  ringraft format --config {first}\n  \
             ringraft node --config {first}"
        ),
        true => {
            let Member { id, addresses: Addresses { peer, client, .. }, .. } = &nodes[0];
            write!(
                text,
                "\nCopy it to its server, then there:\n  ringraft format --join --config {first}\n  \
                 ringraft node --config {first}\nand from anywhere, to add it (or `replace`):\n  \
                 ringraft node add {id} --peer {peer} --client {client}"
            )
        }
    };
    output::text(&text)
}

/// A new cluster's random name.
pub(crate) fn random_cluster_id() -> Result<ClusterId, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Exit::Environment, format!("no random numbers: {error}")))?;
    // Zero is "no cluster"; one in 2^128 files is spared that.
    Ok(ClusterId(u128::from_le_bytes(bytes).max(1)))
}

/// Writes a file that must not exist yet.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::environment(format!("writing {}", path.display()), &error))
}

/// The nodes of the command line as members, numbered from 1 in their order.
fn members(specs: &[NodeSpec]) -> Result<Vec<Member>, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    if specs.len() > NODES_MAX {
        return Err(usage(format!("--nodes: {} nodes, the limit is {NODES_MAX}", specs.len())));
    }
    let mut members: Vec<Member> = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        if let Some(failure) = clash("--nodes", &members, spec) {
            return Err(failure);
        }
        let (name, addresses) = (spec.name.clone(), spec.addresses.clone());
        members.push(Member { id: NodeId(i as u32 + 1), name, addresses });
    }
    Ok(members)
}

/// Why a node can't be one more beside these: its name or one of its addresses is taken.
fn clash(flag: &str, members: &[Member], spec: &NodeSpec) -> Option<Failure> {
    if members.iter().any(|other| other.name == spec.name) {
        let message = format!("{flag}: {:?} names two nodes", spec.name);
        return Some(Failure::new(Exit::Usage, message).cure("give each a name of its own"));
    }
    let each =
        |Addresses { peer, client, http }: &Addresses| [client.clone(), peer.clone(), http.clone()];
    let own = each(&spec.addresses);
    let mut taken: Vec<Address> =
        members.iter().flat_map(|member| each(&member.addresses)).collect();
    for address in own {
        if taken.contains(&address) {
            let failure = Failure::new(Exit::Usage, format!("{flag}: {address} is used twice"));
            let cure = "leave three ports for each node, as in a=H:7400,b=H:7410";
            return Some(failure.cure(cure));
        }
        taken.push(address);
    }
    None
}

/// Reads `NAME=HOST:PORT[/PEER[/HTTP]]`.
fn node(text: &str) -> Result<NodeSpec, String> {
    let (name, rest) = text.split_once('=').ok_or("write NAME=HOST:PORT, as in a=10.0.0.1:7400")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(plain) {
        return Err(format!("{name:?} is not a plain name: use letters, digits, '-', '_', '.'"));
    }
    let mut parts = rest.split('/');
    let client: Address =
        parts.next().unwrap_or_default().parse().map_err(|error| format!("{error}"))?;
    let mut port = |offset: u16| match parts.next() {
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 => Ok(Address { host: client.host.clone(), port: number }),
            _ => Err(format!("{port:?} is not a port")),
        },
        None => client
            .port_plus(offset)
            .ok_or_else(|| format!("port {} + {offset} is over 65535", client.port)),
    };
    let (peer, http) = (port(1)?, port(2)?);
    if parts.next().is_some() {
        return Err(format!("{text:?} has more than three ports"));
    }
    Ok(NodeSpec { name: name.to_owned(), addresses: Addresses { peer, client, http } })
}

/// A node's table in the list of nodes.
pub(crate) fn row(Member { id, name, addresses }: &Member) -> String {
    let Addresses { peer, client, http } = addresses;
    format!(
        "\n[[nodes]]\nid = {id}\nname = {name:?}\n# For the other nodes, for clients, and for \
         health and metrics. [HOST:PORT]\npeer = \"{peer}\"\nclient = \"{client}\"\n\
         http = \"{http}\"\n"
    )
}

impl NodeFile<'_> {
    /// The file: what is decided, and every default, commented out.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write_identity(&mut text);
        self.write_settings(&mut text);
        text
    }

    fn write_identity(&self, text: &mut String) {
        let Self { cluster, node, .. } = self;
        let Addresses { peer, client, http } = &node.addresses;
        let profile = match self.profile {
            Some(profile) => format!("profile = {profile:?}"),
            None => "#profile = \"container\"".to_owned(),
        };
        let _ = write!(
            text,
            "\
# ringraft: node {name:?} of a cluster of {count}. Made by `ringraft init`.
# A key that is commented out shows its default: remove the '#' to change it.

# A tuning profile changes defaults below: \"dev-laptop\", \"container\", \"low-latency\", or
# the path of a file.
{profile}

[cluster]
# The same in every node's file. [32 hexadecimal digits]
id = \"{cluster:032x}\"

[node]
# Which of the nodes below this is. [id]
id = {id}
# Where its log lives: a local disk with direct I/O, relative to this file. [path]
data_dir = {data_dir:?}

[listen]
# Where this node listens, if not where the others reach it, as in \"0.0.0.0:{peer_port}\". [HOST:PORT]
#peer = \"{peer}\"
#client = \"{client}\"
#http = \"{http}\"
",
            name = node.name,
            count = self.nodes.len(),
            cluster = cluster.get(),
            id = node.id,
            data_dir = self.data_dir,
            peer_port = peer.port,
        );
        self.nodes.iter().for_each(|member| text.push_str(&row(member)));
    }

    /// The defaults' text with each key commented out, unless it is set here.
    fn write_settings(&self, text: &mut String) {
        let sections = DEFAULTS_TEXT.find("\n[").expect("defaults.toml has sections");
        let mut section = "";
        for line in DEFAULTS_TEXT[sections..].lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            }
            let key = line.split(" = ").next().unwrap_or_default();
            let set = self.settings.iter().find(|(of, name, _)| (*of, *name) == (section, key));
            let _ = match set {
                Some((_, _, value)) => writeln!(text, "{key} = {value}"),
                None if line.contains(" = ") && !line.starts_with('#') => writeln!(text, "#{line}"),
                None => writeln!(text, "{line}"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Machine};

    fn files(profile: Option<&str>) -> (Vec<Member>, Vec<String>) {
        let specs = ["a=10.0.0.1:7400", "b=[::1]:7400/8000", "c=db-3:7400/1/2"];
        let specs: Vec<NodeSpec> = specs.iter().map(|text| node(text).expect(text)).collect();
        let nodes = members(&specs).expect("members");
        let text = |member: &Member| {
            let settings = vec![("groups", "initial", "3".to_owned())];
            let cluster = ClusterId(7);
            let data_dir = "data";
            NodeFile { cluster, nodes: &nodes, node: member, data_dir, profile, settings }.text()
        };
        let texts = nodes.iter().map(text).collect();
        (nodes, texts)
    }

    fn read(text: &str) -> Config {
        let machine = Machine { cores: vec![0, 1, 2] };
        Config::from_text(Path::new("x.toml"), text, &machine)
            .unwrap_or_else(|error| panic!("{error:?}\n{text}"))
    }

    /// Removes the '#' of every default that is shown.
    fn uncommented(text: &str) -> String {
        let line = |line: &str| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        };
        text.lines().map(line).collect()
    }

    /// Goal: what init writes is what the node reads.
    #[test]
    fn files_read_back() {
        let (nodes, texts) = files(Some("dev-laptop"));
        for (member, text) in nodes.iter().zip(&texts) {
            let config = read(text);
            assert_eq!(config.cluster, ClusterId(7));
            assert_eq!(config.node, member.id);
            assert_eq!(config.nodes, nodes);
            assert_eq!(config.groups.len(), 3);
            assert_eq!(config.profile.as_deref(), Some("dev-laptop"));
        }
        let ports = |member: &Member| {
            let Addresses { peer, client, http } = &member.addresses;
            (client.port, peer.port, http.port)
        };
        let ports: Vec<_> = nodes.iter().map(ports).collect();
        assert_eq!(ports, [(7400, 7401, 7402), (7400, 8000, 7402), (7400, 1, 2)]);
    }

    /// Goal: every default that is shown is the code's, and every setting is shown.
    #[test]
    fn every_default_is_shown_as_it_is() {
        let (_, texts) = files(None);
        let shown = read(&uncommented(&texts[0]).replace("profile = \"container\"\n", ""));
        let silent = read(&texts[0]);
        assert_eq!(shown, silent);
        let keys = DEFAULTS_TEXT.lines().filter(|line| !line.starts_with('#'));
        let keys: Vec<&str> = keys.filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
        assert!(keys.len() >= 20);
        for key in keys {
            assert!(texts[0].contains(&format!("{key} = ")), "{key} is not shown");
        }
    }

    /// Goal: every setting has a unit in its comment.
    #[test]
    fn every_setting_has_a_unit() {
        let mut above = "";
        for line in DEFAULTS_TEXT.lines() {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(above.ends_with(']') && above.starts_with('#'), "{line} has no unit");
            }
            above = line;
        }
    }

    /// Goal: a node that can't be meant is refused with a reason.
    #[test]
    fn nonsense_is_refused() {
        for text in
            ["a", "=h:1", "a b=h:1", "a=h", "a=h:65535", "a=h:1/x", "a=h:1/2/3/4", "../a=h:1"]
        {
            assert!(node(text).is_err(), "{text}");
        }
        let two = [node("a=h:7400").expect("a"), node("b=h:7401").expect("b")];
        assert!(members(&two).expect_err("overlap").message.contains("h:7401 is used twice"));
        let twins = [node("a=h:7400").expect("a"), node("a=h:7500").expect("a")];
        assert!(members(&twins).expect_err("twins").message.contains("names two nodes"));
    }

    /// Goal: files are written all or none, and never over old ones.
    #[test]
    fn init_never_overwrites() {
        let dir = tempfile::tempdir().expect("tempdir");
        let args = || InitArgs {
            nodes: vec![node("a=h:7400").expect("a"), node("b=h:7410").expect("b")],
            join: None,
            number: None,
            out: dir.path().join("new"),
            groups: 2,
            profile: None,
        };
        assert_eq!(run(&args(), Output::Json).expect("init"), Exit::Ok);
        std::fs::remove_file(dir.path().join("new/a.toml")).expect("remove");
        let failure = run(&args(), Output::Json).expect_err("b.toml is there");
        assert_eq!(failure.exit, Exit::Environment);
        assert!(failure.message.contains("b.toml exists already"), "{}", failure.message);
        assert!(!dir.path().join("new/a.toml").exists());
    }
}
