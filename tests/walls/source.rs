//! Reads Rust source as far as the walls need it: what is code and what is comment, which paths it
//! names, which files its `mod` lines reach. Works on text; no expansion of macros.

/// What a byte of source belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Code,
    Comment,
    Literal,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The end of the string literal whose opening quote is at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

/// The end of the raw string that begins with the `r` at `at`, if one does.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|&&byte| byte == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let body = &bytes[open + 1..];
    let found = body.windows(close.len()).position(|window| window == close);
    Some(found.map_or(bytes.len(), |found| open + 1 + found + close.len()))
}

/// The end of the character literal at `at`, or `None` for a lifetime.
fn char_end(text: &str, at: usize) -> Option<usize> {
    let mut rest = text[at + 1..].char_indices();
    let (_, first) = rest.next()?;
    if first == '\\' {
        rest.next()?;
        return rest.find(|&(_, c)| c == '\'').map(|(offset, _)| at + 1 + offset + 1);
    }
    let (offset, second) = rest.next()?;
    (second == '\'').then_some(at + 1 + offset + 1)
}

fn comment_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at..at + 2)? {
        b"//" => {
            let line = bytes[at..].iter().position(|&byte| byte == b'\n');
            Some(line.map_or(bytes.len(), |length| at + length))
        }
        b"/*" => {
            let (mut depth, mut end) = (1, at + 2);
            while depth > 0 && end < bytes.len() {
                let step = match bytes.get(end..end + 2) {
                    Some(b"/*") => (1, 2),
                    Some(b"*/") => (-1, 2),
                    _ => (0, 1),
                };
                depth += step.0;
                end += step.1;
            }
            Some(end)
        }
        _ => None,
    }
}

fn classify(text: &str) -> Vec<Class> {
    let bytes = text.as_bytes();
    let mut classes = vec![Class::Code; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let starts_word = !at.checked_sub(1).is_some_and(|before| is_word(bytes[before]));
        let after_prefix = at >= 1
            && matches!(bytes[at - 1], b'b' | b'c')
            && !at.checked_sub(2).is_some_and(|before| is_word(bytes[before]));
        let (class, end) = if let Some(end) = comment_end(bytes, at) {
            (Class::Comment, end)
        } else if bytes[at] == b'"' {
            (Class::Literal, string_end(bytes, at))
        } else if bytes[at] == b'r' && (starts_word || after_prefix) {
            raw_string_end(bytes, at).map_or((Class::Code, at + 1), |end| (Class::Literal, end))
        } else if bytes[at] == b'\'' {
            char_end(text, at).map_or((Class::Code, at + 1), |end| (Class::Literal, end))
        } else {
            (Class::Code, at + 1)
        };
        let end = end.min(bytes.len());
        classes[at..end].fill(class);
        at = end;
    }
    classes
}

/// The text with everything but one class turned into spaces; lines and offsets stay.
fn only(text: &str, class: Class) -> String {
    let classes = classify(text);
    let keep = |(&byte, &found): (&u8, &Class)| {
        if byte == b'\n' || found == class { byte } else { b' ' }
    };
    let bytes = text.as_bytes().iter().zip(&classes).map(keep).collect();
    String::from_utf8(bytes).expect("classes change between characters only")
}

/// The code, without comments and the contents of literals.
pub(crate) fn code_only(text: &str) -> String {
    only(text, Class::Code)
}

/// The comments.
pub(crate) fn comments_only(text: &str) -> String {
    only(text, Class::Comment)
}

