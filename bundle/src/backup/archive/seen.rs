//! What an archive has had so far, in little memory: names as 64 bits of a hash that nobody can foresee.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// What was met under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Dir,
    /// With its size.
    File(u64),
    /// A hard link.
    Link,
    /// A symbolic link, a device, a pipe.
    Other,
}

/// Names that were met. Of five million, two have the same hash once in a million archives: it is refused then.
#[derive(Default)]
pub(super) struct Seen {
    keys: RandomState,
    names: HashMap<u64, u64>,
}

const DIR: u64 = u64::MAX;
const LINK: u64 = u64::MAX - 1;
const OTHER: u64 = u64::MAX - 2;

impl Seen {
    pub(super) fn get(&self, path: &[u8]) -> Option<What> {
        Some(match *self.names.get(&self.keys.hash_one(path))? {
            DIR => What::Dir,
            LINK => What::Link,
            OTHER => What::Other,
            size => What::File(size),
        })
    }

    pub(super) fn insert(&mut self, path: &[u8], what: What) {
        let value = match what {
            What::Dir => DIR,
            What::Link => LINK,
            What::Other => OTHER,
            What::File(size) => size.min(OTHER - 1),
        };
        self.names.insert(self.keys.hash_one(path), value);
    }
}
