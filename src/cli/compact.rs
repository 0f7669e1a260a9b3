//! `ringraft compact`: a group forgets what its keys were before a revision.

use super::Global;
use super::client::{self, refused};
use super::exit::{Exit, Failure};
use super::kv::with_header;
use super::output::{self, Output};
use ringraft_net::client::Client;
use ringraft_types::Revision;
use ringraft_types::command::{Keys, RangeCommand};
use serde_json::{Map, json};

/// What `ringraft compact` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A group keeps its last revisions by itself, 10,000 unless it was told otherwise. What keys were before
takes memory; what they are now is never touched. Reads of a revision that is forgotten are refused.")]
pub(crate) struct CompactArgs {
    /// The oldest revision that stays readable [default: the newest]
    #[arg(value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    /// Keep so many revisions before the newest instead
    #[arg(long, value_name = "N", conflicts_with = "revision")]
    keep: Option<u64>,
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(args: &CompactArgs, global: &Global) -> Result<Exit, Failure> {
    let group = global.group();
    let mut client = Client::connect(client::options(global)).map_err(client::failure)?;
    let mut command = Vec::new();
    let mut range = RangeCommand::current(Keys::One(b"\0"));
    range.count_only = true;
    range.encode(&mut command).map_err(refused)?;
    let newest = client.read(group, &command).map_err(client::failure)?.revision.get();
    let kept = args.revision.unwrap_or(newest.saturating_sub(args.keep.unwrap_or(0)));
    if kept == 0 {
        let message = format!("group {group} is at revision {newest}: nothing is to be forgotten");
        return Err(Failure::new(Exit::NotDone, message).cure("keep fewer revisions"));
    }
    if kept > newest {
        let message = format!("group {group} is at revision {newest}: there is no {kept} yet");
        return Err(Failure::new(Exit::NotDone, message).cure("name that one or an older one"));
    }
    if !args.yes {
        match global.output {
            Output::Json => output::json(&json!({
                "done": false, "group": group.get(), "newest": newest, "oldest_kept": kept,
            }))?,
            Output::Table => output::text(&format!(
                "group {group} is at revision {newest}: what keys were before {kept} would be \
                 forgotten\nnothing was done: say --yes to do it"
            ))?,
        }
        return Ok(Exit::NotDone);
    }
    let response = client.compact(group, Revision(kept)).map_err(client::failure)?;
    match global.output {
        Output::Json => {
            let body = json!({"done": true, "group": group.get(), "oldest_kept": kept});
            let body = body.as_object().cloned().unwrap_or_else(Map::new);
            output::json(&with_header(&response, body))?;
        }
        Output::Table => {
            output::text(&format!("group {group} forgot what keys were before revision {kept}"))?
        }
    }
    Ok(Exit::Ok)
}
