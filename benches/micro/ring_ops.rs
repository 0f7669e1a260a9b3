//! Ways to ask io_uring for the same thing, in turns within one run: what the reactor's choice of
//! operations rests on (docs/decisions/0008-plain-operations.md).
//!
//! ```text
//! stream    8 loopback connections; each round sends on all and receives on all
//! disk      one durable write at a time into pre-zeroed space, direct
//! doorbell  two parked threads ring each other in turns
//! ```
//! Medians of interleaved rounds, microseconds; with the process's processor time per operation,
//! which is what counts on a machine whose cores are full.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

const CONNECTIONS: usize = 8;
const ROUNDS: usize = 7;
const STREAM_ROUNDS: usize = 2_000;
const DISK_WRITES: usize = 1_000;
const RINGS: usize = 10_000;
/// Bytes of one receive buffer.
const INBOX_BYTES: usize = 64 << 10;
const GROUP_BUFFERS: u16 = 16;

fn ring() -> IoUring {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(1024)
        .build(256)
        .expect("io_uring is there, as for the product")
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Submits and waits for so many completions; gives each to `take`.
fn wait(ring: &mut IoUring, count: usize, mut take: impl FnMut(cqueue::Entry)) {
    let mut seen = 0;
    while seen < count {
        ring.submit_and_wait(count - seen).expect("the ring works");
        for completion in ring.completion() {
            assert!(completion.result() >= 0, "an operation failed: {}", completion.result());
            seen += 1;
            take(completion);
        }
    }
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: every buffer of this file outlives the wait for its operation's completion, which
    // each caller does before it returns (I-08).
    unsafe { ring.submission().push(entry) }.expect("far fewer operations than entries");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Plain,
    FixedFiles,
    Multishot,
}

/// A group of buffers that the kernel picks from.
struct BufferGroup {
    entries: Box<[Aligned]>,
    memory: Vec<u8>,
    tail: u16,
}

#[repr(align(4096))]
#[derive(Clone)]
struct Aligned {
    _bytes: [u8; 4096],
}

impl BufferGroup {
    fn new(ring: &IoUring) -> Self {
        let mut group = Self {
            entries: vec![Aligned { _bytes: [0; 4096] }].into_boxed_slice(),
            memory: vec![0; INBOX_BYTES * usize::from(GROUP_BUFFERS)],
            tail: 0,
        };
        let at = group.entries.as_mut_ptr() as u64;
        // SAFETY: a page of its own, which lives as long as the group; the ring goes before it.
        unsafe { ring.submitter().register_buf_ring_with_flags(at, GROUP_BUFFERS, 0, 0) }
            .expect("buffer rings exist since Linux 5.19");
        for id in 0..GROUP_BUFFERS {
            group.give(id);
        }
        group
    }

    fn buffer(&mut self, id: u16) -> &mut [u8] {
        let start = usize::from(id) * INBOX_BYTES;
        &mut self.memory[start..start + INBOX_BYTES]
    }

    fn give(&mut self, id: u16) {
        let at = self.buffer(id).as_mut_ptr() as u64;
        let base = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is within the page's entries, and the kernel looks at an entry only
        // once the tail, stored with release after it, says so.
        unsafe {
            let entry = &mut *base.add(usize::from(self.tail % GROUP_BUFFERS));
            entry.set_addr(at);
            entry.set_len(INBOX_BYTES as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(base).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Time and processor time of a message sent and received, microseconds.
fn stream(how: Stream, bytes: usize) -> (f64, f64) {
    let mut ring = ring();
    let mut group = BufferGroup::new(&ring);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    let pairs: Vec<(TcpStream, TcpStream)> = (0..CONNECTIONS)
        .map(|_| {
            let near = TcpStream::connect(address).expect("loopback");
            near.set_nodelay(true).expect("a socket");
            (near, listener.accept().expect("loopback").0)
        })
        .collect();
    let files: Vec<RawFd> =
        pairs.iter().flat_map(|(near, far)| [near.as_raw_fd(), far.as_raw_fd()]).collect();
    ring.submitter().register_files(&files).expect("a small table");
    let message = vec![7u8; bytes];
    let mut inboxes = vec![vec![0u8; INBOX_BYTES]; CONNECTIONS];
    let mut armed = [false; CONNECTIONS];
    let mut round = |ring: &mut IoUring| {
        for (number, pair) in pairs.iter().enumerate() {
            let (at, length) = (message.as_ptr(), bytes as u32);
            let entry = if how == Stream::FixedFiles {
                opcode::Send::new(Fixed(number as u32 * 2), at, length).build()
            } else {
                opcode::Send::new(Fd(pair.0.as_raw_fd()), at, length).build()
            };
            push(ring, &entry.user_data(u64::MAX));
        }
        // A multishot receive may complete before the sends do: both are counted in one loop.
        let mut missing = 2 * CONNECTIONS;
        let mut got = [0; CONNECTIONS];
        while missing > 0 {
            for (number, pair) in pairs.iter().enumerate().filter(|&(at, _)| got[at] < bytes) {
                if armed[number] {
                    continue;
                }
                armed[number] = true;
                let at = inboxes[number].as_mut_ptr();
                let entry = match how {
                    Stream::Plain => {
                        opcode::Recv::new(Fd(pair.1.as_raw_fd()), at, INBOX_BYTES as u32).build()
                    }
                    Stream::FixedFiles => {
                        let file = Fixed(number as u32 * 2 + 1);
                        opcode::Recv::new(file, at, INBOX_BYTES as u32).build()
                    }
                    Stream::Multishot => opcode::RecvMulti::new(Fd(pair.1.as_raw_fd()), 0).build(),
                };
                push(ring, &entry.user_data(number as u64));
            }
            wait(ring, 1, |completion| {
                let count = completion.result() as usize;
                if completion.user_data() == u64::MAX {
                    assert_eq!(count, bytes, "a loopback socket takes a small message whole");
                    missing -= 1;
                    return;
                }
                let number = completion.user_data() as usize;
                armed[number] = cqueue::more(completion.flags());
                if let Some(id) = cqueue::buffer_select(completion.flags()) {
                    // Frames straddle buffers: what the kernel picked goes into the inbox.
                    inboxes[number][..count].copy_from_slice(&group.buffer(id)[..count]);
                    group.give(id);
                }
                got[number] += count;
                missing -= usize::from(got[number] == bytes);
            });
        }
        black_box(&inboxes);
    };
    for _ in 0..STREAM_ROUNDS / 10 {
        round(&mut ring);
    }
    let (start, used) = (Instant::now(), processor_time());
    for _ in 0..STREAM_ROUNDS {
        round(&mut ring);
    }
    let per = 1e6 / (STREAM_ROUNDS * CONNECTIONS) as f64;
    let result =
        (start.elapsed().as_secs_f64() * per, (processor_time() - used).as_secs_f64() * per);
    drop(ring);
    result
}

/// Time and processor time of one durable write, microseconds.
fn disk(registered: bool, bytes: usize) -> (f64, f64) {
    const SPACE: usize = 16 << 20;
    let path = std::env::temp_dir().join(format!("ringraft-ring-ops-{}", std::process::id()));
    let path = std::env::var_os("RING_OPS_FILE").map_or(path, Into::into);
    std::fs::write(&path, vec![0; SPACE]).expect("a folder with room");
    let file: File = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .expect("direct I/O; name a file on a real disk with RING_OPS_FILE");
    file.sync_all().expect("it was just written");
    let mut ring = ring();
    let mut space = vec![Aligned { _bytes: [9; 4096] }; bytes / 4096];
    let at = space.as_mut_ptr().cast::<u8>();
    ring.submitter().register_files(&[file.as_raw_fd()]).expect("a small table");
    if registered {
        let buffer = libc::iovec { iov_base: at.cast(), iov_len: bytes };
        // SAFETY: the buffer outlives the ring, which is dropped first below.
        unsafe { ring.submitter().register_buffers(&[buffer]) }.expect("within memlock");
    }
    let (start, used) = (Instant::now(), processor_time());
    for write in 0..DISK_WRITES {
        let offset = (write * bytes % SPACE) as u64;
        let entry = if registered {
            let write = opcode::WriteFixed::new(Fixed(0), at, bytes as u32, 0);
            write.offset(offset).rw_flags(libc::RWF_DSYNC).build()
        } else {
            let write = opcode::Write::new(Fd(file.as_raw_fd()), at, bytes as u32);
            write.offset(offset).rw_flags(libc::RWF_DSYNC).build()
        };
        push(&mut ring, &entry);
        wait(&mut ring, 1, |completion| assert_eq!(completion.result() as usize, bytes));
    }
    let per = 1e6 / DISK_WRITES as f64;
    let result =
        (start.elapsed().as_secs_f64() * per, (processor_time() - used).as_secs_f64() * per);
    drop(ring);
    drop(space);
    let _ = std::fs::remove_file(path);
    result
}

/// One side of a doorbell: waits to be rung, rings the other.
fn doorbell_side(mut ring: IoUring, bells: [OwnedFd; 2], target: Option<RawFd>, begins: bool) {
    let mut word = Box::new(0u64);
    for turn in 0..RINGS {
        if target.is_none() {
            let at: *mut u64 = &raw mut *word;
            let read = opcode::Read::new(Fd(bells[0].as_raw_fd()), at.cast(), 8);
            push(&mut ring, &read.build());
        }
        let rings_first = begins || turn > 0;
        if rings_first {
            match target {
                Some(target) => {
                    let message = opcode::MsgRingData::new(Fd(target), 1, 1, None).build();
                    push(&mut ring, &message.flags(squeue::Flags::SKIP_SUCCESS));
                }
                None => {
                    rustix::io::write(&bells[1], &1u64.to_ne_bytes()).expect("an eventfd");
                }
            }
        }
        wait(&mut ring, 1, |_| {});
    }
    if !begins {
        // The other still waits for the last answer.
        match target {
            Some(target) => {
                push(&mut ring, &opcode::MsgRingData::new(Fd(target), 1, 1, None).build());
                wait(&mut ring, 1, |_| {});
            }
            None => {
                rustix::io::write(&bells[1], &1u64.to_ne_bytes()).expect("an eventfd");
            }
        }
    }
}

/// Time and processor time of one round trip between two parked threads, microseconds.
fn doorbell(by_message: bool) -> (f64, f64) {
    let bell = || {
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        rustix::event::eventfd(0, flags).expect("descriptors are left")
    };
    let (a, b) = (bell(), bell());
    let clone = |fd: &OwnedFd| fd.try_clone().expect("descriptors are left");
    let (to_a, to_b) = (clone(&a), clone(&b));
    let (send_a, receive_a) = std::sync::mpsc::channel::<RawFd>();
    let (send_b, receive_b) = std::sync::mpsc::channel::<RawFd>();
    let (start, used) = (Instant::now(), processor_time());
    std::thread::scope(|scope| {
        let side = |core: usize, bells, send: std::sync::mpsc::Sender<RawFd>, receive| {
            move || {
                let receive: std::sync::mpsc::Receiver<RawFd> = receive;
                core_affinity::set_for_current(core_affinity::CoreId { id: core });
                let ring = ring();
                send.send(ring.as_raw_fd()).expect("the other side lives");
                let target = receive.recv().expect("the other side lives");
                send.send(0).expect("the other side lives");
                receive.recv().expect("the other side lives");
                doorbell_side(ring, bells, by_message.then_some(target), core == 0);
            }
        };
        scope.spawn(side(0, [a, to_b], send_b, receive_a));
        scope.spawn(side(1, [b, to_a], send_a, receive_b));
    });
    let per = 1e6 / RINGS as f64;
    (start.elapsed().as_secs_f64() * per, (processor_time() - used).as_secs_f64() * per)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A way's name, and its time and processor time per operation.
type Way<'a> = (&'a str, &'a dyn Fn() -> (f64, f64));

/// Runs the ways in turns, and prints their medians and their ratio to the first.
fn compare(title: &str, ways: &[Way<'_>]) {
    let mut times = vec![(Vec::new(), Vec::new()); ways.len()];
    for _ in 0..ROUNDS {
        for (way, times) in ways.iter().zip(&mut times) {
            let (wall, used) = way.1();
            times.0.push(wall);
            times.1.push(used);
        }
    }
    let medians: Vec<(f64, f64)> =
        times.into_iter().map(|(wall, used)| (median(wall), median(used))).collect();
    println!("{title}");
    for (way, &(wall, used)) in ways.iter().zip(&medians) {
        let (to_wall, to_used) = (wall / medians[0].0, used / medians[0].1);
        println!(
            "  {:<34} {wall:>8.2} us ({to_wall:.2})   processor {used:>6.2} us ({to_used:.2})",
            way.0
        );
    }
}

fn main() {
    for bytes in [64, 4 << 10, 32 << 10] {
        compare(
            &format!("stream, {bytes} bytes, {CONNECTIONS} connections"),
            &[
                ("plain descriptors", &|| stream(Stream::Plain, bytes)),
                ("registered files", &|| stream(Stream::FixedFiles, bytes)),
                ("multishot into provided buffers", &|| stream(Stream::Multishot, bytes)),
            ],
        );
    }
    for bytes in [4 << 10, 64 << 10, 256 << 10] {
        compare(
            &format!("disk, {bytes} bytes, RWF_DSYNC"),
            &[
                ("plain file and buffer", &|| disk(false, bytes)),
                ("registered file and buffer", &|| disk(true, bytes)),
            ],
        );
    }
    compare(
        "doorbell between two parked cores, round trip",
        &[("eventfd, read armed", &|| doorbell(false)), ("MSG_RING", &|| doorbell(true))],
    );
}
