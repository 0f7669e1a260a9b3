//! `ringraft recover`: a new cluster from what survived, when a majority is lost for good. Offline;
//! nothing here talks to a node, and no surviving directory is changed.

use super::exit::{Exit, Failure};
use super::format::{random_incarnation, refuse_used};
use super::output::{self, Output};
use crate::boot::MachineFactory;
use crate::config::Config;
use crate::recover::{self, AUDIT_FILE, Holding, RecoverError, Survivor};
use crate::server;
use ringraft_shard::salvage::SalvageError;
use ringraft_types::{GroupId, Index, LogId, NodeId};
use ringraft_wal::manifest::Manifest;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What can be done for a cluster that lost its majority.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RecoverCommand {
    /// Show what surviving data directories hold, and which holds the most; changes nothing
    Plan(PlanArgs),
    /// Form a new cluster of one node from what survived; the surviving directories stay as they are
    Apply(ApplyArgs),
}

/// What `ringraft recover plan` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The surviving data directories, or copies of them, separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "DIR,…")]
    data_dir: Vec<PathBuf>,
}

/// What `ringraft recover apply` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// The configuration file of the new cluster's first node, with a new cluster id; its
    /// node.data_dir is made
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The surviving data directories; each group is taken from the one that holds the most of it
    #[arg(long, required = true, value_delimiter = ',', value_name = "DIR,…")]
    from: Vec<PathBuf>,
    /// Go on although rot took entries that a survivor had promised
    #[arg(long)]
    accept_loss: bool,
    /// Do it; without, only what would be done is shown
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(command: &RecoverCommand, output: Output) -> Result<Exit, Failure> {
    let machines = server::key_value();
    match command {
        RecoverCommand::Plan(args) => {
            let survey = Survey::of(&args.data_dir, &machines)?;
            match output {
                Output::Json => output::json(&survey.json())?,
                Output::Table => {
                    let hint = "\n\nNext, with files that `ringraft init` made for the new \
                                cluster:\n  ringraft recover apply --config NEW.toml --from DIR,…";
                    output::text(&format!("{}{hint}", survey.text()))?;
                }
            }
            Ok(Exit::Ok)
        }
        RecoverCommand::Apply(args) => apply(args, &machines, output),
    }
}

fn apply(args: &ApplyArgs, machines: &MachineFactory, output: Output) -> Result<Exit, Failure> {
    let config = Config::load(&args.config)?;
    let survey = Survey::of(&args.from, machines)?;
    survey.refuse(&config, args.accept_loss)?;
    if !args.yes {
        let text = format!(
            "{}\nNothing was done. With --yes, {} is made: node {} ({}) of cluster {:032x}, alone.",
            survey.text(),
            config.data_dir.display(),
            config.node,
            config.name,
            config.cluster.get()
        );
        match output {
            Output::Json => output::json(&survey.json_of(false, &config))?,
            Output::Table => output::text(&text)?,
        }
        return Ok(Exit::Ok);
    }
    let incarnation = random_incarnation()?;
    recover::apply(&config, incarnation, &survey.survivors, &survey.best, machines).map_err(
        |error| {
            let dir = config.data_dir.display();
            failure(&error).cure(format!("remove {dir}, which is half made, and try again"))
        },
    )?;
    match output {
        Output::Json => output::json(&survey.json_of(true, &config)),
        Output::Table => output::text(&format!(
            "formed cluster {:032x}: {} holds {} for node {} ({}), which votes alone\n\
             {AUDIT_FILE} in it says from what\n\nNext:\n  ringraft node --config {}\n\
             then each other node: `ringraft format --join` and start it, `ringraft node add`, \
             `ringraft node promote`",
            config.cluster.get(),
            config.data_dir.display(),
            counted(survey.best.len(), "group"),
            config.node,
            config.name,
            args.config.display()
        )),
    }?;
    Ok(Exit::Ok)
}

