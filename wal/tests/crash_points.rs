//! Crashes at every point and rot at every bit. Whatever happened, recovery gives a state that
//! was, up to at least the newest durable block; or it reports the group as damaged.

mod disk;

use disk::*;
use ringraft_types::record::RecordKind;
use ringraft_types::{GroupId, Index, LogId, Sequence, Term, Ticks};
use ringraft_wal::device::memory::{MemoryDevice, SECTOR_BYTES, Unflushed};
use ringraft_wal::device::{Device, Durability, FileId, Geometry, Operation};
use ringraft_wal::{LogSettings, Recovered};

/// A small random source, so that a failure names its seed.
struct Seed(u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A log with some history of three groups, settled.
fn history(settings: LogSettings) -> (Bench, Model) {
    let mut bench = Bench::new(settings);
    let mut model = Model::default();
    for step in 0..6u64 {
        let term = 1 + step / 3;
        let commit = step * 3;
        bench.act(&mut model, Done::Hard { group: 1, term, vote: 2, commit }, 0);
        let (first, last) = (1 + step * 3, 4 + step * 3);
        bench.act(&mut model, Done::Run { group: 1, first, last, term }, 60);
        bench.flush();
        bench.act(&mut model, Done::Run { group: 2, first: last, last: last + 1, term }, 90);
        if step == 4 {
            bench.act(&mut model, Done::Truncate { group: 1, from: 14 }, 0);
        }
        bench.flush();
    }
    bench.settle();
    (bench, model)
}

/// Appends three blocks of a few sectors and leaves them in flight.
fn in_flight(bench: &mut Bench, model: &mut Model, bytes: usize) {
    bench.device.hold(true);
    for block in 0..3u64 {
        let (index, term) = (15 + block, 9);
        bench.act(model, Done::Run { group: 1, first: index, last: index, term }, bytes);
        bench.act(model, Done::Hard { group: 3, term: 9 + block, vote: 1, commit: 0 }, 0);
        bench.log.turn(bench.now, &mut bench.device).expect("goes on");
    }
}

fn check(device: &mut MemoryDevice, model: &Model, durable: Sequence, what: &str) -> Recovered {
    let (mut log, recovered) = recover(device);
    assert!(recovered.rot.is_empty() && !recovered.unknown_damage, "{what}: {recovered:?}");
    assert!(recovered.last >= durable, "{what}: a durable block is lost");
    assert_exact(&recovered, &model.at(recovered.last), what);
    for (id, group) in &recovered.groups {
        if group.last >= group.first {
            let found = read(&mut log, device, id.0, group.first.0, group.last.0);
            let found = found.expect("what is recovered can be read");
            assert_contents(id.0, &entries(group).into_iter().collect::<Vec<_>>(), &found, what);
        }
    }
    recovered
}

/// The bytes are the entries that the model wrote.
fn assert_contents(group: u64, entries: &[(u64, u64)], bytes: &[u8], what: &str) {
    let mut at = 0;
    for &(index, term) in entries {
        let record = ringraft_types::record::decode(&bytes[at..]).expect("a verified record");
        assert_eq!(record.header.group, GroupId(group), "{what}");
        assert_eq!((record.header.index, record.header.term), (Index(index), Term(term)), "{what}");
        let payload = format!("{group}/{index}/{term}/");
        assert!(record.payload.starts_with(payload.as_bytes()), "{what}");
        at += record.bytes.len();
    }
    assert_eq!(at, bytes.len(), "{what}: nothing else");
}

/// The sectors of the last blocks that differ from what was there, if nothing was synced.
fn cuts(bench: &Bench) -> Vec<Unflushed> {
    bench.device.unflushed()
}

/// Every subset of the unflushed sectors of one block, up to eight sectors, survives a power cut;
/// then the log goes on, and the next crash is judged as exactly.
#[test]
fn every_subset_of_the_last_blocks_sectors() {
    for bytes in [40, 500, 1_400, 3_000] {
        let (mut bench, mut model) = history(settings());
        in_flight(&mut bench, &mut model, bytes);
        let durable = bench.log.durable();
        let count = cuts(&bench).len();
        assert!((1..=8).contains(&count), "{count} sectors");
        for subset in 0..1u32 << count {
            let mut device = bench.device.clone();
            let mut at = 0;
            device.power_cut(|_| {
                at += 1;
                subset >> (at - 1) & 1 == 1
            });
            let what = format!("{bytes} bytes, subset {subset:#b}");
            let first = check(&mut device, &model, durable, &what);
            assert!(first.torn_blocks <= 1 || subset != 0, "{what}");
            // A second life, written to, and cut again.
            let (mut log, _) = recover(&mut device);
            for turn in 0..20u64 {
                log.turn(Ticks(turn * 1000), &mut device).expect("goes on");
            }
            device.kill();
            // What was cut stays cut.
            let mut kept = model.clone();
            kept.done.retain(|(sequence, _)| *sequence <= first.last);
            check(&mut device, &kept, first.last, &what);
        }
    }
}

/// Three blocks in flight, more sectors: prefixes, suffixes, single sectors, and thousands of
/// random subsets, in every way of syncing.
#[test]
fn sampled_subsets_of_several_blocks() {
    for durability in [Durability::Dsync, Durability::LinkedSync] {
        let settings = LogSettings { inflight_max: 3, durability, ..settings() };
        let (mut bench, mut model) = history(settings);
        in_flight(&mut bench, &mut model, 2_500);
        let held = bench.device.held();
        let blocks: Vec<usize> = (0..held.len()).filter(|&at| held[at].syncs).collect();
        assert_eq!(blocks.len(), 3);
        let mut seed = Seed(0x5EED);
        for round in 0..1_500u64 {
            let mut device = bench.device.clone();
            // Some of the writes complete before the cut, in any order.
            let mut log_knows = bench.log.durable();
            if round % 3 == 1 {
                device.finish(blocks[seed.below(3) as usize]);
            } else if round % 3 == 2 {
                device.finish(blocks[0]);
                if durability == Durability::Dsync {
                    log_knows = Sequence(log_knows.0 + 1);
                }
            }
            let count = device.unflushed().len() as u64;
            let (low, high) = (seed.below(count + 1), seed.below(count + 1));
            let style = seed.below(4);
            let mut at = 0;
            let mut bits = seed.next();
            device.power_cut(|_| {
                at += 1;
                bits = bits.rotate_left(1);
                match style {
                    0 => at <= low,
                    1 => at > low,
                    2 => at != low,
                    _ => (at > low.min(high)) ^ (bits & 1 == 1),
                }
            });
            check(&mut device, &model, log_knows, &format!("round {round}, {durability:?}"));
        }
    }
}

/// The power goes with nothing of what isn't flushed kept (style 0), all of it (1), or about half.
fn cut(device: &mut MemoryDevice, style: u64, mut bits: u64) {
    device.power_cut(|_| {
        bits = bits.rotate_left(1);
        style == 1 || (style == 2 && bits & 1 == 1)
    });
}

/// A cut at every step of a long run: after each operation of the device, with nothing, everything
/// or half of the unflushed sectors kept.
#[test]
fn a_cut_after_every_operation() {
    for (round, durability) in
        [Durability::Dsync, Durability::LinkedSync, Durability::Blocking].into_iter().enumerate()
    {
        let settings = LogSettings { inflight_max: 2, durability, ..settings() };
        let mut bench = Bench::new(settings);
        let mut model = Model::default();
        let mut seed = Seed(77 + round as u64);
        bench.device.hold(true);
        let mut next = 1;
        for step in 0..300u64 {
            if step % 3 == 0 {
                let (first, term) = (next, 1 + step / 40);
                let last = first + seed.below(6);
                next = last + 1 - seed.below(2);
                let bytes = 20 + seed.below(1_500) as usize;
                bench.act(&mut model, Done::Run { group: 1, first, last, term }, bytes);
            }
            bench.turn();
            let held = bench.device.held().len() as u64;
            if held > 0 {
                bench.device.finish(seed.below(held) as usize);
                bench.turn();
            }
            let durable = bench.log.durable();
            for style in 0..3 {
                let mut device = bench.device.clone();
                cut(&mut device, style, seed.next());
                let what = format!("step {step}, style {style}, {durability:?}");
                check(&mut device, &model, durable, &what);
            }
        }
        assert!(bench.log.segments() > 1, "the run crosses segments");
    }
}

/// A disk that serves one file from memory as fast as can be: for hundreds of thousands of
/// recoveries.
struct OneFile<'a> {
    file: FileId,
    content: &'a [u8],
    completions: Vec<ringraft_wal::device::Completion>,
}

