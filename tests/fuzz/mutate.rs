//! Damages seeds at random, for the fuzz tests of all crates, which include this file. It is an ordinary test: the same
//! inputs at every run. `LIFEBOAT_FUZZ_SECONDS=600 cargo test fuzz` goes on for that long, with inputs never tried before.
#![allow(dead_code, reason = "each crate uses a part of it")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// xorshift64*: enough for tests, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.number() >> 16) as usize % end.max(1)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A number at which arithmetic breaks, more often than not.
    pub fn odd_number(&mut self) -> u64 {
        let around = 1u64 << self.below(64);
        match self.below(5) {
            0 => u64::MAX - self.below(600) as u64,
            1 => around.wrapping_sub(self.below(3) as u64),
            2 => around.wrapping_add(self.below(600) as u64),
            3 => self.below(5) as u64,
            _ => self.number(),
        }
    }
}

/// One of the seeds, damaged in one to eight places.
pub fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = random.pick(seeds).clone();
    for _ in 0..1 + random.below(8) {
        let at = random.below(data.len() + 1);
        let end = (at + 1 + random.below(40)).min(data.len());
        let at = at.min(end);
        match random.below(10) {
            0 => data.truncate(at),
            1 if at < data.len() => data[at] ^= 1 << random.below(8),
            2 if at < data.len() => data[at] = *random.pick(b"\0\xff\n/.{}[]\"\\-0:,= %"),
            3 => drop(data.drain(at..end)),
            4 => {
                let again = data[at..end].to_vec();
                data.splice(at..at, again);
            }
            5 => {
                let other = random.pick(seeds);
                let from = random.below(other.len());
                let to = (from + random.below(200)).min(other.len());
                data.splice(at..end, other[from..to].iter().copied());
            }
            6 => {
                let number = random.odd_number();
                let width = 1 << random.below(4);
                let bytes = if random.below(2) == 0 {
                    number.to_le_bytes()[..width].to_vec()
                } else {
                    number.to_be_bytes()[8 - width..].to_vec()
                };
                let end = (at + width).min(data.len());
                data.splice(at..end, bytes);
            }
            // A number that is written as text.
            _ => {
                let digit = |b: &u8| b.is_ascii_digit();
                if let Some(start) = data[at..].iter().position(digit).map(|n| at + n) {
                    let length = data[start..].iter().take_while(|b| digit(b)).count();
                    let mut text = random.odd_number().to_string();
                    if random.below(8) == 0 {
                        text.insert(0, '-');
                    }
                    data.splice(start..start + length, text.into_bytes());
                }
            }
        }
    }
    data
}

/// Puts odd numbers into up to three fields of a GPT header.
pub fn fields(random: &mut Random, header: &mut [u8]) {
    for _ in 0..random.below(4) {
        // The fields of numbers: from the size of the header on, but not its sums.
        let field = *random.pick(&[12, 24, 32, 40, 48, 72, 80, 84]);
        let number = random.odd_number().to_le_bytes();
        let width = if field == 12 || field >= 80 { 4 } else { 8 };
        header[field..field + width].copy_from_slice(&number[..width]);
    }
}

/// What once broke a reader: tried first, every time.
const FOUND: [(&str, u64); 1] = [
    // fatfs multiplied a cluster number of a directory entry beyond 32 bits.
    ("boot partitions", 1_795_220_632_604_264_431),
];

/// Runs `round` many times, at least `rounds`. A panic names the seed that repeats it.
pub fn rounds(name: &str, rounds: u64, round: impl Fn(&mut Random)) {
    let seconds = std::env::var("LIFEBOAT_FUZZ_SECONDS").ok();
    let seconds: Option<u64> = seconds.and_then(|s| s.parse().ok());
    let once = std::env::var("LIFEBOAT_FUZZ_SEED").ok();
    let once: Option<u64> = once.and_then(|s| s.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (start, until) = match seconds {
        Some(s) => (
            now.map_or(0, |d| d.as_nanos() as u64 / 1000 * 1000),
            Some(Instant::now() + Duration::from_secs(s)),
        ),
        None => (0, None),
    };
    for (_, seed) in FOUND.iter().filter(|(broken, _)| *broken == name) {
        round(&mut Random::new(*seed));
    }
    for n in 0.. {
        if until.map_or(n >= rounds, |until| n >= rounds && Instant::now() >= until) {
            return;
        }
        let seed = once.unwrap_or(start.wrapping_add(n));
        let result = catch_unwind(AssertUnwindSafe(|| round(&mut Random::new(seed))));
        assert!(
            result.is_ok(),
            "{name}: LIFEBOAT_FUZZ_SEED={seed} repeats it"
        );
        if once.is_some() {
            return;
        }
    }
}

/// [`rounds`] of damaged seeds.
pub fn damaged(name: &str, count: u64, seeds: &[Vec<u8>], read: impl Fn(&[u8])) {
    seeds.iter().for_each(|seed| read(seed));
    rounds(name, count, |random| read(&mutate(random, seeds)));
}
