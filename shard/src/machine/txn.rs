//! Writing: puts, deletes, and transactions that compare and then run one of two branches.

use std::cmp::Ordering;

use ringraft_types::Status;
use ringraft_types::command::{
    Compare, DeleteCommand, Operand, Operation, Operations, PutCommand, Relation, Target,
    TxnCommand,
};
use ringraft_types::reply::{
    KEY_VALUE_BYTES, ListWriter, PutReply, REPLY_BYTES_MAX, TxnWriter, write_put,
};

use super::read::{self, key_value};
use super::store::{NOW, Store};

/// What the replies of one transaction take at most beside keys and values, bytes.
const TXN_RESERVED_BYTES: usize = TxnWriter::OVERHEAD_BYTES_MAX
    + ringraft_types::command::TXN_OPERATIONS_MAX * ListWriter::HEADER_BYTES;

// Inside a transaction, too, the largest key and value fits a reply.
const _: () = assert!(TXN_RESERVED_BYTES + KEY_VALUE_BYTES <= 64 * 1024);

/// Sets a key; the reply may grow up to `end` bytes.
#[inline]
pub(super) fn put(store: &mut Store, put: &PutCommand<'_>, reply: &mut Vec<u8>, end: usize) {
    if put.previous
        && let Some(version) = store.get(put.key, NOW)
    {
        let previous = key_value(put.key, &version);
        let fits = reply.len() + ListWriter::HEADER_BYTES + previous.encoded_bytes() <= end;
        write_put(reply, if fits { PutReply::Previous(previous) } else { PutReply::LeftOut });
    }
    store.put(put.key, put.value);
}

/// Removes keys; the reply may grow up to `end` bytes.
pub(super) fn delete(
    store: &mut Store,
    delete: &DeleteCommand<'_>,
    reply: &mut Vec<u8>,
    end: usize,
) {
    let mut list = ListWriter::begin(reply);
    let mut more = false;
    if delete.previous {
        for (_, key, version) in store.visible(&delete.keys, NOW) {
            let previous = key_value(key, &version);
            if reply.len() + previous.encoded_bytes() > end {
                more = true;
                break;
            }
            list.push(reply, &previous);
        }
    }
    let deleted = store.delete(&delete.keys);
    list.finish_delete(reply, deleted, more);
}

/// Compares and runs a branch; the reply may grow up to [`REPLY_BYTES_MAX`].
///
/// # Errors
/// If a range of the branch asks for a revision that can't be read: nothing ran then.
pub(super) fn txn(
    store: &mut Store,
    txn: &TxnCommand<'_>,
    reply: &mut Vec<u8>,
) -> Result<(), Status> {
    let succeeded = txn.compares().all(|compare| holds(store, &compare));
    let branch = if succeeded { txn.then() } else { txn.otherwise() };
    for operation in branch {
        if let Operation::Range(range) = operation {
            read::check_revision(store, &range)?;
        }
    }
    run(store, branch, TxnWriter::begin(reply, succeeded), reply);
    Ok(())
}

fn run(store: &mut Store, branch: Operations<'_>, mut writer: TxnWriter, reply: &mut Vec<u8>) {
    // What every operation may add beside keys and values, at once, so that none lacks it later.
    let reserved = branch.len() * (4 + ListWriter::HEADER_BYTES);
    let mut end = reply.len() - 8 + REPLY_BYTES_MAX - reserved;
    for operation in branch {
        end += 4 + ListWriter::HEADER_BYTES;
        writer.begin_operation(reply);
        match operation {
            Operation::Put(command) => put(store, &command, reply, end),
            Operation::Delete(command) => delete(store, &command, reply, end),
            Operation::Range(command) => read::range(store, &command, reply, end),
        }
        writer.end_operation(reply);
    }
    writer.finish(reply);
}

/// Whether a compare holds. The numbers of a key that doesn't exist are zero; a compare with its
/// value never holds.
fn holds(store: &Store, compare: &Compare<'_>) -> bool {
    let version = store.get(compare.key, NOW);
    let ordering = match compare.operand {
        Operand::Value(operand) => match version {
            Some(version) => version.value.cmp(operand),
            None => return false,
        },
        Operand::Number(operand) => {
            let number = version.map_or(0, |version| match compare.target {
                Target::Version => version.version,
                Target::CreateRevision => version.create,
                Target::ModRevision => version.modified,
                Target::Value => unreachable!("decode gives a value's compare a value"),
            });
            number.cmp(&operand)
        }
    };
    match compare.relation {
        Relation::Equal => ordering == Ordering::Equal,
        Relation::NotEqual => ordering != Ordering::Equal,
        Relation::Greater => ordering == Ordering::Greater,
        Relation::Less => ordering == Ordering::Less,
    }
}
