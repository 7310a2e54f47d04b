//! Turns a YAML text into typed sections, and serde's errors into what a person can act on.

use std::fmt;

use serde::de::DeserializeOwned;

/// Where in the configuration something is wrong, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the environment variable that was read in its stead.
    pub origin: String,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// The option, as `section.key`; empty when the whole file is meant.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for Problem {}

/// Reads one file's text. A text of nothing but comments gives the defaults.
///
/// # Errors
///
/// [`Problem`] names the line and the key of the first thing that is wrong.
pub fn from_text<T: DeserializeOwned + Default>(
    origin: &str,
    text: &str,
    foreign: &[&str],
) -> Result<T, Problem> {
    match serde_yaml::from_str::<Option<T>>(text) {
        Ok(value) => Ok(value.unwrap_or_default()),
        Err(error) => Err(explain(origin, &error, foreign)),
    }
}

/// Puts serde's words into ours. `foreign` are sections of the other file.
pub(crate) fn explain(origin: &str, error: &serde_yaml::Error, foreign: &[&str]) -> Problem {
    let text = error.to_string();
    let line = error.location().map(|at| at.line());
    let text = match text.rfind(" at line ") {
        Some(end) if line.is_some() => &text[..end],
        _ => &text,
    };
    let (path, message) = split_path(text);
    if let Some((unknown, known)) = unknown_name(message, "unknown field `") {
        let key = join(path, unknown);
        let section = if path.is_empty() { "the file" } else { path };
        let mut what = "there is no such option.".to_owned();
        if path.is_empty() && foreign.contains(&unknown) {
            what.push_str(
                " It belongs into the other of the two files, webrtc.yaml or media.yaml.",
            );
        } else if let Some(near) = nearest(unknown, &known) {
            what.push_str(&format!(" Did you mean `{}`?", join(path, near)));
        }
        what.push_str(&format!(" In {section} there are: {}.", known.join(", ")));
        return Problem {
            origin: origin.to_owned(),
            line,
            key,
            what,
        };
    }
    let what = match unknown_name(message, "unknown variant `") {
        Some((unknown, known)) => {
            let hint = nearest(unknown, &known)
                .map_or_else(String::new, |near| format!(" Did you mean `{near}`?"));
            format!(
                "`{unknown}` is not possible.{hint} Allowed: {}.",
                known.join(", ")
            )
        }
        None => plain(message),
    };
    Problem {
        origin: origin.to_owned(),
        line,
        key: path.to_owned(),
        what,
    }
}

/// The path that `serde_yaml` puts before its message, and the message.
fn split_path(text: &str) -> (&str, &str) {
    let path_like = |text: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-[]".contains(c);
        !text.is_empty() && text.chars().all(legal)
    };
    match text.split_once(": ") {
        Some((path, message)) if path_like(path) => (path, message),
        _ => ("", text),
    }
}

/// Takes apart serde's "unknown field `a`, expected one of `b`, `c`".
fn unknown_name<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (unknown, rest) = message.strip_prefix(prefix)?.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((unknown, known))
}

/// serde's other messages, with the names of its types replaced by what a person writes.
fn plain(message: &str) -> String {
    let mut text = message
        .replace("invalid type: ", "this is ")
        .replace("invalid value: ", "this is ")
        .replace("unit value", "empty")
        .replace("this is integer ", "this is ")
        .replace("this is floating point ", "this is ")
        .replace("this is string ", "this is the text ")
        .replace("this is boolean ", "this is ")
        .replace("a boolean", "`true` or `false`")
        .replace("a sequence", "a list (`- ..` lines, or `[..]`)");
    if let Some(at) = text.find("expected struct ") {
        text.truncate(at);
        text.push_str("expected a section of `key: value` lines");
    }
    text
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        return key.to_owned();
    }
    format!("{path}.{key}")
}

