//! What writers of ours make: the inputs that damage and mutation begin with.

use std::sync::LazyLock;

use super::documents;
use crate::codec::{self, Encoding};
use crate::format::{BlobEntry, Kind};
use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra};
use crate::pack::{self, PackEntry};
use crate::verify::{Damage, Scope, VerifyReport};
use crate::{Id, bytes, catalogue as catalogues, pax};

/// An entry of every kind.
pub(super) fn entries() -> Vec<Entry> {
    let kinds = [
        ("dir", EntryKind::Dir),
        ("dir/file", EntryKind::File),
        ("link", EntryKind::Symlink),
        ("dir/hard", EntryKind::Hardlink),
        ("null", EntryKind::Char),
        ("disk", EntryKind::Block),
        ("pipe", EntryKind::Fifo),
        ("large", EntryKind::File),
    ];
    let entry = |(path, kind): &(&str, EntryKind)| Entry {
        path: path.into(),
        kind: *kind,
        size: 700,
        mode: 0o4755,
        uid: 5_000_000,
        gid: 1,
        mtime: (-5, 7),
        ctime: (1_700_000_000, 1),
        ino: 12,
        rdev: matches!(kind, EntryKind::Char | EntryKind::Block).then_some((1, 3)),
        target: matches!(kind, EntryKind::Symlink | EntryKind::Hardlink).then(|| "dir/file".into()),
        content: (*path == "large").then(|| Id::of(b"list")),
        state: None,
    };
    kinds.iter().map(entry).collect()
}

pub(super) fn push(segment: &mut Vec<u8>, entry: &Entry, extra: &Extra) {
    let data = if entry.kind == EntryKind::File && entry.content.is_none() {
        vec![7; 700]
    } else {
        Vec::new()
    };
    let mut entry = entry.clone();
    entry.mtime.1 %= 1_000_000_000;
    member::push_header(segment, &entry, extra, data.len() as u64);
    segment.extend_from_slice(&data);
    member::pad(segment, data.len() as u64);
}

pub(super) fn segments() -> Vec<Vec<u8>> {
    let extra = Extra {
        xattrs: vec![(b"user.a".to_vec(), b"\n\0=\n".to_vec())],
        flags: 0x40,
    };
    let all = entries();
    let mut seeds: Vec<Vec<u8>> = vec![Vec::new()];
    for entry in &all {
        let mut segment = Vec::new();
        push(&mut segment, entry, &extra);
        seeds[0].extend_from_slice(&segment);
        member::push_end(&mut segment);
        seeds.push(segment);
    }
    member::push_end(&mut seeds[0]);
    seeds.extend(hostile().map(|entry| {
        let mut segment = Vec::new();
        push(&mut segment, &entry, &extra);
        member::push_end(&mut segment);
        segment
    }));
    seeds
}

/// What only somebody else writes: paths and links that lead out of a tree.
fn hostile() -> impl Iterator<Item = Entry> {
    let entry = |path: &str, target: Option<&str>| Entry {
        path: path.into(),
        kind: if target.is_some() {
            EntryKind::Hardlink
        } else {
            EntryKind::File
        },
        target: target.map(Into::into),
        ..entries()[1].clone()
    };
    [
        entry("../outside", None),
        entry("/outside", None),
        entry("a/../../outside", None),
        entry("a", Some("../outside")),
        entry("a", Some("/outside")),
    ]
    .into_iter()
}

pub(super) fn catalogues() -> Vec<Vec<u8>> {
    let hostile = hostile().map(|entry| catalogues::line(Id::of(b"s"), 1, &[entry]).unwrap());
    std::iter::once(catalogue()).chain(hostile).collect()
}

