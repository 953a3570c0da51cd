//! Makes the fixture stores of this format in a new directory: `make-fixture DIRECTORY`. Run as root on ext4.
//! `tests/fixtures/README.md` says when.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context as _, ensure};
use bundle::Id;
use bundle::backup::{Backup, BackupOptions, Codec, ImageSource, TreeSource};
use bundle::crypt::{Cost, KeyFile, KeyRing, NewSlot, Secret};
use bundle::document::{HostIdentity, SnapshotDraft};
use bundle::events::Silent;
use bundle::exclude::Exclusions;
use bundle::store::{Store, StoreOptions};
use bundle::verify::{VerifyOptions, verify, write_report};
use integration_tests::fixture::{KEY_FILE, PASSPHRASE, listing, pack, sh};

/// The block of ext4, at which holes begin and end.
const BLOCK: u64 = 4096;
const MACHINE: &str = "ffffffffffffffffffffffffffffffff";
/// Pieces beyond which a content list holds lists (`bundle/src/content.rs`): every block and every hole is one.
const PIECES: u64 = 8192;

/// Everything that is not a matter of content. `$'...'` is not known to every sh: printf makes odd names.
const TREE: &str = r#"
umask 022
mkdir -p plain/empty.d 'with space' deep/er segments
echo hello > plain/file; : > plain/empty; printf 'x\0y' > 'with space/new
line'
ln plain/file plain/link; ln plain/empty deep/er/empty-link
ln -s ../plain/file deep/symlink; ln -s nowhere deep/dangling
mkfifo deep/fifo
printf bytes > "$(printf 'deep/not-utf8-\377\376')"
ln -s "$(printf 'to-\377')" "$(printf 'deep/link-\377')"
long=$(printf 'n%.0s' $(seq 120)); mkdir -p "long/$long"; echo deep > "long/$long/$long"
ln "long/$long/$long" long/second; ln -s "$long/$long" long/symlink
# Content that is packed into next to nothing, and several segments nonetheless.
for n in 1 2 3 4 5 6; do yes "segment $n" | head -c 900000 > segments/$n; done
yes 'a large file, whose chunks hold the same line again and again' | head -c 5000000 > large
truncate -s 3M all-hole; head -c 2M /dev/zero > zeroes
mknod deep/null c 1 3; mknod deep/disk b 259 70000
chown 12345:54321 plain/file; chown -h 7:8 deep/dangling; chown 3000000000:4000000000 large; chown 33:34 deep/fifo
chmod 4711 plain/file; chmod 1777 plain/empty.d; chmod 0 plain/empty; chmod 620 deep/fifo; chmod 666 deep/null
setfattr -n user.binary -v 0x000a0d3d00ff plain/file; setfattr -n 'user.odd=%name' -v 1 plain/empty.d
setfattr -n trusted.secret -v 1 plain; setfattr -h -n trusted.link -v 2 deep/symlink
setfacl -m u:1234:rw,g:99:r plain/empty; setfacl -d -m u:1234:rwx plain
cp plain/link capable; chmod 755 capable; setcap cap_net_bind_service,cap_net_raw=ep capable
"#;

/// Times, when all is in place, and flags, after which nothing can be changed.
const TIMES: &str = r#"
find . -exec touch -h -d '2020-02-02 02:02:02.020202020Z' {} +
touch -d '1960-02-03 04:05:06.789012345Z' plain/empty
touch -d '2106-02-08 01:02:03.000000001Z' large
chattr +i capable; chattr +a segments/1; chattr +d plain/empty.d; chattr +A deep
"#;

/// What has changed when the second restore point is made.
const CHANGES: &str = r#"
rm segments/6; echo changed > plain/added; echo more >> segments/5; chmod 700 deep/er
touch -d '2021-03-03 03:03:03.3Z' segments segments/5 plain/added plain deep/er
"#;

/// And the third, which leaves what has not changed in the segments of the second.
const FURTHER_CHANGES: &str = r#"
rm deep/dangling; echo again >> plain/added; mv 'with space' 'with a space'; ln -s file plain/symlink
touch -h -d '2022-04-04 04:04:04.4Z' . deep plain plain/added plain/symlink
"#;
/// More than the age from which on a file's times tell whether it has changed.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(3);

