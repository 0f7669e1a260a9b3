//! The table against a naive model, and the promises to a client that retries.

use std::collections::BTreeMap;

use super::*;
use crate::machine::LoadError;

fn envelope(client: u128, sequence: u64, received: u64, opened: u64) -> Envelope {
    Envelope { client: ClientId(client), sequence, received, opened: Index(opened) }
}

fn reply(index: u64, body: &[u8]) -> StoredReply {
    let (revision, index) = (Revision(index * 10), Index(index));
    StoredReply { revision, index, status: Status::Ok, body: body.into() }
}

/// Gives numbers below what it is asked for; the same seed gives the same ones.
fn random(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    }
}

/// Admits and, if so judged, records; gives whether it was applied.
fn run(sessions: &mut Sessions, index: u64, envelope: &Envelope) -> Result<bool, Status> {
    match sessions.admit(Index(index), envelope) {
        Verdict::Apply => {
            sessions.record(envelope.client, envelope.sequence, reply(index, b""));
            Ok(true)
        }
        Verdict::Reply(_) => Ok(false),
        Verdict::Refuse(status) => Err(status),
    }
}

/// A session of the model: the newest number, the mark, every reply's index, the last use.
#[derive(Default)]
struct Plain {
    sequence: u64,
    received: u64,
    replies: BTreeMap<u64, u64>,
    used: u64,
}

#[derive(Default)]
struct Model {
    sessions: BTreeMap<u128, Plain>,
    evicted_at: u64,
}

impl Model {
    /// `Ok(None)`: applied now; `Ok(Some(index))`: was applied there.
    fn run(&mut self, room: usize, index: u64, e: &Envelope) -> Result<Option<u64>, Status> {
        if !self.sessions.contains_key(&e.client.0) {
            if e.opened.0 >= index {
                return Err(Status::Invalid);
            }
            if e.opened.0 < self.evicted_at {
                return Err(Status::SessionExpired);
            }
            if e.sequence != 1 {
                return Err(Status::Gap);
            }
            if self.sessions.len() == room {
                let oldest = self.sessions.iter().min_by_key(|(_, plain)| plain.used);
                let oldest = *oldest.expect("full").0;
                self.sessions.remove(&oldest);
                self.evicted_at = index;
            }
        }
        let plain = self.sessions.entry(e.client.0).or_default();
        plain.received = plain.received.max(e.received.min(plain.sequence));
        if e.sequence <= plain.received {
            return Err(Status::AlreadyAnswered);
        }
        if e.sequence <= plain.sequence {
            return Ok(Some(plain.replies[&e.sequence]));
        }
        if e.sequence > plain.received + 1024 {
            return Err(Status::WindowFull);
        }
        if e.sequence > plain.sequence + 1 {
            return Err(Status::Gap);
        }
        plain.sequence = e.sequence;
        plain.used = index;
        plain.replies.insert(e.sequence, index);
        Ok(None)
    }
}

/// Random logs of retries, gaps, evictions and wrong marks are judged as the model judges them; a
/// second table comes to the same hash; and what the early answer says, the log says too.
#[test]
fn behaves_as_the_model() {
    for seed in 1..=20u64 {
        let mut below = random(seed);
        let room = 1 + below(6) as usize;
        let mut sessions = Sessions::with_limits(room, STORED_REPLIES_MAX);
        let mut twin = Sessions::with_limits(room, STORED_REPLIES_MAX);
        let mut model = Model::default();
        for index in 1..4_000u64 {
            let client = u128::from(below(8));
            let known = model.sessions.get(&client).map_or(0, |plain| plain.sequence);
            let sequence = match below(8) {
                0 => 1 + below(known + 3),
                1 => 1,
                2 => known + 1 + below(1_100),
                _ => known + 1,
            };
            let e = envelope(client, sequence, below(sequence), index.saturating_sub(below(12)));
            let context = format!("seed {seed} index {index} {e:?}");
            let early = match sessions.lookup(&e) {
                Verdict::Apply => None,
                Verdict::Reply(reply) => Some(Ok(Some(reply.index.0))),
                Verdict::Refuse(status) => Some(Err(status)),
            };
            let expected = model.run(room, index, &e);
            match sessions.admit(Index(index), &e) {
                Verdict::Apply => {
                    assert_eq!(expected, Ok(None), "{context}");
                    sessions.record(e.client, e.sequence, reply(index, b"x"));
                    assert_eq!(twin.admit(Index(index), &e), Verdict::Apply);
                    twin.record(e.client, e.sequence, reply(index, b"x"));
                }
                Verdict::Reply(stored) => {
                    assert_eq!(expected, Ok(Some(stored.index.0)), "{context}");
                    twin.admit(Index(index), &e);
                }
                Verdict::Refuse(status) => {
                    assert_eq!(expected, Err(status), "{context}");
                    twin.admit(Index(index), &e);
                }
            }
            // An early answer holds, but for the marks that the command itself brings.
            if let Some(early) = early
                && expected != Err(Status::AlreadyAnswered)
                && expected != Err(Status::Invalid)
                && expected != Err(Status::SessionExpired)
            {
                assert!(
                    early == expected
                        || (early == Err(Status::WindowFull) && expected == Err(Status::Gap)),
                    "{context}: {early:?} became {expected:?}"
                );
            }
            assert_eq!(sessions.evicted_at().0, model.evicted_at, "{context}");
            assert_eq!(sessions.len(), model.sessions.len(), "{context}");
            assert_eq!(sessions.state_hash(), twin.state_hash(), "{context}");
            let kept: usize = model
                .sessions
                .values()
                .map(|plain| (plain.sequence - plain.received) as usize)
                .sum();
            assert_eq!(sessions.replies, kept, "{context}");
            assert_eq!(sessions.bodies_bytes, kept, "{context}: a byte for every kept reply");
        }
    }
}

