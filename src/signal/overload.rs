//! What a shard gives up when it has more to do than it can: a ladder with hysteresis. Pure.

use std::time::{Duration, Instant};

use crate::signal::load::Load;

/// What is given up; each step includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Nothing.
    #[default]
    Nothing,
    /// The highest layer of every video that has several.
    TopLayers,
    /// All videos of a viewer but the first few.
    LastN,
    /// Newcomers.
    Joins,
}

impl Step {
    /// Every step, from the bottom.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::TopLayers, Self::LastN, Self::Joins];

    /// Videos that each viewer is left with at [`Step::LastN`].
    pub const VIDEOS_LEFT: u8 = 4;

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::TopLayers => "top_layers",
            Self::LastN => "last_n",
            Self::Joins => "joins",
        }
    }

    fn up(self) -> Self {
        Self::ALL[(self as usize + 1).min(Self::ALL.len() - 1)]
    }

    fn down(self) -> Self {
        Self::ALL[(self as usize).saturating_sub(1)]
    }
}

/// Share of its time above which a shard has too much to do: what is left is for bursts.
const BUSY: f64 = 0.85;

/// Length of turns above which media is late.
const TURN: Duration = Duration::from_millis(20);

/// Share of its time from which on its turns count. A shard that is idle for longer has long turns
/// when another program has its core, and nothing that it gives up makes them shorter.
const TURNS_COUNT: f64 = 0.3;

/// Datagrams waiting for the kernel above which the network takes less than there is.
const BACKLOG: u64 = 2048;

/// Commands waiting above which answers are late: half of what the queue holds.
const COMMANDS: u64 = 2048;

/// How long there must be too much before the next step up.
const UP_AFTER: Duration = Duration::from_secs(3);

/// How long there must be clearly less before the next step down: a step that is undone too soon
/// brings the load back.
const DOWN_AFTER: Duration = Duration::from_secs(10);

/// Clearly less is below this share of too much.
const RELIEVED: f64 = 0.7;

/// When a refused newcomer may try again, in seconds.
pub const RETRY_AFTER_SECONDS: u32 = 10;

/// One shard on the ladder.
#[derive(Debug, Default)]
pub struct Ladder {
    step: Step,
    /// Since when there is too much.
    pressed: Option<Instant>,
    /// Since when there is clearly less.
    relieved: Option<Instant>,
    /// Steps up so far, by the step that was reached.
    taken: [u64; Step::ALL.len()],
}

/// How much there is to do: 1 is too much.
fn pressure(load: Load) -> f64 {
    let backlog = load.backlog as f64 / BACKLOG as f64;
    let commands = load.commands as f64 / COMMANDS as f64;
    let turn = match load.busy >= TURNS_COUNT {
        true => load.turn_p99.as_secs_f64() / TURN.as_secs_f64(),
        false => 0.0,
    };
    (load.busy / BUSY).max(turn).max(backlog).max(commands)
}

impl Ladder {
    /// Takes in a load. Returns the step from here on when it changes.
    pub fn handle_load(&mut self, now: Instant, load: Load) -> Option<Step> {
        let pressure = pressure(load);
        let since = |mark: Option<Instant>, holds: bool| holds.then(|| mark.unwrap_or(now));
        self.pressed = since(self.pressed, pressure >= 1.0);
        self.relieved = since(self.relieved, pressure < RELIEVED);
        let has_lasted = |mark: Option<Instant>, length| {
            mark.is_some_and(|mark| now.saturating_duration_since(mark) >= length)
        };
        let before = self.step;
        if has_lasted(self.pressed, UP_AFTER) {
            self.step = before.up();
            self.pressed = Some(now);
        } else if has_lasted(self.relieved, DOWN_AFTER) {
            self.step = before.down();
            self.relieved = Some(now);
        }
        if self.step > before {
            self.taken[self.step as usize] += 1;
        }
        (self.step != before).then_some(self.step)
    }

    /// What is given up now.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// How often this step was reached from below.
    #[must_use]
    pub fn taken(&self, step: Step) -> u64 {
        self.taken[step as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::clock;

    fn busy(busy: f64) -> Load {
        Load {
            busy,
            ..Load::default()
        }
    }

    /// The steps that `loads` lead to, one a second.
    fn climb(ladder: &mut Ladder, from: Instant, loads: &[f64]) -> Vec<(u64, Step)> {
        let each = loads.iter().zip(0..).filter_map(|(load, second)| {
            let now = from + Duration::from_secs(second);
            Some((second, ladder.handle_load(now, busy(*load))?))
        });
        each.collect()
    }

    #[test]
    fn lasting_load_climbs_step_by_step_and_stays_on_top() {
        let mut ladder = Ladder::default();
        let steps = climb(&mut ladder, clock(), &[0.95; 30]);
        let expected = [(3, Step::TopLayers), (6, Step::LastN), (9, Step::Joins)];
        assert_eq!(steps, expected);
        assert_eq!(ladder.taken(Step::Joins), 1);
    }

    #[test]
    fn relief_must_last_longer_than_pressure_and_half_relief_changes_nothing() {
        let mut ladder = Ladder::default();
        let start = clock();
        climb(&mut ladder, start, &[0.95; 10]);
        assert_eq!(ladder.step(), Step::Joins);
        let middle = start + Duration::from_secs(20);
        assert_eq!(
            climb(&mut ladder, middle, &[0.7; 60]),
            [],
            "between the two bounds"
        );
        let end = middle + Duration::from_secs(60);
        let steps = climb(&mut ladder, end, &[0.2; 40]);
        let expected = [
            (10, Step::LastN),
            (20, Step::TopLayers),
            (30, Step::Nothing),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn a_burst_is_no_reason() {
        let mut ladder = Ladder::default();
        let loads = [0.2, 1.0, 1.0, 1.0, 0.2].repeat(10);
        assert_eq!(climb(&mut ladder, clock(), &loads), []);
    }

    #[test]
    fn each_measure_alone_is_reason_enough() {
        for load in [
            busy(0.9),
            Load {
                turn_p99: Duration::from_millis(30),
                ..busy(0.4)
            },
            Load {
                backlog: 4000,
                ..busy(0.1)
            },
            Load {
                commands: 4000,
                ..busy(0.1)
            },
        ] {
            assert!(pressure(load) > 1.0, "{load:?}");
        }
        assert!(pressure(busy(0.5)) < RELIEVED);
    }

    #[test]
    fn long_turns_of_an_idle_shard_are_another_programs_doing() {
        let held_up = Load {
            turn_p99: Duration::from_millis(300),
            ..busy(0.1)
        };
        assert!(pressure(held_up) < RELIEVED);
    }
}
