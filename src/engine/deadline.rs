//! Which peer must be woken next.

use std::time::Instant;

use super::arena::Key;

/// What has a deadline: few enough to number them, and the numbers are used again.
pub trait Numbered: Copy + Ord {
    /// Its number.
    fn number(self) -> usize;
}

impl<T> Numbered for Key<T> {
    fn number(self) -> usize {
        self.place()
    }
}

/// In [`Deadlines::places`]: no deadline.
const NOWHERE: u32 = u32::MAX;

/// At most one deadline per key, the earliest at hand. Its size is the number of keys that have
/// one, however often they are set; setting one allocates nothing once there were as many.
/// Set for each peer that a turn gave something to, so nothing is hashed.
#[derive(Debug)]
pub struct Deadlines<K> {
    /// A binary heap: none is later than the two at twice its place and after.
    heap: Vec<(Instant, K)>,
    /// Where in the heap the deadline of the key with this number is.
    places: Vec<u32>,
}

impl<K: Numbered> Deadlines<K> {
    /// No deadlines.
    #[must_use]
    pub fn new() -> Self {
        Self {
            heap: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Replaces the deadline of `key`; `None` takes it away.
    pub fn set(&mut self, key: K, at: Option<Instant>) {
        match (at, self.place(key)) {
            (Some(at), Some(place)) => {
                if self.heap[place].0 != at {
                    self.heap[place].0 = at;
                    self.settle(place);
                }
            }
            (Some(at), None) => {
                self.heap.push((at, key));
                self.settle(self.heap.len() - 1);
            }
            (None, Some(place)) => {
                self.note(key, NOWHERE);
                self.heap.swap_remove(place);
                if place < self.heap.len() {
                    self.settle(place);
                }
            }
            (None, None) => {}
        }
    }

    /// Sets the deadline of `key`, unless it has an earlier one.
    pub fn hasten(&mut self, key: K, at: Instant) {
        let place = self.place(key);
        if place.is_none_or(|place| self.heap[place].0 > at) {
            self.set(key, Some(at));
        }
    }

    /// Takes away and returns the key whose deadline is the earliest, if that is `now` or before.
    /// Equal deadlines come in the order of their keys.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.heap.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.heap.first().map(|&(at, _)| at)
    }

    /// How many keys have a deadline.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no key has a deadline.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Moves a deadline that may be out of order to where it belongs.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.heap[place] < self.heap[(place - 1) / 2] {
            place = self.swap(place, (place - 1) / 2);
        }
        loop {
            let children = 2 * place + 1..self.heap.len().min(2 * place + 3);
            let earlier = children.min_by_key(|child| self.heap[*child]);
            match earlier {
                Some(child) if self.heap[child] < self.heap[place] => {
                    place = self.swap(place, child);
                }
                _ => break,
            }
        }
        self.note(self.heap[place].1, place as u32);
    }

    /// Exchanges the deadline on the move with another; returns where it is then.
    fn swap(&mut self, moving: usize, other: usize) -> usize {
        self.heap.swap(moving, other);
        self.note(self.heap[moving].1, moving as u32);
        other
    }

    /// Where a key's deadline is. Another key may have had its number.
    fn place(&self, key: K) -> Option<usize> {
        let place = *self.places.get(key.number())? as usize;
        self.heap.get(place).filter(|(_, at)| *at == key)?;
        Some(place)
    }

    fn note(&mut self, key: K, place: u32) {
        let number = key.number();
        if number >= self.places.len() {
            self.places.resize(number + 1, NOWHERE);
        }
        self.places[number] = place;
    }
}

impl<K: Numbered> Default for Deadlines<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;
    use proptest::prelude::*;
    use std::time::Duration;

    impl Numbered for u32 {
        fn number(self) -> usize {
            self as usize
        }
    }

    proptest! {
        #[test]
        fn the_earliest_comes_first_and_nothing_piles_up(
            steps in prop::collection::vec((0..7_u32, prop::option::of(0..20_u64)), 0..100),
        ) {
            let start = origin();
            let at = |n: u64| start + Duration::from_millis(n);
            let mut deadlines = Deadlines::new();
            let mut model = [None; 5];
            for (key, time) in steps {
                if let Some(entry) = model.get_mut(key as usize) {
                    deadlines.set(key, time.map(at));
                    *entry = time;
                } else if let (6, Some(time)) = (key, time) {
                    deadlines.hasten(0, at(time));
                    model[0] = Some(model[0].map_or(time, |before: u64| before.min(time)));
                } else {
                    // What is left stands for the clock reaching `time`.
                    let now = time.unwrap_or(0);
                    let due = (0..5_u32)
                        .filter_map(|k| model[k as usize].map(|t| (t, k)))
                        .filter(|&(t, _)| t <= now)
                        .min();
                    prop_assert_eq!(deadlines.pop_due(at(now)), due.map(|(_, k)| k));
                    if let Some((_, key)) = due {
                        model[key as usize] = None;
                    }
                }
                let earliest = model.iter().flatten().min();
                prop_assert_eq!(deadlines.next(), earliest.map(|&t| at(t)));
                prop_assert_eq!(deadlines.len(), model.iter().flatten().count());
                prop_assert!(deadlines.places.len() <= model.len());
                prop_assert_eq!(deadlines.is_empty(), earliest.is_none());
            }
        }
    }
}
