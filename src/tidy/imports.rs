//! Where imports may point. No arrow points back.

use super::source::Source;

/// What the files of one module may name.
struct Rule {
    /// The module: a file, or a folder with all in it. The first that fits counts.
    module: &'static str,
    /// Our own modules it may name, each with all in it.
    own: &'static [&'static str],
    /// Other packages it may name, beside those in [`EVERYWHERE`].
    packages: &'static [&'static str],
}

/// Packages that do nothing by themselves.
const EVERYWHERE: [&str; 5] = ["std", "core", "alloc", "thiserror", "bytes"];

/// Parts of the standard library that act; only those who act may name them.
const ACTING: [&str; 6] = [
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::net::UdpSocket",
    "std::net::TcpListener",
];

const RULES: [Rule; 19] = [
    Rule {
        module: "backoff",
        own: &[],
        packages: &[],
    },
    Rule {
        module: "id",
        own: &[],
        packages: &[],
    },
    // Only tests are made of it: the estimator's oracle is another implementation.
    Rule {
        module: "engine::bwe::sim",
        own: &["engine", "id"],
        packages: &["str0m", "goog_cc", "proptest"],
    },
    Rule {
        module: "engine",
        own: &["engine", "id"],
        packages: &["str0m", "dimpl", "tracing", "aws_lc_rs", "zeroize"],
    },
    Rule {
        module: "mailbox",
        own: &["engine::command", "engine::copies", "engine::stats", "id"],
        packages: &["crossbeam_channel", "tokio", "hdrhistogram"],
    },
    Rule {
        module: "shard",
        own: &["engine", "id", "mailbox", "shard"],
        packages: &[
            "glommio",
            "libc",
            "socket2",
            "str0m",
            "crossbeam_channel",
            "tokio",
            "hdrhistogram",
            "tracing",
            "futures_util",
        ],
    },
    Rule {
        module: "signal",
        own: &[
            "engine::command",
            "engine::stats",
            "id",
            "mailbox",
            "metrics",
            "record",
            "signal",
        ],
        packages: &[
            "axum",
            "hdrhistogram",
            "sd_notify",
            "tokio",
            "futures_util",
            "serde",
            "serde_json",
            "tracing",
            "hyper",
            "hyper_util",
            "tower",
            "tower_service",
            "http",
            "http_body_util",
            "tower_http",
            "aws_lc_rs",
            "base64",
            "rust_embed",
            "tokio_tungstenite",
            "tokio_rustls",
            "jsonwebtoken",
            "aws_lc_rs",
            "utoipa",
            "utoipa_axum",
            "schemars",
        ],
    },
    Rule {
        module: "record",
        own: &[
            "backoff",
            "engine::codec",
            "engine::command",
            "engine::copies",
            "id",
            "mailbox",
            "record",
        ],
        packages: &[
            "aws_lc_rs",
            "clap",
            "crossbeam_channel",
            "indicatif",
            "object_store",
            "rustix",
            "schemars",
            "serde",
            "serde_json",
            "tokio",
            "tracing",
            "utoipa",
        ],
    },
    Rule {
        module: "metrics",
        own: &["engine::stats", "id", "mailbox", "metrics"],
        packages: &["hdrhistogram", "prometheus_client"],
    },
    Rule {
        module: "webhook",
        own: &["backoff", "signal", "webhook"],
        packages: &["aws_lc_rs", "reqwest", "serde_json", "tokio", "tracing"],
    },
    Rule {
        module: "call_log",
        own: &["backoff", "signal", "record", "call_log", "id"],
        packages: &["serde_json", "sqlx", "tokio", "tracing"],
    },
    Rule {
        module: "config",
        own: &[
            "engine", "shard", "signal", "record", "metrics", "webhook", "call_log", "id", "config",
        ],
        packages: &[
            "serde",
            "serde_yaml",
            "serde_json",
            "clap",
            "clap_complete",
            "if_addrs",
        ],
    },
    Rule {
        module: "main",
        own: &[""],
        packages: &[
            "corelay",
            "clap",
            "clap_complete",
            "clap_mangen",
            "indicatif",
            "tracing",
        ],
    },
    Rule {
        module: "log",
        own: &["log"],
        packages: &[
            "tracing",
            "tracing_subscriber",
            "tracing_opentelemetry",
            "opentelemetry",
            "opentelemetry_otlp",
            "opentelemetry_sdk",
        ],
    },
    Rule {
        module: "doctor",
        own: &["config", "doctor", "metrics", "shard", "signal"],
        packages: &["aws_lc_rs", "base64", "serde_json"],
    },
    Rule {
        module: "lib",
        own: &[""],
        packages: &[],
    },
    // Only tests are made of these.
    Rule {
        module: "sim",
        own: &[""],
        packages: &["str0m", "proptest", "dimpl", "fastrand"],
    },
    Rule {
        module: "tidy",
        own: &["tidy"],
        packages: &[],
    },
    Rule {
        module: "bin",
        own: &[""],
        packages: &["corelay", "clap"],
    },
];

/// Those that act: they open sockets and files, and start threads.
const ACTORS: [&str; 13] = [
    "shard", "signal", "record", "webhook", "call_log", "metrics", "config", "main", "log",
    "doctor", "sim", "tidy", "bin",
];

