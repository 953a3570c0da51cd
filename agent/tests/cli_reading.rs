//! Reading parts of restore points: `ls`, `diff`, `find`, `extract` by pattern, against the live tree.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{Bench, Run, noise};
use serde_json::Value;

/// Every line of a listing as JSON.
fn lines(run: &Run) -> Vec<Value> {
    run.out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn path_of(line: &Value) -> PathBuf {
    match line["path"].as_str() {
        Some(path) => path.into(),
        None => {
            let mut base64 = assert_cmd::Command::new("base64");
            let text = line["path_b64"].as_str().unwrap();
            let out = base64.arg("-d").write_stdin(text).output().unwrap();
            let name: std::ffi::OsString = OsStringExt::from_vec(out.stdout);
            name.into()
        }
    }
}

/// Path, mode, owner, size, time of everything at and below a directory.
fn live(dir: &Path, out: &mut BTreeMap<PathBuf, String>) {
    let m = fs::symlink_metadata(dir).unwrap();
    let size = if m.is_file() { m.size() } else { 0 };
    out.insert(
        dir.into(),
        format!(
            "{:o} {}:{} {size} {}.{}",
            m.mode() & 0o7777,
            m.uid(),
            m.gid(),
            m.mtime(),
            m.mtime_nsec()
        ),
    );
    if m.is_dir() {
        for entry in fs::read_dir(dir).unwrap() {
            live(&entry.unwrap().path(), out);
        }
    }
}

fn listed(run: &Run) -> BTreeMap<PathBuf, String> {
    lines(run)
        .iter()
        .map(|l| {
            let kind = l["type"].as_str().unwrap();
            let file = kind == "file" || kind == "hardlink";
            let size = l["size"].as_u64().filter(|_| file).unwrap_or(0);
            let text = format!(
                "{:o} {}:{} {size} {}.{}",
                l["mode"].as_u64().unwrap(),
                l["uid"],
                l["gid"],
                l["mtime"][0],
                l["mtime"][1]
            );
            (path_of(l), text)
        })
        .collect()
}

#[test]
fn ls_is_what_the_live_tree_is() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    bench.backup().expect(0);
    let ls = |args: &[&str]| {
        let fixed = ["ls", "latest", "--from", bench.str("store")];
        bench.run(fixed.iter().chain(args))
    };
    let mut expected = BTreeMap::new();
    live(&tree, &mut expected);
    let all = ls(&["-R", "--json"]).expect(0);
    assert_eq!(listed(&all), expected);
    assert_eq!(lines(&all).len(), expected.len(), "each once");

    for dir in ["tree", "tree/etc", "tree/etc/deep/er", "tree/empty"] {
        let dir = bench.path(dir);
        let inside: Vec<_> = expected
            .iter()
            .filter(|(p, _)| p.parent() == Some(&dir))
            .map(|(p, t)| (p.clone(), t.clone()))
            .collect();
        let run = ls(&["--json", dir.to_str().unwrap()]).expect(0);
        assert_eq!(listed(&run).into_iter().collect::<Vec<_>>(), inside);
    }
    let one = ls(&[bench.str("tree/etc/none")]).expect(0).out;
    assert!(one.starts_with("-rws--x--x"), "{one}");
    assert_eq!(one.lines().count(), 1);
    let link = ls(&[bench.str("tree/etc/link")]).expect(0).out;
    assert!(
        link.trim_end().ends_with("/etc/link -> ../etc/fstab"),
        "{link}"
    );
    let above = ls(&[]).expect(0).out;
    assert_eq!(above.lines().count(), 1, "{above}");
    assert!(
        above.trim_end().ends_with(tree.to_str().unwrap()),
        "{above}"
    );

    let missing = ls(&[bench.str("tree/etc/nope"), bench.str("tree/etc/none")]).expect(1);
    assert!(missing.err.contains("etc/nope") && missing.out.contains("etc/none"));
    ls(&[bench.str("tree/etc/nope"), "-R"]).expect(1);
    ls(&["relative"]).expect(2);
}

