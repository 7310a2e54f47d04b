//! Which indexes of one stream were used: each at most once.
//!
//! The same small window serves both directions. Sending, it makes using a (key, SSRC, index)
//! twice impossible, whatever the caller asks; receiving, it is the replay list of
//! RFC 3711 §3.3.2.

/// How far behind the newest index an unused one may still be used. RFC 3711 §3.3.2 asks for
/// at least 64; this is as far back as [`crate::engine::rewriter::REORDER_PACKETS`] lets packets
/// come.
pub const WINDOW_INDEXES: u64 = 1024;

const WORDS: usize = (WINDOW_INDEXES / 64) as usize;

/// The indexes of one stream that were used, as far back as [`WINDOW_INDEXES`].
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// One more than the highest index used; 0 when none was.
    end: u64,
    /// Bit `index % WINDOW_INDEXES` is set when that index was used. Bits of indexes that
    /// fell out of the window are cleared when the window moves over them.
    used: [u64; WORDS],
}

impl Window {
    /// The highest index used.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.end.checked_sub(1)
    }

    /// Whether the index is in or ahead of the window and unused.
    #[must_use]
    pub fn is_fresh(&self, index: u64) -> bool {
        if index >= self.end {
            return true;
        }
        let (word, bit) = place(index);
        self.end - index <= WINDOW_INDEXES && self.used[word] & bit == 0
    }

    /// Marks the index as used, if it is fresh. Returns whether it was.
    pub fn take(&mut self, index: u64) -> bool {
        if !self.is_fresh(index) {
            return false;
        }
        if index >= self.end {
            self.advance(index);
        }
        let (word, bit) = place(index);
        self.used[word] |= bit;
        true
    }

    /// Moves the window so that `index` is its newest.
    fn advance(&mut self, index: u64) {
        if index - self.end >= WINDOW_INDEXES {
            self.used = [0; WORDS];
        } else {
            for skipped in self.end..=index {
                let (word, bit) = place(skipped);
                self.used[word] &= !bit;
            }
        }
        self.end = index + 1;
    }
}

fn place(index: u64) -> (usize, u64) {
    let slot = index % WINDOW_INDEXES;
    ((slot / 64) as usize, 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_can_be_taken_once() {
        let mut window = Window::default();
        assert_eq!(window.highest(), None);
        assert!(window.take(0));
        assert!(!window.take(0));
        assert!(window.take(7));
        assert!(window.take(3), "late but inside the window");
        assert!(!window.take(3));
        assert_eq!(window.highest(), Some(7));
    }

    #[test]
    fn an_index_behind_the_window_is_refused() {
        let mut window = Window::default();
        assert!(window.take(WINDOW_INDEXES));
        assert!(window.is_fresh(1), "the oldest place of the window");
        assert!(!window.is_fresh(0), "one behind it");
    }

    proptest! {
        #[test]
        fn no_order_of_indexes_takes_one_twice(
            steps in prop::collection::vec((-1_200_i64..1_200, 0_u8..20), 1..400)
        ) {
            let mut window = Window::default();
            let mut taken = HashSet::new();
            let mut at = 40_000_i64;
            for (step, jump) in steps {
                at = (at + step + if jump == 0 { 5_000 } else { 0 }).max(0);
                let index = at as u64;
                let unused = !taken.contains(&index);
                let recent = window.highest().is_none_or(|h| h < index + WINDOW_INDEXES);
                prop_assert_eq!(window.take(index), unused && recent);
                taken.insert(index);
            }
        }
    }
}
