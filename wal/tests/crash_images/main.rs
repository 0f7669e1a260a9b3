//! Crash states of a log on a real file system. A disk is a file that this process serves through
//! FUSE; a loop device, ext4 and the log's real device lie above it. Every write and flush that the
//! kernel sends down is recorded, with what was durable by then. Then the disk as a power cut may
//! have left it is rebuilt, mounted (which replays the journal) and recovered, again and again.
//!
//! What this sees: how ext4 orders data, journal and metadata under our direct writes and syncs, new
//! and zeroed segments, names in directories. What it can't see: a disk that breaks its own flush
//! promise, rot, writes that a flush overtook inside of the kernel before they came down.
//! `crash_points.rs` does the same at the `Device` door, without a file system.
//!
//! It takes root, /dev/fuse, loop devices and mkfs.ext4. Where they are missing it says so and ends;
//! with RINGRAFT_BLOCK_DEVICES=required in the environment it fails instead. A campaign:
//!
//! ```text
//! RINGRAFT_CRASH_IMAGES=2000 RINGRAFT_CRASH_SEED=7 \
//!     cargo test --release -p ringraft-wal --test crash_images -- --nocapture
//! ```

#[path = "../disk/mod.rs"]
mod disk;
#[path = "../ring/mod.rs"]
mod ring;
mod tape;

use disk::{Done, Model, assert_exact, hard, record, run, settings, try_recover};
use fastrand::Rng;
use ring::Ring;
use ringraft_types::record::RecordKind;
use ringraft_types::{GroupId, Index, Term, Ticks};
use ringraft_wal::device::Durability;
use ringraft_wal::{Log, LogSettings, Recovered, WalError};
use std::path::Path;
use tape::{Disk, Mount, Tape};

/// Images that every run of the tests looks at.
const IMAGES: u64 = 40;
const STEPS: u64 = 60;
/// The log's folder on the disk.
const FOLDER: &str = "wal";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is expected"))
    })
}

/// What a log did on a recorded disk.
struct Story {
    tape: Tape,
    model: Model,
    settings: LogSettings,
}

fn settings_of(durability: Durability) -> LogSettings {
    LogSettings { durability, inflight_max: 2, ..settings() }
}

/// A log at work: appends in blocks of all sizes, truncations, several segments, one restart.
fn record_a_story(durability: Durability, rng: &mut Rng) -> Result<Story, String> {
    let disk = Disk::new()?;
    let mount = Mount::device(disk.file())?;
    let folder = mount.path().join(FOLDER);
    std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // The folder itself is the operator's: it is there before the log begins.
    sync_folder(mount.path());
    disk.begin();
    let settings = settings_of(durability);
    let mut model = Model::default();
    let mut last = [0u64; 4];
    let mut term = 1;
    let mut now = 1_000;
    for life in 0..2 {
        let mut ring = Ring::new(&folder);
        let (mut log, recovered) =
            try_recover(settings.clone(), &mut ring).map_err(|error| error.to_string())?;
        assert!(recovered.rot.is_empty(), "life {life}: {recovered:?}");
        for _ in 0..STEPS {
            let group = rng.u64(1..4);
            let at = &mut last[group as usize];
            let (done, bytes) = match rng.u32(..10) {
                0 => {
                    term += 1;
                    (Done::Hard { group, term, vote: 1, commit: *at }, 0)
                }
                1 if *at > 2 => {
                    *at -= 1;
                    (Done::Truncate { group, from: *at + 1 }, 0)
                }
                _ => {
                    let first = *at + 1;
                    *at += rng.u64(1..6);
                    (Done::Run { group, first, last: *at, term }, rng.usize(10..2_000))
                }
            };
            act(&mut log, &mut model, done, bytes);
            for _ in 0..rng.u32(0..6) {
                now += 100;
                log.turn(Ticks(now), &mut ring).map_err(|error| error.to_string())?;
                disk.mark(log.durable());
            }
        }
        for _ in 0..10_000 {
            now += 1_000;
            log.turn(Ticks(now), &mut ring).map_err(|error| error.to_string())?;
            disk.mark(log.durable());
            if log.is_quiet() {
                break;
            }
        }
        assert!(log.is_quiet() && log.segments() > 1, "{} segments", log.segments());
    }
    let tape = disk.tape();
    drop(mount);
    Ok(Story { tape, model, settings })
}

fn sync_folder(path: &Path) {
    std::fs::File::open(path).and_then(|folder| folder.sync_all()).expect("a folder is synced");
}

fn act(log: &mut Log, model: &mut Model, done: Done, bytes: usize) {
    let sequence = match done {
        Done::Run { group, first, last, term } => {
            let records = run(group, first, last, term, bytes);
            log.append_run(GroupId(group), Index(first), Index(last), Term(term), &records)
        }
        Done::Hard { group, term, vote, commit } => log.append(&hard(group, term, vote, commit)),
        Done::Truncate { group, from } => {
            log.append(&record(RecordKind::Truncate, group, from, 0, b""))
        }
    };
    model.done.push((sequence.expect("there is room"), done));
}

