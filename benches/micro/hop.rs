//! A hop over the ring between two cores: the ring's own cost, without a sleeper to wake.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringraft_shard::ring::ring;

const BATCH: u64 = 64;

fn hop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring_hop");
    group.throughput(Throughput::Elements(BATCH));
    let (mut producer, mut consumer) = ring::<u64>(1_024);
    group.bench_function("push_and_drain_64", |bencher| {
        bencher.iter(|| {
            for value in 0..BATCH {
                producer.push(black_box(value)).expect("there is room");
            }
            consumer.drain(usize::MAX, |value| {
                black_box(value);
            })
        });
    });
    group.finish();
}

criterion_group!(benches, hop);
criterion_main!(benches);
