//! Before a lane runs: its log is read back, and a log that is new is begun, on the lane's ring.

use super::{LaneError, busy_is_fine};
use crate::clock;
use crate::control::LogEvent;
use crate::parcel::Parcel;
use crate::wires::Wires;
use io_uring::IoUring;
use ringraft_shard::machine::StateMachine;
use ringraft_shard::{LoadStep, Loaded, Loading, Shard, ShardError, ShardEvent};
use ringraft_types::GroupId;
use ringraft_wal::device::uring::UringDevice;
use ringraft_wal::{Log, LogSettings, Recovered, Recovery, RecoveryStep, WalError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The pause of a shard whose first records find no room yet.
const BEGIN_PAUSE: Duration = Duration::from_millis(1);

/// Why a log could not be recovered.
#[derive(Debug)]
pub enum RecoverError {
    /// What is on the disk.
    Log(WalError),
    /// The ring.
    Ring(std::io::Error),
}

/// Runs a recovery to its end, on the ring that the lane will use.
///
/// # Errors
/// If the log can't be recovered, or the ring fails.
pub fn recover(
    ring: &mut IoUring,
    device: &mut UringDevice,
    settings: LogSettings,
) -> Result<(Log, Recovered), RecoverError> {
    let mut recovery = Recovery::new(settings);
    loop {
        match recovery.turn(clock::now(), device) {
            RecoveryStep::Working => {}
            RecoveryStep::Done(done) => return Ok(*done),
            RecoveryStep::Failed(error) => return Err(RecoverError::Log(error)),
        }
        move_on(ring, device).map_err(RecoverError::Ring)?;
    }
}

/// Loads the snapshots of a log that was recovered, on the ring that the lane will use. `machine`
/// makes the empty machine of a group.
///
/// # Errors
/// If the log or the ring fails.
pub fn load(
    ring: &mut IoUring,
    device: &mut UringDevice,
    mut loading: Box<Loading>,
    mut machine: impl FnMut(GroupId) -> Box<dyn StateMachine>,
) -> Result<Loaded, LaneError> {
    loop {
        let step = loading.turn(clock::now(), device, &mut machine);
        match step.map_err(ShardError::from)? {
            LoadStep::Working(rest) => loading = rest,
            // What is in flight now, a segment in the making, completes in the lane.
            LoadStep::Done(loaded) => return Ok(*loaded),
        }
        if let Some(pause) = loading.pause() {
            // Nothing is served here yet, and the machine works elsewhere.
            std::thread::sleep(Duration::from_micros(pause.0));
        }
        move_on(ring, device).map_err(LaneError::Ring)?;
    }
}

/// Writes a shard's first records, before it has a lane. Returns whether they are durable: not if
/// the node is told to stop meanwhile.
///
/// # Errors
/// If the log or the ring fails.
pub fn begin(
    ring: &mut IoUring,
    shard: &mut Shard<UringDevice, Wires>,
    stop: &AtomicBool,
) -> Result<bool, LaneError> {
    let mut is_full = false;
    loop {
        if shard.write_out(clock::now())? {
            // What is in flight now, a segment in the making, completes in the lane.
            return Ok(true);
        }
        if stop.load(Ordering::Acquire) {
            return Ok(false);
        }
        if shard.log().space_exhausted() && !std::mem::replace(&mut is_full, true) {
            let event = LogEvent::Shard(shard.settings().shard, ShardEvent::DiskFull(true));
            let control = usize::from(shard.settings().shards);
            // If there is no room for it, the lane says it again.
            let _ = shard.links.mesh.send(control, Parcel::Log(event, 0));
        }
        if !move_on(ring, &mut shard.device).map_err(LaneError::Ring)? {
            // A full disk is tried again after a while.
            std::thread::sleep(BEGIN_PAUSE);
        }
    }
}

/// Hands the device's operations to the ring, waits for one of those in flight, and takes what
/// completed. Returns whether there was anything.
fn move_on(ring: &mut IoUring, device: &mut UringDevice) -> std::io::Result<bool> {
    let mut queue = ring.submission();
    let room = queue.capacity() - queue.len();
    device.drain(room, &mut |entry| {
        // SAFETY: the device keeps the operation's buffer until its completion (I-08).
        unsafe { queue.push(&entry) }.expect("there is room for as many");
    });
    drop(queue);
    // Some may have been begun before, as the removal of a file that takes its time.
    let is_any = device.in_flight() > 0;
    ring.submit_and_wait(usize::from(is_any)).map(drop).or_else(busy_is_fine)?;
    for completion in ring.completion() {
        device.on_completion(completion.user_data(), completion.result());
    }
    Ok(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::ring;
    use ringraft_types::tag::{Owner, Tag};
    use ringraft_types::{ClusterId, Incarnation, NodeId};
    use ringraft_wal::buffer::Buffer;
    use ringraft_wal::device::{Device, Durability, FileId, Operation};

    /// Goal: what a step of a start leaves in flight, as a file that is given back slowly, completes in
    /// the next one.
    #[test]
    fn what_is_in_flight_completes_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut device = UringDevice::open(directory.path(), true).expect("a device");
        let mut ring = ring::ring(8).expect("a ring");
        let (file, tag) = (FileId::snapshot(9, 1), Tag::new(Owner::Device, 1));
        let buffer = Buffer::zeroed(4 << 20, device.geometry().align);
        let (offset, durability) = (0, Durability::None);
        let write = Operation::Write { file, offset, buffer, durability };
        for operation in [Operation::Create(file), write, Operation::Remove(file)] {
            device.submit(tag, operation);
            let mut completions = Vec::new();
            while completions.is_empty() {
                move_on(&mut ring, &mut device).expect("the ring goes on");
                device.poll(&mut completions);
            }
            assert!(completions[0].result >= 0, "{completions:?}");
        }
        assert!(device.in_flight() > 0, "it is given back in steps");
        let settings = LogSettings::new(ClusterId(1), NodeId(1), Incarnation(1), 0);
        let (_, recovered) = recover(&mut ring, &mut device, settings).expect("a new log");
        assert!(recovered.is_empty);
        while move_on(&mut ring, &mut device).expect("the ring goes on") {}
        assert_eq!(device.in_flight(), 0);
    }
}