impl Device for OneFile<'_> {
    fn geometry(&self) -> Geometry {
        Geometry { align: 4096 }
    }

    fn submit(&mut self, tag: ringraft_types::tag::Tag, operation: Operation) {
        let mut done = ringraft_wal::device::Completion {
            tag,
            result: 0,
            sync_result: None,
            buffer: None,
            files: Vec::new(),
        };
        match operation {
            Operation::List => done.files.push((self.file, self.content.len() as u64)),
            Operation::Read { offset, mut buffer, .. } => {
                let from = &self.content[offset as usize..];
                let count = from.len().min(buffer.len());
                buffer[..count].copy_from_slice(&from[..count]);
                done.result = count as i32;
                done.buffer = Some(buffer);
            }
            _ => {}
        }
        self.completions.push(done);
    }

    fn poll(&mut self, completions: &mut Vec<ringraft_wal::device::Completion>) {
        completions.append(&mut self.completions);
    }
}

/// Every single-bit flip of a full 64 KiB segment: each group is as it was, or reported, and what
/// is returned of a reported one is a part of what was.
#[test]
fn every_single_bit_flip_of_a_segment() {
    // Blocks of a few records, until the segment is full, and the seal in it.
    let mut bench = Bench::new(settings());
    let mut model = Model::default();
    for step in 0..13u64 {
        let group = 1 + step % 3;
        let first = 1 + step / 3 * 2;
        let term = 1 + step / 6;
        bench.act(&mut model, Done::Hard { group, term, vote: 1, commit: step }, 0);
        bench.act(&mut model, Done::Run { group, first, last: first + 1, term }, 1_700);
        bench.flush();
    }
    bench.settle();
    let last = bench.log.durable();
    assert_eq!(block_at(&bench.device, last).header.segment, 1, "the seal is in the segment");
    let file = segment(1);
    let content = bench.device.content(file);
    assert_eq!(content.len(), 64 << 10);
    let used = content.chunks(4096).filter(|unit| unit.iter().any(|&byte| byte != 0)).count();
    assert!(used >= 15, "{used} of 16 units are used");
    let expected = model.at(last);
    let halves: Vec<_> = (0..2usize)
        .map(|half| {
            let (mut content, expected) = (content.clone(), expected.clone());
            std::thread::spawn(move || {
                for bit in (half..content.len() * 8).step_by(2) {
                    content[bit / 8] ^= 1 << (bit % 8);
                    judge_flip(file, &content, &expected, bit);
                    content[bit / 8] ^= 1 << (bit % 8);
                }
            })
        })
        .collect();
    for half in halves {
        half.join().expect("no flip is taken for the truth");
    }
}