/// The code without modules that exist for tests only.
pub(crate) fn without_tests(code: &str) -> String {
    let mut kept = code.to_string();
    let mut from = 0;
    while let Some(found) = kept[from..].find("#[cfg(") {
        let start = from + found;
        from = start + 6;
        let Some(close) = kept[start..].find(")]").map(|close| start + close) else { break };
        let condition = &kept[start + 6..close];
        let names_test = condition.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test");
        let rest = kept[close + 2..].trim_start();
        if !names_test || condition.contains("not(test") || !rest.starts_with("mod ") {
            continue;
        }
        let Some(open) = kept[close..].find(['{', ';']).map(|open| close + open) else { break };
        let mut end = open + 1;
        if kept.as_bytes()[open] == b'{' {
            let mut depth = 1;
            while depth > 0 && end < kept.len() {
                depth += match kept.as_bytes()[end] {
                    b'{' => 1,
                    b'}' => -1,
                    _ => 0,
                };
                end += 1;
            }
        }
        let blank: String =
            kept[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        kept.replace_range(start..end, &blank);
    }
    kept
}

/// A word, `::`, or one mark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
    at: usize,
}

/// Splits code (from [`code_only`]) into tokens.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let start = at;
        if is_word(bytes[at]) {
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
        } else {
            at += if bytes[at..].starts_with(b"::") { 2 } else { 1 };
        }
        line += usize::from(bytes[start] == b'\n');
        if !bytes[start].is_ascii_whitespace() {
            found.push(Token { text: &code[start..at], line, at: start });
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.bytes().all(is_word) && !text.as_bytes()[0].is_ascii_digit()
}

/// Every path of two or more segments that code names, and everything it imports, with its line.
/// A glob ends in `::*`, and so does an import under another name.
pub(crate) fn paths(code: &str) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if text(at) == "use" && text(at + 1) != "<" {
            at = use_tree(&tokens, at + 1, "", &mut found);
        } else if text(at) == "extern" && text(at + 1) == "crate" {
            found.push((tokens[at].line, text(at + 2).to_string()));
            at += 3;
        } else if is_name(text(at)) && text(at + 1) == "::" {
            let start = at;
            let mut path = text(at).to_string();
            while text(at + 1) == "::" && !text(at + 2).is_empty() && is_name(text(at + 2)) {
                path = format!("{path}::{}", text(at + 2));
                at += 2;
            }
            found.push((tokens[start].line, path));
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

fn use_tree(
    tokens: &[Token<'_>],
    mut at: usize,
    prefix: &str,
    found: &mut Vec<(usize, String)>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut path = prefix.to_string();
    loop {
        match text(at) {
            "" | ";" | "," | "}" => return at,
            "::" => at += 1,
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | "") {
                    at = use_tree(tokens, at, &path, found);
                    at += usize::from(text(at) == ",");
                }
                return at + 1;
            }
            segment => {
                if segment != "self" || path.is_empty() {
                    let mark = if path.is_empty() { "" } else { "::" };
                    path = format!("{path}{mark}{segment}");
                }
                let line = tokens[at].line;
                at += 1;
                if text(at) == "as" {
                    found.push((line, format!("{path}::*")));
                    at += 2;
                }
                if text(at) != "::" {
                    found.push((line, path));
                    return at;
                }
            }
        }
    }
}

/// Whether naming `path` is naming `wall` or something behind it.
pub(crate) fn is_behind(path: &str, wall: &str) -> bool {
    let is_within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    is_within(path, wall) || path.strip_suffix("::*").is_some_and(|open| is_within(wall, open))
}

/// A `mod name;` line: the inline modules around it, its name, and the file a path attribute gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) parents: Vec<String>,
    pub(crate) name: String,
    pub(crate) file: Option<String>,
}

