//! Every bound on what a client may send, hold or make us say, in one place.

use std::time::{Duration, Instant};

/// Longest message without a session description, in bytes of JSON text. A longer one is
/// answered with `message-too-big`, and the socket is closed with 1009.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Longest session description, in bytes. A longer one is answered with `message-too-big`, and
/// the socket is closed with 1009.
pub const MAX_SDP_BYTES: usize = 256 * 1024;

/// Longest WebSocket message that is read at all, in bytes: a session description with every
/// line end escaped, and its envelope. A longer one is answered with `message-too-big` without
/// having been read, and the socket is closed with 1009.
pub const MAX_FRAME_BYTES: usize = 512 * 1024;

/// What one WebSocket's reader allocates at once, in bytes. Most messages are far shorter.
pub const READ_BUFFER_BYTES: usize = 8 * 1024;

/// Longest `participantName`, in characters. A longer one is answered with `bad-message`.
pub const MAX_NAME_CHARS: usize = 128;

/// Longest `metadata`, in bytes of JSON text. A longer one is answered with `bad-message`.
pub const MAX_METADATA_BYTES: usize = 4 * 1024;

/// Longest `topic` of a `data` message, in characters. A longer one is answered with
/// `bad-message`.
pub const MAX_TOPIC_CHARS: usize = 128;

/// Longest `userId` and identity, in characters. A longer one is answered with `bad-message`.
pub const MAX_IDENTITY_CHARS: usize = 128;

/// Most tracks that one `subscribe`, `unsubscribe` or `set-layout` names. More are answered with
/// `bad-message`.
pub const MAX_NAMED_TRACKS: usize = 256;

/// Longest ICE candidate line, in bytes. A longer one is answered with `bad-candidate`.
pub const MAX_CANDIDATE_BYTES: usize = 1024;

/// Most m-lines whose source a client may name. More are answered with `bad-message`.
pub const MAX_NAMED_SOURCES: usize = 64;

/// Longest `a=mid` a source may be named for, in bytes. A longer one is answered with
/// `bad-message`.
pub const MAX_MID_BYTES: usize = 64;

/// Longest `ref` that is echoed, in characters. A longer one is left out of the reply.
pub const MAX_REF_CHARS: usize = 64;

/// Longest token, in bytes. A longer one is `unauthorized`.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How far the clock of whoever mints tokens may be from ours, in seconds.
pub const CLOCK_LEEWAY_SECONDS: f64 = 10.0;

/// Messages from all sockets waiting for the hub. When full the sockets are not read.
pub const INBOX_MESSAGES: usize = 256;

/// How long a client may take to send the head of a request, or to begin the next request on
/// the same connection. Then the connection is dropped.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked whether the certificate's files have changed.
pub const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(5);

/// Longest body of a request, in bytes. A longer one is answered with 413.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a request to the API may take, its body included. Then it is answered with 408.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Most rooms in one answer of the API. A call that wants more is answered with 400.
pub const MAX_PAGE: u32 = 1000;

/// Events that a reader of `/api/events` may be behind. Past them it is told `lagged`, and its
/// answer ends.
pub const READER_EVENTS: usize = 1024;

/// Readers of `/api/events` at one time. One more is answered with 503.
pub const MAX_READERS: usize = 64;

/// How long one answer of `/api/events` lasts at most, in seconds. Then its reader is told
/// `expired`, and calls again.
pub const MAX_READING_SECONDS: u64 = 24 * 60 * 60;

/// Longest head of a request, in bytes. A longer one is answered with 431.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How long a WebSocket may be open without a token where one is required. Then it is told
/// `unauthorized` and closed with 1008.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked for what has taken too long: [`TOKEN_TIMEOUT`], empty rooms, sockets
/// that did not come back.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often a WebSocket is pinged, so that proxies keep it and dead ones are noticed.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long a WebSocket may stay silent, pongs included. Then it counts as gone: the
/// participant leaves and the socket is dropped.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// How many messages that wait for one client leave together.
pub const WRITE_TOGETHER_MESSAGES: usize = 32;

/// How long writing them may take. Then the reader is too slow, as above.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take in nothing of what it is sent, whatever that is. Then the connection
/// is dropped.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that one connection is read in a burst, whatever they are: requests, messages, and frames
/// that never become a message. Past burst and rate it is read no faster, so that its client has to
/// wait.
pub const READ_BURST_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes that one connection is read per second, in the long run; see [`READ_BURST_BYTES`].
pub const READ_BYTES_PER_SECOND: u64 = 1024 * 1024;

/// How long a connection past its rate is left alone.
pub const READ_PAUSE: Duration = Duration::from_millis(50);

/// How long a client has to answer our close frame, or to take in the last bytes of a
/// connection that ends. Then the connection is dropped.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that are read and thrown away at the end of a connection, so that a client in the
/// middle of sending sees our reason and not a reset. Past them it sees the reset.
pub const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// How long open sockets have to take in `room-closed` when the server stops. Then they are
/// dropped.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Lines of one kind that strangers can bring into the log, per [`LOG_PERIOD`]. Further ones
/// are counted, and the count is logged with the first line of the next period.
pub const LOG_LINES: u32 = 5;

/// See [`LOG_LINES`].
pub const LOG_PERIOD: Duration = Duration::from_secs(10);

const _: () = assert!(MAX_FRAME_BYTES > MAX_SDP_BYTES + MAX_MESSAGE_BYTES);
const _: () = assert!(READ_BURST_BYTES > 2 * MAX_FRAME_BYTES as u64);
const _: () = assert!(PING_INTERVAL.as_secs() * 2 < SILENCE_TIMEOUT.as_secs());