/// A write that was applied is never applied again, wherever its retry meets the table: answered
/// from the session, after the mark, after the eviction.
#[test]
fn a_retry_is_applied_once() {
    let mut sessions = Sessions::with_limits(1, STORED_REPLIES_MAX);
    let first = envelope(7, 1, 0, 3);
    assert_eq!(run(&mut sessions, 10, &first), Ok(true));
    assert_eq!(sessions.lookup(&first), Verdict::Reply(&reply(10, b"")));
    assert_eq!(sessions.admit(Index(11), &first), Verdict::Reply(&reply(10, b"")));
    assert_eq!(run(&mut sessions, 12, &envelope(7, 2, 1, 3)), Ok(true));
    assert_eq!(run(&mut sessions, 13, &first), Err(Status::AlreadyAnswered));
    assert_eq!(run(&mut sessions, 14, &envelope(8, 1, 0, 13)), Ok(true));
    assert_eq!(sessions.evicted_at(), Index(14));
    assert_eq!(run(&mut sessions, 15, &first), Err(Status::SessionExpired));
    assert_eq!(sessions.lookup(&first), Verdict::Refuse(Status::SessionExpired));
    // The same client, opened anew, may begin again; one that claims the future may not.
    assert_eq!(run(&mut sessions, 16, &envelope(9, 1, 0, 16)), Err(Status::Invalid));
    assert_eq!(run(&mut sessions, 17, &envelope(7, 1, 0, 14)), Ok(true));
}

/// The window holds 1,024 unanswered writes, and the mark opens it again.
#[test]
fn the_window_fills_and_opens() {
    let mut sessions = Sessions::new();
    for sequence in 1..=1024 {
        assert_eq!(run(&mut sessions, sequence, &envelope(7, sequence, 0, 0)), Ok(true));
    }
    assert_eq!(run(&mut sessions, 1025, &envelope(7, 1025, 0, 0)), Err(Status::WindowFull));
    let late = envelope(7, 1025, 0, 0);
    assert_eq!(sessions.lookup(&late), Verdict::Refuse(Status::WindowFull));
    assert_eq!(run(&mut sessions, 1026, &envelope(7, 1, 0, 0)), Ok(false));
    assert_eq!(run(&mut sessions, 1027, &envelope(7, 1025, 1, 0)), Ok(true));
    // Applied, though it looks too early by its own mark: never "definitely not done".
    assert_eq!(sessions.lookup(&late), Verdict::Reply(&reply(1027, b"")));
    assert_eq!(run(&mut sessions, 1028, &envelope(7, 1027, 1000, 0)), Err(Status::Gap));
    assert_eq!(run(&mut sessions, 1029, &envelope(7, 1000, 0, 0)), Err(Status::AlreadyAnswered));
    assert_eq!(run(&mut sessions, 1030, &envelope(7, 1001, 0, 0)), Ok(false));
}

