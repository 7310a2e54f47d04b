//! One client's stay in one room: its offers and candidates on their way to the shard. Pure.

use std::collections::{BTreeMap, VecDeque};

use crate::engine::command::{Command, Source};
use crate::id::{PeerId, RoomId, ShardId};
use crate::signal::message::{Playing, Reference};
use crate::signal::request::OfferedTrack;
use crate::signal::resume::ResumeToken;
use crate::signal::screen::ScreenShare;

/// What a session knows while it is in a room.
#[derive(Debug)]
pub struct Stay {
    room: RoomId,
    shard: ShardId,
    peer: PeerId,
    /// What the client said the m-lines of its latest offer carry, in all its offers, by `a=mid`.
    sources: BTreeMap<String, Source>,
    screen: ScreenShare,
    /// The references of the offers that are neither answered nor refused, oldest first.
    offers: VecDeque<Option<Reference>>,
    /// The references of the questions for figures that are not answered, oldest first.
    questions: VecDeque<Option<Reference>>,
    /// What plays in each receiving m-line, for a client that lost its socket and comes back.
    slots: BTreeMap<String, Option<Playing>>,
    /// The receiving m-lines last asked for, likewise.
    requested: Option<(u8, u8)>,
    /// What its client comes back with.
    resume: ResumeToken,
}

/// Offers without an answer whose references are remembered. Past them the oldest is forgotten:
/// its refusal comes without a `ref`.
const MAX_OPEN_OFFERS: usize = 32;

/// Questions for figures that may wait for an answer. One more is refused with `server-busy`: its
/// sender asks faster than its shard answers.
const MAX_OPEN_QUESTIONS: usize = 8;

impl Stay {
    /// A stay that has offered nothing.
    #[must_use]
    pub fn new(room: RoomId, shard: ShardId, peer: PeerId) -> Self {
        Self {
            room,
            shard,
            peer,
            sources: BTreeMap::new(),
            screen: ScreenShare::default(),
            offers: VecDeque::new(),
            questions: VecDeque::new(),
            slots: BTreeMap::new(),
            requested: None,
            resume: ResumeToken::draw(peer),
        }
    }

    /// Takes in an offer within the limits of size, and makes it a command.
    pub fn handle_offer(
        &mut self,
        sdp: String,
        tracks: &BTreeMap<String, OfferedTrack>,
        reference: Option<Reference>,
    ) -> Command {
        self.sources.extend(self.screen.handle_offer(&sdp));
        let named = tracks.iter();
        self.sources
            .extend(named.map(|(mid, track)| (mid.clone(), track.source.into())));
        self.sources.retain(|mid, _| self.screen.has_offered(mid));
        if self.offers.len() == MAX_OPEN_OFFERS {
            self.offers.pop_front();
        }
        self.offers.push_back(reference);
        Command::Offer {
            peer: self.peer,
            sdp,
            sources: self.sources.clone().into_iter().collect(),
        }
    }

    /// Takes in the fact that the shard has answered or refused the oldest offer. Returns what
    /// its sender called it.
    pub fn handle_verdict(&mut self) -> Option<Reference> {
        self.offers.pop_front().flatten()
    }

    /// Takes in the fact that the latest offer never reached the shard.
    pub fn handle_undelivered_offer(&mut self) {
        self.offers.pop_back();
    }

    /// Takes in a question for figures, and makes it a command; `None` when too many wait.
    pub fn handle_question(&mut self, reference: Option<Reference>) -> Option<Command> {
        let has_place = self.questions.len() < MAX_OPEN_QUESTIONS;
        has_place.then(|| {
            self.questions.push_back(reference);
            Command::Measure { peer: self.peer }
        })
    }

    /// Takes in the fact that the shard has answered the oldest question. Returns what its sender
    /// called it.
    pub fn handle_figures(&mut self) -> Option<Reference> {
        self.questions.pop_front().flatten()
    }

    /// Takes in the fact that the latest question never reached the shard.
    pub fn handle_undelivered_question(&mut self) {
        self.questions.pop_back();
    }

    /// Takes in what an answer says plays in every slot there is.
    pub fn handle_answer(&mut self, slots: BTreeMap<String, Option<Playing>>) {
        self.slots = slots;
    }

    /// Takes in what plays in the slots that changed.
    pub fn handle_slots(&mut self, slots: BTreeMap<String, Option<Playing>>) {
        self.slots.extend(slots);
    }

