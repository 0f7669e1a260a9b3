//! What the system group says of the groups of a cluster: an ordinary group of the built-in machine
//! under [`GroupId::SYSTEM`], in which each group that was created or deleted at run time is a key
//! (decision 0033).
//!
//! ```text
//! key "group/" + the id, 16 hex digits    a GroupRecord:
//!      0  u8   1, the version      1  u8   1 here, 2 deleted
//!      2  u16  name bytes          4  u32  configuration bytes
//!      8  u64  zero
//!     16  the name, the payload of the configuration that it began with
//! key "name/" + the name                  the id, u64
//! key "next"                              the id that the next group gets, u64
//! ```
//! All numbers are little-endian. A group that was created and has no record any more was deleted:
//! ids ascend and are never given twice. One that the nodes' files name has a record when it is
//! deleted.

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::ids::GroupId;

/// Bytes of a group's name, at most.
pub const NAME_BYTES_MAX: usize = 64;
/// All records of groups have keys that begin so.
pub const GROUP_PREFIX: &[u8] = b"group/";
/// The key of the id that the next group gets.
pub const NEXT_KEY: &[u8] = b"next";
const HEAD_BYTES: usize = 16;
const VERSION: u8 = 1;

/// Why bytes are no record of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// They are cut short, or more than it says.
    #[error("a group's record of {have} bytes, it says {need}")]
    Length {
        /// Bytes there are.
        have: usize,
        /// Bytes it would take.
        need: usize,
    },
    /// A newer version wrote it.
    #[error("a group's record of version {0}, this one knows 1")]
    Version(u8),
    /// Something that must be one of a few isn't.
    #[error("a group's record has {0}")]
    What(&'static str),
}

/// Why a name can't be a group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no bytes, or too many.
    #[error("a group's name has 1 to 64 characters")]
    Length,
    /// It has something else in it.
    #[error("a group's name has letters, digits, '.', '-' and '_', and begins with a letter")]
    Characters,
}

/// What the system group says of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// What people call it; empty: it has no name.
    pub name: String,
    /// It was deleted; a group that nodes are configured with has a record for that.
    pub is_deleted: bool,
    /// The payload of the configuration that it began with; empty in the record of a group that
    /// nodes were configured with.
    pub begins: Vec<u8>,
}

impl GroupRecord {
    /// The value of its key.
    ///
    /// # Panics
    /// If the name is too long: it is checked where it enters.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.name.len() <= NAME_BYTES_MAX, "a name of {} bytes", self.name.len());
        let mut out = Vec::with_capacity(HEAD_BYTES + self.name.len() + self.begins.len());
        out.extend_from_slice(&[VERSION, 1 + u8::from(self.is_deleted)]);
        out.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.begins.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(&self.begins);
        out
    }

    /// What the value of a key says.
    ///
    /// # Errors
    /// If it is no record, or one of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, PlacementError> {
        let short = |need| PlacementError::Length { have: bytes.len(), need };
        if bytes.len() < HEAD_BYTES {
            return Err(short(HEAD_BYTES));
        }
        if bytes[0] != VERSION {
            return Err(PlacementError::Version(bytes[0]));
        }
        let is_deleted = match bytes[1] {
            1 => false,
            2 => true,
            _ => return Err(PlacementError::What("a state that is none")),
        };
        let name_bytes = usize::from(u16_at(bytes, 2));
        let begins_bytes = u32_at(bytes, 4) as usize;
        let need = begins_bytes.saturating_add(HEAD_BYTES + name_bytes);
        if bytes.len() != need {
            return Err(short(need));
        }
        if bytes[8..HEAD_BYTES].iter().any(|&byte| byte != 0) {
            return Err(PlacementError::What("bytes that must be zero and aren't"));
        }
        let (name, begins) = bytes[HEAD_BYTES..].split_at(name_bytes);
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| name.is_empty() || check_name(name).is_ok());
        let name = name.ok_or(PlacementError::What("a name that is none"))?;
        Ok(Self { name: name.to_owned(), is_deleted, begins: begins.to_vec() })
    }
}

/// Whether a group may be called so.
///
/// # Errors
/// Why not.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(NameError::Length);
    }
    let is_sound = |letter: u8| letter.is_ascii_alphanumeric() || b".-_".contains(&letter);
    let begins = name.as_bytes()[0].is_ascii_alphabetic();
    if !begins || !name.bytes().all(is_sound) {
        return Err(NameError::Characters);
    }
    Ok(())
}

/// The key of a group's record.
pub fn group_key(group: GroupId) -> Vec<u8> {
    [GROUP_PREFIX, format!("{:016x}", group.0).as_bytes()].concat()
}

/// The group whose record has this key.
pub fn group_of_key(key: &[u8]) -> Option<GroupId> {
    let digits = std::str::from_utf8(key.strip_prefix(GROUP_PREFIX)?).ok()?;
    let is_sound = digits.len() == 16 && digits.bytes().all(|it| b"0123456789abcdef".contains(&it));
    is_sound.then(|| u64::from_str_radix(digits, 16).ok().map(GroupId)).flatten()
}

/// The key under which the group of a name is found.
pub fn name_key(name: &str) -> Vec<u8> {
    [b"name/", name.as_bytes()].concat()
}

/// The value of [`NEXT_KEY`], or of a name's key.
pub fn id_value(group: GroupId) -> [u8; 8] {
    group.0.to_le_bytes()
}

/// The id in such a value.
pub fn id_of_value(value: &[u8]) -> Option<GroupId> {
    (value.len() == 8).then(|| GroupId(u64_at(value, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> GroupRecord {
        GroupRecord { name: "orders".into(), is_deleted: false, begins: vec![1, 2, 3] }
    }

    /// A record says the same when it is read; anything shorter, longer or changed in its head is
    /// refused, and nothing panics.
    #[test]
    fn records_round_trip() {
        let sound = record().encode();
        assert_eq!(GroupRecord::decode(&sound), Ok(record()));
        let gone = GroupRecord { is_deleted: true, name: String::new(), ..record() };
        assert_eq!(GroupRecord::decode(&gone.encode()), Ok(gone));
        for length in 0..sound.len() {
            assert!(GroupRecord::decode(&sound[..length]).is_err());
        }
        assert!(GroupRecord::decode(&[&sound[..], b"x"].concat()).is_err());
        for at in 0..HEAD_BYTES {
            let mut changed = sound.clone();
            changed[at] = changed[at].wrapping_add(7);
            assert!(GroupRecord::decode(&changed).is_err(), "byte {at}");
        }
    }

    /// Keys and names say which group they are of; nothing else does.
    #[test]
    fn keys_name_groups() {
        for id in [1, GroupId::SYSTEM.0, u64::MAX] {
            assert_eq!(group_of_key(&group_key(GroupId(id))), Some(GroupId(id)));
            assert_eq!(id_of_value(&id_value(GroupId(id))), Some(GroupId(id)));
        }
        for key in [&b"group/"[..], b"group/1", b"group/000000000000000G", b"name/a", b""] {
            assert_eq!(group_of_key(key), None);
        }
        assert_eq!(group_of_key(b"group/00000000000000AB"), None, "one way to write it");
        assert_eq!(id_of_value(b"1234567"), None);
        assert_eq!(check_name("orders.eu-1_b"), Ok(()));
        assert_eq!(check_name(""), Err(NameError::Length));
        assert_eq!(check_name(&"a".repeat(65)), Err(NameError::Length));
        for name in ["1", "-a", "a b", "a/b", "ä"] {
            assert_eq!(check_name(name), Err(NameError::Characters));
        }
    }
}
