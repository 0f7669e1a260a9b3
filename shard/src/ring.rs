//! A bounded ring from one thread to one other: the way between two cores.
//!
//! The two ends can be sent to a thread but neither cloned nor shared, so there is one writer and
//! one reader by construction (I-08). Bounded: a full ring gives the value back (I-09).
//! Nothing here waits, allocates after [`ring`], or makes a system call.
//!
//! ```text
//!            head (reader's)      tail (writer's)
//!              v                    v
//! slots  . . . # # # # # # # # # # . . .      positions count up for ever, slot = position & mask
//! ```
//! `head <= tail <= head + slots` in wrapping arithmetic. Each side keeps its own position in plain
//! memory, publishes it with a Release store, and caches the other's, so that the line of the other
//! side is touched only when the cached position says "full" or "empty".
//!
//! An end can't be shared between threads, nor cloned:
//! ```compile_fail,E0277
//! fn shared<T: Sync>(_: T) {}
//! shared(ringraft_shard::ring::ring::<u8>(1).0);
//! ```
//! ```compile_fail,E0277
//! fn shared<T: Sync>(_: T) {}
//! shared(ringraft_shard::ring::ring::<u8>(1).1);
//! ```
//! ```compile_fail,E0599
//! ringraft_shard::ring::ring::<u8>(1).0.clone();
//! ```
//! but it can be sent to one:
//! ```
//! fn sent<T: Send>(_: T) {}
//! sent(ringraft_shard::ring::ring::<u8>(1));
//! ```
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use sync::{Arc, AtomicUsize, Ordering, UnsafeCell};

/// Atomics and cells: the standard ones, or loom's under `--cfg loom`.
pub(crate) mod sync {
    #[cfg(loom)]
    pub(crate) use loom::{
        cell::UnsafeCell,
        sync::Arc,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    };
    #[cfg(not(loom))]
    pub(crate) use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    };

    /// The standard cell in the dress of loom's.
    #[cfg(not(loom))]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    #[cfg(not(loom))]
    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// Alone on its cache lines: two of 64 bytes, because the prefetcher fetches them in pairs.
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

struct Shared<T> {
    /// Written by the producer only.
    tail: Padded<AtomicUsize>,
    /// Written by the consumer only.
    head: Padded<AtomicUsize>,
    /// A power of two; those in `head..tail` are initialised.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by the producer while it is outside `head..tail` and by the consumer
// while it is inside; the Release stores of `tail` and `head` hand it over (I-08). Values cross
// threads, hence `T: Send`; no reference to a `T` is ever shared, hence not `T: Sync`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the last end to go drops the values left in the ring, on its own thread.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends are gone, and `Arc` ordered their stores before this: Relaxed is enough.
        let tail = self.tail.0.load(Ordering::Relaxed);
        let mut position = self.head.0.load(Ordering::Relaxed);
        while position != tail {
            // SAFETY: slots in `head..tail` are initialised and nobody else is left; each position
            // is visited once.
            self.slot(position).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            position = position.wrapping_add(1);
        }
    }
}

/// The writing end. One per ring: it can't be cloned, and not be shared between threads.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Our position; `shared.tail` always equals it between calls.
    tail: usize,
    /// The reader's position as last seen: never ahead of the real one.
    head_seen: usize,
    not_sync: PhantomData<Cell<()>>,
}

/// The reading end. One per ring: it can't be cloned, and not be shared between threads.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// Our position; `shared.head` may lag behind it inside [`Consumer::drain`].
    head: usize,
    /// The writer's position as last seen: never ahead of the real one.
    tail_seen: usize,
    not_sync: PhantomData<Cell<()>>,
}

