//! What is done with bytes that nobody vouches for, one function a border. None may panic, loop
//! for ever, or reserve memory that the bytes only promise. Shared with `fuzz/`, which runs the
//! same functions under libFuzzer.

use ringraft::config::{Config, Machine};
use ringraft_net::barrier_wire::{BarrierAsk, BarrierReply};
use ringraft_net::client_wire::{self, LocateReply};
use ringraft_net::handshake::HANDSHAKE_BYTES;
use ringraft_net::lead_wire::{LeadAsk, LeadReply};
use ringraft_net::status::NodeStatus;
use ringraft_net::{
    Frame, FrameHeader, Hello, Identity, Inbox, Kind, Welcome, bulk_wire, members_wire, wire,
};
use ringraft_types::command::{Command, Envelope};
use ringraft_types::reply::Reply;
use ringraft_types::{ClusterId, GroupId, Incarnation, NodeId, Ticks, record};
use ringraft_wal::block::{Block, carried};
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::device::{FileId, FileKind};
use ringraft_wal::format::{ITEM_BYTES, SegmentHeader};
use ringraft_wal::{Log, LogSettings, Recovery, RecoveryStep};
use std::hint::black_box;
use std::path::Path;
use std::sync::OnceLock;

/// One border.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Its name, and that of its folder in `fuzz/corpus`.
    pub(crate) name: &'static str,
    /// What takes the bytes.
    pub(crate) run: fn(&[u8]),
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "frames", run: frames },
    Target { name: "messages", run: messages },
    Target { name: "handshakes", run: handshakes },
    Target { name: "commands", run: commands },
    Target { name: "records", run: records },
    Target { name: "blocks", run: blocks },
    Target { name: "segments", run: segments },
    Target { name: "recovery", run: recovery },
    Target { name: "configuration", run: configuration },
];

/// A stream of frames on a connection, in pieces of the length that its first byte says.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((&piece, mut rest)) = bytes.split_first() else { return };
    let mut inbox = Inbox::opened();
    while !rest.is_empty() {
        let space = inbox.space();
        let count = space.len().min(rest.len()).min(usize::from(piece) + 1);
        space[..count].copy_from_slice(&rest[..count]);
        inbox.filled(count);
        rest = &rest[count..];
        loop {
            match inbox.next_frame() {
                Ok(Some(frame)) => decode(&frame),
                Ok(None) => break,
                Err(error) => {
                    black_box(error.to_string());
                    return;
                }
            }
        }
    }
}

/// The body of a frame whose header is in order; the first byte says its kind.
pub(crate) fn messages(bytes: &[u8]) {
    let Some((&kind, body)) = bytes.split_first() else { return };
    let Some(kind) = Kind::from_u8(kind) else { return };
    if body.len() > kind.body_bytes_max() {
        return;
    }
    let header = FrameHeader {
        kind,
        group: GroupId(1),
        sender: Identity::default(),
        body_bytes: body.len() as u32,
        body_checksum: crc32fast::hash(body),
    };
    assert_eq!(FrameHeader::decode(&header.encode()).ok(), Some(header));
    decode(&Frame { header, body });
}

