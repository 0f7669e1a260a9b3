//! The handshake: every refusal, and bytes that are none.

use proptest::prelude::*;
use ringraft_net::handshake::{HANDSHAKE_BYTES, Host};
use ringraft_net::wire::layout_hash;
use ringraft_net::{Hello, Identity, RefusalCode, Role, Welcome};
use ringraft_types::{ClientId, ClusterId, Incarnation, Met, NodeId, ShardId, Start};

fn identity(node: u32) -> Identity {
    Identity { cluster: ClusterId(1 << 100), incarnation: Incarnation(7), node: NodeId(node) }
}

fn host(port: Role) -> Host {
    Host { identity: identity(2), shards: 4, port, start: Start { number: 6, nonce: 0xBEEF } }
}

const MET: Met = Met {
    incarnation: Incarnation(0x1C),
    start: Start { number: 4, nonce: 0x5EED_0000_0000_0001 },
};

fn peer() -> Hello {
    let start = Start { number: 5, nonce: 0xF00D };
    Hello::from_peer(identity(1), start, ShardId(3), NodeId(2), ShardId(1))
}

fn client() -> Hello {
    Hello::from_client(ClientId(5), None, None, None)
}

/// Reseals what was changed.
fn forged(bytes: [u8; HANDSHAKE_BYTES], at: usize, value: u8) -> [u8; HANDSHAKE_BYTES] {
    let mut bytes = bytes;
    bytes[at] = value;
    let checksum = crc32fast::hash(&bytes[..HANDSHAKE_BYTES - 4]);
    bytes[HANDSHAKE_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Greetings and answers come out as they went in.
#[test]
fn round_trips() {
    let cluster = Some(identity(1).cluster);
    let exact = Hello::from_client(ClientId(5), cluster, Some(NodeId(2)), Some(ShardId(0)));
    let again = Hello { met: Some(MET), ..peer() };
    for hello in [peer(), again, client(), exact] {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        assert_eq!(hello.judge(&host(hello.role)), Ok(1));
    }
    for verdict in [Ok(1), Err(RefusalCode::Busy), Err(RefusalCode::WrongCluster)] {
        let welcome = Welcome::new(&host(Role::Peer), ShardId(1), verdict);
        assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
        let again = Welcome { met: Some(MET), ..welcome };
        assert_eq!(Welcome::decode(&again.encode()), Ok(again));
    }
    let told = Welcome::new(&host(Role::Client), ShardId(1), Ok(1)).start;
    assert_eq!(told, Start::default(), "a client is told no start");
}

/// Each thing that stands against a connection has its own code.
#[test]
fn refusals() {
    let judge = |change: fn(&mut Hello)| {
        let mut hello = peer();
        change(&mut hello);
        hello.judge(&host(Role::Peer)).expect_err("refused")
    };
    assert_eq!(judge(|it| it.sender.cluster = ClusterId(9)), RefusalCode::WrongCluster);
    assert_eq!(judge(|it| it.sender.cluster = ClusterId(0)), RefusalCode::WrongCluster);
    assert_eq!(judge(|it| it.wanted_node = NodeId(9)), RefusalCode::WrongNode);
    assert_eq!(judge(|it| it.version_max = 0), RefusalCode::VersionTooOld);
    assert_eq!(judge(|it| it.version_min = 2), RefusalCode::VersionTooNew);
    assert_eq!(judge(|it| it.layout_hash ^= 1), RefusalCode::LayoutDiffers);
    assert_eq!(judge(|it| it.wanted_shard = Some(ShardId(4))), RefusalCode::NoSuchShard);
    assert_eq!(peer().judge(&host(Role::Client)), Err(RefusalCode::Malformed));
    assert_eq!(client().judge(&host(Role::Peer)), Err(RefusalCode::Malformed));
    let wrong = Hello::from_client(ClientId(5), Some(ClusterId(9)), None, None);
    assert_eq!(wrong.judge(&host(Role::Client)), Err(RefusalCode::WrongCluster));
    // A connection for snapshots comes to the same port, under the same conditions.
    let bulk = Hello { role: Role::Bulk, ..peer() };
    assert_eq!(Hello::decode(&bulk.encode()), Ok(bulk));
    assert_eq!(bulk.judge(&host(Role::Peer)), Ok(1));
    assert_eq!(bulk.judge(&host(Role::Client)), Err(RefusalCode::Malformed));
    let other = Hello { layout_hash: 1, ..bulk };
    assert_eq!(other.judge(&host(Role::Peer)), Err(RefusalCode::LayoutDiffers));
    let newer = Hello { version_max: 9, ..peer() };
    assert_eq!(newer.judge(&host(Role::Peer)), Ok(1), "a newer end speaks the older version");
}

/// The end that greeted notices when another one answers than was meant.
#[test]
fn the_answer_is_judged_too() {
    let welcome = Welcome::new(&host(Role::Peer), ShardId(1), Ok(1));
    assert_eq!(welcome.judge(&peer()), Ok(1));
    assert_eq!(welcome.judge(&client()), Ok(1));
    let judge = |change: fn(&mut Welcome)| {
        let mut changed = welcome;
        change(&mut changed);
        changed.judge(&peer()).expect_err("refused")
    };
    assert_eq!(judge(|it| it.verdict = Err(RefusalCode::Busy)), RefusalCode::Busy);
    assert_eq!(judge(|it| it.sender.cluster = ClusterId(9)), RefusalCode::WrongCluster);
    assert_eq!(judge(|it| it.sender.node = NodeId(9)), RefusalCode::WrongNode);
    assert_eq!(judge(|it| it.layout_hash ^= 1), RefusalCode::LayoutDiffers);
    assert_eq!(judge(|it| it.shard = ShardId(0)), RefusalCode::NoSuchShard);
}

/// Every refusal says what it means and how to mend it.
#[test]
fn every_refusal_has_a_sentence() {
    let codes: Vec<_> = (0..=255).filter_map(RefusalCode::from_u8).collect();
    assert_eq!(codes.len(), 10);
    for code in codes {
        assert!(code.to_string().contains(": "), "{code:?} names no cure");
    }
}

/// Damage, unknown roles and values that contradict each other are malformed.
#[test]
fn malformed() {
    let bad = Err(RefusalCode::Malformed);
    let mut bytes = peer().encode();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Hello::decode(&bytes), bad, "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for (at, value) in [(0, 0), (4, 9), (6, 0), (6, 4), (7, 1), (24, 0), (28, 0), (47, 1), (112, 1)]
    {
        assert_eq!(Hello::decode(&forged(peer().encode(), at, value)), bad, "byte {at}");
    }
    assert_eq!(Hello::decode(&forged(peer().encode(), 72, 0)), bad, "a peer that never started");
    assert_eq!(Hello::decode(&forged(peer().encode(), 96, 1)), bad, "met, but in no life");
    assert_eq!(Hello::decode(&forged(client().encode(), 24, 1)), bad, "a client with a node id");
    assert_eq!(Hello::decode(&forged(client().encode(), 72, 1)), bad, "a client with a start");
    assert_eq!(Hello::decode(&forged(client().encode(), 88, 1)), bad, "a client that met a node");
    let welcome = Welcome::new(&host(Role::Peer), ShardId(1), Ok(1)).encode();
    for (at, value) in [(0, 0), (4, 0), (4, 2), (5, 3), (5, 77), (6, 1), (72, 1), (88, 1)] {
        let error = Welcome::decode(&forged(welcome, at, value)).expect_err("malformed");
        assert_eq!(error, RefusalCode::Malformed, "byte {at}");
    }
}

/// The layout of version 1 never changes.
#[test]
fn golden_bytes() {
    let bytes = peer().encode();
    assert_eq!(&bytes[..8], b"RRHI\x01\x01\x01\x00");
    assert_eq!(&bytes[8..24], &(1u128 << 100).to_le_bytes());
    assert_eq!(bytes[24..44], [1, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3, 0]);
    assert_eq!(bytes[48..56], layout_hash().to_le_bytes());
    assert_eq!(bytes[72..88], [5, 0, 0, 0, 0, 0, 0, 0, 0x0D, 0xF0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[88..124], [0; 36]);
    let met = [0x1C, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0xED, 0x5E];
    assert_eq!(Hello { met: Some(MET), ..peer() }.encode()[88..112], met);
    let bytes = Welcome::new(&host(Role::Peer), ShardId(1), Err(RefusalCode::Busy)).encode();
    assert_eq!(&bytes[..8], b"RRWE\x00\x08\x00\x00");
    assert_eq!(bytes[24..40], [2, 0, 0, 0, 4, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[48..64], [6, 0, 0, 0, 0, 0, 0, 0, 0xEF, 0xBE, 0, 0, 0, 0, 0, 0]);
    let refused = Welcome::new(&host(Role::Peer), ShardId(1), Err(RefusalCode::RolledBack));
    let bytes = Welcome { met: Some(MET), ..refused }.encode();
    assert_eq!((bytes[5], &bytes[64..88]), (10, &met[..]));
    assert_eq!(bytes[88..124], [0; 36]);
}

proptest! {
    /// Random bytes are malformed, and never panic.
    #[test]
    fn random_bytes_are_malformed(bytes in proptest::array::uniform32(any::<[u8; 4]>())) {
        let bytes: [u8; HANDSHAKE_BYTES] = bytes.concat().try_into().expect("128 bytes");
        prop_assert!(Hello::decode(&bytes).is_err());
        prop_assert!(Welcome::decode(&bytes).is_err());
    }
}
