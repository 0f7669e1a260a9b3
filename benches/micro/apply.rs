//! Applying a put of 128 bytes: envelope, session, machine, hash and stored reply.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringraft_shard::machine::{KvMachine, StateMachine};
use ringraft_shard::session::{Sessions, StoredReply, Verdict};
use ringraft_types::command::{Envelope, PutCommand};
use ringraft_types::{ClientId, Index, Status};

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply_put");
    group.throughput(Throughput::Elements(1));
    for keys in [1_000u64, 10_000, 100_000] {
        let (mut machine, mut sessions) = (KvMachine::new(), Sessions::new());
        let mut command = Vec::new();
        let mut reply = Vec::new();
        let mut number = 0u64;
        group.bench_function(BenchmarkId::new("keys", keys), |bencher| {
            bencher.iter(|| {
                number += 1;
                let (index, key) = (Index(number), number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let key = format!("{:016x}", key % keys);
                command.clear();
                let put = PutCommand { key: key.as_bytes(), value: &[7; 128], previous: false };
                put.encode(&mut command).expect("within limits");
                let envelope = Envelope {
                    client: ClientId(1),
                    sequence: number,
                    received: number - 1,
                    opened: Index::ZERO,
                };
                assert_eq!(sessions.admit(index, &envelope), Verdict::Apply);
                reply.clear();
                let applied = machine.apply(index, &command, &mut reply).expect("a put");
                assert_eq!(applied.status, Status::Ok);
                let stored = StoredReply {
                    revision: applied.revision,
                    index,
                    status: applied.status,
                    body: Box::default(),
                };
                sessions.record(envelope.client, number, stored);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
