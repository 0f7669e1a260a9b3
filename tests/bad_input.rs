//! What nobody may send, against a node of its own on loopback: every wrong byte meets a typed
//! error or a closed connection, memory stays bounded, and a healthy client beside it is served all
//! the time.

use ringraft_net::client_wire::{BatchWriter, ErrorFrame, replies};
use ringraft_net::handshake::HANDSHAKE_BYTES;
use ringraft_net::{
    Client, ClientError, ClientOptions, FrameWriter, Hello, Identity, Inbox, Kind, Outbox,
    RefusalCode, Welcome,
};
use ringraft_types::command::{Envelope, Keys, PutCommand, RangeCommand};
use ringraft_types::limits::{FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, KEY_BYTES_MAX};
use ringraft_types::limits::{PAYLOAD_BYTES_MAX, VALUE_BYTES_MAX};
use ringraft_types::{
    ClientId, ClusterId, GroupId, Incarnation, Index, NodeId, ShardId, Start, Status,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_ringraft");
/// A guard against hanging, nothing else.
const GUARD: Duration = Duration::from_secs(40);
const GROUP: GroupId = GroupId(1);

/// A cluster of one node in a process of its own; gone when dropped.
struct Node {
    process: Child,
    client: String,
    peer: String,
    cluster: ClusterId,
    _dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// Starts a node; each setting's default line is replaced by the line given.
    fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let listeners: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let ports: Vec<u16> =
            listeners.iter().map(|it| it.local_addr().expect("bound").port()).collect();
        drop(listeners);
        let nodes = format!("a=127.0.0.1:{}/{}/{}", ports[0], ports[1], ports[2]);
        ringraft(dir.path(), &["init", "--nodes", &nodes]);
        let path = dir.path().join("a.toml");
        let mut text = std::fs::read_to_string(&path).expect("a configuration");
        for (default, line) in settings {
            assert!(text.contains(default), "{default} is a default");
            text = text.replace(default, line);
        }
        std::fs::write(&path, &text).expect("writable");
        ringraft(dir.path(), &["format", "--config", "a.toml"]);
        let process = Command::new(BINARY)
            .args(["node", "--config", "a.toml", "--allow-buffered"])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).expect("a log"))
            .spawn()
            .expect("the node starts");
        let mut node = Self {
            process,
            client: format!("127.0.0.1:{}", ports[0]),
            peer: format!("127.0.0.1:{}", ports[1]),
            cluster: ClusterId(0),
            _dir: dir,
        };
        let until = Instant::now() + GUARD;
        let mut client = node.client();
        while client.write(GROUP, &put(b"first", b"x")).is_err() {
            assert!(Instant::now() < until, "the node serves");
            assert!(node.process.try_wait().expect("our child").is_none(), "the node runs");
        }
        let welcome = greet(&node.client, &hello()).1.expect("an answer");
        node.cluster = welcome.sender.cluster;
        node
    }

    fn client(&self) -> Client {
        Client::connect(ClientOptions::new(vec![self.client.clone()])).expect("no fault here")
    }

    fn resident_bytes(&self) -> usize {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(path).expect("the node runs");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a number");
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<usize>().expect("a number") << 10
    }
}