/// Recovers the log of one crash state.
fn recover_image(story: &Story, image: &[u8]) -> Result<Recovered, WalError> {
    let mount = Mount::image(image).expect("ext4 replays its journal and mounts");
    let mut ring = Ring::new(&mount.path().join(FOLDER));
    // The log goes before the ring, the ring before the mount.
    try_recover(story.settings.clone(), &mut ring).map(|(_, recovered)| recovered)
}

/// Goal: the test can fail. A log that never syncs and says that it is durable is caught.
#[test]
fn a_log_that_never_syncs_is_caught() {
    let mut rng = Rng::with_seed(1);
    let Some(story) = tell(record_a_story(Durability::None, &mut rng)) else { return };
    let is_caught = (0..IMAGES).any(|_| {
        let crash = story.tape.crash(&mut rng);
        match recover_image(&story, &crash.image) {
            Ok(recovered) => recovered.last < crash.durable,
            Err(_) => true,
        }
    });
    assert!(is_caught, "{IMAGES} images, and none lost what was never synced");
}

/// The story, or why there is none here.
fn tell<T>(story: Result<T, String>) -> Option<T> {
    story
        .inspect_err(|error| {
            let is_required =
                std::env::var("RINGRAFT_BLOCK_DEVICES").is_ok_and(|value| value == "required");
            assert!(!is_required, "FUSE, loop devices and ext4 are required: {error}");
            println!("SKIPPED: no recorded disk here ({error}); run it as root");
        })
        .ok()
}

/// A log with three blocks on a disk of its own, and the records of the second.
fn three_blocks() -> Result<(Disk, Mount, Vec<u8>), String> {
    let disk = Disk::new()?;
    let mount = Mount::device(disk.file())?;
    std::fs::create_dir(mount.path().join(FOLDER)).map_err(|error| error.to_string())?;
    let mut ring = Ring::new(&mount.path().join(FOLDER));
    let mut log = try_recover(settings(), &mut ring).map_err(|error| error.to_string())?.0;
    let blocks = [1, 2, 3].map(|group| run(group, 1, 5, 1, 600));
    for (group, records) in (1..).map(GroupId).zip(&blocks) {
        log.append_run(group, Index(1), Index(5), Term(1), records).expect("room");
        for now in 0.. {
            log.turn(Ticks(now), &mut ring).map_err(|error| error.to_string())?;
            if log.is_quiet() {
                break;
            }
        }
    }
    let [_, second, _] = blocks;
    Ok((disk, mount, second))
}

/// Goal: a start finds the rot that came below what the kernel remembers of a segment, though it reads
/// by way of that memory.
#[test]
fn a_start_sees_through_what_the_kernel_remembers() {
    let Some((disk, mount, second)) = tell(three_blocks()) else { return };
    let folder = mount.path().join(FOLDER);
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).expect("a segment");
        bytes.windows(second.len()).any(|window| window == second)
    };
    let paths =
        std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("one").path());
    let path = paths.into_iter().find(|path| holds(path)).expect("it was written");
    disk.rot(&second);
    assert!(holds(&path), "the kernel remembers it as it was");
    let mut ring = Ring::new(&folder);
    let recovered = try_recover(settings(), &mut ring).expect("recovered").1;
    assert!(!recovered.rot.is_empty(), "{recovered:?}");
    assert!(recovered.groups[&GroupId(2)].damaged.is_some());
    assert!(!holds(&path));
}

/// Goal: whatever of the unflushed sectors a power cut keeps, at whichever moment, ext4 and the log
/// together come back with every record that was durable, and with nothing that never was.
#[test]
fn every_crash_image_of_ext4_recovers() {
    let seed = number("RINGRAFT_CRASH_SEED", 1);
    let images = number("RINGRAFT_CRASH_IMAGES", IMAGES);
    let mut rng = Rng::with_seed(seed);
    let ways = [Durability::Dsync, Durability::LinkedSync];
    let mut seen = 0;
    for durability in ways {
        let Some(story) = tell(record_a_story(durability, &mut rng)) else { return };
        let (mut torn, mut beyond) = (0, 0);
        for number in 0..images / ways.len() as u64 {
            let crash = story.tape.crash(&mut rng);
            let what = format!("seed {seed}, {durability:?}, image {number}, {crash}");
            let recovered = recover_image(&story, &crash.image);
            let recovered = recovered.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(recovered.rot.is_empty() && !recovered.unknown_damage, "{what}: {recovered:?}");
            assert!(recovered.last >= crash.durable, "{what}: a durable block is lost");
            assert_exact(&recovered, &story.model.at(recovered.last), &what);
            torn += u64::from(crash.lost > 0);
            beyond += u64::from(recovered.last > crash.durable);
            seen += 1;
        }
        println!(
            "{durability:?}: {} writes, {} flushes; {torn} images lost sectors, {beyond} held more \
             than was known to be durable",
            story.tape.writes(),
            story.tape.flushes(),
        );
        assert!(torn > 0, "no image lost anything: the recorder sees no unflushed write");
    }
    println!("{seen} crash images recovered");
}
