//! Delivers events to one address, in order, each until it is taken or given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::signature::{self, Signer};
use crate::backoff::Backoff;
use crate::signal::happening::Notice;
use crate::signal::unix_time;

/// How long after a failure it is tried again.
const PAUSES: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(60),
};

/// What one worker has counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// Events that were taken.
    delivered: u64,
    /// Attempts after the first.
    retried: u64,
    /// Events that were given up after the last attempt.
    failed: u64,
    /// Events that the receiver refused for good.
    refused: u64,
}

impl Counts {
    pub(super) fn by_name(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([
            ("delivered", self.delivered),
            ("retried", self.retried),
            ("failed", self.failed),
            ("refused", self.refused),
        ])
    }
}

/// Delivers to one address.
#[derive(Debug)]
pub(super) struct Worker {
    client: Client,
    url: Url,
    signer: Signer,
    retries: u32,
    events: mpsc::Receiver<Arc<Notice>>,
    counting: watch::Sender<BTreeMap<&'static str, u64>>,
    counts: Counts,
    /// Whether the latest event was not taken, which was told.
    is_failing: bool,
}

/// What came of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// The same again would be refused again.
    Refused,
    /// It may be taken later.
    Later,
}

impl Worker {
    pub(super) fn new(
        client: Client,
        url: Url,
        signer: Signer,
        retries: u32,
        events: mpsc::Receiver<Arc<Notice>>,
        counting: watch::Sender<BTreeMap<&'static str, u64>>,
    ) -> Self {
        Self {
            client,
            url,
            signer,
            retries,
            events,
            counting,
            counts: Counts::default(),
            is_failing: false,
        }
    }

    /// Runs until the queue is empty and its other end is gone.
    pub(super) async fn run(mut self) {
        while let Some(notice) = self.events.recv().await {
            self.deliver(&notice).await;
            self.counting.send_replace(self.counts.by_name());
        }
    }

    async fn deliver(&mut self, notice: &Notice) {
        let body = serde_json::to_vec(notice).expect("an event is a map of texts");
        for attempt in 0..=self.retries {
            if let Some(failures) = attempt.checked_sub(1) {
                sleep(PAUSES.pause(failures)).await;
                self.counts.retried += 1;
            }
            let (verdict, why) = self.attempt(body.clone()).await;
            match verdict {
                Verdict::Taken => {
                    self.counts.delivered += 1;
                    self.tell_of_success();
                    return;
                }
                Verdict::Refused => {
                    self.counts.refused += 1;
                    self.tell_of_failure(&why);
                    return;
                }
                Verdict::Later => self.tell_of_failure(&why),
            }
            self.counting.send_replace(self.counts.by_name());
        }
        self.counts.failed += 1;
    }

    async fn attempt(&self, body: Vec<u8>) -> (Verdict, String) {
        let signature = self.signer.sign(unix_time(), &body);
        let sent = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(signature::HEADER, signature)
            .body(body)
            .send()
            .await;
        match sent {
            Ok(answer) => (verdict(answer.status()), answer.status().to_string()),
            // Its address may hold a password.
            Err(error) => (Verdict::Later, told(&error.without_url())),
        }
    }

    fn tell_of_failure(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let host = self.url.host_str().unwrap_or_default();
            tracing::warn!(host, "a webhook does not take events: {why}");
        }
    }

    fn tell_of_success(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            let host = self.url.host_str().unwrap_or_default();
            tracing::info!(host, "a webhook takes events again");
        }
    }
}

/// An error and what caused it: the first alone says little.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn verdict(status: StatusCode) -> Verdict {
    let is_busy = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    match status {
        _ if status.is_success() => Verdict::Taken,
        _ if is_busy || status.is_server_error() => Verdict::Later,
        _ => Verdict::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<_> = (0..9)
            .map(|failures| PAUSES.pause(failures).as_millis())
            .collect();
        let expected = [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
        assert_eq!(pauses, expected);
        assert_eq!(PAUSES.pause(u32::MAX), PAUSES.longest);
    }

    #[test]
    fn only_what_may_be_taken_later_is_tried_again() {
        for (status, expected) in [
            (200, Verdict::Taken),
            (204, Verdict::Taken),
            (301, Verdict::Refused),
            (400, Verdict::Refused),
            (401, Verdict::Refused),
            (410, Verdict::Refused),
            (408, Verdict::Later),
            (429, Verdict::Later),
            (500, Verdict::Later),
            (503, Verdict::Later),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(verdict(status), expected, "{status}");
        }
    }
}
