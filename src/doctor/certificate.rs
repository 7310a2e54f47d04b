//! The certificate: does it fit its key, and how long does it hold?

use super::Finding;
use crate::config::Config;
use crate::signal::{tls, unix_time, validity};

const ABOUT: &str = "certificate";

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let tls = &config.file.server.tls;
    if tls.cert.is_empty() {
        let seen = "none: browsers give cameras to pages of localhost only, unless a proxy has one";
        let fix = "set server.tls.cert and server.tls.key";
        return vec![Finding::poor(ABOUT, seen, fix)];
    }
    let options = tls::Options {
        certificate: tls.cert.clone().into(),
        key: tls.key.clone().into(),
        hsts_seconds: 0,
    };
    if let Err(error) = tls::load(&options) {
        return vec![Finding::bad(ABOUT, error.to_string(), "see server.tls")];
    }
    vec![judge(validity::end(&options.certificate), unix_time())]
}

fn judge(end: Option<u64>, now: u64) -> Finding {
    let days = |seconds: u64| seconds / 86_400;
    match end {
        None => Finding::poor(ABOUT, "until when it holds could not be read", "renew it"),
        Some(end) if end <= now => {
            let seen = format!("it has not held for {} days", days(now - end));
            Finding::bad(ABOUT, seen, "renew it; the server reads it again by itself")
        }
        Some(end) if end - now < validity::SOON => {
            let seen = format!("it holds for {} days more", days(end - now));
            Finding::poor(ABOUT, seen, "renew it; the server reads it again by itself")
        }
        Some(end) => Finding::good(ABOUT, format!("it holds for {} days more", days(end - now))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_certificate_that_ends_soon_is_told_of() {
        let verdict = |end| judge(end, 1_000_000_000).verdict;
        assert_eq!(verdict(Some(999_999_999)), Verdict::Bad);
        assert_eq!(verdict(Some(1_000_086_400)), Verdict::Poor);
        assert_eq!(verdict(Some(1_100_000_000)), Verdict::Good);
        assert_eq!(verdict(None), Verdict::Poor);
    }
}
