//! Paths as bytes, and bytes as text in JSON.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The bytes of a path.
pub(crate) fn of(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The path of these bytes.
pub(crate) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// Everything before the last slash, and everything after it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// `base/name`, or `name` at the top.
pub(crate) fn join(base: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(base.len() + name.len() + 1);
    joined.extend_from_slice(base);
    if !base.is_empty() && !base.ends_with(b"/") {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

/// The path on the host of an entry of a tree, for people.
pub(crate) fn on_host(mount_point: &str, path: &[u8]) -> String {
    if path == b"." || path.is_empty() {
        return mount_point.to_string();
    }
    format!(
        "{}/{}",
        mount_point.trim_end_matches('/'),
        String::from_utf8_lossy(path)
    )
}

/// Is this a path that stays inside a tree: relative, without `..`, empty names and NULs?
pub(crate) fn is_inside(path: &[u8]) -> bool {
    path == b"."
        || (!path.is_empty()
            && !path.contains(&0)
            && path
                .split(|b| *b == b'/')
                .all(|name| !matches!(name, b"" | b"." | b"..")))
}

/// Compares two paths in the order of a tree: a directory before what is in it, names by their bytes.
pub(crate) fn tree_order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    fn key(path: &[u8]) -> impl Iterator<Item = u8> + '_ {
        let path = if path == b"." { &[] } else { path };
        // A NUL is in no name, and a slash must come before every byte of a name.
        path.iter().map(|c| if *c == b'/' { 0 } else { *c })
    }
    key(a).cmp(key(b))
}

/// Is `path` the directory `dir` (`.`: the root) or something below it?
pub(crate) fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir == b"."
        || path
            .strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648), which `jq` reads with `@base64d` and coreutils with `base64 -d`.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let n = group.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = ALPHABET[(n >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= group.len() { digit as char } else { '=' });
        }
    }
    text
}

/// The reverse; `None` when it is not base64.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if text.len() % 4 != 0 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (i, group) in text.chunks(4).enumerate() {
        let padding = group.iter().rev().take_while(|c| **c == b'=').count();
        if padding > 2 || (padding > 0 && (i + 1) * 4 != text.len()) {
            return None;
        }
        let mut n = 0u32;
        for c in &group[..4 - padding] {
            n = n << 6 | ALPHABET.iter().position(|a| a == c)? as u32;
        }
        n <<= 6 * padding;
        bytes.extend_from_slice(&n.to_be_bytes()[1..4 - padding]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_a_tree() {
        let ordered: [&[u8]; 10] = [
            b".", b"!", b"a", b"a/z", b"a/z/b", b"a b", b"a!", b"a-b", b"a.d", b"b",
        ];
        for pair in ordered.windows(2) {
            assert!(tree_order(pair[0], pair[1]).is_lt(), "{pair:?}");
        }
        assert!(is_below(b"a/z", b"a") && is_below(b"a", b"a") && is_below(b"a", b"."));
        assert!(!is_below(b"ab", b"a") && !is_below(b"a", b"a/z"));
    }

    #[test]
    fn base64_as_coreutils_does_it() {
        for (plain, text) in [
            (&b""[..], ""),
            (b"a", "YQ=="),
            (b"ab", "YWI="),
            (b"abc", "YWJj"),
            (b"\xff\xfe\n", "//4K"),
        ] {
            assert_eq!(to_base64(plain), text);
            assert_eq!(from_base64(text).unwrap(), plain);
        }
        for bad in ["a", "YQ=", "Y===", "YQ==YQ==", "Y!=="] {
            assert!(from_base64(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_stays_inside() {
        for good in [&b"."[..], b"a", b"a/b", b"...", b"a/..b", b"\xff"] {
            assert!(is_inside(good));
        }
        for bad in [
            &b""[..],
            b"/",
            b"/a",
            b"..",
            b"a/..",
            b"a/../b",
            b"a//b",
            b"a/",
            b"./a",
            b"a\0b",
        ] {
            assert!(!is_inside(bad), "{bad:?}");
        }
    }
}