/// What each kind of frame is read with.
fn decode(frame: &Frame<'_>) {
    match frame.header.kind {
        Kind::Writes | Kind::Reads => {
            let requests = match frame.header.kind {
                Kind::Writes => client_wire::writes(frame),
                _ => client_wire::reads(frame),
            };
            if let Ok(requests) = requests {
                requests.iter().for_each(|request| commands(request.payload));
            }
        }
        Kind::Replies => {
            if let Ok(replies) = client_wire::replies(frame) {
                for reply in replies.iter() {
                    let _ = black_box(Reply::decode(reply.body));
                }
            }
        }
        Kind::Append => {
            if let Ok((head, entries)) = wire::append(frame) {
                black_box(head);
                records(entries);
            }
        }
        Kind::Beats => {
            let _ = black_box(wire::beats(frame).map(|beats| beats.items().count()));
        }
        Kind::BeatReplies => {
            let _ = black_box(wire::beat_replies(frame).map(|beats| beats.items().count()));
        }
        Kind::AppendReplies => {
            let _ = black_box(wire::append_replies(frame).map(|replies| replies.items().count()));
        }
        Kind::Ballot => drop(black_box(wire::ballot(frame))),
        Kind::Install => drop(black_box(wire::install(frame))),
        Kind::RepairAsk => drop(black_box(wire::repair_ask(frame))),
        Kind::RepairAnswer => {
            if let Ok((head, entries)) = wire::repair_answer(frame) {
                black_box(head);
                records(entries);
            }
        }
        Kind::LifeAsk => drop(black_box(wire::life_ask(frame))),
        Kind::LifeAnswer => drop(black_box(wire::life_answer(frame))),
        Kind::SaveAt => drop(black_box(wire::save_at(frame))),
        Kind::StateWord => drop(black_box(wire::state_word(frame))),
        Kind::LeadWord => drop(black_box(wire::lead_word(frame))),
        Kind::TimeoutNow => drop(black_box(wire::timeout_now(frame))),
        Kind::ReadAsks => {
            let _ = black_box(wire::read_asks(frame).map(|asks| asks.items().count()));
        }
        Kind::ReadAnswers => {
            let _ = black_box(wire::read_answers(frame).map(|answers| answers.items().count()));
        }
        Kind::Lead => drop(black_box(LeadAsk::read(frame))),
        Kind::LeadReply => drop(black_box(LeadReply::read(frame))),
        Kind::Barrier => drop(black_box(BarrierAsk::read(frame))),
        Kind::BarrierReply => {
            if let Ok(reply) = BarrierReply::read(frame) {
                assert_eq!(reply.encode(), frame.body, "one way to write it");
            }
        }
        Kind::SnapshotAsk => drop(black_box(bulk_wire::snapshot_ask(frame))),
        Kind::SnapshotOffer => drop(black_box(bulk_wire::snapshot_offer(frame))),
        Kind::ChunkAsk => drop(black_box(bulk_wire::chunk_ask(frame))),
        Kind::Chunk => {
            let _ = black_box(bulk_wire::chunk(frame).map(|(_, bytes)| bytes.len()));
        }
        Kind::LocateReply => drop(black_box(LocateReply::read(frame))),
        Kind::StatusReply => drop(black_box(NodeStatus::read(frame))),
        Kind::Members => drop(black_box(members_wire::members(frame))),
        Kind::Change => {
            if let Ok(ask) = members_wire::ChangeAsk::read(frame) {
                let mut again = Vec::new();
                ask.encode(&mut again).expect("its addresses were in bounds");
                assert_eq!(again, frame.body, "one way to write it");
            }
        }
        Kind::MembersReply => drop(black_box(members_wire::MembersReply::read(frame))),
        Kind::Error => drop(black_box(client_wire::ErrorFrame::read(frame))),
        Kind::Locate | Kind::Status => assert!(frame.body.is_empty(), "the header was judged"),
    }
}

/// The greeting and the welcome, the only bytes parsed before a peer is known.
pub(crate) fn handshakes(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HANDSHAKE_BYTES>() else { return };
    if let Ok(hello) = Hello::decode(bytes) {
        assert_eq!(Hello::decode(&hello.encode()).ok(), Some(hello));
    }
    if let Ok(welcome) = Welcome::decode(bytes) {
        assert_eq!(Welcome::decode(&welcome.encode()).ok(), Some(welcome));
    }
}

/// A client's command, with and without its session's envelope, and a machine's reply.
pub(crate) fn commands(bytes: &[u8]) {
    if let Ok((envelope, rest)) = Envelope::decode(bytes) {
        black_box(envelope);
        walk(rest);
    }
    walk(bytes);
    let _ = black_box(Reply::decode(bytes).map(|reply| format!("{reply:?}").len()));
}

fn walk(bytes: &[u8]) {
    match Command::decode(bytes) {
        Ok(Command::Txn(txn)) => {
            black_box((txn.compares().count(), txn.then().count(), txn.otherwise().count()));
        }
        Ok(command) => {
            let mut again = Vec::new();
            if command.encode(&mut again).is_ok() {
                assert_eq!(Command::decode(&again).ok(), Some(command));
            }
        }
        Err(error) => {
            black_box(error.to_string());
        }
    }
}

/// Records side by side, as an append carries them.
pub(crate) fn records(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(found) = record::decode(rest) {
        let length = record::encoded_bytes(found.payload.len());
        let _ = black_box(carried(&found));
        let Some(after) = rest.get(length..) else { return };
        rest = after;
    }
    let _ = black_box(record::peek(rest));
}

/// One block of a log, as it is, and with the checksum that its header should have: what lies behind
/// the checksum may be wrong as well.
pub(crate) fn blocks(bytes: &[u8]) {
    look_at_block(bytes);
    let number = |at: usize| {
        bytes
            .get(at..at + 4)
            .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize)
    };
    let (Some(head), Some(directory), Some(items)) = (number(12), number(20), number(24)) else {
        return;
    };
    let end = items.checked_mul(ITEM_BYTES).and_then(|length| length.checked_add(directory));
    let (Some(fields), Some(listed)) =
        (bytes.get(12..head), end.and_then(|end| bytes.get(directory..end)))
    else {
        return;
    };
    let mut hasher = crc32fast::Hasher::new();
    for part in [&bytes[..8], fields, listed] {
        hasher.update(part);
    }
    let mut sealed = bytes.to_vec();
    sealed[8..12].copy_from_slice(&hasher.finalize().to_le_bytes());
    look_at_block(&sealed);
}

