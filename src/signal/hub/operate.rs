//! What the hub does for the operator: it drains, reloads, sheds load and counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::Hub;
use crate::engine::command::Spared;
use crate::id::{PeerId, RoomId};
use crate::metrics::{self, Family, Sample, Samples};
use crate::signal::api::drain::DrainView;
use crate::signal::drain::Due;
use crate::signal::happening::Happening;
use crate::signal::idle::Idle;
use crate::signal::load::Rates;
use crate::signal::message::{RoomClosedReason, ServerMessage};
use crate::signal::operator::Wanted;
use crate::signal::overload::Step;
use crate::signal::problem::Problem;
use crate::signal::session::Rules;
use crate::signal::watchdog::tell_systemd;
use crate::signal::{Now, Options, validity};

/// How much longer than its last word systemd waits for a server that drains.
const STOPPING_LEEWAY: Duration = Duration::from_secs(30);

impl Hub {
    /// From here on this is done once whenever everybody has left.
    pub(in crate::signal) fn when_idle(&mut self, task: Option<fn()>) {
        self.idle = Idle::new(task);
    }

    /// The options as they are now.
    pub(super) fn live(&self) -> Arc<Options> {
        Arc::clone(&self.settings.borrow())
    }

    pub(super) fn handle_wanted(&mut self, now: Now, wanted: Wanted) {
        match wanted {
            Wanted::End => {
                tracing::info!("interrupted: ending");
                self.is_over = true;
            }
            Wanted::Drain if self.drain.deadline().is_some_and(|d| d.then_end) => {
                tracing::info!("SIGTERM again: ending");
                self.is_over = true;
            }
            Wanted::Drain => {
                let patience = self.live().drain_timeout;
                let participants = self.directory.peer_count();
                let seconds = patience.as_secs();
                tracing::info!(
                    participants,
                    seconds,
                    "SIGTERM: ending when calls have ended"
                );
                tell_systemd(&[NotifyState::Stopping]);
                self.begin_drain(now, patience, true);
            }
            Wanted::Reload => self.reload(),
        }
    }

    /// Follows who comes and goes: joins that fail are told of, and drains to who comes now.
    pub(super) fn follow_join(&mut self, now: Now, happening: &Happening) {
        match happening {
            Happening::ParticipantJoined {
                room_id,
                participant_id,
                ..
            } => {
                let peer = participant_id.0;
                self.joins.handle_entered(now.at, room_id.0.clone(), peer);
                self.tell_of_drain(peer);
            }
            Happening::ParticipantLeft { participant_id, .. } => {
                self.joins.handle_left(participant_id.0);
            }
            _ => {}
        }
    }

    /// Takes no new rooms from here on.
    pub(super) fn begin_drain(&mut self, now: Now, patience: Duration, then_end: bool) {
        self.drain.begin(now, patience, then_end);
        self.directory.set_draining(true);
        if !then_end {
            let seconds = patience.as_secs();
            tracing::info!(seconds, "draining: new rooms are refused");
        }
        self.tell_everyone_of_drain();
        self.look_at_drain(now);
    }

    /// Takes new rooms from here on.
    pub(super) fn cancel_drain(&mut self) {
        self.directory.set_draining(false);
        if self.drain.cancel() {
            tracing::info!("no longer draining: new rooms are taken");
            self.tell_everyone_of_drain();
        }
    }

    fn tell_everyone_of_drain(&mut self) {
        let deadline = self.drain.deadline().map(|deadline| deadline.unix);
        let clients = self.clients.iter();
        let inside = clients.filter(|(_, client)| client.session.stay().is_some());
        let sockets: Vec<_> = inside.map(|(socket, _)| *socket).collect();
        // Whoever is too slow to hear it is found out by the next message.
        self.tell(&sockets, &ServerMessage::ServerDraining { deadline });
    }

    /// Tells one who has come while the server drains.
    pub(super) fn tell_of_drain(&mut self, peer: PeerId) {
        let deadline = self.drain.deadline().map(|deadline| deadline.unix);
        if let (Some(_), Some(member)) = (deadline, self.directory.member(peer)) {
            let socket = member.socket;
            self.tell(&[socket], &ServerMessage::ServerDraining { deadline });
        }
    }

