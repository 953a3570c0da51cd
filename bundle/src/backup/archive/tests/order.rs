//! The order of an archive says nothing: the same files are the same segments.

use std::collections::HashSet;

use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::in_memory;
use super::support::*;
use crate::catalogue::{Catalogue, Line};
use crate::document::Tree;
use crate::fuzz::archives::{Tar, begin, check, resolved};
use crate::read::Readers;
use crate::store::Store;
use crate::{Id, bytes};

/// What a distribution's template may be like: 40 MB in 1100 files.
fn template(root: &Path) {
    for n in 0..1100u64 {
        let size = (n * 7919 % 74_000) as usize;
        let dir = ["usr/bin", "usr/lib/x86/deep/er", "etc", "usr/share/doc"][n as usize % 4];
        let path = root
            .join(dir)
            .join(format!("{:03}", n * 31 % 997))
            .join(format!("f{n}"));
        file(&path, &noise(n, size));
        set_time(&path, 1_600_000_000 + n as i64, 7);
    }
    for (from, to) in [
        ("zcat", "gzip"),
        ("zcat", "gunzip"),
        ("b1", "a1"),
        ("b1", "c1"),
    ] {
        let from = root.join("usr/bin").join(from);
        if !from.exists() {
            file(&from, &noise(5, 100_000));
        }
        fs::hard_link(from, root.join("usr/bin").join(to)).unwrap();
    }
    file(&root.join("var/large"), &noise(77, 9_000_000));
    fs::create_dir_all(root.join("mnt/data")).unwrap();
    fs::create_dir_all(root.join("srv")).unwrap();
}

fn lines(store: &Path, tree: &Tree) -> Vec<Line> {
    let store = Store::open_read_only(store).unwrap();
    let lines: Vec<Line> = Catalogue::new(Readers::new(&[&store]), tree)
        .map(Result::unwrap)
        .collect();
    // In order, nothing twice.
    let paths: Vec<_> = lines
        .iter()
        .flat_map(|l| &l.entries)
        .map(|e| bytes::of(&e.path))
        .collect();
    for pair in paths.windows(2) {
        assert!(bytes::tree_order(pair[0], pair[1]).is_lt(), "{pair:?}");
    }
    lines
}

fn segments(store: &Path, tree: &Tree) -> HashSet<Id> {
    lines(store, tree).iter().map(|l| l.segment).collect()
}

#[test]
fn files_and_their_archive_give_the_same_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (root, store) = (dir.path().join("root"), dir.path().join("store"));
    template(&root);
    let files = save_files(&store, &root);
    let conf = configs(dir.path());
    for order in ["--sort=none", "--sort=name", "--sort=inode"] {
        let saved = save(&store, &pack(&root, &conf, &[order], &["./"])).unwrap();
        let (own, of_files) = (&saved.snapshot.trees[0], &files.snapshot.trees[0]);
        assert_eq!(segments(&store, own), segments(&store, of_files), "{order}");
        assert_eq!(own.segments, of_files.segments);
        assert!(lines(&store, own).iter().all(|l| !l.part));
        assert!(own.segments > 12, "{}", own.segments);
    }
}

/// Between two files after which a segment ends there may be more than one has room for.
#[test]
fn segments_that_are_full_end_where_those_of_files_do() {
    let dir = tempfile::tempdir().unwrap();
    let (root, store) = (dir.path().join("root"), dir.path().join("store"));
    let ends = |path: &str| {
        let hash = Id::of(path.as_bytes()).leading();
        crate::catalogue::boundary(hash, 400_000, 2 << 20)
    };
    let names = (0..).map(|n| format!("dir/f{n}"));
    for path in names.filter(|path| !ends(path)).take(60) {
        file(&root.join(path), &noise(1, 380_000));
    }
    let files = save_files(&store, &root);
    let archive = pack(&root, &configs(dir.path()), &["--sort=inode"], &["./"]);
    let saved = save(&store, &archive).unwrap();
    let (own, of_files) = (&saved.snapshot.trees[0], &files.snapshot.trees[0]);
    assert_eq!(segments(&store, own), segments(&store, of_files));
    assert_eq!(own.segments, 3);
}

