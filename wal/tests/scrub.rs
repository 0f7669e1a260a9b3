//! Reading the log through to find rot before somebody needs what it hit (decision 0013).

mod disk;

use disk::*;
use ringraft_types::{GroupId, Index, Sequence, Term};
use ringraft_wal::device::memory::{Effect, Fault, OperationKind};
use ringraft_wal::{ReadError, Scrubbed};

/// Two groups in five blocks, settled; the second has a vote in the first block only.
fn written() -> Bench {
    let mut bench = Bench::new(settings());
    bench.append(&hard(2, 3, 1, 0));
    bench.block(1, 1, 5, 1);
    bench.append_run(2, 1, 2, 1, 100);
    bench.block(1, 6, 9, 1);
    bench.block(2, 3, 4, 1);
    bench.block(1, 10, 14, 2);
    bench.settle();
    bench
}

/// Reads the log through once.
fn pass(bench: &mut Bench) -> Vec<Scrubbed> {
    let mut found = Vec::new();
    while bench.log.scrub_next() {
        let scrubbed = loop {
            bench.turn();
            if let Some(scrubbed) = bench.log.take_scrubbed() {
                break scrubbed;
            }
        };
        found.push(scrubbed);
    }
    found
}

fn rotten(found: &[Scrubbed]) -> Vec<(Sequence, Vec<GroupId>)> {
    let one = |scrubbed: &Scrubbed| match scrubbed.rot? {
        ReadError::Rot { sequence, .. } => Some((sequence, scrubbed.groups.clone())),
        ReadError::NotHeld => panic!("it was read"),
    };
    found.iter().filter_map(one).collect()
}

/// A pass reads every durable block once, of all lives, and the next begins anew; what isn't durable
/// waits for it.
#[test]
fn a_pass_reads_every_durable_block() {
    let mut bench = written();
    for _ in 0..2 {
        let all = blocks(&bench.device);
        let found = pass(&mut bench);
        assert_eq!(found.len(), all.len());
        let bytes: u64 = all.iter().map(|block| u64::from(block.header.length)).sum();
        assert_eq!(found.iter().map(|scrubbed| scrubbed.bytes).sum::<u64>(), bytes);
        assert!(rotten(&found).is_empty());
        bench.restart();
        bench.settle();
    }
    let before = blocks(&bench.device).len();
    bench.device.hold(true);
    bench.append_run(1, 15, 15, 2, 100);
    bench.turn();
    bench.device.hold(false);
    let mut seen = 0;
    while seen < before && bench.log.scrub_next() {
        while bench.log.take_scrubbed().is_none() {
            bench.turn();
        }
        seen += 1;
    }
    assert_eq!(seen, before);
}

/// S03: whatever bit of a block flips that isn't padding, a pass finds that block, and names the
/// groups that lost entries there.
#[test]
fn s03_a_pass_finds_any_bit_that_flipped() {
    let mut bench = written();
    let mut named = [0; 3];
    for block in blocks(&bench.device) {
        let used = block.header.used() as u64 * 8;
        for bit in (0..used).step_by(389) {
            let at = block.offset * 8 + bit;
            bench.device.flip_bit(block.file, at);
            let found = rotten(&pass(&mut bench));
            bench.device.flip_bit(block.file, at);
            assert_eq!(found.len(), 1, "bit {bit} of block {}", block.header.sequence);
            assert_eq!(found[0].0, block.header.sequence);
            let groups: Vec<GroupId> = [1, 2]
                .map(GroupId)
                .into_iter()
                .filter(|&group| !bench.log.held_in(group, found[0].0).is_empty())
                .collect();
            assert!(found[0].1.iter().all(|group| groups.contains(group)), "bit {bit}: {found:?}");
            named[found[0].1.len()] += 1;
            // Records of the node were written again elsewhere; they are a block more.
            bench.settle();
        }
    }
    assert!(named.iter().all(|&times| times > 0), "none, one and both lost entries: {named:?}");
}

/// S08: a group's newest term and vote lie in a block that rots: they are written again from memory,
/// so the next start has them.
#[test]
fn s08_a_vote_that_rots_is_written_again() {
    let mut bench = written();
    let first = blocks(&bench.device).into_iter().find(|block| {
        block.directory.iter().any(|item| item.group == GroupId(2) && item.hard_term == Term(3))
    });
    let first = first.expect("the vote is there");
    bench.device.flip_bit(first.file, (first.offset + first.header.head() as u64 + 50) * 8);
    assert_eq!(rotten(&pass(&mut bench)).len(), 1);
    bench.settle();
    let recovered = bench.restart();
    let group = &recovered.groups[&GroupId(2)];
    assert_eq!((group.hard, group.hard_lost), (Some((Term(3), 1, Index(0))), None));
    assert!(!recovered.rot.is_empty());
}

/// A read that fails or misleads once says nothing, nor do any number that are interrupted.
#[test]
fn one_bad_read_is_no_rot() {
    let mut bench = written();
    for (effect, count) in
        [(Effect::Errno(libc::EIO), 1), (Effect::Errno(libc::EINTR), 5), (Effect::Short(512), 5)]
    {
        bench.device.inject(Fault { on: OperationKind::Read, after: 0, count, effect });
        assert!(rotten(&pass(&mut bench)).is_empty(), "{effect:?}");
    }
    let effect = Effect::Errno(libc::EIO);
    bench.device.inject(Fault { on: OperationKind::Read, after: 0, count: 2, effect });
    assert_eq!(rotten(&pass(&mut bench)).len(), 1);
}

/// A segment that is given up while a pass is in it is no rot.
#[test]
fn a_pass_goes_on_behind_what_is_given_up() {
    let mut bench = Bench::new(settings());
    let mut index = 1;
    while bench.log.segments() < 4 {
        bench.block(1, index, index + 9, 1);
        index += 10;
    }
    bench.settle();
    let all = blocks(&bench.device).len();
    assert!(bench.log.scrub_next());
    bench.log.release(GroupId(1), Index(index - 11));
    bench.settle();
    while bench.log.take_scrubbed().is_none() {
        bench.turn();
    }
    let found = pass(&mut bench);
    assert!(rotten(&found).is_empty() && found.len() < all, "{found:?}");
}
