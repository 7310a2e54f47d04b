//! Whether every thread turns: felt once a second, told at `/livez` and to systemd, which starts
//! the process anew when it hears nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::interval;

use crate::id::ShardId;
use crate::mailbox::Pulse;
use crate::signal::clock;
use crate::signal::hub::{Handle, Input, Question};

/// How often it is felt.
const INTERVAL: Duration = Duration::from_secs(1);

/// A shard that was woken and has not turned for so long is stuck. A turn takes milliseconds;
/// the kernel may be swapping.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How long systemd may take to take in a word. One that is stuck must hold nobody up.
const PATIENCE: Duration = Duration::from_millis(50);

/// Shards that are stuck, as it was felt last.
pub type Vitals = watch::Receiver<Vec<ShardId>>;

/// Feels for ever. The hub is asked as well: a signalling thread that answers nobody is as stuck.
pub async fn watch(pulses: Vec<Pulse>, hub: Handle, stuck: watch::Sender<Vec<ShardId>>) {
    let now = clock();
    let mut felt: Vec<Felt> = pulses.iter().map(|pulse| Felt::new(now, pulse)).collect();
    let mut tick = interval(INTERVAL);
    loop {
        tick.tick().await;
        let now = clock();
        for (felt, pulse) in felt.iter_mut().zip(&pulses) {
            felt.feel(now, pulse.feel());
        }
        let found: Vec<ShardId> = felt
            .iter()
            .filter(|felt| felt.is_stuck(now))
            .map(|felt| felt.shard)
            .collect();
        stuck.send_if_modified(|known| {
            let is_news = *known != found;
            if is_news && !found.is_empty() {
                tracing::error!(shards = ?found, "a shard does not turn");
            } else if is_news {
                tracing::info!("every shard turns again");
            }
            *known = found.clone();
            is_news
        });
        if found.is_empty()
            && hub
                .ask(|reply| Input::Asked(Question::Ready(reply)))
                .await
                .is_ok()
        {
            tell_systemd(&[NotifyState::Watchdog]);
        }
    }
}

/// Tells systemd, when it started the process and listens.
pub fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = tell(&path, states)
    {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// sd_notify(3), which waits for as long as it takes.
fn tell(path: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// One shard as it was felt.
#[derive(Debug)]
struct Felt {
    shard: ShardId,
    /// How often it had turned.
    beats: u64,
    /// When it was seen to turn.
    at: Instant,
    /// When it was felt.
    felt: Instant,
}

impl Felt {
    fn new(now: Instant, pulse: &Pulse) -> Self {
        Self {
            shard: pulse.shard(),
            beats: 0,
            at: now,
            felt: now,
        }
    }

    fn feel(&mut self, now: Instant, beats: u64) {
        // Whoever did not look cannot say that nothing moved: the process was stopped.
        let was_away = now.saturating_duration_since(self.felt) > STUCK_AFTER / 2;
        if beats != self.beats || was_away {
            (self.beats, self.at) = (beats, now);
        }
        self.felt = now;
    }

    fn is_stuck(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= STUCK_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Waker;

    #[test]
    fn systemd_is_told_at_either_kind_of_address_and_not_waited_for() {
        let name = format!("corelay-watchdog-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let file = std::env::temp_dir().join(&name);
        for (address, path) in [
            (abstract_name, format!("@{name}").into()),
            (SocketAddr::from_pathname(&file).unwrap(), file.clone()),
        ] {
            let systemd = UnixDatagram::bind_addr(&address).unwrap();
            tell(
                path.as_os_str(),
                &[NotifyState::Ready, NotifyState::Watchdog],
            )
            .unwrap();
            let mut told = [0; 64];
            let length = systemd.recv(&mut told).unwrap();
            assert_eq!(&told[..length], b"READY=1\nWATCHDOG=1\n");
            let mut refused = 0;
            // More than net.unix.max_dgram_qlen of most machines.
            while refused == 0 {
                refused += usize::from(tell(path.as_os_str(), &[NotifyState::Watchdog]).is_err());
            }
        }
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_shard_that_does_not_turn_is_stuck_and_one_that_nobody_looked_at_is_not() {
        let start = clock();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut felt = Felt::new(start, &Pulse::new(ShardId::new(0), Waker::new(|| {})));
        for second in 0..20 {
            felt.feel(at(second), second);
            assert!(!felt.is_stuck(at(second)));
        }
        for second in 20..29 {
            felt.feel(at(second), 19);
            assert!(!felt.is_stuck(at(second)), "{second}");
        }
        felt.feel(at(29), 19);
        assert!(felt.is_stuck(at(29)));
        felt.feel(at(30), 20);
        assert!(!felt.is_stuck(at(30)), "it turns again");
        felt.feel(at(90), 20);
        assert!(!felt.is_stuck(at(90)), "the process was stopped");
    }
}