fn judge_flip(
    file: FileId,
    content: &[u8],
    expected: &std::collections::BTreeMap<GroupId, Expected>,
    bit: usize,
) {
    let mut device = OneFile { file, content, completions: Vec::new() };
    let (_, recovered) = match try_recover(settings(), &mut device) {
        Ok(done) => done,
        Err(error) => panic!("bit {bit}: {error}"),
    };
    for (id, expected) in expected {
        let Some(group) = recovered.groups.get(id) else {
            assert!(recovered.unknown_damage, "bit {bit}: group {id} is lost silently");
            continue;
        };
        let found = entries(group);
        if group.damaged.is_none() {
            assert_eq!(found, expected.entries, "bit {bit}: group {id}");
        } else {
            let real = |(index, term)| expected.entries.get(index) == Some(term);
            assert!(found.iter().all(real), "bit {bit}: group {id} holds what never was");
            let newest = expected.entries.last_key_value().expect("not empty");
            let newest = LogId::new(Term(*newest.1), Index(*newest.0));
            assert!(group.damaged >= Some(newest), "bit {bit}: group {id}'s floor is too low");
        }
        if group.hard_lost.is_none() {
            assert_eq!(group.hard, expected.hard, "bit {bit}: group {id}");
        } else {
            let term = expected.hard.map(|(term, ..)| term);
            assert!(group.hard_lost >= term, "bit {bit}: group {id}'s term is too low");
        }
    }
    for id in recovered.groups.keys() {
        assert!(expected.contains_key(id), "bit {bit}: group {id} comes from nowhere");
    }
}

