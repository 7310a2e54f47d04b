//! Whether a machine and a configuration are fit for the server, and what to do where not.

mod certificate;
mod machine;
mod md5;
mod network;
mod turn;

use crate::config::Config;

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub about: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// The line that mends it; empty where nothing is to mend.
    pub fix: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// The server runs, but not as well as it could.
    Poor,
    /// The server does not start, or clients do not reach it.
    Bad,
}

impl Finding {
    fn good(about: &'static str, seen: impl Into<String>) -> Self {
        Self {
            about,
            verdict: Verdict::Good,
            seen: seen.into(),
            fix: String::new(),
        }
    }

    fn poor(about: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            about,
            verdict: Verdict::Poor,
            seen: seen.into(),
            fix: fix.into(),
        }
    }

    fn bad(about: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            ..Self::poor(about, seen, fix)
        }
    }
}

/// Looks at everything. Takes some seconds where something does not answer.
#[must_use]
pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = machine::examine();
    findings.extend(network::examine(config));
    findings.extend(certificate::examine(config));
    findings.extend(turn::examine(config));
    findings
}

/// Whether nothing is [`Verdict::Bad`].
#[must_use]
pub fn is_fit(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|finding| finding.verdict != Verdict::Bad)
}

/// The findings for a person.
#[must_use]
pub fn report(findings: &[Finding]) -> String {
    let mut report = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok  ",
            Verdict::Poor => "warn",
            Verdict::Bad => "FAIL",
        };
        report += &format!("{mark}  {:<18} {}\n", finding.about, finding.seen);
        if !finding.fix.is_empty() {
            report += &format!("{:>24} -> {}\n", "", finding.fix);
        }
    }
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    let (bad, poor) = (count(Verdict::Bad), count(Verdict::Poor));
    report + &format!("\n{bad} to mend, {poor} that could be better\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_line_that_mends_what_is_wrong() {
        let findings = [
            Finding::good("kernel", "6.1"),
            Finding::bad("UDP port", "10000 is taken", "choose another with --udp"),
        ];
        let report = report(&findings);
        assert!(report.contains("FAIL  UDP port"), "{report}");
        assert!(report.contains("-> choose another with --udp"), "{report}");
        assert!(
            report.ends_with("1 to mend, 0 that could be better\n"),
            "{report}"
        );
        assert!(!is_fit(&findings) && is_fit(&findings[..1]));
    }

    #[test]
    fn every_thing_is_looked_at() {
        let findings = examine(&Config::default());
        for about in [
            "kernel",
            "io_uring",
            "eBPF",
            "open files",
            "locked memory",
            "UDP buffers",
            "clock",
            "UDP port",
            "HTTP port",
            "announced address",
            "certificate",
            "TURN",
        ] {
            let found = findings.iter().any(|finding| finding.about == about);
            assert!(found, "{about}: {findings:?}");
        }
    }
}
