//! Every reader of the store, fed with damaged input. None may panic, and what they let through keeps their promises.

#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;
mod stores;

use std::path::Path;

use crate::codec::{self, Decoder, Encoding};
use crate::document::{SNAPSHOT_FORMAT, Snapshot, SnapshotHeader};
use crate::format::{BlobEntry, FORMAT, Kind};
use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra};
use crate::pack::{self, PackEntry};
use crate::{Id, bytes, catalogue, content, format, index, parity, pax};
use mutate::{damaged, mutate, rounds};

/// An entry of every kind.
fn entries() -> Vec<Entry> {
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

fn push(segment: &mut Vec<u8>, entry: &Entry, extra: &Extra) {
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

fn segments() -> Vec<Vec<u8>> {
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
    seeds
}

/// Makes the headers' sums right again: behind a wrong one nothing is read.
fn repair_sums(segment: &mut [u8]) {
    for block in segment.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn fuzz_segments() {
    damaged("segments", 4000, &segments(), |data| {
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
            member::push_header(
                &mut again,
                &member.entry,
                &member.extra,
                member.data.len() as u64,
            );
            again.extend_from_slice(member.data);
            member::pad(&mut again, member.data.len() as u64);
            member::push_end(&mut again);
            member::read(&again, &mut |second| assert_eq!(second, member)).unwrap();
        });
    });
}

#[test]
fn fuzz_pax_records() {
    let mut seed = Vec::new();
    for (key, value) in [
        ("path", "a/b"),
        ("mtime", "-1.5"),
        ("SCHILY.xattr.user.%3D", "\n"),
    ] {
        pax::push(&mut seed, key.as_bytes(), value.as_bytes());
    }
    damaged(
        "pax",
        20_000,
        &[seed, b"-1.5".to_vec(), b"12.25".to_vec()],
        |data| {
            for (key, value) in pax::parse(data).unwrap_or_default() {
                pax::unescape(key);
                pax::parse_time(value);
            }
            if let Some((seconds, nanoseconds)) = pax::parse_time(data) {
                let again = pax::parse_time(pax::time(seconds, nanoseconds).as_bytes());
                assert_eq!(again, Some((seconds, nanoseconds)));
            }
        },
    );
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

#[test]
fn fuzz_footers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pack");
    let json = serde_json::to_vec(&serde_json::json!({ "format": 1, "blobs": blobs() })).unwrap();
    let whole = |json: &[u8]| {
        let stored = codec::pack_json(json).unwrap();
        let mut pack = pack::MAGIC.to_vec();
        pack.resize(1000, 0);
        pack.extend_from_slice(&stored);
        let trailer = format!(
            "LIFEBOAT-FOOTER 1 {:010} {}\n",
            stored.len(),
            Id::of(&stored)
        );
        pack.extend_from_slice(trailer.as_bytes());
        pack
    };
    let good = whole(&json);
    rounds("footers", 1500, |random| {
        // Either the bytes, or what the hashes vouch for.
        let data = if random.below(2) == 0 {
            mutate(random, std::slice::from_ref(&good))
        } else {
            whole(&mutate(random, std::slice::from_ref(&json)))
        };
        std::fs::write(&path, &data).unwrap();
        if let Ok((size, blobs)) = pack::read_footer(&path, None) {
            assert!(blobs.iter().all(|b| b.offset + b.stored <= size));
        }
    });
}

#[test]
fn fuzz_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let entry = PackEntry {
        id: Id::of(b"pack"),
        size: 2000,
        blobs: blobs(),
    };
    let json = serde_json::to_vec(&serde_json::json!({ "format": 1, "packs": [entry] })).unwrap();
    damaged("indexes", 1500, &[json], |data| {
        let stored = codec::pack_json(data).unwrap();
        std::fs::write(&path, &stored).unwrap();
        for pack in index::read(&path, &Id::of(&stored), None).unwrap_or_default() {
            let mut map = index::Map::default();
            map.push_pack(0, &pack.blobs);
            map.sort();
            assert!(pack.blobs.iter().all(|b| !map.find(&b.id).is_empty()));
        }
    });
}

#[test]
fn fuzz_content_lists() {
    let seeds = [
        format!(
            r#"{{"size":15,"pieces":[{{"blob":"{0}","size":5}},{{"hole":3}},{{"list":"{0}","size":7}}]}}"#,
            Id::of(b"x")
        )
        .into_bytes(),
        br#"{"size":5,"pieces":[{"hole":5}]}"#.to_vec(),
    ];
    damaged("content lists", 20_000, &seeds, |data| {
        for size in [5, 15, u64::MAX] {
            if let Ok(pieces) = content::decode(&Id::of(b"x"), data, size) {
                let sum: u64 = pieces.iter().map(content::Piece::size).sum();
                assert_eq!(sum, size);
            }
        }
    });
}