/// A sector of an acknowledged block that is zeroed, or holds what another sector held, is
/// noticed like a flipped bit.
#[test]
fn every_sector_zeroed_or_misplaced() {
    let (bench, model) = history(settings());
    let expected = model.at(bench.log.durable());
    let file = segment(1);
    let content = bench.device.content(file);
    let sectors = content.len() / SECTOR_BYTES;
    let mut seed = Seed(5);
    for sector in 8..sectors {
        for style in 0..3 {
            let mut bad = content.clone();
            let from = seed.below(sectors as u64) as usize * SECTOR_BYTES;
            let at = sector * SECTOR_BYTES;
            match style {
                0 => bad[at..at + SECTOR_BYTES].fill(0),
                1 => bad.copy_within(from..from + SECTOR_BYTES, at),
                _ => bad[at..at + SECTOR_BYTES].iter_mut().for_each(|b| *b = seed.next() as u8),
            }
            judge_flip(file, &bad, &expected, at * 8);
        }
    }
}

/// A segment is given up only when what was moved out of it is durable: a block that says so, and is
/// durable before that is, would disown the old place while the new one can still be lost.
#[test]
fn what_is_moved_is_durable_before_its_old_place_is_given_up() {
    for finished in 0..8 {
        let mut bench = Bench::new(settings());
        bench.append(&hard(9, 5, 1, 0));
        let mut index = 1;
        while bench.log.segments() < 4 {
            bench.block(1, index, index + 9, 1);
            index += 10;
        }
        bench.settle();
        bench.device.hold(true);
        // The first is in flight, and three wait behind it: what is moved comes after those.
        for _ in 0..4 {
            bench.append_run(1, index, index + 9, 1, 1_300);
            bench.log.turn(bench.now, &mut bench.device).expect("goes on");
            index += 10;
        }
        bench.log.release(GroupId(1), Index(index - 41));
        for _ in 0..finished {
            bench.turn();
            bench.turn();
            if !bench.device.held().is_empty() {
                bench.device.finish(0);
            }
        }
        bench.turn();
        bench.device.power_cut(|_| false);
        bench.device.hold(false);
        let recovered = bench.restart();
        let found = recovered.groups.get(&GroupId(9)).and_then(|group| group.hard);
        assert_eq!(found, Some((Term(5), 1, Index(0))), "after {finished} operations");
    }
}

