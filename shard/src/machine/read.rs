//! Reading: what a range answers, at any revision of the window.

use ringraft_types::Revision;
use ringraft_types::Status;
use ringraft_types::command::{Keys, RangeCommand};
use ringraft_types::reply::{KeyValue, ListWriter};

use super::store::{NOW, Store, Version};

/// A version of a key as a reply names it.
pub(super) fn key_value<'a>(key: &'a [u8], version: &Version<'a>) -> KeyValue<'a> {
    KeyValue {
        key,
        value: version.value,
        create_revision: Revision(version.create),
        mod_revision: Revision(version.modified),
        version: version.version,
    }
}

/// Whether the revision a range asks for can be read.
pub(super) fn check_revision(store: &Store, range: &RangeCommand<'_>) -> Result<(), Status> {
    let revision = range.revision.0;
    if revision == 0 {
        return Ok(());
    }
    if revision > store.revision() {
        return Err(Status::FutureRevision);
    }
    if revision < store.oldest() {
        return Err(Status::Compacted);
    }
    Ok(())
}

/// Appends a range's reply, which may grow `reply` up to `end` bytes. The revision was checked.
/// A range that asks for fewer bytes than its first key takes gets that key, if there is room.
pub(super) fn range(store: &Store, range: &RangeCommand<'_>, reply: &mut Vec<u8>, end: usize) {
    let at = if range.revision.0 == 0 { NOW } else { range.revision.0 };
    let mut list = ListWriter::begin(reply);
    let room = end - reply.len();
    let asked = if range.bytes_max == 0 { room } else { range.bytes_max as usize };
    let start = reply.len();
    let mut push = |list: &mut ListWriter, key: &[u8], mut version: Version<'_>| {
        if range.keys_only {
            version.value = b"";
        }
        let key_value = key_value(key, &version);
        let bytes = reply.len() - start + key_value.encoded_bytes();
        let fits = bytes <= room && (bytes <= asked || list.listed() == 0);
        if fits {
            list.push(reply, &key_value);
        }
        fits
    };
    if let Keys::One(key) = range.keys {
        let found = store.get(key, at);
        let more = match found {
            Some(version) if !range.count_only => !push(&mut list, key, version),
            _ => false,
        };
        list.finish_range(reply, u64::from(found.is_some()), more);
        return;
    }
    let mut keys = store.visible(&range.keys, at);
    let (mut count, mut more) = (0, false);
    if !range.count_only {
        for (_, key, version) in keys.by_ref() {
            count += 1;
            if (range.limit > 0 && list.listed() == range.limit) || !push(&mut list, key, version) {
                more = true;
                break;
            }
        }
    }
    // The count names all keys, listed or not, as etcd's does.
    if is_everything(&range.keys) && at == NOW {
        count = store.live();
    } else {
        count += keys.count() as u64;
    }
    list.finish_range(reply, count, more);
}

/// Whether a set holds all keys there are.
fn is_everything(keys: &Keys<'_>) -> bool {
    matches!(keys, Keys::Prefix(b"") | Keys::Between { start: b"", end: b"" })
}
