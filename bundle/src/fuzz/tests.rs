//! The targets with damaged seeds: an ordinary test, the same inputs at every run.

use std::path::Path;

use super::mutate::damaged;
use super::*;

fn fuzz(target: &Target, count: u64) {
    damaged(target.name, count, &(target.seeds)(), target.read);
}

#[test]
fn fuzz_store_documents() {
    fuzz(&STORE_DOCUMENT, 10_000);
}

#[test]
fn fuzz_snapshots() {
    fuzz(&SNAPSHOT_DOCUMENT, 10_000);
    let read = |json: &[u8]| crate::store::parse_snapshot(Path::new("x"), json);
    read(&seeds::snapshot()).unwrap();
    let deep = [b"{\"format\":1,\"layout\":".to_vec(), vec![b'['; 1 << 20]].concat();
    assert!(read(&deep).is_err());
}

#[test]
fn fuzz_reports() {
    fuzz(&REPORTS, 5000);
}

#[test]
fn fuzz_indexes() {
    fuzz(&INDEX, 1500);
}

#[test]
fn fuzz_footers() {
    fuzz(&PACK_FOOTER, 1500);
}

#[test]
fn fuzz_parity() {
    fuzz(&PARITY, 400);
}

#[test]
fn fuzz_segments() {
    fuzz(&SEGMENT, 4000);
}

#[test]
fn fuzz_pax_records() {
    fuzz(&PAX_RECORDS, 20_000);
}

#[test]
fn fuzz_content_lists() {
    fuzz(&CONTENT_LIST, 20_000);
}

#[test]
fn fuzz_codecs() {
    fuzz(&CODEC, 3000);
}

#[test]
fn fuzz_texts() {
    fuzz(&TEXTS, 20_000);
}

#[test]
fn fuzz_catalogues() {
    fuzz(&CATALOGUE, 10_000);
}

#[test]
fn fuzz_browse_indexes() {
    fuzz(&BROWSE_INDEX, 5000);
}

#[test]
fn fuzz_container_archives() {
    fuzz(&CONTAINER_ARCHIVE, 4000);
}

#[test]
fn fuzz_key_slots() {
    // The document is of an earlier day: what opened it then opens it now.
    assert_eq!(sealed::ways_in(&seeds::encrypted_store()), 4);
    fuzz(&KEY_SLOTS, 1000);
}

#[test]
fn fuzz_sealed_files() {
    fuzz(&SEALED_FILE, 1000);
}

/// What once broke a promise.
#[test]
fn what_was_found_stays_repaired() {
    // A slice that is none counted as one, and all of two as the whole.
    let id = crate::Id::of(b"1");
    let report = |slice: u32, of: u32, day: u32| {
        format!(
            r#"{{"time":"2026-11-{day}","store":"s","scope":{{"sample":{{"slice":{slice},"of":{of}}}}},"snapshots":["{id}"],"packs":0,"blobs":0,"bytes":0,"cold":true,"damaged":[],"notes":[]}}"#
        )
    };
    let lines = |slices: &[(u32, u32)]| {
        let lines = slices.iter().enumerate();
        let lines: Vec<_> = lines
            .map(|(n, (slice, of))| report(*slice, *of, 10 + n as u32))
            .collect();
        lines.join("\n").into_bytes()
    };
    for slices in [
        [(5, 2), (6, 2)],
        [(0, 0), (1, 0)],
        [(u32::MAX, 10), (9, 10)],
    ] {
        (REPORTS.read)(&lines(&slices));
    }
    let files = |slices: &[(u32, u32)]| vec![("x-verify-x.json".to_string(), lines(&slices[..1]))];
    assert!(crate::verify::verdicts::parse("s", files(&[(2, 2)])).is_empty());
    assert_eq!(
        crate::verify::verdicts::parse("s", files(&[(1, 2)])).len(),
        1
    );

    // A catalogue that lists a name twice, or something in a file, or a root that is none.
    let entry = |path: &str, kind: &str| {
        format!(
            r#"{{"path":"{path}","type":"{kind}","mode":0,"uid":0,"gid":0,"mtime":[0,0],"ctime":[0,0],"ino":0}}"#
        )
    };
    let catalogue = |entries: &[(&str, &str)]| {
        let entries: Vec<_> = entries.iter().map(|(p, k)| entry(p, k)).collect();
        format!(
            r#"{{"segment":"{id}","raw":0,"entries":[{}]}}"#,
            entries.join(",")
        )
    };
    for entries in [
        &[("a", "file"), ("a", "file")][..],
        &[("a", "dir"), ("a/b", "file"), ("a", "dir"), ("a/b", "fifo")],
        &[("a", "file"), ("a/b", "file")],
        &[(".", "file"), ("a", "file")],
        &[("a/b", "file"), ("a", "dir"), ("a", "file")],
    ] {
        (BROWSE_INDEX.read)(catalogue(entries).as_bytes());
    }
    // Trees that are mounted on a file, or outside.
    let tree = catalogue(&[("a", "file")]);
    for at in ["/a", "/a/b", "/..", "/../a", "", "a", "/a\0"] {
        (BROWSE_INDEX.read)(format!("{tree}\n@{at}\n{tree}").as_bytes());
        if !matches!(at, "/a" | "/a/b") {
            let snapshot = String::from_utf8(seeds::snapshot()).unwrap();
            let json = serde_json::to_string(at).unwrap();
            let snapshot = snapshot.replacen(
                r#""mount_point":"/""#,
                &format!(r#""mount_point":{json}"#),
                1,
            );
            let error = crate::store::parse_snapshot(Path::new("x"), snapshot.as_bytes());
            let error = error.unwrap_err().to_string();
            assert!(error.contains("no place for a tree"), "{error}");
        }
    }

    // A frame of zstd that expands to more than announced, into a buffer that had room from the blob before: refused, and
    // nothing is allocated for it.
    (CODEC.read)(b"\x28\xb5\x2f\xfd\x00\x00\x23\x00\x00\xff");

    // An encrypted store whose keys were taken out.
    let taken = br#"{"format":1,"id":"x","created":"x","encryption":null}"#;
    let taken = seeds::with_sum(taken);
    let error = crate::store::StoreFile::parse(Path::new("x"), &taken).err();
    assert!(error.unwrap().to_string().contains("taken out"));
}
