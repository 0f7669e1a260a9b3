//! The driver on real sockets: a server thread on loopback that answers everything at once.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringraft_net::client::{ChangeError, Outcome, Reason};
use ringraft_net::client_wire::{self, BatchWriter, LocateReply, Member, Reply};
use ringraft_net::handshake::Host;
use ringraft_net::members_wire::{self, ChangeAsk, MemberChange, Members, MembersReply, Refusal};
use ringraft_net::status::NodeStatus;
use ringraft_net::{Client, ClientError, ClientOptions, Hello, Identity, Inbox, Kind, Outbox};
use ringraft_net::{Frame, Role, Welcome};
use ringraft_types::command::Envelope;
use ringraft_types::{
    ClusterId, Configuration, GroupId, Incarnation, Index, MemoryLevel, NodeId, Phase, Revision,
    ShardId, Start, Status, Term, Ticks,
};

const GROUP: GroupId = GroupId(1);
const SHARDS: u16 = 2;
const PATIENCE: Duration = Duration::from_secs(20);

/// A node that leads group 1 and echoes every command.
struct Echo {
    address: String,
    connections: Arc<AtomicUsize>,
}

impl Echo {
    /// Closes each of the first `drops` connections after some bytes of requests.
    fn start(listen: &str, drops: usize) -> Self {
        let listener = TcpListener::bind(listen).expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (own, count) = (address.clone(), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let is_dropped = count.fetch_add(1, Ordering::Relaxed) < drops;
                let own = own.clone();
                thread::spawn(move || serve(stream, &own, is_dropped));
            }
        });
        Self { address, connections }
    }

    fn client(&self) -> Client {
        Client::connect(ClientOptions::new(vec![self.address.clone()])).expect("good options")
    }
}

/// Questions about members that were answered.
static QUESTIONS: AtomicUsize = AtomicUsize::new(0);

/// Node 1 votes, and one node listens; of a joint configuration node 2 votes as well.
fn in_force(phase: Phase, learner: u32) -> Members {
    let outgoing = if phase.is_joint() { vec![NodeId(1), NodeId(2)] } else { Vec::new() };
    let (voters, learners) = (vec![NodeId(1)], vec![NodeId(learner)]);
    let replaces = if phase.is_joint() { Index(5) } else { Index::ZERO };
    let configuration = Configuration::new(phase, voters, outgoing, learners, replaces);
    let configuration = configuration.expect("sound");
    let member = |node| members_wire::Member {
        node,
        incarnation: Incarnation(0),
        peer: format!("p:{node}"),
        client: format!("c:{node}"),
    };
    Members { members: configuration.members().map(member).collect(), configuration }
}

fn identity() -> Identity {
    Identity { cluster: ClusterId(1), incarnation: Incarnation(1), node: NodeId(1) }
}

fn serve(mut stream: TcpStream, address: &str, is_dropped: bool) {
    stream.set_nodelay(true).expect("a socket");
    let mut bytes = [0; 128];
    if stream.read_exact(&mut bytes).is_err() {
        return;
    }
    let hello = Hello::decode(&bytes).expect("a greeting");
    let start = Start { number: 1, nonce: 7 };
    let host = Host { identity: identity(), shards: SHARDS, port: Role::Client, start };
    let shard = hello.wanted_shard.unwrap_or(ShardId(0));
    let welcome = Welcome::new(&host, shard, hello.judge(&host));
    stream.write_all(&welcome.encode()).expect("a client that reads");
    let (mut inbox, mut outbox) = (Inbox::opened(), Outbox::new(1 << 20));
    loop {
        match stream.read(inbox.space()) {
            Ok(0) | Err(_) => return,
            Ok(count) => inbox.filled(count),
        }
        while let Some(frame) = inbox.next_frame().expect("intact") {
            if is_dropped && matches!(frame.header.kind, Kind::Writes | Kind::Change) {
                return;
            }
            answer(&frame, shard, address, &mut outbox);
        }
        while let Some(bytes) = outbox.take_for_send() {
            match stream.write(bytes) {
                Ok(count) => outbox.sent(count),
                Err(_) => return,
            }
        }
    }
}