    /// Looks whether the drain has come to its end.
    pub(super) fn look_at_drain(&mut self, now: Now) {
        match self
            .drain
            .handle_timeout(now.at, self.directory.peer_count())
        {
            Due::Nothing => {}
            Due::End => {
                tracing::info!(
                    participants = self.directory.peer_count(),
                    "drained: ending"
                );
                self.is_over = true;
            }
            Due::CloseRooms => {
                tracing::info!(participants = self.directory.peer_count(), "drained");
                let rooms = self.directory.rooms_after(None);
                let rooms: Vec<RoomId> = rooms.map(|(id, _)| id.clone()).collect();
                for room in rooms {
                    self.close_room(now, &room, RoomClosedReason::ServerShutdown);
                }
            }
        }
        if let Some(deadline) = self.drain.deadline().filter(|deadline| deadline.then_end) {
            let patience = deadline.left(now.at).min(STOPPING_LEEWAY) + STOPPING_LEEWAY;
            let us = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
            tell_systemd(&[NotifyState::ExtendTimeoutUsec(us)]);
        }
    }

    pub(super) fn drain_view(&self) -> DrainView {
        DrainView {
            draining: self.drain.is_on(),
            deadline: self.drain.deadline().map(|deadline| deadline.unix),
            participants: self.directory.peer_count(),
        }
    }

    /// Whether participants are taken in.
    pub(super) fn ready(&self) -> Result<(), Problem> {
        self.directory.closed().map_or(Ok(()), |no| Err(no.into()))
    }