#[test]
fn fuzz_catalogues() {
    let mut seed = catalogue::line(Id::of(b"segment"), 700, &entries()).unwrap();
    let mut raw = entries();
    raw[0].path = bytes::path(b"not \xff text");
    seed.extend(catalogue::line(Id::of(b"other"), 700, &raw).unwrap());
    damaged("catalogues", 10_000, &[seed], |data| {
        for line in catalogue::parse(&Id::of(b"x"), data).unwrap_or_default() {
            for entry in &line.entries {
                assert!(bytes::is_inside(bytes::of(&entry.path)));
            }
            // A later backup writes unchanged lines again.
            let again = catalogue::line(line.segment, 0, &line.entries).unwrap();
            let again = catalogue::parse(&Id::of(b"x"), &again).unwrap();
            assert_eq!(again[0].entries, line.entries);
        }
    });
}

#[test]
fn fuzz_snapshots() {
    let id = Id::of(b"x");
    let summary = serde_json::json!({ "changed": 1, "vanished": 2, "unreadable": 3, "sockets": 4, "excluded": 5,
        "problems": [{ "path": "/a", "what": "changed", "detail": "why" }] });
    let tree = serde_json::json!({ "mount_point": "/", "catalogue": [id], "entries": 1, "files": 2, "bytes": 3,
        "segments": 4, "summary": summary });
    let seed = serde_json::json!({ "format": 1, "host": { "machine_id": "m", "hostname": "h" },
        "time": "2026-11-20T20:31:36Z", "tool_version": "1", "kind": "host", "layout": { "nodes": [[[1]]] },
        "trees": [tree, tree], "images": [{ "node": "part:1", "size": 5, "content": id }], "summary": summary,
        "stats": { "bytes_read": 1, "bytes_referenced": 0, "segments_reused": 0, "seconds": 2 }, "facts": null });
    let seed = serde_json::to_vec(&seed).unwrap();
    format::parse::<Snapshot>(Path::new("x"), &seed, SNAPSHOT_FORMAT).unwrap();
    damaged("snapshots", 10_000, &[seed], |data| {
        if let Ok(snapshot) = format::parse::<Snapshot>(Path::new("x"), data, FORMAT) {
            let header = SnapshotHeader::new(id, &snapshot);
            let name = crate::store::snapshot_name(&header.time, &header.id, ".json");
            assert!(!name.contains('/'));
        }
    });
    let deep = [b"{\"format\":1,\"layout\":".to_vec(), vec![b'['; 1 << 20]].concat();
    assert!(format::parse::<Snapshot>(Path::new("x"), &deep, FORMAT).is_err());
}

#[test]
fn fuzz_parity() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["tmp", "index"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    parity::record(root, 20).unwrap();
    let content: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
    let file = root.join(format!("index/{}.idx", Id::of(&content)));
    std::fs::write(&file, &content).unwrap();
    parity::protect(root, &file).unwrap();
    let seeds = [std::fs::read(parity::path_of(&file)).unwrap()];
    let mut bad = content.clone();
    bad[700] ^= 1;
    damaged("parity", 400, &seeds, |data| {
        std::fs::write(parity::path_of(&file), data).unwrap();
        std::fs::write(&file, &bad).unwrap();
        assert!(data == seeds[0] || parity::check(&file).is_some());
        // Whatever it says: the file is right afterwards, or as it was.
        let repaired = parity::repair(root, &file).is_ok();
        let expected = if repaired { &content } else { &bad };
        assert_eq!(std::fs::read(&file).unwrap(), *expected);
    });
}

#[test]
fn fuzz_codecs() {
    let plain = b"lifeboat ".repeat(300);
    for (codec, encoding) in [
        (crate::backup::Codec::Zstd(3), Encoding::Zstd),
        (crate::backup::Codec::Xz(1), Encoding::Xz),
        (crate::backup::Codec::Raw, Encoding::Raw),
    ] {
        let mut stored = Vec::new();
        codec::Encoder::new(codec)
            .unwrap()
            .encode(&plain, &mut stored)
            .unwrap();
        damaged("codecs", 3000, &[stored, plain.clone()], |data| {
            let (mut decoder, mut out) = (Decoder::default(), Vec::new());
            for raw in [0, 2700, codec::MAX_BLOB] {
                if decoder.decode(encoding, data, raw, &mut out).is_ok() {
                    assert_eq!(out.len() as u64, raw);
                }
            }
            let _ = codec::unpack_json(data, 5000);
        });
    }
}

#[test]
fn fuzz_ids_and_base64() {
    let seeds = [Id::of(b"x").to_string().into_bytes(), b"//4KYQ==".to_vec()];
    damaged("ids", 20_000, &seeds, |data| {
        let text = String::from_utf8_lossy(data);
        if let Ok(id) = text.parse::<Id>() {
            assert_eq!(id.to_string(), text);
        }
        if let Some(raw) = bytes::from_base64(&text) {
            assert_eq!(bytes::from_base64(&bytes::to_base64(&raw)).unwrap(), raw);
        }
    });
}