/// When the group keeps all the replies it may, a session goes on with one write at a time.
#[test]
fn a_full_group_goes_on_one_by_one() {
    let mut sessions = Sessions::with_limits(2, 3);
    for sequence in 1..=3 {
        assert_eq!(run(&mut sessions, sequence, &envelope(7, sequence, 0, 0)), Ok(true));
    }
    assert_eq!(run(&mut sessions, 4, &envelope(7, 4, 0, 0)), Err(Status::WindowFull));
    assert_eq!(run(&mut sessions, 5, &envelope(8, 1, 0, 0)), Ok(true));
    assert_eq!(run(&mut sessions, 6, &envelope(8, 2, 0, 0)), Err(Status::WindowFull));
    assert_eq!(run(&mut sessions, 7, &envelope(8, 2, 1, 0)), Ok(true));
    assert_eq!(run(&mut sessions, 8, &envelope(7, 4, 2, 0)), Ok(true));
    // An evicted session's replies make room.
    assert_eq!(run(&mut sessions, 9, &envelope(9, 1, 0, 8)), Ok(true));
    assert_eq!(sessions.replies, 3);
}

/// A long body isn't kept, nor one over the group's budget; the retry learns that it was applied.
#[test]
fn long_bodies_are_not_kept() {
    let mut sessions = Sessions::new();
    let mut keep = |client: u128, body: &[u8]| {
        let e = envelope(client, 1, 0, 0);
        assert_eq!(sessions.admit(Index(client as u64), &e), Verdict::Apply);
        sessions.record(e.client, 1, reply(client as u64, body));
        let Verdict::Reply(stored) = sessions.lookup(&e) else { panic!("not kept") };
        assert_eq!(stored.index, Index(client as u64));
        (stored.status, stored.body.len())
    };
    let body = vec![1; STORED_BODY_BYTES_MAX + 1];
    assert_eq!(keep(1, &body), (Status::AlreadyAnswered, 0));
    let fit = (STORED_BODIES_BYTES_MAX / STORED_BODY_BYTES_MAX) as u128;
    for client in 2..2 + fit {
        assert_eq!(keep(client, &body[1..]), (Status::Ok, STORED_BODY_BYTES_MAX));
    }
    assert_eq!(keep(2 + fit, b"x"), (Status::AlreadyAnswered, 0));
    assert_eq!(keep(3 + fit, b""), (Status::Ok, 0));
}

/// The session evicted is the one whose newest applied write is the oldest; reading its replies
/// doesn't save it.
#[test]
fn the_oldest_by_log_order_is_evicted() {
    let mut sessions = Sessions::with_limits(3, STORED_REPLIES_MAX);
    for client in 1..=3 {
        assert_eq!(run(&mut sessions, client, &envelope(client.into(), 1, 0, 0)), Ok(true));
    }
    assert_eq!(run(&mut sessions, 4, &envelope(1, 2, 1, 0)), Ok(true));
    assert_eq!(run(&mut sessions, 5, &envelope(2, 1, 0, 0)), Ok(false));
    assert_eq!(run(&mut sessions, 6, &envelope(4, 1, 0, 5)), Ok(true));
    assert_eq!(run(&mut sessions, 7, &envelope(2, 1, 0, 0)), Err(Status::SessionExpired));
    assert_eq!(run(&mut sessions, 8, &envelope(3, 1, 0, 0)), Ok(false));
    assert_eq!(run(&mut sessions, 9, &envelope(1, 2, 1, 0)), Ok(false));
}

/// The hash of a known log is part of the format: replicas of different versions compare it.
#[test]
fn golden_hash() {
    let mut sessions = Sessions::with_limits(1, STORED_REPLIES_MAX);
    assert_eq!(run(&mut sessions, 1, &envelope(7, 1, 0, 0)), Ok(true));
    assert_eq!(run(&mut sessions, 2, &envelope(7, 2, 1, 0)), Ok(true));
    assert_eq!(run(&mut sessions, 3, &envelope(8, 1, 0, 2)), Ok(true));
    assert_eq!(sessions.state_hash(), 14_252_325_395_784_693_733);
}

fn load(room: usize, pieces: &[Vec<u8>]) -> Result<Sessions, LoadError> {
    let mut sessions = Sessions::with_limits(room, STORED_REPLIES_MAX);
    for piece in pieces {
        sessions.load(piece)?;
    }
    sessions.end_load()?;
    Ok(sessions)
}

/// All pieces of a snapshot that nothing disturbs.
fn pieces_of(sessions: &mut Sessions, bytes: usize) -> Vec<Vec<u8>> {
    sessions.begin_snapshot();
    let mut pieces = Vec::new();
    loop {
        let mut piece = Vec::new();
        let is_last = sessions.snapshot(bytes, &mut piece);
        pieces.push(piece);
        if is_last {
            sessions.end_snapshot();
            return pieces;
        }
    }
}

