//! Values under keys that are never mistaken for each other after one was removed.

use std::marker::PhantomData;

/// Names one value of an [`Arena`]; a key that outlives its value finds nothing.
pub(crate) struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Its place in the table; another value's once this one is removed.
    pub(crate) fn place(self) -> usize {
        self.index as usize
    }
}

#[cfg(test)]
impl<T> Key<T> {
    /// A key that stands for a value in tests of code that only compares keys.
    pub(crate) fn nth(index: u32) -> Self {
        Self {
            index,
            generation: 0,
            of: PhantomData,
        }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.index, self.generation).cmp(&(other.index, other.generation))
    }
}

impl<T> std::hash::Hash for Key<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}

impl<T> std::fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// A growable table with stable keys; a freed place is used again under a new generation.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    /// Boxed: a peer has 12 KB, of which a table of values would keep up to twice as many ready.
    places: Vec<(u32, Option<Box<T>>)>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Arena<T> {
    /// Keeps `make(key)` and returns its key.
    ///
    /// # Panics
    ///
    /// When 2^32 values are held: every caller's limit is far below.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key<T>) -> T) -> Key<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            u32::try_from(self.places.len() - 1).expect("limits keep tables below 2^32")
        });
        let place = &mut self.places[index as usize];
        let key = Key {
            index,
            generation: place.0,
            of: PhantomData,
        };
        place.1 = Some(Box::new(make(key)));
        self.len += 1;
        key
    }

    /// Takes the value out; its key finds nothing from here on.
    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.0 != key.generation {
            return None;
        }
        let value = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(key.index);
        self.len -= 1;
        Some(*value)
    }

    /// The value of this key.
    #[must_use]
    pub(crate) fn get(&self, key: Key<T>) -> Option<&T> {
        let (generation, value) = self.places.get(key.index as usize)?;
        if *generation == key.generation {
            value.as_deref()
        } else {
            None
        }
    }

    /// The value of this key, to change.
    pub(crate) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let (generation, value) = self.places.get_mut(key.index as usize)?;
        if *generation == key.generation {
            value.as_deref_mut()
        } else {
            None
        }
    }

    /// How many values it holds.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Every value, in order of place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|(_, value)| value.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_outlives_its_value_without_finding_the_next() {
        let mut arena = Arena::default();
        let first = arena.insert_with(|_| "first");
        assert_eq!(arena.remove(first), Some("first"));
        let second = arena.insert_with(|_| "second");
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
        assert_eq!(arena.len(), 1);
    }
}
