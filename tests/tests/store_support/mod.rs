//! What the tests of the store share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test program uses a part of it; a helper that fails fails its test"
)]

use std::io::Read;
use std::path::{Path, PathBuf};

use bundle::Id;
use bundle::backup::{Backup, BackupOptions, TargetResult, TreeSource};
use bundle::crypt::{Cost, KeyRing, NewSlot, Secret};
use bundle::document::{HostIdentity, SnapshotDraft, Tree};
use bundle::events::Silent;
use bundle::exclude::Exclusions;
use bundle::extract::{ExtractOptions, ExtractReport, Selection, extract};
use bundle::store::{Store, StoreOptions};
use bundle::verify::{VerifyOptions, VerifyReport, verify};

/// A directory on the disk that the build uses: a real file system, not a tmpfs.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("store-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap()
}

/// The tests' door to other programs; the library has none.
#[allow(
    clippy::disallowed_methods,
    reason = "judges that are not this project's code: GNU tar, rsync, zstd"
)]
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.env("LC_ALL", "C");
    command
}

/// Runs a shell script in a directory, returns what it prints.
pub fn sh(dir: &Path, script: &str) -> Vec<u8> {
    let output = command("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub fn noise(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    std::fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut data)
        .unwrap();
    data
}

pub fn draft(trees: Vec<Tree>) -> SnapshotDraft {
    SnapshotDraft {
        host: HostIdentity {
            machine_id: "0".repeat(32),
            hostname: "test".into(),
        },
        tool_version: "0".into(),
        kind: "host".into(),
        layout: serde_json::Value::Null,
        trees,
        images: Vec::new(),
        guest: None,
        guests: Vec::new(),
        facts: serde_json::json!({ "why": "test" }),
    }
}

pub fn source(root: &Path) -> TreeSource {
    TreeSource {
        root: root.into(),
        mount_point: "/".into(),
        filesystem: None,
        exclude: Exclusions::none(),
        instead: Default::default(),
    }
}

pub fn options() -> BackupOptions {
    BackupOptions {
        workers: 2,
        pack_size: 1 << 20,
        ..BackupOptions::default()
    }
}

/// Set for the second run of a suite, in which every store is encrypted.
const ENCRYPTED: &str = "LIFEBOAT_TEST_ENCRYPTED";
pub const PASSPHRASE: &str = "correct horse";

pub fn passphrase(text: &str) -> NewSlot {
    let cheap = Cost {
        memory_kib: 64,
        passes: 1,
    };
    NewSlot::Passphrase(text.to_owned().into(), cheap)
}

pub fn ring(text: &str) -> KeyRing {
    let mut ring = KeyRing::default();
    ring.add(Secret::typed(text).unwrap());
    ring
}

pub fn encrypted() -> bool {
    std::env::var_os(ENCRYPTED).is_some()
}

/// Runs the tests of the calling program again with encrypted stores, except those of plain files' insides.
pub fn again_encrypted(except: &[&str]) {
    if encrypted() {
        return;
    }
    let mut again = command(std::env::current_exe().unwrap());
    again.env(ENCRYPTED, "1");
    for name in except {
        again.args(["--skip", name]);
    }
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(" 0 passed"), "{said}");
}

pub fn open_for_reading(dir: &Path) -> bundle::Result<Store> {
    Store::open_read_only_with(dir, &ring(PASSPHRASE))
}

pub fn open_for_writing(dir: &Path) -> bundle::Result<Store> {
    Store::open_with(dir, &ring(PASSPHRASE))
}

pub fn open(dir: &Path) -> Store {
    if dir.join("lifeboat").exists() {
        return open_for_writing(dir).unwrap();
    }
    std::fs::create_dir_all(dir).unwrap();
    let mut store = Store::create(dir, &StoreOptions::default()).unwrap();
    if encrypted() {
        store.encrypt(&[passphrase(PASSPHRASE)]).unwrap();
    }
    store
}

/// Backs a tree up to directories, which become stores where they are none.
pub fn backup_to(tree: &Path, targets: &[&Path]) -> Vec<TargetResult> {
    let stores = targets.iter().map(|t| open(t)).collect();
    let mut backup = Backup::start(stores, options(), &Silent).unwrap();
    let tree = backup.tree(&source(tree)).unwrap();
    backup.commit(draft(vec![tree]))
}

pub fn backup(tree: &Path, target: &Path) -> Id {
    backup_to(tree, &[target]).remove(0).snapshot.unwrap()
}

pub fn extract_from(targets: &[&Path], selection: &Selection, dest: &Path) -> ExtractReport {
    std::fs::create_dir_all(dest).unwrap();
    let stores: Vec<_> = targets
        .iter()
        .map(|t| open_for_reading(t).unwrap())
        .collect();
    let readers: Vec<_> = stores.iter().collect();
    let (_, snapshot) = stores[0].snapshot("latest").unwrap();
    let options = ExtractOptions {
        workers: 2,
        ..ExtractOptions::default()
    };
    extract(
        &readers,
        &snapshot,
        &snapshot.trees[0],
        selection,
        dest,
        &options,
        &Silent,
    )
    .unwrap()
}

pub fn check(target: &Path) -> VerifyReport {
    let store = open_for_reading(target).unwrap();
    verify(
        &store,
        &VerifyOptions {
            cold: true,
            ..VerifyOptions::default()
        },
        &Silent,
    )
    .unwrap()
}

