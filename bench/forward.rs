//! What forwarding costs: thread CPU time, allocations and memory.
//!
//! See `bench/README.md` for how to run it and what it measures.

#![expect(
    clippy::print_stdout,
    reason = "the tables are what this program is for"
)]

mod cpu;
mod room;

use std::time::Duration;

use cpu::thread_ns;
use room::client::PAYLOAD;
use room::{Feedback, LOST_ONE_IN, Room, Shape, memory_per_viewer};

/// Packets to viewers one figure is measured over, about.
const PACKETS: usize = 100_000;
/// Virtual time between packets to one viewer, over all its slots: 4.6 Mbit/s.
const INTERVAL: Duration = Duration::from_millis(2);

fn main() {
    println!("{PAYLOAD} B of payload, one packet to each viewer every {INTERVAL:?};");
    println!("thread CPU time and allocations in the whole engine, per forwarded packet.");
    println!(
        "Feedback `yes`: the viewers' is measured too, one packet in {LOST_ONE_IN} is lost.\n"
    );
    println!("| slots | viewers | burst | feedback | ns/packet | allocations/packet | packets |");
    println!("|---:|---:|---:|---|---:|---:|---:|");
    for viewers in [1, 10, 50, 200] {
        for burst in [1, 8] {
            row(shape(1, viewers, burst), Feedback::Apart);
            row(shape(1, viewers, burst), Feedback::Measured);
        }
    }
    for slots in [10, 25] {
        for viewers in [10, 50] {
            for burst in [1, 8] {
                row(shape(slots, viewers, burst), Feedback::Measured);
            }
        }
    }
    println!("\nNobody watches: per received packet.\n");
    println!("| publishers | burst | ns/packet | allocations/packet |\n|---:|---:|---:|---:|");
    for (slots, burst) in [(1, 1), (1, 8), (25, 8)] {
        let mut room = Room::new(shape(slots, 0, burst), thread_ns);
        let figure = room.measure(PACKETS / 10, Feedback::Apart);
        let (nanos, allocations) = figure.per(figure.received);
        println!("| {slots} | {burst} | {nanos:.0} | {allocations:.3} |");
    }
    println!("\n| slots | one packet every | memory per viewer, KB |\n|---:|---:|---:|");
    for slots in [1, 10, 25] {
        for interval in [2 * INTERVAL, INTERVAL] {
            let bytes = memory_per_viewer(slots, interval);
            println!("| {slots} | {interval:?} | {:.1} |", bytes / 1000.0);
        }
    }
}

fn shape(slots: usize, viewers: usize, burst: usize) -> Shape {
    Shape {
        slots,
        viewers,
        burst,
        interval: INTERVAL,
    }
}

/// Measures one room and prints its figures.
fn row(shape: Shape, feedback: Feedback) {
    let Shape {
        slots,
        viewers,
        burst,
        ..
    } = shape;
    let figure = Room::new(shape, thread_ns).measure(PACKETS / viewers, feedback);
    let (nanos, allocations) = figure.per(figure.forwarded);
    let said = match feedback {
        Feedback::Measured => "yes",
        Feedback::Apart => "no",
    };
    println!(
        "| {slots} | {viewers} | {burst} | {said} | {nanos:.0} | {allocations:.3} | {} |",
        figure.forwarded,
    );
}
