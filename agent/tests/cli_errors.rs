//! What goes wrong is said with what to do next, and with the documented exit status.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Bench;

#[test]
fn unknown_setting() {
    let bench = Bench::default();
    std::fs::write(bench.path("lifeboat.toml"), "target = ['/mnt']\n").unwrap();
    let run = bench.run(["list"]).expect(2);
    for text in [
        "lifeboat.toml",
        "line 1",
        "`target`",
        "`targets`",
        "lifeboat config example",
    ] {
        assert!(run.err.contains(text), "{text} is missing in:\n{}", run.err);
    }
}

#[test]
fn example_configuration_works_when_its_signs_are_removed() {
    let bench = Bench::default();
    let example = bench.run(["config", "example"]).expect(0).out;
    let active: String = example
        .lines()
        .filter_map(|l| l.strip_prefix('#'))
        .filter(|l| !l.starts_with(' '))
        .map(|l| format!("{l}\n"))
        .collect();
    std::fs::write(bench.path("lifeboat.toml"), active).unwrap();
    let shown = bench.run(["config", "show"]).expect(0).out;
    assert!(shown.contains("rescue-modules = \"full\""), "{shown}");
}

#[test]
fn no_target_no_store_no_snapshot() {
    let bench = Bench::default();
    std::fs::create_dir(bench.path("empty")).unwrap();
    assert!(bench.run(["list"]).expect(2).err.contains("--from"));
    assert!(
        bench
            .run(["list", "--from", bench.str("gone")])
            .expect(1)
            .err
            .contains("gone")
    );
    assert!(
        bench
            .run(["list", "--from", bench.str("empty")])
            .expect(1)
            .err
            .contains("lifeboat prepare")
    );
    bench.run(["prepare", bench.str("store")]).expect(0);
    let latest = bench
        .run(["show", "latest", "--from", bench.str("store")])
        .expect(1);
    assert!(latest.err.contains("latest"), "{}", latest.err);
    bench.make_tree();
    bench.backup().expect(0);
    let unknown = bench
        .run(["show", "ffffffff", "--from", bench.str("store")])
        .expect(1);
    assert!(
        unknown.err.contains("ffffffff") && unknown.err.contains("lifeboat list"),
        "{}",
        unknown.err
    );
}

#[test]
fn nothing_is_written_over() {
    let bench = Bench::with_store();
    let twice = bench.run(["prepare", bench.str("store")]).expect(1);
    assert!(twice.err.contains("already"), "{}", twice.err);
    std::fs::write(bench.path("photo.img"), "precious").unwrap();
    let refused = bench
        .run(["prepare", bench.str("photo.img"), "--size", "4G"])
        .expect(4);
    assert!(
        refused.err.contains("refused") && refused.err.contains("--force-image"),
        "{}",
        refused.err
    );
    assert_eq!(std::fs::read(bench.path("photo.img")).unwrap(), b"precious");
    bench.run(["prepare", "/dev/no-such-disk"]).expect(1);
    assert!(!std::path::Path::new("/dev/no-such-disk").exists());
}

#[test]
fn second_writer_learns_who_holds_the_store() {
    let bench = Bench::with_store();
    bench.make_tree();
    let lock = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(bench.path("store/lifeboat/lock"))
        .unwrap();
    let _held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .unwrap();
    let run = bench.backup().expect(1);
    assert!(
        run.err.contains(&format!("process {}", std::process::id())),
        "{}",
        run.err
    );
    // Readers do not wait.
    bench.run(["list", "--from", bench.str("store")]).expect(0);
}

#[test]
fn help_documents_the_exit_statuses() {
    let help = Bench::default().run(["--help"]).expect(0).out;
    for line in [
        "0  done",
        "1  failed",
        "2  wrong usage",
        "3  done, with warnings",
        "4  refused",
    ] {
        assert!(help.contains(line), "{line} is missing in:\n{help}");
    }
}
