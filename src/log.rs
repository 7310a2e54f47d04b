//! Where the log goes and how it looks: lines for people, JSON, the journal's fields, and traces of
//! joins.

mod journal;

use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

use journal::Journal;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// As systemd would have it where systemd reads them, else for people.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
    /// Fields of the journal.
    Journald,
}

/// The spans that are traced.
const TRACED: &str = "corelay::join";

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is none, and no directives either.
    #[error("log.level (or --log): {0}")]
    Level(String),
    /// The journal is asked for and not there.
    #[error("log.format: the journal cannot be reached: {0}; choose human or json")]
    Journal(io::Error),
    /// The collector's address is none.
    #[error("log.otlp: {0}")]
    Otlp(String),
}

/// The running log.
#[derive(Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    traces: Option<SdkTracerProvider>,
}

/// Starts to log, to the standard error or the journal, and to trace when `otlp` names a collector.
///
/// # Errors
///
/// [`LogError`].
pub fn start(level: &str, format: Format, otlp: &str) -> Result<Log, LogError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let traces = (!otlp.is_empty()).then(|| exporter(otlp)).transpose()?;
    let spans = traces.as_ref().map(|traces| {
        let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer("corelay"));
        layer.with_filter(Targets::new().with_target(TRACED, tracing::Level::INFO))
    });
    // Each layer has its own filter: under one for all, a `trace!` that nobody reads would still
    // ask it, for every packet.
    let lines = lines(format)?.with_filter(filter);
    Registry::default().with(lines).with(spans).init();
    Ok(Log {
        filter: handle,
        traces,
    })
}

impl Log {
    /// From here on this is the least that is told.
    ///
    /// # Errors
    ///
    /// [`LogError::Level`]; then it stays as it was.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = filter(level)?;
        let set = self.filter.reload(filter);
        set.map_err(|error| LogError::Level(error.to_string()))
    }

    /// Sends what is still to be sent.
    pub fn finish(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown()
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// A plain word is about us: of others' packages only what broke is told. They are given bytes by
/// strangers, and would tell of each. The target of joins' spans has no lines of its own.
fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let words = ["off", "error", "warn", "info", "debug", "trace"];
    let directives = match words.contains(&level) {
        true => format!("error,corelay={level},{TRACED}=off"),
        false => format!("{level},{TRACED}=off"),
    };
    let told = "expected error, warn, info, debug, trace, or directives such as error,corelay=info";
    let refused = |error| LogError::Level(format!("{level:?} is refused ({error}): {told}"));
    EnvFilter::try_new(directives).map_err(refused)
}

fn lines<S>(format: Format) -> Result<Box<dyn Layer<S> + Send + Sync>, LogError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = || tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let journal = || Ok(Journal::find().map_err(LogError::Journal)?.boxed());
    let human = || lines().with_ansi(io::stderr().is_terminal()).boxed();
    match format {
        Format::Journald => journal(),
        Format::Json => Ok(lines().json().flatten_event(true).boxed()),
        Format::Auto if is_read_by_the_journal() => journal().or_else(|_: LogError| Ok(human())),
        Format::Auto | Format::Human => Ok(human()),
    }
}

/// systemd.exec(5): `JOURNAL_STREAM` has device and inode of the stream that leads to the journal.
fn is_read_by_the_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stderr = fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

fn exporter(otlp: &str) -> Result<SdkTracerProvider, LogError> {
    let exporter = SpanExporter::builder().with_http().with_endpoint(otlp);
    let exporter = exporter.build();
    let exporter = exporter.map_err(|error| LogError::Otlp(error.to_string()))?;
    let resource = Resource::builder().with_service_name("corelay").build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_directives() {
        for level in ["info", "debug", "error,corelay::signal=trace"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        let said = filter("corelay=loud").unwrap_err().to_string();
        assert!(
            said.contains("log.level") && said.contains("expected"),
            "{said}"
        );
    }
}
