//! The control lane over real sockets on loopback: what it answers, and what clients that behave
//! badly can't do to it.

use ringraft::config::{Address, Log, LogLevel};
use ringraft::control::{
    BUCKETS_US, ControlOptions, GroupRow, LogControl, LogEvent, NodeNumbers, Percentiles,
    ShardFeed, ShardNumbers, ShardSnapshots, SnapshotWish, Stage, StageHistogram, WalNumbers, bind,
    serve,
};
use ringraft_net::status::SnapshotActivity;
use ringraft_shard::{GroupSnapshots, KeptSnapshot, ShardEvent, SnapshotAsked, SnapshotEnd};
use ringraft_types::{GroupId, Index, LogId, NodeId, ShardId, Term, Ticks};
use ringraft_wal::device::FileId;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the shards would say; a test changes it.
#[derive(Clone, Default)]
struct FakeFeed(Arc<Mutex<Fake>>);

#[derive(Default)]
struct Fake {
    node: NodeNumbers,
    /// Shards answer a request at once; otherwise they are stuck.
    answering: bool,
    stopped: bool,
    events_taken: bool,
    /// The last one; its number is how many there were.
    wishes: Vec<SnapshotWish>,
}

impl FakeFeed {
    fn change(&self, change: impl FnOnce(&mut Fake)) {
        change(&mut self.0.lock().expect("lock"));
    }
}

impl ShardFeed for FakeFeed {
    fn request(&self) {
        self.change(|fake| {
            if fake.answering {
                for shard in &mut fake.node.shards {
                    shard.answers += 1;
                    shard.tick_age = Duration::ZERO;
                }
            }
        });
    }

    fn latest(&self) -> NodeNumbers {
        self.0.lock().expect("lock").node.clone()
    }

    fn ask_snapshots(&self, wish: SnapshotWish) -> u64 {
        let mut fake = self.0.lock().expect("lock");
        fake.wishes.push(wish);
        fake.wishes.len() as u64
    }

    fn silent(&self, question: u64) -> Vec<ShardId> {
        let fake = self.0.lock().expect("lock");
        assert_eq!(question, fake.wishes.len() as u64);
        if fake.answering { Vec::new() } else { vec![ShardId(1)] }
    }

    fn take_snapshots(&self, question: u64) -> Vec<ShardSnapshots> {
        let last = LogId::new(Term(3), Index(70));
        let file = FileId::snapshot(1, 9);
        let row = GroupSnapshots {
            group: GroupId(1),
            applied: Index(75),
            is_halted: false,
            kept: vec![KeptSnapshot { file, last, bytes: 8192, is_named: true }],
            unreadable: 0,
            activity: SnapshotActivity::Taking,
            written: 4096,
            install: None,
            attempts: 2,
            end: Some(SnapshotEnd { last, bytes: 8192, took: Ticks(5_000), error: None }),
        };
        let is_asked =
            self.0.lock().expect("lock").wishes[question as usize - 1] != SnapshotWish::Look;
        let asked = is_asked.then_some(SnapshotAsked::Wanted);
        vec![ShardSnapshots { shard: ShardId(0), groups: vec![(asked, row)] }]
    }

    fn take_events(&self, out: &mut Vec<LogEvent>) {
        let (group, term) = (GroupId(1), Term(1));
        self.change(|fake| {
            if !fake.events_taken {
                let event = ShardEvent::SteppedDown { group, term };
                out.push(LogEvent::Shard(ShardId(0), event));
            }
            fake.events_taken = true;
        });
    }

    fn is_stopped(&self) -> bool {
        self.0.lock().expect("lock").stopped
    }
}

