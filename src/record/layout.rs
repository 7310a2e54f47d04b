//! Where and when each picture of a composed recording is shown. Pure.

use serde::{Deserialize, Serialize};

use super::manifest::{RecordedTrack, Speaking};

/// Pixels of the picture that is made.
pub const WIDTH: usize = 1280;
/// Likewise, its height.
pub const HEIGHT: usize = 720;

/// A speaker stays large for at least this long, in milliseconds; in a long recording for as long
/// that there are no more than [`MAX_TURNS`] of them, for ffmpeg looks at all of them all the time.
const TURN_MS: u64 = 2000;
const MAX_TURNS: u64 = 400;

/// How the pictures are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// All of one size, side by side.
    #[default]
    Grid,
    /// A shared screen, or else who speaks, large; everyone in a column beside it.
    Speaker,
}

/// Where a picture is: left, top, width, height.
pub type Place = [usize; 4];

/// Where the large picture of [`Layout::Speaker`] is.
pub const STAGE: Place = [0, 0, WIDTH * 3 / 4, HEIGHT];

/// A track that is shown large, and from when until when, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which of the tracks.
    pub track: usize,
    /// From when on.
    pub from_ms: i64,
    /// Until when.
    pub to_ms: i64,
}

/// Where each of so many tracks is shown all the time.
#[must_use]
pub fn places(count: usize, layout: Layout) -> Vec<Place> {
    if layout == Layout::Grid || count < 2 {
        let across = (1..).find(|n| n * n >= count).unwrap_or(1).max(1);
        let down = count.div_ceil(across).max(1);
        let (width, height) = (even(WIDTH / across), even(HEIGHT / down));
        let place = |index| {
            [
                index % across * width,
                index / across * height,
                width,
                height,
            ]
        };
        return (0..count).map(place).collect();
    }
    let [_, _, left, _] = STAGE;
    let height = even((HEIGHT / count).min(HEIGHT / 4));
    let place = |row| [left, row * height, WIDTH - left, height];
    (0..count).map(place).collect()
}

/// Which track is large when: a shared screen, else the camera of who speaks, else what was large
/// before, else the first that is there.
#[must_use]
pub fn turns(tracks: &[&RecordedTrack], speakers: &[Speaking], end_ms: u64) -> Vec<Turn> {
    let speakers = kept(speakers, TURN_MS.max(end_ms / MAX_TURNS));
    let files = || tracks.iter().flat_map(|track| &track.files);
    let mut times: Vec<i64> = files()
        .flat_map(|file| [file.offset_ms, file.offset_ms + file.duration_ms as i64])
        .chain(speakers.iter().map(|(at_ms, _)| *at_ms as i64))
        .chain([0, end_ms as i64])
        .filter(|at_ms| *at_ms >= 0)
        .collect();
    times.sort_unstable();
    times.dedup();
    let mut turns: Vec<Turn> = Vec::new();
    for (from_ms, to_ms) in times.iter().copied().zip(times.iter().copied().skip(1)) {
        let is_there = |track: &RecordedTrack| {
            let mut files = track.files.iter();
            files.any(|f| f.offset_ms <= from_ms && to_ms <= f.offset_ms + f.duration_ms as i64)
        };
        let find = |is_it: &dyn Fn(usize, &RecordedTrack) -> bool| {
            let mut all = tracks.iter().enumerate();
            let found = all.find(|(index, track)| is_there(track) && is_it(*index, track));
            found.map(|(index, _)| index)
        };
        let mut spoken = speakers.iter().rev();
        let speaker = spoken.find(|(at_ms, _)| *at_ms as i64 <= from_ms);
        let before = turns.last().map(|turn| turn.track);
        let track = find(&|_, track| track.source == "screen")
            .or_else(|| find(&|_, track| speaker.is_some_and(|(_, s)| track.participant_id == *s)))
            .or_else(|| find(&|index, _| Some(index) == before))
            .or_else(|| find(&|_, _| true));
        let Some(track) = track else { continue };
        match turns.last_mut() {
            Some(last) if last.track == track && last.to_ms == from_ms => last.to_ms = to_ms,
            _ => turns.push(Turn {
                track,
                from_ms,
                to_ms,
            }),
        }
    }
    turns
}

