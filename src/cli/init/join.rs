//! `ringraft init --join`: the file of one more node, beside those of its cluster.

use super::{InitArgs, NodeFile, NodeSpec, clash, file_path, report, write_new};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::config::{Config, ConfigError, Machine, Member};
use ringraft_types::limits::NODES_MAX;
use ringraft_types::{ClusterId, NodeId};
use std::path::{Path, PathBuf};

/// Tables of a node file that tell one node from another.
const IDENTITY: [&str; 5] = ["profile", "cluster", "node", "nodes", "listen"];

/// What the files of a cluster's nodes say together.
struct Known {
    cluster: ClusterId,
    /// Ascending by number.
    nodes: Vec<Member>,
    /// The table of the file of the node with the smallest number.
    first: toml::Table,
}

pub(super) fn run(spec: &NodeSpec, args: &InitArgs, output: Output) -> Result<Exit, Failure> {
    let Known { cluster, mut nodes, first } = known(&args.out)?;
    let highest = nodes.last().map_or(0, |member| member.id.get());
    let id = NodeId(args.number.unwrap_or(highest + 1));
    if let Some(taken) = nodes.iter().find(|member| member.id == id) {
        let message = format!("--number: node {id} is {} already", taken.name);
        return Err(Failure::new(Exit::Usage, message).cure("a number is never used again"));
    }
    if let Some(failure) = clash("--join", &nodes, spec) {
        return Err(failure);
    }
    let node = Member { id, name: spec.name.clone(), addresses: spec.addresses.clone() };
    nodes.push(node.clone());
    nodes.sort_by_key(|member| member.id);
    if nodes.len() > NODES_MAX {
        let message = format!("--join: a file names {NODES_MAX} nodes at most");
        let failure = Failure::new(Exit::NotDone, message);
        return Err(failure.cure("take the nodes that are gone out of the files there"));
    }
    let settings = settings(&first);
    let data_dir = format!("{}-data", node.name);
    let file = NodeFile {
        cluster,
        nodes: &nodes,
        node: &node,
        data_dir: &data_dir,
        profile: first.get("profile").and_then(toml::Value::as_str),
        settings: settings
            .iter()
            .map(|(section, key, value)| (*section, *key, value.clone()))
            .collect(),
    };
    let path = file_path(&args.out, &node.name);
    read(&path, &file.text())?;
    write_new(&path, &file.text())?;
    report(cluster, &[node], &[path], true, output)?;
    Ok(Exit::Ok)
}

/// What the files in a directory say of their cluster.
fn known(dir: &Path) -> Result<Known, Failure> {
    let listed = std::fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>());
    let mut paths = listed
        .map_err(|error| Failure::environment(format!("reading {}", dir.display()), &error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut found: Vec<(PathBuf, Config, toml::Table)> = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::environment(format!("reading {}", path.display()), &error))?;
        // Profiles lie there too; what is no TOML is refused with its line.
        let table = toml::from_str::<toml::Table>(&text);
        if table.as_ref().map_or(true, |table| table.contains_key("cluster")) {
            let config = read(&path, &text)?;
            let table = table.unwrap_or_default();
            found.push((path, config, table));
        }
    }
    found.sort_by_key(|(_, config, _)| config.node);
    let mut files = found.into_iter();
    let Some((first_path, config, first)) = files.next() else {
        let message = format!("{} has no file of a node", dir.display());
        let cure = "name the directory that has one of the cluster's with --out";
        return Err(Failure::new(Exit::Environment, message).cure(cure));
    };
    let Config { cluster, mut nodes, .. } = config;
    for (path, other, _) in files {
        let differ = |what: String| {
            let message =
                format!("{} and {} differ in {what}", first_path.display(), path.display());
            Failure::new(Exit::NotDone, message)
        };
        if other.cluster != cluster {
            return Err(differ("their cluster".to_owned())
                .cure("have the files of one cluster only in that directory"));
        }
        for member in other.nodes {
            match nodes.iter().find(|known| known.id == member.id) {
                None => nodes.push(member),
                Some(known) if *known == member => {}
                Some(_) => {
                    return Err(differ(format!("what node {} is", member.id))
                        .cure("correct the one that is wrong"));
                }
            }
        }
    }
    nodes.sort_by_key(|member| member.id);
    Ok(Known { cluster, nodes, first })
}

