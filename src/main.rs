//! The `corelay` binary: reads the configuration, starts shards and signalling, awaits the end.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{CommandFactory as _, Parser as _};
use corelay::call_log::{self, CallLog};
use corelay::config::flags::{Action, CommandLine, Flags, RecordAction, TokenRequest};
use corelay::config::reach::{self, Reach};
use corelay::config::reload::differences;
use corelay::config::sections::LogFormat;
use corelay::config::{Config, unsupported};
use corelay::engine::dtls::Identity;
use corelay::log::{self, Log};
use corelay::record::manifest::Manifest;
use corelay::signal::operator::{EventLoop, Operator, Reload, Reloaded};
use corelay::webhook::{self, Webhooks};
use corelay::{doctor, mailbox, record, shard, signal};
use indicatif::{ProgressBar, ProgressStyle};
use tracing::{error, info, warn};

/// Panics that are each told of.
const PANICS_TOLD: u64 = 16;

/// Exit code for a command line or a configuration that cannot be used.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    panic::set_hook(Box::new(tell_of_panic));
    match line.action {
        Some(Action::Man) => return print(|out| clap_mangen::Man::new(command()).render(out)),
        Some(Action::Completions { shell }) => {
            return print(|out| {
                clap_complete::generate(shell, &mut command(), "corelay", out);
                Ok(())
            });
        }
        _ => {}
    }
    let state = variables.iter().find(|(name, _)| name == "STATE_DIRECTORY");
    // systemd separates several by colons (systemd.exec(5)).
    let state = state.and_then(|(_, paths)| paths.split(':').next());
    let begun = Config::read(&line.flags, &variables).and_then(|config| {
        let options = config.signal_options()?;
        let side_jobs = SideJobs {
            webhooks: config.webhook_options()?,
            call_log: config.call_log_options(state)?,
        };
        Ok((config, options, side_jobs))
    });
    let (config, options, side_jobs) = match begun {
        Ok(begun) => begun,
        Err(problem) => return refuse(&problem),
    };
    match &line.action {
        Some(Action::CheckConfig) => {
            say(&format!("The configuration is fine.\n\n{}", plan(&config)));
            return ExitCode::SUCCESS;
        }
        Some(Action::Record { action }) => return with_recording(action, &config),
        Some(Action::Doctor) => {
            let findings = doctor::examine(&config);
            say(&doctor::report(&findings));
            return ExitCode::from(u8::from(!doctor::is_fit(&findings)));
        }
        Some(Action::Token(wanted)) => return mint(wanted, &options.access),
        _ => {}
    }
    let log = match log::start(
        &config.file.log.level,
        format(&config),
        &config.file.log.otlp,
    ) {
        Ok(log) => log,
        Err(error) => return refuse(&error),
    };
    warn_of_settings(&config, &variables);
    match serve(config, options, side_jobs, log, line.flags, variables) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn command() -> clap::Command {
    CommandLine::command()
}

fn format(config: &Config) -> log::Format {
    match config.file.log.format {
        LogFormat::Auto => log::Format::Auto,
        LogFormat::Human => log::Format::Human,
        LogFormat::Json => log::Format::Json,
        LogFormat::Journald => log::Format::Journald,
    }
}

fn refuse(why: &dyn std::error::Error) -> ExitCode {
    complain(&why.to_string());
    ExitCode::from(BAD_USAGE)
}

/// Why the server did not run to its end.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Signal(#[from] signal::ServeError),
    #[error(transparent)]
    Shards(#[from] shard::StartError),
    #[error(transparent)]
    Webhooks(#[from] webhook::StartError),
    #[error("cannot start the thread of the call log: {0}")]
    CallLog(io::Error),
    #[error(
        "cannot listen for metrics on {0}: {1}; choose another address with --metrics, or `off`"
    )]
    Metrics(SocketAddr, io::Error),
    #[error("no randomness for keys: /dev/urandom cannot be read: {0}")]
    Randomness(io::Error),
    #[error(transparent)]
    Upload(corelay::config::read::Problem),
    #[error("the recorder's thread cannot be started: {0}")]
    Recorder(io::Error),
}

