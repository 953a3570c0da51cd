//! A cache with a bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps what was used last, up to a sum of costs; one thing that costs more is kept alone.
pub(crate) struct Cache<K, V> {
    limit: usize,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    entries: HashMap<K, (Arc<V>, usize, u64)>,
    sum: usize,
    clock: u64,
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    pub(crate) fn new(limit: usize) -> Cache<K, V> {
        Cache {
            limit,
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                sum: 0,
                clock: 0,
            }),
        }
    }

    /// What is kept under this key, or what `make` makes: the value and its cost. Made outside the lock, so that one slow
    /// read does not hold up the others.
    pub(crate) fn get<E>(
        &self,
        key: &K,
        make: impl FnOnce() -> Result<(V, usize), E>,
    ) -> Result<Arc<V>, E> {
        // A panic cannot have left it half changed in a way that matters: at worst something is made again.
        let lock = || self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut inner = lock();
            inner.clock += 1;
            let now = inner.clock;
            if let Some((value, _, used)) = inner.entries.get_mut(key) {
                *used = now;
                return Ok(value.clone());
            }
        }
        let (value, cost) = make()?;
        let value = Arc::new(value);
        let mut inner = lock();
        while inner.sum + cost > self.limit {
            let oldest = inner.entries.iter().min_by_key(|(_, (_, _, used))| *used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            if let Some((_, cost, _)) = inner.entries.remove(&oldest) {
                inner.sum -= cost;
            }
        }
        let now = inner.clock;
        if let Some((_, before, _)) = inner
            .entries
            .insert(key.clone(), (value.clone(), cost, now))
        {
            inner.sum -= before;
        }
        inner.sum += cost;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let cache = Cache::new(10);
        let get = |key: u32, cost: usize| {
            let mut made = false;
            let value = cache.get(&key, || {
                made = true;
                Ok::<_, ()>((key, cost))
            });
            assert_eq!(*value.unwrap(), key);
            made
        };
        assert!(get(1, 4) && get(2, 4) && !get(1, 4));
        assert!(get(3, 4));
        assert!(!get(1, 4) && !get(3, 4) && get(2, 4));
        assert!(get(4, 100) && !get(4, 100) && get(1, 4));
    }
}