    /// Takes in how many receiving m-lines of each kind the shard wants.
    pub fn handle_request(&mut self, audio: u8, video: u8) {
        self.requested = Some((audio, video));
    }

    /// Its client has come back: what it used is used up.
    pub fn handle_resumed(&mut self) {
        self.resume = ResumeToken::draw(self.peer);
    }

    /// Takes in a candidate line, and makes it a command when the shard can use it.
    #[must_use]
    pub fn handle_candidate(&self, candidate: &str) -> Option<Command> {
        let useful = !candidate.is_empty() && !is_out_of_reach(candidate);
        useful.then(|| Command::Candidate {
            peer: self.peer,
            candidate: candidate.to_owned(),
        })
    }

    /// Takes in the fact that the client begins to share its screen.
    pub fn handle_screen_start(&mut self) {
        self.screen.start();
    }

    /// Takes in the fact that the client no longer shares its screen.
    pub fn handle_screen_stop(&mut self) {
        self.screen.stop();
    }

    /// What plays in each slot.
    #[must_use]
    pub fn slots(&self) -> &BTreeMap<String, Option<Playing>> {
        &self.slots
    }

    /// The receiving m-lines last asked for, audio and video.
    #[must_use]
    pub fn requested(&self) -> Option<(u8, u8)> {
        self.requested
    }

    /// What its client comes back with.
    #[must_use]
    pub fn resume_token(&self) -> &ResumeToken {
        &self.resume
    }

    /// Where it is.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// Who decides there.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

/// Whether a candidate names a place the server cannot or need not send to: a host behind an
/// mDNS name, or TCP (RFC 5245 §15.1, RFC 6544 §4.5). Being ICE-lite it only answers checks,
/// and learns the client's address from those.
fn is_out_of_reach(candidate: &str) -> bool {
    let mut fields = candidate.split_ascii_whitespace().skip(2);
    let transport = fields.next().unwrap_or_default();
    let address = fields.nth(1).unwrap_or_default();
    transport.eq_ignore_ascii_case("tcp") || address.ends_with(".local")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::message::SourceName;

    fn stay() -> Stay {
        let room = RoomId::parse("a").unwrap();
        Stay::new(room, ShardId::new(0), PeerId::new(1))
    }

    fn offered(command: Command) -> Vec<(String, Source)> {
        match command {
            Command::Offer { sources, .. } => sources,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_source_named_once_holds_for_later_offers_with_that_m_line() {
        let mut stay = stay();
        let sdp = |mids: &[&str]| {
            let lines = mids
                .iter()
                .map(|mid| format!("\r\nm=video 9 x 96\r\na=mid:{mid}"));
            format!("v=0{}", lines.collect::<String>())
        };
        let source = SourceName::Screen;
        let named = BTreeMap::from([("1".to_owned(), OfferedTrack { source })]);
        let screen = [("1".to_owned(), Source::Screen)];
        let none = BTreeMap::new();
        let first = stay.handle_offer(sdp(&["0", "1"]), &named, None);
        assert_eq!(offered(first), screen);
        let second = stay.handle_offer(sdp(&["0", "1", "2"]), &none, None);
        assert_eq!(offered(second), screen);
        let third = stay.handle_offer(sdp(&["0"]), &none, None);
        assert_eq!(offered(third), []);
    }

    #[test]
    fn only_candidates_the_server_can_use_reach_the_shard() {
        let udp = "candidate:1 1 udp 2122260223 192.0.2.1 5000 typ host";
        let sent = stay().handle_candidate(udp);
        assert!(sent.is_some());
        for quiet in [
            "",
            "candidate:1 1 UDP 2122260223 c0ffee.local 5000 typ host",
            "candidate:1 1 TCP 1518280447 192.0.2.1 9 typ host tcptype active",
        ] {
            assert_eq!(stay().handle_candidate(quiet), None);
        }
    }

    #[test]
    fn references_of_unanswered_offers_are_kept_in_order_and_in_bounds() {
        let mut stay = stay();
        for number in 0..MAX_OPEN_OFFERS + 1 {
            let reference = Some(Reference::Number(number.into()));
            let none = BTreeMap::new();
            stay.handle_offer(String::new(), &none, reference);
        }
        assert_eq!(stay.handle_verdict(), Some(Reference::Number(1.into())));
        stay.handle_undelivered_offer();
        let left = std::iter::from_fn(|| stay.handle_verdict()).count();
        assert_eq!(left, MAX_OPEN_OFFERS - 2);
    }
}
