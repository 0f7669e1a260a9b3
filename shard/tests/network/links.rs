//! Links that go and come in every pattern, and writes that are under way meanwhile.

use super::{isolate, others, timeouts};
use crate::world::{GROUP, World};
use ringraft_net::lead_wire::Leading;
use ringraft_shard::SnapshotRules;
use ringraft_types::{NodeId, Status, Ticks};
use std::collections::BTreeMap;

/// A number below `below`, another one each time.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// Nodes in some order.
fn shuffled(mut nodes: Vec<NodeId>, state: &mut u64) -> Vec<NodeId> {
    for at in (1..nodes.len()).rev() {
        nodes.swap(at, draw(state, at as u64 + 1) as usize);
    }
    nodes
}

/// N04: nodes are cut off one after the other, until some or all are, and come back in another order:
/// soon one leads, and all have the same.
#[test]
fn n04_who_goes_and_comes_in_any_order_converges() {
    for seed in 1..9 {
        let mut state = seed;
        let mut world = World::new(seed, 5, 1);
        world.elect();
        let mut sequence = 0;
        for _ in 0..3 {
            let count = 2 + draw(&mut state, 4) as usize;
            let going = shuffled(world.nodes(), &mut state).split_off(5 - count);
            let mut out: Vec<NodeId> = Vec::new();
            for &node in &going {
                isolate(&mut world, node);
                out.push(node);
                world.run_for(Ticks(1_000 * (20 + draw(&mut state, 400))));
                if let Some(leader) = world.nodes().into_iter().find(|&it| world.leads(it, GROUP)) {
                    sequence += 1;
                    world.send_put(leader, 5, sequence, b"a", &sequence.to_le_bytes());
                }
            }
            for node in shuffled(going, &mut state) {
                out.retain(|&it| it != node);
                for other in others(&world, node) {
                    if !out.contains(&other) {
                        world.mend(node, other);
                    }
                }
                world.run_for(Ticks(1_000 * (20 + draw(&mut state, 400))));
            }
            world.run_for(timeouts(5));
            let leaders = world.nodes().into_iter().filter(|&it| world.leads(it, GROUP)).count();
            assert_eq!(leaders, 1, "seed {seed}");
            let leader = world.elect();
            assert_eq!(
                world.put(leader, 6 + u128::from(sequence), 1, b"b", b"1").status,
                Status::Ok
            );
            world.run_for(timeouts(2));
            world.assert_converged();
        }
    }
}

/// N09: what goes to one follower takes a hundred times as long: writes wait for the others only, nobody
/// is deposed, and that one follows.
#[test]
fn n09_a_distant_follower_holds_nobody_up() {
    let mut world = World::new(2, 3, 1);
    let leader = world.elect();
    let longest = |world: &mut World, from: u64| {
        let times = (from..from + 20).map(|sequence| {
            let before = world.now();
            assert_eq!(world.put(leader, 5, sequence, b"a", b"1").status, Status::Ok);
            world.now().since(before)
        });
        times.max().expect("some")
    };
    let near = longest(&mut world, 1);
    let distant = others(&world, leader)[1];
    for other in others(&world, distant) {
        world.delay(distant, other, Ticks::from_millis(20));
    }
    world.run_for(timeouts(2));
    let (elections, far) = (world.elections(), longest(&mut world, 21));
    assert!(far <= near, "{far} with a distant follower, {near} without");
    world.run_for(timeouts(20));
    assert!(world.leads(leader, GROUP) && world.elections() == elections);
    world.assert_converged();
}

