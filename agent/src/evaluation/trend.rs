//! Straight lines through what was measured.

use jiff::Timestamp;

/// Fewer measurements, or over a shorter time, say nothing of the days to come.
const POINTS: usize = 4;
const DAYS: f64 = 3.0;

/// By how much a value changes per day: the slope of the line with the least squares. `None`: too little is known.
pub fn per_day(points: &[(Timestamp, f64)]) -> Option<f64> {
    let first = points.iter().map(|p| p.0).min()?;
    let last = points.iter().map(|p| p.0).max()?;
    let day = |time: Timestamp| time.duration_since(first).as_secs_f64() / 86_400.0;
    if points.len() < POINTS || day(last) < DAYS {
        return None;
    }
    let n = points.len() as f64;
    let x = points.iter().map(|p| day(p.0)).sum::<f64>() / n;
    let y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let above: f64 = points.iter().map(|p| (day(p.0) - x) * (p.1 - y)).sum();
    let below: f64 = points.iter().map(|p| (day(p.0) - x).powi(2)).sum();
    Some(above / below).filter(|slope| slope.is_finite())
}

/// In how many days, from the last measurement, a value that goes down comes to `goal`. `None`: it does not go down, or not
/// within ten years.
pub fn days_until(points: &[(Timestamp, f64)], goal: f64) -> Option<f64> {
    let slope = per_day(points)?;
    let (_, now) = points.iter().max_by_key(|p| p.0)?;
    let days = (now - goal) / -slope;
    (slope < 0.0 && (0.0..3650.0).contains(&days)).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daily(values: &[f64]) -> Vec<(Timestamp, f64)> {
        let days = values.iter().enumerate();
        days.map(|(i, v)| (Timestamp::from_second(i as i64 * 86_400).unwrap(), *v))
            .collect()
    }

    #[test]
    fn a_target_that_fills_up_evenly() {
        let room = daily(&[100.0, 90.0, 80.0, 70.0, 60.0]);
        assert!((per_day(&room).unwrap() + 10.0).abs() < 1e-9);
        assert!((days_until(&room, 0.0).unwrap() - 6.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_said_of_what_is_too_short_or_does_not_go_down() {
        assert_eq!(days_until(&daily(&[3.0, 2.0, 1.0]), 0.0), None);
        assert_eq!(days_until(&daily(&[1.0; 9]), 0.0), None);
        assert_eq!(days_until(&daily(&[1.0, 2.0, 3.0, 4.0, 5.0]), 0.0), None);
        assert_eq!(days_until(&[], 0.0), None);
        let same = [(Timestamp::UNIX_EPOCH, 1.0); 9];
        assert_eq!(per_day(&same), None);
    }
}
