//! Patterns of names and paths, as exclusions, `find` and `extract` take them.

use crate::{Error, Result, bytes};

/// A pattern in the form of the exclusions: without a slash, of a name anywhere; with one, of a whole path on the host;
/// a slash at the end restricts it to directories; `*`, `?` and `[a-z]` within a name, `**` across names, `\` takes the
/// next character as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    body: Vec<u8>,
    whole: bool,
    only_dirs: bool,
}

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: &[u8]) -> Result<Pattern> {
        let refuse = |reason| Error::Pattern {
            pattern: String::from_utf8_lossy(text).into_owned(),
            reason,
        };
        let (body, only_dirs) = match text.strip_suffix(b"/") {
            Some(body) => (body, true),
            None => (text, false),
        };
        if body.is_empty() {
            return Err(refuse("it names nothing"));
        }
        check_brackets(body).map_err(refuse)?;
        let whole = body.contains(&b'/');
        let mut body = body.to_vec();
        if whole && !body.starts_with(b"/") {
            body.insert(0, b'/');
        }
        Ok(Pattern {
            body,
            whole,
            only_dirs,
        })
    }

    /// Does it fit this path on the host?
    pub fn fits(&self, path: &[u8], is_dir: bool) -> bool {
        let text = if self.whole {
            path
        } else {
            bytes::split(path).1
        };
        (is_dir || !self.only_dirs) && glob(&self.body, text)
    }

    /// The directory on the host that holds everything that can fit: `/` for a name.
    pub fn base(&self) -> std::path::PathBuf {
        let end = self.body.iter().position(|b| WILD.contains(b));
        let (dir, _) = bytes::split(&self.body[..end.unwrap_or(self.body.len())]);
        bytes::path(if dir.is_empty() { b"/" } else { dir })
    }
}

const WILD: &[u8] = b"*?[\\";

/// Does this text hold anything that a pattern reads in its own way?
pub fn is_wild(text: &[u8]) -> bool {
    text.iter().any(|b| WILD.contains(b))
}

pub(crate) fn check_brackets(pattern: &[u8]) -> Result<(), &'static str> {
    let mut rest = pattern;
    while let Some((first, tail)) = rest.split_first() {
        rest = match first {
            b'\\' => tail.get(1..).ok_or("it ends with a backslash")?,
            b'[' => set(tail, 0).ok_or("a bracket is not closed")?.1,
            _ => tail,
        };
    }
    Ok(())
}

/// Is `byte` in the set that begins after `[`, and what comes after its end?
fn set(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    let mut first = true;
    loop {
        match rest {
            [b']', after @ ..] if !first => return Some((found != negated, after)),
            [low, b'-', high, after @ ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                rest = after;
            }
            [one, after @ ..] => {
                found |= *one == byte;
                rest = after;
            }
            [] => return None,
        }
        first = false;
    }
}

/// Does the pattern fit the whole text? Backtracks to the last star only, and to the last double star when that fails,
/// so that no pattern takes exponential time.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    let mut star: Option<(&[u8], &[u8])> = None;
    let mut double: Option<(&[u8], &[u8], bool)> = None;
    loop {
        if let [b'*', b'*', rest @ ..] = p {
            // `**/` stands for whole names, none included; other double stars for any bytes.
            let names = rest.strip_prefix(b"/");
            p = names.unwrap_or(rest);
            double = Some((p, t, names.is_some()));
            star = None;
            continue;
        }
        if let [b'*', rest @ ..] = p {
            p = rest;
            star = Some((p, t));
            continue;
        }
        let step = match (p, t) {
            ([], []) => return true,
            (_, []) | ([], _) => None,
            ([b'?', p @ ..], [b, t @ ..]) => (*b != b'/').then_some((p, t)),
            ([b'[', p @ ..], [b, t @ ..]) => match set(p, *b) {
                Some((true, after)) if *b != b'/' => Some((after, t)),
                _ => None,
            },
            ([b'\\', a, p @ ..], [b, t @ ..]) | ([a, p @ ..], [b, t @ ..]) => {
                (a == b).then_some((p, t))
            }
        };
        if let Some(next) = step {
            (p, t) = next;
            continue;
        }
        // One more byte for the last star, or for the last double star.
        match (&mut star, &mut double) {
            (Some((after, from)), _) if from.first().is_some_and(|b| *b != b'/') => {
                *from = &from[1..];
                (p, t) = (after, from);
            }
            (_, Some((after, from, names))) if !from.is_empty() => {
                let skip = if *names {
                    from.iter().position(|b| *b == b'/').map(|at| at + 1)
                } else {
                    Some(1)
                };
                let Some(skip) = skip else { return false };
                *from = &from[skip..];
                (p, t) = (after, from);
                star = None;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_paths_and_their_base() {
        for (pattern, path, fits, base) in [
            ("fstab", "/etc/fstab", true, "/"),
            ("*.conf", "/etc/a/b.conf", true, "/"),
            ("/etc/*.conf", "/etc/a/b.conf", false, "/etc"),
            ("/etc/**/*.conf", "/etc/a/b.conf", true, "/etc"),
            ("/etc/net*/[a-c]?", "/etc/network/bx", true, "/etc"),
            ("/etc/fstab", "/etc/fstab", true, "/etc"),
            ("/x*", "/xyz", true, "/"),
            (r"/a/\[b", "/a/[b", true, "/a"),
        ] {
            let read = Pattern::new(pattern.as_bytes()).unwrap();
            assert_eq!(read.fits(path.as_bytes(), false), fits, "{pattern} {path}");
            assert_eq!(read.base(), std::path::Path::new(base), "{pattern}");
        }
        let dirs = Pattern::new(b"etc/").unwrap();
        assert!(dirs.fits(b"/etc", true) && !dirs.fits(b"/etc", false));
        for bad in ["", "/", "a[", "a\\"] {
            assert!(Pattern::new(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