/// R06: of three nodes, whatever links are left, whoever led and whoever lacks entries: where a majority
/// reaches each other, one of it leads soon and commits; also where the node with most entries is
/// the one that is cut off.
#[test]
fn r06_a_majority_that_reaches_each_other_has_a_leader() {
    const PAIRS: [(u32, u32); 3] = [(1, 2), (2, 3), (1, 3)];
    let mut seed = 0;
    for links in 0_u32..8 {
        for lags in 0..3 {
            seed += 1;
            let mut world = World::new(seed, 3, 1);
            let leader = world.elect();
            assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
            match lags {
                0 => {}
                // A follower lacks what is committed; or all lack what the leader has.
                1 => {
                    let without = others(&world, leader)[0];
                    isolate(&mut world, without);
                    assert_eq!(world.put(leader, 5, 2, b"a", b"2").status, Status::Ok);
                }
                _ => {
                    isolate(&mut world, leader);
                    world.send_put(leader, 5, 2, b"a", b"2");
                    world.run_for(Ticks::from_millis(20));
                }
            }
            let is_linked = |pair: usize| links & 1 << pair != 0;
            for (pair, (a, b)) in PAIRS.into_iter().enumerate() {
                match is_linked(pair) {
                    true => world.mend(NodeId(a), NodeId(b)),
                    false => world.cut(NodeId(a), NodeId(b)),
                }
            }
            world.run_for(timeouts(6));
            let leads: Vec<NodeId> =
                world.nodes().into_iter().filter(|&it| world.leads(it, GROUP)).collect();
            if links == 0 {
                assert_eq!(leads, [], "lags {lags}: nobody may lead alone");
                continue;
            }
            let [leader] = leads[..] else { panic!("links {links:b}, lags {lags}: {leads:?}") };
            assert_eq!(world.put(leader, 6, 1, b"b", b"1").status, Status::Ok);
            assert_ne!(world.get(leader, b"a").1, b"", "what was committed is there");
            world.heal();
            world.run_for(timeouts(5));
            world.assert_converged();
        }
    }
}

/// R08: writes go on while leadership is handed over, a leader loses its majority and steps down, and a
/// node is given a snapshot: what is said of each is true. Done is done, refused is not done, and only
/// what isn't known may be either.
#[test]
fn r08_what_is_said_of_writes_in_transitions_is_true() {
    for seed in 1..6 {
        let entries = 64;
        let rules = SnapshotRules { entries, ..SnapshotRules::default() };
        let mut world = World::with_rules(seed, 3, 1, rules);
        let mut leader = world.elect();
        let mut sent: BTreeMap<u64, (NodeId, u64)> = BTreeMap::new();
        let mut number = 0_u64;
        for step in 0..120 {
            for _ in 0..4 {
                number += 1;
                // Each by a client of its own: a refusal must not hold up the others.
                let key = number.to_be_bytes();
                let call = world.send_put(leader, 100 + u128::from(number), 1, &key, b"v");
                sent.insert(number, (leader, call));
            }
            match step % 30 {
                5 => {
                    world.send_lead(leader, GROUP, Leading::HandOver { to: None });
                }
                12 => isolate(&mut world, leader),
                20 => world.heal(),
                _ => {}
            }
            world.run_for(Ticks::from_millis(40));
            let now = world.nodes().into_iter().find(|&it| world.leads(it, GROUP));
            leader = now.unwrap_or(leader);
        }
        world.heal();
        world.run_for(timeouts(10));
        leader = world.elect();
        let mut counts = BTreeMap::new();
        for (number, (node, call)) in sent {
            let answer = world.take_reply(node, call);
            let (status, _) = answer.unwrap_or_else(|| panic!("write {number} is never answered"));
            *counts.entry(status as u8).or_insert(0) += 1;
            let found = world.get(leader, &number.to_be_bytes()).1;
            let is_there = found.ends_with(b"v");
            match status {
                Status::Ok => assert!(is_there, "seed {seed}: write {number} was done"),
                Status::Unknown => {}
                refused => assert!(!is_there, "seed {seed}: write {number} is {refused:?}"),
            }
        }
        let count = |status: Status| counts.get(&(status as u8)).copied().unwrap_or(0);
        assert!(count(Status::Ok) > 200 && count(Status::Unknown) > 0, "{counts:?}");
        world.assert_converged();
    }
}
