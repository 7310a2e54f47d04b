//! One source file, with its code told apart from its comments and texts.

/// A file's text, and the same text with only its code or only its comments left.
pub(super) struct Source {
    text: String,
    /// Comments, and what stands in quotes, replaced by spaces.
    code: String,
    /// Everything but comments replaced by spaces.
    comments: String,
    /// The line before the first `#[cfg(test)]` module.
    above_tests: usize,
}

impl Source {
    pub(super) fn new(text: &str) -> Self {
        let (code, comments) = split(text);
        let lines: Vec<&str> = code.lines().collect();
        let is_tests = |index: &usize| {
            let next = lines.get(index + 1).map_or("", |line| line.trim());
            lines[*index].trim() == "#[cfg(test)]"
                && next.starts_with("mod ")
                && !next.ends_with(';')
        };
        let above_tests = (0..lines.len()).find(is_tests).unwrap_or(lines.len());
        Self {
            text: text.to_owned(),
            code,
            comments,
            above_tests,
        }
    }

    /// The lines as they are written.
    pub(super) fn lines(&self) -> std::str::Lines<'_> {
        self.text.lines()
    }

    /// The lines' code.
    pub(super) fn code_lines(&self) -> std::str::Lines<'_> {
        self.code.lines()
    }

    /// The lines' comments.
    pub(super) fn comment_lines(&self) -> std::str::Lines<'_> {
        self.comments.lines()
    }

    /// How many lines there are above the tests.
    pub(super) fn lines_above_tests(&self) -> usize {
        self.above_tests
    }

    /// The code above the tests, as one text.
    pub(super) fn code_above_tests(&self) -> String {
        let lines: Vec<&str> = self.code.lines().take(self.above_tests).collect();
        lines.join("\n")
    }

    /// Every function with a body: its name, its first and its last line.
    pub(super) fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = word(&self.code[from..], "fn").map(|at| at + from) {
            from = at + 2;
            let rest = &self.code[from..];
            let name: String = rest
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let Some(end) = body_end(rest).map(|end| end + from) else {
                continue;
            };
            if !name.is_empty() {
                found.push((name, self.line_at(at), self.line_at(end)));
            }
        }
        found
    }

    /// The line, from 1, of a place in the code.
    pub(super) fn line_at(&self, at: usize) -> usize {
        1 + self.code[..at].matches('\n').count()
    }
}

/// Where `wanted` stands as a word of its own.
pub(super) fn word(code: &str, wanted: &str) -> Option<usize> {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(wanted).map(|(at, _)| at).find(|at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + wanted.len()..].chars().next();
        !before.is_some_and(inside) && !after.is_some_and(inside)
    })
}

/// The end of the block that begins after a function's head; `None` when it has no body.
fn body_end(code: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut parentheses = 0_isize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => parentheses += 1,
            ')' | ']' => parentheses -= 1,
            ';' if depth == 0 && parentheses == 0 => return None,
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// What the text is made of at one place.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    LineComment,
    BlockComment(usize),
    /// Ends with a quote and this many `#`; `None` when a backslash escapes.
    Text(Option<usize>),
}

/// The code and the comments of a text, each with the rest blanked out.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut comments = String::with_capacity(text.len());
    let mut part = Part::Code;
    let mut at = 0;
    while at < chars.len() {
        let (next, taken, shown) = step(&chars, at, part);
        for c in &chars[at..at + taken] {
            let is_comment = matches!(shown, Part::LineComment | Part::BlockComment(_));
            let blank = if *c == '\n' { '\n' } else { ' ' };
            code.push(if shown == Part::Code { *c } else { blank });
            comments.push(if is_comment { *c } else { blank });
        }
        at += taken;
        part = next;
    }
    (code, comments)
}

/// What follows the characters at `at`, how many belong together, and what they are part of.
fn step(chars: &[char], at: usize, part: Part) -> (Part, usize, Part) {
    let next = chars.get(at + 1).copied();
    match (part, chars[at]) {
        (Part::Code, '/') if next == Some('/') => (Part::LineComment, 2, Part::LineComment),
        (Part::Code, '/') if next == Some('*') => (Part::BlockComment(1), 2, Part::BlockComment(1)),
        (Part::Code, '"') => (Part::Text(None), 1, Part::Text(None)),
        (Part::Code, 'r') if let Some(hashes) = raw_text(chars, at) => {
            let part = Part::Text(Some(hashes));
            (part, 2 + hashes, part)
        }
        (Part::Code, '\'') => match quoted_character(chars, at) {
            Some(length) => (Part::Code, length, Part::Text(None)),
            None => (Part::Code, 1, Part::Code),
        },
        (Part::LineComment, '\n') => (Part::Code, 1, Part::Code),
        (Part::BlockComment(depth), '*') if next == Some('/') => {
            let after = if depth == 1 {
                Part::Code
            } else {
                Part::BlockComment(depth - 1)
            };
            (after, 2, part)
        }
        (Part::BlockComment(depth), '/') if next == Some('*') => {
            (Part::BlockComment(depth + 1), 2, part)
        }
        (Part::Text(None), '\\') if next.is_some() => (part, 2, part),
        (Part::Text(None), '"') => (Part::Code, 1, part),
        (Part::Text(Some(hashes)), '"') if closes(chars, at + 1, hashes) => {
            (Part::Code, 1 + hashes, part)
        }
        _ => (part, 1, part),
    }
}

/// The `#` of a raw text that begins at `at`.
fn raw_text(chars: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|at| chars[at]);
    if before.is_some_and(|c| (c.is_alphanumeric() && c != 'b') || c == '_') {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn closes(chars: &[char], at: usize, hashes: usize) -> bool {
    chars[at..]
        .iter()
        .take(hashes)
        .filter(|c| **c == '#')
        .count()
        == hashes
}

/// The length of the character literal at `at`; `None` when it is a lifetime.
fn quoted_character(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        let close = chars[at + 3..].iter().position(|c| *c == '\'')?;
        return Some(close + 4);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_apart_from_comments_and_texts() {
        let text = "let a = \"{ // x\"; // }\nlet b = r#\"\"{\"#; /* { /* } */ */ let c = '{';\n";
        let source = Source::new(text);
        assert!(!source.code.contains(['{', '}']), "{}", source.code);
        assert_eq!(source.comments.matches('}').count(), 2);
        assert_eq!(source.code.lines().count(), 2);
        assert!(source.code.contains("let c ="));
    }

    #[test]
    fn a_lifetime_is_no_quote() {
        let source = Source::new("fn f<'a>(x: &'a str) -> char { '\\'' }\n");
        assert_eq!(source.functions(), [("f".to_owned(), 1, 1)]);
    }

    #[test]
    fn a_function_without_a_body_is_none() {
        let source =
            Source::new("trait T {\n    fn f(&self, x: [u8; 2]);\n    fn g() {\n    }\n}\n");
        assert_eq!(source.functions(), [("g".to_owned(), 3, 4)]);
    }
}
