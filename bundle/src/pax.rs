//! PAX extended headers (POSIX.1-2001 pax, "pax Extended Header"): `<length> <key>=<value>\n`.
//!
//! Our own, because the `tar` crate ends a value at the first newline, and an ordinary `security.capability` holds
//! newline and NUL bytes.

/// Appends a record.
pub(crate) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(n: usize) -> usize {
    n.checked_ilog10().map_or(1, |d| d as usize + 1)
}

/// Key and value.
pub(crate) type Record<'a> = (&'a [u8], &'a [u8]);

/// The records of a PAX header, or what is wrong with it.
pub(crate) fn parse(mut data: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data
            .iter()
            .take(20)
            .position(|b| *b == b' ')
            .ok_or("a PAX record has no length")?;
        let length = std::str::from_utf8(&data[..space])
            .ok()
            .and_then(|t| t.parse::<usize>().ok())
            .ok_or("the length of a PAX record is not a number")?;
        if length <= space + 1 || length > data.len() {
            return Err("a PAX record is longer or shorter than its header has room for");
        }
        let (record, rest) = data.split_at(length);
        let record = record[space + 1..]
            .strip_suffix(b"\n")
            .ok_or("a PAX record does not end with a newline")?;
        let equals = record
            .iter()
            .position(|b| *b == b'=')
            .ok_or("a PAX record has no key")?;
        records.push((&record[..equals], &record[equals + 1..]));
        data = rest;
    }
    Ok(records)
}

/// The name of an xattr as part of a key: GNU tar escapes what would end the key.
pub(crate) fn escape(name: &[u8], out: &mut Vec<u8>) {
    for byte in name {
        match byte {
            b'%' => out.extend_from_slice(b"%25"),
            b'=' => out.extend_from_slice(b"%3D"),
            other => out.push(*other),
        }
    }
}

/// The reverse of [`escape`].
pub(crate) fn unescape(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'%', b'2', b'5', after @ ..] => (b'%', after),
            [b'%', b'3', b'D', after @ ..] => (b'=', after),
            _ => (*first, tail),
        };
        name.push(byte);
        rest = after;
    }
    name
}

/// A time with nanoseconds as a decimal number of seconds.
pub(crate) fn time(seconds: i64, nanoseconds: u32) -> String {
    // -0.5 s is stored by the kernel as second -1 and 500,000,000 ns.
    match (seconds < 0, nanoseconds) {
        (true, 1..) => format!(
            "-{}.{:09}",
            (seconds + 1).unsigned_abs(),
            1_000_000_000 - nanoseconds
        ),
        _ => format!("{seconds}.{nanoseconds:09}"),
    }
}

/// The reverse of [`time`]; fewer digits are understood.
pub(crate) fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_that_gain_a_digit() {
        for value in 0..1200 {
            let mut out = Vec::new();
            push(&mut out, b"key", &vec![b'\n'; value]);
            let digits = out.iter().position(|b| *b == b' ').unwrap();
            assert_eq!(
                std::str::from_utf8(&out[..digits])
                    .unwrap()
                    .parse::<usize>()
                    .unwrap(),
                out.len()
            );
        }
    }

    #[test]
    fn times_before_and_after_the_epoch() {
        for (time_of, text) in [
            ((0, 0), "0.000000000"),
            ((1, 5), "1.000000005"),
            ((-1, 500_000_000), "-0.500000000"),
            ((-2, 0), "-2.000000000"),
            ((-2, 1), "-1.999999999"),
        ] {
            assert_eq!(time(time_of.0, time_of.1), text);
            assert_eq!(parse_time(text.as_bytes()), Some(time_of));
        }
        assert_eq!(parse_time(b"12"), Some((12, 0)));
        assert_eq!(parse_time(b"12.x"), None);
    }

    proptest! {
        #[test]
        fn records_round_trip(records in proptest::collection::vec(
            (proptest::collection::vec(1u8..60, 1..20), proptest::collection::vec(any::<u8>(), 0..200)), 0..8)) {
            let mut out = Vec::new();
            for (key, value) in &records {
                push(&mut out, key, value);
            }
            let parsed: Vec<_> = parse(&out).unwrap().into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(parsed, records);
        }

        #[test]
        fn garbage_does_not_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&data);
        }

        #[test]
        fn names_round_trip(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut key = Vec::new();
            escape(&name, &mut key);
            prop_assert!(!key.contains(&b'='));
            prop_assert_eq!(unescape(&key), name);
        }

        #[test]
        fn times_round_trip(seconds in -1i64 << 40..1i64 << 40, ns in 0u32..1_000_000_000) {
            prop_assert_eq!(parse_time(time(seconds, ns).as_bytes()), Some((seconds, ns)));
        }
    }
}
