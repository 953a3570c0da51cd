//! Which clusters of a device were seen: a bitmap that takes memory for those only, and none for where all were.

use std::collections::BTreeMap;

use crate::CLUSTER;

/// Clusters per page: 256 MiB of a device.
const PAGE: u64 = 4096;

/// The clusters of one device.
pub(crate) struct Seen {
    clusters: u64,
    count: u64,
    pages: BTreeMap<u32, Page>,
}

enum Page {
    Part {
        bits: Box<[u64; PAGE as usize / 64]>,
        count: u16,
    },
    All,
}

/// Why a cluster cannot be marked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unmarked {
    OutOfRange,
    Twice,
}

impl Seen {
    /// For a device of so many bytes.
    pub(crate) fn new(size: u64) -> Seen {
        Seen {
            clusters: size.div_ceil(CLUSTER as u64),
            count: 0,
            pages: BTreeMap::new(),
        }
    }

    /// How many clusters the device has.
    pub(crate) fn clusters(&self) -> u64 {
        self.clusters
    }

    /// How many of them were not seen.
    pub(crate) fn missing(&self) -> u64 {
        self.clusters - self.count
    }

    /// A cluster comes; each may come once.
    pub(crate) fn mark(&mut self, cluster: u32) -> Result<(), Unmarked> {
        if u64::from(cluster) >= self.clusters {
            return Err(Unmarked::OutOfRange);
        }
        let number = cluster / PAGE as u32;
        let all = (self.clusters - u64::from(number) * PAGE).min(PAGE) as u16;
        let page = self.pages.entry(number).or_insert_with(|| Page::Part {
            bits: Box::new([0; PAGE as usize / 64]),
            count: 0,
        });
        let Page::Part { bits, count } = page else {
            return Err(Unmarked::Twice);
        };
        let within = cluster as usize % PAGE as usize;
        let (word, bit) = (&mut bits[within / 64], 1 << (within % 64));
        if *word & bit != 0 {
            return Err(Unmarked::Twice);
        }
        *word |= bit;
        *count += 1;
        self.count += 1;
        if *count == all {
            *page = Page::All;
        }
        Ok(())
    }

    /// The first cluster that was not seen.
    pub(crate) fn first_missing(&self) -> Option<u64> {
        if self.missing() == 0 {
            return None;
        }
        let pages = self.clusters.div_ceil(PAGE);
        // Pages that nothing touched are not in the map, so it cannot take longer than the map is long.
        for number in 0..pages {
            match u32::try_from(number).ok().and_then(|n| self.pages.get(&n)) {
                Some(Page::All) => {}
                Some(Page::Part { bits, .. }) => {
                    let word = bits.iter().position(|word| *word != u64::MAX)?;
                    let bit = bits[word].trailing_ones() as u64;
                    return Some(number * PAGE + word as u64 * 64 + bit);
                }
                None => return Some(number * PAGE),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_cluster_once() {
        // Two pages and a bit, the last cluster a partial one.
        let size = 600 * MIB + 1;
        let clusters = size.div_ceil(CLUSTER as u64) as u32;
        let mut seen = Seen::new(size);
        assert_eq!(seen.clusters(), 9601);
        // 7 has no common divisor with their number: all of them, far apart.
        for n in 0..clusters {
            let cluster = (u64::from(n) * 7 % u64::from(clusters)) as u32;
            assert_eq!(seen.missing(), u64::from(clusters - n));
            assert_eq!(seen.mark(cluster), Ok(()));
            assert_eq!(seen.mark(cluster), Err(Unmarked::Twice));
        }
        assert_eq!((seen.missing(), seen.first_missing()), (0, None));
        for cluster in [0, 1, 4095, 4096, clusters - 1] {
            assert_eq!(seen.mark(cluster), Err(Unmarked::Twice));
        }
        assert_eq!(seen.mark(clusters), Err(Unmarked::OutOfRange));
        assert_eq!(seen.mark(u32::MAX), Err(Unmarked::OutOfRange));
        // Full pages have given their memory back.
        assert!(seen.pages.values().all(|page| matches!(page, Page::All)));
    }

    #[test]
    fn the_first_that_is_missing() {
        for missing in [0, 1, 63, 64, 4095, 4096, 8191, 9599] {
            let mut seen = Seen::new(600 * MIB);
            for cluster in (0..9600).filter(|c| *c != missing) {
                seen.mark(cluster).unwrap();
            }
            assert_eq!(seen.first_missing(), Some(u64::from(missing)));
            assert_eq!(seen.missing(), 1);
            seen.mark(missing).unwrap();
            assert_eq!(seen.first_missing(), None);
        }
    }

    #[test]
    fn the_largest_device_takes_no_memory_before_it_is_seen() {
        let mut seen = Seen::new(1 << 48);
        assert_eq!(seen.clusters(), 1 << 32);
        seen.mark(u32::MAX).unwrap();
        assert_eq!(seen.mark(u32::MAX), Err(Unmarked::Twice));
        assert_eq!(seen.first_missing(), Some(0));
        assert_eq!(seen.pages.len(), 1);
    }

    #[test]
    fn nothing_at_all() {
        let mut seen = Seen::new(0);
        assert_eq!((seen.missing(), seen.first_missing()), (0, None));
        assert_eq!(seen.mark(0), Err(Unmarked::OutOfRange));
    }
}
