//! Names that say nothing, and comments that tell history.

use super::source::{Source, word};

/// Beginnings of functions that add no meaning, or hide what is done.
const EMPTY_PREFIXES: [&str; 3] = ["get_", "do_", "process_"];
/// What the standard library calls the mutable look-up of a collection.
const STANDARD: &str = "get_mut";
/// Words of types and modules that could be said of anything.
const EMPTY_WORDS: [&str; 5] = ["manager", "util", "utils", "helper", "helpers"];
/// What a comment says when it tells how the code came about.
const HISTORY: [&str; 11] = [
    "TODO",
    "FIXME",
    "XXX",
    "HACK",
    "for now",
    "used to be",
    "formerly",
    "refactor",
    "renamed from",
    "moved from",
    "temporarily",
];

pub(super) fn check(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, code) in source
        .code_lines()
        .enumerate()
        .take(source.lines_above_tests())
    {
        if let Some(name) = empty_name(code) {
            found.push((index + 1, format!("the name `{name}` says nothing")));
        }
    }
    for (index, comment) in source.comment_lines().enumerate() {
        let tells = |phrase: &&str| {
            let capital = phrase.chars().all(|c| c.is_ascii_uppercase());
            let comment = if capital {
                comment.to_owned()
            } else {
                comment.to_lowercase()
            };
            word(&comment, phrase).is_some()
        };
        if let Some(phrase) = HISTORY.iter().find(|phrase| tells(phrase)) {
            let rule = format!("a comment says why it is so, not what was or will be: `{phrase}`");
            found.push((index + 1, rule));
        }
    }
    found
}

/// The name that this line gives to something others see, when it is an empty one.
fn empty_name(code: &str) -> Option<&str> {
    let code = code.trim_start();
    let public = code.starts_with("pub");
    let name_after = |keyword: &str| {
        let at = word(code, keyword)?;
        let rest = code[at + keyword.len()..].trim_start();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        Some(&rest[..end.unwrap_or(rest.len())])
    };
    if let Some(name) = name_after("fn").filter(|_| public) {
        let empty = EMPTY_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        return (empty && name != STANDARD).then_some(name);
    }
    let is_module = code.starts_with("mod ") || (public && word(code, "mod").is_some());
    let keywords: &[&str] = if is_module {
        &["mod"]
    } else {
        &["struct", "enum", "trait", "type"]
    };
    if !public && !is_module {
        return None;
    }
    let name = keywords.iter().find_map(|keyword| name_after(keyword))?;
    let empty = words(name)
        .iter()
        .any(|part| EMPTY_WORDS.contains(&part.as_str()));
    empty.then_some(name)
}

/// The words of a name in `CamelCase` or `snake_case`, in small letters.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if c != '_' {
            let last = words.last_mut().expect("there is always one");
            last.extend(c.to_lowercase());
        }
    }
    words
}
