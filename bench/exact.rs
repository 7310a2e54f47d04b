//! Counts that do not depend on the machine's mood: allocations and instructions of the engine,
//! per forwarded packet, per join, and per second that a viewer is there.
//!
//! `exact CASE` prints how many units of work (packets, joins, seconds) it did and what was allocated
//! meanwhile; `bench/exact.sh` runs it under callgrind, which counts the instructions within
//! [`measured_turn`], and holds both against `bench/baseline.txt`.

#![expect(clippy::print_stdout, reason = "bench/exact.sh reads what it prints")]

mod rig;

use std::process::ExitCode;
use std::time::Duration;

use rig::{Rig, unobserved};

/// Bursts and joins that are counted.
const BURSTS: usize = 200;
const JOINS: usize = 10;
/// Seconds that are counted, and who is there.
const IDLE_SECONDS: u64 = 30;
const IDLE_VIEWERS: usize = 10;

fn main() -> ExitCode {
    let case = std::env::args().nth(1).unwrap_or_default();
    let (units, allocations) = match case.as_str() {
        "forward-10-bursts" => forward(10, 8),
        "forward-10-singly" => forward(10, 1),
        "ingress" => forward(0, 8),
        "join" => join(),
        "idle" => idle(None),
        "idle-trickle" => idle(Some(Duration::from_secs(1))),
        _ => {
            println!(
                "exact: forward-10-bursts, forward-10-singly, ingress, join, idle or idle-trickle"
            );
            // Cargo passes `--bench` when it runs all benchmarks: nothing to do then.
            return ExitCode::SUCCESS;
        }
    };
    println!("{case} units {units} allocations {allocations}");
    ExitCode::SUCCESS
}

/// Packets forwarded to `subscribers` in bursts, their reports included. Without subscribers a
/// unit is a packet that was taken in.
fn forward(subscribers: usize, burst: usize) -> (u64, u64) {
    let mut rig = Rig::new(subscribers);
    let (mut forwarded, mut allocations) = (0, 0);
    let mut counted = |turn: &mut dyn FnMut()| allocations += measured_turn(turn);
    for _ in 0..BURSTS {
        forwarded += rig.burst(burst, &mut counted);
    }
    let units = if subscribers == 0 {
        (BURSTS * burst) as u64
    } else {
        forwarded
    };
    (units, allocations)
}

/// Viewers join a room with a publisher, one after another.
fn join() -> (u64, u64) {
    let mut rig = Rig::new(1);
    let mut allocations = 0;
    let mut counted = |turn: &mut dyn FnMut()| allocations += measured_turn(turn);
    for _ in 0..JOINS {
        rig.join(&mut counted);
        // What everyone has to say about it by the next turn is not the join's.
        rig.burst(1, &mut unobserved);
    }
    (JOINS as u64, allocations)
}

/// Viewers are connected, and a packet comes now and then or never. A unit is a viewer's second.
fn idle(interval: Option<Duration>) -> (u64, u64) {
    let mut rig = Rig::new(IDLE_VIEWERS);
    // What was said of the packets before has been said.
    rig.idle(Duration::from_secs(5), interval, &mut unobserved);
    let mut allocations = 0;
    let mut counted = |turn: &mut dyn FnMut()| allocations += measured_turn(turn);
    rig.idle(Duration::from_secs(IDLE_SECONDS), interval, &mut counted);
    (IDLE_SECONDS * IDLE_VIEWERS as u64, allocations)
}

/// What callgrind counts: its name is known to `bench/exact.sh`.
#[inline(never)]
fn measured_turn(turn: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(turn).count_total
}