fn ringraft(dir: &Path, arguments: &[&str]) {
    let output = Command::new(BINARY).args(arguments).current_dir(dir).output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// A client that writes and reads all the time; every call must be done.
struct Healthy {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Healthy {
    fn beside(node: &Node) -> Self {
        let mut client = node.client();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        // Connected before anything else is, whatever is limited later.
        client.write(GROUP, &put(b"healthy", b"0")).expect("served");
        let thread = std::thread::spawn(move || {
            let mut calls = 0u64;
            while !flag.load(Ordering::Relaxed) {
                let value = calls.to_le_bytes();
                client.write(GROUP, &put(b"healthy", &value)).expect("a write is done");
                let response = client.read(GROUP, &get(b"healthy")).expect("a read is done");
                assert!(response.body.ends_with(&value), "it reads what it wrote");
                calls += 1;
            }
            calls
        });
        Self { stop, thread }
    }

    fn was_served(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.thread.join().expect("every call was done") > 0);
    }
}

fn put(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut command = Vec::new();
    PutCommand { key, value, previous: false }.encode(&mut command).expect("within limits");
    command
}

/// A put that nobody checked on its way.
fn raw_put(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut command = vec![1, 0];
    command.extend_from_slice(&(key.len() as u16).to_le_bytes());
    command.extend_from_slice(&(value.len() as u32).to_le_bytes());
    command.extend_from_slice(key);
    command.extend_from_slice(value);
    command
}

fn get(key: &[u8]) -> Vec<u8> {
    let mut command = Vec::new();
    let range = RangeCommand::current(Keys::One(key));
    range.encode(&mut command).expect("within limits");
    command
}

const START: Start = Start { number: 1, nonce: 7 };

fn hello() -> Hello {
    Hello::from_client(ClientId(7), None, None, None)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the port is open");
    stream.set_read_timeout(Some(GUARD)).expect("an option");
    stream.set_write_timeout(Some(GUARD)).expect("an option");
    stream
}

/// Sends 128 bytes, and reads the answer if there is one.
fn greet_raw(address: &str, bytes: &[u8]) -> (TcpStream, Option<Welcome>) {
    let mut stream = connect(address);
    // A node without room may have closed already.
    let _ = stream.write_all(bytes);
    let mut answer = [0; HANDSHAKE_BYTES];
    let welcome = stream.read_exact(&mut answer).ok();
    (stream, welcome.map(|()| Welcome::decode(&answer).expect("a sound answer")))
}

fn greet(address: &str, hello: &Hello) -> (TcpStream, Option<Welcome>) {
    greet_raw(address, &hello.encode())
}

/// A connection that was welcomed.
fn greeted(node: &Node) -> TcpStream {
    let (stream, welcome) = greet(&node.client, &hello());
    assert_eq!(welcome.map(|it| it.verdict.is_ok()), Some(true));
    stream
}

/// Reads until the other side closes; returns what it said.
fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&part[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the connection stays open");
            }
            Err(_) => return all,
        }
    }
}

/// What an outbox holds, as bytes.
fn bytes_of(write: impl FnOnce(&mut Outbox)) -> Vec<u8> {
    let mut outbox = Outbox::new(usize::MAX);
    write(&mut outbox);
    outbox.take_for_send().unwrap_or_default().to_vec()
}

fn frame(kind: Kind, group: GroupId, body: &[u8]) -> Vec<u8> {
    bytes_of(|outbox| {
        let mut writer = FrameWriter::begin(outbox, kind, group, Identity::default());
        writer.extend(body);
        writer.finish();
    })
}

/// A frame whose header is changed and sealed again.
fn resealed(mut bytes: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut bytes[..60]);
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn batch(kind: Kind, requests: &[Vec<u8>]) -> Vec<u8> {
    bytes_of(|outbox| {
        let mut writer = BatchWriter::begin(outbox, kind, GROUP, Identity::default());
        for (call, request) in requests.iter().enumerate() {
            writer.request(call as u64, [request, b""]);
        }
        writer.finish();
    })
}

fn enveloped(sequence: u64, command: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    let envelope = Envelope { client: ClientId(77), sequence, received: 0, opened: Index::ZERO };
    envelope.encode(&mut payload);
    payload.extend_from_slice(command);
    payload
}

