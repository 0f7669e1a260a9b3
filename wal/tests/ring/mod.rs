//! The device with a ring of its own, for tests on real file systems.
#![allow(unreachable_pub, missing_docs)]

use io_uring::IoUring;
use ringraft_wal::device::uring::UringDevice;
use ringraft_wal::device::{Completion, Device, Geometry, Operation};
use std::path::Path;

/// The device with a ring, as the reactor would drive it.
pub struct Ring {
    pub device: UringDevice,
    pub ring: IoUring,
    flying: usize,
}

impl Ring {
    pub fn new(directory: &Path) -> Self {
        let device = UringDevice::open(directory, false).expect("the disk has direct I/O");
        Self { device, ring: IoUring::new(8).expect("a ring"), flying: 0 }
    }

    fn drive(&mut self) {
        let mut submission = self.ring.submission();
        let room = submission.capacity() - submission.len();
        let given = self.device.drain(room, &mut |entry| {
            // SAFETY: the device keeps what the entry points to until its completion (I-08), and
            // the ring lives as long as the device.
            unsafe { submission.push(&entry).expect("there is room") };
        });
        drop(submission);
        self.flying += given;
        let wait = usize::from(self.flying > 0);
        self.ring.submit_and_wait(wait).expect("submitted");
        for completion in self.ring.completion() {
            self.flying -= 1;
            self.device.on_completion(completion.user_data(), completion.result());
        }
    }
}

impl Device for Ring {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn submit(&mut self, tag: ringraft_types::tag::Tag, operation: Operation) {
        self.device.submit(tag, operation);
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        self.drive();
        self.device.poll(completions);
    }
}
