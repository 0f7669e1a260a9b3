//! Somebody creates groups, writes to them and deletes them, through the system group (decision
//! 0033).

use ringraft_net::client_wire::BatchWriter;
use ringraft_net::{Identity, Inbox, Kind, Outbox};
use ringraft_shard::{ConnectionId, Event};
use ringraft_types::command::{DeleteCommand, Envelope, Keys, Operation, PutCommand, TxnBuilder};
use ringraft_types::placement::{self, GroupRecord, NEXT_KEY};
use ringraft_types::{ClientId, Configuration, GroupId, Index, Phase, ShardId};

use crate::node::Place;
use crate::world::World;

/// Groups that are created in a run, at most.
const CREATED_MAX: u64 = 12;
/// The sessions of whoever does this: one for each write, for it isn't known what became of any.
const CLIENT: u128 = 0xad31_0000_0000_0000;
/// Nobody: what is answered here goes nowhere.
const NOWHERE: ConnectionId = ConnectionId { shard: ShardId(0), slot: u32::MAX, generation: 0 };

impl World {
    /// Asks whoever leads the system group for one more group or one less, or whoever leads one that
    /// was created for a write. Returns whether somebody was asked.
    pub(super) fn change_groups(&mut self) -> bool {
        let leaders = self.leaders();
        let system = leaders.iter().find(|it| it.1 == GroupId::SYSTEM).copied();
        let created: Vec<(usize, GroupId)> =
            leaders.into_iter().filter(|it| it.1 >= GroupId::FIRST_CREATED).collect();
        let draw = self.base.random.below(10);
        let Some((node, _)) = system.filter(|_| draw < 6 || created.is_empty()) else {
            if created.is_empty() {
                return false;
            }
            let (node, group) = self.base.random.pick(&created);
            let mut command = Vec::new();
            let put = PutCommand { key: b"written", value: &[7; 100], previous: false };
            put.encode(&mut command).expect("short");
            return self.inject(node, group, &command);
        };
        let mut command = Vec::new();
        if draw < 4 && self.placed < CREATED_MAX {
            let group = GroupId(GroupId::FIRST_CREATED.0 + self.placed);
            let Some(begins) = self.members_of(node, GroupId::SYSTEM) else { return false };
            let members = Configuration::decode(&begins).expect("the log holds it").0;
            // A group begins with nothing that is to go on to something else.
            if members.phase() != Phase::Stable {
                return false;
            }
            self.placed += 1;
            self.snoop.asked(group, members.voters());
            let record = GroupRecord { name: String::new(), is_deleted: false, begins }.encode();
            let (key, next) =
                (placement::group_key(group), placement::id_value(GroupId(group.0 + 1)));
            let puts = [(NEXT_KEY, &next[..]), (&key, &record)]
                .map(|(key, value)| Operation::Put(PutCommand { key, value, previous: false }));
            let txn = TxnBuilder { compares: &[], then: &puts, otherwise: &[] };
            txn.encode(&mut command).expect("short");
            self.say(format!("group {group} is to be created"));
        } else {
            let Some(last) = self.placed.checked_sub(1) else { return false };
            let group = GroupId(GroupId::FIRST_CREATED.0 + self.base.random.between(0, last));
            let key = placement::group_key(group);
            let delete = DeleteCommand { keys: Keys::One(&key), previous: false };
            delete.encode(&mut command).expect("short");
            self.say(format!("group {group} is to be deleted"));
        }
        self.inject(node, GroupId::SYSTEM, &command)
    }

    fn members_of(&self, node: usize, group: GroupId) -> Option<Vec<u8>> {
        let lane = (group.0 % u64::from(self.options.shards)) as usize;
        let Place::Running(running) = &self.nodes[node].places[lane] else { return None };
        Some(running.shard.members(group)?.payload.clone())
    }

    /// A node takes a write of a client that isn't there any more.
    fn inject(&mut self, node: usize, group: GroupId, command: &[u8]) -> bool {
        let lane = (group.0 % u64::from(self.options.shards)) as usize;
        self.injected += 1;
        let client = ClientId(CLIENT + u128::from(self.injected));
        let envelope = Envelope { client, sequence: 1, received: 0, opened: Index::ZERO };
        let mut outbox = Outbox::new(1 << 20);
        let mut batch = BatchWriter::begin(&mut outbox, Kind::Writes, group, Identity::default());
        batch.request(1, [&envelope.to_bytes(), command]);
        batch.finish();
        let Self { nodes, base, .. } = self;
        if nodes[node].is_paused {
            return false;
        }
        let now = nodes[node].clock.read(base.now);
        let Place::Running(running) = &mut nodes[node].places[lane] else { return false };
        let mut inbox = Inbox::opened();
        let bytes = outbox.take_all();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let space = inbox.space();
            let (taken, left) = rest.split_at(space.len().min(rest.len()));
            space[..taken.len()].copy_from_slice(taken);
            inbox.filled(taken.len());
            rest = left;
            while let Some(frame) = inbox.next_frame().expect("it was just written") {
                // A leader whose disk fails says so in its next turn.
                let _ = running.shard.collect(now, Event::ClientFrame { from: NOWHERE, frame });
            }
        }
        nodes[node].wake(base, lane, base.now);
        true
    }
}
