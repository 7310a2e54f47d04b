//! Who speaks, and whose sound passes when not all of it can: from the levels that clients write
//! into their packets (RFC 6464).
//!
//! A level is loudness in decibels above the quietest a packet can say (127 below full scale).
//! Speech lies some 20 to 40 dB below full scale, a quiet room 60 and more.

use std::time::{Duration, Instant};

/// Who is louder than this begins to speak.
const BEGINS_DB: f32 = 77.0;
/// Who is quieter than this may be done.
const ENDS_DB: f32 = 70.0;
/// So long after the last loud moment a speaker still speaks: people breathe.
pub const SPEECH_HOLD: Duration = Duration::from_millis(1200);
/// Whose sound passes keeps its place against who is louder by less than this.
const KEEPS_DB: f32 = 10.0;
/// The share of a louder packet that counts at once, and how much that is at most: a knock on the
/// table is one loud packet, speech is many.
const ATTACK: f32 = 0.25;
const ATTACK_DB: f32 = 6.0;
/// The share of a quieter packet.
const RELEASE: f32 = 0.04;
/// Packets come at least this often from who is heard; after it each second without one counts
/// as so many decibels less: clients with DTX send next to nothing while silent.
const SILENT_AFTER: Duration = Duration::from_millis(400);
const SILENCE_DB_PER_S: f32 = 60.0;

/// How loud one track is of late.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loudness {
    /// Decibels, smoothed, at the last packet.
    db: f32,
    /// When that came.
    at: Option<Instant>,
    speaking: Option<Speaking>,
    /// When it last spoke.
    spoke_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Speaking {
    since: Instant,
    /// The last moment loud enough.
    loud_at: Instant,
}

impl Loudness {
    /// Takes in a packet's level as RFC 6464 §3 writes it: decibels below full scale in the low
    /// seven bits. The voice flag above them is not looked at: not every client sets it.
    pub fn handle_level(&mut self, now: Instant, level: u8) {
        let loud = f32::from(127 - (level & 0x7f));
        let db = self.db(now);
        self.db = if loud > db {
            db + ((loud - db) * ATTACK).min(ATTACK_DB)
        } else {
            db + (loud - db) * RELEASE
        };
        self.at = Some(now);
        let speaks = self.since(now);
        if self.db >= BEGINS_DB || (speaks.is_some() && self.db >= ENDS_DB) {
            let since = speaks.unwrap_or(now);
            let loud_at = now;
            self.speaking = Some(Speaking { since, loud_at });
            self.spoke_at = Some(now);
        }
    }

    /// Since when it has been speaking; `None` while it is not.
    #[must_use]
    pub fn since(&self, now: Instant) -> Option<Instant> {
        self.speaking
            .filter(|speaking| now.saturating_duration_since(speaking.loud_at) <= SPEECH_HOLD)
            .map(|speaking| speaking.since)
    }

    /// When it is to be found silent, unless it goes on; `None` while it does not speak.
    #[must_use]
    pub fn speech_ends(&self, now: Instant) -> Option<Instant> {
        self.since(now)?;
        Some(self.spoke_at? + SPEECH_HOLD + Duration::from_millis(1))
    }

    /// When it last spoke.
    #[must_use]
    pub fn spoke_at(&self) -> Option<Instant> {
        self.spoke_at
    }

    /// Decibels above the quietest.
    #[must_use]
    pub fn db(&self, now: Instant) -> f32 {
        let silence = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let over = silence.saturating_sub(SILENT_AFTER).as_secs_f32();
        (self.db - over * SILENCE_DB_PER_S).max(0.0)
    }
}

/// One track that could be heard, or one whose publisher could be seen.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<K> {
    /// Which.
    pub key: K,
    /// How loud it is, or the sound of its publisher.
    pub loudness: Loudness,
    /// It is to pass whatever others do.
    pub is_pinned: bool,
    /// It passes already.
    pub passes: bool,
}

/// Who speaks, longest first, appended to `speakers`.
pub fn active<K: Copy>(now: Instant, candidates: &[Candidate<K>], speakers: &mut Vec<K>) {
    let mut speaking: Vec<(Instant, K)> = candidates
        .iter()
        .filter_map(|candidate| Some((candidate.loudness.since(now)?, candidate.key)))
        .collect();
    speaking.sort_by_key(|(since, _)| *since);
    speakers.extend(speaking.into_iter().map(|(_, key)| key));
}

/// Puts those first whose sound is to pass: pinned ones, then the loudest. Who passes already is
/// taken for louder than it is, so that places do not change with every word.
pub fn rank_sounds<K>(now: Instant, candidates: &mut [Candidate<K>]) {
    let rank = |candidate: &Candidate<K>| {
        let bonus = if candidate.passes { KEEPS_DB } else { 0.0 };
        let db = candidate.loudness.db(now) + bonus;
        (!candidate.is_pinned, -(db * 16.0) as i32)
    };
    candidates.sort_by_key(rank);
}

