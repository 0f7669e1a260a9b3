//! `ringraft wal`: looks into a log, offline, without changing anything.

use super::exit::{Exit, Failure};
use super::output::{self, Output};
use super::text;
use crate::boot::LOG_FOLDER;
use crate::config::Config;
use ringraft_types::record::Record;
use ringraft_wal::inspect::{self, Found, InspectError, SegmentFile, VerifyReport};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Payload bytes that `dump` shows of a record.
const PAYLOAD_BYTES_SHOWN: usize = 32;

/// What can be asked of a log.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum WalCommand {
    /// List the segments
    Ls(WalPlace),
    /// Show every block and record; with JSON a line for each
    Dump(WalPlace),
    /// Judge the log as a start would, without changing it; exit code 9 if something is lost
    Verify(WalPlace),
}

/// Which log.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WalPlace {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl WalPlace {
    /// The folder that holds the segments.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let dir = match (&self.dir, &self.config) {
            (Some(dir), _) => dir.clone(),
            (None, Some(config)) => Config::load(config)?.data_dir,
            (None, None) => return Err(Failure::new(Exit::Usage, "name --dir or --config")),
        };
        let folder = dir.join(LOG_FOLDER);
        // The folder itself may be named too.
        let folder = if folder.is_dir() { folder } else { dir };
        match folder.is_dir() {
            true => Ok(folder),
            false => {
                let message = format!("{} is not a directory", folder.display());
                Err(Failure::new(Exit::DataDir, message).cure("name a node's data directory"))
            }
        }
    }
}

pub(crate) fn run(command: &WalCommand, output: Output) -> Result<Exit, Failure> {
    match command {
        WalCommand::Ls(place) => {
            let segments = inspect::segments(&place.folder()?).map_err(failure)?;
            ls(&segments, output)?;
            Ok(Exit::Ok)
        }
        WalCommand::Dump(place) => {
            let segments = inspect::segments(&place.folder()?).map_err(failure)?;
            dump(&segments, output)?;
            Ok(Exit::Ok)
        }
        WalCommand::Verify(place) => {
            let reports = inspect::verify(&place.folder()?).map_err(failure)?;
            verify(&reports, output)
        }
    }
}

fn failure(error: InspectError) -> Failure {
    let exit = match &error {
        InspectError::Io { .. } => Exit::DataDir,
        _ => Exit::Damaged,
    };
    Failure::new(exit, error.to_string())
}

/// What one segment holds, counted.
#[derive(Debug, Default)]
struct Content {
    blocks: u64,
    records: u64,
    garbage_bytes: u64,
    first: Option<u64>,
    last: Option<u64>,
}

fn content(segment: &SegmentFile) -> Content {
    let mut content = Content::default();
    for found in segment.blocks() {
        match found {
            Found::Block(block) => {
                let sequence = block.header.sequence.get();
                content.blocks += 1;
                content.records += u64::from(block.header.records);
                content.first = content.first.or(Some(sequence));
                content.last = Some(sequence);
            }
            Found::Garbage { bytes, .. } => content.garbage_bytes += bytes,
        }
    }
    content
}

fn ls(segments: &[SegmentFile], output: Output) -> Result<(), Failure> {
    let mut table = output::table(&[
        "LOG",
        "SEGMENT",
        "BYTES",
        "HEADER",
        "BLOCKS",
        "RECORDS",
        "SEQUENCES",
        "GARBAGE",
    ]);
    let mut rows = Vec::new();
    for segment in segments {
        let content = content(segment);
        let header = match segment.header() {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:?}").to_lowercase(),
        };
        let sequences = match (content.first, content.last) {
            (Some(first), Some(last)) => format!("{first}-{last}"),
            _ => "-".to_owned(),
        };
        table.add_row([
            segment.file.owner.to_string(),
            segment.file.number.to_string(),
            segment.length().to_string(),
            header.clone(),
            content.blocks.to_string(),
            content.records.to_string(),
            sequences,
            content.garbage_bytes.to_string(),
        ]);
        rows.push(json!({
            "log": segment.file.owner,
            "segment": segment.file.number,
            "path": segment.path.display().to_string(),
            "bytes": segment.length(),
            "header": header,
            "blocks": content.blocks,
            "records": content.records,
            "first_sequence": content.first,
            "last_sequence": content.last,
            "garbage_bytes": content.garbage_bytes,
        }));
    }
    match output {
        Output::Json => output::json(&json!({"segments": rows})),
        Output::Table => output::text(&output::table_text(&table)),
    }
}