/// Bytes without a meaning, the same in every run.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let next = |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// Every frame that may not be sent to the client port closes its connection, with a sentence.
#[test]
fn wrong_frames_close_their_connection() {
    let node = Node::start(&[]);
    let healthy = Healthy::beside(&node);
    let locate = || frame(Kind::Locate, GROUP, b"");
    let reads = || batch(Kind::Reads, &[get(b"k")]);
    let mut cases = vec![
        (
            "a length over the limit",
            resealed(reads(), |header| {
                header[8..12].copy_from_slice(&(FRAME_BODY_BYTES_MAX as u32 + 1).to_le_bytes());
            }),
        ),
        ("the longest length there is", resealed(reads(), |header| header[8..12].fill(0xff))),
        ("a body where none may be", resealed(locate(), |header| header[8] = 1)),
        ("an unknown version", resealed(locate(), |header| header[4] = 99)),
        ("an unknown kind", resealed(locate(), |header| header[5] = 99)),
        ("a reserved flag", resealed(locate(), |header| header[6] = 1)),
        ("another magic", resealed(locate(), |header| header[0] ^= 1)),
        ("noise", noise(64 << 10, 1)),
        ("a batch of noise", frame(Kind::Writes, GROUP, &noise(500, 2))),
        ("a batch too short", frame(Kind::Reads, GROUP, b"1234")),
        ("a batch of group 0", frame(Kind::Reads, GroupId(0), &[0; 8])),
        ("a question about members, too short", frame(Kind::Members, GROUP, b"1234")),
        ("the members of group 0", frame(Kind::Members, GroupId(0), &[0; 8])),
        ("a change too short", frame(Kind::Change, GROUP, &[0; 23])),
        ("a change of noise", frame(Kind::Change, GROUP, &noise(500, 5))),
        ("a change to nobody", frame(Kind::Change, GROUP, &[[0; 16], [1; 16]].concat()[..24])),
        ("too many requests", frame(Kind::Reads, GROUP, &[0xff, 0xff, 0, 0, 0, 0, 0, 0])),
        ("a payload over the limit", {
            frame(Kind::Writes, GROUP, &{
                let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0];
                body.extend_from_slice(&(PAYLOAD_BYTES_MAX as u32 + 1).to_le_bytes());
                body.resize(8 + 16 + PAYLOAD_BYTES_MAX + 1, 0);
                body
            })
        }),
    ];
    let mut bad = locate();
    bad[60] ^= 1;
    cases.push(("a bad header checksum", bad));
    let mut bad = reads();
    *bad.last_mut().expect("a body") ^= 1;
    cases.push(("a bad body checksum", bad));
    for kind in [
        Kind::Beats,
        Kind::BeatReplies,
        Kind::Append,
        Kind::AppendReplies,
        Kind::Ballot,
        Kind::Install,
        Kind::RepairAsk,
        Kind::RepairAnswer,
        Kind::LifeAsk,
        Kind::LifeAnswer,
        Kind::SaveAt,
        Kind::TimeoutNow,
        Kind::ReadAsks,
        Kind::ReadAnswers,
        Kind::LeadWord,
        Kind::StateWord,
        Kind::SnapshotAsk,
        Kind::SnapshotOffer,
        Kind::ChunkAsk,
        Kind::Chunk,
    ] {
        cases.push(("a peer's frame", frame(kind, GROUP, &[0; 60])));
    }
    for kind in [
        Kind::Replies,
        Kind::LocateReply,
        Kind::StatusReply,
        Kind::Error,
        Kind::MembersReply,
        Kind::LeadReply,
    ] {
        cases.push(("a server's frame", frame(kind, GROUP, &[0; 60])));
    }
    for (what, bytes) in cases {
        let mut stream = greeted(&node);
        // It may be closed before all of it is sent.
        let _ = stream.write_all(&bytes);
        let said = read_to_close(&mut stream);
        let mut inbox = Inbox::opened();
        inbox.space()[..said.len()].copy_from_slice(&said);
        inbox.filled(said.len());
        // Bytes that were on their way when it closed may have cost us the sentence.
        if let Some(frame) = inbox.next_frame().expect("the node writes sound frames") {
            assert_eq!(frame.header.kind, Kind::Error, "{what}");
            assert!(!ErrorFrame::read(&frame).expect("a sentence").sentence.is_empty(), "{what}");
        }
    }
    healthy.was_served();
}

/// A frame that ends too early is no frame: the connection ends with it.
#[test]
fn truncated_frames_end_with_their_connection() {
    let node = Node::start(&[]);
    let healthy = Healthy::beside(&node);
    let whole = batch(Kind::Writes, &[enveloped(1, &put(b"cut", &[1; 500]))]);
    for cut in [1, FRAME_HEADER_BYTES - 1, FRAME_HEADER_BYTES, whole.len() - 1] {
        let mut stream = greeted(&node);
        stream.write_all(&whole[..cut]).expect("taken");
        stream.shutdown(Shutdown::Write).expect("still open");
        assert!(read_to_close(&mut stream).is_empty());
    }
    let response = node.client().read(GROUP, &get(b"cut")).expect("a read is done");
    let absent = node.client().read(GROUP, &get(b"never")).expect("a read is done");
    assert_eq!(response.body, absent.body, "nothing of it was applied");
    healthy.was_served();
}

