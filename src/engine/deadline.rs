//! Which peer must be woken next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// At most one deadline per key, the earliest at hand. Its size is the number of keys that have
/// one, however often they are set.
#[derive(Debug)]
pub struct Deadlines<K> {
    by_key: BTreeMap<K, Instant>,
    /// The same pairs, earliest first.
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord> Deadlines<K> {
    /// No deadlines.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// Replaces the deadline of `key`; `None` takes it away.
    pub fn set(&mut self, key: K, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// Takes away and returns the key whose deadline is the earliest, if that is `now` or before.
    /// Equal deadlines come in the order of their keys.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// How many keys have a deadline.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no key has a deadline.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl<K: Copy + Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[expect(
        clippy::disallowed_methods,
        reason = "a test's clock has to begin somewhere"
    )]
    fn epoch() -> Instant {
        Instant::now()
    }

    proptest! {
        #[test]
        fn the_earliest_comes_first_and_nothing_piles_up(
            steps in prop::collection::vec((0..6_u32, prop::option::of(0..20_u64)), 0..100),
        ) {
            let start = epoch();
            let at = |n: u64| start + Duration::from_millis(n);
            let mut deadlines = Deadlines::new();
            let mut model = [None; 5];
            for (key, time) in steps {
                if let Some(entry) = model.get_mut(key as usize) {
                    deadlines.set(key, time.map(at));
                    *entry = time;
                } else {
                    // Key 5 stands for the clock reaching `time`.
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
                prop_assert_eq!(deadlines.by_time.len(), deadlines.len());
                prop_assert_eq!(deadlines.is_empty(), earliest.is_none());
            }
        }
    }
}
