//! Reads the statuses and times of one message of transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use crate::engine::bwe::twcc::{Arrival, TwccSeq};

/// Reads status chunks (§3.1.1 to §3.1.4 of the draft) and leaves each packet's symbol in
/// `at_us`; returns what follows the chunks.
pub(super) fn read_statuses<'a>(
    mut body: &'a [u8],
    base: u16,
    count: usize,
    arrivals: &mut Vec<Arrival>,
) -> Option<&'a [u8]> {
    let end = arrivals.len() + count;
    let mut next = base;
    while arrivals.len() < end {
        let (chunk, rest) = body.split_first_chunk::<2>()?;
        body = rest;
        let chunk = u16::from_be_bytes(*chunk);
        // Symbols in the chunk, bits of each, and where the first stands.
        let (symbols, bits) = match chunk >> 14 {
            0 | 1 => (usize::from(chunk & 0x1fff), 0),
            2 => (14, 1),
            _ => (7, 2),
        };
        for place in 0..symbols.min(end - arrivals.len()) {
            let symbol = match bits {
                0 => chunk >> 13 & 3,
                1 => chunk >> (13 - place) & 1,
                _ => chunk >> (12 - 2 * place) & 3,
            };
            let at_us = (symbol != NOT_RECEIVED).then_some(i64::from(symbol));
            let seq = TwccSeq(next);
            arrivals.push(Arrival { seq, at_us });
            next = next.wrapping_add(1);
        }
    }
    Some(body)
}

/// Turns symbols into times by the deltas that follow the chunks (§3.1.5 of the draft).
pub(super) fn fill_times(
    mut deltas: &[u8],
    reference: i64,
    arrivals: &mut [Arrival],
) -> Option<()> {
    let mut at_us = reference * 64_000;
    for arrival in arrivals {
        let delta = match arrival.at_us {
            None => continue,
            Some(SMALL_DELTA) => {
                let (byte, rest) = deltas.split_first()?;
                deltas = rest;
                i64::from(*byte)
            }
            Some(LARGE_DELTA) => {
                let (bytes, rest) = deltas.split_first_chunk::<2>()?;
                deltas = rest;
                i64::from(i16::from_be_bytes(*bytes))
            }
            Some(_) => return None,
        };
        at_us += delta * 250;
        arrival.at_us = Some(at_us);
    }
    Some(())
}

/// Status symbols (§3.1.1 of the draft).
const NOT_RECEIVED: u16 = 0;
const SMALL_DELTA: i64 = 1;
const LARGE_DELTA: i64 = 2;