/// Every handshake that can't be agreed to is refused by its own code.
#[test]
fn wrong_handshakes_get_their_code() {
    let node = Node::start(&[]);
    let cluster = node.cluster;
    let peer = |sender: u32, wanted: u32, cluster: ClusterId| {
        let identity = Identity { cluster, incarnation: Incarnation(5), node: NodeId(sender) };
        Hello::from_peer(identity, START, ShardId(0), NodeId(wanted), ShardId(0))
    };
    let other = ClusterId(cluster.0 ^ 1);
    let client = |cluster, wanted: Option<u32>, shard: Option<u16>| {
        Hello::from_client(ClientId(7), cluster, wanted.map(NodeId), shard.map(ShardId))
    };
    let versions = |version| Hello { version_min: version, version_max: version, ..hello() };
    let (at_client, at_peer) = (&node.client, &node.peer);
    let cases = [
        (at_client, client(Some(other), None, None), RefusalCode::WrongCluster),
        (at_client, client(None, Some(9), None), RefusalCode::WrongNode),
        (at_client, client(None, None, Some(7)), RefusalCode::NoSuchShard),
        (at_client, versions(0), RefusalCode::VersionTooOld),
        (at_client, versions(200), RefusalCode::VersionTooNew),
        (at_client, peer(2, 1, cluster), RefusalCode::Malformed),
        (at_peer, hello(), RefusalCode::Malformed),
        (at_peer, peer(2, 1, other), RefusalCode::WrongCluster),
        (at_peer, peer(2, 3, cluster), RefusalCode::WrongNode),
        (at_peer, peer(1, 1, cluster), RefusalCode::WrongNode),
        (at_peer, Hello { layout_hash: 1, ..peer(2, 1, cluster) }, RefusalCode::LayoutDiffers),
    ];
    for (address, hello, code) in cases {
        let (mut stream, welcome) = greet(address, &hello);
        assert_eq!(welcome.map(|it| it.verdict), Some(Err(code)), "{hello:?}");
        assert!(read_to_close(&mut stream).is_empty());
    }
    let mut request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    request.resize(HANDSHAKE_BYTES, b' ');
    let mut damaged = hello().encode();
    damaged[60] ^= 1;
    for bytes in [request, noise(HANDSHAKE_BYTES, 3), damaged.to_vec()] {
        for address in [at_client, at_peer] {
            let (_, welcome) = greet_raw(address, &bytes);
            assert_eq!(welcome.map(|it| it.verdict), Some(Err(RefusalCode::Malformed)));
        }
    }
    assert!(greet(at_client, &hello()).1.is_some_and(|welcome| welcome.verdict.is_ok()));
}

/// Keys and values over their limit are refused with a status, and nothing else suffers.
#[test]
fn keys_and_values_over_the_limit_are_refused() {
    let node = Node::start(&[]);
    let healthy = Healthy::beside(&node);
    let mut client = node.client();
    for command in [
        raw_put(&[b'k'; KEY_BYTES_MAX + 1], b"v"),
        raw_put(b"k", &vec![b'v'; VALUE_BYTES_MAX + 1]),
        raw_put(b"", b"v"),
        noise(300, 4),
    ] {
        let error = client.write(GROUP, &command).expect_err("over the limit");
        let ClientError::NotDone { reason, .. } = error else { panic!("{error:?}") };
        assert!(format!("{reason:?}").contains("Refused"), "{reason:?}");
    }
    let largest = raw_put(&[b'k'; KEY_BYTES_MAX], &vec![b'v'; VALUE_BYTES_MAX]);
    client.write(GROUP, &largest).expect("the largest key and value fit");
    healthy.was_served();
}