fn answer(frame: &Frame<'_>, shard: ShardId, address: &str, outbox: &mut Outbox) {
    let (group, kind) = (frame.header.group, frame.header.kind);
    match kind {
        Kind::Writes | Kind::Reads => {
            let requests = match kind {
                Kind::Writes => client_wire::writes(frame).expect("writes"),
                _ => client_wire::reads(frame).expect("reads"),
            };
            let mut batch = BatchWriter::begin(outbox, Kind::Replies, group, identity());
            for request in requests.iter() {
                let body = match kind {
                    Kind::Writes => Envelope::decode(request.payload).expect("whole").1,
                    _ => request.payload,
                };
                if !batch.fits(body.len()) {
                    batch.finish();
                    batch = BatchWriter::begin(outbox, Kind::Replies, group, identity());
                }
                let (revision, index) = (Revision(2), Index(3));
                let (call, hint) = (request.call, NodeId(0));
                batch.reply(&Reply {
                    call,
                    status: Status::Ok,
                    flags: 0,
                    revision,
                    index,
                    hint,
                    body,
                });
            }
            batch.finish();
        }
        Kind::Locate => {
            let member = Member { node: NodeId(1), shard: ShardId(1), address: address.to_owned() };
            let reply = LocateReply {
                status: Status::Ok,
                leader: NodeId(1),
                ready: true,
                term: Term(1),
                applied: Index(1),
                members: vec![member],
            };
            reply.write(outbox, group, identity());
        }
        Kind::Members => {
            let call = members_wire::members(frame).expect("a question");
            // A change is joint at first, then committed without being through, then through.
            let asked = QUESTIONS.fetch_add(1, Ordering::Relaxed);
            let (phase, is_committed) = match asked {
                0 => (Phase::Joint, true),
                1 => (Phase::Stable, false),
                _ => (Phase::Stable, true),
            };
            let members = in_force(phase, 4).encode().expect("short addresses");
            let index = Index(if asked < 3 { 7 } else { 9 });
            let reply = MembersReply {
                is_leader: true,
                is_committed,
                index,
                members: &members,
                ..MembersReply::refusal(call, Status::Ok, NodeId(1))
            };
            reply.write(outbox, group, identity());
        }
        Kind::Change => {
            // Whatever is asked for, the fourth node listens: one is late.
            let ask = ChangeAsk::read(frame).expect("a change");
            let members = in_force(Phase::Stable, 4).encode().expect("short addresses");
            let reply = MembersReply {
                refusal: Some(Refusal::Conflict),
                is_leader: true,
                index: Index(7),
                members: &members,
                sentence: "one is late",
                ..MembersReply::refusal(ask.call, Status::Refused, NodeId(1))
            };
            reply.write(outbox, group, identity());
        }
        Kind::Status => {
            let status = NodeStatus {
                node: NodeId(1),
                shard,
                name: "echo".into(),
                uptime: Ticks(1),
                sync_p50_us: 1,
                sync_p99_us: 2,
                durable: true,
                is_paused: false,
                priority: 0,
                spreads: false,
                data_bytes: 1 << 20,
                data_bytes_max: 2 << 20,
                memory: MemoryLevel::Normal,
                groups: Vec::new(),
            };
            status.write(outbox, identity());
        }
        other => panic!("the client sent {other:?}"),
    }
}

/// A poll that may not wait still sends and receives: who has other things to do gets its answers.
#[test]
fn polls_without_waiting_get_everywhere() {
    let echo = Echo::start("127.0.0.1:0", 0);
    let mut client = echo.client();
    let call = client.submit_write(GROUP, b"now", PATIENCE).expect("room");
    let deadline = Instant::now() + PATIENCE;
    let mut outcomes = Vec::new();
    while outcomes.is_empty() && Instant::now() < deadline {
        let completions = client.poll(Duration::ZERO).expect("a working queue");
        outcomes
            .extend(completions.map(|done| (done.call, matches!(done.outcome, Outcome::Done(_)))));
    }
    assert_eq!(outcomes, [(call, true)]);
}

/// Blocking calls get their answers, over IPv4, IPv6 and a name.
#[test]
fn blocking_calls() {
    for listen in ["127.0.0.1:0", "[::1]:0", "localhost:0"] {
        let echo = Echo::start(listen, 0);
        let mut client = echo.client();
        assert_eq!(client.write(GROUP, b"put").expect("done").body, b"put");
        assert_eq!(client.read(GROUP, b"get").expect("done").body, b"get");
        assert_eq!(client.locate(GROUP).expect("done").leader, NodeId(1));
        assert_eq!(client.write(GROUP, &[7; 1 << 20]).expect("done").body.len(), 1 << 20);
    }
}

/// Every shard of the node is asked, and only one endpoint is given.
#[test]
fn status_of_all_shards() {
    let echo = Echo::start("127.0.0.1:0", 0);
    let all = echo.client().status_all();
    let shards: Vec<_> = all.into_iter().map(|status| status.expect("an answer").shard.0).collect();
    assert_eq!(shards, [0, 1]);
}