#[test]
fn trees_are_put_together_where_they_were_mounted() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    let config = format!(
        "roots = [{:?}, {:?}]\ntargets = [{:?}]\n",
        tree,
        tree.join("etc/deep"),
        bench.path("store")
    );
    bench.configure(&config);
    bench.run(["backup"]).expect(0);
    let mut expected = BTreeMap::new();
    live(&tree, &mut expected);
    let all = bench.run(["ls", "latest", "-R", "--json"]).expect(0);
    assert_eq!(listed(&all), expected);
    assert_eq!(lines(&all).len(), expected.len(), "each once");
    let dir = bench
        .run(["ls", "latest", bench.str("tree/etc"), "--json"])
        .expect(0);
    assert!(listed(&dir).contains_key(&tree.join("etc/deep")));
    let found = bench.run(["find", "7.conf", "--json"]).expect(0).json();
    assert_eq!(found["found"].as_array().unwrap().len(), 1, "{found}");
}

/// Path below the tree, and what is said of it.
fn changes(bench: &Bench, run: &Run) -> BTreeMap<String, String> {
    let tree = bench.path("tree");
    lines(run)
        .iter()
        .map(|l| {
            let path = Path::new(l["path"].as_str().unwrap())
                .strip_prefix(&tree)
                .unwrap();
            let mut text = l["change"].as_str().unwrap().to_owned();
            for what in l["what"].as_array().into_iter().flatten() {
                text += &format!(" {}", what.as_str().unwrap());
            }
            (path.display().to_string(), text)
        })
        .collect()
}

#[test]
fn diff_names_every_change_and_no_other() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    let a = Bench::id(&bench.backup().expect(0));
    let keep_time = |path: &Path, change: &dyn Fn()| {
        let before = fs::symlink_metadata(path).unwrap().modified().unwrap();
        change();
        fs::File::open(path).unwrap().set_modified(before).unwrap();
    };
    let conf = |n: u32| tree.join(format!("etc/deep/er/{n}.conf"));
    let dir = tree.join("etc/deep/er");
    keep_time(&dir, &|| {
        // As long as before, with the time that it had: only its bytes tell.
        keep_time(&conf(3), &|| {
            fs::write(conf(3), "NUMBER 3\n".repeat(4)).unwrap()
        });
        fs::set_permissions(conf(4), fs::Permissions::from_mode(0o600)).unwrap();
        xattr::set(conf(5), "user.new", b"value").unwrap();
        fs::remove_file(conf(6)).unwrap();
        fs::remove_file(conf(7)).unwrap();
        fs::create_dir(conf(7)).unwrap();
        fs::write(dir.join("new"), "new").unwrap();
        fs::File::open(conf(8))
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
    });
    keep_time(&tree.join("etc"), &|| {
        fs::remove_file(tree.join("etc/link")).unwrap();
        symlink("elsewhere", tree.join("etc/link")).unwrap();
    });
    keep_time(&tree.join("big.bin"), &|| {
        let mut big = noise(8 << 20, 1);
        big[5_000_000] ^= 1;
        fs::write(tree.join("big.bin"), big).unwrap();
    });
    let root = nix::unistd::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(conf(9), Some(7), Some(8)).unwrap();
    }
    let b = Bench::id(&bench.backup().expect(0));

    let diff = |args: &[&str]| {
        let fixed = ["diff", "--from", bench.str("store")];
        bench.run(fixed.iter().chain(args))
    };
    let run = diff(&[&a, &b, "--json"]).expect(0);
    let mut found = changes(&bench, &run);
    // Its owner went back to the one who runs the test, and its time is that of now.
    let link = found.remove("etc/link").unwrap();
    assert!(
        link.starts_with("changed") && link.ends_with("links"),
        "{link}"
    );
    let mut expected: BTreeMap<String, String> = [
        ("big.bin", "changed content"),
        ("etc/deep/er/3.conf", "changed content"),
        ("etc/deep/er/4.conf", "changed mode"),
        ("etc/deep/er/5.conf", "changed attributes"),
        ("etc/deep/er/6.conf", "removed"),
        ("etc/deep/er/7.conf", "changed type mode times"),
        ("etc/deep/er/8.conf", "changed times"),
        ("etc/deep/er/new", "added"),
    ]
    .map(|(p, t)| (p.into(), t.into()))
    .into();
    if root {
        expected.insert("etc/deep/er/9.conf".into(), "changed owner".into());
    }
    assert_eq!(found, expected);

    let back = changes(&bench, &diff(&[&b, &a, "--json"]).expect(0));
    assert_eq!(back["etc/deep/er/new"], "removed");
    assert_eq!(back["etc/deep/er/6.conf"], "added");
    assert_eq!(diff(&[&a, &a, "--json"]).expect(0).out, "");
    let one = diff(&[&a, &b, bench.str("tree/etc/deep/er/4.conf")])
        .expect(0)
        .out;
    assert!(one.contains("mode (0644 to 0600)") && one.contains("0 added, 0 removed, 1 changed"));
    let below = changes(
        &bench,
        &diff(&[&a, &b, bench.str("tree/etc/deep"), "--json"]).expect(0),
    );
    assert_eq!(below.len(), expected.len() - 1, "{below:?}");
    diff(&[&a, "ffffffffffff"]).expect(1);
}

