//! What is in packs.

use super::seeds::repair_sums;
use crate::codec::{self as codecs, Decoder, Encoding};
use crate::crypt::{RecoveryKey, Secret};
use crate::list::EntryKind;
use crate::pattern::Pattern;
use crate::{Id, bytes, content, member, pax, time};

pub(super) fn segment(data: &[u8]) {
    let mut data = data.to_vec();
    repair_sums(&mut data);
    let _ = member::read(&data, &mut |member| {
        assert!(bytes::is_inside(bytes::of(&member.entry.path)));
        if member.entry.kind == EntryKind::Hardlink {
            let target = member.entry.target.as_deref().map(bytes::of);
            assert!(target.is_some_and(bytes::is_inside));
        }
        if member.entry.kind != EntryKind::File {
            assert!(member.data.is_empty() && member.entry.content.is_none());
        }
        // It goes into a tar stream as it is, and is the same when that is read.
        let mut again = Vec::new();
        let length = member.data.len() as u64;
        member::push_header(&mut again, &member.entry, &member.extra, length);
        again.extend_from_slice(member.data);
        member::pad(&mut again, length);
        member::push_end(&mut again);
        let mut members = 0;
        let read = member::read(&again, &mut |second| {
            members += 1;
            assert_eq!(second, member);
        });
        read.unwrap();
        assert_eq!(members, 1);
    });
}

pub(super) fn pax_records(data: &[u8]) {
    for (key, value) in pax::parse(data).unwrap_or_default() {
        let mut again = Vec::new();
        pax::push(&mut again, key, value);
        assert_eq!(pax::parse(&again).unwrap(), [(key, value)]);
        let name = pax::unescape(key);
        let mut escaped = Vec::new();
        pax::escape(&name, &mut escaped);
        assert_eq!(pax::unescape(&escaped), name);
        pax::parse_time(value);
    }
    if let Some((seconds, nanoseconds)) = pax::parse_time(data) {
        let again = pax::parse_time(pax::time(seconds, nanoseconds).as_bytes());
        assert_eq!(again, Some((seconds, nanoseconds)));
    }
}

pub(super) fn content_list(data: &[u8]) {
    // The size that the file should have is the catalogue's word.
    let own = serde_json::from_slice::<serde_json::Value>(data).ok();
    let own = own.and_then(|v| v.get("size")?.as_u64());
    for size in [5, 15, u64::MAX].into_iter().chain(own) {
        if let Ok(pieces) = content::decode(&Id::of(b"x"), data, size) {
            let sum: u64 = pieces.iter().map(content::Piece::size).sum();
            assert_eq!(sum, size);
        }
    }
}

/// Of every codec, with lengths that are true and forged.
pub(super) fn codec(data: &[u8]) {
    let (mut decoder, mut out) = (Decoder::default(), Vec::new());
    for encoding in [Encoding::Raw, Encoding::Zstd, Encoding::Xz] {
        for raw in [0, 2700, codecs::MAX_BLOB, codecs::MAX_BLOB + 1] {
            if decoder.decode(encoding, data, raw, &mut out).is_ok() {
                assert_eq!(out.len() as u64, raw);
            }
            // Memory is bounded by what a blob may have (buffers grow by doubling), not by what the stream says.
            assert!(out.capacity() as u64 <= 2 * codecs::MAX_BLOB + 64);
        }
    }
    if let Ok(json) = codecs::unpack_json(data, 5000) {
        assert!(json.len() <= 5000);
    }
}

/// Ids, base64, times, recovery keys and patterns, as they stand in documents, names and answers.
pub(super) fn texts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(id) = text.parse::<Id>() {
        assert_eq!(id.to_string(), text);
    }
    if let Some(raw) = bytes::from_base64(&text) {
        assert_eq!(bytes::from_base64(&bytes::to_base64(&raw)).unwrap(), raw);
    }
    if let Some(milliseconds) = time::parse(&text) {
        assert_eq!(time::rfc3339(milliseconds), text);
    }
    time::shown(&text);
    assert!(time::compact(&text).len() <= 24);
    if let Ok(key) = RecoveryKey::parse(&text) {
        let printed = key.to_text();
        assert_eq!(
            RecoveryKey::parse(&printed).unwrap().to_text().as_str(),
            printed.as_str()
        );
    }
    let _ = Secret::typed(&text);
    if let Ok(pattern) = Pattern::new(data) {
        let base = pattern.base();
        for path in [&b"/etc/a/b/c.conf"[..], b"/", bytes::of(&base), data] {
            let _ = (pattern.fits(path, true), pattern.fits(path, false));
        }
    }
}
