//! The files as they are written: TOML text into raw tables whose every value knows its place.
//! Nothing is judged here but the shape; `validate` does the rest.

use super::error::ConfigError;
use serde::Deserialize;
use serde::de::{Error as _, SeqAccess, Visitor};
use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The built-in defaults, the last layer.
pub(crate) const DEFAULTS: &str = include_str!("defaults.toml");

/// Keys outside `defaults.toml`: what tells one node from another, and what a profile says of
/// itself. A section here without keys stands for a plain value.
const IDENTITY_KEYS: &[(&str, &[&str])] = &[
    ("profile", &[]),
    ("cluster", &["id"]),
    ("node", &["id", "name", "data_dir"]),
    ("listen", &["peer", "client", "http"]),
    ("nodes", &["id", "name", "peer", "client", "http"]),
];
/// What a profile says of itself.
const PROFILE_KEYS: &[(&str, &[&str])] = &[("about", &[])];

/// One of the files that make up a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Names the cluster and the node, and overrides what it likes.
    Node,
    /// Overrides settings only.
    Profile,
}

/// A value and the bytes of its file where it is written.
pub(crate) type At<T> = Option<Spanned<T>>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawFile {
    pub(crate) profile: At<String>,
    pub(crate) about: At<String>,
    pub(crate) cluster: RawCluster,
    pub(crate) node: RawNode,
    pub(crate) listen: RawListen,
    pub(crate) nodes: Vec<Spanned<RawMember>>,
    pub(crate) groups: RawGroups,
    pub(crate) cpu: RawCpu,
    pub(crate) wal: RawWal,
    pub(crate) snapshot: RawSnapshot,
    pub(crate) scrub: RawScrub,
    pub(crate) raft: RawRaft,
    pub(crate) reads: RawReads,
    pub(crate) leadership: RawLeadership,
    pub(crate) members: RawMembers,
    pub(crate) limits: RawLimits,
    pub(crate) log: RawLog,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawCluster {
    pub(crate) id: At<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawNode {
    pub(crate) id: At<u32>,
    pub(crate) name: At<String>,
    pub(crate) data_dir: At<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawListen {
    pub(crate) peer: At<String>,
    pub(crate) client: At<String>,
    pub(crate) http: At<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawMember {
    pub(crate) id: At<u32>,
    pub(crate) name: At<String>,
    pub(crate) peer: At<String>,
    pub(crate) client: At<String>,
    pub(crate) http: At<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawGroups {
    pub(crate) initial: At<CountOrList>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawCpu {
    pub(crate) shards: At<AutoOrList>,
    pub(crate) auto_count: At<usize>,
    pub(crate) auto_start: At<usize>,
    pub(crate) control: At<AutoOrList>,
    pub(crate) spin_us: At<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawWal {
    pub(crate) segment_bytes: At<u64>,
    pub(crate) sync: At<String>,
    pub(crate) inflight: At<usize>,
    pub(crate) group_commit_wait_us: At<u64>,
    pub(crate) stuck_limit_ms: At<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawSnapshot {
    pub(crate) log_bytes: At<u64>,
    pub(crate) entries: At<u64>,
    pub(crate) interval_s: At<u64>,
    pub(crate) on_stop: At<bool>,
    pub(crate) lag_bytes: At<u64>,
    pub(crate) bytes_per_second: At<u64>,
    pub(crate) kept: At<usize>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawScrub {
    pub(crate) interval_s: At<u64>,
    pub(crate) bytes_per_second: At<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawRaft {
    pub(crate) heartbeat_ms: At<u64>,
    pub(crate) election_timeout_ms: At<u64>,
    pub(crate) hibernate_after_ms: At<u64>,
    pub(crate) append_entries_max: At<u32>,
    pub(crate) append_bytes_max: At<u64>,
    pub(crate) inflight_appends_max: At<usize>,
    pub(crate) inflight_bytes_max: At<u64>,
    pub(crate) commits_by_half: At<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawReads {
    pub(crate) lease: At<bool>,
    pub(crate) drift_permille: At<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawLeadership {
    pub(crate) priority: At<u64>,
    pub(crate) spread: At<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawMembers {
    pub(crate) leave_on_stop: At<bool>,
    pub(crate) leave_limit_s: At<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawLimits {
    pub(crate) pending_writes_max: At<usize>,
    pub(crate) pending_write_bytes_max: At<usize>,
    pub(crate) node_pending_writes_max: At<usize>,
    pub(crate) node_pending_write_bytes_max: At<usize>,
    pub(crate) pending_reads_max: At<usize>,
    pub(crate) node_pending_reads_max: At<usize>,
    pub(crate) node_pending_read_bytes_max: At<usize>,
    pub(crate) connections_max: At<usize>,
    pub(crate) http_connections_max: At<usize>,
    pub(crate) data_bytes_max: At<u64>,
    pub(crate) entry_cache_bytes: At<usize>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawLog {
    pub(crate) level: At<String>,
    pub(crate) format: At<String>,
    pub(crate) slow_write_ms: At<u64>,
}

/// `"auto"` or a list of core numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AutoOrList {
    Auto,
    List(Vec<Spanned<usize>>),
}

/// A count of groups (ids 1 to N) or a list of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CountOrList {
    Count(u64),
    List(Vec<Spanned<u64>>),
}

impl<'de> Deserialize<'de> for AutoOrList {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = AutoOrList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a list of core numbers")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AutoOrList, E> {
                match text {
                    "auto" => Ok(AutoOrList::Auto),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<AutoOrList, A::Error> {
                list(seq).map(AutoOrList::List)
            }
        }
        from.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for CountOrList {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = CountOrList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count of groups or a list of group ids")
            }
            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<CountOrList, E> {
                let count = u64::try_from(count)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(count), &self))?;
                Ok(CountOrList::Count(count))
            }
            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<CountOrList, E> {
                Ok(CountOrList::Count(count))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<CountOrList, A::Error> {
                list(seq).map(CountOrList::List)
            }
        }
        from.deserialize_any(Either)
    }
}

fn list<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    mut seq: A,
) -> Result<Vec<Spanned<T>>, A::Error> {
    let mut all = Vec::new();
    while let Some(one) = seq.next_element()? {
        if all.len() == ELEMENTS_MAX {
            return Err(A::Error::custom(format!("a list of more than {ELEMENTS_MAX} elements")));
        }
        all.push(one);
    }
    Ok(all)
}

/// The longest list in a configuration.
const ELEMENTS_MAX: usize = 200_000;

/// Reads one file. Unknown keys are named with the nearest known one.
pub(crate) fn parse(name: &str, text: &str, kind: FileKind) -> Result<RawFile, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| syntax(name, text, &error))?;
    refuse_unknown_keys(name, text, kind, document.get_ref())?;
    toml::from_str(text).map_err(|error| wrong_type(name, text, &error))
}

fn syntax(name: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::at(
        (name, text),
        error.span().unwrap_or(0..0),
        format!("not TOML: {}", first_line(error.message())),
        "here".into(),
        "correct the line; a text value needs quotes, as in name = \"a\"".into(),
    )
}

fn wrong_type(name: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let line_start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
    let key = text[line_start..span.start].split('=').next().unwrap_or_default().trim().to_owned();
    let cure = match unit_of(&key) {
        Some(unit) => format!("{key} is given in {unit}: see tuning/README.md"),
        None => "compare the line with a file that `ringraft init` writes".into(),
    };
    let label = first_line(error.message());
    ConfigError::at((name, text), span, format!("{key}: {label}"), label, cure)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The unit of a setting, from the comment above it in `defaults.toml`.
fn unit_of(key: &str) -> Option<&'static str> {
    let mut comment = "";
    for line in DEFAULTS.lines() {
        if line.starts_with('#') {
            comment = line;
        } else if line.split(" =").next() == Some(key) {
            let unit = comment.strip_suffix(']')?;
            return Some(&unit[unit.rfind('[')? + 1..]);
        }
    }
    None
}

/// Every section and key that a file of this kind may have.
fn known_keys(kind: FileKind) -> Vec<(String, Vec<String>)> {
    let defaults = DeTable::parse(DEFAULTS).expect("defaults.toml is compiled in and tested");
    let of_tables = defaults.get_ref().iter().map(|(section, value)| {
        let keys = value.get_ref().as_table().into_iter().flatten();
        (section.get_ref().to_string(), keys.map(|(key, _)| key.get_ref().to_string()).collect())
    });
    let own = match kind {
        FileKind::Node => IDENTITY_KEYS,
        FileKind::Profile => PROFILE_KEYS,
    };
    let of_own = own.iter().map(|(section, keys)| {
        ((*section).to_owned(), keys.iter().map(|key| (*key).to_owned()).collect())
    });
    of_own.chain(of_tables).collect()
}

fn refuse_unknown_keys(
    name: &str,
    text: &str,
    kind: FileKind,
    document: &DeTable<'_>,
) -> Result<(), ConfigError> {
    let known = known_keys(kind);
    for (section, value) in document {
        let section_name = section.get_ref().as_ref();
        let Some((_, keys)) = known.iter().find(|(known, _)| known == section_name) else {
            let names: Vec<&str> = known.iter().map(|(known, _)| known.as_str()).collect();
            let cure = match kind {
                FileKind::Profile if IDENTITY_KEYS.iter().any(|(key, _)| *key == section_name) => {
                    format!("{section_name} belongs in the node file: a profile has settings only")
                }
                _ => did_you_mean(section_name, &names)
                    .or_else(|| home_of(section_name, &known))
                    .unwrap_or_else(|| format!("known here: {}", names.join(", "))),
            };
            return Err(unknown(name, text, section.span(), section_name, cure));
        };
        let tables: Vec<&DeTable<'_>> = match value.get_ref() {
            DeValue::Table(table) => vec![table],
            DeValue::Array(all) => all.iter().filter_map(|one| one.get_ref().as_table()).collect(),
            _ => Vec::new(),
        };
        for key in tables.into_iter().flat_map(|table| table.keys()) {
            let key_name = key.get_ref().as_ref();
            if keys.iter().any(|known| known == key_name) {
                continue;
            }
            let names: Vec<&str> = keys.iter().map(String::as_str).collect();
            let cure = did_you_mean(key_name, &names)
                .or_else(|| home_of(key_name, &known))
                .unwrap_or_else(|| format!("known in [{section_name}]: {}", names.join(", ")));
            let full = format!("{section_name}.{key_name}");
            return Err(unknown(name, text, key.span(), &full, cure));
        }
    }
    Ok(())
}

fn unknown(
    name: &str,
    text: &str,
    span: std::ops::Range<usize>,
    key: &str,
    cure: String,
) -> ConfigError {
    ConfigError::at((name, text), span, format!("unknown key `{key}`"), "not known".into(), cure)
}

/// "did you mean `x`?", if a known name is near enough to be what was meant.
fn did_you_mean(name: &str, known: &[&str]) -> Option<String> {
    let distance = |known: &&&str| strsim::damerau_levenshtein(name, known);
    let nearest = known.iter().min_by_key(distance)?;
    let near_enough = name.len().max(nearest.len()) / 3;
    (distance(&nearest) <= near_enough.max(1)).then(|| format!("did you mean `{nearest}`?"))
}

/// The section where a key of this name lives, if there is one.
fn home_of(name: &str, known: &[(String, Vec<String>)]) -> Option<String> {
    let (section, _) = known.iter().find(|(_, keys)| keys.iter().any(|key| key == name))?;
    Some(format!("`{name}` belongs in the section [{section}]"))
}