#[test]
fn find_folds_equal_versions_into_runs() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    let file = tree.join("etc/deep/er/1.conf");
    let mut ids = Vec::new();
    for step in 0..5 {
        match step {
            2 => fs::write(&file, "another version").unwrap(),
            3 => fs::remove_file(&file).unwrap(),
            4 => {
                fs::write(&file, "another version").unwrap();
            }
            _ => {}
        }
        ids.push(Bench::id(&bench.backup().expect(0)));
    }
    let find = |pattern: &str, args: &[&str]| {
        let fixed = ["find", pattern, "--from", bench.str("store")];
        bench.run(fixed.iter().chain(args))
    };
    let json = find("1.conf", &["--json"]).expect(0).json();
    assert_eq!(json["snapshots"], 5);
    assert_eq!(json["found"].as_array().unwrap().len(), 1, "{json}");
    assert_eq!(json["found"][0]["path"], file.to_str().unwrap());
    let runs: Vec<_> = json["found"][0]["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| {
            let id = |p: &str| {
                let id = v[p]["id"].as_str().unwrap();
                ids.iter().position(|i| i == id).unwrap()
            };
            (id("first"), id("last"), v["snapshots"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(runs, [(0, 1, 2), (2, 2, 1), (4, 4, 1)]);
    let text = find("1.conf", &[]).expect(0).out;
    assert!(
        text.contains(&format!("{} (", &ids[0][..8])) && text.contains(": 2"),
        "{text}"
    );
    assert!(text.contains("searched 5 restore points"), "{text}");

    // The live tree says what a pattern has to find.
    let count = |pattern: &str| {
        let json = find(pattern, &["--json"]).expect(0).json();
        json["found"].as_array().unwrap().len()
    };
    assert_eq!(count("*.conf"), 50);
    assert_eq!(count("1?.conf"), 10);
    assert_eq!(count(&format!("{}/**/[2-3].conf", tree.display())), 2);
    assert_eq!(count("er/"), 1);
    find("no such name", &[]).expect(1);
    find("a[", &[]).expect(2);
}

#[test]
fn extract_by_pattern() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    // A name that reads like a pattern is still a path.
    fs::write(tree.join("a[1]*"), "odd").unwrap();
    fs::write(tree.join("a1"), "not this").unwrap();
    bench.backup().expect(0);
    let extract = |pattern: &str, to: &str| {
        bench.run([
            "extract",
            "latest",
            pattern,
            "--from",
            bench.str("store"),
            "--to",
            bench.str(to),
        ])
    };
    let files = |to: &str| {
        let mut found = BTreeMap::new();
        live(&bench.extracted(to), &mut found);
        let root = bench.extracted(to);
        let files = found.into_keys().filter(|p| !p.is_dir());
        files
            .map(|p| p.strip_prefix(&root).unwrap().display().to_string())
            .collect::<Vec<_>>()
    };
    extract(
        &format!("{}/etc/deep/**/4[0-2].conf", tree.display()),
        "one",
    )
    .expect(0);
    let confs = ["40", "41", "42"].map(|n| format!("etc/deep/er/{n}.conf"));
    assert_eq!(files("one"), confs);
    extract(&format!("{}/etc/*", tree.display()), "two").expect(0);
    bench.assert_same(
        &tree.join("etc/deep"),
        &bench.extracted("two").join("etc/deep"),
    );
    assert!(!bench.extracted("two").join("big.bin").exists());
    extract("?.conf", "three").expect(0);
    assert_eq!(files("three").len(), 10);
    extract(bench.str("tree/a[1]*"), "four").expect(0);
    assert_eq!(files("four"), ["a[1]*"]);
    let nothing = extract("*.none", "five").expect(1);
    assert!(nothing.err.contains("*.none"), "{}", nothing.err);
    assert!(!bench.path("five").exists());
}
