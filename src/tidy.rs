//! House rules as a test: where imports may point, how long things may be, how they are named.

mod imports;
mod source;
mod words;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// Lines of one file above its tests.
const MAX_FILE_LINES: usize = 500;
/// Lines of one function, from `fn` to its closing brace.
const MAX_FUNCTION_LINES: usize = 70;
/// Characters of one line.
const MAX_COLUMNS: usize = 100;
/// The only files with `unsafe`.
const UNSAFE_FILES: [&str; 2] = ["shard/sys.rs", "engine/prefetch.rs"];
/// Lines above an `unsafe` within which its reason stands.
const SAFETY_REACH: usize = 8;

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Breach {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.rule)
    }
}

/// Every rule, on one file. `path` is relative to `src/`.
fn breaches(path: &str, text: &str) -> Vec<Breach> {
    let source = Source::new(text);
    let mut found: Vec<(usize, String)> = Vec::new();
    found.extend(shape(&source));
    found.extend(functions(&source));
    found.extend(attributes(&source));
    found.extend(unsafety(path, &source));
    found.extend(imports::check(path, &source));
    found.extend(words::check(&source));
    found.sort();
    found
        .into_iter()
        .map(|(line, rule)| Breach {
            file: path.to_owned(),
            line,
            rule,
        })
        .collect()
}

/// The first line, the file's length, its width.
fn shape(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let first = source.lines().next().unwrap_or_default();
    if !first.starts_with("//! ") || !first.ends_with(['.', '!', '?', ':', ';', ',']) {
        let wraps = first.starts_with("//! ") && source.lines().nth(1).unwrap_or("").len() > 4;
        if !wraps {
            found.push((1, "the first line is a `//!` sentence".to_owned()));
        }
    }
    let length = source.lines_above_tests();
    if length > MAX_FILE_LINES {
        let rule = format!("{length} lines above the tests, at most {MAX_FILE_LINES}");
        found.push((length, rule));
    }
    for (index, line) in source.lines().enumerate() {
        let columns = line.chars().count();
        if columns > MAX_COLUMNS {
            let rule = format!("{columns} columns, at most {MAX_COLUMNS}");
            found.push((index + 1, rule));
        }
    }
    found
}

/// Functions above the tests that are too long.
fn functions(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (name, first, last) in source.functions() {
        let length = last - first + 1;
        if first <= source.lines_above_tests() && length > MAX_FUNCTION_LINES {
            let rule = format!("`{name}` has {length} lines, at most {MAX_FUNCTION_LINES}");
            found.push((first, rule));
        }
    }
    found
}

/// A lint that is silenced says why, and is told of when it is no longer needed.
fn attributes(source: &Source) -> Vec<(usize, String)> {
    let silent = |code: &str| code.contains("#[allow(") || code.contains("#![allow(");
    source
        .code_lines()
        .enumerate()
        .filter(|(_, code)| silent(code))
        .map(|(index, _)| {
            let rule = "`#[expect(.., reason = \"..\")]`, never `#[allow]`".to_owned();
            (index + 1, rule)
        })
        .collect()
}

/// `unsafe` where it is allowed only, each with its reason.
fn unsafety(path: &str, source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, code) in source.code_lines().enumerate() {
        let Some(at) = source::word(code, "unsafe") else {
            continue;
        };
        if !UNSAFE_FILES.contains(&path) {
            let files = UNSAFE_FILES.join(" or ");
            found.push((index + 1, format!("`unsafe` belongs into {files}")));
            continue;
        }
        let rest = code[at + "unsafe".len()..].trim_start();
        let needs_reason = rest.starts_with('{') || rest.starts_with("impl");
        let above = source
            .lines()
            .take(index + 1)
            .skip(index.saturating_sub(SAFETY_REACH));
        if needs_reason && !above.into_iter().any(|line| line.contains("// SAFETY:")) {
            found.push((
                index + 1,
                "an `unsafe` block has a `// SAFETY:` line".to_owned(),
            ));
        }
    }
    found
}