#[test]
fn containers_of_one_template_share_what_they_have_in_common() {
    let dir = tempfile::tempdir().unwrap();
    let (root, other, store) = (
        dir.path().join("root"),
        dir.path().join("other"),
        dir.path().join("store"),
    );
    template(&root);
    let conf = configs(dir.path());
    let archive = pack(&root, &conf, &["--sort=name"], &["./"]);
    let first = save(&store, &archive).unwrap();
    // Made from the same template, in another order, with a life of its own.
    let backwards = pack(&root, &conf, &["--sort=inode"], &["./"]);
    assert!(unpack(&backwards, &other).0);
    fs::remove_dir_all(other.join("etc/vzdump")).unwrap();
    for dir in ["etc", ""] {
        let meta = fs::metadata(root.join(dir)).unwrap();
        set_time(&other.join(dir), meta.mtime(), meta.mtime_nsec());
    }
    let archive = pack(&other, &conf, &["--sort=inode"], &["./"]);
    let second = save(&store, &archive).unwrap();
    assert!(first.bytes > 30_000_000, "{first:?}");
    // Its catalogue has other times of change, and that is all.
    let (new, known) = (second.new, second.known);
    assert!(
        second.bytes < first.bytes / 50 && new <= 3 && known > 12,
        "{second:?}"
    );
    // A life of its own costs a segment for each place.
    file(&other.join("etc/hostname"), b"other");
    file(&other.join("var/log/own"), &noise(3, 50_000));
    let archive = pack(&other, &conf, &["--sort=none"], &["./"]);
    let third = save(&store, &archive).unwrap();
    let before = segments(&store, &first.snapshot.trees[0]);
    let after = segments(&store, &third.snapshot.trees[0]);
    assert!(after.difference(&before).count() <= 4, "of {}", after.len());
    assert_ne!(first.id, second.id);
}

