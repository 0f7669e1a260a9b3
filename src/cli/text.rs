//! Bytes in JSON: as text where they are UTF-8, else in hexadecimal under another name, so that a
//! reader is never misled.

use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Puts bytes into an object: `name` if they are text, else `name_hex`.
pub(crate) fn insert(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => fields.insert(name.to_owned(), text.into()),
        Err(_) => fields.insert(format!("{name}_hex"), hex(bytes).into()),
    };
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
