//! The texts of compares and operations.
//!
//! ```text
//! compare    = target "(" word ")" relation word
//! target     = "mod" | "create" | "version" | "value"      relation = "=" | "!=" | ">" | "<"
//! operation  = "put" word word | ("get" | "del") word ["--prefix"]
//! word       = a run of bytes without space, quote or parenthesis | '"' … '"' with \" and \\
//! ```

use ringraft_types::command::{
    Compare, DeleteCommand, Keys, Operand, Operation, PutCommand, RangeCommand, Relation, Target,
};

/// A compare that owns its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CompareText {
    target: Target,
    relation: Relation,
    key: String,
    number: u64,
    value: String,
}

/// An operation that owns its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OperationText {
    Put { key: String, value: String },
    Get { key: String, prefix: bool },
    Delete { key: String, prefix: bool },
}

/// Reads a compare.
pub(super) fn compare(text: &str) -> Result<CompareText, String> {
    let fail = |what: &str| format!("compare {text:?}: {what}, as in mod(key)=3");
    let (target, rest) = text.split_once('(').ok_or_else(|| fail("no '(' after its target"))?;
    let target = match target.trim() {
        "mod" => Target::ModRevision,
        "create" => Target::CreateRevision,
        "version" => Target::Version,
        "value" => Target::Value,
        _ => return Err(fail("its target is none of mod, create, version, value")),
    };
    let (key, rest) = word(rest).map_err(|error| fail(&error))?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(|| fail("no ')' after its key"))?;
    let rest = rest.trim_start();
    let relations = [
        ("!=", Relation::NotEqual),
        ("=", Relation::Equal),
        (">", Relation::Greater),
        ("<", Relation::Less),
    ];
    let (relation, rest) = relations
        .iter()
        .find_map(|(sign, relation)| Some((*relation, rest.strip_prefix(sign)?)))
        .ok_or_else(|| fail("no =, !=, > or < after its key"))?;
    // An empty value may be written as nothing at all.
    let (operand, rest) = match rest.trim() {
        "" if target == Target::Value => (String::new(), ""),
        rest => word(rest).map_err(|error| fail(&error))?,
    };
    if !rest.trim().is_empty() {
        return Err(fail("something follows it; quote a value with spaces"));
    }
    let number = match target {
        Target::Value => 0,
        _ => operand.parse().map_err(|_| fail("its right side is not a whole number"))?,
    };
    Ok(CompareText { target, relation, key, number, value: operand })
}

/// Reads an operation.
pub(super) fn operation(text: &str) -> Result<OperationText, String> {
    let fail = |what: &str| format!("operation {text:?}: {what}");
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (next, after) = word(rest).map_err(|error| fail(&error))?;
        words.push(next);
        rest = after.trim_start();
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let own = |text: &str| text.to_owned();
    match words[..] {
        ["put", key, value] => Ok(OperationText::Put { key: own(key), value: own(value) }),
        ["get", key] => Ok(OperationText::Get { key: own(key), prefix: false }),
        ["get", key, "--prefix"] => Ok(OperationText::Get { key: own(key), prefix: true }),
        ["del", key] => Ok(OperationText::Delete { key: own(key), prefix: false }),
        ["del", key, "--prefix"] => Ok(OperationText::Delete { key: own(key), prefix: true }),
        ["put", ..] => Err(fail("put takes a key and a value; quote what has spaces")),
        ["get" | "del", ..] => Err(fail("it takes a key, and perhaps --prefix")),
        _ => Err(fail("it begins with none of put, get, del")),
    }
}

/// Takes one word off the front.
fn word(text: &str) -> Result<(String, &str), String> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '(' | ')'))
            .unwrap_or(text.len());
        if end == 0 {
            return Err("a word is missing".into());
        }
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut word = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((word, &quoted[at + 1..])),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => word.push(escaped),
                _ => return Err("a backslash is followed by neither a quote nor another".into()),
            },
            c => word.push(c),
        }
    }
    Err("a quote is not closed".into())
}

