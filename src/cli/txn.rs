//! `ringraft txn`: compares, then one of two branches, all at one revision.

mod grammar;

use super::Global;
use super::client::{Quorum, refused, unreadable};
use super::exit::{Exit, Failure};
use super::kv::{print_key_value, read_stdin, reply_json, with_header, wrong_kind};
use super::level::AckArgs;
use super::output::{self, Output};
use grammar::{CompareText, OperationText};
use ringraft_types::command::{Compare, Operation, TxnBuilder};
use ringraft_types::reply::{PutReply, Reply, TxnReply};

/// What `ringraft txn` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Compares:   mod(KEY)=N  create(KEY)>N  version(KEY)<N  value(KEY)!=TEXT
Operations: put KEY VALUE, get KEY [--prefix], del KEY [--prefix]
Keys and values with spaces or parentheses go in quotes, as in 'put \"a key\" \"a \\\"value\\\"\"'.
--stdin reads {\"if\":[\"…\"],\"then\":[\"…\"],\"else\":[\"…\"]} with the same texts.
A branch that wrote is done even if the exit code is 1: it says that a compare didn't hold.")]
pub(crate) struct TxnArgs {
    /// A compare; all of them must hold for the first branch to run
    #[arg(long = "if", value_name = "COMPARE")]
    compares: Vec<String>,
    /// An operation of the first branch
    #[arg(long = "then", value_name = "OPERATION")]
    then: Vec<String>,
    /// An operation of the other branch
    #[arg(long = "else", value_name = "OPERATION")]
    otherwise: Vec<String>,
    /// Read the transaction from stdin, as JSON
    #[arg(long, conflicts_with_all = ["compares", "then", "otherwise"])]
    stdin: bool,
    #[command(flatten)]
    level: AckArgs,
}

/// A transaction as JSON on stdin.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TxnJson {
    r#if: Vec<String>,
    then: Vec<String>,
    r#else: Vec<String>,
}

pub(crate) fn run(args: TxnArgs, global: &Global) -> Result<Exit, Failure> {
    let usage = |message: String| {
        Failure::new(Exit::Usage, message).cure("`ringraft help txn` shows the grammar")
    };
    let TxnJson { r#if, then, r#else } = if args.stdin {
        serde_json::from_slice(&read_stdin()?)
            .map_err(|error| usage(format!("stdin is not a transaction: {error}")))?
    } else {
        TxnJson { r#if: args.compares, then: args.then, r#else: args.otherwise }
    };
    if r#if.is_empty() && then.is_empty() && r#else.is_empty() {
        return Err(usage("an empty transaction does nothing".into()));
    }
    let command = encode(&r#if, &then, &r#else).map_err(|error| match error {
        TxnError::Grammar(message) => usage(message),
        TxnError::Command(failure) => failure,
    })?;
    let written = Quorum::connect(global)?.write(&command, args.level.ack)?;
    let response = &written.response;
    let reply = match Reply::decode(&response.body).map_err(unreadable)? {
        Reply::Txn(reply) => reply,
        _ => return Err(wrong_kind()),
    };
    match global.output {
        Output::Json => {
            let body = written.with_level(reply_json(&Reply::Txn(reply)));
            output::json(&with_header(response, body))?;
        }
        Output::Table => print(&reply)?,
    }
    Ok(written.exit(if reply.succeeded { Exit::Ok } else { Exit::No }))
}

#[derive(Debug)]
enum TxnError {
    Grammar(String),
    Command(Failure),
}

fn encode(compares: &[String], then: &[String], other: &[String]) -> Result<Vec<u8>, TxnError> {
    let compares: Vec<CompareText> = parse(compares, grammar::compare)?;
    let then: Vec<OperationText> = parse(then, grammar::operation)?;
    let other: Vec<OperationText> = parse(other, grammar::operation)?;
    let compares: Vec<Compare<'_>> = compares.iter().map(CompareText::borrow).collect();
    let then: Vec<Operation<'_>> = then.iter().map(OperationText::borrow).collect();
    let other: Vec<Operation<'_>> = other.iter().map(OperationText::borrow).collect();
    let txn = TxnBuilder { compares: &compares, then: &then, otherwise: &other };
    let mut command = Vec::new();
    txn.encode(&mut command).map_err(|error| TxnError::Command(refused(error)))?;
    Ok(command)
}

fn parse<T>(texts: &[String], one: fn(&str) -> Result<T, String>) -> Result<Vec<T>, TxnError> {
    texts.iter().map(|text| one(text).map_err(TxnError::Grammar)).collect()
}

/// For people: which branch ran, then the reply to each of its operations.
fn print(reply: &TxnReply<'_>) -> Result<(), Failure> {
    output::text(if reply.succeeded { "then" } else { "else" })?;
    for operation in reply.operations() {
        match operation {
            Reply::Put(PutReply::None | PutReply::LeftOut) => output::text("OK")?,
            Reply::Put(PutReply::Previous(previous)) => print_key_value(&previous, false)?,
            Reply::Delete(reply) => output::text(&reply.deleted.to_string())?,
            Reply::Range(reply) => {
                for key_value in reply.keys {
                    print_key_value(&key_value, false)?;
                }
            }
            Reply::Txn(_) => return Err(wrong_kind()),
        }
    }
    Ok(())
}
