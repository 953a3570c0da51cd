//! What is rare, and at the ends of what there can be.

use std::collections::HashSet;

use super::super::members::Members;
use super::super::{Blocks, in_memory};
use super::hostile::refused;
use super::support::*;
use crate::fuzz::archives::{begin, check};
use crate::list::EntryKind;

#[test]
fn lengths_beyond_what_octal_digits_hold() {
    let far = begin()
        .pax(b'x', &[(b"size", b"9663676416")])
        .raw(b'0', b"./pax", b"", |_| ());
    let binary = begin().raw(b'0', b"./binary", b"", |header| header.set_size(9 << 30));
    for archive in [far.0, binary.0] {
        let mut stream = &archive[..];
        let mut blocks = Blocks::new(&mut stream);
        let mut members = Members::new();
        let config = members.next(&mut blocks).unwrap().unwrap();
        assert_eq!(config.entry.size, 12);
        blocks.block().unwrap();
        members.next(&mut blocks).unwrap().unwrap();
        let member = members.next(&mut blocks).unwrap().unwrap();
        assert_eq!((member.entry.size, member.map.stored()), (9 << 30, 9 << 30));
    }
}

#[test]
fn what_a_member_says_counts_over_what_all_say() {
    let archive = begin()
        .pax(b'g', &[(b"uid", b"5"), (b"comment", b"x")])
        .add(b'0', "./a", b"")
        .pax(
            b'x',
            &[(b"uid", b"6"), (b"mtime", b"-1.5"), (b"ctime", b"7.25")],
        )
        .add(b'0', "./b", b"")
        .add(b'0', "./c", b"")
        .end();
    let (tree, configs, blobs) = in_memory(&archive, usize::MAX).unwrap();
    assert_eq!(
        (configs.len(), configs[0].name.as_str()),
        (1, "etc/vzdump/pct.conf")
    );
    let entries = check(&tree, &blobs);
    let uids: Vec<_> = entries.iter().map(|(e, _)| e.uid).collect();
    assert_eq!(uids, [0, 5, 6, 5]);
    let second = &entries[2].0;
    assert_eq!(
        (second.mtime, second.ctime),
        ((-2, 500_000_000), (7, 250_000_000))
    );
}

#[test]
fn somebody_who_is_not_known_is_said() {
    let text = b"user::rw-\nuser:nobody-knows-me:r--\ngroup::r--\nmask::r--\nother::---\n";
    let archive = begin()
        .pax(b'x', &[(b"SCHILY.acl.access", text)])
        .add(b'0', "./a", b"x")
        .end();
    let (tree, _, _) = in_memory(&archive, usize::MAX).unwrap();
    assert_eq!(tree.summary.unreadable, 1);
    let problem = &tree.summary.problems[0];
    assert_eq!(
        (problem.path.as_str(), problem.what.as_str()),
        ("/a", "partial")
    );
    assert!(problem.detail.contains("nobody-knows-me"), "{problem:?}");
}

#[test]
fn a_stream_that_fails_is_no_archive() {
    struct Failing<'a>(&'a [u8]);
    impl std::io::Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.len() {
                0 => Err(std::io::Error::other("the pipe broke")),
                _ => std::io::Read::read(&mut self.0, buffer),
            }
        }
    }
    let archive = begin().add(b'0', "./a", &[1; 5000]).end();
    let dir = tempfile::tempdir().unwrap();
    for end in [700, 1536, 4000, archive.len()] {
        let mut backup = begin_backup(&dir.path().join(end.to_string()));
        let error = backup.archive(&mut Failing(&archive[..end])).unwrap_err();
        assert!(error.to_string().contains("the pipe broke"), "{error}");
    }
}

/// The deepest there may be, with directories that the archive comes back to, in a thread's ordinary stack.
#[test]
fn deep_directories_do_not_exhaust_the_stack() {
    let deep = "a/".repeat(2047);
    let mut archive = begin();
    for depth in 1..=2047 {
        archive = archive
            .pax(b'x', &[(b"path", &deep.as_bytes()[..2 * depth])])
            .add(b'5', "x", b"");
    }
    archive = archive.add(b'0', "./b", b"");
    for name in ["c", "d"] {
        let path = format!("{deep}{name}");
        archive = archive
            .pax(b'x', &[(b"path", path.as_bytes())])
            .add(b'0', "x", b"")
            .add(b'0', &format!("./{name}"), b"");
    }
    let archive = archive.end();
    for limit in [usize::MAX, 0] {
        let (tree, _, blobs) = in_memory(&archive, limit).unwrap();
        assert_eq!(check(&tree, &blobs).len(), 2047 + 6);
        refused(&archive[..archive.len() - 1024], "cut off");
    }
}

/// Links come before what they lead to, in a tree of which no two neighbours lie in one segment: each costs no search of
/// its own, which took a minute here and days of a large container.
#[test]
fn what_is_scattered_comes_back_in_time() {
    let count = 4000u32;
    let name = |n: u32| crate::Id::of(&n.to_le_bytes()).to_string();
    let mut archive = begin().add(b'5', "./z/", b"");
    for n in 0..count {
        archive = archive.add(b'0', &format!("./z/{}", name(n)), &n.to_le_bytes());
    }
    archive = archive.add(b'5', "./a/", b"");
    for n in 0..count {
        archive = archive.link(b'1', &format!("./a/{n:04}"), &format!("./z/{}", name(n)));
    }
    let dir = tempfile::tempdir().unwrap();
    let limit = 300_000;
    let first = save_within(dir.path(), &archive.clone().end(), limit).unwrap();
    let second = save_within(dir.path(), &archive.end(), 2 * limit).unwrap();
    let start = std::time::Instant::now();
    let back = give_back(dir.path(), &first);
    let store = crate::store::Store::open_read_only(dir.path()).unwrap();
    let stores = [&store];
    let mut each = |change| panic!("{change:?}");
    let (first, second) = (&first.snapshot, &second.snapshot);
    let silent = crate::events::Silent;
    let report = crate::diff::diff(&stores, first, second, None, &silent, &mut each).unwrap();
    assert_eq!(report, crate::diff::DiffReport::default());
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    let (again, _, blobs) = in_memory(&back, usize::MAX).unwrap();
    let entries = check(&again, &blobs);
    assert_eq!(entries.len() as u32, 2 * count + 3);
    let files = entries.iter().filter(|(e, _)| e.kind == EntryKind::File);
    let contents: HashSet<_> = files.map(|(_, content)| content).collect();
    assert_eq!(contents.len() as u32, count);
}