/// Thousands of calls under way at once all complete, through a window of 1,024 and sockets that
/// are full at times; every answer belongs to its call.
#[test]
fn pipelined_calls() {
    let echo = Echo::start("127.0.0.1:0", 0);
    let mut client = echo.client();
    let mut expected = std::collections::HashMap::new();
    for at in 0..5_000u32 {
        let command = vec![at as u8; (at as usize * 7) % 3_000];
        let call = match at % 2 {
            0 => client.submit_write(GROUP, &command, PATIENCE),
            _ => client.submit_read(GROUP, &command, PATIENCE),
        };
        expected.insert(call.expect("room"), command);
    }
    let until = Instant::now() + PATIENCE;
    while !expected.is_empty() && Instant::now() < until {
        for completed in client.poll(Duration::from_millis(100)).expect("a working queue") {
            let command = expected.remove(&completed.call).expect("a call of ours, once");
            let Outcome::Done(answer) = completed.outcome else { panic!("{completed:?}") };
            assert_eq!(answer.body, command);
        }
    }
    assert!(expected.is_empty(), "{} calls never completed", expected.len());
    assert_eq!(echo.connections.load(Ordering::Relaxed), 2, "one to ask, one to the shard");
}

/// A connection that breaks under way is made anew, and the calls complete.
#[test]
fn broken_connections_are_made_anew() {
    let echo = Echo::start("127.0.0.1:0", 3);
    let mut client = echo.client();
    assert_eq!(client.write(GROUP, b"put").expect("done").body, b"put");
    assert!(echo.connections.load(Ordering::Relaxed) > 3);
}

/// Nobody listens: the deadline tells so, and the trouble names the address.
#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let mut options = ClientOptions::new(vec![address.clone()]);
    options.timeout = Duration::from_millis(100);
    let mut client = Client::connect(options).expect("good options");
    let error = client.write(GROUP, b"put").expect_err("nobody listens");
    assert!(matches!(error, ClientError::NotDone { reason: Reason::Deadline, .. }));
    assert!(error.to_string().contains(&address), "{error}");
}

/// Options that make no sense are refused by name.
#[test]
fn bad_options() {
    let refused = |endpoints: &[&str]| {
        let endpoints = endpoints.iter().map(|it| (*it).to_owned()).collect();
        Client::connect(ClientOptions::new(endpoints)).expect_err("refused")
    };
    assert!(matches!(refused(&[]), ClientError::NoEndpoint));
    assert!(matches!(refused(&["host"]), ClientError::Endpoint { .. }));
    assert!(matches!(refused(&["host:port"]), ClientError::Endpoint { .. }));
}

/// A change that asks for one node to listen besides the voter.
fn listens(learner: u32) -> MemberChange {
    let (is_held, allow_majority, allow_unready) = (false, false, false);
    let target = in_force(Phase::Stable, learner);
    MemberChange::To { target, is_held, allow_majority, allow_unready }
}

/// A change whose answer was lost, and that is refused when it is sent again, was made if what is in
/// force is what was asked for; else nobody knows. One that was never in doubt is refused.
#[test]
fn a_change_that_lost_its_answer() {
    let change = |drops, learner| {
        let mut client = Echo::start("127.0.0.1:0", drops).client();
        client.change_members(GROUP, Index(5), &listens(learner))
    };
    for drops in [0, 2] {
        assert_eq!(change(drops, 4).expect("it is in force").index, Index(7));
    }
    match change(0, 3) {
        Err(ChangeError::Refused { refusal: Refusal::Conflict, sentence, found }) => {
            assert_eq!((&*sentence, found.index), ("one is late", Index(7)));
        }
        other => panic!("{other:?}"),
    }
    match change(2, 3) {
        Err(ChangeError::Overtaken { found }) => assert_eq!(found.index, Index(7)),
        other => panic!("{other:?}"),
    }
}

/// Who waits for a change hears of each step, and is told when it is through; not before the entry
/// that it waits for is there, and not for longer than it wants.
#[test]
fn a_change_is_waited_for() {
    let echo = Echo::start("127.0.0.1:0", 0);
    let mut client = echo.client();
    let mut heard = Vec::new();
    let tell = |found: &ringraft_net::client::GroupMembers| {
        heard.push((found.members.configuration.phase(), found.is_committed));
    };
    let found = client.wait_settled(GROUP, Index(8), PATIENCE, tell).expect("it comes through");
    assert_eq!((found.index, found.is_settled()), (Index(9), true));
    let (joint, stable) = (Phase::Joint, Phase::Stable);
    assert_eq!(heard, [(joint, true), (stable, false), (stable, true), (stable, true)]);
    let soon = Duration::from_millis(100);
    match client.wait_settled(GROUP, Index(10), soon, |_| {}) {
        Err(ChangeError::NotSettled { found }) => assert_eq!(found.index, Index(9)),
        other => panic!("{other:?}"),
    }
    let found = client.members_at(&echo.address, GROUP).expect("the node answers");
    assert_eq!(found.index, Index(9));
}