/// Every block and record, one line each; JSON lines for machines.
fn dump(segments: &[SegmentFile], output: Output) -> Result<(), Failure> {
    for segment in segments {
        let (log, number) = (segment.file.owner, segment.file.number);
        line(
            output,
            &format!("log {log} segment {number}"),
            || json!({"log": log, "segment": number, "path": segment.path.display().to_string()}),
        )?;
        for found in segment.blocks() {
            let block = match found {
                Found::Garbage { offset, bytes, error } => {
                    line(
                        output,
                        &format!("  {offset:>10} garbage, {bytes} bytes: {error}"),
                        || json!({"offset": offset, "garbage_bytes": bytes, "error": error.to_string()}),
                    )?;
                    continue;
                }
                Found::Block(block) => block,
            };
            let header = &block.header;
            let (offset, sequence) = (header.offset, header.sequence.get());
            let text = format!(
                "  {offset:>10} block {sequence}: {} bytes, {} records, durable {}, flags {:#x}",
                header.length, header.records, header.durable, header.flags
            );
            line(output, &text, || {
                json!({
                    "offset": offset,
                    "sequence": sequence,
                    "bytes": header.length,
                    "records": header.records,
                    "durable": header.durable.get(),
                    "oldest": header.oldest.get(),
                    "flags": header.flags,
                    "incarnation": format!("{:016x}", header.identity.incarnation.get()),
                })
            })?;
            for (at, record) in inspect::records(&block) {
                match record {
                    Ok((record, carried)) => {
                        let text = record_text(at, &record, carried.as_ref());
                        line(output, &text, || record_json(at, &record, carried.as_ref()))?;
                    }
                    Err(error) => {
                        line(
                            output,
                            &format!("  {at:>14} rotten record: {error}"),
                            || json!({"at": at, "error": error.to_string()}),
                        )?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn line(output: Output, text: &str, value: impl FnOnce() -> Value) -> Result<(), Failure> {
    match output {
        Output::Table => output::text(text),
        Output::Json => output::json(&value()),
    }
}

fn record_text(at: usize, record: &Record<'_>, carried: Option<&Record<'_>>) -> String {
    let mut text = format!("  {at:>14} ");
    for record in std::iter::once(record).chain(carried) {
        let header = &record.header;
        let _ = write!(
            text,
            "{:?} group {} {}.{} {} bytes ",
            header.kind, header.group, header.term, header.index, header.length
        );
    }
    let payload = carried.unwrap_or(record).payload;
    text.push_str(&text::hex(&payload[..payload.len().min(PAYLOAD_BYTES_SHOWN)]));
    text.truncate(text.trim_end().len());
    text
}

fn record_json(at: usize, record: &Record<'_>, carried: Option<&Record<'_>>) -> Value {
    let one = |record: &Record<'_>| {
        let header = &record.header;
        json!({
            "at": at,
            "kind": format!("{:?}", header.kind),
            "group": header.group.get(),
            "term": header.term.get(),
            "index": header.index.get(),
            "payload_hex": text::hex(record.payload),
        })
    };
    let mut value = one(record);
    if let Some(carried) = carried {
        value["carried"] = one(carried);
    }
    value
}

fn verify(reports: &[VerifyReport], output: Output) -> Result<Exit, Failure> {
    let is_intact = reports.iter().all(VerifyReport::is_intact);
    match output {
        Output::Json => {
            let logs: Vec<Value> = reports.iter().map(report_json).collect();
            output::json(&json!({"intact": is_intact, "logs": logs}))?;
        }
        Output::Table => {
            for report in reports {
                output::text(report_text(report).trim_end())?;
            }
            output::text(if is_intact {
                "intact: nothing that was acknowledged is lost"
            } else {
                "DAMAGED: something that was acknowledged is lost here; the other nodes have it"
            })?;
        }
    }
    Ok(if is_intact { Exit::Ok } else { Exit::Damaged })
}

fn report_text(report: &VerifyReport) -> String {
    let mut text = format!(
        "log {}: {} segments, {} blocks, {} records, last {}, durable {}, {} torn, {} stale\n",
        report.log_id,
        report.segments,
        report.blocks,
        report.records,
        report.last,
        report.durable,
        report.torn_blocks,
        report.stale_blocks
    );
    for group in &report.groups {
        let _ = write!(text, "  group {}: entries {}-{}", group.group, group.first, group.last);
        if let Some((term, vote, commit)) = group.hard {
            let _ = write!(text, ", term {term}, vote {vote}, commit {commit}");
        }
        if let Some(damaged) = group.damaged {
            let _ = write!(text, ", DAMAGED: votes as if it held {damaged}");
        }
        text.push('\n');
    }
    for rot in &report.rot {
        let groups: Vec<String> = rot.groups.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "  rot: {:?} in segment {:?} at {:?}, block {:?}, groups {}",
            rot.kind,
            rot.segment,
            rot.offset,
            rot.sequence.map(|sequence| sequence.get()),
            groups.join(", ")
        );
    }
    if report.unknown_damage {
        text.push_str("  any group may have lost anything\n");
    }
    if report.node_damaged {
        text.push_str("  some of the node's own records are lost\n");
    }
    text
}

fn report_json(report: &VerifyReport) -> Value {
    let groups = report.groups.iter().map(|group| {
        json!({
            "group": group.group.get(),
            "first": group.first.get(),
            "last": group.last.get(),
            "term": group.hard.map(|(term, ..)| term.get()),
            "commit": group.hard.map(|(.., commit)| commit.get()),
            "damaged": group.damaged.map(|id| json!({"term": id.term.get(), "index": id.index.get()})),
        })
    });
    let rot = report.rot.iter().map(|rot| {
        json!({
            "kind": format!("{:?}", rot.kind),
            "segment": rot.segment,
            "offset": rot.offset,
            "sequence": rot.sequence.map(|sequence| sequence.get()),
            "groups": rot.groups.iter().map(|group| group.get()).collect::<Vec<_>>(),
        })
    });
    json!({
        "log": report.log_id,
        "intact": report.is_intact(),
        "segments": report.segments,
        "bytes": report.bytes,
        "blocks": report.blocks,
        "records": report.records,
        "last": report.last.get(),
        "durable": report.durable.get(),
        "torn_blocks": report.torn_blocks,
        "stale_blocks": report.stale_blocks,
        "unknown_damage": report.unknown_damage,
        "node_damaged": report.node_damaged,
        "groups": groups.collect::<Vec<_>>(),
        "rot": rot.collect::<Vec<_>>(),
    })
}
