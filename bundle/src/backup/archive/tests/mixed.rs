//! Archives of everything in any order, compared with what they must give.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::in_memory;
use super::support::*;
use crate::fuzz::archives::{Tar, begin, check};
use crate::list::{Entry, EntryKind};
use crate::{Id, bytes};

/// What a name is: kind, owner, time, content with attributes, and all names of it.
type Known = (EntryKind, u32, i64, String, BTreeSet<String>);

fn found(entries: Vec<(Entry, Vec<u8>)>) -> BTreeMap<String, Known> {
    let text = |path: &std::path::Path| String::from_utf8(bytes::of(path).to_vec()).unwrap();
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let home = |e: &Entry| match e.kind {
        EntryKind::Hardlink => text(e.target.as_deref().unwrap()),
        _ => text(&e.path),
    };
    for (entry, _) in &entries {
        let all = names.entry(home(entry)).or_default();
        all.insert(text(&entry.path));
    }
    let mut known = BTreeMap::new();
    for (entry, rest) in &entries {
        if entry.kind == EntryKind::Hardlink {
            continue;
        }
        let target = entry.target.as_deref().map(text);
        let rest = Id::of(rest);
        let what = format!("{} {:?} {:?} {rest}", entry.size, target, entry.content);
        let all = names[&text(&entry.path)].clone();
        for name in &all {
            let own = (
                entry.kind,
                entry.uid,
                entry.mtime.0,
                what.clone(),
                all.clone(),
            );
            assert!(known.insert(name.clone(), own).is_none());
        }
    }
    known
}

/// A member as it is meant.
#[derive(Debug, Clone)]
struct Meant {
    kind: EntryKind,
    uid: u32,
    mtime: i64,
    size: usize,
    attribute: Option<u32>,
    sparse: bool,
}

type Step = (u8, prop::sample::Index, prop::sample::Index, u32);

/// The archive, and of each name its kind, owner, time, size, and the first name in the stream.
fn build(steps: &[Step]) -> (Vec<u8>, BTreeMap<String, (Meant, String)>) {
    let mut tar = begin();
    let mut meant: BTreeMap<String, (Meant, String)> = BTreeMap::new();
    let (mut dirs, mut firsts) = (vec![String::new()], Vec::<String>::new());
    for (n, (step, a, b, seed)) in steps.iter().enumerate() {
        let name = format!("{:x}-{n}", seed % 256);
        let dir = a.get(&dirs).clone();
        let path = String::from_utf8(bytes::join(dir.as_bytes(), name.as_bytes())).unwrap();
        let mut own = Meant {
            kind: EntryKind::File,
            uid: seed % 5000,
            mtime: i64::from(*seed) - (1 << 31),
            size: match step {
                0 => 0,
                1..=3 => *seed as usize % 3000,
                _ => *seed as usize % 600_000,
            },
            attribute: (step % 3 == 0).then_some(*seed),
            sparse: *step == 4,
        };
        let (mut place, mut target) = (path.clone(), None);
        match step {
            5..=7 => own.kind = EntryKind::Dir,
            8 => {
                own.kind = EntryKind::Dir;
                place = b.get(&dirs).clone();
            }
            9 => own.kind = EntryKind::Symlink,
            10.. if !firsts.is_empty() => {
                let first = b.get(&firsts).clone();
                own = meant[&first].0.clone();
                target = Some(first);
            }
            _ => {}
        }
        if own.kind != EntryKind::File {
            (own.size, own.sparse) = (0, false);
        }
        tar = add(tar, &place, &own, target.as_deref());
        match own.kind {
            EntryKind::Dir if *step != 8 => dirs.push(path),
            EntryKind::Dir => {}
            _ if target.is_none() => firsts.push(path),
            _ => {}
        }
        let first = target.unwrap_or_else(|| place.clone());
        let place = if place.is_empty() { ".".into() } else { place };
        meant.insert(place, (own, first));
    }
    (tar.end(), meant)
}

fn content(own: &Meant) -> Vec<u8> {
    noise(u64::from(own.uid) + own.size as u64, own.size)
}

