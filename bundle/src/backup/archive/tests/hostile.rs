//! Archives that are cut off, damaged, or made by somebody who means no good.

use super::super::in_memory;
use super::support::*;
use crate::Error;
use crate::fuzz::archives::{Tar, begin, check, old_sparse};

/// What is said about an archive that must be refused, however little of it is held.
pub(super) fn refused(archive: &[u8], expected: &str) -> String {
    let mut said = [usize::MAX, 0].map(|limit| match in_memory(archive, limit) {
        Err(error @ Error::Archive { .. }) => error.to_string(),
        Err(other) => panic!("{expected}: {other}"),
        Ok((tree, ..)) => panic!("{expected}: taken, with {} entries", tree.entries),
    });
    assert_eq!(said[0], said[1]);
    std::mem::take(&mut said[0])
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    file(&root.join("a/b"), &noise(1, 1300));
    file(&root.join("a/c"), b"");
    std::fs::hard_link(root.join("a/b"), root.join("d")).unwrap();
    xattr::set(root.join("a/c"), "user.x", &noise(2, 900)).unwrap();
    let sparse = std::fs::File::create(root.join("a/sparse")).unwrap();
    sparse.set_len(100_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"x", 50_000).unwrap();
    let archive = pack(&root, &configs(dir.path()), &[], &["./"]);
    let (whole, _, blobs) = in_memory(&archive, usize::MAX).unwrap();
    let entries = check(&whole, &blobs);
    assert_eq!(entries.len(), 6);
    let used = archive.iter().rposition(|b| *b != 0).unwrap();
    // The blocks of the last member, and the two that mark the end.
    let end = (used + 1).next_multiple_of(512) + 1024;
    let places = (0..archive.len())
        .step_by(512)
        .flat_map(|at| [at, at + 1, at + 511]);
    for at in places.chain([archive.len()]) {
        if at < end {
            let said = refused(&archive[..at], "cut off");
            assert!(said.contains("cut off"), "{at}: {said}");
        } else {
            let (tree, _, _) = in_memory(&archive[..at], usize::MAX).unwrap();
            assert_eq!(tree.catalogue, whole.catalogue, "{at}");
        }
    }
    // GNU tar would take this one.
    let cut = &archive[..end - 1024];
    assert!(unpack(cut, &dir.path().join("out")).0);
    assert!(refused(cut, "cut").contains("nothing of it was kept"));
}

