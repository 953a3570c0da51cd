//! A directory goes into a store and comes out again the same.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Bench;

#[test]
fn backup_list_show_verify_extract() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    let backup = bench.backup().expect(0);
    let report = backup.json();
    let id = Bench::id(&backup);
    assert_eq!(report["kind"], "directories");
    assert_eq!(report["targets"][0]["verified"], true);
    assert!(report["targets"][0]["bytes_written"].as_u64().unwrap() > 8 << 20);

    let list = bench
        .run(["list", "--from", bench.str("store"), "--json"])
        .expect(0)
        .json();
    assert_eq!(list["targets"][0]["snapshots"][0]["id"], id.as_str());
    let text = bench
        .run(["list", "--from", bench.str("store")])
        .expect(0)
        .out;
    assert!(
        text.contains("1 restore point") && text.contains(&id[..8]),
        "{text}"
    );

    let show = bench
        .run(["show", &id[..6], "--from", bench.str("store")])
        .expect(0)
        .out;
    assert!(
        show.contains(&id) && show.contains(tree.to_str().unwrap()),
        "{show}"
    );
    let files = bench
        .run(["show", "latest", "--from", bench.str("store"), "--files"])
        .expect(0)
        .out;
    assert!(
        files.contains("/tree/etc/fstab\n") && files.contains("/tree/etc/deep/er/49.conf"),
        "{files}"
    );
    assert!(
        files.contains("new?line"),
        "a name must not break the listing"
    );
    let one = bench.str("tree/etc/fstab");
    let files = bench
        .run([
            "show",
            "latest",
            "--from",
            bench.str("store"),
            "--files",
            one,
        ])
        .expect(0)
        .out;
    assert_eq!(files.lines().count(), 1, "{files}");
    let nothing = bench
        .run([
            "show",
            "latest",
            "--from",
            bench.str("store"),
            "--files",
            bench.str("tree/nope"),
        ])
        .expect(1);
    assert!(nothing.err.contains("tree/nope"), "{}", nothing.err);

    let verify = bench
        .run(["verify", "--from", bench.str("store")])
        .expect(0);
    assert!(verify.out.contains("good"), "{}", verify.out);
    let reports = std::fs::read_dir(bench.path("store/lifeboat/reports"))
        .unwrap()
        .count();
    assert!(reports >= 1, "the verdict is stored");

    bench
        .run([
            "extract",
            "latest",
            "--from",
            bench.str("store"),
            "--to",
            bench.str("out"),
        ])
        .expect(0);
    bench.assert_same(&tree, &bench.extracted("out"));
}

#[test]
fn the_level_that_follows_the_target_is_reported() {
    let bench = Bench::with_store();
    bench.make_tree();
    bench.configure("compression = \"auto\"\n");
    let report = bench.backup().expect(0).json();
    assert_eq!(report["compression"], "auto");
    let levels = report["zstd_levels"].as_array().unwrap();
    let bytes: u64 = levels.iter().map(|l| l["bytes"].as_u64().unwrap()).sum();
    assert!(bytes > 8 << 20, "{report}");
    for level in levels {
        assert!((1..=9).contains(&level["level"].as_i64().unwrap()));
    }
    // What is there already is found, whatever it was compressed with.
    let again = [
        "backup",
        "--root",
        bench.str("tree"),
        "--to",
        bench.str("store"),
        "--reread",
    ];
    let fixed = [&again[..], &["--compression", "zstd:19", "--json"]].concat();
    let second = bench.run(fixed).expect(0).json();
    assert_eq!(second["targets"][0]["new_blobs"], 0, "{second}");
    assert_eq!(second["zstd_levels"].as_array().unwrap().len(), 0);
    std::fs::write(bench.path("tree/new"), "new\n".repeat(1000)).unwrap();
    let text = bench.run(again).expect(0).out;
    assert!(text.contains("Compressed with zstd "), "{text}");
}

#[test]
fn unchanged_files_cost_next_to_nothing() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    bench.backup().expect(0);
    std::fs::write(tree.join("etc/fstab"), "changed\n").unwrap();
    let second = bench.backup().expect(0).json();
    let written = second["targets"][0]["bytes_written"].as_u64().unwrap();
    assert!(written < 1 << 20, "{written} bytes for one small file");
    bench
        .run([
            "extract",
            "latest",
            "--from",
            bench.str("store"),
            "--to",
            bench.str("out"),
        ])
        .expect(0);
    bench.assert_same(&tree, &bench.extracted("out"));
}