fn add(tar: Tar, path: &str, own: &Meant, target: Option<&str>) -> Tar {
    let (uid, mtime) = (own.uid.to_string(), own.mtime.to_string());
    let path = format!("./{path}");
    let value = own.attribute.map(|a| a.to_le_bytes());
    let link = target.map_or("over/there".to_string(), |t| format!("./{t}"));
    let size = (own.size + 100_000).to_string();
    let mut records: Vec<(&[u8], &[u8])> = vec![
        (b"uid", uid.as_bytes()),
        (b"mtime", mtime.as_bytes()),
        (b"path", path.as_bytes()),
    ];
    if let Some(value) = &value {
        records.push((b"SCHILY.xattr.user.x", value));
    }
    let (flag, mut data) = match (target, own.kind) {
        (Some(_), _) => (b'1', Vec::new()),
        (_, EntryKind::Dir) => (b'5', Vec::new()),
        (_, EntryKind::Symlink) => (b'2', Vec::new()),
        _ => (b'0', content(own)),
    };
    if matches!(flag, b'1' | b'2') {
        records.push((b"linkpath", link.as_bytes()));
    }
    if own.sparse && flag == b'0' {
        let mut map = format!("1\n100000\n{}\n", own.size).into_bytes();
        map.resize(512, 0);
        data = [map, data].concat();
        records.push((b"GNU.sparse.major", b"1"));
        records.push((b"GNU.sparse.minor", b"0"));
        records.push((b"GNU.sparse.realsize", size.as_bytes()));
    }
    tar.pax(b'x', &records).add(flag, "x", &data)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn everything_in_any_order(steps in proptest::collection::vec((0u8..14, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u32>()), 0..120), limit in 0usize..3_000_000) {
        let (archive, meant) = build(&steps);
        let (tree, _, blobs) = in_memory(&archive, usize::MAX).unwrap();
        let entries = check(&tree, &blobs);
        for (entry, rest) in entries.iter().filter(|(e, _)| e.kind == EntryKind::File) {
            let own = &meant[entry.path.to_str().unwrap()].0;
            let data = content(own);
            prop_assert_eq!(entry.content.is_some(), own.sparse);
            prop_assert!(own.sparse || rest.ends_with(&data));
            let attribute = format!("{:?}", own.attribute.map(|a| a.to_le_bytes().to_vec()));
            let attribute = attribute.trim_start_matches("Some(").trim_end_matches(')');
            let held = String::from_utf8_lossy(&rest[..rest.len().min(200)]).into_owned();
            prop_assert_eq!(own.attribute.is_some(), held.contains(attribute));
        }
        let expected = found(entries);
        let mut all = meant.clone();
        all.remove(".");
        let names: Vec<_> = expected.keys().filter(|n| *n != ".").collect();
        prop_assert_eq!(names, all.keys().collect::<Vec<_>>());
        for (name, (own, first)) in &meant {
            let known = &expected[name];
            let names: BTreeSet<String> = meant.iter().filter(|(_, (_, f))| f == first).map(|(n, _)| n.clone()).collect();
            prop_assert_eq!((known.0, known.1, known.2), (own.kind, own.uid, own.mtime), "{}", name);
            prop_assert_eq!(&known.4, &names);
            let size = own.size + if own.sparse { 100_000 } else { 0 };
            prop_assert!(known.3.starts_with(&format!("{size} ")), "{}", name);
        }
        for limit in [0, limit] {
            let (tree, _, blobs) = in_memory(&archive, limit).unwrap();
            prop_assert!(found(check(&tree, &blobs)) == expected, "{}", limit);
            let dir = tempfile::tempdir().unwrap();
            let saved = save_within(dir.path(), &archive, limit).unwrap();
            let back = give_back(dir.path(), &saved);
            let (tree, _, blobs) = in_memory(&back, usize::MAX).unwrap();
            prop_assert!(found(check(&tree, &blobs)) == expected, "{}", limit);
        }
    }
}
