//! The layout's golden bytes, its round trips, and that no bytes make it panic.

use super::*;
use crate::command::tests::Random;

fn key_value<'a>(key: &'a [u8], value: &'a [u8]) -> KeyValue<'a> {
    KeyValue { key, value, create_revision: Revision(2), mod_revision: Revision(3), version: 4 }
}

/// A reply of every kind, in one transaction's.
fn sample() -> Vec<u8> {
    let mut out = Vec::new();
    let mut txn = TxnWriter::begin(&mut out, true);
    for previous in [PutReply::None, PutReply::LeftOut, PutReply::Previous(key_value(b"k", b""))] {
        txn.begin_operation(&mut out);
        write_put(&mut out, previous);
        txn.end_operation(&mut out);
    }
    txn.begin_operation(&mut out);
    let mut list = ListWriter::begin(&mut out);
    list.push(&mut out, &key_value(b"a", b"1"));
    list.push(&mut out, &key_value(b"b", b"2"));
    list.finish_range(&mut out, 7, true);
    txn.end_operation(&mut out);
    txn.begin_operation(&mut out);
    ListWriter::begin(&mut out).finish_delete(&mut out, 3, false);
    txn.end_operation(&mut out);
    txn.finish(&mut out);
    out
}

/// The bytes of a reply are the format's and never change.
#[test]
fn golden_bytes() {
    let mut out = Vec::new();
    write_put(&mut out, PutReply::Previous(key_value(b"k", b"vw")));
    assert_eq!(
        out,
        b"\x01\x01\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x02\0\0\0\0\0\0\0\
          \x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0kvw"
    );
    out.clear();
    ListWriter::begin(&mut out).finish_range(&mut out, 5, true);
    assert_eq!(out, b"\x04\x01\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
    out.clear();
    let mut txn = TxnWriter::begin(&mut out, true);
    txn.begin_operation(&mut out);
    txn.end_operation(&mut out);
    txn.finish(&mut out);
    assert_eq!(out, b"\x03\x01\x01\0\0\0\0\0\0\0\0\0");
}

/// Everything that was written is read back, in order.
#[test]
fn round_trip() {
    let bytes = sample();
    let Ok(Reply::Txn(reply)) = Reply::decode(&bytes) else { panic!("not a transaction's reply") };
    assert!(reply.succeeded);
    let replies: Vec<_> = reply.operations().collect();
    assert_eq!(replies[0], Reply::Put(PutReply::None));
    assert_eq!(replies[1], Reply::Put(PutReply::LeftOut));
    assert_eq!(replies[2], Reply::Put(PutReply::Previous(key_value(b"k", b""))));
    let Reply::Range(range) = replies[3] else { panic!("not a range's reply") };
    assert_eq!((range.count, range.more, range.keys.len()), (7, true, 2));
    let keys: Vec<_> = range.keys.collect();
    assert_eq!(keys, [key_value(b"a", b"1"), key_value(b"b", b"2")]);
    let Reply::Delete(delete) = replies[4] else { panic!("not a delete's reply") };
    assert_eq!((delete.deleted, delete.more, delete.previous.len()), (3, false, 0));
    assert_eq!(replies.len(), 5);
    assert_eq!(Reply::decode(b""), Ok(Reply::Put(PutReply::None)));
}

/// Truncated, changed and random bytes are refused or read, but never panic.
#[test]
fn no_bytes_panic() {
    let sample = sample();
    for length in 1..sample.len() {
        assert!(Reply::decode(&sample[..length]).is_err());
    }
    let mut random = Random(5);
    for round in 0..100_000 {
        let mut bytes = if round % 2 == 0 { sample.clone() } else { random.bytes(80) };
        if bytes.is_empty() {
            continue;
        }
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.next() as u8;
        bytes[0] %= 6;
        if let Ok(Reply::Txn(reply)) = Reply::decode(&bytes) {
            assert!(reply.operations().count() <= TXN_OPERATIONS_MAX);
        }
    }
}
