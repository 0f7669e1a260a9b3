//! Frames: writing an append of 1,000 records into an outbox, and taking it out of an inbox.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringraft_net::wire::{self, AppendHead};
use ringraft_net::{Identity, Inbox, Outbox};
use ringraft_types::GroupId;

const RECORDS: usize = 1_000;
const RECORD_BYTES: usize = 232;

fn frame(criterion: &mut Criterion) {
    let records = vec![7u8; RECORDS * RECORD_BYTES];
    let head = AppendHead { count: RECORDS as u32, ..AppendHead::default() };
    let sender = Identity::default();
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(records.len() as u64));
    let mut outbox = Outbox::new(16 << 20);
    let mut sent = Vec::new();
    group.bench_function("write_append", |bencher| {
        bencher.iter(|| {
            head.write(&mut outbox, GroupId(1), sender, [&records[..]]);
            let bytes = outbox.take_for_send().expect("a frame was just written");
            let count = bytes.len();
            if sent.is_empty() {
                sent.extend_from_slice(bytes);
            }
            outbox.sent(count);
        });
    });
    let mut inbox = Inbox::opened();
    group.bench_function("take_append", |bencher| {
        bencher.iter(|| {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let space = inbox.space();
                let count = space.len().min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                inbox.filled(count);
                rest = &rest[count..];
                if let Some(frame) = inbox.next_frame().expect("a sound frame") {
                    wire::append(&frame).expect("an append");
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, frame);
criterion_main!(benches);