impl CompareText {
    pub(super) fn borrow(&self) -> Compare<'_> {
        let operand = match self.target {
            Target::Value => Operand::Value(self.value.as_bytes()),
            _ => Operand::Number(self.number),
        };
        let Self { target, relation, .. } = *self;
        Compare { target, relation, key: self.key.as_bytes(), operand }
    }
}

impl OperationText {
    pub(super) fn borrow(&self) -> Operation<'_> {
        match self {
            Self::Put { key, value } => Operation::Put(PutCommand {
                key: key.as_bytes(),
                value: value.as_bytes(),
                previous: false,
            }),
            Self::Delete { key, prefix } => {
                Operation::Delete(DeleteCommand { keys: keys(key, *prefix), previous: false })
            }
            Self::Get { key, prefix } => {
                Operation::Range(RangeCommand::current(keys(key, *prefix)))
            }
        }
    }
}

fn keys(key: &str, prefix: bool) -> Keys<'_> {
    if prefix { Keys::Prefix(key.as_bytes()) } else { Keys::One(key.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(target: Target, relation: Relation, key: &str, number: u64) -> CompareText {
        let (key, value) = (key.to_owned(), number.to_string());
        CompareText { target, relation, key, number, value }
    }

    /// Goal: every target and relation is read, with or without spaces and quotes.
    #[test]
    fn compares() {
        let read = |text: &str| compare(text).expect(text);
        assert_eq!(read("mod(k)=3"), number(Target::ModRevision, Relation::Equal, "k", 3));
        let spaced = number(Target::CreateRevision, Relation::NotEqual, "a b", 0);
        assert_eq!(read(" create( \"a b\" ) != 0 "), spaced);
        assert_eq!(read("version(/x/y)<7"), number(Target::Version, Relation::Less, "/x/y", 7));
        assert_eq!(read("mod(k)>18446744073709551615").number, u64::MAX);
        assert_eq!(read("value(k)=v=1").value, "v=1");
        assert_eq!(read("value(k)=\"a \\\"b\\\\\"").value, "a \"b\\");
        assert_eq!(read("value(k)=").value, "");
    }

    /// Goal: operations are read, quotes and all.
    #[test]
    fn operations() {
        let read = |text: &str| operation(text).expect(text);
        let put =
            |key: &str, value: &str| OperationText::Put { key: key.into(), value: value.into() };
        assert_eq!(read("put k v"), put("k", "v"));
        assert_eq!(read(" put  \"a key\" \"\" "), put("a key", ""));
        assert_eq!(read("get k"), OperationText::Get { key: "k".into(), prefix: false });
        assert_eq!(
            read("del k/ --prefix"),
            OperationText::Delete { key: "k/".into(), prefix: true }
        );
    }

    /// Goal: what can't be meant is refused, naming the text and the reason.
    #[test]
    fn nonsense_is_refused() {
        for (text, reason) in [
            ("mod k=3", "no '(' after its target"),
            ("rev(k)=3", "its target is none of"),
            ("mod()=3", "a word is missing"),
            ("mod(k=3", "no ')' after its key"),
            ("mod(k)3", "no =, !=, > or <"),
            ("mod(k)=x", "not a whole number"),
            ("mod(k)=-1", "not a whole number"),
            ("mod(k)=1 2", "something follows it"),
            ("value(\"k)=1", "a quote is not closed"),
        ] {
            let error = compare(text).expect_err(text);
            assert!(error.contains(reason) && error.contains("compare"), "{text}: {error}");
        }
        for (text, reason) in [
            ("", "it begins with none of"),
            ("set k v", "it begins with none of"),
            ("put k", "put takes a key and a value"),
            ("put k a b", "put takes a key and a value"),
            ("get", "it takes a key"),
            ("del k --all", "it takes a key"),
            ("put k \"a\\n\"", "a backslash"),
        ] {
            let error = operation(text).expect_err(text);
            assert!(error.contains(reason) && error.contains("operation"), "{text}: {error}");
        }
    }
}
