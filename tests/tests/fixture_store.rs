//! The stores that were kept of format 1 are read by today's code, and by hand, as what they were made of; and today's
//! writer still gives the same blobs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::path::{Path, PathBuf};

use bundle::backup::{Backup, BackupOptions};
use bundle::crypt::{KeyFile, KeyRing, Secret};
use bundle::events::Silent;
use bundle::extract::{ExtractOptions, Selection, extract, image_to};
use bundle::heal::heal;
use bundle::list::{Entry, EntryKind, entries};
use bundle::store::Store;
use bundle::verify::{VerifyOptions, verify};
use integration_tests::fixture::{self, KEY_FILE, PASSPHRASE as FIXTURE_PASSPHRASE, listing};
use store_support::*;

/// Removes flags before the directory is removed, whatever became of the test.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Scratch {
        Scratch(scratch())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A copy of a fixture store.
    fn store(&self, name: &str) -> PathBuf {
        let store = self.path(name);
        fs::create_dir(&store).unwrap();
        fixture::unpack(&fixture::dir(1).join(name), &store).unwrap();
        store
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fixture::sh(self.0.path(), "chattr -R -f -iadA . || true", &[]);
    }
}

fn expected(name: &str) -> String {
    fs::read_to_string(fixture::dir(1).join(name)).unwrap()
}

fn ring_of(secret: Secret) -> KeyRing {
    let mut ring = KeyRing::default();
    ring.add(secret);
    ring
}

fn passphrase_ring() -> KeyRing {
    ring_of(Secret::Passphrase(FIXTURE_PASSPHRASE.to_owned().into()))
}

/// How a line of the listing begins, of an entry in the catalogue.
fn beginning(entry: &Entry) -> String {
    use std::os::unix::ffi::OsStrExt;
    let path = entry.path.as_os_str().as_bytes().escape_ascii();
    let kind = match entry.kind {
        EntryKind::File | EntryKind::Hardlink => "file",
        EntryKind::Dir => "dir",
        EntryKind::Symlink => "symlink",
        EntryKind::Char => "char",
        EntryKind::Block => "block",
        EntryKind::Fifo => "fifo",
    };
    let content = match (entry.kind, entry.rdev, &entry.target) {
        (EntryKind::File, ..) => format!(" {}", entry.size),
        (_, Some((major, minor)), _) => format!(" {major}:{minor}"),
        (EntryKind::Symlink, _, Some(target)) => {
            format!(" {}", target.as_os_str().as_bytes().escape_ascii())
        }
        _ => String::new(),
    };
    format!(
        "{} {kind} {:04o} {}:{} {}.{:09}{content}",
        path.to_string().replace(' ', "\\x20"),
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime.0,
        entry.mtime.1
    )
}

/// Opens, verifies, lists and extracts all restore points.
fn reads(scratch: &Scratch, dir: &Path, ring: &KeyRing) {
    let store = Store::open_read_only_with(dir, ring).unwrap();
    let report = verify(&store, &VerifyOptions::default(), &Silent).unwrap();
    assert!(report.ok() && report.notes.is_empty(), "{report:#?}");
    let headers = store.snapshots().unwrap();
    assert_eq!(headers.len(), 3);
    for (header, number) in headers.iter().zip(1..) {
        let (_, snapshot) = store.snapshot(&header.id.to_string()).unwrap();
        assert_eq!(snapshot.host.hostname, "fixture");
        assert_eq!(snapshot.facts["number"], number);
        let tree = &snapshot.trees[0];
        let wanted = expected(&format!("expected-{number}.txt"));
        let stores = [&store];
        let mut listed: Vec<_> = entries(&stores, tree)
            .map(|entry| beginning(&entry.unwrap()))
            .collect();
        listed.sort();
        let mut lines: Vec<_> = wanted.lines().collect();
        lines.sort_unstable();
        assert_eq!(listed.len(), lines.len());
        for (entry, line) in listed.iter().zip(&lines) {
            assert!(line.starts_with(entry), "{entry}\n{line}");
        }

        let out = fs::File::create(scratch.path("image")).unwrap();
        image_to(&stores, &snapshot.images[0], &out, &Silent).unwrap();
        let image = fs::read(scratch.path("image")).unwrap();
        let said = format!(
            "{} {} sha256:{}\n",
            snapshot.images[0].node,
            image.len(),
            bundle::Id::of(&image)
        );
        assert_eq!(said, expected("expected-image.txt"));

        if !is_root() {
            println!("ignored: only root gives files their owners and makes device nodes");
            continue;
        }
        let out = tempfile::tempdir_in(scratch.0.path()).unwrap().keep();
        let options = ExtractOptions::default();
        let selection = Selection::All;
        let report = extract(
            &stores, &snapshot, tree, &selection, &out, &options, &Silent,
        )
        .unwrap();
        assert!(report.complete(), "{report:#?}");
        assert_eq!(listing(&out).unwrap(), wanted);
    }
}

