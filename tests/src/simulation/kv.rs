//! Workers KV at its worst: what is written in one place shows elsewhere a minute later, and every answer, also that
//! there is nothing, is believed for another.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::virtual_world::mix;

/// How long an answer is believed, in milliseconds.
const CACHED_MS: i64 = 60_000;
/// How many places there are.
pub const PLACES: usize = 2;

#[derive(Debug)]
struct Value {
    bytes: Bytes,
    put_at: i64,
    place: usize,
}

/// What a place believes, and until when.
type Cache = BTreeMap<String, (i64, Option<Bytes>)>;

/// The store, and what each place believes of it.
#[derive(Debug)]
pub struct StaleKv {
    lag_ms_max: u64,
    values: RefCell<BTreeMap<String, Value>>,
    caches: RefCell<[Cache; PLACES]>,
}

/// What a read saw.
#[derive(Debug)]
pub struct Seen {
    /// The value, as the place believes.
    pub value: Option<Bytes>,
    /// Whether that is not so.
    pub stale: bool,
}

impl StaleKv {
    /// An empty store whose values are seen elsewhere after at most this long, in milliseconds.
    pub fn new(lag_ms_max: u64) -> Self {
        Self { lag_ms_max, values: RefCell::default(), caches: RefCell::default() }
    }

    /// Reads in a place.
    pub fn get(&self, name: &str, place: usize, now: i64) -> Seen {
        let values = self.values.borrow();
        let truth = values.get(name);
        let mut caches = self.caches.borrow_mut();
        let cache = &mut caches[place];
        let value = match cache.get(name) {
            Some((until, value)) if now < *until && self.lag_ms_max > 0 => value.clone(),
            _ => {
                let shows = |value: &&Value| value.place == place || now >= value.put_at + self.lag(name, place);
                let value = truth.filter(shows).map(|value| value.bytes.clone());
                cache.insert(name.to_owned(), (now + CACHED_MS, value.clone()));
                value
            }
        };
        Seen { stale: value.is_some() != truth.is_some(), value }
    }

    fn lag(&self, name: &str, place: usize) -> i64 {
        let hash = name.bytes().fold(place as u64, |hash, byte| mix(hash ^ u64::from(byte)));
        i64::try_from(hash % (self.lag_ms_max + 1)).unwrap_or(0)
    }

    /// Writes in a place. Answers what stood there before.
    pub fn put(&self, name: &str, bytes: Bytes, place: usize, now: i64) -> Option<Bytes> {
        let before = self.values.borrow_mut().insert(name.to_owned(), Value { bytes, put_at: now, place });
        before.map(|value| value.bytes)
    }

    /// Deletes.
    pub fn delete(&self, name: &str) {
        self.values.borrow_mut().remove(name);
    }

    /// What is really there.
    pub fn truth(&self, name: &str) -> Option<Bytes> {
        self.values.borrow().get(name).map(|value| value.bytes.clone())
    }

    /// All that is really there.
    pub fn all(&self) -> Vec<(String, Bytes)> {
        self.values.borrow().iter().map(|(name, value)| (name.clone(), value.bytes.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_place_sees_a_value_late_and_believes_that_there_was_none() {
        let kv = StaleKv::new(60_000);
        let name = (0..).map(|n| format!("n{n}")).find(|name| kv.lag(name, 1) > 1_000).unwrap_or_default();
        kv.put(&name, Bytes::from_static(b"x"), 0, 0);
        assert!(kv.get(&name, 0, 1).value.is_some());
        let seen = kv.get(&name, 1, 1);
        assert!(seen.value.is_none() && seen.stale);
        assert!(kv.get(&name, 1, 60_000).value.is_none(), "a miss is cached");
        assert!(kv.get(&name, 1, 60_001).value.is_some());
        kv.delete(&name);
        assert!(kv.get(&name, 1, 60_002).stale, "what was deleted is still seen");
    }
}