/// Reads a file that may be another machine's.
fn read(path: &Path, text: &str) -> Result<Config, ConfigError> {
    Config::from_text(path, text, &Machine::any())
}

/// What a file sets: section, key, TOML value.
fn settings(file: &toml::Table) -> Vec<(&str, &str, String)> {
    let sections = file.iter().filter(|(section, _)| !IDENTITY.contains(&section.as_str()));
    let keys = sections.flat_map(|(section, keys)| {
        let keys = keys.as_table().into_iter().flatten();
        keys.map(move |(key, value)| (section.as_str(), key.as_str(), value.to_string()))
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::super::node;
    use super::*;

    fn init(dir: &Path, nodes: &[&str]) -> InitArgs {
        let nodes = nodes.iter().map(|text| node(text).expect(text)).collect();
        InitArgs { nodes, join: None, number: None, out: dir.into(), groups: 3, profile: None }
    }

    fn join(dir: &Path, text: &str, number: Option<u32>) -> Result<Exit, Failure> {
        let args = InitArgs { number, ..init(dir, &[]) };
        run(&node(text).expect(text), &args, Output::Json)
    }

    fn load(dir: &Path, name: &str) -> Config {
        let path = file_path(dir, name);
        read(&path, &std::fs::read_to_string(&path).expect("it is there")).expect("it is sound")
    }

    /// Goal: one more file is like the first one's, and names every node of all of them.
    #[test]
    fn one_more_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (dir, three) = (dir.path(), ["a=h:7400", "b=h:7410", "c=h:7420"]);
        super::super::run(&init(dir, &three), Output::Json).expect("init");
        let path = file_path(dir, "a");
        let text = std::fs::read_to_string(&path).expect("the file");
        let text = text.replace("#spin_us = 0", "spin_us = 7");
        let text = text.replace("#level = \"info\"", "level = \"warn\"");
        let text = text.replace("#shards = \"auto\"", "shards = [900, 901]");
        std::fs::write(&path, text).expect("the file");
        std::fs::write(dir.join("mine.toml"), "about = \"a profile\"\n").expect("a profile");
        assert_eq!(join(dir, "d=h:7430", None).expect("one more"), Exit::Ok);
        assert_eq!(join(dir, "e=h:7440", Some(9)).expect("and one more"), Exit::Ok);
        let (a, d, e) = (load(dir, "a"), load(dir, "d"), load(dir, "e"));
        assert_eq!((d.node, e.node), (NodeId(4), NodeId(9)));
        assert_eq!((d.cluster, &d.groups), (a.cluster, &a.groups));
        assert_eq!((&d.cpu, &d.log), (&a.cpu, &a.log));
        assert_eq!(d.data_dir, dir.join("d-data"));
        assert_eq!(d.nodes[..3], a.nodes);
        let names: Vec<&str> = e.nodes.iter().map(|member| &*member.name).collect();
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
    }

    /// Goal: what can't be meant is refused with the reason, and nothing is written.
    #[test]
    fn no_file_of_nonsense() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path();
        let refused = |text, number| {
            let failure = join(dir, text, number).expect_err(text);
            assert!(failure.cure.is_some(), "{failure:?}");
            failure.message
        };
        assert!(refused("d=h:7430", None).contains("no file of a node"));
        super::super::run(&init(dir, &["a=h:7400", "b=h:7410"]), Output::Json).expect("init");
        assert!(refused("d=h:7430", Some(2)).contains("node 2 is b already"));
        assert!(refused("a=h:7430", None).contains("\"a\" names two nodes"));
        assert!(refused("d=h:7409", None).contains("h:7410 is used twice"));
        let path = file_path(dir, "b");
        let text = std::fs::read_to_string(&path).expect("the file");
        std::fs::write(&path, text.replace("h:7400", "h:7500")).expect("the file");
        assert!(refused("d=h:7430", None).contains("differ in what node 1 is"));
        let other = tempfile::tempdir().expect("tempdir");
        super::super::run(&init(other.path(), &["b=h:1"]), Output::Json).expect("init");
        std::fs::copy(file_path(other.path(), "b"), &path).expect("a copy");
        assert!(refused("d=h:7430", None).contains("differ in their cluster"));
        assert!(!file_path(dir, "d").exists());
    }
}