/// Makes the headers' sums right again: behind a wrong one nothing is read.
pub(super) fn repair_sums(segment: &mut [u8]) {
    for block in segment.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

pub(super) fn pax_records() -> Vec<Vec<u8>> {
    let mut seed = Vec::new();
    for (key, value) in [
        ("path", "a/b"),
        ("mtime", "-1.5"),
        ("SCHILY.xattr.user.%3D", "\n"),
    ] {
        pax::push(&mut seed, key.as_bytes(), value.as_bytes());
    }
    vec![seed, b"-1.5".to_vec(), b"12.25".to_vec()]
}

pub(super) fn content_lists() -> Vec<Vec<u8>> {
    let id = Id::of(b"x");
    let mixed = format!(
        r#"{{"size":15,"pieces":[{{"blob":"{id}","size":5}},{{"hole":3}},{{"list":"{id}","size":7}}]}}"#
    );
    vec![
        mixed.into_bytes(),
        br#"{"size":5,"pieces":[{"hole":5}]}"#.to_vec(),
    ]
}

pub(super) fn compressed() -> Vec<Vec<u8>> {
    let plain = b"lifeboat ".repeat(300);
    let mut seeds = vec![codec::pack_json(&plain).unwrap(), plain.clone()];
    for codec in [crate::backup::Codec::Zstd(3), crate::backup::Codec::Xz(1)] {
        let mut stored = Vec::new();
        codec::Encoder::new(codec)
            .unwrap()
            .encode(&plain, &mut stored)
            .unwrap();
        seeds.push(stored);
    }
    seeds
}

pub(super) fn texts() -> Vec<Vec<u8>> {
    vec![
        Id::of(b"x").to_string().into_bytes(),
        b"//4KYQ==".to_vec(),
        b"2026-11-20T20:31:36.250Z".to_vec(),
        super::sealed::RECOVERY.as_bytes().to_vec(),
        b"/etc/**/[a-z]*.c?nf\\*/".to_vec(),
    ]
}

fn blobs() -> Vec<BlobEntry> {
    let blob = |n: u64| BlobEntry {
        id: Id::of(&n.to_le_bytes()),
        kind: Kind::Segment,
        codec: Encoding::Zstd,
        offset: 16 + n * 100,
        stored: 100,
        raw: 1000,
    };
    (0..3).map(blob).collect()
}

pub(super) fn footer() -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "format": 1, "blobs": blobs() })).unwrap()
}

/// A pack with a footer of this JSON, and hashes that vouch for it.
pub(super) fn pack(json: &[u8]) -> Vec<u8> {
    let mut pack = pack::MAGIC.to_vec();
    pack.resize(1000, 0);
    push_footer(&mut pack, &codec::pack_json(json).unwrap());
    pack
}

/// A footer as it is stored, and its trailer.
pub(super) fn push_footer(pack: &mut Vec<u8>, stored: &[u8]) {
    pack.extend_from_slice(stored);
    let (length, id) = (stored.len(), Id::of(stored));
    pack.extend_from_slice(format!("LIFEBOAT-FOOTER 1 {length:010} {id}\n").as_bytes());
}

pub(super) fn index() -> Vec<u8> {
    let entry = PackEntry {
        id: Id::of(b"pack"),
        size: 2000,
        blobs: blobs(),
    };
    serde_json::to_vec(&serde_json::json!({ "format": 1, "packs": [entry] })).unwrap()
}

pub(super) fn catalogue() -> Vec<u8> {
    let mut lines = catalogues::line(Id::of(b"segment"), 700, &entries()).unwrap();
    let mut raw = entries();
    raw[0].path = bytes::path(b"not \xff text");
    raw.truncate(1);
    lines.extend(catalogues::line_of_part(Id::of(b"other"), 700, &raw).unwrap());
    lines
}