/// A control lane in a thread of its own. Stopped and joined when dropped.
struct Server {
    feed: FakeFeed,
    address: SocketAddr,
    log: LogControl,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(connections_max: usize, patience: Duration) -> Self {
        let feed = FakeFeed::default();
        feed.change(|fake| {
            fake.node = snapshot();
            fake.answering = true;
        });
        let any = Address { host: "127.0.0.1".into(), port: 0 };
        let listener = bind("http", &any).expect("bind");
        let address = listener.local_addr().expect("address");
        let log =
            LogControl::install(&Log { level: LogLevel::Error, json: false, slow_write: None });
        let log_dir = std::env::temp_dir();
        let options = ControlOptions { core: Some(0), connections_max, patience, log_dir };
        let (lane_feed, lane_log) = (feed.clone(), log.clone());
        let thread = std::thread::spawn(move || {
            serve(listener, options, lane_feed, lane_log, || {}).expect("the control lane runs");
        });
        Self { feed, address, log, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("connect");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        socket
    }

    /// Sends one request on a connection of its own; the status and the body of its answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut socket = self.connect();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("send");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("receive");
        let status = answer.split(' ').nth(1).expect("status line").parse().expect("status");
        let (_, body) = answer.split_once("\r\n\r\n").expect("head");
        (status, body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.feed.change(|fake| fake.stopped = true);
        let joined = self.thread.take().expect("joined once").join();
        assert!(joined.is_ok() || std::thread::panicking());
    }
}

fn snapshot() -> NodeNumbers {
    let percentiles =
        Percentiles { p50_us: 98, p90_us: 120, p99_us: 189, p999_us: 400, max_us: 900 };
    let mut buckets = [0; BUCKETS_US.len() + 1];
    buckets[3] = 5;
    buckets[4] = 2;
    let group = |id, role| GroupRow {
        group: GroupId(id),
        role,
        leader: Some(NodeId(1)),
        term: Term(3),
        ..GroupRow::default()
    };
    let shard = |id| ShardNumbers {
        shard: ShardId(id),
        core: usize::from(id),
        groups: vec![
            group(u64::from(id) * 2 + 1, "leader"),
            group(u64::from(id) * 2 + 2, "follower"),
        ],
        stages: vec![StageHistogram {
            stage: Stage::Sync,
            count: 7,
            sum_us: 700,
            buckets,
            percentiles,
        }],
        wal: WalNumbers { sync_method: "dsync", sync: percentiles, ..WalNumbers::default() },
        ..ShardNumbers::default()
    };
    NodeNumbers {
        node: NodeId(1),
        name: "a".into(),
        shards: vec![shard(0), shard(1)],
        ..NodeNumbers::default()
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Goal: a healthy node is alive and ready, check by check.
#[test]
fn a_healthy_node_is_alive_and_ready() {
    let server = Server::start(16, PATIENCE);
    assert_eq!(
        server.get("/livez"),
        (200, "[+]started ok\n[+]shard-0 ok\n[+]shard-1 ok\nok\n".into())
    );
    let (status, body) = server.get("/readyz");
    assert_eq!(status, 200, "{body}");
    for check in ["groups", "leaders", "logs", "space"] {
        assert!(body.contains(&format!("[+]{check} ok\n")), "{body}");
    }
}

/// Goal: a stuck shard, a group without leader and a damaged one are each named.
#[test]
fn what_is_wrong_is_named() {
    let server = Server::start(16, PATIENCE);
    server.feed.change(|fake| {
        fake.answering = false;
        fake.node.shards[1].tick_age = Duration::from_secs(5);
        fake.node.shards[0].groups[1].leader = None;
        fake.node.shards[1].groups[0].damaged = true;
    });
    let (status, body) = server.get("/livez");
    assert_eq!(status, 503);
    assert!(body.contains("[-]shard-1 failed: its loop has not turned for 5000 ms\n"), "{body}");
    assert!(body.contains("[+]shard-0 ok\n"), "{body}");
    let (status, body) = server.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("[-]leaders failed: no known leader: group 2\n"), "{body}");
    assert!(body.contains("[-]logs failed: damaged: group 3\n"), "{body}");
}

/// Goal: metrics are complete OpenMetrics text, status is one JSON object.
#[test]
fn metrics_and_status_are_well_formed() {
    let server = Server::start(16, PATIENCE);
    let (status, body) = server.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "# TYPE ringraft_writes_done counter",
        "ringraft_writes_done_total{shard=\"0\"} 0",
        "ringraft_groups_led{shard=\"1\"} 1",
        "ringraft_wal_durable{shard=\"0\"} 1",
        "ringraft_wal_sync_seconds{shard=\"0\",quantile=\"0.99\"} 0.000189",
        "ringraft_write_stage_seconds_bucket{le=\"0.0001\",shard=\"0\",stage=\"sync\"} 5",
        "ringraft_write_stage_seconds_bucket{le=\"0.0002\",shard=\"0\",stage=\"sync\"} 7",
        "ringraft_write_stage_seconds_bucket{le=\"+Inf\",shard=\"0\",stage=\"sync\"} 7",
        "ringraft_write_stage_seconds_count{shard=\"0\",stage=\"sync\"} 7",
        "ringraft_refused_total{shard=\"1\",reason=\"busy\"} 0",
    ] {
        assert!(body.contains(&format!("{line}\n")), "{line} is missing in\n{body}");
    }
    assert!(body.ends_with("# EOF\n"));
    let (status, body) = server.get("/status");
    assert_eq!(status, 200);
    let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(json["shards"][1]["groups"][0]["group"], 3);
    assert_eq!(json["shards"][0]["wal"]["sync_us"]["p99"], 189);
    assert_eq!(json["durable"], true);
}

/// Goal: the level changes at run time; what is no level is refused with a list.
#[test]
fn the_log_level_changes() {
    let server = Server::start(16, PATIENCE);
    assert_eq!(server.ask("PUT", "/log-level", "debug\n"), (200, "debug\n".into()));
    assert_eq!(server.get("/log-level"), (200, "debug\n".into()));
    assert_eq!(server.log.level(), LogLevel::Debug);
    let (status, body) = server.ask("PUT", "/log-level", "loud");
    assert_eq!(status, 400);
    assert!(body.contains("use error, warn, info, debug, trace"), "{body}");
    assert_eq!(server.ask("PUT", "/log-level", &"x".repeat(65)).0, 413);
    assert_eq!(server.ask("POST", "/log-level", "info").0, 405);
    assert_eq!(server.ask("DELETE", "/status", "").0, 405);
    assert_eq!(server.get("/nowhere").0, 404);
}

/// Goal: a wish for snapshots reaches the shards as it was said, and the answer has all of it.
#[test]
fn snapshots_are_listed_and_asked_for() {
    let server = Server::start(16, PATIENCE);
    let (status, body) = server.get("/snapshots");
    assert_eq!(status, 200);
    let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&json["node"], &json["name"]), (&1.into(), &"a".into()), "{json}");
    let group = &json["groups"][0];
    assert_eq!((&group["activity"], &group["written_bytes"]), (&"taking".into(), &4096.into()));
    assert_eq!((&group["asked"], &group["end"]["took_ms"]), (&serde_json::Value::Null, &5.into()));
    assert_eq!(
        (&group["kept"][0]["behind"], &group["kept"][0]["named"]),
        (&5.into(), &true.into())
    );
    // There is no such file: its age isn't known, all else is.
    assert_eq!(group["kept"][0]["age_ms"], serde_json::Value::Null);
    let (status, body) = server.ask("POST", "/snapshots", "1, 7,7\n");
    assert_eq!(status, 200, "{body}");
    let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(json["groups"][0]["asked"], "wanted");
    assert_eq!(json["unknown_groups"], serde_json::json!([7]));
    server.ask("POST", "/snapshots", "");
    let wishes = server.feed.0.lock().expect("lock").wishes.clone();
    let these = SnapshotWish::Take(vec![GroupId(1), GroupId(7)]);
    assert_eq!(wishes, [SnapshotWish::Look, these, SnapshotWish::TakeAll]);
    for wrong in ["0", "one", "1;2", "-1"] {
        let (status, body) = server.ask("POST", "/snapshots", wrong);
        assert_eq!(status, 400, "{wrong}");
        assert!(body.contains("is not a group"), "{body}");
    }
    assert_eq!(server.ask("POST", "/snapshots", &"1".repeat(65 << 10)).0, 413);
    assert_eq!(server.ask("PUT", "/snapshots", "1").0, 405);
    // A shard that doesn't turn is named, and no group is called unknown then.
    server.feed.change(|fake| fake.answering = false);
    let (_, body) = server.ask("POST", "/snapshots", "7");
    let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(json["silent_shards"], serde_json::json!([1]));
    assert_eq!(json["unknown_groups"], serde_json::json!([]));
}

