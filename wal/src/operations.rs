//! Numbering operations on their way through the device, so that a completion finds its purpose.

use crate::device::{Completion, Device, Operation};
use ringraft_types::tag::{Owner, Tag};

/// Operations in flight, each with its purpose. Every one completes exactly once (V15).
#[derive(Debug)]
pub(crate) struct Operations<P> {
    next: u64,
    waiting: Vec<(u64, P)>,
    completions: Vec<Completion>,
}

impl<P> Operations<P> {
    pub(crate) fn new(next: u64) -> Self {
        Self { next, waiting: Vec::new(), completions: Vec::new() }
    }

    pub(crate) fn submit<D: Device>(&mut self, device: &mut D, purpose: P, operation: Operation) {
        let number = self.next;
        self.next = (self.next + 1) & Tag::NUMBER_MAX;
        self.waiting.push((number, purpose));
        device.submit(Tag::new(Owner::Device, number), operation);
    }

    /// What completed since the last call, in the order in which it came.
    pub(crate) fn poll<D: Device>(&mut self, device: &mut D) -> Vec<(P, Completion)> {
        device.poll(&mut self.completions);
        if self.completions.is_empty() {
            return Vec::new();
        }
        let waiting = &mut self.waiting;
        self.completions
            .drain(..)
            .map(|completion| {
                let number = completion.tag.number();
                let at = waiting.iter().position(|(waiting, _)| *waiting == number);
                let at = at.expect("a device completes what was submitted, and once (V15)");
                (waiting.swap_remove(at).1, completion)
            })
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}