#[test]
fn the_plain_store_is_read() {
    let scratch = Scratch::new();
    reads(&scratch, &scratch.store("plain"), &KeyRing::default());
}

#[test]
fn the_encrypted_store_is_read() {
    let scratch = Scratch::new();
    reads(&scratch, &scratch.store("encrypted"), &passphrase_ring());
}

/// What another implementation reads, which was made from the document alone.
#[test]
fn the_encrypted_store_is_read_by_another_program() {
    let needs = "import cryptography.hazmat.primitives.ciphers.aead";
    let has = command("python3").args(["-c", needs]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("ignored: there is no python3 with the module cryptography");
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("encrypted");
    let key_file = scratch.path("key-file");
    fs::write(&key_file, KEY_FILE).unwrap();
    let mut wanted = Vec::new();
    let opened = Store::open_read_only_with(&store, &passphrase_ring()).unwrap();
    for (header, number) in opened.snapshots().unwrap().iter().zip(1..) {
        wanted.push(format!("restore point {}", header.id));
        for line in expected(&format!("expected-{number}.txt")).lines() {
            let fields: Vec<_> = line.split(' ').collect();
            if fields[1] == "file" {
                wanted.push([fields[0], fields[5], fields[6]].join(" "));
            }
        }
        wanted.push(expected("expected-image.txt").trim_end().to_owned());
    }
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/read-encrypted.py");
    for secret in [fixture::dir(1).join("recovery-key.txt"), key_file] {
        let output = command("python3")
            .arg(program)
            .args([&store, &secret])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn every_key_opens_the_encrypted_store_and_no_other_does() {
    let scratch = Scratch::new();
    let store = scratch.store("encrypted");
    let key_file = scratch.path("key-file");
    fs::write(&key_file, KEY_FILE).unwrap();
    let typed = |text: &str| ring_of(Secret::typed(text).unwrap());
    let rings = [
        typed(FIXTURE_PASSPHRASE),
        typed(&expected("recovery-key.txt")),
        ring_of(Secret::KeyFile(KeyFile::read(&key_file).unwrap())),
    ];
    for ring in &rings {
        let store = Store::open_read_only_with(&store, ring).unwrap();
        assert_eq!(store.snapshots().unwrap().len(), 3);
        // The report of a verification, which names files of the host.
        assert_eq!(store.reports().len(), 1);
    }
    for ring in [KeyRing::default(), typed("fixture of format 2")] {
        assert!(Store::open_read_only_with(&store, &ring).is_err());
    }
}

/// Of the third restore point, which needs blobs of all codecs, and parts of segments.
#[test]
fn the_plain_store_is_read_by_hand() {
    if !is_root() {
        println!("ignored: only root gives files their owners and makes device nodes");
        return;
    }
    let scratch = Scratch::new();
    let (store, dest) = (scratch.store("plain"), scratch.path("out"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/read-by-hand");
    let output = command(script)
        .args([&store, Path::new("latest"), Path::new("/"), &dest])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    // The script says that it does not keep inode flags.
    let without_flags = |text: String| -> Vec<String> {
        let cut = |line: &str| line.split(" flags:").next().unwrap_or_default().to_owned();
        text.lines().map(cut).collect()
    };
    let found = without_flags(listing(&dest).unwrap());
    assert_eq!(found, without_flags(expected("expected-3.txt")));
}

/// Damage that parity repairs gives the bytes that were kept.
#[test]
fn the_parity_of_the_store_repairs_it() {
    let scratch = Scratch::new();
    let store = scratch.store("plain");
    for file in [
        files(&store, "packs", ".pack"),
        files(&store, "index", ".idx"),
        files(&store, "snapshots", ".json"),
    ]
    .concat()
    {
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        fs::write(&file, bad).unwrap();
        let report = heal(Store::open(&store).unwrap(), &[], 1, &Silent).unwrap();
        assert!(report.after.ok(), "{}: {report:#?}", file.display());
        assert_eq!(fs::read(&file).unwrap(), good, "{}", file.display());
    }
}

/// Names of fields, however deep, of JSON on standard input.
const FIELDS: &str = r#"jq -c '[paths | map(if type == "number" then 0 else . end)] | unique'"#;

/// What is extracted and saved again is the same blobs, but for the catalogue, which holds inode numbers and times that
/// cannot be set. And what is written around them has the same fields.
#[test]
fn the_writer_gives_the_same_blobs() {
    if !is_root() {
        println!("ignored: only root gives files their owners and makes device nodes");
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.store("plain");
    let (fresh, out) = (scratch.path("fresh"), scratch.path("out"));
    fs::create_dir(&out).unwrap();
    {
        let store = Store::open_read_only(&dir).unwrap();
        let first = store.snapshots().unwrap()[0].id.to_string();
        let (_, snapshot) = store.snapshot(&first).unwrap();
        let options = ExtractOptions::default();
        let tree = &snapshot.trees[0];
        let all = Selection::All;
        let report = extract(&[&store], &snapshot, tree, &all, &out, &options, &Silent).unwrap();
        assert!(report.complete(), "{report:#?}");
    }
    let stores = vec![Store::open(&dir).unwrap(), open(&fresh)];
    let mut backup = Backup::start(stores, BackupOptions::default(), &Silent).unwrap();
    let mut source = source(&out);
    source.filesystem = Some("00000000-0000-0000-0000-000000000001".into());
    let tree = backup.tree(&source).unwrap();
    let catalogue = tree.catalogue.len() as u64;
    let results = backup.commit(draft(vec![tree]));
    assert!(results.iter().all(|r| r.snapshot.is_ok()), "{results:?}");
    assert_eq!(results[0].new_blobs, catalogue, "{results:?}");
    assert!(results[0].known_blobs > 10, "{results:?}");

    let footer = "n=$(tail -c 94 \"$1\" | cut -d ' ' -f 3 | sed 's/^0*//'); \
        tail -c $((n + 94)) \"$1\" | head -c $n | zstd -dcq | ";
    let fields = |store: &Path, script: &str, below: &str, suffix: &str| {
        let file = files(store, below, suffix).remove(0);
        let said = fixture::sh(store, &format!("{script}{FIELDS}"), &[&file]).unwrap();
        String::from_utf8(said).unwrap()
    };
    let kept = scratch.path("kept");
    fs::create_dir(&kept).unwrap();
    fixture::unpack(&fixture::dir(1).join("plain"), &kept).unwrap();
    // Facts and layout are the caller's; the test saves no image.
    let document = "jq '.facts = 0 | .layout = 0 | .images = []' \"$1\" | ";
    for (script, below, suffix) in [
        (document, "snapshots", ".json"),
        (footer, "packs", ".pack"),
        ("zstd -dcq <\"$1\" | ", "index", ".idx"),
        ("cat \"$1\" | ", "", "store.json"),
    ] {
        let now = fields(&fresh, script, below, suffix);
        assert!(now.len() > 20, "{now}");
        assert_eq!(now, fields(&kept, script, below, suffix), "{below}");
    }
}