/// Goal: clients that are silent, send a byte now and then, or stop in the middle of a body are
/// closed; others are served meanwhile.
#[test]
fn slow_clients_are_closed() {
    let server = Server::start(16, Duration::from_millis(300));
    let started = Instant::now();
    let mut silent = server.connect();
    let mut half = server.connect();
    half.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n").expect("send");
    let mut trickle = server.connect();
    let mut stuck_body = server.connect();
    stuck_body
        .write_all(b"PUT /log-level HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nin")
        .expect("send");
    let trickled = loop {
        match trickle.write_all(b"x") {
            Ok(()) if started.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(()) => break false,
            Err(_) => break true,
        }
    };
    assert!(trickled, "a byte now and then kept a connection open");
    let mut rest = Vec::new();
    assert_eq!(silent.read_to_end(&mut rest).unwrap_or(0), 0);
    // hyper may answer 408 before it closes.
    let _ = half.read_to_end(&mut rest);
    let mut answer = String::new();
    let _ = stuck_body.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(server.get("/livez").0, 200);
}

/// Goal: connections over the limit are closed at once, and room that is given back is used.
#[test]
fn many_connections_are_bounded() {
    let server = Server::start(8, PATIENCE);
    let mut held: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    for socket in &mut held {
        socket.write_all(b"GET /log-level HTTP/1.1\r\nhost: x\r\n\r\n").expect("send");
        assert!(socket.read(&mut [0; 512]).expect("served") > 0);
    }
    for _ in 0..100 {
        let mut over = server.connect();
        // Closed, with or without a reset: never served.
        assert_eq!(over.read(&mut [0; 1]).unwrap_or(0), 0);
    }
    held.clear();
    let deadline = Instant::now() + Duration::from_secs(10);
    let served = std::iter::repeat_with(|| {
        let mut socket = server.connect();
        let _ = socket.write_all(b"GET /log-level HTTP/1.1\r\nhost: x\r\n\r\n");
        socket.read(&mut [0; 512]).unwrap_or(0) > 0
    });
    assert!(served.take_while(|_| Instant::now() < deadline).any(|served| served));
}

/// Goal: a client that asks and never reads is closed, and holds no more than a socket's buffer.
#[test]
fn a_client_that_never_reads_is_closed() {
    let server = Server::start(16, Duration::from_millis(300));
    server.feed.change(|fake| {
        let row = fake.node.shards[0].groups[0].clone();
        fake.node.shards[0].groups = vec![row; 50_000];
    });
    let mut deaf = server.connect();
    for _ in 0..8 {
        deaf.write_all(b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n").expect("send");
    }
    // The server gives up: writing to it fails some time after.
    let deadline = Instant::now() + Duration::from_secs(20);
    let gone = std::iter::repeat_with(|| {
        std::thread::sleep(Duration::from_millis(20));
        deaf.write_all(b"\r\n").is_err()
    });
    assert!(gone.take_while(|_| Instant::now() < deadline).any(|gone| gone));
    assert_eq!(server.get("/livez").0, 200);
}
