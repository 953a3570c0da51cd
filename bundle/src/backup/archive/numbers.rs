//! Numbers in headers: octal digits, or binary where these have no room (`--format=gnu`).

use super::blocks::bad;
use crate::{Error, Result};

/// A number of a header's field; 0 where it is empty.
pub(super) fn field(field: &[u8], what: &str) -> Result<i128> {
    let wrong = || {
        bad(format!(
            "{what} that is no number: {:?}",
            String::from_utf8_lossy(field)
        ))
    };
    match field.first() {
        // Big-endian two's complement, of which the first bit says that it is binary.
        Some(first @ 0x80..) => {
            let sign = if first & 0x40 != 0 { -1 } else { 0 };
            let start = (sign << 6) | i128::from(first & 0x3f);
            field[1..]
                .iter()
                .try_fold(start, |n, b| n.checked_mul(256).map(|n| n | i128::from(*b)))
                .ok_or_else(wrong)
        }
        _ => {
            let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
            let digits = field[..end].trim_ascii();
            digits.iter().try_fold(0, |n: i128, b| match b {
                b'0'..=b'7' => Ok(n * 8 + i128::from(b - b'0')),
                _ => Err(wrong()),
            })
        }
    }
}

/// The same where only some numbers make sense.
pub(super) fn within<T: TryFrom<i128>>(bytes: &[u8], what: &str) -> Result<T> {
    narrow(field(bytes, what)?, what)
}

pub(super) fn narrow<T: TryFrom<i128>>(number: i128, what: &str) -> Result<T> {
    T::try_from(number).map_err(|_| beyond(number, what))
}

fn beyond(number: i128, what: &str) -> Error {
    bad(format!("{what} of {number}"))
}

/// A decimal number, as in PAX records.
pub(super) fn decimal(text: &[u8], what: &str) -> Result<u64> {
    let number = std::str::from_utf8(text).ok().and_then(|t| {
        let digits = !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| t.parse().ok())?
    });
    number.ok_or_else(|| {
        bad(format!(
            "{what} that is no number: {:?}",
            String::from_utf8_lossy(text)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_binary() {
        for (text, number) in [
            (&b"0000644\0"[..], 0o644),
            (b"   755 \0", 0o755),
            (b"77777777777\0", 0o77_777_777_777),
            (b"\0\0\0\0", 0),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\x01", (2 << 32) + 1),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        ] {
            assert_eq!(field(text, "a size").unwrap(), number, "{text:?}");
        }
        for text in [&b"9"[..], b"-5", b"0x1", b"1 2\0"] {
            assert!(field(text, "a size").is_err(), "{text:?}");
        }
        assert!(within::<u32>(b"\x80\0\0\x01\0\0\0\0", "an owner").is_err());
        assert!(within::<u32>(b"\xff\xff\xff\xff\xff\xff\xff\xff", "an owner").is_err());
        assert_eq!(decimal(b"12", "x").unwrap(), 12);
        for text in [&b""[..], b"+1", b"-1", b"1.0", b"18446744073709551616"] {
            assert!(decimal(text, "x").is_err(), "{text:?}");
        }
    }
}
