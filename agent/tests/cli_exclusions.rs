//! What a backup leaves out, and how a dry run shows it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Bench;
use serde_json::Value;

fn pattern<'v>(preview: &'v Value, pattern: &str) -> &'v Value {
    preview["excluded"]
        .as_array()
        .unwrap()
        .iter()
        .find(|x| x["pattern"] == pattern)
        .unwrap_or_else(|| panic!("{pattern} is not among the exclusions"))
}

#[test]
fn dry_run_shows_sizes_and_writes_nothing() {
    let bench = Bench::with_store();
    let tree = bench.path("tree");
    std::fs::create_dir_all(tree.join("cache/deep")).unwrap();
    std::fs::write(tree.join("kept"), vec![1; 1000]).unwrap();
    std::fs::write(tree.join("cache/a"), vec![1; 70_000]).unwrap();
    std::fs::write(tree.join("cache/deep/b"), vec![1; 30_000]).unwrap();
    std::fs::write(tree.join("image.iso"), vec![1; 5000]).unwrap();
    let cache = format!("{}/cache/*", tree.display());
    let args = [
        "backup",
        "--dry-run",
        "--root",
        bench.str("tree"),
        "--to",
        bench.str("store"),
        "--exclude",
        &cache,
        "--exclude",
        "*.iso",
    ];
    let preview = bench.run(args.iter().chain(&["--json"])).expect(0).json();
    assert_eq!(preview["bytes"], 1000);
    assert_eq!(pattern(&preview, &cache)["bytes"], 100_000);
    assert_eq!(pattern(&preview, "*.iso")["bytes"], 5000);
    assert_eq!(pattern(&preview, "*.iso")["files"], 1);
    assert_eq!(pattern(&preview, "/var/tmp/*")["why"], "temporary files");
    let text = bench.run(args).expect(0).out;
    assert!(
        text.contains("*.iso") && text.contains("97.7 KiB"),
        "{text}"
    );
    assert!(bench.packs("store").is_empty(), "a dry run writes nothing");

    // What was announced is what is done; the excluded directory stays, empty.
    bench
        .run(args.iter().filter(|a| **a != "--dry-run"))
        .expect(0);
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
    let out = bench.extracted("out");
    assert!(out.join("kept").exists() && !out.join("image.iso").exists());
    assert_eq!(std::fs::read_dir(out.join("cache")).unwrap().count(), 0);
}

#[test]
fn targets_inside_the_tree_do_not_save_themselves() {
    let bench = Bench::default();
    let tree = bench.path("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "x").unwrap();
    let inside = bench.str("tree/drive");
    bench.run(["prepare", inside]).expect(0);
    std::fs::write(tree.join("drive/other"), "not part of the store").unwrap();
    for _ in 0..2 {
        bench
            .run(["backup", "--root", bench.str("tree"), "--to", inside])
            .expect(0);
    }
    let files = bench
        .run(["show", "latest", "--files", "--from", inside])
        .expect(0)
        .out;
    assert!(
        files.contains("/tree/file") && files.contains("/drive/other"),
        "{files}"
    );
    assert!(
        !files.contains("lifeboat/packs"),
        "the target saved itself:\n{files}"
    );
    // An image file that stands for a stick is left out even before it exists.
    let preview = bench.run([
        "backup",
        "--dry-run",
        "--json",
        "--root",
        bench.str("tree"),
        "--to",
        bench.str("tree/stick.img"),
    ]);
    pattern(&preview.expect(0).json(), bench.str("tree/stick.img"));
}

#[test]
fn include_and_no_default_exclusions() {
    let bench = Bench::default();
    std::fs::create_dir(bench.path("tree")).unwrap();
    let args = ["backup", "--dry-run", "--json", "--root", bench.str("tree")];
    let without = bench
        .run(args.iter().chain(&["--include", "/var/tmp/*"]))
        .expect(0)
        .json();
    assert!(
        !without["excluded"]
            .as_array()
            .unwrap()
            .iter()
            .any(|x| x["pattern"] == "/var/tmp/*")
    );
    let none = bench
        .run(args.iter().chain(&["--no-default-exclusions"]))
        .expect(0)
        .json();
    assert_eq!(none["excluded"].as_array().unwrap().len(), 0);
    let wrong = bench
        .run(args.iter().chain(&["--include", "/var/temp"]))
        .expect(2);
    assert!(
        wrong.err.contains("lifeboat config exclusions"),
        "{}",
        wrong.err
    );
}
