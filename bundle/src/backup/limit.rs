//! How fast the host is read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bucket that fills at the limit, and holds what comes in so long.
const BURST: Duration = Duration::from_millis(250);
/// A wait is asked about a stop so often.
const STEP: Duration = Duration::from_millis(100);

/// The bucket of all readers: counted in nanoseconds of reading at the limit.
struct Bucket {
    bytes_per_second: u64,
    /// When all that was taken so far has been paid for; never further back than the burst.
    paid: Duration,
}

impl Bucket {
    /// Takes `bytes` at `now` (since any start); gives how long to wait before going on.
    fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        self.paid = self
            .paid
            .max(now.saturating_sub(BURST))
            .saturating_add(cost);
        self.paid.saturating_sub(now)
    }
}

/// Holds readers back to a number of bytes per second in all.
pub(super) struct Limiter {
    start: Instant,
    bucket: Mutex<Bucket>,
    #[cfg(test)]
    pub taken: std::sync::atomic::AtomicU64,
}

impl Limiter {
    pub(super) fn new(bytes_per_second: u64) -> Limiter {
        Limiter {
            start: Instant::now(),
            bucket: Mutex::new(Bucket {
                bytes_per_second,
                paid: Duration::ZERO,
            }),
            #[cfg(test)]
            taken: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// Waits until `bytes` more may be read, or somebody wants a stop.
    pub(super) fn wait(&self, bytes: u64, stopped: &dyn Fn() -> bool) {
        #[cfg(test)]
        self.taken
            .fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        let mut left = self
            .bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(bytes, self.start.elapsed());
        while !left.is_zero() && !stopped() {
            let step = left.min(STEP);
            std::thread::sleep(step);
            left -= step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_kept_over_any_span() {
        let mut bucket = Bucket {
            bytes_per_second: 1_000_000,
            paid: Duration::ZERO,
        };
        // A clock of its own: who is told to wait comes back that much later.
        let mut now = Duration::from_secs(100);
        let start = now;
        for n in 0..1000u64 {
            now += bucket.take(1000 + n * 37 % 5000, now);
        }
        let bytes: u64 = (0..1000).map(|n| 1000 + n * 37 % 5000).sum();
        let expected = Duration::from_micros(bytes) - BURST;
        assert!(now - start >= expected - Duration::from_millis(1));
        assert!(now - start <= expected + BURST);
        // What was not used for a minute does not pile up.
        now += Duration::from_secs(60);
        assert_eq!(bucket.take(250_000, now), Duration::ZERO);
        assert_eq!(bucket.take(1_000_000, now), Duration::from_secs(1));
    }

    #[test]
    fn no_limit_overflows_and_a_stop_ends_the_wait() {
        let mut bucket = Bucket {
            bytes_per_second: 0,
            paid: Duration::ZERO,
        };
        assert!(bucket.take(u64::MAX, Duration::ZERO) > Duration::from_secs(1 << 30));
        assert!(bucket.take(u64::MAX, Duration::ZERO) > Duration::from_secs(1 << 30));
        Limiter::new(1).wait(u64::MAX, &|| true);
    }
}
