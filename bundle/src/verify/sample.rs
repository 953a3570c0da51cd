//! Verifying a store in slices, so that a number of runs covers all of it.

use crate::store::Store;
use crate::{Id, time};

use super::verdicts::reports;
use super::{Scope, VerifyReport};

/// A part of every pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub number: u32,
    pub of: u32,
}

impl Slice {
    /// Is this blob, at position `at` of the `count` blobs of a pack, in the slice? The blobs of a slice follow one
    /// another in the pack, and packs of few blobs are spread over the slices. Packs never change, so this does not.
    pub(super) fn holds(&self, pack: &Id, at: usize, count: usize) -> bool {
        let of = u64::from(self.of);
        let part = at as u64 * of / count.max(1) as u64;
        (part + pack.leading() % of) % of == u64::from(self.number)
    }

    /// Is it the turn of a file that is read as a whole?
    pub(super) fn turn_of(&self, file: &Id) -> bool {
        self.holds(file, 0, 1)
    }
}

/// The slice that is next for a sample of so many percent: the one after that of the last report, so that new packs are
/// covered in their turn. Without reports (a medium that cannot be written to), it changes from day to day.
pub(super) fn next(store: &Store, percent: u32) -> Slice {
    after(&reports(store), percent)
}

/// The same after these reports, oldest first.
pub(crate) fn after(reports: &[VerifyReport], percent: u32) -> Slice {
    let of = 100_u32.div_ceil(percent.clamp(1, 100));
    let last = reports.iter().rev().find_map(|r| match r.scope {
        Scope::Sample { slice, of: same } if same == of => Some(slice),
        _ => None,
    });
    let number = match last {
        Some(slice) => (slice + 1) % of,
        None => (time::now() / 86_400_000 % i64::from(of)) as u32,
    };
    Slice { number, of }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blob_is_in_one_slice() {
        for of in [1, 3, 10, 100] {
            for count in [1_usize, 2, 9, 10, 11, 250] {
                let pack = Id::of(&count.to_be_bytes());
                for at in 0..count {
                    let slices = (0..of).map(|number| Slice { number, of });
                    assert_eq!(slices.filter(|s| s.holds(&pack, at, count)).count(), 1);
                }
                let most = count.div_ceil(of as usize);
                let first = Slice { number: 0, of };
                assert!(
                    (0..count)
                        .filter(|at| first.holds(&pack, *at, count))
                        .count()
                        <= most
                );
            }
        }
    }
}
