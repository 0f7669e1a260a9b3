//! `put`, `get`, `del` and `range`.

use super::client::{Quorum, refused, unreadable};
use super::consistency::ReadArgs;
use super::exit::{Exit, Failure};
use super::level::AckArgs;
use super::output::{self, Output};
use super::{Global, text};
use ringraft_net::client::Response;
use ringraft_types::Revision;
use ringraft_types::command::{DeleteCommand, Keys, PutCommand, RangeCommand};
use ringraft_types::reply::{KeyValue, PutReply, RangeReply, Reply};
use serde_json::{Map, Value, json};

/// What `ringraft put` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    /// The key
    #[arg(allow_hyphen_values = true)]
    key: String,
    /// The value; "-" reads it from stdin
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// Print what the key was before
    #[arg(long)]
    prev: bool,
    #[command(flatten)]
    level: AckArgs,
}

/// What `ringraft get` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// The key
    #[arg(allow_hyphen_values = true)]
    key: String,
    /// As of this revision instead of the current one
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "R")]
    revision: u64,
    #[command(flatten)]
    read: ReadArgs,
}

/// What `ringraft del` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct DelArgs {
    /// The key
    #[arg(allow_hyphen_values = true)]
    key: String,
    /// The first key no longer removed: removes all from KEY up to it
    #[arg(allow_hyphen_values = true, conflicts_with = "prefix")]
    end: Option<String>,
    /// Remove all keys that begin with KEY
    #[arg(long)]
    prefix: bool,
    /// Print what the keys were before
    #[arg(long)]
    prev: bool,
    #[command(flatten)]
    level: AckArgs,
}

/// What `ringraft range` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct RangeArgs {
    /// The first key; "" is the first there is
    #[arg(allow_hyphen_values = true)]
    start: String,
    /// The first key no longer listed; left out: to the last there is
    #[arg(allow_hyphen_values = true, conflicts_with = "prefix")]
    end: Option<String>,
    /// List all keys that begin with START
    #[arg(long)]
    prefix: bool,
    /// At most this many keys; 0 is no limit
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    limit: u32,
    /// As of this revision instead of the current one
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "R")]
    revision: u64,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// Only count the keys
    #[arg(long, conflicts_with_all = ["keys_only", "limit"])]
    count_only: bool,
    #[command(flatten)]
    read: ReadArgs,
}

pub(crate) fn put(args: &PutArgs, global: &Global) -> Result<Exit, Failure> {
    let from_stdin;
    let value = match args.value.as_str() {
        "-" => {
            from_stdin = read_stdin()?;
            &from_stdin[..]
        }
        value => value.as_bytes(),
    };
    let mut command = Vec::new();
    let put = PutCommand { key: args.key.as_bytes(), value, previous: args.prev };
    put.encode(&mut command).map_err(refused)?;
    let written = Quorum::connect(global)?.write(&command, args.level.ack)?;
    let response = &written.response;
    let reply = Reply::decode(&response.body).map_err(unreadable)?;
    match global.output {
        Output::Json => {
            let body = written.with_level(reply_json(&reply));
            output::json(&with_header(response, body))?;
        }
        Output::Table => {
            output::text("OK")?;
            if let Reply::Put(PutReply::Previous(previous)) = reply {
                print_key_value(&previous, false)?;
            }
        }
    }
    Ok(written.exit(Exit::Ok))
}

pub(crate) fn get(args: &GetArgs, global: &Global) -> Result<Exit, Failure> {
    let range = RangeCommand {
        revision: Revision(args.revision),
        limit: 1,
        ..RangeCommand::current(Keys::One(args.key.as_bytes()))
    };
    let response = read_range(&range, &args.read, global)?;
    let mut reply = range_reply(&response)?;
    let found = reply.keys.next();
    match global.output {
        Output::Json => {
            let found = found.as_ref().map_or(Value::Null, key_value_json);
            let body = Map::from_iter([("kv".to_owned(), found)]);
            output::json(&with_header(&response, body))?;
        }
        Output::Table => match &found {
            Some(found) => {
                output::bytes(found.value)?;
                output::bytes(b"\n")?;
            }
            None => eprintln!("no such key: {}", args.key),
        },
    }
    Ok(if found.is_some() { Exit::Ok } else { Exit::No })
}

pub(crate) fn del(args: &DelArgs, global: &Global) -> Result<Exit, Failure> {
    let keys = match keys(&args.key, args.end.as_deref(), args.prefix) {
        // Without an end a delete means one key: to remove all that follow takes a word.
        Keys::Between { start, end: b"" } => Keys::One(start),
        keys => keys,
    };
    let mut command = Vec::new();
    DeleteCommand { keys, previous: args.prev }.encode(&mut command).map_err(refused)?;
    let written = Quorum::connect(global)?.write(&command, args.level.ack)?;
    let response = &written.response;
    let reply = Reply::decode(&response.body).map_err(unreadable)?;
    match (global.output, &reply) {
        (Output::Json, reply) => {
            let body = written.with_level(reply_json(reply));
            output::json(&with_header(response, body))?;
        }
        (Output::Table, Reply::Delete(reply)) => {
            output::text(&reply.deleted.to_string())?;
            for previous in reply.previous {
                print_key_value(&previous, false)?;
            }
        }
        (Output::Table, _) => return Err(wrong_kind()),
    }
    Ok(written.exit(Exit::Ok))
}

