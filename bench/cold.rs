//! What a forwarded packet costs when no cache holds anything of its viewers, as after a sleep or
//! with more viewers than fit: `cargo bench --bench cold` prints a table.
//!
//! Before each turn more memory is written than caches hold. Then the thread's CPU time inside the
//! engine's calls of that turn is taken, what the viewers reported included.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod cpu;
#[expect(dead_code, reason = "nobody is idle here")]
mod rig;

use cpu::thread_ns;
use rig::Rig;

/// Viewers of one track.
const VIEWERS: usize = 100;
/// Turns that are measured.
const TURNS: usize = 150;
/// More than the last cache of common machines, in bytes.
const WASTE_BYTES: usize = 64 << 20;
/// A cache line.
const LINE: usize = 64;

fn main() {
    println!("viewers  burst  ns/packet: mean  median  lowest tenth");
    let mut waste = vec![0_u8; WASTE_BYTES];
    for burst in [8, 1] {
        let mut rig = Rig::new(VIEWERS);
        let mut each: Vec<f64> = (0..TURNS)
            .map(|_| cold_turn(&mut rig, burst, &mut waste))
            .collect();
        each.sort_by(f64::total_cmp);
        let mean = each.iter().sum::<f64>() / TURNS as f64;
        println!(
            "{VIEWERS:7}  {burst:5}  {mean:15.0}  {:6.0}  {:12.0}",
            each[TURNS / 2],
            each[TURNS / 10]
        );
    }
}

/// Nanoseconds for each packet that left.
fn cold_turn(rig: &mut Rig, burst: usize, waste: &mut [u8]) -> f64 {
    let mut spent_ns = 0;
    let forwarded = rig.burst(burst, &mut |turn| {
        for line in waste.chunks_mut(LINE) {
            line[0] = line[0].wrapping_add(1);
        }
        let before_ns = thread_ns();
        turn();
        spent_ns += thread_ns() - before_ns;
    });
    spent_ns as f64 / forwarded as f64
}