/// Every Rust file under `src/`, as path relative to it and text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push((relative, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_rules_hold() {
        let sources = sources();
        assert!(sources.len() > 20, "the sources were not found");
        let found: Vec<String> = sources
            .iter()
            .flat_map(|(path, text)| breaches(path, text))
            .map(|breach| breach.to_string())
            .collect();
        assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    }

    /// The rules that `text` breaks as a file at `path`.
    fn broken(path: &str, text: &str) -> String {
        let found = breaches(path, text);
        let rules: Vec<String> = found.into_iter().map(|breach| breach.rule).collect();
        rules.join("; ")
    }

    #[test]
    fn a_good_file_breaks_no_rule() {
        let text = "//! Names as types.\n\nuse std::fmt;\n\n/// A name.\npub struct Name;\n";
        assert_eq!(broken("id.rs", text), "");
    }

    #[test]
    fn a_file_begins_with_a_sentence() {
        assert!(broken("id.rs", "use std::fmt;\n").contains("first line"));
        assert!(broken("id.rs", "//! names\n").contains("first line"));
    }

    #[test]
    fn a_file_has_a_greatest_length_but_its_tests_have_not() {
        let long = format!("//! A file.\n{}", "const A: u8 = 1;\n".repeat(500));
        assert!(broken("id.rs", &long).contains("501 lines"));
        let tests = "    const A: u8 = 1;\n".repeat(600);
        let tested = format!("//! A file.\n#[cfg(test)]\nmod tests {{\n{tests}}}\n");
        assert_eq!(broken("id.rs", &tested), "");
    }

    #[test]
    fn a_function_has_a_greatest_length() {
        let body = "    let _ = \"}\"; // }\n".repeat(69);
        let text = format!("//! A file.\nfn long() {{\n{body}}}\nfn short() {{}}\n");
        assert!(broken("id.rs", &text).contains("`long` has 71 lines"));
        let body = "    call();\n".repeat(68);
        let text = format!("//! A file.\nfn fits() {{\n{body}}}\n");
        assert_eq!(broken("id.rs", &text), "");
    }

    #[test]
    fn a_line_has_a_greatest_width() {
        let text = format!("//! A file.\n// {}\n", "é".repeat(98));
        assert!(broken("id.rs", &text).contains("101 columns"));
    }

    #[test]
    fn a_lint_is_not_silenced_without_a_reason() {
        let text = "//! A file.\n#[allow(dead_code)]\nfn f() {}\n";
        assert!(broken("id.rs", text).contains("never `#[allow]`"));
        let text = "//! A file.\n// Not `#[allow(..)]`.\nconst A: &str = \"#[allow(x)]\";\n";
        assert_eq!(broken("id.rs", text), "");
    }

    #[test]
    fn unsafe_code_stays_where_it_is_allowed_and_gives_its_reason() {
        let text = "//! A file.\nfn f() {\n    unsafe { g() }\n}\n";
        assert!(broken("id.rs", text).contains("belongs into"));
        assert!(broken(UNSAFE_FILES[0], text).contains("SAFETY"));
        let text = "//! A file.\nfn f() {\n    // SAFETY: g asks nothing.\n    unsafe { g() }\n}\n";
        assert_eq!(broken(UNSAFE_FILES[0], text), "");
        assert_eq!(
            broken("id.rs", "//! No unsafe here.\nfn unsafe_name() {}\n"),
            ""
        );
    }

    #[test]
    fn imports_point_one_way() {
        for (path, line) in [
            ("id.rs", "use crate::engine::stats::Stats;"),
            ("engine/room.rs", "use crate::shard::Driver;"),
            ("engine/room.rs", "use tokio::sync::mpsc;"),
            ("engine/room.rs", "fn f() { crate::signal::serve(); }"),
            (
                "engine/command.rs",
                "use crate::{id::PeerId, mailbox::Waker};",
            ),
            ("engine/egress/history.rs", "use std::net::UdpSocket;"),
            ("engine/room.rs", "use super::super::mailbox::Waker;"),
            ("signal/session.rs", "use crate::engine::Engine;"),
            ("signal/session.rs", "use crate::shard::Shard;"),
            ("shard/turn.rs", "use crate::signal::Options;"),
            ("shard/turn.rs", "use axum::Router;"),
            ("mailbox.rs", "use crate::shard::Shard;"),
            ("signal/http.rs", "use crate::config::Config;"),
        ] {
            let text = format!("//! A file.\n{line}\n");
            assert!(
                broken(path, &text).contains("may not name"),
                "{path}: {line}"
            );
        }
        for (path, line) in [
            ("engine/room.rs", "use crate::id::RoomId;"),
            ("engine/room.rs", "use super::track::Track;"),
            ("engine/room.rs", "use std::net::SocketAddr;"),
            (
                "signal/session.rs",
                "use crate::engine::command::{Command, Event};",
            ),
            (
                "shard/turn.rs",
                "use crate::{engine::Engine, mailbox::Waker};",
            ),
            ("config/options.rs", "use crate::signal::Options;"),
            ("main.rs", "use corelay::config::Config;"),
            (
                "engine/room.rs",
                "// crate::shard and tokio::sync are named in a comment.",
            ),
        ] {
            let text = format!("//! A file.\n{line}\n");
            assert_eq!(broken(path, &text), "", "{path}: {line}");
        }
    }

    #[test]
    fn tests_may_import_what_they_like() {
        let text = "//! A file.\n#[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}\n";
        assert_eq!(broken("id.rs", text), "");
    }

    #[test]
    fn names_say_what_a_thing_is() {
        for line in [
            "pub fn get_peer() {}",
            "pub(crate) fn do_turn() {}",
            "pub fn process_packet() {}",
            "pub struct RoomManager;",
            "pub(super) enum SdpUtils {}",
            "pub mod util;",
            "mod helpers;",
        ] {
            let text = format!("//! A file.\n{line}\n");
            assert!(broken("id.rs", &text).contains("says nothing"), "{line}");
        }
        let text = "//! A file.\npub fn budget() {}\npub struct Futility;\npub fn doze() {}\n";
        assert_eq!(broken("id.rs", text), "");
    }

    #[test]
    fn comments_tell_what_is_and_not_what_was() {
        for line in [
            "// TODO: more",
            "/// Formerly a list.",
            "let a = 1; // for now",
            "// This used to be a map.",
        ] {
            let text = format!("//! A file.\n{line}\n");
            assert!(broken("id.rs", &text).contains("comment"), "{line}");
        }
        let text = "//! A file.\nconst A: &str = \"TODO\";\n// The key used to seal.\n";
        assert_eq!(broken("id.rs", text), "");
    }
}