/// The only files of a kind in a store, sorted.
pub fn files(target: &Path, below: &str, suffix: &str) -> Vec<PathBuf> {
    let suffix = match suffix {
        ".json" if encrypted() && !below.is_empty() => ".sealed",
        suffix => suffix,
    };
    let found = sh(
        &target.join("lifeboat").join(below),
        &format!("find \"$PWD\" -name '*{suffix}' | sort"),
    );
    String::from_utf8(found)
        .unwrap()
        .lines()
        .map(PathBuf::from)
        .collect()
}

/// Fails when two trees differ in anything that rsync, find, getfattr or lsattr see.
pub fn assert_same(one: &Path, other: &Path) {
    let arguments = ["-aHAXnc", "--delete", "--itemize-changes"];
    let (from, to) = (
        format!("{}/", one.display()),
        format!("{}/", other.display()),
    );
    let output = command("rsync")
        .args(arguments)
        .args([from, to])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let changes = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(changes.is_empty(), "rsync would change:\n{changes}");
    for script in [
        // Times with nanoseconds, which rsync compares in seconds only.
        r"find . \( -type f -printf '%P %y %m %U %G %n %s %T@\n' -o -printf '%P %y %m %U %G %T@ %l\n' \) | sort",
        "find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex",
        r"find . \( -type f -o -type d \) -print0 | sort -z | xargs -0 lsattr -d | sed 's/^\([^ ]*\) /\1 /; s/e//'",
    ] {
        let (left, right) = (sh(one, script), sh(other, script));
        let (left, right) = (
            String::from_utf8_lossy(&left).into_owned(),
            String::from_utf8_lossy(&right).into_owned(),
        );
        for (a, b) in left.lines().zip(right.lines()) {
            assert_eq!(a, b, "{script}");
        }
        assert_eq!(left.lines().count(), right.lines().count(), "{script}");
    }
}

/// Every kind of file and metadata that the format keeps.
pub fn make_everything(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    sh(
        dir,
        r#"
        mkdir -p plain/empty.d 'with space' deep/er
        echo hello > plain/file; : > plain/empty; printf 'x\0y' > 'with space/new
line'
        chmod 4711 plain/file; chmod 1777 plain/empty.d; chmod 0 plain/empty
        ln plain/file plain/link; ln plain/file zz-link
        ln -s ../plain/file deep/symlink; ln -s nowhere deep/dangling
        ln plain/empty deep/er/empty-link
        mkfifo deep/fifo; chmod 620 deep/fifo
        printf bytes > "$(printf 'deep/not-utf8-\377\376')"
        ln -s "$(printf 'to-\377')" "$(printf 'deep/link-\377')"
        long=$(printf 'n%.0s' $(seq 200)); mkdir -p "long/$long/$long/$long"
        echo deep > "long/$long/$long/$long/$long"
        ln "long/$long/$long/$long/$long" "long/$long/second"
        ln -s "$long/$long/$long" long/symlink
        setfattr -n user.plain -v value plain/file
        setfattr -n user.binary -v 0x000a0d3d00ff plain/file
        setfattr -n 'user.odd=%name' -v 1 plain/empty.d
        setfacl -m u:1234:rw,g:99:r plain/file; setfacl -d -m u:1234:rwx plain; setfacl -m u:77:x deep
        dd if=/dev/urandom of=big bs=1M count=7 status=none
        truncate -s 40M sparse; printf middle | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
        truncate -s 200M all-hole; printf short > short-sparse; truncate -s 100000 short-sparse
        ln sparse sparse-link
        touch -d '1960-02-03 04:05:06.789012345Z' plain/empty
        touch -d '2106-02-08 01:02:03.000000001Z' big
        touch -h -d '2001-01-01 00:00:00.5Z' deep/dangling
        touch -d '1999-12-31 23:59:59.999999999Z' plain/empty.d deep/er
        "#,
    );
    // Many small files, so that there are several segments.
    std::fs::create_dir(dir.join("many")).unwrap();
    for n in 0..600 {
        std::fs::write(dir.join(format!("many/{n:04}")), noise(9000)).unwrap();
    }
    if is_root() {
        sh(
            dir,
            r"
            mknod deep/null c 1 3; mknod deep/disk b 259 70000; chmod 666 deep/null
            chown 12345:54321 plain/link; chmod 4711 plain/link; chown -h 7:8 deep/dangling; chown 3000000000:4000000000 big
            chown 33:33 deep/fifo
            cp /bin/true capable; setcap cap_net_bind_service,cap_net_raw=ep capable
            setfattr -n trusted.secret -v 1 plain; setfattr -h -n trusted.link -v 2 deep/symlink
            echo fixed > immutable; echo log > append; mkdir frozen; echo in > frozen/inside
            touch -d '2010-10-10 10:10:10.123456789Z' immutable
            chattr +i immutable frozen; chattr +a append; chattr +d plain/empty.d; chattr +A many
            ",
        );
    }
}

/// Flags would keep the scratch directory from being removed.
pub fn release(dir: &Path) {
    if is_root() {
        sh(
            dir,
            "find . -name 'immutable' -o -name append -o -name frozen | xargs -r chattr -ia",
        );
    }
}
