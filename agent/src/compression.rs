//! The setting `compression`, and what a backup says of it.

use std::fmt;
use std::str::FromStr;

use bundle::backup::{Codec, LevelUse};

/// How new data are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd with a level of 1 to 19.
    Zstd(i32),
    /// zstd with a level that follows what is slow.
    Auto,
    /// xz with a level of 0 to 9: about a hundredth of the speed of zstd.
    Xz(u32),
    /// As it is.
    None,
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a compression; write auto, zstd:1 to zstd:19, xz:0 to xz:9, or none"
            )
        };
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        match (name, level) {
            ("zstd", None) => Ok(Compression::Zstd(3)),
            ("zstd", Some(l @ 1..=19)) => Ok(Compression::Zstd(l as i32)),
            ("xz", None) => Ok(Compression::Xz(6)),
            ("xz", Some(l @ 0..=9)) => Ok(Compression::Xz(l)),
            ("auto", None) => Ok(Compression::Auto),
            ("none", None) => Ok(Compression::None),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::Zstd(l) => write!(f, "zstd:{l}"),
            Compression::Xz(l) => write!(f, "xz:{l}"),
            Compression::Auto => f.write_str("auto"),
            Compression::None => f.write_str("none"),
        }
    }
}

crate::values::as_text!(Compression);

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Codec {
        match compression {
            Compression::Zstd(level) => Codec::Zstd(level),
            Compression::Auto => Codec::Auto,
            Compression::Xz(level) => Codec::Xz(level),
            Compression::None => Codec::Raw,
        }
    }
}

/// The levels that were used: `zstd 2 to 9, mostly 9`. Nothing where nothing was compressed with zstd.
pub fn levels(used: &[LevelUse]) -> Option<String> {
    let (first, last) = (used.first()?, used.last()?);
    let most = used.iter().max_by_key(|u| u.bytes)?;
    Some(if first.level == last.level {
        format!("zstd {}", first.level)
    } else {
        format!(
            "zstd {} to {}, mostly {}",
            first.level, last.level, most.level
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_in_words() {
        let of = |used: &[(i32, u64)]| {
            let used: Vec<_> = used
                .iter()
                .map(|&(level, bytes)| LevelUse { level, bytes })
                .collect();
            levels(&used)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(3, 1)]).unwrap(), "zstd 3");
        assert_eq!(
            of(&[(2, 5), (3, 9), (5, 7)]).unwrap(),
            "zstd 2 to 5, mostly 3"
        );
    }

    #[test]
    fn compressions_read_as_written() {
        for text in ["auto", "zstd:3", "zstd:19", "xz:0", "none"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        assert_eq!("xz".parse(), Ok(Compression::Xz(6)));
        for wrong in ["none:1", "auto:3", "zstd:0", "zstd:20"] {
            assert!(wrong.parse::<Compression>().is_err(), "{wrong}");
        }
    }
}