#[test]
fn what_is_written_early_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (root, conf) = (dir.path().join("root"), configs(dir.path()));
    template(&root);
    everything(&root.join("more"));
    let archive = pack(&root, &conf, &[], &["./"]);
    for limit in [0, 3 << 20] {
        let store = dir.path().join(format!("store-{limit}"));
        let saved = save_within(&store, &archive, limit).unwrap();
        let lines = lines(&store, &saved.snapshot.trees[0]);
        assert!(lines.iter().any(|l| l.part), "{limit}");
        let out = dir.path().join(format!("out-{limit}"));
        let (good, said) = unpack(&give_back(&store, &saved), &out);
        assert!(good, "{said}");
        fs::remove_dir_all(out.join("etc/vzdump")).unwrap();
        for dir in ["etc", ""] {
            let time = fs::metadata(root.join(dir)).unwrap();
            set_time(&out.join(dir), time.mtime(), time.mtime_nsec());
        }
        assert_same(&root, &out);
        fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn an_archive_may_come_back_to_directories() {
    let dir = tempfile::tempdir().unwrap();
    let (root, data, whole) = (
        dir.path().join("root"),
        dir.path().join("data"),
        dir.path().join("whole"),
    );
    let conf = configs(dir.path());
    template(&root);
    everything(&data.join("mnt/data"));
    for n in 0..300 {
        file(&data.join(format!("usr/bin/{n:03}/own")), &noise(n, 20_000));
    }
    for n in 0..300 {
        fs::create_dir_all(root.join(format!("usr/bin/{n:03}"))).unwrap();
        file(&data.join(format!("srv/{n}")), b"x");
    }
    // What is mounted is below what it is mounted on; the directory is in the archive twice.
    let mut members = vec!["./", "-C", data.to_str().unwrap(), "./mnt/data"];
    let more: Vec<String> = (0..300).map(|n| format!("./usr/bin/{n:03}/own")).collect();
    members.extend(more.iter().map(String::as_str));
    members.push("./srv");
    let archive = pack(&root, &conf, &[], &members);
    assert!(unpack_with(&archive, &whole, &[]).0);
    for limit in [1 << 30, 200_000] {
        let store = dir.path().join(format!("store-{limit}"));
        let saved = save_within(&store, &archive, limit).unwrap();
        let tree = &saved.snapshot.trees[0];
        lines(&store, tree);
        assert_eq!(
            tree.entries as usize + 3,
            manifest(&whole).len() + usize::from(root.join("etc/vzdump").exists())
        );
        let out = dir.path().join("out");
        let (good, said) = unpack(&give_back(&store, &saved), &out);
        assert!(good, "{said}");
        // GNU tar gives a directory that it came back to the time of that.
        for dir in ["usr/bin", "etc", ""]
            .into_iter()
            .map(String::from)
            .chain((0..300).map(|n| format!("usr/bin/{n:03}")))
        {
            for root in [&whole, &out] {
                set_time(&root.join(&dir), 5, 5);
            }
        }
        for root in [&whole, &out] {
            set_time(&root.join("etc/vzdump"), 5, 5);
            for name in ["pct.conf", "pct.fw"] {
                let path = root.join("etc/vzdump").join(name);
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                    .unwrap();
                set_time(&path, 5, 5);
            }
        }
        assert_same(&whole, &out);
        fs::remove_dir_all(out).unwrap();
    }
}

/// A tree as directories with what is in them: files of some hundred kilobytes, so that segments end often.
#[derive(Debug, Clone)]
enum Node {
    File(usize),
    Dir(Vec<Node>),
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let leaf = prop_oneof![1 => Just(0usize), 3 => 1usize..1_100_000].prop_map(Node::File);
    let tree = leaf.prop_recursive(4, 24, 5, |inner| {
        proptest::collection::vec(inner, 0..5).prop_map(Node::Dir)
    });
    proptest::collection::vec(tree, 0..6)
}

/// The members of a directory's content, in the order that `order` chooses in each directory.
fn members(
    nodes: &[Node],
    base: &str,
    order: &mut dyn FnMut(usize) -> usize,
    out: &mut Vec<(u8, String, usize)>,
) {
    let mut left: Vec<usize> = (0..nodes.len()).collect();
    while !left.is_empty() {
        let number = left.remove(order(left.len()));
        let path = format!("{base}/n{number}");
        match &nodes[number] {
            Node::File(size) => out.push((b'0', path, *size)),
            Node::Dir(inner) => {
                out.push((b'5', path.clone(), 0));
                members(inner, &path, order, out);
            }
        }
    }
}

fn archive(members: &[(u8, String, usize)]) -> Vec<u8> {
    let add = |tar: Tar, (flag, path, size): &(u8, String, usize)| {
        tar.add(*flag, path, &vec![b'x'; *size])
    };
    members.iter().fold(begin(), add).end()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_order_gives_one_tree(nodes in nodes(), choices in proptest::collection::vec(any::<prop::sample::Index>(), 60), limit in 0usize..2_000_000) {
        let mut sorted = Vec::new();
        members(&nodes, ".", &mut |_| 0, &mut sorted);
        let (tree, _, blobs) = in_memory(&archive(&sorted), usize::MAX).unwrap();
        let expected = resolved(check(&tree, &blobs));
        let mut choice = choices.iter().cycle();
        let mut listed = Vec::new();
        members(&nodes, ".", &mut |n| choice.next().unwrap().index(n), &mut listed);
        let (other, _, _) = in_memory(&archive(&listed), usize::MAX).unwrap();
        prop_assert_eq!(&other, &tree);
        // However little is held, it is the same tree.
        let (other, _, blobs) = in_memory(&archive(&listed), limit).unwrap();
        prop_assert!(resolved(check(&other, &blobs)) == expected);
        // Coming back to any directory at any time, and however little is held.
        let mut mixed: Vec<_> = sorted;
        for (n, choice) in choices.iter().enumerate() {
            if mixed.is_empty() { break; }
            let at = n % mixed.len();
            let (flag, path, size) = mixed.remove(at);
            let parent = path.rsplit_once('/').unwrap().0.to_string();
            let first = mixed.iter().position(|(_, p, _)| *p == parent).map_or(0, |at| at + 1);
            let inside = format!("{path}/");
            let last = mixed.iter().position(|(_, p, _)| p.starts_with(&inside)).unwrap_or(mixed.len());
            let at = if first >= last { last } else { first + choice.index(last - first + 1) };
            mixed.insert(at, (flag, path, size));
        }
        for limit in [usize::MAX, limit] {
            let (other, _, blobs) = in_memory(&archive(&mixed), limit).unwrap();
            prop_assert!(resolved(check(&other, &blobs)) == expected);
        }
    }
}