pub(super) fn check(path: &str, source: &Source) -> Vec<(usize, String)> {
    let module = path
        .trim_end_matches(".rs")
        .trim_end_matches("/mod")
        .replace('/', "::");
    let Some(rule) = RULES.iter().find(|rule| within(&module, rule.module)) else {
        let rule = "this module has no rule in tidy/imports.rs: say what it may name".to_owned();
        return vec![(1, rule)];
    };
    let mut found = Vec::new();
    for (at, name) in paths(&source.code_above_tests()) {
        let Some(name) = absolute(&module, path, &name) else {
            continue;
        };
        let allowed = match name.strip_prefix("crate::") {
            Some(own) => rule.own.iter().any(|to| to.is_empty() || within(own, to)),
            None => names_package(rule, &name),
        };
        if !allowed {
            let named = name.trim_start_matches("crate::");
            let sentence = format!("`{}` may not name `{named}`", rule.module);
            found.push((source.line_at(at), sentence));
        }
    }
    found.dedup();
    found
}

/// Whether `module` is `of` or inside it. `mod::Item` counts as inside `mod`.
fn within(module: &str, of: &str) -> bool {
    module
        .strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether a path that does not begin with `crate` may be named. One that begins with neither a
/// package nor the standard library is a local name.
fn names_package(rule: &Rule, name: &str) -> bool {
    let first = name.split("::").next().unwrap_or(name);
    if ACTING.iter().any(|acting| within(name, acting)) {
        return ACTORS.contains(&rule.module);
    }
    let manifest = include_str!("../../Cargo.toml");
    let is_package = manifest.lines().any(|line| {
        let declared = line.split(['=', ' ', '.']).next().unwrap_or("");
        declared.replace('-', "_") == first && line.contains('=')
    });
    let known = EVERYWHERE.contains(&first) || rule.packages.contains(&first);
    known || !(is_package || first == "corelay")
}

/// A path as it is seen from the root; `None` for one into the module itself.
fn absolute(module: &str, file: &str, name: &str) -> Option<String> {
    let mut here: Vec<&str> = module.split("::").collect();
    let mut rest: Vec<&str> = name.split("::").collect();
    match rest[0] {
        "crate" if rest.len() > 1 => return Some(name.to_owned()),
        "self" | "Self" | "crate" => return None,
        "super" => {}
        _ => return Some(name.to_owned()),
    }
    if matches!(file, "lib.rs" | "main.rs") {
        return None;
    }
    while rest.first() == Some(&"super") {
        rest.remove(0);
        here.pop();
    }
    here.extend(rest);
    Some(format!("crate::{}", here.join("::")))
}

/// Every path of two or more parts in `code` with its place, the braces of `use` spread out.
fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut uses = Vec::new();
    let mut from = 0;
    while let Some(at) = super::source::word(&code[from..], "use").map(|at| at + from) {
        let end = code[at..].find(';').map_or(code.len(), |end| at + end);
        spread(at, "", code[at + 3..end].trim(), &mut found);
        uses.push(at..end);
        from = end;
    }
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut start = None;
    for (at, c) in code.char_indices().chain([(code.len(), ' ')]) {
        match (start, part(c)) {
            (None, true) => start = Some(at),
            (Some(begin), false) => {
                start = None;
                let text = code[begin..at].trim_matches(':');
                let in_use = uses.iter().any(|range| range.contains(&begin));
                if !in_use && text.contains("::") {
                    found.push((begin, text.to_owned()));
                }
            }
            _ => {}
        }
    }
    found
}

/// Spreads `a::{b, c::{d, e}}` into `a::b`, `a::c::d` and `a::c::e`.
fn spread(at: usize, before: &str, tree: &str, found: &mut Vec<(usize, String)>) {
    let Some((head, rest)) = tree.split_once('{') else {
        let tree = tree.split(" as ").next().unwrap_or(tree).trim();
        if !tree.is_empty() {
            let path = format!("{before}{tree}");
            found.push((at, path.trim_end_matches("::self").to_owned()));
        }
        return;
    };
    let before = format!("{before}{}", head.trim());
    let inside = rest.rfind('}').map_or(rest, |end| &rest[..end]);
    let mut depth = 0;
    let mut begin = 0;
    for (index, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spread(at, &before, inside[begin..index].trim(), found);
                begin = index + 1;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_braces_of_an_import_are_spread_out() {
        let code = "use a::{b, c::{d as x, self}, e::F};\nfn f() { g::h(1); i() }";
        let names: Vec<String> = paths(code).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a::b", "a::c::d", "a::c", "a::e::F", "g::h"]);
    }

    #[test]
    fn a_relative_path_is_seen_from_the_root() {
        let seen = |name| absolute("engine::egress::history", "engine/egress/history.rs", name);
        assert_eq!(
            seen("super::seal::Key").unwrap(),
            "crate::engine::egress::seal::Key"
        );
        assert_eq!(seen("super::super::super::id").unwrap(), "crate::id");
        assert_eq!(seen("self::inner"), None);
    }
}