fn failure(error: &RecoverError) -> Failure {
    let exit = match error {
        RecoverError::Manifest(_) | RecoverError::Lock(_) | RecoverError::FileSystem(_) => {
            Exit::DataDir
        }
        RecoverError::Salvage { error: SalvageError::Full, .. } | RecoverError::Io { .. } => {
            Exit::Environment
        }
        RecoverError::Salvage { .. } => Exit::Damaged,
    };
    Failure::new(exit, error.to_string())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What survived, and where the most of each group is.
struct Survey {
    survivors: Vec<Survivor>,
    best: BTreeMap<GroupId, usize>,
}

impl Survey {
    fn of(directories: &[PathBuf], machines: &MachineFactory) -> Result<Self, Failure> {
        let mut survivors: Vec<Survivor> = Vec::new();
        for directory in directories {
            let survivor = recover::survey(directory, machines).map_err(|error| failure(&error))?;
            if let Some(other) = survivors.first()
                && other.manifest.cluster != survivor.manifest.cluster
            {
                let message = format!(
                    "{} belongs to cluster {:032x}, {} to {:032x}",
                    other.directory.display(),
                    other.manifest.cluster.get(),
                    directory.display(),
                    survivor.manifest.cluster.get()
                );
                return Err(Failure::new(Exit::DataDir, message)
                    .cure("name the surviving directories of one cluster"));
            }
            survivors.push(survivor);
        }
        let best = recover::best(&survivors);
        Ok(Self { survivors, best })
    }

    /// Each group with who holds the most of it.
    fn each(&self) -> impl Iterator<Item = (&Survivor, &Holding)> {
        self.best.iter().map(|(group, &at)| {
            let survivor = &self.survivors[at];
            let holding = survivor.groups.iter().find(|holding| holding.held.group == *group);
            (survivor, holding.expect("it holds the most of it"))
        })
    }

    /// The newest entry of a group that a survivor knows as committed.
    fn commit(&self, group: GroupId) -> Index {
        let all = self.survivors.iter().flat_map(|survivor| &survivor.groups);
        let all = all.filter(|holding| holding.held.group == group);
        all.map(|holding| holding.held.commit).max().unwrap_or_default()
    }

    /// Whether those that hold a group whole are a majority of its voters: then nothing need be given
    /// up.
    fn has_majority(&self, holding: &Holding) -> bool {
        let is_whole = |survivor: &&Survivor| {
            let mut groups = survivor.groups.iter();
            groups.any(|other| other.held.group == holding.held.group && other.is_whole())
        };
        let whole = self.survivors.iter().filter(is_whole);
        let nodes: BTreeSet<NodeId> = whole.map(|survivor| survivor.manifest.node).collect();
        let here = holding.voters.iter().filter(|node| nodes.contains(node)).count();
        here * 2 > holding.voters.len()
    }

    /// What stands against a new cluster from these.
    fn refuse(&self, config: &Config, accept_loss: bool) -> Result<(), Failure> {
        let cluster = self.survivors.first().map(|survivor| survivor.manifest.cluster);
        if cluster == Some(config.cluster) {
            let message = format!(
                "the file has the cluster id of the old cluster, {:032x}: its nodes, should one \
                 come back, would be let in with what they know",
                config.cluster.get()
            );
            let cure = "make files of a new cluster with `ringraft init`, and name one of those";
            return Err(Failure::new(Exit::Config, message).cure(cure));
        }
        refuse_used(&config.data_dir)?;
        let is_unnamed =
            |group: &&GroupId| **group < GroupId::SYSTEM && !config.groups.contains(group);
        let unnamed: Vec<String> = self.best.keys().filter(is_unnamed).map(text_of).collect();
        if !unnamed.is_empty() {
            let message = format!(
                "the survivors hold {}, of which the file doesn't have {}",
                counted(self.best.len(), "group"),
                unnamed.join(", ")
            );
            return Err(Failure::new(Exit::Config, message)
                .cure("set groups.initial to the number that the old cluster had"));
        }
        if let Some((_, holding)) = self.each().find(|(_, holding)| self.has_majority(holding)) {
            let group = holding.held.group;
            let message = format!("a majority of the voters of group {group} is here, and whole");
            return Err(Failure::new(Exit::NotDone, message).cure(
                "start the nodes of these directories: nothing need be lost; if that can't be \
                 done, name one directory alone",
            ));
        }
        let logs = self.survivors.iter().any(|survivor| !survivor.logs_missing.is_empty());
        let damaged: Vec<String> = self
            .each()
            .filter(|(_, holding)| !holding.is_whole())
            .map(|(_, holding)| text_of(&holding.held.group))
            .collect();
        if (logs || !damaged.is_empty()) && !accept_loss {
            let what = match damaged.is_empty() {
                true => "a log of a survivor is missing".to_owned(),
                false => format!("rot took entries of group {}", damaged.join(", ")),
            };
            return Err(Failure::new(Exit::Damaged, what).cure(
                "`ringraft recover plan` says what; look for another survivor or copy, or give \
                 --accept-loss to go on with what is there",
            ));
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut table = output::table(&[
            "DIRECTORY",
            "NODE",
            "GROUP",
            "TERM",
            "LAST",
            "COMMIT",
            "SNAPSHOT",
            "VOTERS",
            "STATE",
        ]);
        for survivor in &self.survivors {
            for holding in &survivor.groups {
                table.add_row([
                    survivor.directory.display().to_string(),
                    survivor.manifest.node.to_string(),
                    holding.held.group.to_string(),
                    holding.held.term.to_string(),
                    id_text(holding.held.last),
                    holding.held.commit.to_string(),
                    holding.held.snapshot.map_or_else(|| "-".to_owned(), id_text),
                    voters_text(&holding.voters),
                    state_text(holding),
                ]);
            }
        }
        let mut text = output::table_text(&table);
        text.push('\n');
        for survivor in &self.survivors {
            notes(survivor, &mut text);
        }
        for (survivor, holding) in self.each() {
            let _ = write!(
                text,
                "\ngroup {}: node {} ({}) holds the most, up to {}",
                holding.held.group,
                survivor.manifest.node,
                survivor.directory.display(),
                id_text(holding.held.last)
            );
            let beyond =
                holding.held.last.index.0.saturating_sub(self.commit(holding.held.group).0);
            if beyond > 0 {
                let (entries, are) = if beyond == 1 { ("entry", "is") } else { ("entries", "are") };
                let known = "beyond the newest known commit";
                let _ = write!(text, "; {beyond} {entries} {known} {are} kept");
            }
            if self.has_majority(holding) {
                text.push_str("; A MAJORITY OF ITS VOTERS IS HERE: start them, recover nothing");
            }
        }
        text.push_str(
            "\nWhat the nodes that are gone acknowledged and no survivor holds can't be known.",
        );
        text
    }

    fn json(&self) -> Value {
        let survivors = self.survivors.iter().map(|survivor| {
            let Manifest { cluster, node, incarnation, lacked, .. } = &survivor.manifest;
            json!({
                "dir": survivor.directory.display().to_string(),
                "cluster": format!("{:032x}", cluster.get()),
                "node": node.get(),
                "incarnation": format!("{:016x}", incarnation.get()),
                "older_copy": lacked.is_some(),
                "logs_missing": survivor.logs_missing,
                "groups": survivor.groups.iter().map(holding_json).collect::<Vec<_>>(),
            })
        });
        let best = self.each().map(|(survivor, holding)| {
            let commit = self.commit(holding.held.group);
            json!({
                "group": holding.held.group.get(),
                "dir": survivor.directory.display().to_string(),
                "node": survivor.manifest.node.get(),
                "last": id_json(holding.held.last),
                "commit": commit.get(),
                "beyond_commit": holding.held.last.index.0.saturating_sub(commit.0),
                "whole": holding.is_whole(),
                "majority": self.has_majority(holding),
            })
        });
        json!({"survivors": survivors.collect::<Vec<_>>(), "best": best.collect::<Vec<_>>()})
    }

    /// The same, with what was made of it, or would be.
    fn json_of(&self, done: bool, config: &Config) -> Value {
        let mut value = self.json();
        value["done"] = json!(done);
        value["cluster"] = json!(format!("{:032x}", config.cluster.get()));
        value["node"] = json!(config.node.get());
        value["dir"] = json!(config.data_dir.display().to_string());
        value
    }
}

/// What else is to be known of a survivor.
fn notes(survivor: &Survivor, text: &mut String) {
    let directory = survivor.directory.display();
    if survivor.groups.is_empty() {
        let _ = writeln!(text, "{directory} holds nothing");
    }
    if survivor.manifest.lacked.is_some() {
        let _ = writeln!(text, "{directory} is an older copy: its node had promised more since");
    }
    for log in &survivor.logs_missing {
        let _ = writeln!(text, "{directory}: log {log} is missing, and any group was in it");
    }
    for holding in &survivor.groups {
        for (number, why) in &holding.held.unreadable {
            let group = holding.held.group;
            let _ = writeln!(text, "{directory}: group {group}: snapshot {number}: {why}");
        }
    }
}

fn text_of(group: &GroupId) -> String {
    group.to_string()
}

fn id_text(id: LogId) -> String {
    if id == LogId::ZERO { "-".to_owned() } else { format!("{}.{}", id.term, id.index) }
}

fn id_json(id: LogId) -> Value {
    json!({"term": id.term.get(), "index": id.index.get()})
}

fn voters_text(voters: &[NodeId]) -> String {
    let voters: Vec<String> = voters.iter().map(ToString::to_string).collect();
    if voters.is_empty() { "not known".to_owned() } else { voters.join(",") }
}

fn state_text(holding: &Holding) -> String {
    match holding.held.missing {
        None => "whole".to_owned(),
        Some(id) if id.index == Index(u64::MAX) => "DAMAGED: nobody knows what is lost".to_owned(),
        Some(id) => format!("DAMAGED: had promised {}", id_text(id)),
    }
}

fn holding_json(holding: &Holding) -> Value {
    let unreadable = holding.held.unreadable.iter();
    let unreadable =
        unreadable.map(|(number, why)| json!({"number": number, "why": why.to_string()}));
    json!({
        "group": holding.held.group.get(),
        "log": holding.log,
        "term": holding.held.term.get(),
        "last": id_json(holding.held.last),
        "commit": holding.held.commit.get(),
        "snapshot": holding.held.snapshot.map(id_json),
        "voters": holding.voters.iter().map(|node| node.get()).collect::<Vec<_>>(),
        "state_hash": format!("{:016x}", holding.state_hash),
        "missing": holding.held.missing.map(id_json),
        "unreadable": unreadable.collect::<Vec<_>>(),
    })
}
