//! The bytes of format version 1, kept for ever: this program writes them, and reads them.

mod disk;

use disk::*;
use ringraft_types::record::RecordKind;
use ringraft_types::{GroupId, Index, Term};
use ringraft_wal::device::memory::MemoryDevice;
use std::path::PathBuf;

/// The reference log, as small as it can be with something of everything in it.
fn reference() -> MemoryDevice {
    let mut bench = Bench::new(settings());
    bench.append(&record(RecordKind::Home, 0, 1, 0, b""));
    bench.append(&hard(1, 2, 1, 0));
    bench.append_run(1, 1, 3, 2, 24);
    bench.flush();
    bench.append(&record(RecordKind::Truncate, 1, 3, 0, b""));
    let carried = record(RecordKind::Carried, 1, 1, 2, &entry(1, 1, 2, 24));
    bench.append(&carried);
    bench.append(&record(RecordKind::NewTerm, 2, 1, 5, b""));
    bench.flush();
    bench.settle();
    bench.device
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/log-v1.seg")
}

/// What this program writes is the golden file, byte for byte. The file holds the segment without
/// the zeros behind its last block.
#[test]
fn the_golden_log_is_written() {
    let device = reference();
    let mut bytes = device.content(segment(1));
    let used = bytes.iter().rposition(|&byte| byte != 0).expect("not empty") + 1;
    bytes.truncate(used.next_multiple_of(4096));
    if !path().exists() {
        std::fs::create_dir_all(path().parent().expect("a parent")).expect("created");
        std::fs::write(path(), &bytes).expect("written");
        panic!("the golden file was missing; look at what was written and commit it");
    }
    let golden = std::fs::read(path()).expect("the golden file is there");
    assert_eq!(golden.len(), bytes.len());
    let differs = golden.iter().zip(&bytes).position(|(golden, ours)| golden != ours);
    assert_eq!(differs, None, "format version 1 never changes");
}

/// The golden file is read as what it is.
#[test]
fn the_golden_log_is_read() {
    let golden = std::fs::read(path()).expect("the golden file is there");
    let mut device = MemoryDevice::new(4096);
    device.set_length(segment(1), 64 << 10);
    device.corrupt(segment(1), 0, &golden);
    let (_, recovered) = recover(&mut device);
    assert!(recovered.rot.is_empty() && recovered.torn_blocks == 0, "{recovered:?}");
    let first = &recovered.groups[&GroupId(1)];
    assert_eq!((first.first, first.last), (Index(1), Index(2)));
    assert_eq!(first.hard, Some((Term(2), 1, Index(0))));
    assert_eq!(first.runs, [(Index(1), Term(2))]);
    assert_eq!(recovered.groups[&GroupId(2)].runs, [(Index(1), Term(5))]);
    assert_eq!(recovered.node_records, [record(RecordKind::Home, 0, 1, 0, b"")]);
}
