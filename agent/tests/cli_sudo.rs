//! The rules for operators and auditors, with the real sudo, in a mount namespace with an /etc of its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Bench, Run};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sudoers.d/lifeboat");

/// Users and groups of the test, and a way to run sudo as one of them.
const SETUP: &str = r#"set -e
bench=$1 lifeboat=$2 rules=$3
cp -a /etc "$bench/etc"
mount --bind "$bench/etc" /etc
echo 'operator-x:x:54321:54321::/:/bin/sh' >>/etc/passwd
echo 'auditor-x:x:54322:54322::/:/bin/sh' >>/etc/passwd
echo 'operator-x:*:20000:0:99999:7:::' >>/etc/shadow
echo 'auditor-x:*:20000:0:99999:7:::' >>/etc/shadow
printf '%s\n' 'operator-x:x:54321:' 'auditor-x:x:54322:' \
    'lifeboat-operator:x:54331:operator-x' 'lifeboat-auditor:x:54332:auditor-x' >>/etc/group
mkdir -p /etc/lifeboat /etc/sudoers.d
cp "$bench/lifeboat.toml" /etc/lifeboat/
sed "s,/usr/bin/lifeboat,$lifeboat,g" "$rules" >/etc/sudoers.d/lifeboat
chmod 440 /etc/sudoers.d/lifeboat
visudo -cq
as() {
    case $1 in operator) uid=54321 group=54331 ;; auditor) uid=54322 group=54332 ;; esac
    shift
    setpriv --reuid=$uid --regid=$uid --groups=$group env LIFEBOAT_PASSPHRASE_FILE=/nonexistent sudo -n "$@"
}
allowed() { as "$@" || [ $? = 3 ] || { echo "REFUSED: $*"; exit 1; }; }
denied() { if as "$@" 2>/dev/null; then echo "ALLOWED: $*"; exit 1; fi; }
"#;

fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".into());
    }
    for program in ["sudo", "visudo", "setpriv", "unshare"] {
        let found = ["/usr/bin", "/usr/sbin"]
            .iter()
            .any(|dir| std::path::Path::new(dir).join(program).exists());
        if !found {
            return Some(format!("{program} is not installed"));
        }
    }
    let mut unshare = assert_cmd::Command::new("unshare");
    let able = unshare
        .args(["-m", "true"])
        .output()
        .unwrap()
        .status
        .success();
    (!able).then(|| "mount namespaces are not possible here".into())
}

fn script(bench: &Bench, text: &str) -> Run {
    let mut command = assert_cmd::Command::new("unshare");
    command
        .args(["-m", "--propagation", "private", "bash", "-c"])
        .arg(format!("{SETUP}{text}"))
        .args([
            "rules",
            bench.str(""),
            env!("CARGO_BIN_EXE_lifeboat"),
            RULES,
        ]);
    command.output().unwrap().into()
}

#[test]
fn rules_are_exact() {
    let rules = fs::read_to_string(RULES).unwrap();
    let commands = rules
        .lines()
        .filter(|l| l.trim_start().starts_with("/usr/bin/lifeboat"));
    assert!(commands.clone().count() > 10);
    for line in commands {
        for wild in ['*', '?', '[', '^', '!'] {
            assert!(!line.contains(wild), "{line}");
        }
        // `lifeboat` alone would allow all arguments.
        assert!(
            line.split_whitespace().filter(|w| *w != "\\").count() > 1,
            "{line}"
        );
    }
}

#[test]
fn operators_back_up_and_auditors_read_and_neither_can_more() {
    if let Some(reason) = missing() {
        eprintln!("ignored: {reason}");
        return;
    }
    let bench = Bench::with_store();
    fs::create_dir(bench.path("tree")).unwrap();
    fs::write(bench.path("tree/file"), "content").unwrap();
    let settings = format!(
        "targets = [{:?}]\nroots = [{:?}]\n",
        bench.path("store"),
        bench.path("tree")
    );
    // Tables come last.
    let config = bench.path("lifeboat.toml");
    let all = fs::read_to_string(&config).unwrap() + &settings;
    fs::write(config, all).unwrap();
    let run = script(
        &bench,
        r#"
        allowed operator "$lifeboat" backup
        allowed operator "$lifeboat" list
        allowed auditor "$lifeboat" audit show
        allowed auditor "$lifeboat" audit verify
        denied operator "$lifeboat" --config /tmp/mine.toml backup
        denied operator "$lifeboat" backup --config /tmp/mine.toml
        denied operator "$lifeboat" backup --to /tmp/mine
        denied operator "$lifeboat" backup --root /root
        denied operator LIFEBOAT_PASSPHRASE_FILE=/tmp/mine "$lifeboat" backup
        denied operator "$lifeboat" extract latest --to /tmp/mine
        denied operator "$lifeboat" prune
        denied operator "$lifeboat" audit show
        denied operator "$lifeboat"
        denied operator /bin/sh
        denied auditor "$lifeboat" backup
        denied auditor "$lifeboat" mount latest /mnt
        echo all done"#,
    )
    .expect(0);
    assert!(run.out.ends_with("all done\n"), "{}\n{}", run.out, run.err);
    // The log names the one before sudo.
    let shown = bench.run(["audit", "show", "--json"]).expect(0).json();
    let backup = shown
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["command"] == "backup");
    assert_eq!(backup.unwrap()["who"]["user"], "operator-x");
    let listing = bench.run(["list", "--json"]).expect(0).json();
    assert_eq!(
        listing["targets"][0]["snapshots"].as_array().unwrap().len(),
        1
    );
}
