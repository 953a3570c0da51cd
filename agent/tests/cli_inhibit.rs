//! The machine is kept on while a backup runs: with the real systemd-logind, in namespaces of its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Bench, Run};

/// A message bus and logind, which end with the namespace of processes; then a backup, and one that is killed in the middle.
const SCRIPT: &str = r#"set -e
bench=$1 lifeboat=$2
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/systemd/seats /run/systemd/users /run/systemd/sessions /run/systemd/inhibit \
    /run/systemd/machines /run/dbus /run/lock /run/user /run/udev/tags /run/udev/data
dbus-daemon --system --fork --nopidfile
/lib/systemd/systemd-logind 2>"$bench/logind.log" &
for _ in $(seq 100); do
    timeout 5 systemd-inhibit --list >"$bench/before" 2>&1 && break
    sleep 0.2
done
grep -q 'No inhibitors' "$bench/before" || { echo NO LOGIND; exit 0; }
backup() { "$lifeboat" --config "$bench/lifeboat.toml" backup --root "$bench/tree" --to "$bench/store" >&2; }
backup
echo "while it runs: $(grep Lifeboat "$bench/inhibited")"
echo "afterwards: $(systemd-inhibit --list)"
touch "$bench/kill"
rm "$bench/inhibited"
backup || true
echo "before it was killed: $(grep Lifeboat "$bench/inhibited")"
for _ in $(seq 50); do
    systemd-inhibit --list | grep -q 'No inhibitors' && break
    sleep 0.1
done
echo "after it was killed: $(systemd-inhibit --list)"
"#;

fn missing() -> Option<&'static str> {
    let there = |path: &str| Path::new(path).exists();
    if !nix::unistd::geteuid().is_root() {
        return Some("not root");
    }
    let programs = [
        "/lib/systemd/systemd-logind",
        "/usr/bin/systemd-inhibit",
        "/usr/bin/dbus-daemon",
        "/usr/share/dbus-1/system.conf",
    ];
    if !programs.into_iter().all(there) {
        return Some("dbus and systemd are not installed");
    }
    let mut unshare = assert_cmd::Command::new("unshare");
    let able = unshare
        .args(["-m", "-p", "-f", "--mount-proc", "true"])
        .output()
        .unwrap();
    (!able.status.success()).then_some("namespaces are not possible here")
}

#[test]
fn the_machine_is_kept_on_as_long_as_a_backup_runs() {
    if let Some(reason) = missing() {
        eprintln!("ignored: {reason}");
        return;
    }
    let bench = Bench::with_store();
    fs::create_dir(bench.path("tree")).unwrap();
    fs::write(bench.path("tree/file"), "content").unwrap();
    fs::create_dir(bench.path("hooks")).unwrap();
    let hook = bench.path("hooks/pre-backup");
    let dir = bench.str("");
    let text = format!(
        "#!/bin/sh\nsystemd-inhibit --list >{dir}/inhibited\n[ ! -e {dir}/kill ] || kill -9 $PPID\n"
    );
    fs::write(&hook, text).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = assert_cmd::Command::new("unshare");
    command
        .args([
            "-m",
            "--propagation",
            "private",
            "-p",
            "-f",
            "--kill-child",
            "--mount-proc",
        ])
        .args([
            "bash",
            "-c",
            SCRIPT,
            "script",
            dir,
            env!("CARGO_BIN_EXE_lifeboat"),
        ]);
    let run = Run::from(command.output().unwrap()).expect(0);
    if run.out.starts_with("NO LOGIND") {
        eprintln!("ignored: systemd-logind does not start here");
        return;
    }
    let line = |what: &str| {
        let found = run.out.lines().find_map(|l| l.strip_prefix(what));
        found
            .unwrap_or_else(|| panic!("{what}: {}", run.out))
            .to_owned()
    };
    for what in ["while it runs: ", "before it was killed: "] {
        let held = line(what);
        assert!(
            held.contains("shutdown:sleep") && held.ends_with("block"),
            "{held}"
        );
    }
    for what in ["afterwards: ", "after it was killed: "] {
        assert_eq!(line(what), "No inhibitors.");
    }
}
