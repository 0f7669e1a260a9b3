//! Byte strings that people can read: as text where every byte is printable ASCII, else as
//! `{"hex": "…"}`.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte string of a history.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Its text, if every byte is printable ASCII.
    fn text(&self) -> Option<&str> {
        let is_printable = self.0.iter().all(|byte| matches!(byte, b' '..=b'~'));
        is_printable.then(|| std::str::from_utf8(&self.0).expect("ASCII is UTF-8"))
    }

    fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
    }

    fn from_hex(hex: &str) -> Option<Self> {
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        let pairs = hex.as_bytes().chunks(2);
        pairs
            .map(|pair| match *pair {
                [high, low] => Some(digit(high)? << 4 | digit(low)?),
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .map(Self)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of a long string that a person is shown.
const SHOWN_BYTES_MAX: usize = 64;

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > SHOWN_BYTES_MAX {
            let start = Self(self.0[..SHOWN_BYTES_MAX].to_vec());
            return write!(f, "{start}… ({} bytes)", self.0.len());
        }
        match self.text() {
            Some(text) => write!(f, "{text:?}"),
            None => write!(f, "0x{}", self.hex()),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Text(std::borrow::Cow<'a, str>),
    Hex { hex: String },
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.text() {
            Some(text) => Written::Text(text.into()),
            None => Written::Hex { hex: self.hex() },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Self(text.into_owned().into_bytes())),
            Written::Hex { hex } => {
                Self::from_hex(&hex).ok_or_else(|| D::Error::custom("hex needs pairs of 0-9, a-f"))
            }
        }
    }
}