fn look_at_block(bytes: &[u8]) {
    if let Ok(block) = Block::parse(bytes) {
        black_box((block.directory().len(), block.repeated().len(), block.padding_is_zero()));
        records(block.records());
    }
}

/// A segment's header, then its blocks.
pub(crate) fn segments(bytes: &[u8]) {
    let _ = black_box(SegmentHeader::decode(bytes));
    for unit in bytes.chunks(4096).skip(1) {
        blocks(unit);
    }
}

fn settings() -> LogSettings {
    LogSettings {
        segment_bytes: 64 << 10,
        block_bytes_max: 16 << 10,
        unsubmitted_bytes_max: 256 << 10,
        ..LogSettings::new(ClusterId(0xC1), NodeId(1), Incarnation(0x17), 3)
    }
}

fn recover(device: &mut MemoryDevice) -> Option<Log> {
    let mut recovery = Recovery::new(settings());
    for _ in 0..10_000 {
        match recovery.turn(Ticks(0), device) {
            RecoveryStep::Working => {}
            RecoveryStep::Done(done) => return Some(done.0),
            RecoveryStep::Failed(error) => {
                black_box(error.to_string());
                return None;
            }
        }
    }
    panic!("a recovery doesn't come to its end");
}

/// A sound log of three groups.
fn sound() -> &'static MemoryDevice {
    static DEVICE: OnceLock<MemoryDevice> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let mut device = MemoryDevice::new(4096);
        let mut log = recover(&mut device).expect("an empty disk is a log");
        let mut now = Ticks(0);
        for step in 1..=12u64 {
            let mut bytes = Vec::new();
            let kind = record::RecordKind::Command;
            let (group, term) = (GroupId(1 + step % 3), ringraft_types::Term(1 + step / 6));
            let index = ringraft_types::Index(1 + (step - 1) / 3);
            record::encode(&mut bytes, kind, group, index, term, [&[7; 300], b""]);
            log.append_run(group, index, index, term, &bytes).expect("there is room");
            for _ in 0..40 {
                now = now.after(Ticks(1_000));
                log.turn(now, &mut device).expect("the disk works");
            }
        }
        device
    })
}

/// The sound log's first segment.
#[allow(dead_code, reason = "libFuzzer begins with what is kept")]
pub(crate) fn sound_segment() -> Vec<u8> {
    let device = sound();
    let segments = device.files().into_iter().filter(|(file, _)| file.kind == FileKind::Segment);
    let contents = segments.map(|(file, _)| device.content(file));
    contents.max_by_key(|bytes| bytes.iter().filter(|&&byte| byte != 0).count()).expect("one")
}

/// A whole image: a sound log with some of its bytes replaced. Five bytes an edit: four say where
/// in the files, side by side, the fifth what; an edit behind the end cuts the last file there.
pub(crate) fn recovery(bytes: &[u8]) {
    let mut device = sound().clone();
    let mut files = device.files();
    files.retain(|(file, _)| file.kind == FileKind::Segment);
    let total: u64 = files.iter().map(|&(_, length)| length).sum();
    for edit in bytes.chunks_exact(5).take(64) {
        let at = u64::from(u32::from_le_bytes([edit[0], edit[1], edit[2], edit[3]]));
        let mut at = at % (total + total / 16);
        let last: (FileId, u64) = *files.last().expect("a log has a segment");
        if at >= total {
            device.set_length(last.0, (at - total).min(last.1));
            continue;
        }
        for &(file, length) in &files {
            if at < length {
                device.corrupt(file, at, &edit[4..5]);
                break;
            }
            at -= length;
        }
    }
    if let Some(mut log) = recover(&mut device) {
        // What was taken goes on.
        for turn in 0..50u64 {
            log.turn(Ticks(turn * 1_000), &mut device).expect("the disk works");
        }
    }
}

/// A node's file.
pub(crate) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let machine = Machine { cores: vec![0, 1, 2, 3] };
    match Config::from_text(Path::new("node.toml"), text, &machine) {
        Ok(config) => {
            black_box(config.own().id);
        }
        Err(error) => {
            black_box((error.to_string(), error.cure().len(), error.line_and_column()));
        }
    }
}