fn main() -> anyhow::Result<()> {
    let out = std::env::args_os()
        .nth(1)
        .context("usage: make-fixture DIRECTORY")?;
    let out = Path::new(&out);
    ensure!(
        nix::unistd::geteuid().is_root(),
        "device nodes and capabilities are made by root only"
    );
    fs::create_dir(out).with_context(|| format!("cannot make the directory {}", out.display()))?;
    let work = tempfile::tempdir_in(out)?;
    let (tree, image) = (work.path().join("tree"), work.path().join("image"));
    fs::create_dir(&tree)?;
    sh(&tree, TREE, &[])?;
    contents(&tree, &image)?;
    sh(&tree, TIMES, &[])?;

    let stores = [work.path().join("plain"), work.path().join("encrypted")];
    let key_file = work.path().join("key-file");
    fs::write(&key_file, KEY_FILE)?;
    for store in &stores {
        fs::create_dir(store)?;
    }
    Store::create(&stores[0], &StoreOptions::default())?.set_parity(5)?;
    let cheap = Cost {
        memory_kib: 64,
        passes: 1,
    };
    let recovery = Store::create(&stores[1], &StoreOptions::default())?.encrypt(&[
        NewSlot::Passphrase(PASSPHRASE.to_owned().into(), cheap),
        NewSlot::Recovery,
        NewSlot::KeyFile(KeyFile::read(&key_file)?),
    ])?;
    let recovery = recovery.first().context("no recovery key was made")?;
    fs::write(
        out.join("recovery-key.txt"),
        format!("{}\n", *recovery.to_text()),
    )?;

    let rounds = [
        ("", Codec::Zstd(3), false),
        (CHANGES, Codec::Xz(6), false),
        (FURTHER_CHANGES, Codec::Zstd(3), true),
    ];
    for (number, (changes, compression, incremental)) in (1..).zip(rounds) {
        sh(&tree, changes, &[])?;
        let options = BackupOptions {
            compression,
            workers: 1,
            since: incremental.then(|| MACHINE.into()),
            ..BackupOptions::default()
        };
        if !incremental {
            std::thread::sleep(SETTLED);
        }
        snapshot(&stores, &tree, &image, options, number)?;
        let list = out.join(format!("expected-{number}.txt"));
        fs::write(list, listing(&tree)?)?;
    }
    let image = fs::read(&image)?;
    fs::write(
        out.join("expected-image.txt"),
        format!("part:fixture {} sha256:{}\n", image.len(), Id::of(&image)),
    )?;
    for (store, name) in stores.iter().zip(["plain", "encrypted"]) {
        let opened = Store::open_read_only_with(store, &ring())?;
        let report = verify(&opened, &VerifyOptions::default(), &Silent)?;
        ensure!(report.ok(), "the new store is damaged: {report:#?}");
        write_report(&opened, &report)?;
        pack(store, &out.join(name))?;
    }
    sh(&tree, "chattr -R -f -iadA . || true", &[])?;
    Ok(())
}

fn ring() -> KeyRing {
    let mut ring = KeyRing::default();
    ring.add(Secret::Passphrase(PASSPHRASE.to_owned().into()));
    ring
}

/// Files and an image whose bytes matter.
fn contents(tree: &Path, image: &Path) -> anyhow::Result<()> {
    // What does not get smaller, at the end of a hole: stored as it is.
    let sparse = fs::File::create(tree.join("sparse"))?;
    let noise: Vec<u8> = (0..7u8).flat_map(|n| *Id::of(&[n]).as_bytes()).collect();
    sparse.write_all_at(&noise, 1 << 20)?;
    // Blocks between holes, so many that the content list holds lists. A list ends after a piece whose id begins with
    // 12 zero bits, which one block in the middle has.
    let nested = fs::File::create(tree.join("nested"))?;
    let block = |n: u32| format!("{n:08}").repeat(BLOCK as usize / 8);
    let ending = (1..)
        .map(block)
        .find(|b| Id::of(b.as_bytes()).to_string().starts_with("000"));
    let (usual, ending) = (
        block(0),
        ending.context("no block's id begins with zeroes")?,
    );
    for n in 0..=PIECES / 2 {
        let block = if n == 1000 { &ending } else { &usual };
        nested.write_all_at(block.as_bytes(), n * 2 * BLOCK)?;
    }
    let image = fs::File::create(image)?;
    image.write_all_at(&[b'i'; BLOCK as usize], 3 << 20)?;
    image.set_len(8 << 20)?;
    Ok(())
}

fn snapshot(
    stores: &[std::path::PathBuf],
    tree: &Path,
    image: &Path,
    options: BackupOptions,
    number: u32,
) -> anyhow::Result<()> {
    let opened = stores.iter().map(|dir| Store::open_with(dir, &ring()));
    let mut backup = Backup::start(opened.collect::<Result<_, _>>()?, options, &Silent)?;
    let tree = backup.tree(&TreeSource {
        root: tree.into(),
        mount_point: "/".into(),
        filesystem: Some("00000000-0000-0000-0000-000000000001".into()),
        exclude: Exclusions::none(),
        instead: Default::default(),
    })?;
    let image = backup.image(&ImageSource {
        node: "part:fixture".into(),
        path: image.into(),
    })?;
    let results = backup.commit(SnapshotDraft {
        host: HostIdentity {
            machine_id: MACHINE.into(),
            hostname: "fixture".into(),
        },
        tool_version: env!("CARGO_PKG_VERSION").into(),
        kind: "host".into(),
        layout: serde_json::json!({ "opaque": "to the store" }),
        trees: vec![tree],
        images: vec![image],
        guest: None,
        guests: Vec::new(),
        facts: serde_json::json!({ "number": number }),
    });
    for result in results {
        result
            .snapshot
            .with_context(|| format!("no restore point in {}", result.dir.display()))?;
    }
    Ok(())
}
