//! Packing a run of 1,000 encoded records into blocks, and handing them to a disk in memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{ClusterId, GroupId, Incarnation, Index, NodeId, Term, Ticks};
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::{Log, LogSettings, Recovery};

const ENTRIES: u64 = 1_000;

fn open(device: &mut MemoryDevice) -> Log {
    let mut settings = LogSettings::new(ClusterId(1), NodeId(1), Incarnation(1), 1);
    settings.segment_bytes = 1 << 30;
    Recovery::run(settings, device).expect("an empty disk can be recovered").0
}

fn pack(criterion: &mut Criterion) {
    let mut run = Vec::new();
    for index in 1..=ENTRIES {
        let payload = [&[7u8; 192][..], b""];
        let (group, index) = (GroupId(1), Index(index));
        record::encode(&mut run, RecordKind::Command, group, index, Term(1), payload);
    }
    let mut group = criterion.benchmark_group("wal_pack");
    group.throughput(Throughput::Elements(ENTRIES));
    let mut device = MemoryDevice::new(4096);
    let mut log = open(&mut device);
    let mut now = Ticks(1);
    group.bench_function("append_run_1000", |bencher| {
        bencher.iter(|| {
            // The same indexes again and again: what counts is the copy and the directory.
            log.append_run(GroupId(1), Index(1), Index(ENTRIES), Term(1), &run)
                .expect("the log is emptied by each turn");
            while log.pending_bytes() > 0 {
                now = now.after(Ticks(1));
                log.turn(now, &mut device).expect("memory doesn't fail");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, pack);
criterion_main!(benches);