    fn reload(&mut self) {
        let Some(reload) = &mut self.reload else {
            return;
        };
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell_systemd(&[NotifyState::Reloading, now]);
        }
        match reload.read() {
            Ok(reloaded) => {
                let changed = reloaded.changed.join(", ");
                let waiting = reloaded.waiting.join(", ");
                tracing::info!(changed, waiting_for_restart = waiting, "read again");
                self.signalling.reloads += 1;
                if reloaded.options.caps != self.live().caps {
                    self.shards.limit(reloaded.options.caps);
                }
                self.directory.set_options(reloaded.options.rooms.clone());
                self.rules = Arc::new(Rules {
                    access: reloaded.options.access.clone(),
                    limits: reloaded.options.limits.clone(),
                });
                self.settings.send_replace(Arc::new(reloaded.options));
            }
            Err(why) => {
                self.signalling.reloads_failed += 1;
                tracing::error!("the configuration stays as it was: {why}");
            }
        }
        tell_systemd(&[NotifyState::Ready]);
    }

    /// Looks how much each shard has to do, and lets it do less or more.
    pub(super) fn weigh(&mut self, now: Instant) {
        self.weigh_memory(now);
        for (shard, load) in self.shards.loads(now) {
            let Some(ladder) = self.ladders.get_mut(&shard) else {
                continue;
            };
            let before = ladder.step();
            let Some(step) = ladder.handle_load(now, load) else {
                continue;
            };
            let (busy, turn) = ((load.busy * 100.0) as u64, load.turn_p99);
            let (backlog, commands) = (load.backlog, load.commands);
            let step_name = step.label();
            if step > before {
                tracing::warn!(
                    %shard, step = step_name, busy, ?turn, backlog, commands,
                    "a shard has too much to do and gives more up"
                );
            } else {
                tracing::info!(%shard, step = step_name, busy, "a shard gives less up");
            }
            self.directory.set_overloaded(shard, step >= Step::Joins);
            let spared = Spared {
                top_layers: step >= Step::TopLayers,
                videos: (step >= Step::LastN).then_some(Step::VIDEOS_LEFT),
            };
            self.shards.spare(shard, spared);
        }
    }

    /// Takes nobody in while the process has more memory than it may have.
    fn weigh_memory(&mut self, now: Instant) {
        let bytes = metrics::process::resident_bytes().unwrap_or_default();
        let most = self.live().max_memory_bytes;
        let is_full = match self.directory.is_out_of_memory() {
            true => bytes > most / 10 * 9,
            false => bytes > most,
        };
        if is_full != self.directory.is_out_of_memory() {
            self.directory.set_out_of_memory(is_full);
            if let Some(held) = self.log.memory.pass(now) {
                let mib = bytes >> 20;
                tracing::warn!(held, mib, is_full, "memory: performance.max_memory_total");
            }
        }
    }

    /// Everything that is counted.
    pub(super) fn families(&self, now: Now) -> Vec<Family> {
        let told: Vec<_> = self.shards.figures().collect();
        let shards: Vec<_> = told
            .iter()
            .map(|told| (told.shard, told.snapshot))
            .collect();
        let mut families = self.customary(now);
        families.extend(self.signalling_now().families());
        families.extend(self.joins.families());
        families.extend(self.overload_families(now));
        families.push(Family::gauge(
            "corelay_draining",
            "1 while no new rooms are taken.",
            f64::from(u8::from(self.drain.is_on())),
        ));
        families.extend(self.certificate_family());
        families.extend(metrics::shard::families(&shards));
        families
    }

    /// The names that servers of this kind are known to have.
    fn customary(&self, now: Now) -> Vec<Family> {
        let tracks = |of: fn(&crate::engine::stats::Stats) -> u64| {
            self.shards
                .figures()
                .map(|told| of(&told.snapshot.engine))
                .sum()
        };
        let mut all = Rates::default();
        for window in self.shards.windows() {
            let rates = window.rates(now.at);
            all.bytes_in += rates.bytes_in;
            all.bytes_out += rates.bytes_out;
            all.reports += rates.reports;
            all.losses += rates.losses;
            all.jitters_ms += rates.jitters_ms;
        }
        let mean = |sum: f64| {
            if all.reports == 0 {
                0.0
            } else {
                sum / all.reports as f64
            }
        };
        let direction = |name: &str, value| Sample {
            labels: vec![("direction", name.to_owned())],
            value,
        };
        vec![
            Family::unknown(
                "webrtc_rooms_total",
                "Rooms there are now.",
                self.directory.room_count() as u64,
            ),
            Family::unknown(
                "webrtc_participants_total",
                "Participants in rooms now.",
                self.directory.peer_count() as u64,
            ),
            Family::unknown(
                "webrtc_video_tracks_total",
                "Published video tracks now.",
                tracks(|stats| stats.video_tracks),
            ),
            Family::unknown(
                "webrtc_audio_tracks_total",
                "Published audio tracks now.",
                tracks(|stats| stats.audio_tracks),
            ),
            Family::new(
                "webrtc_bandwidth_usage_bytes",
                "Media bytes a second, over the last ten seconds.",
                Samples::Gauge(vec![
                    direction("in", all.bytes_in),
                    direction("out", all.bytes_out),
                ]),
            ),
            Family::gauge(
                "webrtc_packet_loss_rate",
                "Share of packets that viewers report lost, over the last ten seconds, 0 to 1.",
                mean(all.losses),
            ),
            Family::gauge(
                "webrtc_jitter_ms",
                "Mean jitter that viewers report, over the last ten seconds, in milliseconds.",
                mean(all.jitters_ms),
            ),
        ]
    }

    fn certificate_family(&self) -> Option<Family> {
        let end = validity::end(&self.live().tls.as_ref()?.certificate)?;
        Some(Family::gauge(
            "corelay_certificate_expires_timestamp_seconds",
            "Until when the certificate holds, in seconds since 1970.",
            end as f64,
        ))
    }

    fn overload_families(&self, now: Now) -> Vec<Family> {
        let label = |shard: &crate::id::ShardId| ("shard", shard.index().to_string());
        let steps = self.ladders.iter().map(|(shard, ladder)| Sample {
            labels: vec![label(shard)],
            value: ladder.step() as u8 as f64,
        });
        let taken = self.ladders.iter().flat_map(|(shard, ladder)| {
            let reached = &Step::ALL[1..];
            reached.iter().map(move |step| Sample {
                labels: vec![label(shard), ("step", step.label().to_owned())],
                value: ladder.taken(*step) as f64,
            })
        });
        let loads = self.shards.loads(now.at);
        let busy = loads.iter().map(|(shard, load)| Sample {
            labels: vec![label(shard)],
            value: load.busy,
        });
        vec![
            Family::new(
                "corelay_overload_step",
                "What a shard gives up: 0 nothing, 1 top layers, 2 all but some videos, 3 joins.",
                Samples::Gauge(steps.collect()),
            ),
            Family::new(
                "corelay_overload_steps",
                "How often a shard came to give this up.",
                Samples::Counter(taken.collect()),
            ),
            Family::new(
                "corelay_shard_busy_ratio",
                "Share of the last second in which a shard was busy.",
                Samples::Gauge(busy.collect()),
            ),
        ]
    }
}