pub(crate) fn range(args: &RangeArgs, global: &Global) -> Result<Exit, Failure> {
    let range = RangeCommand {
        revision: Revision(args.revision),
        limit: args.limit,
        keys_only: args.keys_only,
        count_only: args.count_only,
        ..RangeCommand::current(keys(&args.start, args.end.as_deref(), args.prefix))
    };
    let response = read_range(&range, &args.read, global)?;
    let reply = range_reply(&response)?;
    match global.output {
        Output::Json => {
            let body = reply_json(&Reply::Range(reply));
            output::json(&with_header(&response, body))?;
        }
        Output::Table if args.count_only => output::text(&reply.count.to_string())?,
        Output::Table => {
            for key_value in reply.keys {
                print_key_value(&key_value, args.keys_only)?;
            }
            if reply.more {
                eprintln!("{} keys in all: more than shown", reply.count);
            }
        }
    }
    Ok(Exit::Ok)
}

/// The keys of a command line; without an end, to the last there is.
fn keys<'a>(start: &'a str, end: Option<&'a str>, prefix: bool) -> Keys<'a> {
    if prefix {
        return Keys::Prefix(start.as_bytes());
    }
    Keys::Between { start: start.as_bytes(), end: end.unwrap_or_default().as_bytes() }
}

fn read_range(
    range: &RangeCommand<'_>,
    of: &ReadArgs,
    global: &Global,
) -> Result<Response, Failure> {
    let mut command = Vec::new();
    range.encode(&mut command).map_err(refused)?;
    Quorum::connect(global)?.read(&command, of)
}

fn range_reply(response: &Response) -> Result<RangeReply<'_>, Failure> {
    match Reply::decode(&response.body).map_err(unreadable)? {
        Reply::Range(reply) => Ok(reply),
        _ => Err(wrong_kind()),
    }
}

pub(crate) fn wrong_kind() -> Failure {
    Failure::new(Exit::Unknown, "the reply is of another kind than the request")
        .cure("use the servers' version of ringraft")
}

pub(crate) fn read_stdin() -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = ringraft_types::limits::COMMAND_BYTES_MAX as u64 * 2;
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
    read.map_err(|error| Failure::environment("reading stdin", &error))?;
    Ok(bytes)
}

/// Two lines for people, as etcdctl prints them: the key, then its value.
pub(crate) fn print_key_value(key_value: &KeyValue<'_>, key_only: bool) -> Result<(), Failure> {
    let mut lines = key_value.key.to_vec();
    lines.push(b'\n');
    if !key_only {
        lines.extend_from_slice(key_value.value);
        lines.push(b'\n');
    }
    output::bytes(&lines)
}

/// The answer's revision and index, then the body.
pub(crate) fn with_header(response: &Response, body: Map<String, Value>) -> Value {
    let mut all = Map::new();
    all.insert("revision".into(), response.revision.get().into());
    all.insert("index".into(), response.index.get().into());
    all.extend(body);
    Value::Object(all)
}

/// A reply for machines.
pub(crate) fn reply_json(reply: &Reply<'_>) -> Map<String, Value> {
    let fields = match reply {
        Reply::Put(PutReply::None) => json!({"prev": null}),
        Reply::Put(PutReply::LeftOut) => json!({"prev": null, "prev_left_out": true}),
        Reply::Put(PutReply::Previous(previous)) => json!({"prev": key_value_json(previous)}),
        Reply::Delete(reply) => json!({
            "deleted": reply.deleted,
            "more": reply.more,
            "prev": reply.previous.map(|one| key_value_json(&one)).collect::<Vec<_>>(),
        }),
        Reply::Range(reply) => json!({
            "count": reply.count,
            "more": reply.more,
            "kvs": reply.keys.map(|one| key_value_json(&one)).collect::<Vec<_>>(),
        }),
        Reply::Txn(reply) => json!({
            "succeeded": reply.succeeded,
            "replies": reply.operations().map(|one| reply_json(&one).into()).collect::<Vec<Value>>(),
        }),
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn key_value_json(key_value: &KeyValue<'_>) -> Value {
    let mut fields = Map::new();
    text::insert(&mut fields, "key", key_value.key);
    text::insert(&mut fields, "value", key_value.value);
    fields.insert("create_revision".into(), key_value.create_revision.get().into());
    fields.insert("mod_revision".into(), key_value.mod_revision.get().into());
    fields.insert("version".into(), key_value.version.into());
    Value::Object(fields)
}
