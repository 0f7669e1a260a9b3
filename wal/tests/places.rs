//! Blocks and bytes that are not where they should be: misdirected and lost writes, reads that bring
//! something else, files cut short, and segments that hold what a former life left in them.

mod disk;

use disk::*;
use ringraft_types::tag::Tag;
use ringraft_types::{GroupId, Incarnation, Index, Sequence};
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::device::{Completion, Device, FileId, Geometry, Operation, ReadFrom};
use ringraft_wal::{LogSettings, Recovered, WalError};

/// Groups of the logs here.
const GROUPS: u64 = 6;
const LAST: Index = Index(5);

/// A log with a block for each group, and where each lies.
fn a_block_for_each() -> (Bench, Vec<OnDisk>) {
    let mut bench = Bench::new(settings());
    let sequences: Vec<Sequence> =
        (1..=GROUPS).map(|group| bench.block(group, 1, LAST.0, 1)).collect();
    bench.settle();
    let places = sequences.into_iter().map(|at| block_at(&bench.device, at)).collect();
    (bench, places)
}

/// The groups that are whole; of all others it is known that they aren't.
fn whole(recovered: &Recovered) -> Vec<u64> {
    let groups = 1..=GROUPS;
    let is_whole = |group: &u64| {
        let found = recovered.groups.get(&GroupId(*group));
        let is_damaged = found.is_none_or(|found| found.damaged.is_some());
        assert!(is_damaged || found.is_some_and(|found| found.last == LAST), "group {group}");
        !is_damaged && !recovered.unknown_damage
    };
    groups.filter(is_whole).collect()
}

fn bytes_at(device: &MemoryDevice, place: &OnDisk) -> Vec<u8> {
    let content = device.content(place.file);
    content[place.offset as usize..][..place.header.length as usize].to_vec()
}

/// S10: a block is written over another one, and where it should be is what was there before. Both
/// are missing, for every pair of places; all others are there.
#[test]
fn s10_a_misdirected_write_is_noticed_at_both_places() {
    let (bench, places) = a_block_for_each();
    for (from, right) in places.iter().enumerate() {
        for (to, wrong) in places.iter().enumerate().filter(|(to, _)| *to != from) {
            let mut device = bench.device.clone();
            device.kill();
            let bytes = bytes_at(&device, right);
            device.corrupt(wrong.file, wrong.offset, &bytes);
            device.corrupt(right.file, right.offset, &vec![0; bytes.len()]);
            let recovered = recover(&mut device).1;
            assert_eq!(recovered.stale_blocks, 1, "{from} over {to}");
            if from.abs_diff(to) == 1 {
                // Two in a row: nobody is left to say what the first one held.
                assert!(recovered.unknown_damage, "{from} over {to}");
                continue;
            }
            let others: Vec<u64> =
                (1..=GROUPS).filter(|&group| ![from, to].contains(&(group as usize - 1))).collect();
            assert_eq!(whole(&recovered), others, "{from} over {to}");
        }
    }
}

/// S12: a block that was said to be durable was never written: what was there before is there still,
/// zeros or the block of a fork of this log. It is noticed wherever it is, by the next block.
#[test]
fn s12_a_lost_write_is_noticed_by_the_next_block() {
    let (bench, places) = a_block_for_each();
    let mut fork = Bench::new(settings());
    for group in 1..=GROUPS {
        fork.block(group, 1, LAST.0 - 1, 1);
    }
    let old = fork.device.content(segment(1));
    for (at, place) in places.iter().enumerate() {
        let range = place.offset as usize..place.offset as usize + place.header.length as usize;
        for (is_fork, before) in [(false, &vec![0; range.len()][..]), (true, &old[range.clone()])] {
            let mut device = bench.device.clone();
            device.kill();
            device.corrupt(place.file, place.offset, before);
            let recovered = recover(&mut device).1;
            // The fork's block contradicts the one before it, and nobody knows which of them is right.
            let is_hit = |it: u64| it == at as u64 + 1 || is_fork && it == at as u64;
            let others: Vec<u64> = (1..=GROUPS).filter(|&it| !is_hit(it)).collect();
            assert_eq!(whole(&recovered), others, "block {at}");
            assert_eq!(recovered.torn_blocks, 0);
        }
    }
}