/// The bounds an operator may want to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Messages one socket may send in a burst.
    pub message_burst: u64,
    /// Messages one socket may send per second, in the long run. Past burst and rate the socket
    /// is told `rate-exceeded` and closed with 1008.
    pub messages_per_second: u64,
    /// Bytes one socket may send in a burst. Less than [`MAX_FRAME_BYTES`] forbids the longest
    /// messages.
    pub byte_burst: u64,
    /// Bytes one socket may send per second, in the long run. Past burst and rate the socket is
    /// told `rate-exceeded` and closed with 1008.
    pub bytes_per_second: u64,
    /// Messages waiting to be written to one socket. When full its reader is too slow: the
    /// participant leaves and the socket is closed with 1008.
    pub outbox_messages: usize,
    /// Bytes waiting to be written to one socket. A message that does not fit finds its reader
    /// too slow, as above; one longer than all of it fits when nothing else waits.
    pub outbox_bytes: u32,
    /// How long a participant whose socket was lost stays in its room, so that it can come back
    /// with its `resumeToken`; zero to leave at once.
    pub resume_timeout: Duration,
    /// Connections open at once. One more is dropped as soon as it is accepted.
    pub max_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // A client with many addresses trickles every candidate right after its offer.
            message_burst: 200,
            messages_per_second: 50,
            // Two of the longest offers.
            byte_burst: 1024 * 1024,
            bytes_per_second: 128 * 1024,
            outbox_messages: 1024,
            outbox_bytes: 4 * 1024 * 1024,
            resume_timeout: Duration::from_secs(30),
            max_connections: 10_000,
        }
    }
}

/// How much more one socket may say.
#[derive(Debug)]
pub struct Rate {
    messages: Bucket,
    bytes: Bucket,
}

impl Rate {
    /// The full bursts.
    #[must_use]
    pub fn new(now: Instant, limits: &Options) -> Self {
        Self {
            messages: Bucket::new(now, limits.message_burst, limits.messages_per_second),
            bytes: Bucket::new(now, limits.byte_burst, limits.bytes_per_second),
        }
    }

    /// Counts a message, or says `false` when it is one or its bytes are too many.
    #[must_use]
    pub fn take(&mut self, now: Instant, bytes: usize) -> bool {
        self.messages.take(now, 1) && self.bytes.take(now, bytes as u64)
    }
}

/// A token bucket: `burst` at once, `per_second` in the long run.
#[derive(Debug)]
pub struct Bucket {
    /// What a full bucket holds, in nanotokens.
    full: u128,
    /// Tokens per second, which is nanotokens per nanosecond.
    per_second: u64,
    /// What is left, in nanotokens.
    left: u128,
    /// When `left` was right.
    at: Instant,
}

/// One token in the unit the bucket counts in, so that no fraction is ever lost.
const NANOTOKENS: u128 = 1_000_000_000;

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(now: Instant, burst: u64, per_second: u64) -> Self {
        let full = u128::from(burst) * NANOTOKENS;
        Self {
            full,
            per_second,
            left: full,
            at: now,
        }
    }

    /// Takes `tokens` out, or takes nothing and says `false` when there are too few.
    #[must_use]
    pub fn take(&mut self, now: Instant, tokens: u64) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        self.at = self.at.max(now);
        self.left = (self.left + elapsed * u128::from(self.per_second)).min(self.full);
        let wanted = u128::from(tokens) * NANOTOKENS;
        let enough = wanted <= self.left;
        if enough {
            self.left -= wanted;
        }
        enough
    }
}

impl Bucket {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.take(now, 0) && self.left == self.full
    }
}

/// Decides whether a line that strangers can cause is logged, see [`LOG_LINES`].
#[derive(Debug)]
pub struct LogGate {
    /// When the period began.
    since: Instant,
    /// Lines let through in this period.
    logged: u32,
    /// Lines held back since the last one let through.
    held: u64,
}

impl LogGate {
    /// A gate that has seen no line.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            logged: 0,
            held: 0,
        }
    }

    /// `Some(held)` when the line may be logged, with how many were held back before it.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= LOG_PERIOD {
            self.since = now;
            self.logged = 0;
        }
        if self.logged == LOG_LINES {
            self.held += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::clock;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = clock();
        let mut bucket = Bucket::new(start, 10, 2);
        let taken = (0..100).filter(|_| bucket.take(start, 1)).count();
        assert_eq!(taken, 10);
        let later = start + Duration::from_millis(1500);
        let taken = (0..100).filter(|_| bucket.take(later, 1)).count();
        assert_eq!(taken, 3);
        let much_later = start + Duration::from_secs(3600);
        let taken = (0..100).filter(|_| bucket.take(much_later, 1)).count();
        assert_eq!(taken, 10);
    }

    #[test]
    fn small_steps_of_time_fill_a_bucket_as_fast_as_one_big_step() {
        let start = clock();
        let mut bucket = Bucket::new(start, 10, 3);
        assert!(bucket.take(start, 10));
        for step in 1..=999 {
            assert!(!bucket.take(start + Duration::from_millis(step), 3));
        }
        assert!(bucket.take(start + Duration::from_secs(1), 3));
    }

    #[test]
    fn a_refused_take_costs_nothing() {
        let start = clock();
        let mut bucket = Bucket::new(start, 10, 1);
        assert!(!bucket.take(start, 11));
        assert!(bucket.take(start, 10));
    }

    #[test]
    fn a_flood_of_lines_is_counted_and_the_count_is_logged_later() {
        let start = clock();
        let mut gate = LogGate::new(start);
        let logged = (0..100).filter(|_| gate.pass(start).is_some()).count();
        assert_eq!(logged, LOG_LINES as usize);
        assert_eq!(gate.pass(start + LOG_PERIOD), Some(95));
        assert_eq!(gate.pass(start + LOG_PERIOD), Some(0));
    }
}
