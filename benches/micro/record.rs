//! Encoding and decoding a record: the one encoding of an entry, and the check that every node
//! makes of it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{GroupId, Index, Term};

const PAYLOAD_BYTES: [usize; 3] = [128, 4 << 10, 64 << 10];

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record_encode");
    for bytes in PAYLOAD_BYTES {
        let payload = vec![7; bytes];
        let mut out = Vec::with_capacity(record::encoded_bytes(bytes));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| {
                out.clear();
                let parts = [black_box(&payload[..40]), &payload[40..]];
                record::encode(&mut out, RecordKind::Command, GroupId(1), Index(2), Term(3), parts);
                black_box(&out);
            });
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record_decode");
    for bytes in PAYLOAD_BYTES {
        let payload = vec![7; bytes];
        let mut out = Vec::new();
        let parts = [&payload[..], &[]];
        record::encode(&mut out, RecordKind::Command, GroupId(1), Index(2), Term(3), parts);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| record::decode(black_box(&out)).expect("just encoded"));
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