/// Everything that a table holds, its sessions from the one used longest ago.
fn content(sessions: &Sessions) -> (u64, Index, usize, usize, Vec<String>) {
    let mut slots: Vec<&Session> = sessions.table.slots().collect();
    slots.sort_unstable_by_key(|session| session.used);
    let oldest = sessions.table.oldest().map(|slot| sessions.table.session(slot).used);
    assert_eq!(oldest, slots.first().map(|session| session.used));
    let all = slots.iter().map(|session| format!("{session:?}")).collect();
    let Sessions { hash, evicted_at, bodies_bytes, replies, .. } = *sessions;
    (hash, evicted_at, bodies_bytes, replies, all)
}

/// Taken in pieces of any length between random writes, a snapshot is the table as it was when the
/// snapshot began; the same writes then lead both tables to the same.
#[test]
fn a_snapshot_is_the_table_as_it_was() {
    let mut taken = 0;
    for seed in 1..=20u64 {
        let mut below = random(seed);
        let room = 1 + below(6) as usize;
        let mut sessions = Sessions::with_limits(room, STORED_REPLIES_MAX);
        let mut known = BTreeMap::<u128, u64>::new();
        let mut taking = None;
        for index in 1..4_000u64 {
            if taking.is_none() && below(30) == 0 {
                let as_it_is = content(&sessions);
                sessions.begin_snapshot();
                taking = Some((as_it_is, Vec::new(), Vec::new()));
            }
            let client = u128::from(below(8));
            let newest = known.entry(client).or_default();
            let sequence = if below(8) == 0 { 1 } else { *newest + 1 };
            let received = sequence.saturating_sub(1 + below(12));
            let e = envelope(client, sequence, received, index - 1);
            let body = vec![index as u8; below(40) as usize];
            if sessions.admit(Index(index), &e) == Verdict::Apply {
                sessions.record(e.client, sequence, reply(index, &body));
                *newest = sequence;
            } else if sequence == *newest + 1 {
                *newest = 0;
            }
            let Some((as_it_is, pieces, since)) = &mut taking else { continue };
            since.push((index, e, body));
            if below(3) > 0 {
                continue;
            }
            let mut piece = Vec::new();
            let is_last = sessions.snapshot(below(300) as usize, &mut piece);
            pieces.push(piece);
            if !is_last {
                continue;
            }
            sessions.end_snapshot();
            let mut loaded =
                load(room, pieces).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(content(&loaded), *as_it_is, "seed {seed} index {index}");
            for (index, e, body) in since.drain(..) {
                if loaded.admit(Index(index), &e) == Verdict::Apply {
                    loaded.record(e.client, e.sequence, reply(index, &body));
                }
            }
            assert_eq!(content(&loaded), content(&sessions), "seed {seed} index {index}");
            taken += 1;
            taking = None;
        }
    }
    assert!(taken > 500, "only {taken} snapshots were taken");
}

/// What isn't a whole snapshot is refused, wherever it was cut and whatever was changed in it, and
/// never breaks anything; pieces are at most one reply longer than asked for.
#[test]
fn what_is_no_snapshot_is_refused() {
    let mut sessions = Sessions::with_limits(4, STORED_REPLIES_MAX);
    for index in 1..40u64 {
        let e = envelope(u128::from(index % 4), index.div_ceil(4), 0, 0);
        let _ = run(&mut sessions, index, &e);
    }
    assert_eq!(sessions.len(), 4);
    let pieces = pieces_of(&mut sessions, 100);
    assert!(pieces.len() > 3);
    assert!(pieces.iter().all(|piece| piece.len() < 100 + 48));
    assert_eq!(content(&load(4, &pieces).expect("whole")), content(&sessions));
    for missing in 0..pieces.len() {
        let mut some = pieces.clone();
        some.remove(missing);
        assert!(load(4, &some).is_err(), "piece {missing} is missing");
        let mut doubled = pieces.clone();
        doubled.insert(missing, pieces[missing].clone());
        assert!(load(4, &doubled).is_err(), "piece {missing} comes twice");
    }
    let whole: Vec<u8> = pieces.concat();
    for end in 0..whole.len() {
        assert!(load(4, &[whole[..end].to_vec()]).is_err(), "cut at {end}");
    }
    for bit in 0..whole.len() * 8 {
        let mut changed = whole.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // Revisions and bodies are the chunk's checksum's: only nothing may break.
        let _ = load(4, &[changed]);
    }
    assert!(load(3, &pieces).is_err(), "more sessions than there is room for");
}