/// What else runs, beside shards and signalling.
struct SideJobs {
    webhooks: Option<webhook::Options>,
    call_log: Option<call_log::Options>,
}

/// It, running.
#[derive(Default)]
struct Started {
    webhooks: Option<Webhooks>,
    call_log: Option<CallLog>,
}

impl SideJobs {
    /// Starts what is wanted, and tells signalling of it.
    fn start(self, options: &mut signal::Options) -> Result<Started, Stopped> {
        let mut started = Started::default();
        if let Some(wanted) = self.webhooks {
            let (webhooks, outlets) = Webhooks::start(wanted)?;
            options.outlets.extend(outlets);
            started.webhooks = Some(webhooks);
        }
        if let Some(wanted) = self.call_log {
            let (call_log, outlet, asker) = CallLog::start(wanted).map_err(Stopped::CallLog)?;
            options.outlets.push(outlet);
            options.call_log = Some(asker);
            started.call_log = Some(call_log);
        }
        Ok(started)
    }
}

impl Started {
    /// Waits a moment for each to finish.
    fn stop(self) {
        if let Some(webhooks) = self.webhooks {
            webhooks.stop();
        }
        if let Some(call_log) = self.call_log {
            call_log.stop();
        }
    }
}

/// Prints a token, and nothing else, so that it can be piped.
fn mint(wanted: &TokenRequest, access: &signal::access::Options) -> ExitCode {
    let claims = wanted.claims(signal::unix_time());
    match signal::token::mint(&claims, &access.keys) {
        Ok(token) => {
            say(&format!("{token}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(BAD_USAGE)
        }
    }
}

/// Finishes or composes a recording that is there.
fn with_recording(action: &RecordAction, config: &Config) -> ExitCode {
    let done = match action {
        RecordAction::Repair { directory } => repair(directory),
        RecordAction::Compose {
            directory,
            layout,
            out,
        } => {
            let wanted = config.compose_options(*layout, out.clone());
            let bar = ProgressBar::new(0);
            let style = "{wide_bar} {percent} %, {eta} to go";
            bar.set_style(ProgressStyle::with_template(style).expect("it is a template"));
            let composed = record::compose::compose(directory, &wanted, |done, all| {
                bar.set_length(all);
                bar.set_position(done);
            });
            bar.finish_and_clear();
            composed
                .inspect(|missing| {
                    for name in missing {
                        complain(&format!("{name} is left out: it is not there"));
                    }
                })
                .map(|_| format!("{}\n", out.display()))
                .map_err(|error| error.to_string())
        }
    };
    match done {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(text) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

/// Finishes the files of a recording, and says which it cannot.
fn repair(directory: &Path) -> Result<String, String> {
    let shown = directory.display();
    let failed = Manifest::load(directory)
        .and_then(|mut manifest| record::repair(directory, &mut manifest))
        .map_err(|error| format!("{shown}: {error}"))?;
    if failed.is_empty() {
        return Ok(format!("{shown}: every file is whole\n"));
    }
    let failed = failed.iter();
    let lines = failed.map(|(name, error)| format!("{shown}/{name}: {error}"));
    Err(lines.collect::<Vec<_>>().join("\n"))
}

/// Runs until it is asked to end.
fn serve(
    config: Config,
    mut options: signal::Options,
    side_jobs: SideJobs,
    log: Log,
    flags: Flags,
    variables: Vec<(String, String)>,
) -> Result<(), Stopped> {
    let event_loop = EventLoop::catching_signals().map_err(signal::ServeError::Start)?;
    let listener = signal::bind(options.listen)?;
    let metrics = bind_metrics(&config)?;
    let started = side_jobs.start(&mut options)?;
    let identity = Identity::generate();
    let mut random = File::open("/dev/urandom").map_err(Stopped::Randomness)?;
    let announced = config.file.webrtc.announced_ip.clone();
    let (reports, received) = mailbox::reports();
    let engine = |id, shards, bound: shard::Bound| {
        let candidates = reach::candidates(&announced, bound.udp);
        let tcp = bound.tcp.map(|tcp| reach::candidates(&announced, tcp));
        let mut seed = [0; 32];
        random
            .read_exact(&mut seed)
            .expect("/dev/urandom never ends");
        config.engine_options(
            id,
            shards,
            candidates.into(),
            tcp.unwrap_or_default().into(),
            identity.clone(),
            seed,
        )
    };
    let (shard_options, recorder) = start_recorder(&config)?;
    let shards = shard::start(&shard_options, engine, &reports)?;
    // Only the shards hold them, so that their end is noticed.
    drop((shard_options, reports));
    let http = listener.local_addr().unwrap_or(options.listen);
    let candidates = reach::candidates(&announced, shards.bound.udp);
    let page = page(http, options.tls.is_some());
    let scraped = metrics.as_ref().and_then(|at| at.local_addr().ok());
    say(&greeting(&page, &shards, &candidates, scraped));
    warn_of_reach(http, &candidates, options.access.require_auth);
    let log = std::sync::Arc::new(log);
    let operator = Operator {
        pulses: shards.pulses.clone(),
        metrics,
        reload: Some(reload(config, log.clone(), flags, variables)),
        give_memory_back: Some(shard::give_memory_back),
        event_loop: Some(event_loop),
    };
    let commands = shards.commands.clone();
    let (desk, recording) = recorder.unzip();
    let shutdown = std::future::pending();
    let served = signal::serve(
        options, listener, commands, received, desk, operator, shutdown,
    );
    // It finishes its files, and the hub's end is what it waits for.
    if recording.is_some_and(|thread| thread.join().is_err()) {
        error!("the recorder did not end well: `corelay record repair` finishes its files");
    }
    shards.stop();
    started.stop();
    info!("ended");
    // The signalling thread, which had the other one, is over.
    if let Some(log) = std::sync::Arc::into_inner(log) {
        log.finish();
    }
    Ok(served?)
}

/// The way to the recorder, and its thread.
type Recorder = (record::Desk, std::thread::JoinHandle<()>);

/// Starts the recorder, if there is to be one, and has the shards tell it.
fn start_recorder(config: &Config) -> Result<(shard::Options, Option<Recorder>), Stopped> {
    let (copies, copied) = mailbox::copies();
    let options = config.record_options().map_err(Stopped::Upload)?;
    let recorder = options.map(|options| record::start(options, copied));
    let recorder = recorder.transpose().map_err(Stopped::Recorder)?;
    let shard_options = shard::Options {
        copies: recorder.is_some().then_some(copies),
        ..config.shard_options()
    };
    Ok((shard_options, recorder))
}

/// Listens for those who read metrics. That somebody else has the port is a reason not to start
/// only where the port was asked for.
fn bind_metrics(config: &Config) -> Result<Option<TcpListener>, Stopped> {
    let Some((address, is_auto)) = config.metrics() else {
        return Ok(None);
    };
    match TcpListener::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if is_auto => {
            warn!(%address, %error, "no metrics: choose another port with metrics.address");
            Ok(None)
        }
        Err(error) => Err(Stopped::Metrics(address, error)),
    }
}

/// Reads what the process was started with once more.
fn reload(
    mut running: Config,
    log: std::sync::Arc<Log>,
    flags: Flags,
    variables: Vec<(String, String)>,
) -> Reload {
    Reload::new(move || {
        let read = Config::read(&flags, &variables).map_err(|problem| problem.to_string())?;
        let found = differences(&running, &read);
        let applied = read.applied_to(&running);
        let options = applied
            .signal_options()
            .map_err(|problem| problem.to_string())?;
        let level = &applied.file.log.level;
        log.set_level(level).map_err(|error| error.to_string())?;
        running = applied;
        Ok(Reloaded {
            options,
            changed: found.changed,
            waiting: found.waiting,
        })
    })
}

/// Tells of clients that will not reach the media port, and of strangers that reach the page.
fn warn_of_reach(http: SocketAddr, candidates: &[SocketAddr], require_auth: bool) {
    let local = http.ip().is_loopback();
    if let Some(warning) = reach::warning(candidates)
        && !(local && reach::widest(candidates) == Reach::Machine)
    {
        warn!("{warning}");
    }
    if !local && !require_auth {
        warn!(
            "whoever reaches {http} can join any room and use the API: set security.require_auth"
        );
    }
}

/// Logs a panic in one line. Most are caught at a peer's boundary, where strangers may bring them
/// about: after the first few only every 2nd, 4th, 8th, .. is told.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let count = TOLD.fetch_add(1, Ordering::Relaxed) + 1;
    if count <= PANICS_TOLD || count.is_power_of_two() {
        error!(count, "{panic}");
    }
}

/// Tells of what is set and changes nothing.
fn warn_of_settings(config: &Config, variables: &[(String, String)]) {
    for sentence in config.unknown_variables(variables) {
        warn!("{sentence}");
    }
    let options = unsupported::set_without_effect(config);
    for option in options {
        let reason = unsupported::reason(option).unwrap_or("not in this version");
        warn!("{option} is set, but has no effect: {reason}");
    }
}

/// What would run, for `check-config`.
fn plan(config: &Config) -> String {
    let file = &config.file;
    let shards = config.shard_options();
    let count = shards
        .shards
        .map_or_else(|| "one per core".to_owned(), |n| n.to_string());
    let candidates: Vec<String> = reach::candidates(&file.webrtc.announced_ip, shards.udp)
        .iter()
        .map(SocketAddr::to_string)
        .collect();
    format!(
        "  Page       {}\n  Media      UDP {}; clients are told {}\n  \
         Shards     {count}, driver {}, steering {}\n",
        page(config.http(), !config.file.server.tls.cert.is_empty()),
        shards.udp,
        candidates.join(", "),
        format!("{:?}", shards.driver).to_lowercase(),
        format!("{:?}", shards.steering).to_lowercase(),
    )
}

/// The first thing that an operator sees.
fn greeting(
    page: &str,
    shards: &shard::Shards,
    candidates: &[SocketAddr],
    metrics: Option<SocketAddr>,
) -> String {
    let told: Vec<String> = candidates.iter().map(SocketAddr::to_string).collect();
    let tcp = shards.bound.tcp;
    format!(
        "corelay {}\n\n  Open       {}\n  Media      UDP {}; clients are told {}\n  \
         ICE-TCP    {}\n  Metrics    {}\n  Shards     {}, driver {}, steering {}\n  \
         Stop       Ctrl-C\n\n",
        env!("CARGO_PKG_VERSION"),
        page,
        shards.bound.udp,
        told.join(", "),
        tcp.map_or_else(|| "off".to_owned(), |tcp| tcp.to_string()),
        metrics.map_or_else(|| "off".to_owned(), |at| format!("{at}/metrics")),
        shards.commands.len(),
        shards.driver,
        shards.steering
    )
}

/// The address of the page for a browser on this machine.
fn page(http: SocketAddr, is_tls: bool) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    if http.ip().is_unspecified() || http.ip().is_loopback() {
        return format!("{scheme}://localhost:{}", http.port());
    }
    format!("{scheme}://{http}")
}

/// Writes what `render` gives to the standard output.
fn print(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> ExitCode {
    let mut text = Vec::new();
    match render(&mut text).and_then(|()| io::stdout().write_all(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Writes to the standard output. That nobody reads it is no reason to end.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes one line to the standard error.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "corelay: {text}");
}
