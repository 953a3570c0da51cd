//! Damaged media and failing targets: named, survived, and told by the exit status.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Bench;

#[test]
fn flipped_byte_is_found_and_its_file_is_named() {
    let bench = Bench::with_store();
    bench.make_tree();
    bench.backup().expect(0);
    bench.damage("store");
    let verify = bench
        .run(["verify", "--from", bench.str("store")])
        .expect(1);
    assert!(
        verify.out.contains("DAMAGED") && verify.out.contains("big"),
        "{}",
        verify.out
    );
    let json = bench
        .run(["verify", "latest", "--from", bench.str("store"), "--json"])
        .expect(1)
        .json();
    let files = json[0]["damaged"][0]["files"].to_string();
    assert!(
        files.contains("big.bin") && !files.contains("fstab"),
        "{files}"
    );
    assert_eq!(json[0]["ok"], false);
    // Damage is said even when nothing else is.
    let quiet = bench
        .run(["verify", "--quiet", "--from", bench.str("store")])
        .expect(1);
    assert!(quiet.err.contains("big"), "{}", quiet.err);
}

#[test]
fn damaged_blob_is_taken_from_another_target() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    bench.run(["prepare", bench.str("second")]).expect(0);
    let both = ["--to", bench.str("store"), "--to", bench.str("second")];
    bench
        .run(["backup", "--root", bench.str("tree")].iter().chain(&both))
        .expect(0);
    bench.damage("store");
    // Alone the damaged store gives all but the one file.
    let alone = bench
        .run([
            "extract",
            "latest",
            "--from",
            bench.str("store"),
            "--to",
            bench.str("alone"),
        ])
        .expect(3);
    assert!(alone.out.contains("big"), "{}", alone.out);
    assert!(bench.extracted("alone").join("etc/fstab").exists());
    let from = ["--from", bench.str("store"), "--from", bench.str("second")];
    let healed = bench
        .run(
            ["extract", "latest", "--to", bench.str("out"), "--json"]
                .iter()
                .chain(&from),
        )
        .expect(0);
    assert!(healed.json()["healed"].as_u64().unwrap() > 0);
    bench.assert_same(&tree, &bench.extracted("out"));
}

#[test]
fn one_target_of_two_fails() {
    let bench = Bench::with_store();
    bench.make_tree();
    let missing = bench.str("not-there");
    let run = bench
        .run([
            "backup",
            "--root",
            bench.str("tree"),
            "--to",
            missing,
            "--to",
            bench.str("store"),
        ])
        .expect(3);
    assert!(
        run.out.contains("FAILED") && run.out.contains(missing),
        "{}",
        run.out
    );
    bench
        .run(["verify", "latest", "--from", bench.str("store")])
        .expect(0);
    // All of them: nothing was done, and that is a failure.
    let none = bench
        .run(["backup", "--root", bench.str("tree"), "--to", missing])
        .expect(1);
    assert!(none.err.contains(missing), "{}", none.err);
}

#[test]
fn failing_hook_stops_the_backup() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::with_store();
    bench.make_tree();
    std::fs::create_dir(bench.path("hooks")).unwrap();
    let hook = bench.path("hooks/pre-backup");
    std::fs::write(&hook, "#!/bin/sh\necho database is busy >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let log = bench.path("log");
    let after = bench.path("hooks/post-backup");
    std::fs::write(
        &after,
        format!("#!/bin/sh\necho $LIFEBOAT_STATUS >>{}\n", log.display()),
    )
    .unwrap();
    std::fs::set_permissions(&after, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = bench.backup().expect(1);
    assert!(
        run.err.contains("database is busy") && run.err.contains("nothing was backed up"),
        "{}",
        run.err
    );
    assert!(bench.packs("store").is_empty());
    std::fs::write(&hook, "#!/bin/sh\nexit 0\n").unwrap();
    bench.backup().expect(0);
    assert_eq!(std::fs::read_to_string(log).unwrap(), "failed\nok\n");
}