#[test]
fn names_that_lead_out_or_are_taken_are_refused() {
    let deep = "a/".repeat(2049);
    let mut nested = begin();
    for depth in 1..=2049 {
        nested = nested
            .pax(b'x', &[(b"path", &deep.as_bytes()[..2 * depth])])
            .add(b'5', "x", b"");
    }
    let long = "l".repeat(40_000);
    for (archive, member, reason) in [
        (begin().add(b'0', "../x", b""), "../x", "out of the tree"),
        (
            begin().add(b'0', "/etc/x", b""),
            "/etc/x",
            "out of the tree",
        ),
        (
            begin().add(b'0', "./a/../../x", b""),
            "./a/../../x",
            "out of the tree",
        ),
        (
            begin().add(b'0', "./a//b", b""),
            "./a//b",
            "out of the tree",
        ),
        (begin().add(b'5', "./..", b""), "./..", "out of the tree"),
        (
            begin()
                .pax(b'x', &[(b"path", b"./a\0b")])
                .add(b'0', "x", b""),
            "./ab",
            "out of the tree",
        ),
        (
            begin()
                .pax(b'x', &[(b"path", long.as_bytes())])
                .add(b'0', "x", b""),
            "lll",
            "out of the tree",
        ),
        (
            begin()
                .pax(b'x', &[(b"GNU.sparse.name", b"../y")])
                .add(b'0', "./x", b""),
            "../y",
            "out of the tree",
        ),
        (
            begin().add(b'L', "x", b"../../y\0").add(b'0', "./x", b""),
            "../../y",
            "out of the tree",
        ),
        (begin().link(b'1', "./a", "../x"), "./a", "outside the tree"),
        (
            begin().link(b'1', "./a", "/etc/shadow"),
            "./a",
            "outside the tree",
        ),
        (
            begin().link(b'1', "./a", "./b"),
            "./a",
            "does not come before it",
        ),
        (
            begin().add(b'5', "./b/", b"").link(b'1', "./a", "./b"),
            "./a",
            "link to a directory",
        ),
        (
            begin()
                .add(b'0', "./b", b"")
                .link(b'1', "./c", "./b")
                .link(b'1', "./a", "./c"),
            "./a",
            "link to another link",
        ),
        (begin().link(b'2', "./a", ""), "./a", "no path"),
        (
            begin().add(b'0', "./a", b"1").add(b'0', "./a", b"2"),
            "./a",
            "two of this name",
        ),
        (
            begin().add(b'0', "./a", b"1").add(b'5', "./a/", b""),
            "./a/",
            "two of this name",
        ),
        (
            begin().add(b'5', "./a/", b"").link(b'2', "./a", "/etc"),
            "./a",
            "two of this name",
        ),
        (
            begin().add(b'0', "./a", b"1").add(b'0', "./a/b", b""),
            "./a/b",
            "no directory",
        ),
        (
            begin()
                .link(b'2', "./a", "/etc")
                .add(b'0', "./a/passwd", b""),
            "./a/passwd",
            "no directory",
        ),
        (
            begin().add(b'0', "./a/b", b""),
            "./a/b",
            "is not in the archive",
        ),
        (nested, "a/a", "2048 directories deep"),
        (
            Tar::default().add(b'5', "./a/", b""),
            "./a/",
            "begin with the root",
        ),
        (
            Tar::default().add(b'6', "./", b""),
            "./",
            "root of the tree is no directory",
        ),
        (Tar::default(), "", "its root, ./, is missing"),
        (begin().add(b'5', "", b""), "", "no name"),
        (begin().add(b'5', "/", b""), "/", "out of the tree"),
        (begin().add(b'5', ".//", b""), ".//", "out of the tree"),
        (
            begin().pax(b'x', &[(b"path", b"")]).add(b'5', "./a/", b""),
            "",
            "no name",
        ),
    ] {
        let said = refused(&archive.end(), reason);
        assert!(
            said.contains(reason) && said.contains(member),
            "{member} {reason}: {said}"
        );
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let config = |tar: Tar, n: u32| tar.add(b'0', &format!("./etc/vzdump/{n}"), b"");
    let size = |size: u64| move |header: &mut tar::Header| header.set_size(size);
    let text: &[u8] = b"./a";
    let mut broken = begin().add(b'0', "./a", b"x").add(b'0', "./b", b"x");
    let at = broken.0.len() - 1024 + 3;
    broken.0[at] ^= 1;
    let mut hole = begin();
    hole.0.extend([0; 512]);
    let mut followed = begin().end();
    followed.extend([0; 9000]);
    followed.extend(begin().end());
    let sparse = |records: &[(&[u8], &[u8])], content: &[u8]| {
        begin().pax(b'x', records).add(b'0', "./a", content)
    };
    let first: [(&[u8], &[u8]); 3] = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"5000"),
    ];
    let map = |numbers: &str| {
        let mut content = numbers.as_bytes().to_vec();
        content.resize(512, 0);
        [content, b"abc".to_vec()].concat()
    };
    let one = |records: &[(&[u8], &[u8])]| begin().pax(b'x', records).add(b'0', "./a", b"").end();
    for (archive, reason) in [
        (begin().add(b'M', "./a", b"").end(), "type 'M'"),
        (begin().add(b'V', "label", b"").end(), "type 'V'"),
        (begin().add(b'D', "./a", b"").end(), "type 'D'"),
        (begin().add(b'Z', "./a", b"").end(), "type 'Z'"),
        (
            begin().add(0xff, "./a", b"").end(),
            "of which it is not known",
        ),
        (one(&[(b"SCHILY.acl.ace", b"x")]), "SCHILY.acl.ace"),
        (one(&[(b"GNU.dumpdir", b"x")]), "GNU.dumpdir"),
        (one(&[(b"LIFEBOAT.content", b"x")]), "LIFEBOAT.content"),
        (one(&[(b"SCHILY.xattr.", b"x")]), "without a name"),
        (
            one(&[(b"SCHILY.acl.access", b"user::rwx")]),
            "an ACL that is none",
        ),
        (one(&[(b"mtime", b"yesterday")]), "a time"),
        (one(&[(b"uid", b"4294967296")]), "an owner of 4294967296"),
        (one(&[(b"gid", b"4294967295")]), "a group of 4294967295"),
        (one(&[(b"uid", b"-1")]), "an owner"),
        (one(&[(b"size", b"x")]), "a size"),
        (
            begin()
                .raw(b'0', text, b"", |h| {
                    h.as_old_mut().uid = *b"\xff\xff\xff\xff\xff\xff\xff\xff"
                })
                .end(),
            "an owner of -1",
        ),
        (
            begin()
                .raw(b'0', text, b"", |h| {
                    h.as_old_mut().size = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
                })
                .end(),
            "a size of -1",
        ),
        (
            begin()
                .raw(b'0', text, b"", |h| h.as_old_mut().mode = *b"rw-r--r-")
                .end(),
            "a mode that is no number",
        ),
        (
            begin()
                .raw(b'3', text, b"", |h| {
                    h.as_ustar_mut().unwrap().dev_major = *b"\x80\0\0\0\x7f\xff\xff\xff"
                })
                .end(),
            "a device number",
        ),
        (
            begin().raw(b'x', text, b"", size(1 << 40)).end(),
            "a PAX header of 1099511627776 bytes",
        ),
        (
            begin().raw(b'L', text, b"", size(1 << 30)).end(),
            "a long name of 1073741824 bytes",
        ),
        (
            begin().pax(b'x', &[]).pax(b'x', &[]).end(),
            "a PAX header twice",
        ),
        (
            begin()
                .add(b'L', "x", b"./a\0")
                .add(b'L', "x", b"./a\0")
                .end(),
            "a long name twice",
        ),
        (
            begin().pax(b'x', &[(b"mtime", b"1")]).end(),
            "without a member",
        ),
        (
            begin()
                .add(b'x', "x", b"9999 a=b\n")
                .add(b'0', "./a", b"")
                .end(),
            "PAX record",
        ),
        (
            begin().add(b'5', "./a/", b"content").end(),
            "content of something that is no file",
        ),
        (
            begin().add(b'1', "./a", b"content").end(),
            "outside the tree",
        ),
        (
            begin().add(b'6', "./a", b"content").end(),
            "content of something that is no file",
        ),
        (broken.end(), "no header, or a damaged one"),
        (
            hole.add(b'0', "./a", b"").end(),
            "an empty block is in its midst",
        ),
        (followed, "something follows its end"),
        (
            old_sparse(begin(), "./a", &[(0, 5), (4, 5)], 100).end(),
            "not in order",
        ),
        (
            old_sparse(begin(), "./a", &[(0, 5), (96, 5)], 100).end(),
            "beyond the end",
        ),
        (
            sparse(
                &[
                    (b"GNU.sparse.size", b"9"),
                    (b"GNU.sparse.numblocks", b"2"),
                    (b"GNU.sparse.map", b"0,3"),
                ],
                b"abc",
            )
            .end(),
            "not complete",
        ),
        (
            sparse(
                &[(b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,3,5")],
                b"abc",
            )
            .end(),
            "not complete",
        ),
        (
            sparse(
                &[(b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,2")],
                b"abc",
            )
            .end(),
            "its length is not that",
        ),
        (
            sparse(&[(b"GNU.sparse.map", b"0,3")], b"abc").end(),
            "without its size",
        ),
        (
            sparse(
                &[(b"GNU.sparse.size", b"9"), (b"GNU.sparse.numbytes", b"3")],
                b"abc",
            )
            .end(),
            "not in order",
        ),
        (
            sparse(&[(b"GNU.sparse.major", b"2")], b"abc").end(),
            "the form 2.0",
        ),
        (
            sparse(&first, &map("1\n0\n4\n")).end(),
            "its length is not that",
        ),
        (
            sparse(&first, &map("9999999\n0\n3\n")).end(),
            "too many pieces",
        ),
        (sparse(&first, &map("2\n0\n3\n")).end(), "that is none"),
        (sparse(&first, b"1\n").end(), "longer than the member"),
        (
            Tar::default()
                .add(b'0', "./etc/vzdump/pct.conf", &vec![b'#'; (1 << 20) + 1])
                .end(),
            "at most 1048576 bytes",
        ),
        (
            Tar::default()
                .link(b'2', "./etc/vzdump/pct.conf", "/etc/shadow")
                .end(),
            "no file",
        ),
        (
            (0..17).fold(Tar::default(), config).end(),
            "a configuration too many",
        ),
        (
            config(config(Tar::default(), 1), 1).end(),
            "a configuration too many",
        ),
    ] {
        let said = refused(&archive, reason);
        assert!(said.contains(reason), "{reason}: {said}");
        assert!(
            said.contains("at ") && said.contains("dumped again"),
            "{said}"
        );
    }
}

/// Who chooses the content chooses where lists of pieces would end.
#[test]
fn chosen_content_makes_no_file_that_cannot_be_read() {
    let leads = |n: &u32| crate::Id::of(&n.to_le_bytes()).leading() >> 52 == 0;
    let data = (0u32..).find(leads).unwrap().to_le_bytes();
    let count = 40_000u64;
    let mut map = format!("{count}\n").into_bytes();
    for n in 0..count {
        map.extend_from_slice(format!("{}\n4\n", n * 8).as_bytes());
    }
    map.resize(map.len().next_multiple_of(512), 0);
    map.extend(data.repeat(count as usize));
    let size = (count * 8).to_string();
    let archive = begin()
        .pax(
            b'x',
            &[
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.realsize", size.as_bytes()),
            ],
        )
        .add(b'0', "./a", &map)
        .end();
    let dir = tempfile::tempdir().unwrap();
    let saved = save(dir.path(), &archive).unwrap();
    let store = crate::store::Store::open_read_only(dir.path()).unwrap();
    let options = crate::verify::VerifyOptions::default();
    let report = crate::verify::verify(&store, &options, &crate::events::Silent).unwrap();
    assert!(report.ok(), "{report:#?}");
    let back = give_back(dir.path(), &saved);
    let (again, _, _) = in_memory(&back, usize::MAX).unwrap();
    let tree = &saved.snapshot.trees[0];
    assert_eq!(
        (again.bytes, again.catalogue),
        (tree.bytes, tree.catalogue.clone())
    );
}

/// The document lists problems, and nothing else in it grows with what a stranger writes.
#[test]
fn names_in_problems_are_short() {
    let name = "n".repeat(1 << 20);
    let acl = format!("user::rw-\nuser:{name}:r--\ngroup::r--\nmask::r--\nother::---\n");
    let many: Vec<Vec<u8>> = (0..70)
        .map(|n| format!("SCHILY.xattr.user.{n:03}{}", "x".repeat(5000)).into_bytes())
        .collect();
    let value = vec![b'v'; 100_000];
    let mut records: Vec<(&[u8], &[u8])> = vec![(b"SCHILY.acl.access", acl.as_bytes())];
    records.extend(many.iter().map(|name| (name.as_slice(), value.as_slice())));
    let archive = begin().pax(b'x', &records).add(b'0', "./a", b"").end();
    let (tree, _, _) = in_memory(&archive, usize::MAX).unwrap();
    assert_eq!(tree.summary.unreadable, 1);
    let problems = &tree.summary.problems;
    let length: usize = problems.iter().map(|p| p.detail.len()).sum();
    assert!(
        length < 2000,
        "{} problems of {length} bytes",
        problems.len()
    );
    assert!(problems[0].detail.contains("\"nnn"), "{problems:?}");
    assert!(problems[1].detail.contains("user.041xxx"), "{problems:?}");
}