/// A disk of which some reads bring something else than what lies there.
struct Misleading {
    inner: MemoryDevice,
    /// Where, and what is brought instead.
    place: (FileId, u64, Vec<u8>),
    /// So many reads of it mislead.
    times: u32,
    /// One of them was of what the kernel remembers: it remembers that.
    is_remembered: bool,
    under_way: Vec<(Tag, u64)>,
}

fn misleading(inner: MemoryDevice, place: (FileId, u64, Vec<u8>), times: u32) -> Misleading {
    Misleading { inner, place, times, is_remembered: false, under_way: Vec::new() }
}

impl Device for Misleading {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, tag: Tag, operation: Operation) {
        if let Operation::Read { file, offset, buffer, from } = &operation {
            let (at, end) = (self.place.1, *offset + buffer.len() as u64);
            let is_of_it = *file == self.place.0 && *offset <= at && at < end;
            let is_cached = *from == ReadFrom::Cache;
            if is_of_it && is_cached && self.is_remembered {
                self.under_way.push((tag, *offset));
            } else if is_of_it && self.times > 0 {
                self.times -= 1;
                self.is_remembered |= is_cached;
                self.under_way.push((tag, *offset));
            }
        }
        self.inner.submit(tag, operation);
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let first = completions.len();
        self.inner.poll(completions);
        for completion in &mut completions[first..] {
            let misled = self.under_way.iter().position(|(tag, _)| *tag == completion.tag);
            let Some(misled) = misled else { continue };
            let (_, offset) = self.under_way.swap_remove(misled);
            let buffer = completion.buffer.as_mut().expect("a read gives its buffer back");
            let (_, at, bytes) = &self.place;
            buffer[(at - offset) as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// S11: a read at the start brings another block, an older one, or zeros. It is tried again, of the
/// disk itself and not of what the kernel remembers of the first try, and all is there; also what was written last, which would pass for a torn tail. What is so twice is rot.
#[test]
fn s11_a_misdirected_or_stale_read_is_no_rot() {
    let (bench, places) = a_block_for_each();
    let mut unsealed = Bench::new(settings());
    let newest = (1..=GROUPS).map(|group| unsealed.block(group, 1, LAST.0, 1)).last();
    let newest = block_at(&unsealed.device, newest.expect("there are groups"));
    let all: Vec<u64> = (1..=GROUPS).collect();
    for (at, place) in places.iter().enumerate() {
        let other = bytes_at(&bench.device, &places[(at + 2) % places.len()]);
        let mut torn = bytes_at(&bench.device, place);
        torn[300..].fill(0);
        for bytes in [other, vec![0; place.header.length as usize], torn] {
            for times in 1..=2 {
                let mut inner = bench.device.clone();
                inner.kill();
                let place = (place.file, place.offset, bytes.clone());
                let mut device = misleading(inner, place, times);
                let recovered = try_recover(settings(), &mut device).expect("recovered").1;
                assert_eq!(device.times, 0);
                assert_eq!(recovered.rot.is_empty(), times == 1, "block {at}");
                assert_eq!(whole(&recovered) == all, times == 1, "block {at}");
            }
        }
    }
    let mut torn = bytes_at(&unsealed.device, &newest);
    torn[300..].fill(0xA5);
    for times in 1..=2 {
        let mut inner = unsealed.device.clone();
        inner.kill();
        let place = (newest.file, newest.offset, torn.clone());
        let mut device = misleading(inner, place, times);
        let recovered = try_recover(settings(), &mut device).expect("recovered").1;
        assert_eq!(recovered.torn_blocks, u64::from(times == 2));
        assert_eq!(whole(&recovered).len() as u64, GROUPS - u64::from(times == 2));
    }
}

/// A log of one group that is in its third segment.
fn three_segments(settings: LogSettings, term: u64) -> Bench {
    let mut bench = Bench::new(settings);
    let mut index = 1;
    while bench.log.segments() < 3 {
        bench.block(1, index, index + 9, term);
        index += 10;
    }
    for _ in 0..4 {
        bench.block(1, index, index + 9, term);
        index += 10;
    }
    bench.settle();
    bench
}

/// S13: a segment that was written up to some point holds, behind that, sound blocks of a former life
/// of its file: of an older segment, there or a little apart, of another life of the node, or of a
/// log that began as this one. For every point nothing but what was written counts.
#[test]
fn s13_what_a_former_life_left_in_a_segment_is_ignored() {
    let bench = three_segments(settings(), 1);
    let device = &bench.device;
    let (file, now) = (segment(3), device.content(segment(3)));
    let older = device.content(segment(1));
    let mut apart = vec![0; 4096];
    apart.extend_from_slice(&older[..older.len() - 4096]);
    let other_life = LogSettings { incarnation: Incarnation(0x99), ..settings() };
    let foreign = three_segments(other_life, 2).device.content(file);
    let mut stale = 0;
    for cut in (4096..now.len()).step_by(512) {
        let recovered = |behind: Option<&[u8]>| {
            let mut bytes = now[..cut].to_vec();
            bytes.resize(now.len(), 0);
            if let Some(behind) = behind {
                bytes[cut..].copy_from_slice(&behind[cut..]);
            }
            let mut device = device.clone();
            device.kill();
            device.corrupt(file, 0, &bytes);
            let (mut log, recovered) = recover(&mut device);
            let group = recovered.groups[&GroupId(1)].clone();
            let records = read(&mut log, &mut device, 1, 1, group.last.0);
            assert!(records.is_ok(), "cut at {cut}");
            (group, records, recovered.unknown_damage, recovered.stale_blocks)
        };
        let (group, records, is_unknown, none) = recovered(None);
        assert_eq!(none, 0);
        for behind in [&older, &apart, &foreign] {
            let found = recovered(Some(behind));
            assert_eq!(found.0, group, "cut at {cut}");
            assert!(found.1 == records, "cut at {cut}");
            assert_eq!(found.2, is_unknown, "cut at {cut}");
            stale += found.3;
        }
    }
    assert!(stale > 100, "sound blocks of former lives were there");
}

/// A12: the header of a segment, of the oldest, one between and the newest, is cut at any length: the
/// file ends there, or zeros follow. The log is there, or what is missing is known, or the start is
/// refused and says which file it is.
#[test]
fn a12_a_segment_header_is_cut_at_any_length() {
    let bench = three_segments(settings(), 1);
    let last = bench.log.held(GroupId(1)).expect("held").1;
    let newest = bench.device.files().last().expect("there are files").0;
    let mut seen = [0u32; 3];
    for file in [segment(1), segment(2), segment(3), newest] {
        for length in 0..=4096u64 {
            for ends in [false, true] {
                let mut device = bench.device.clone();
                device.kill();
                if ends {
                    device.set_length(file, length);
                } else {
                    device.corrupt(file, length, &vec![0; 4096 - length as usize]);
                }
                match try_recover(settings(), &mut device) {
                    Ok((_, recovered)) => {
                        let group = &recovered.groups[&GroupId(1)];
                        let is_whole = group.last == last && group.damaged.is_none();
                        // What only the newest file knew went with it: it looks like one in the
                        // making. No file system does that by itself.
                        let is_gone = ends && file == segment(3);
                        let is_known = is_whole || group.damaged.is_some() || is_gone;
                        assert!(is_known, "{file:?} at {length}: {group:?}");
                        seen[usize::from(is_whole)] += 1;
                    }
                    Err(error) => {
                        let is_named = matches!(
                            &error,
                            WalError::Foreign { .. }
                                | WalError::Version { .. }
                                | WalError::Unreadable { .. }
                        );
                        assert!(is_named, "{file:?} at {length}: {error}");
                        seen[2] += 1;
                    }
                }
            }
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
