//! Timeouts for HTTP connections: one list, looked at by the lane's own tick. A timeout costs no
//! task, so a flood of connections can't leave any behind, and it fires up to one tick late.

use hyper::rt::Sleep;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The list. Clones share it. hyper demands `Send` of timers; the lane has one thread, so the lock
/// is never waited for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadlines(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next_id: u64,
    wakers: BTreeMap<(Instant, u64), Waker>,
}

impl Deadlines {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waited until now, or before.
    pub(crate) fn tick(&self, now: Instant) {
        loop {
            let mut waiting = self.lock();
            let Some(first) = waiting.wakers.first_entry() else { return };
            if first.key().0 > now {
                return;
            }
            let waker = first.remove();
            // The woken one may come back here.
            drop(waiting);
            waker.wake();
        }
    }

    /// Ready at, or within a tick of, this instant.
    pub(crate) fn until(&self, deadline: Instant) -> Deadline {
        let id = {
            let mut waiting = self.lock();
            waiting.next_id += 1;
            waiting.next_id
        };
        Deadline { list: self.clone(), at: (deadline, id) }
    }

    /// The future's value, or `None` if it takes longer.
    pub(crate) async fn within<F: Future>(&self, time: Duration, future: F) -> Option<F::Output> {
        let mut deadline = std::pin::pin!(self.until(Instant::now() + time));
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            deadline.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}

impl hyper::rt::Timer for Deadlines {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.until(deadline))
    }
}

/// One wait. Leaves the list when it is dropped.
#[derive(Debug)]
pub(crate) struct Deadline {
    list: Deadlines,
    at: (Instant, u64),
}

impl Sleep for Deadline {}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.at.0 <= Instant::now() {
            return Poll::Ready(());
        }
        let mut waiting = self.list.lock();
        waiting
            .wakers
            .entry(self.at)
            .and_modify(|waker| waker.clone_from(context.waker()))
            .or_insert_with(|| context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.list.lock().wakers.remove(&self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a wait fires at its time, not before, and a dropped one leaves nothing behind.
    #[test]
    fn waits_fire_and_leave_nothing() {
        let list = Deadlines::default();
        let start = Instant::now();
        let mut late = Box::pin(list.until(start + Duration::from_secs(3600)));
        let mut soon = Box::pin(list.until(start + Duration::from_millis(1)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(late.as_mut().poll(&mut context).is_pending());
        while soon.as_mut().poll(&mut context).is_pending() {
            list.tick(Instant::now());
        }
        assert!(late.as_mut().poll(&mut context).is_pending());
        drop(soon);
        assert_eq!(list.lock().wakers.len(), 1);
        drop(late);
        assert!(list.lock().wakers.is_empty());
    }
}