#[test]
fn single_files_and_directories() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    bench.backup().expect(0);
    let from = ["--from", bench.str("store"), "--to", bench.str("out")];
    let paths = [bench.str("tree/etc/deep"), bench.str("tree/etc/fstab")];
    bench
        .run(
            ["extract", "latest", paths[0], paths[1]]
                .iter()
                .chain(&from),
        )
        .expect(0);
    let out = bench.extracted("out");
    bench.assert_same(&tree.join("etc/deep"), &out.join("etc/deep"));
    assert_eq!(
        std::fs::read(out.join("etc/fstab")).unwrap(),
        std::fs::read(tree.join("etc/fstab")).unwrap()
    );
    assert!(!out.join("big.bin").exists() && !out.join("etc/none").exists());
    let missing = bench
        .run(
            ["extract", "latest", bench.str("tree/etc/nope")]
                .iter()
                .chain(&from),
        )
        .expect(3);
    assert!(missing.out.contains("etc/nope"), "{}", missing.out);
    let outside = bench
        .run(["extract", "latest", "/usr/nope"].iter().chain(&from))
        .expect(1);
    assert!(
        outside.err.contains("/usr/nope") && outside.err.contains(bench.str("tree")),
        "{}",
        outside.err
    );
    bench
        .run(["extract", "latest", "etc/fstab"].iter().chain(&from))
        .expect(2);
}

#[test]
fn tar_stream_is_read_by_gnu_tar() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    bench.backup().expect(0);
    let run = bench
        .run([
            "extract",
            "latest",
            "--from",
            bench.str("store"),
            "--tar",
            "-",
        ])
        .expect(0);
    std::fs::create_dir(bench.path("out")).unwrap();
    let mut tar = assert_cmd::Command::new("tar");
    tar.args([
        "-C",
        bench.str("out"),
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-xpf",
        "-",
    ]);
    tar.write_stdin(run.stdout).assert().success();
    bench.assert_same(&tree, &bench.path("out"));
    // As a file the same archive comes out, and a second target name in the command is refused.
    bench
        .run([
            "extract",
            "latest",
            "--from",
            bench.str("store"),
            "--tar",
            bench.str("a.tar"),
        ])
        .expect(0);
    assert!(std::fs::metadata(bench.path("a.tar")).unwrap().len() > 8 << 20);
}

#[test]
fn several_roots_are_several_trees() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    std::fs::create_dir(bench.path("second")).unwrap();
    std::fs::write(bench.path("second/file"), "here").unwrap();
    let config = format!(
        "roots = [{:?}, {:?}]\ntargets = [{:?}]\n",
        tree,
        bench.path("second"),
        bench.path("store")
    );
    bench.configure(&config);
    bench.run(["backup"]).expect(0);
    bench
        .run(["extract", "latest", "--to", bench.str("out")])
        .expect(0);
    bench.assert_same(&tree, &bench.extracted("out"));
    let second = bench
        .path("out")
        .join(bench.path("second").strip_prefix("/").unwrap());
    bench.assert_same(&bench.path("second"), &second);
    // One archive cannot hold two trees: that is said, with what to do.
    let both = bench.run(["extract", "latest", "--tar", "-"]).expect(1);
    assert!(both.err.contains("--to"), "{}", both.err);
    let layout = bench.run(["layout", "latest"]).expect(1);
    assert!(layout.err.contains("not a whole host"), "{}", layout.err);
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    let bench = Bench::with_store();
    bench.make_tree();
    let source = bench.path("tree");
    // Where the tests run on a file system without a lasting name, everything is read, and that is right.
    let known = nix::sys::statfs::statfs(&source).unwrap().filesystem_type()
        == nix::sys::statfs::EXT4_SUPER_MAGIC;
    // Files of the last two seconds before a backup are read again by the next one.
    std::thread::sleep(std::time::Duration::from_millis(2200));
    let first = bench.backup().expect(0).json();
    assert_eq!(first["bytes_read"], first["bytes"]);
    assert_eq!(first["segments_reused"], 0);
    let second = bench.backup().expect(0).json();
    if known {
        assert_eq!(second["bytes_read"], 0, "{second}");
        assert_eq!(second["bytes_referenced"], first["bytes"]);
    }
    let to = bench.str("store");
    let args = [
        "backup",
        "--reread",
        "--root",
        bench.str("tree"),
        "--to",
        to,
    ];
    let text = bench.run([&args[..], &["--json"]].concat()).expect(0);
    assert_eq!(text.json()["bytes_read"], first["bytes"]);
    let text = bench
        .run(["backup", "--root", bench.str("tree"), "--to", to])
        .expect(0);
    assert!(
        !known
            || text
                .out
                .contains("had not changed since the last restore point"),
        "{}",
        text.out
    );
}
