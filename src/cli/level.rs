//! `ringraft barrier`, and `--ack`: how far an entry is to come before the command ends.

use super::Global;
use super::client;
use super::exit::{Exit, Failure};
use super::output::{self, Output};
use ringraft_net::client::{BarrierError, Client, Response, Shortfall};
use ringraft_types::{Index, Level};
use serde_json::{Map, Value, json};

/// What `ringraft barrier` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Levels:  majority            committed: a majority of the voters hold it durably
         all                 every voter holds it durably
         majority-committed  a majority of the voters know that it is committed
         all-committed       every voter knows that it is committed
Learners don't count. While voters change, those of before and those of after count.")]
pub(crate) struct BarrierArgs {
    /// The entry: the index that a write was told with -o json [default: the newest that any write
    /// was told so far]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    index: Option<u64>,
    /// How far it is to come
    #[arg(long, default_value_t = Level::All, value_name = "LEVEL", value_parser = level)]
    level: Level,
}

/// How a write is acknowledged.
#[derive(Debug, clap::Args)]
pub(crate) struct AckArgs {
    /// Wait until it is at this level: majority, all, majority-committed, all-committed; exit code
    /// 11 if it is done and isn't at the level in time
    #[arg(long, default_value_t = Level::Majority, hide_default_value = true,
        value_name = "LEVEL", value_parser = level)]
    pub(crate) ack: Level,
}

/// A level by its name.
fn level(text: &str) -> Result<Level, String> {
    Level::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
        let names = Level::ALL.map(Level::name).join(", ");
        format!("choose one of {names}")
    })
}

/// What to do about a level that isn't reached.
const CURE: &str = "`ringraft status` shows which nodes lag or don't answer; wait on with \
                    `ringraft barrier`, or `ringraft node demote` who is gone for good";

/// A write that was done, and what it lacks to be at its level.
pub(crate) struct Written {
    pub(crate) response: Response,
    pub(crate) lacks: Option<Shortfall>,
}

impl Written {
    /// Adds to a line of JSON what the write lacks, if anything.
    pub(crate) fn with_level(&self, mut body: Map<String, Value>) -> Map<String, Value> {
        if let Some(Shortfall { level, reached, behind, .. }) = self.lacks {
            body.insert("level".into(), level.name().into());
            body.insert("is_reached".into(), false.into());
            body.insert("reached".into(), reached.map(Index::get).into());
            body.insert("behind".into(), behind.map(|node| node.0).into());
        }
        body
    }

    /// The exit code, which is `exit` if the write is at its level; else people are told so.
    pub(crate) fn exit(&self, exit: Exit) -> Exit {
        let Some(lacks) = self.lacks else { return exit };
        eprintln!("error: done and committed at entry {}, but {lacks}", self.response.index);
        eprintln!("  cure: {CURE}");
        Exit::NotReached
    }
}

pub(crate) fn barrier(args: &BarrierArgs, global: &Global) -> Result<Exit, Failure> {
    let mut client = Client::connect(client::options(global)).map_err(client::failure)?;
    let (group, level) = (global.group(), args.level);
    let (index, reached, behind, failure) =
        match client.barrier(group, level, args.index.map(Index), global.timeout) {
            Ok(done) => (done.index, done.reached, None, None),
            Err(BarrierError::Client(error)) => return Err(client::failure(error)),
            Err(error @ BarrierError::NotReached { index, reached, behind, .. }) => {
                let failure = Failure::new(Exit::NotReached, error.to_string()).cure(CURE);
                (index, reached, behind, Some(failure))
            }
        };
    match (global.output, failure) {
        (Output::Json, failure) => {
            output::json(&json!({
                "group": group.get(),
                "level": level.name(),
                "is_reached": failure.is_none(),
                "index": index.get(),
                "reached": reached.get(),
                "behind": behind.map(|node| node.0),
            }))?;
            Ok(if failure.is_none() { Exit::Ok } else { Exit::NotReached })
        }
        (Output::Table, Some(failure)) => Err(failure),
        (Output::Table, None) => {
            output::text(&format!("entry {index} is at level {level}, as is all up to {reached}"))?;
            Ok(Exit::Ok)
        }
    }
}
