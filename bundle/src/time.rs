//! Wall-clock times as text, without a calendar crate.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 now; 0 when the clock stands before that.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Year, month, day, hour, minute, second in UTC of seconds since 1970.
fn civil(seconds: i64) -> (i64, u32, u32, u32, u32, u32) {
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms": days_from_civil, inverted.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (
        year,
        month as u32,
        day as u32,
        (rest / 3600) as u32,
        (rest / 60 % 60) as u32,
        (rest % 60) as u32,
    )
}

/// `2026-11-20T20:31:36.250Z` of milliseconds since 1970. Always three decimals, so that the texts sort by time: two
/// restore points of one second must not be in any order.
pub fn rfc3339(milliseconds: i64) -> String {
    let (y, mo, d, h, mi, s) = civil(milliseconds.div_euclid(1000));
    let ms = milliseconds.rem_euclid(1000);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{ms:03}Z")
}

/// Milliseconds since 1970 of such a text.
pub(crate) fn parse(rfc3339: &str) -> Option<i64> {
    let text = rfc3339.strip_suffix('Z')?;
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (y, m, d) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (h, min, s) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&m) || !(1..=31).contains(&d) || !(0..24).contains(&h) {
        return None;
    }
    // days_from_civil, of the same.
    let y = y - i64::from(m <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100
        + day_of_year
        - 719_468;
    let ms = number(20..23)?;
    let parsed = (days * 86_400 + h * 3600 + min * 60 + s) * 1000 + ms;
    // What does not give the same text is no such time.
    (self::rfc3339(parsed) == rfc3339).then_some(parsed)
}

/// `2026-11-20 20:31:36 UTC`, for people, of such a text; another text as it is.
pub fn shown(rfc3339: &str) -> String {
    match rfc3339.get(..19).filter(|_| rfc3339.ends_with('Z')) {
        Some(seconds) => format!("{} UTC", seconds.replace('T', " ")),
        None => rfc3339.to_string(),
    }
}

/// `20261120T203136250Z`: the same without characters that some file systems refuse; sorts by time.
pub(crate) fn compact(rfc3339: &str) -> String {
    rfc3339
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .take(24)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_009), "2000-02-29T00:00:00.009Z");
        assert_eq!(rfc3339(1_795_206_696_250), "2026-11-20T20:31:36.250Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        for s in [0, 951_782_400, 1_795_206_696, 4_102_444_799, -86_401] {
            assert_eq!(parse(&rfc3339(s * 1000 + 7)), Some(s * 1000 + 7));
        }
        for wrong in [
            "",
            "Z",
            "2026-02-30T00:00:00.000Z",
            "2026-11-20 20:31",
            "yesterday",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(compact("2026-11-20T20:31:36.250Z"), "20261120T203136250Z");
        assert_eq!(shown("2026-11-20T20:31:36.250Z"), "2026-11-20 20:31:36 UTC");
        assert_eq!(shown("yesterday"), "yesterday");
    }
}