/// The name that is likely meant: at most half of its letters differ.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .min()
        .filter(|(edits, candidate)| edits * 2 <= candidate.len())
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace one letter) that lead from `from` to `to`.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (deleted, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = deleted + 1;
        for (at, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// The line on which `path` stands in a text written one key a line; `None` when it is left out.
pub(crate) fn line_of(text: &str, path: &str) -> Option<usize> {
    let mut wanted = path.split('.').peekable();
    let mut indents = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if indents.last().is_some_and(|outer| indent <= *outer) {
            return None;
        }
        let key = content.split_once(':').map(|(key, _)| key.trim());
        if key == wanted.peek().copied() {
            indents.push(indent);
            wanted.next();
            if wanted.peek().is_none() {
                return Some(index + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::sections::WebrtcFile;
    use super::*;

    fn complaint(text: &str) -> String {
        from_text::<WebrtcFile>("w.yaml", text, &["video", "audio"])
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_and_the_likely_one() {
        let text = "# a comment\nrooms:\n  max_particpants: 4\n";
        let said = complaint(text);
        assert!(
            said.starts_with("w.yaml:3: rooms.max_particpants: "),
            "{said}"
        );
        assert!(
            said.contains("Did you mean `rooms.max_participants`?"),
            "{said}"
        );
        assert!(said.contains("idle_timeout"), "{said}");
    }

    #[test]
    fn a_misspelt_section_is_named() {
        let said = complaint("servr:\n  port: 1\n");
        assert!(said.starts_with("w.yaml:1: servr: "), "{said}");
        assert!(said.contains("Did you mean `server`?"), "{said}");
    }

    #[test]
    fn a_section_of_the_other_file_is_told_apart_from_a_typing_error() {
        let said = complaint("video:\n  codecs: []\n");
        assert!(said.contains("belongs into the other"), "{said}");
    }

    #[test]
    fn a_wrong_type_is_told_with_what_is_allowed() {
        let said = complaint("rooms:\n  auto_create: true\n  max_rooms: many\n");
        assert!(
            said.starts_with("w.yaml:3: rooms.max_rooms: this is the text \"many\""),
            "{said}"
        );
        assert!(said.contains("a whole number from 1 to 1000000"), "{said}");
        let said = complaint("rooms:\n  auto_create: 7\n");
        assert_eq!(
            said,
            "w.yaml:2: rooms.auto_create: this is `7`, expected `true` or `false`"
        );
        let said = complaint("rooms: 7\n");
        assert!(
            said.contains("expected a section of `key: value` lines"),
            "{said}"
        );
        let said = complaint("webrtc:\n  ice_servers: 7\n");
        assert!(said.contains("a list"), "{said}");
    }

    #[test]
    fn an_impossible_value_is_told_with_what_is_allowed() {
        let said = complaint("server:\n  port: 70000\n");
        assert_eq!(
            said,
            "w.yaml:2: server.port: this is `70000`, expected a whole number from 0 to 65535"
        );
        let said = complaint("performance:\n  driver: glomio\n");
        assert_eq!(
            said,
            "w.yaml:2: performance.driver: `glomio` is not possible. Did you mean `glommio`? \
             Allowed: auto, glommio, epoll."
        );
        let said = complaint("webrtc:\n  ice_servers:\n    - urls: [\"http://x\"]\n");
        assert!(
            said.starts_with("w.yaml:3: webrtc.ice_servers[0].urls[0]: "),
            "{said}"
        );
        assert!(said.contains("stun:"), "{said}");
    }

    #[test]
    fn what_is_not_yaml_is_told_with_its_line() {
        let said = complaint("server:\n  port: [1\nrooms:\n");
        assert!(said.starts_with("w.yaml:"), "{said}");
        let said = complaint("server:\n  port: 1\n  port: 2\n");
        assert!(said.contains("duplicate"), "{said}");
    }

    #[test]
    fn a_file_of_comments_gives_the_defaults() {
        for text in ["", "# nothing\n", "---\n"] {
            let read = from_text::<WebrtcFile>("w.yaml", text, &[]).unwrap();
            assert_eq!(read, WebrtcFile::default());
        }
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        assert_eq!(nearest("hots", &["host", "port"]), Some("host"));
        assert_eq!(nearest("certificate", &["host", "port"]), None);
    }

    #[test]
    fn the_line_of_a_key_is_found_by_its_section() {
        let text = "a:\n  x: 1\n# c\nb:\n  x: 2\n  y:\n    z: 3\n";
        assert_eq!(line_of(text, "b.x"), Some(5));
        assert_eq!(line_of(text, "b.y.z"), Some(7));
        assert_eq!(line_of(text, "a.y"), None);
    }
}
