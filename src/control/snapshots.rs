//! `/snapshots`: what is kept of each group, and taking one more.

use crate::control::feed::{ShardFeed, ShardSnapshots, SnapshotWish};
use crate::control::routes::{ALIVE_WITHIN, Answer, JSON, Lane, TEXT, body_text, text};
use glommio::timer::Timer;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use ringraft_net::status::SnapshotActivity;
use ringraft_shard::{GroupSnapshots, InstallProgress, SnapshotAsked, SnapshotEnd};
use ringraft_types::{GroupId, ShardId};
use ringraft_wal::device::FileId;
use ringraft_wal::device::uring::file_name;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest list of groups, bytes.
const GROUPS_BYTES_MAX: usize = 64 << 10;

/// How things stand.
pub(crate) async fn look<F: ShardFeed>(lane: &Lane<F>) -> Answer {
    answer(lane, SnapshotWish::Look).await
}

/// Has snapshots taken of the groups that the body names, or of all.
pub(crate) async fn take<F: ShardFeed>(lane: &Lane<F>, request: Request<Incoming>) -> Answer {
    let body = match body_text(lane, request, "a list of groups", GROUPS_BYTES_MAX).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let words = body.split([',', ' ', '\n', '\r']).filter(|word| !word.is_empty());
    let group = |word: &str| match word.parse() {
        Ok(0) | Err(_) => Err(word.to_owned()),
        Ok(number) => Ok(GroupId(number)),
    };
    match words.map(group).collect::<Result<BTreeSet<GroupId>, String>>() {
        Ok(groups) if groups.is_empty() => answer(lane, SnapshotWish::TakeAll).await,
        Ok(groups) => answer(lane, SnapshotWish::Take(groups.into_iter().collect())).await,
        Err(word) => {
            let message = format!("{word:?} is not a group: send numbers from 1 on, as in 1,2\n");
            text(StatusCode::BAD_REQUEST, TEXT, message)
        }
    }
}

async fn answer<F: ShardFeed>(lane: &Lane<F>, wish: SnapshotWish) -> Answer {
    let question = lane.feed.ask_snapshots(wish.clone());
    let deadline = Instant::now() + ALIVE_WITHIN;
    let mut pause = Duration::from_micros(100);
    let silent = loop {
        let silent = lane.feed.silent(question);
        if silent.is_empty() || Instant::now() >= deadline {
            break silent;
        }
        Timer::new(pause).await;
        // Parking costs the hot lanes: not more often than needed.
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    let shards = lane.feed.take_snapshots(question);
    let files: Vec<FileId> = (shards.iter())
        .flat_map(|shard| shard.groups.iter().flat_map(|(_, row)| &row.kept))
        .map(|kept| kept.file)
        .collect();
    let dir = lane.log_dir.clone();
    // In a thread that may wait: a disk that hangs must not take the lane with it.
    let ages = glommio::executor().spawn_blocking(move || ages(&dir, files));
    let ages = lane.deadlines.within(ALIVE_WITHIN, ages).await.unwrap_or_default();
    let node = lane.feed.latest();
    let report = json!({
        "node": node.node.get(),
        "name": node.name,
        "uptime_ms": node.uptime.as_millis() as u64,
        "silent_shards": silent.iter().map(|shard| shard.get()).collect::<Vec<_>>(),
        "unknown_groups": unknown(&wish, &shards, &silent),
        "groups": shards.iter().flat_map(|shard| groups(shard, &ages)).collect::<Vec<_>>(),
    });
    text(StatusCode::OK, JSON, report.to_string())
}

/// How long ago each file was finished, as far as it can be told.
fn ages(dir: &Path, files: Vec<FileId>) -> BTreeMap<FileId, Duration> {
    let age = |file: &FileId| {
        let found = std::fs::metadata(dir.join(file_name(*file))).ok()?;
        found.modified().ok()?.elapsed().ok()
    };
    files.into_iter().filter_map(|file| Some((file, age(&file)?))).collect()
}

/// The groups that were asked for and that no shard has; none as long as not all have answered.
fn unknown(wish: &SnapshotWish, shards: &[ShardSnapshots], silent: &[ShardId]) -> Vec<u64> {
    let SnapshotWish::Take(wanted) = wish else { return Vec::new() };
    if !silent.is_empty() {
        return Vec::new();
    }
    let known: BTreeSet<GroupId> =
        (shards.iter()).flat_map(|shard| shard.groups.iter().map(|(_, row)| row.group)).collect();
    wanted.iter().filter(|group| !known.contains(group)).map(|group| group.get()).collect()
}

fn groups(shard: &ShardSnapshots, ages: &BTreeMap<FileId, Duration>) -> Vec<Value> {
    let row = |(asked, row): &(Option<SnapshotAsked>, GroupSnapshots)| {
        let kept = row.kept.iter().map(|kept| {
            json!({
                "index": kept.last.index.get(),
                "term": kept.last.term.get(),
                "behind": row.applied.get().saturating_sub(kept.last.index.get()),
                "bytes": kept.bytes,
                "age_ms": ages.get(&kept.file).map(|age| age.as_millis() as u64),
                "named": kept.is_named,
                "file": file_name(kept.file),
            })
        });
        let is_taking = row.activity == SnapshotActivity::Taking;
        json!({
            "group": row.group.get(),
            "shard": shard.shard.get(),
            "applied": row.applied.get(),
            "halted": row.is_halted,
            "asked": asked.map(SnapshotAsked::name),
            "activity": row.activity.name(),
            "written_bytes": is_taking.then_some(row.written),
            "install": row.install.as_ref().map(install),
            "attempts": row.attempts,
            "end": row.end.as_ref().map(end),
            "kept": kept.collect::<Vec<_>>(),
            "unreadable": row.unreadable,
        })
    };
    shard.groups.iter().map(row).collect()
}

fn install(progress: &InstallProgress) -> Value {
    json!({
        "from": progress.from.get(),
        "sources": progress.sources,
        "chunks_fetched": progress.fetched,
        "chunks_loaded": progress.loaded,
        "chunks": progress.chunks,
    })
}

fn end(end: &SnapshotEnd) -> Value {
    json!({
        "index": end.last.index.get(),
        "bytes": end.bytes,
        "took_ms": end.took.0 / 1_000,
        "error": end.error.map(|error| error.to_string()),
    })
}
