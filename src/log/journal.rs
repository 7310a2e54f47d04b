//! Lines for systemd's journal: each field is one of the journal's, and is in the text as well.

use std::fmt::{Debug, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where the journal takes records (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const SOCKET: &str = "/run/systemd/journal/socket";

/// The longest value. What is longer is cut: a record is one datagram.
const VALUE_MAX_BYTES: usize = 16 * 1024;

/// How long a line waits for a journal that is full or hangs. Then the line is lost, and the next
/// that is taken says how many were: media does not wait for the log.
const SEND_TIMEOUT: Duration = Duration::from_millis(20);

/// The way to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    to: PathBuf,
    /// Lines that were not taken since the last one that was.
    lost: AtomicU64,
}

impl Journal {
    /// Finds systemd's journal.
    ///
    /// # Errors
    ///
    /// Those of the socket: mostly that nobody reads there.
    pub(super) fn find() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(to: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        // The journal discards an empty record; where none listens, this fails.
        socket.send_to(&[], to)?;
        Ok(Self {
            socket,
            to: to.to_owned(),
            lost: AtomicU64::new(0),
        })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            line.add("lost_lines", &lost.to_string());
        }
        let metadata = event.metadata();
        let mut record = line.fields;
        put(&mut record, "MESSAGE", &(line.message + &line.told));
        put(&mut record, "PRIORITY", priority(*metadata.level()));
        put(&mut record, "SYSLOG_IDENTIFIER", "corelay");
        put(&mut record, "TARGET", metadata.target());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            put(&mut record, "CODE_FILE", file);
            put(&mut record, "CODE_LINE", &line.to_string());
        }
        match self.socket.send_to(&record, &self.to) {
            Ok(_) => self.lost.fetch_sub(lost, Ordering::Relaxed),
            // There is no other place to tell it.
            Err(_) => self.lost.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// As syslog counts (RFC 5424 §6.2.1).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// What an event says.
#[derive(Default)]
struct Line {
    message: String,
    /// All other fields, for people: ` name=value` each.
    told: String,
    /// The same, for the journal.
    fields: Vec<u8>,
}

impl Line {
    fn add(&mut self, name: &str, value: &str) {
        let is_plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
        let written = match is_plain {
            true => write!(self.told, " {name}={value}"),
            // What could be taken for another field or another line is quoted.
            false => write!(self.told, " {name}={value:?}"),
        };
        written.expect("a String takes everything");
        // The journal takes capitals, digits and underscores; ours begin alike, beside its own.
        let capital = |byte: u8| match byte.is_ascii_alphanumeric() {
            true => char::from(byte.to_ascii_uppercase()),
            false => '_',
        };
        let name: String = "F_".chars().chain(name.bytes().map(capital)).collect();
        put(&mut self.fields, &name, value);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => self.add(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// A field with its length, so that it may hold any byte.
fn put(record: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(VALUE_MAX_BYTES)];
    record.extend_from_slice(name.as_bytes());
    record.push(b'\n');
    record.extend_from_slice(&(value.len() as u64).to_le_bytes());
    record.extend_from_slice(value.as_bytes());
    record.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// A socket like the journal's, gone when the test is.
    struct Reader(UnixDatagram);

    impl Drop for Reader {
        fn drop(&mut self) {
            let at = self.0.local_addr().unwrap();
            let _ = fs::remove_file(at.as_pathname().unwrap());
        }
    }

    /// A socket like the journal's, and the layer that sends to it.
    fn journal(name: &str) -> (Reader, Journal) {
        let to = std::env::temp_dir().join(format!("corelay-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&to);
        let socket = UnixDatagram::bind(&to).unwrap();
        socket.set_nonblocking(true).unwrap();
        let journal = Journal::at(&to).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 0);
        (Reader(socket), journal)
    }

    /// The fields of the next record.
    fn next(Reader(socket): &Reader) -> BTreeMap<String, String> {
        let mut bytes = vec![0; 200_000];
        let length = socket.recv(&mut bytes).unwrap();
        let mut rest = &bytes[..length];
        let mut fields = BTreeMap::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|&byte| byte == b'\n').unwrap();
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            let (size, after) = rest[end + 1..].split_at(8);
            let size = u64::from_le_bytes(size.try_into().unwrap()) as usize;
            let value = String::from_utf8(after[..size].to_vec()).unwrap();
            assert_eq!(after[size], b'\n');
            fields.insert(name, value);
            rest = &after[size + 1..];
        }
        fields
    }

    #[test]
    fn the_text_of_a_line_has_what_its_fields_have() {
        let (socket, journal) = journal("journal-text");
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || {
            let (peer, why) = (7, "no request arrived");
            tracing::warn!(peer, step = "stun", "a participant got no media: {why}");
        });
        let fields = next(&socket);
        let text = "a participant got no media: no request arrived peer=7 step=stun";
        assert_eq!(fields["MESSAGE"], text);
        assert_eq!((&*fields["F_PEER"], &*fields["F_STEP"]), ("7", "stun"));
        assert_eq!(fields["PRIORITY"], "4");
        assert_eq!(fields["SYSLOG_IDENTIFIER"], "corelay");
        assert!(fields["TARGET"].starts_with("corelay::log"));
    }

    #[test]
    fn a_value_makes_neither_lines_nor_fields_of_its_own_and_is_bounded() {
        let (socket, journal) = journal("journal-values");
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || {
            let value = "a\nPRIORITY=0 peer=1";
            tracing::info!(held.back = value, long = "ü".repeat(20_000), "told");
        });
        let fields = next(&socket);
        assert_eq!(fields["F_HELD_BACK"], "a\nPRIORITY=0 peer=1");
        assert!(fields["MESSAGE"].starts_with(r#"told held.back="a\nPRIORITY=0 peer=1" long="#));
        assert_eq!(fields["F_LONG"].len(), VALUE_MAX_BYTES);
        assert_eq!(fields["PRIORITY"], "6");
    }

    #[test]
    fn a_journal_that_takes_nothing_costs_lines_and_is_told_how_many() {
        let (socket, journal) = journal("journal-lost");
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || {
            // The kernel keeps some for a reader that hangs; how many is the machine's to say.
            let kept = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
            let kept: u64 = kept.trim().parse().unwrap();
            for _ in 0..kept + 4 {
                tracing::info!("told");
            }
            let mut taken = 0;
            while socket.0.recv(&mut [0; 4096]).is_ok() {
                taken += 1;
            }
            tracing::info!("again");
            let lost = (kept + 4 - taken).to_string();
            assert_ne!(lost, "0");
            assert_eq!(next(&socket)["F_LOST_LINES"], lost);
            tracing::info!("all is well");
            assert_eq!(next(&socket).get("F_LOST_LINES"), None);
        });
    }
}
