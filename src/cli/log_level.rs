//! `ringraft log-level`: changes how much nodes log, at run time.

use super::Global;
use super::exit::{Exit, Failure};
use super::http;
use super::output::{self, Output};
use crate::config::{Address, LogLevel};
use serde_json::json;

/// What `ringraft log-level` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct LogLevelArgs {
    /// The new level
    #[arg(value_enum)]
    level: LogLevel,
    /// HTTP addresses of the nodes; left out: two ports above each of the endpoints
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,…")]
    http: Vec<Address>,
}

pub(crate) fn run(args: &LogLevelArgs, global: &Global) -> Result<Exit, Failure> {
    let addresses = http::of_nodes(&args.http, global);
    let mut rows = Vec::new();
    let mut failed = 0;
    for address in &addresses {
        let answer = http::ask(address, "PUT", "/log-level", args.level.name(), global.timeout);
        let problem = match answer {
            Ok((200, _)) => None,
            Ok((status, body)) => Some(format!("answered {status}: {}", body.trim())),
            Err(error) => Some(error.to_string()),
        };
        failed += usize::from(problem.is_some());
        if global.output == Output::Table {
            let said = problem.as_deref().unwrap_or(args.level.name());
            output::text(&format!("{address}  {said}"))?;
        }
        rows.push(json!({"http": address.to_string(), "error": problem}));
    }
    if global.output == Output::Json {
        output::json(&json!({"level": args.level.name(), "nodes": rows}))?;
    }
    if failed == addresses.len() {
        let failure = Failure::new(Exit::Unavailable, "no node answered over HTTP");
        return Err(failure.cure("name their HTTP addresses with --http"));
    }
    Ok(Exit::Ok)
}