/// Of three trees.
pub(super) fn mounted_trees() -> Vec<u8> {
    let entry = |path: &str, n: usize| Entry {
        path: path.into(),
        ..entries()[n].clone()
    };
    let line = |entries: &[Entry]| catalogues::line(Id::of(b"s"), 1, entries).unwrap();
    let mut all = line(&[
        entry(".", 0),
        entry("boot", 0),
        entry("dir", 0),
        entry("dir/file", 1),
        entry("hard", 3),
    ]);
    all.extend_from_slice(b"@/boot\n");
    all.extend(line(&[
        entry(".", 0),
        entry("grub", 0),
        entry("vmlinuz", 1),
    ]));
    all.extend_from_slice(b"@/boot/efi\n");
    all.extend(line(&[entry(".", 0)]));
    all
}

pub(super) fn snapshot() -> Vec<u8> {
    let id = Id::of(b"x");
    let summary = serde_json::json!({ "changed": 1, "vanished": 2, "unreadable": 3, "sockets": 4, "excluded": 5,
        "problems": [{ "path": "/a", "what": "changed", "detail": "why" }] });
    let tree = serde_json::json!({ "mount_point": "/", "catalogue": [id], "entries": 1, "files": 2, "bytes": 3,
        "segments": 4, "summary": summary });
    let seed = serde_json::json!({ "format": 1, "host": { "machine_id": "m", "hostname": "h" },
        "time": "2026-11-20T20:31:36.250Z", "tool_version": "1", "kind": "host", "layout": { "nodes": [[[1]]] },
        "trees": [tree, tree], "images": [{ "node": "part:1", "size": 5, "content": id }], "summary": summary,
        "stats": { "bytes_read": 1, "bytes_referenced": 0, "segments_reused": 0, "seconds": 2 }, "facts": null });
    serde_json::to_vec(&seed).unwrap()
}

pub(super) fn reports() -> Vec<Vec<u8>> {
    let report = |time: &str, scope, damaged: bool| {
        let damage = Damage {
            file: "packs/aa".into(),
            pack: Some(Id::of(b"p")),
            blob: Some(Id::of(b"b")),
            lost: vec![Id::of(b"l")],
            reason: "flipped".into(),
            files: vec!["/etc/hosts".into()],
            snapshots: vec![Id::of(b"1")],
        };
        let report = VerifyReport {
            time: time.into(),
            store: "s".into(),
            scope,
            snapshots: vec![Id::of(b"1"), Id::of(b"2")],
            damaged: if damaged { vec![damage] } else { Vec::new() },
            ..VerifyReport::default()
        };
        serde_json::to_vec(&report).unwrap()
    };
    let slice = |slice| Scope::Sample { slice, of: 2 };
    let (one, two) = (
        report("2026-11-21", slice(0), false),
        report("2026-11-22", slice(1), false),
    );
    vec![
        [
            report("2026-11-19", Scope::Whole, true),
            report("2026-11-20", Scope::Snapshot, false),
        ]
        .join(&b'\n'),
        [one, two].join(&b'\n'),
        report("2026-11-23", Scope::Written, false),
    ]
}

pub(super) fn plain_store() -> Vec<u8> {
    br#"{"format":1,"id":"00000000-0000-4000-8000-000000000007","created":"2026-11-20T20:31:36.250Z","encryption":null}"#
        .to_vec()
}

pub(super) fn encrypted_store() -> Vec<u8> {
    super::sealed::STORE.as_bytes().to_vec()
}

/// Ends a store document with the hash that it should give: behind a wrong one nothing is looked at.
pub(super) fn with_sum(data: &[u8]) -> Vec<u8> {
    const SUM: &[u8] = b",\"sum\":\"";
    let end = data.windows(SUM.len()).rposition(|w| w == SUM);
    let end = end.or_else(|| data.iter().rposition(|b| *b == b'}'));
    let start = &data[..end.unwrap_or(data.len())];
    let sum = Id::of(&[start, b"}"].concat());
    [start, format!(",\"sum\":\"{sum}\"}}\n").as_bytes()].concat()
}

static PARITY: LazyLock<Vec<u8>> = LazyLock::new(documents::good_parity);

pub(super) fn parity() -> Vec<u8> {
    PARITY.clone()
}