/// The modules that a source file declares and keeps elsewhere.
pub(crate) fn modules(source: &str) -> Vec<Module> {
    let code = code_only(source);
    let tokens = tokens(&code);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let (mut found, mut parents, mut depth, mut file) = (Vec::new(), Vec::new(), 0, None);
    for at in 0..tokens.len() {
        match text(at) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if parents.last().is_some_and(|(_, inside)| *inside > depth) {
                    parents.pop();
                }
            }
            "path" if text(at + 1) == "=" && text(at.wrapping_sub(1)) == "[" => {
                let end = source[tokens[at].at..].find(']').map_or(source.len(), |end| end);
                file = source[tokens[at].at..][..end].split('"').nth(1).map(str::to_string);
            }
            "mod" if is_name(text(at + 1).trim_start_matches("r#")) => match text(at + 2) {
                "{" => parents.push((text(at + 1).to_string(), depth + 1)),
                ";" => found.push(Module {
                    parents: parents.iter().map(|(name, _)| name.clone()).collect(),
                    name: text(at + 1).to_string(),
                    file: file.take(),
                }),
                _ => {}
            },
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(code: &str) -> Vec<String> {
        paths(&code_only(code)).into_iter().map(|(_, path)| path).collect()
    }

    /// Comments and literals of every form are told from code; lines stay where they are.
    #[test]
    fn code_is_told_from_comments_and_literals() {
        let source = "a /* b /* c */ d */ e // f\n\"g // \\\" h\" i r#\"j \" k\"# 'l' '\\'' &'m n";
        let code = code_only(source);
        let words: Vec<_> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "e", "i", "&'m", "n"]);
        assert_eq!(code.len(), source.len());
        assert_eq!(code.lines().count(), 2);
        let comments = comments_only(source);
        assert!(comments.contains("c */ d") && comments.contains("// f"));
        assert!(!comments.contains('g') && !comments.contains('a'));
        assert_eq!(code_only("br\"x\" 'ä' y b'\"' z").split_whitespace().count(), 4);
    }

    /// Nested imports, globs, renames and inline paths all name what they name.
    #[test]
    fn every_way_to_name_a_path_is_found() {
        assert_eq!(
            named("use std::{time::{self, Instant}, fs as f}; pub use ::a::b;"),
            ["std::time", "std::time::Instant", "std::fs::*", "std::fs", "a::b"]
        );
        assert_eq!(named("let x = std::time::Instant::now();"), ["std::time::Instant::now"]);
        assert_eq!(named("use std::*; extern crate glommio;"), ["std::*", "glommio"]);
        assert_eq!(named("fn f() -> ::std::io::Result<()> {}"), ["std::io::Result"]);
        assert_eq!(named("Vec::<std::fs::File>::new()"), ["Vec", "std::fs::File"]);
        assert!(named("// std::time\n\"std::time\"").is_empty());
    }

    /// A wall stops itself, what is behind it, and an opening wide enough to reach it.
    #[test]
    fn walls_stop_what_is_behind_them() {
        for path in ["std::time", "std::time::Instant", "std::*", "std::time::*"] {
            assert!(is_behind(path, "std::time"), "{path}");
        }
        for path in ["std::timer", "std", "my::std::time", "core::*", "super::*"] {
            assert!(!is_behind(path, "std::time"), "{path}");
        }
    }

    /// Test modules are cut, everything else stays.
    #[test]
    fn test_modules_are_cut() {
        let kept = without_tests(
            "one\n#[cfg(test)]\nmod tests { two { } }\n#[cfg(all(test, not(loom)))]\nmod t { three }\n\
             #[cfg(loom)] mod d { four }\n#[cfg(test)] five",
        );
        for word in ["one", "four", "five"] {
            assert!(kept.contains(word), "{word} is gone from {kept}");
        }
        for word in ["two", "three"] {
            assert!(!kept.contains(word), "{word} is still in {kept}");
        }
        assert_eq!(kept.lines().count(), 7);
    }

    /// `mod` lines are found with their surroundings; inline modules aren't files.
    #[test]
    fn modules_are_found() {
        let found = modules(
            "pub mod a; mod b { mod c; } // mod d;\n#[path = \"x/e.rs\"]\nmod e; fn f() { g() }",
        );
        let module = |parents: &[&str], name: &str, file: Option<&str>| Module {
            parents: parents.iter().map(|parent| parent.to_string()).collect(),
            name: name.to_string(),
            file: file.map(str::to_string),
        };
        assert_eq!(
            found,
            [module(&[], "a", None), module(&["b"], "c", None), module(&[], "e", Some("x/e.rs"))]
        );
    }
}