/// Who is followed from when on: whoever came too early after the one before waits for its turn,
/// and has none if another speaks by then.
fn kept(speakers: &[Speaking], hold_ms: u64) -> Vec<(u64, &str)> {
    let mut kept: Vec<(u64, &str)> = Vec::new();
    let mut waiting = None;
    for speaking in speakers {
        let earliest = kept.last().map_or(0, |(at_ms, _)| at_ms + hold_ms);
        if let Some(who) = waiting.filter(|_| speaking.at_ms >= earliest) {
            kept.push((earliest, who));
        }
        let earliest = kept.last().map_or(0, |(at_ms, _)| at_ms + hold_ms);
        waiting = Some(speaking.participant_id.as_str());
        if speaking.at_ms >= earliest {
            kept.extend(waiting.take().map(|who| (speaking.at_ms, who)));
        }
    }
    let earliest = kept.last().map_or(0, |(at_ms, _)| at_ms + hold_ms);
    kept.extend(waiting.map(|who| (earliest, who)));
    kept
}

/// Chroma has half the pixels each way.
fn even(pixels: usize) -> usize {
    (pixels & !1).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture::recorded;

    #[test]
    fn no_two_pictures_of_a_layout_meet() {
        for layout in [Layout::Grid, Layout::Speaker] {
            for count in 1..30 {
                let mut places = places(count, layout);
                assert_eq!(places.len(), count);
                if layout == Layout::Speaker && count > 1 {
                    places.push(STAGE);
                }
                for (index, [left, top, width, height]) in places.iter().enumerate() {
                    assert!(left + width <= WIDTH && top + height <= HEIGHT);
                    for [l, t, w, h] in &places[index + 1..] {
                        let is_beside = left + width <= *l || l + w <= *left;
                        assert!(is_beside || top + height <= *t || t + h <= *top);
                    }
                }
            }
        }
    }

    fn says(at_ms: u64, who: &str) -> Speaking {
        Speaking {
            at_ms,
            participant_id: who.to_owned(),
        }
    }

    #[test]
    fn who_speaks_is_large_unless_a_screen_is_shared() {
        let (ada, ben) = (
            recorded("ada", "camera", 0, 60_000),
            recorded("ben", "camera", 5000, 40_000),
        );
        let screen = recorded("ada", "screen", 30_000, 10_000);
        let tracks = [&ada, &ben, &screen];
        // Ben's camera is off at the end, and of Cy there is none.
        let spoken = [
            says(10_000, "ben"),
            says(15_000, "ada"),
            says(16_000, "ben"),
            says(20_000, "ada"),
            says(25_000, "cy"),
            says(35_000, "ben"),
        ];
        let told = turns(&tracks, &spoken, 60_000);
        let told: Vec<_> = told
            .iter()
            .map(|turn| (turn.track, turn.from_ms, turn.to_ms))
            .collect();
        assert_eq!(
            told,
            [
                (0, 0, 10_000),
                (1, 10_000, 15_000),
                (0, 15_000, 17_000),
                (1, 17_000, 20_000),
                (0, 20_000, 30_000),
                (2, 30_000, 40_000),
                (1, 40_000, 45_000),
                (0, 45_000, 60_000),
            ]
        );
    }

    #[test]
    fn a_day_of_talk_has_a_bounded_number_of_turns() {
        let (ada, ben) = (
            recorded("ada", "camera", 0, 86_400_000),
            recorded("ben", "camera", 0, 86_400_000),
        );
        let spoken: Vec<_> = (0..10_000_u64)
            .map(|n| says(n * 8000, ["ada", "ben"][n as usize % 2]))
            .collect();
        let count = turns(&[&ada, &ben], &spoken, 86_400_000).len() as u64;
        assert!((100..=MAX_TURNS + 2).contains(&count), "{count}");
    }
}