/// S34: what is alive in the oldest segments is moved, so that they can go: terms and votes, the names
/// of snapshots, entries of a group that is idle. Power fails after each operation of it, done in any
/// order, with nothing, everything or a part of the rest kept: every group is as it was, all of what is
/// needed can be read, and no group comes from nowhere. The next life goes on with it.
#[test]
fn s34_a_crash_at_any_step_of_moving_live_records() {
    let idle = GroupId(30);
    let mut seed = Seed(34);
    let (mut gone, mut there) = (0, 0);
    for durability in [Durability::Dsync, Durability::LinkedSync] {
        let settings = LogSettings { inflight_max: 2, durability, ..settings() };
        for steps in 0..40usize {
            for style in 0..3 {
                let mut bench = Bench::new(settings.clone());
                for group in 2..=20 {
                    bench.append(&hard(group, 5 + group, 1, 0));
                }
                bench.append(&record(RecordKind::Snapshot, 21, 40, 3, &7u64.to_le_bytes()));
                bench.append(&hard(30, 2, 1, 3));
                bench.append_run(30, 1, 3, 2, 900);
                let mut index = 1;
                while bench.log.segments() < 4 {
                    bench.block(1, index, index + 9, 1);
                    index += 10;
                }
                bench.settle();
                bench.device.hold(true);
                let idle_run = run(30, 1, 3, 2, 900);
                bench.log.carry_run(idle, Index(1), &idle_run).expect("there is room");
                bench.log.release(GroupId(1), Index(index - 11));
                // New entries of other groups share the blocks.
                bench.append_run(1, index, index + 4, 1, 1_300);
                let last = index + 4;
                for _ in 0..steps {
                    bench.turn();
                    let held = bench.device.held().len() as u64;
                    if held > 0 {
                        bench.device.finish(seed.below(held) as usize);
                    }
                    bench.turn();
                }
                let is_durable = bench.log.is_idle();
                gone += u32::from(bench.device.files().iter().all(|(file, _)| file.number > 1));
                cut(&mut bench.device, style, seed.next());
                bench.device.hold(false);
                let what = format!("{steps} steps, style {style}, {durability:?}");
                for life in 0..2 {
                    let (log, recovered) = try_recover(settings.clone(), &mut bench.device)
                        .unwrap_or_else(|error| panic!("{what}, life {life}: {error}"));
                    bench.log = log;
                    assert!(recovered.rot.is_empty() && !recovered.unknown_damage, "{what}");
                    let known: Vec<u64> = recovered.groups.keys().map(|group| group.0).collect();
                    let expected: Vec<u64> = (1..=21).chain([30]).collect();
                    assert_eq!(known, expected, "{what}: none is lost, none is made up");
                    for group in 2..=20 {
                        let found = recovered.groups[&GroupId(group)].hard;
                        assert_eq!(found, Some((Term(5 + group), 1, Index(0))), "{what}: {group}");
                    }
                    let named = recovered.groups[&GroupId(21)].named;
                    assert_eq!(named.map(|named| named.number), Some(7), "{what}");
                    let found = &recovered.groups[&idle];
                    assert_eq!((found.first, found.last), (Index(1), Index(3)), "{what}");
                    assert_eq!((found.damaged, found.hard_lost), (None, None), "{what}");
                    let found = &recovered.groups[&GroupId(1)];
                    assert_eq!(found.damaged, None, "{what}");
                    let newest = found.last.0;
                    assert!((index - 1..=last).contains(&newest), "{what}: {newest}");
                    assert!(newest == last || !is_durable, "{what}: it was durable");
                    there += u32::from(newest == last);
                    assert!(bench.read(30, 1, 3).expect("held") == idle_run, "{what}");
                    let records = bench.read(1, index - 10, index - 1).expect("held");
                    assert!(records == run(1, index - 10, index - 1, 1, 100), "{what}");
                    bench.settle();
                    bench.device.power_cut(|_| false);
                }
            }
        }
    }
    assert!(gone > 20 && there > 20, "{gone} times the segment was gone, {there} all was there");
}