/// Puts those first whose picture is to pass: pinned ones, then who spoke last. Only somebody who
/// begins to speak changes who is among the first, and takes the place of who was silent longest.
/// Those who never spoke stay as they were, after the others.
pub fn rank_pictures<K>(now: Instant, candidates: &mut [Candidate<K>]) {
    let rank = |candidate: &Candidate<K>| {
        let silent = candidate.loudness.spoke_at().map(|at| {
            let silent = now.saturating_duration_since(at);
            // Those who speak are equal: they do not overtake each other with every packet.
            silent.saturating_sub(SPEECH_HOLD)
        });
        (!candidate.is_pinned, silent.unwrap_or(Duration::MAX))
    };
    candidates.sort_by_key(rank);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;
    use proptest::prelude::*;

    /// dB below full scale.
    const SPEECH: u8 = 30;
    const NOISE: u8 = 62;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One packet in 20 ms, with these levels for so many milliseconds each; `None` is silence
    /// without packets. Returns from when to when it speaks.
    fn listen(phases: &[(u64, Option<u8>)]) -> (Loudness, Vec<(u64, bool)>) {
        let (start, mut loudness) = (origin(), Loudness::default());
        let (mut at, mut changes, mut speaks) = (0, Vec::new(), false);
        for (length, level) in phases {
            let end = at + length;
            while at < end {
                let now = start + ms(at);
                if let Some(level) = level {
                    loudness.handle_level(now, 0x80 | level);
                }
                if loudness.since(now).is_some() != speaks {
                    speaks = !speaks;
                    changes.push((at, speaks));
                }
                at += 20;
            }
        }
        (loudness, changes)
    }

    #[test]
    fn speech_is_noticed_soon_and_is_not_over_at_every_breath() {
        let (_, changes) = listen(&[
            (1000, Some(NOISE)),
            (2000, Some(SPEECH)),
            (800, Some(NOISE)),
            (1000, Some(SPEECH)),
            (5000, Some(NOISE)),
        ]);
        let [(begin, true), (end, false)] = changes[..] else {
            panic!("{changes:?}");
        };
        assert!((1000..=1200).contains(&begin), "{begin}");
        assert!((4800 + 1200..4800 + 2500).contains(&end), "{end}");
    }

    #[test]
    fn a_knock_is_no_speech_and_neither_is_a_quiet_room() {
        assert_eq!(listen(&[(9000, Some(NOISE))]).1, []);
        let knocks = [(980, Some(NOISE)), (20, Some(5))].repeat(5);
        assert_eq!(listen(&knocks).1, []);
    }

    #[test]
    fn who_stops_sending_stops_speaking() {
        let (loudness, changes) = listen(&[(1000, Some(SPEECH)), (3000, None)]);
        let end = changes.last().unwrap();
        assert!(!end.1 && (2100..2300).contains(&end.0), "{changes:?}");
        let later = origin() + Duration::from_secs(60);
        assert!(loudness.db(later) < 1.0);
    }

    fn candidate(key: char, db: f32, at: Instant) -> Candidate<char> {
        let loudness = Loudness {
            db,
            at: Some(at),
            ..Loudness::default()
        };
        Candidate {
            key,
            loudness,
            is_pinned: false,
            passes: false,
        }
    }

    fn keys(candidates: &[Candidate<char>]) -> String {
        candidates.iter().map(|candidate| candidate.key).collect()
    }

    #[test]
    fn the_loudest_pass_and_who_passes_keeps_its_place_against_the_nearly_as_loud() {
        let now = origin();
        let mut candidates = [
            candidate('a', 60.0, now),
            candidate('b', 90.0, now),
            candidate('c', 83.0, now),
            candidate('d', 85.0, now),
        ];
        rank_sounds(now, &mut candidates);
        assert_eq!(keys(&candidates), "bdca");
        candidates[2].passes = true;
        rank_sounds(now, &mut candidates);
        assert_eq!(keys(&candidates), "cbda");
        candidates[3].is_pinned = true;
        rank_sounds(now, &mut candidates);
        assert_eq!(keys(&candidates), "acbd");
    }

    #[test]
    fn who_begins_to_speak_is_seen_instead_of_who_was_silent_longest() {
        let now = origin() + ms(60_000);
        let spoke = |key, ago: Option<u64>| {
            let mut candidate = candidate(key, 0.0, now);
            candidate.loudness.spoke_at = ago.map(|ago| now - ms(ago));
            candidate
        };
        let mut candidates = [
            spoke('a', None),
            spoke('b', Some(9000)),
            spoke('c', Some(40)),
            spoke('d', Some(0)),
            spoke('e', None),
            spoke('f', Some(30_000)),
        ];
        rank_pictures(now, &mut candidates);
        assert_eq!(keys(&candidates), "cdbfae");
        candidates[5].is_pinned = true;
        rank_pictures(now, &mut candidates);
        assert_eq!(keys(&candidates), "ecdbfa");
    }

    #[test]
    fn speakers_are_told_in_the_order_they_began() {
        let now = origin() + ms(60_000);
        let speaking = |key, ago: u64| {
            let mut candidate = candidate(key, 0.0, now);
            candidate.loudness.speaking = Some(Speaking {
                since: now - ms(ago),
                loud_at: now - ms(ago / 10),
            });
            candidate
        };
        let candidates = [
            speaking('a', 100),
            speaking('b', 5000),
            speaking('c', 20_000),
        ];
        let mut speakers = Vec::new();
        active(now, &candidates, &mut speakers);
        assert_eq!(speakers, ['b', 'a'], "the third was last loud 2 s ago");
    }

    proptest! {
        #[test]
        fn any_levels_at_any_time_keep_loudness_in_bounds(
            packets in prop::collection::vec((any::<u8>(), 0..3000_u64), 0..200),
        ) {
            let (mut loudness, mut now) = (Loudness::default(), origin());
            for (level, pause) in packets {
                now += ms(pause);
                loudness.handle_level(now, level);
                prop_assert!((0.0..=127.0).contains(&loudness.db(now)));
                prop_assert!(loudness.since(now).is_none_or(|since| since <= now));
            }
        }
    }
}
