//! The ring under every interleaving and every ordering that the memory model allows.
//! `RUSTFLAGS="--cfg loom" cargo test --release -p ringraft-shard --test loom_ring`
#![cfg(loom)]

use loom::thread;
use ringraft_shard::ring::ring;

/// Values pass in order and whole while the ring wraps and fills; a refused value comes back.
#[test]
fn order_is_kept_across_the_wrap() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring::<Box<usize>>(2);
        let writer = thread::spawn(move || {
            for next in 0..3 {
                let mut value = Box::new(next);
                while let Err(back) = producer.push(value) {
                    value = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..3 {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*value, expected);
        }
        assert!(consumer.pop().is_none());
        writer.join().expect("the writer doesn't panic");
    });
}

/// A batch takes what was published and nothing else, and gives its slots back together.
#[test]
fn a_batch_sees_whole_values() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring::<[usize; 2]>(2);
        let writer = thread::spawn(move || {
            let mut refused = 0;
            for next in 0..3 {
                refused += usize::from(producer.push([next, next]).is_err());
            }
            refused
        });
        let mut taken = Vec::new();
        for _ in 0..2 {
            consumer.drain(2, |value| taken.push(value));
        }
        let refused = writer.join().expect("the writer doesn't panic");
        consumer.drain(2, |value| taken.push(value));
        assert_eq!(taken.len() + refused, 3, "each value is taken or refused");
        assert!(taken.iter().all(|[one, other]| one == other));
        assert!(taken.windows(2).all(|pair| pair[0][0] < pair[1][0]));
    });
}

/// Whichever end goes first, and whenever: what is left is dropped once (loom's `Arc` counts).
#[test]
fn ends_go_in_any_order() {
    loom::model(|| {
        let counted = loom::sync::Arc::new(());
        let (mut producer, mut consumer) = ring(2);
        let writer = {
            let counted = counted.clone();
            thread::spawn(move || {
                assert!(producer.push(counted.clone()).is_ok());
                assert!(producer.push(counted).is_ok());
            })
        };
        drop(consumer.pop());
        drop(consumer);
        writer.join().expect("the writer doesn't panic");
        assert_eq!(loom::sync::Arc::strong_count(&counted), 1);
    });
}
