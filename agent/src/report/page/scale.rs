//! Scales of plots: how far they reach, and what is written beside them.

use super::at::span;
use crate::values;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Seconds,
    Percent,
    Count,
}

/// What a scale of time reaches to: quarters of these are round.
const SECONDS: [u32; 17] = [
    4, 8, 20, 40, 60, 120, 240, 480, 720, 1200, 2400, 3600, 7200, 14_400, 28_800, 43_200, 86_400,
];
/// The same of bytes, times a power of 1024.
const BYTES: [f64; 15] = [
    1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0, 40.0, 80.0, 120.0, 160.0, 200.0, 400.0, 800.0, 1024.0,
];
/// The same of counts, times a power of ten.
const COUNTS: [f64; 9] = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0];

impl Unit {
    /// A value in full.
    pub fn say(self, value: f64) -> String {
        let whole = value.round().max(0.0) as u64;
        match self {
            Unit::Bytes => values::bytes(whole),
            Unit::Seconds => span(whole),
            Unit::Percent => format!("{value:.1} %"),
            Unit::Count => values::count(whole),
        }
    }

    /// A value on the scale: shorter, as it is round.
    pub fn tick(self, value: f64) -> String {
        let whole = value.round().max(0.0) as u64;
        match self {
            Unit::Percent => format!("{value:.0} %"),
            _ if whole == 0 => "0".to_owned(),
            Unit::Seconds => match whole {
                s if s % 86_400 == 0 => format!("{} d", s / 86_400),
                s if s % 3600 == 0 => format!("{} h", s / 3600),
                s if s % 60 == 0 => format!("{} min", s / 60),
                s => span(s),
            },
            _ => self.say(value).replace(".0 ", " "),
        }
    }

    /// The top of a scale that holds `most`.
    pub fn top(self, most: f64) -> f64 {
        match self {
            Unit::Percent => 100.0,
            Unit::Count => count(most),
            Unit::Bytes => {
                let most = most.max(4096.0);
                let unit = 1024f64.powf(most.log2().div_euclid(10.0));
                let steps = BYTES.iter().map(|step| step * unit);
                steps.into_iter().find(|top| *top >= most).unwrap_or(most)
            }
            Unit::Seconds => {
                let mut steps = SECONDS.iter().map(|step| f64::from(*step));
                let days = || 86_400.0 * count(most / 86_400.0);
                steps.find(|top| *top >= most).unwrap_or_else(days)
            }
        }
    }
}

fn count(most: f64) -> f64 {
    let most = most.max(4.0);
    let mut power = 1.0;
    while power < 1e18 {
        let steps = COUNTS.iter().map(|step: &f64| (step * power).round());
        if let Some(top) = steps
            .into_iter()
            .find(|top| *top >= most && top % 4.0 == 0.0)
        {
            return top;
        }
        power *= 10.0;
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_all_and_are_round() {
        for (unit, most, top) in [
            (Unit::Count, 0.0, "4"),
            (Unit::Count, 7.0, "8"),
            (Unit::Count, 9.0, "12"),
            (Unit::Count, 25.0, "32"),
            (Unit::Bytes, 0.0, "4 KiB"),
            (Unit::Bytes, 3.2e9, "4 GiB"),
            (Unit::Bytes, 1.0e12, "1 TiB"),
            (Unit::Seconds, 0.0, "4 s"),
            (Unit::Seconds, 700.0, "12 min"),
            (Unit::Seconds, 80_000.0, "1 d"),
            (Unit::Seconds, 400_000.0, "8 d"),
            (Unit::Percent, 3.0, "100 %"),
        ] {
            assert_eq!(unit.tick(unit.top(most)), top, "{unit:?} {most}");
        }
        for most in 1..3000 {
            for unit in [Unit::Count, Unit::Bytes, Unit::Seconds] {
                let most = f64::from(most).powi(2);
                let top = unit.top(most);
                assert!(
                    top >= most && top <= most * 4.0 + 5000.0,
                    "{unit:?} {most} {top}"
                );
            }
        }
        assert!(Unit::Bytes.top(u64::MAX as f64).is_finite());
        assert!(Unit::Count.top(u64::MAX as f64).is_finite());
    }
}
