//! `ringraft format`: makes a node's data directory, once: to begin a cluster with the nodes of its
//! file, or to join one. A directory that holds anything is refused: nothing here overwrites or
//! removes.

use super::exit::{Exit, Failure};
use super::output::{self, Output};
use crate::config::Config;
use ringraft_types::{Incarnation, Starts};
use ringraft_wal::manifest::{Logs, Manifest};
use serde_json::json;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What `ringraft format` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct FormatArgs {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// For a node that is to be added to a cluster that runs: it votes nowhere until then. Without
    /// it, the node begins a cluster together with all nodes of its file
    #[arg(long)]
    join: bool,
}

/// Who votes first in the groups of a new directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voters {
    /// The nodes of the file, as it is now.
    OfTheFile,
    /// Who votes already: this node joins.
    Others,
}

pub(crate) fn run(args: &FormatArgs, output: Output) -> Result<Exit, Failure> {
    let config = Config::load(&args.config)?;
    let voters = if args.join { Voters::Others } else { Voters::OfTheFile };
    let incarnation = format(&config, voters)?;
    let dir = config.data_dir.display().to_string();
    match output {
        Output::Json => output::json(&json!({
            "dir": dir,
            "cluster": format!("{:032x}", config.cluster.get()),
            "node": config.node.get(),
            "incarnation": format!("{:016x}", incarnation.get()),
            "joins": args.join,
        }))?,
        Output::Table => {
            let to_join = if args.join { ", to join its cluster" } else { "" };
            output::text(&format!(
                "formatted {dir} for node {} ({}), incarnation {:016x}{to_join}\n\n\
                 Next:\n  ringraft node --config {}",
                config.node,
                config.name,
                incarnation.get(),
                args.config.display()
            ))?;
        }
    }
    Ok(Exit::Ok)
}

/// Makes the data directory, and gives it a random incarnation.
pub(crate) fn format(config: &Config, voters: Voters) -> Result<Incarnation, Failure> {
    let dir = &config.data_dir;
    refuse_used(dir)?;
    let refuse = |what: &str, error: &std::io::Error| {
        let message = format!("data directory {}: {what}: {error}", dir.display());
        Failure::new(Exit::DataDir, message)
            .cure("check node.data_dir: its parent must exist and be writable")
    };
    if !dir.exists() {
        let mut builder = DirBuilder::new();
        // Others have no business in it: it holds the data itself.
        builder.mode(0o700).create(dir).map_err(|error| refuse("cannot be made", &error))?;
    }
    let incarnation = random_incarnation()?;
    let manifest = Manifest {
        cluster: config.cluster,
        node: config.node,
        incarnation,
        feature_level: 1,
        first: Some(match voters {
            Voters::OfTheFile => config.nodes.iter().map(|node| node.id).collect(),
            Voters::Others => Vec::new(),
        }),
        starts: Starts::default(),
        logs: Logs::default(),
        lacked: None,
    };
    manifest
        .store(dir, 1)
        .map_err(|error| Failure::new(Exit::DataDir, format!("data directory: {error}")))?;
    Ok(incarnation)
}

/// Refuses a directory that exists and is not empty, and says what seems to be in it.
pub(crate) fn refuse_used(dir: &Path) -> Result<(), Failure> {
    let refuse = |what: String| Failure::new(Exit::DataDir, format!("data directory {what}"));
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(refuse(format!("{}: cannot be read: {error}", dir.display()))
                .cure("check node.data_dir and who owns it"));
        }
    };
    // One entry is enough to refuse, except what a new file system comes with.
    let first = entries.flatten().find(|entry| entry.file_name() != "lost+found");
    let Some(first) = first else { return Ok(()) };
    let found = first.file_name().to_string_lossy().into_owned();
    let what = if Manifest::exists(dir) {
        format!("{} is formatted already", dir.display())
    } else {
        format!("{} is not empty: it holds {found:?}", dir.display())
    };
    Err(refuse(what).cure(
        "name an empty directory in node.data_dir; format never overwrites: move the old one \
         away if its data are not wanted",
    ))
}

pub(crate) fn random_incarnation() -> Result<Incarnation, Failure> {
    let number = getrandom::u64()
        .map_err(|error| Failure::new(Exit::Environment, format!("no random numbers: {error}")))?;
    Ok(Incarnation(number.max(1)))
}
