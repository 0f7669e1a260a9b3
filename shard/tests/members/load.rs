//! Members that change under load, while nodes fail.

use super::*;

/// The longest time without an acknowledged write, in the cluster's own time: five election timeouts.
const GAP_MAX: Ticks = Ticks::from_millis(1_500);

/// Writes of one session, which forgets none of its answers.
const SESSION: u64 = 1_000;

/// Clients that write without a pause, to whoever leads, and try again what got no answer.
struct Load {
    next: u64,
    acknowledged_at: Ticks,
    longest: Ticks,
}

impl Load {
    fn begin(world: &World) -> Self {
        Self { next: 1, acknowledged_at: world.now(), longest: Ticks::ZERO }
    }

    /// Goes on for so long.
    fn run(&mut self, world: &mut World, span: Ticks) {
        let until = world.now().after(span);
        while world.now() < until {
            let leader = world.running().into_iter().find(|&node| world.leads(node, GROUP));
            let call = leader.map(|leader| {
                let (key, value) = (self.next.to_string(), format!("v{};", self.next));
                let (client, sequence) =
                    ((self.next - 1) / SESSION + 1, (self.next - 1) % SESSION + 1);
                let (key, value) = (key.as_bytes(), value.as_bytes());
                (leader, world.send_put(leader, client.into(), sequence, key, value))
            });
            world.run_for(Ticks::from_millis(5));
            let Some((leader, call)) = call else { continue };
            if let Some((Status::Ok, _)) = world.take_reply(leader, call) {
                let gap = world.now().since(self.acknowledged_at);
                self.longest = self.longest.max(gap);
                self.acknowledged_at = world.now();
                self.next += 1;
            }
        }
        let gap = world.now().since(self.acknowledged_at);
        self.longest = self.longest.max(gap);
    }

    /// The change is made by whoever leads, and a node fails so long after that; zero: whoever made
    /// it. It comes back a second later. If the change was lost it is made again.
    fn change(&mut self, world: &mut World, ask: &Ask<'_>, victim: u32, after: Ticks) {
        let mut is_struck = false;
        for _ in 0..400 {
            self.run(world, Ticks::from_millis(25));
            let leader = world.running().into_iter().find(|&node| world.leads(node, GROUP));
            let Some(leader) = leader else { continue };
            if is_struck && is_so(world, leader, ask) {
                return;
            }
            if ask.at(world, leader).is_ok() && !is_struck {
                is_struck = true;
                self.run(world, after);
                let victim = if victim == 0 { leader } else { NodeId(victim) };
                world.kill(victim, |sector| sector % 2 == 0);
                self.run(world, SECOND);
                world.start(victim);
            }
        }
        panic!("the change to {:?} isn't made within ten seconds", ask.voters);
    }
}

/// Whether these are the members, and nothing is under way.
fn is_so(world: &mut World, leader: NodeId, ask: &Ask<'_>) -> bool {
    let members = world.shard(leader).members(GROUP).expect("the group is here");
    let known = &members.configuration;
    let is_done = known.voters() == ids(ask.voters) && known.learners() == ids(ask.learners);
    is_done && !known.is_joint()
}

/// Three, five, three, one, three, under load: at every step a node fails that isn't needed, the leader
/// where it isn't, and comes back. No write waits longer than for another leader, none is lost, and
/// everybody ends with the same members (M11, A25).
#[test]
fn m11_three_five_three_one_three_under_load_and_faults() {
    for seed in 70..74 {
        let mut world = World::new(seed, 3, 1);
        world.elect();
        world.join(NodeId(4));
        world.join(NodeId(5));
        let mut load = Load::begin(&world);
        load.run(&mut world, SECOND);
        // Voters, learners, and who fails while it is made; zero: the leader.
        let steps: [(&[u32], &[u32], u32); 8] = [
            (&[1, 2, 3], &[4, 5], 0),
            (&[1, 2, 3, 4, 5], &[], 0),
            (&[3, 4, 5], &[], 1),
            (&[5], &[], 3),
            (&[5], &[1, 2], 4),
            (&[1, 5], &[2], 3),
            (&[1, 2, 5], &[], 4),
            (&[1, 2, 5], &[3], 0),
        ];
        for (step, (voters, learners, victim)) in steps.into_iter().enumerate() {
            let after = Ticks(step as u64 * 150);
            load.change(&mut world, &Ask::of(voters, learners), victim, after);
            load.run(&mut world, SECOND);
            assert!(load.longest <= GAP_MAX, "seed {seed}, step {step}: {} us", load.longest.0);
        }
        assert!(load.next > 1_000, "{} writes", load.next);
        let leader = world.elect();
        check_writes(&mut world, leader, load.next - 1);
        world.run_for(SECOND);
        for node in ids(&[1, 2, 3, 5]) {
            assert_eq!(roles(&mut world, node), (ids(&[1, 2, 5]), ids(&[3])), "node {node}");
        }
    }
}

/// A learner that is cut off, and one that is far behind, isn't made a voter, and the refusal says which
/// of the two it is; when it has caught up it is (M04).
#[test]
fn m04_a_learner_that_is_gone_or_behind_is_not_promoted() {
    let mut world = World::new(75, 3, 1);
    world.elect();
    world.join(NodeId(4));
    let leader = Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
    for node in ids(&[1, 2, 3]) {
        world.cut(NodeId(4), node);
    }
    world.run_for(SECOND);
    let promote = Ask::of(&[1, 2, 3, 4], &[]);
    let gone = Err(ChangeRefused::Unreachable { node: NodeId(4) });
    assert_eq!(promote.at(&mut world, leader), gone);
    for client in 1..=3 {
        for sequence in 1..=1_000 {
            let reply = world.put(leader, client, sequence, b"key", &[7; 1_000]);
            assert_eq!(reply.status, Status::Ok);
        }
    }
    world.slow_links(2_000);
    world.heal();
    world.run_for(Ticks::from_millis(300));
    let refused = promote.at(&mut world, leader);
    let is_behind = matches!(refused, Err(ChangeRefused::Behind { node: NodeId(4), matched, commit })
        if matched.0 + 1_000 < commit.0);
    assert!(is_behind, "{refused:?}");
    world.run_for(Ticks::from_millis(5_000));
    promote.soon(&mut world);
    assert_eq!(roles(&mut world, NodeId(4)).0, ids(&[1, 2, 3, 4]));
}