/// A client that sends a byte now and then is waited for, alone.
#[test]
fn a_trickle_holds_nobody_up() {
    let node = Node::start(&[]);
    let healthy = Healthy::beside(&node);
    let mut trickles: Vec<TcpStream> = (0..50).map(|_| greeted(&node)).collect();
    let bytes = batch(Kind::Reads, &[get(b"first")]);
    let (slow, rest) = bytes.split_at(3);
    for byte in slow {
        for stream in &mut trickles {
            stream.write_all(&[*byte]).expect("still open");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    for stream in &mut trickles {
        stream.write_all(rest).expect("still open");
        let mut header = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut header).expect("an answer at last");
    }
    healthy.was_served();
}

/// Connections that say nothing are closed when the patience for a greeting is over; a thousand of
/// them leave others alone.
#[test]
fn the_silent_are_closed() {
    raise_descriptors();
    let node = Node::start(&[]);
    let healthy = Healthy::beside(&node);
    let mut silent: Vec<TcpStream> = (0..1_000).map(|_| connect(&node.client)).collect();
    silent.extend((0..100).map(|_| connect(&node.peer)));
    let began = Instant::now();
    for stream in &mut silent {
        assert!(read_to_close(stream).is_empty());
    }
    assert!(began.elapsed() < GUARD);
    healthy.was_served();
}

/// More connections than there may be: the rest is told so or closed, those that are in are
/// served, and a place that comes free is given again.
#[test]
fn a_flood_of_connections_is_turned_away() {
    let node = Node::start(&[("#connections_max = 4096", "connections_max = 32")]);
    let healthy = Healthy::beside(&node);
    let mut taken = Vec::new();
    let mut turned_away = 0;
    for _ in 0..200 {
        let (stream, welcome) = greet(&node.client, &hello());
        match welcome.map(|welcome| welcome.verdict) {
            Some(Ok(_)) => taken.push(stream),
            Some(Err(code)) => {
                assert_eq!(code, RefusalCode::Busy);
                turned_away += 1;
            }
            None => turned_away += 1,
        }
    }
    assert!(taken.len() < 32 && turned_away >= 168, "{} taken", taken.len());
    // The peer port has room of its own, and lets in whoever is of the cluster.
    let stranger = Identity { cluster: node.cluster, incarnation: Incarnation(5), node: NodeId(2) };
    let stranger = Hello::from_peer(stranger, START, ShardId(0), NodeId(1), ShardId(0));
    let verdict = greet(&node.peer, &stranger).1.map(|welcome| welcome.verdict);
    assert_eq!(verdict, Some(Ok(ringraft_net::frame::WIRE_VERSION)));
    drop(taken);
    let until = Instant::now() + GUARD;
    while greet(&node.client, &hello()).1.is_none_or(|welcome| welcome.verdict.is_err()) {
        assert!(Instant::now() < until, "places come free");
    }
    healthy.was_served();
}

/// Clients that ask and never read the answers are closed in the end, and cost bounded memory.
#[test]
fn who_never_reads_is_closed() {
    let node = Node::start(&[]);
    let mut client = node.client();
    client.write(GROUP, &put(b"large", &vec![7; VALUE_BYTES_MAX])).expect("served");
    let healthy = Healthy::beside(&node);
    let before = node.resident_bytes();
    let reads = batch(Kind::Reads, &vec![get(b"large"); 64]);
    let writes: Vec<Vec<u8>> =
        (1..=512).map(|number| enveloped(number, &put(b"small", b"x"))).collect();
    let writes = batch(Kind::Writes, &writes);
    let threads: Vec<JoinHandle<()>> = [&reads, &reads, &reads, &writes]
        .into_iter()
        .map(|bytes| {
            let (mut stream, bytes) = (greeted(&node), bytes.clone());
            std::thread::spawn(move || {
                let until = Instant::now() + GUARD;
                while stream.write_all(&bytes).is_ok() {
                    assert!(Instant::now() < until, "it may send for ever");
                }
            })
        })
        .collect();
    let mut most = before;
    while threads.iter().any(|thread| !thread.is_finished()) {
        most = most.max(node.resident_bytes());
        std::thread::sleep(Duration::from_millis(50));
    }
    for thread in threads {
        thread.join().expect("it was closed");
    }
    healthy.was_served();
    let grown = most.saturating_sub(before) >> 20;
    assert!(grown < 384, "{grown} MiB for four clients that never read");
}

/// A refused request names its call: the answers of a frame of bad commands are all there.
#[test]
fn bad_commands_are_answered_one_by_one() {
    let node = Node::start(&[]);
    let mut stream = greeted(&node);
    let commands = [enveloped(1, &noise(20, 5)), enveloped(2, &get(b"k")), enveloped(3, b"")];
    stream.write_all(&batch(Kind::Writes, &commands)).expect("taken");
    let mut inbox = Inbox::opened();
    let mut answered = Vec::new();
    while answered.len() < commands.len() {
        let count = stream.read(inbox.space()).expect("an answer");
        assert!(count > 0, "the connection stays open");
        inbox.filled(count);
        while let Some(frame) = inbox.next_frame().expect("a sound frame") {
            let replies = replies(&frame).expect("a batch");
            answered.extend(replies.iter().map(|reply| (reply.call, reply.status)));
        }
    }
    answered.sort_unstable_by_key(|&(call, _)| call);
    let calls: Vec<u64> = answered.iter().map(|&(call, _)| call).collect();
    assert_eq!(calls, [0, 1, 2]);
    assert!(answered.iter().all(|&(_, status)| status != Status::Ok), "{answered:?}");
}

/// This process holds a thousand connections.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit");
}
