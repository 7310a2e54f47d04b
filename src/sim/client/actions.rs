//! What a client does in the midst of a call, and what can be asked of it.

use std::time::Instant;

use str0m::crypto::dtls::ProtocolVersion;
use str0m::media::{Direction, MediaKind, Mid};

use super::{Client, Sender, kind, of_kind};
use crate::engine::command::Source;
use crate::sim::publish::Publish;

impl Client {
    /// Stops or starts a track by the direction of its m-line.
    pub(crate) fn switch(&mut self, now: Instant, source: Source, on: bool) {
        let found = self.senders.iter_mut().find(|s| s.publish.source == source);
        let sender = found.expect("the client publishes this source");
        sender.on = on;
        if on {
            for encoding in &mut sender.encodings {
                encoding.encoder.restart(now);
            }
        }
        let direction = match (on, sender.publish.also_receives) {
            (true, false) => Direction::SendOnly,
            (true, true) => Direction::SendRecv,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        };
        let mid = sender.mid.expect("the track was offered");
        self.directions.push((mid, direction));
        self.offer_again = true;
        self.offer();
        self.drain(now);
    }

    /// The next frame of a track is a keyframe, in every layer.
    pub(crate) fn request_keyframe(&mut self, source: Source) {
        let mut senders = self.senders.iter_mut();
        if let Some(sender) = senders.find(|sender| sender.publish.source == source) {
            for encoding in &mut sender.encodings {
                encoding.encoder.request_keyframe();
            }
        }
    }

    /// Stops or starts a layer, as an encoder does that has too little bandwidth: without a word.
    pub(crate) fn set_layer(&mut self, source: Source, layer: usize, on: bool) {
        let found = self.senders.iter_mut().find(|s| s.publish.source == source);
        let sender = found.expect("the client publishes this source");
        let encoding = &mut sender.encodings[layer];
        encoding.on = on;
        if on {
            encoding.encoder.request_keyframe();
        }
    }

    /// Publishes another track, on an m-line of its own.
    pub(crate) fn publish(&mut self, now: Instant, publish: Publish) {
        let sender = Sender::new(now, &mut self.rng, self.index, &publish);
        self.senders.push(sender);
        self.offer_again = true;
        self.offer();
        self.drain(now);
    }

    /// Stops the m-line of a track for good (RFC 8843 §7.5.3), if it was offered.
    pub(crate) fn unpublish(&mut self, now: Instant, source: Source) {
        let found = self
            .senders
            .iter()
            .position(|s| s.publish.source == source && s.mid.is_some());
        if let Some(found) = found {
            let sender = self.senders.remove(found);
            self.stopped.extend(sender.mid);
            self.offer_again = true;
            self.offer();
            self.drain(now);
        }
    }

    /// Stops a receiving m-line for good; the next offer has another in its place.
    pub(crate) fn stop_receiving(&mut self, now: Instant, mid: &str) {
        if self.lines.remove(mid).is_none() {
            return;
        }
        self.gone.push(mid.to_owned());
        let mid = Mid::from(mid);
        let kind = self.rtc.media(mid).expect("it was offered").kind();
        *of_kind(&mut self.receiving, kind) -= 1;
        self.stopped.push(mid);
        self.offer_again = true;
        self.offer();
        self.drain(now);
    }

    /// Offers with new ICE credentials.
    pub(crate) fn restart_ice(&mut self, now: Instant) {
        self.restart_ice = true;
        self.offer_again = true;
        self.offer();
        self.drain(now);
    }

    /// The `USERNAME` of its STUN requests.
    pub(crate) fn stun_username(&self) -> String {
        self.stun_username.clone()
    }

    /// Whether it publishes this, or is about to.
    pub(crate) fn publishes(&self, source: Source) -> bool {
        self.senders.iter().any(|s| s.publish.source == source)
    }

    /// Whether it has offered this.
    pub(crate) fn has_offered(&self, source: Source) -> bool {
        let mut senders = self.senders.iter();
        senders.any(|s| s.publish.source == source && s.mid.is_some())
    }

    /// Which DTLS the handshake settled on.
    pub(crate) fn dtls_version(&mut self) -> Option<ProtocolVersion> {
        self.rtc.direct_api().dtls_protocol_version()
    }

    /// How many audio and video tracks it sends.
    pub(crate) fn sending(&self) -> (usize, usize) {
        let on = self.senders.iter().filter(|sender| sender.on);
        let audio = on.filter(|s| kind(s.publish.source) == MediaKind::Audio);
        let (audio, all) = (audio.count(), self.senders.iter().filter(|s| s.on).count());
        (audio, all - audio)
    }
}