/// Makes a ring with at least this many slots (rounded up to a power of two).
///
/// # Panics
/// If `slots_min` is zero.
pub fn ring<T: Send>(slots_min: usize) -> (Producer<T>, Consumer<T>) {
    assert!(slots_min > 0, "a ring without slots would refuse everything");
    let slots = slots_min.next_power_of_two();
    let shared = Arc::new(Shared {
        tail: Padded(AtomicUsize::new(0)),
        head: Padded(AtomicUsize::new(0)),
        slots: (0..slots).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    (
        Producer { shared: shared.clone(), tail: 0, head_seen: 0, not_sync: PhantomData },
        Consumer { shared, head: 0, tail_seen: 0, not_sync: PhantomData },
    )
}

impl<T> Producer<T> {
    /// How many values the ring holds at most.
    #[inline]
    pub fn slots(&self) -> usize {
        self.shared.slots.len()
    }

    /// How many values fit now. It can only grow behind our back.
    #[inline]
    pub fn free(&mut self) -> usize {
        // Acquire pairs with the Release store of `head` in `Consumer::publish`: the reader is
        // done with the slots before it, so we may overwrite them.
        self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        self.free_seen()
    }

    /// Free slots as far as we know without looking.
    #[inline]
    fn free_seen(&self) -> usize {
        let used = self.tail.wrapping_sub(self.head_seen);
        assert!(used <= self.slots());
        self.slots() - used
    }

    /// Appends a value.
    ///
    /// # Errors
    /// Gives the value back if the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.push_leaving(0, value)
    }

    /// Appends a value if at least `spare` slots stay free behind it. Whoever holds a reservation
    /// of one of those pushes with a smaller `spare`, and so always finds room.
    ///
    /// # Errors
    /// Gives the value back if fewer slots would stay free.
    #[inline]
    pub fn push_leaving(&mut self, spare: usize, value: T) -> Result<(), T> {
        if self.free_seen() <= spare && self.free() <= spare {
            return Err(value);
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: the slot is outside `head..tail` (there is a free one, and the Acquire load
            // of `head` saw the reader leave it), and there is one producer (I-08).
            unsafe { (*slot).write(value) };
        });
        self.tail = self.tail.wrapping_add(1);
        // Release pairs with the Acquire load of `tail` in `Consumer::available`: who sees the
        // position sees the value.
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    /// How many values wait. It can only grow behind our back.
    #[inline]
    pub fn available(&mut self) -> usize {
        // Acquire pairs with the Release store of `tail` in `Producer::push_leaving`.
        self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
        let waiting = self.tail_seen.wrapping_sub(self.head);
        assert!(waiting <= self.shared.slots.len());
        waiting
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        self.available() == 0
    }

    /// Takes the oldest value.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen && self.available() == 0 {
            return None;
        }
        let value = self.take();
        self.publish();
        Some(value)
    }

    /// Takes at most `max` of the oldest values, as one batch, and says how many. The slots are
    /// given back to the writer together, at the end.
    #[inline]
    pub fn drain(&mut self, max: usize, mut f: impl FnMut(T)) -> usize {
        let count = self.available().min(max);
        for _ in 0..count {
            let value = self.take();
            f(value);
        }
        if count > 0 {
            self.publish();
        }
        count
    }

    /// Moves the value out of the slot at `head`, which must be before `tail_seen`.
    #[inline]
    fn take(&mut self) -> T {
        assert!(self.head != self.tail_seen);
        // SAFETY: the slot is inside `head..tail`: initialised, and the Acquire load of `tail` saw
        // the write. Each position is taken once, because `head` moves on at once and even a panic
        // in `drain`'s closure publishes it (see `Drop`).
        let value = self.shared.slot(self.head).with(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        value
    }

    /// Gives the slots before `head` back to the writer.
    #[inline]
    fn publish(&mut self) {
        // Release pairs with the Acquire load of `head` in `Producer::free`: our reads of the
        // slots are over before the writer may overwrite them.
        self.shared.head.0.store(self.head, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // A panic inside `drain` leaves `shared.head` behind; without this, `Shared` would drop
        // the values taken a second time.
        self.publish();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize as Count;

    /// Values come out in the order in which they went in, across the wrap, and full means full.
    #[test]
    fn first_in_first_out_and_bounded() {
        let (mut producer, mut consumer) = ring(3);
        assert_eq!(producer.slots(), 4, "rounded up to a power of two");
        for round in 0..10 {
            for value in 0..4 {
                assert_eq!(producer.push(round * 4 + value), Ok(()));
            }
            assert_eq!(producer.push(99), Err(99));
            assert_eq!(producer.free(), 0);
            assert_eq!(consumer.pop(), Some(round * 4));
            let mut rest = Vec::new();
            assert_eq!(consumer.drain(2, |value| rest.push(value)), 2);
            assert_eq!(consumer.drain(9, |value| rest.push(value)), 1);
            assert_eq!(rest, [round * 4 + 1, round * 4 + 2, round * 4 + 3]);
            assert_eq!(consumer.pop(), None);
            assert!(consumer.is_empty());
        }
    }

    /// A reserved slot is refused to those without a reservation and given to those with one.
    #[test]
    fn spare_slots_stay_free() {
        let (mut producer, mut consumer) = ring(4);
        assert_eq!(producer.push_leaving(2, 1), Ok(()));
        assert_eq!(producer.push_leaving(2, 2), Ok(()));
        assert_eq!(producer.push_leaving(2, 3), Err(3));
        assert_eq!(producer.push_leaving(0, 3), Ok(()));
        assert_eq!(consumer.pop(), Some(1));
        assert_eq!(producer.push_leaving(2, 4), Err(4));
        assert_eq!(consumer.drain(9, drop), 2);
        assert_eq!(producer.push_leaving(2, 4), Ok(()));
    }

    struct Counted<'a>(&'a Count);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every value is dropped once: taken, left behind, or taken by a closure that panicked.
    #[test]
    fn each_value_is_dropped_once() {
        let drops = Count::new(0);
        let (mut producer, mut consumer) = ring(8);
        for _ in 0..8 {
            assert!(producer.push(Counted(&drops)).is_ok());
        }
        drop(consumer.pop());
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            consumer.drain(4, |_value| panic!("on purpose"));
        }));
        assert!(panicked.is_err());
        assert_eq!(drops.load(Ordering::Relaxed), 2);
        drop(consumer);
        drop(producer);
        assert_eq!(drops.load(Ordering::Relaxed), 8);
    }

    /// Millions of values through a small ring between two threads: none lost, doubled or torn.
    #[test]
    fn stress_two_threads() {
        const VALUES: u64 = 4_000_000;
        let (mut producer, mut consumer) = ring::<[u64; 3]>(64);
        let writer = std::thread::spawn(move || {
            let mut next = 0;
            while next < VALUES {
                match producer.push([next, !next, next.wrapping_mul(0x9e37_79b9_7f4a_7c15)]) {
                    Ok(()) => next += 1,
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        let mut expected = 0;
        while expected < VALUES {
            let max = 1 + (expected % 61) as usize;
            let taken = consumer.drain(max, |value| {
                let product = expected.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                assert_eq!(value, [expected, !expected, product]);
                expected += 1;
            });
            if taken == 0 {
                std::thread::yield_now();
            }
        }
        writer.join().expect("the writer doesn't panic");
        assert_eq!(consumer.pop(), None);
    }
}
