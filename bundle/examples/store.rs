//! A small program over the library, for measuring: `store backup TREE TARGET...`, `store extract TARGET DIRECTORY`,
//! `store tar TARGET`, `store verify TARGET`; `store encrypt TARGET` makes an encrypted store. The `lifeboat` command is the one for use.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bundle::backup::{Backup, BackupOptions, TreeSource};
use bundle::crypt::{Cost, KeyRing, NewSlot, Secret};
use bundle::document::{HostIdentity, SnapshotDraft};
use bundle::events::Silent;
use bundle::exclude::Exclusions;
use bundle::extract::{ExtractOptions, Selection, extract, to_tar};
use bundle::store::{Store, StoreOptions};
use bundle::verify::{VerifyOptions, verify};

type Outcome = Result<bool, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["backup", tree, targets @ ..] => backup(tree, targets),
        ["encrypt", target] => encrypt(target),
        ["extract", target, dest] => restore(target, dest),
        ["tar", target] => tar(target),
        ["verify", target] => check(target),
        _ => Err("usage: store backup TREE TARGET... | encrypt TARGET | extract TARGET DIRECTORY | tar TARGET | verify TARGET".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn open(target: &str) -> bundle::Result<Store> {
    let dir = Path::new(target);
    if dir.join("lifeboat/store.json").exists() {
        Store::open_with(dir, &ring())
    } else {
        Store::create(dir, &StoreOptions::default())
    }
}

/// Of encrypted stores that this program makes.
const PASSPHRASE: &str = "example";

fn ring() -> KeyRing {
    let mut ring = KeyRing::default();
    ring.add(Secret::Passphrase(PASSPHRASE.to_owned().into()));
    ring
}

fn encrypt(target: &str) -> Outcome {
    let slot = NewSlot::Passphrase(PASSPHRASE.to_owned().into(), Cost::default());
    open(target)?.encrypt(&[slot])?;
    Ok(true)
}

fn backup(tree: &str, targets: &[&str]) -> Outcome {
    let stores = targets
        .iter()
        .map(|t| open(t))
        .collect::<bundle::Result<Vec<_>>>()?;
    let options = BackupOptions {
        since: Some("0".repeat(32)),
        ..BackupOptions::default()
    };
    let mut backup = Backup::start(stores, options, &Silent)?;
    let source = TreeSource {
        root: PathBuf::from(tree),
        mount_point: "/".into(),
        filesystem: Some("example".into()),
        exclude: Exclusions::none(),
        instead: Default::default(),
    };
    let tree = backup.tree(&source)?;
    println!(
        "{} entries, {} bytes, {} segments",
        tree.entries, tree.bytes, tree.segments
    );
    println!("{:?}", backup.stats());
    println!(
        "{} changed, {} vanished, {} unreadable",
        tree.summary.changed, tree.summary.vanished, tree.summary.unreadable
    );
    let results = backup.commit(SnapshotDraft {
        host: HostIdentity {
            machine_id: "0".repeat(32),
            hostname: "example".into(),
        },
        tool_version: env!("CARGO_PKG_VERSION").into(),
        kind: "example".into(),
        layout: serde_json::Value::Null,
        trees: vec![tree],
        images: Vec::new(),
        guest: None,
        guests: Vec::new(),
        facts: serde_json::Value::Null,
    });
    for result in &results {
        println!(
            "{}: {:?}, {} bytes written",
            result.dir.display(),
            result.snapshot,
            result.bytes_written
        );
        println!(
            "{} blobs new, {} known",
            result.new_blobs, result.known_blobs
        );
    }
    Ok(results.iter().all(|r| r.snapshot.is_ok()))
}

fn restore(target: &str, dest: &str) -> Outcome {
    let store = Store::open_read_only_with(Path::new(target), &ring())?;
    let (_, snapshot) = store.snapshot("latest")?;
    let mut complete = true;
    for tree in &snapshot.trees {
        let options = ExtractOptions::default();
        let report = extract(
            &[&store],
            &snapshot,
            tree,
            &Selection::All,
            Path::new(dest),
            &options,
            &Silent,
        )?;
        println!("{report:?}");
        complete &= report.complete();
    }
    Ok(complete)
}

fn tar(target: &str) -> Outcome {
    let store = Store::open_read_only_with(Path::new(target), &ring())?;
    let (_, snapshot) = store.snapshot("latest")?;
    let mut out = std::io::stdout().lock();
    let report = to_tar(
        &[&store],
        &snapshot,
        &snapshot.trees[0],
        &Selection::All,
        &mut out,
        &Silent,
    )?;
    Ok(report.complete())
}

fn check(target: &str) -> Outcome {
    let store = Store::open_read_only_with(Path::new(target), &ring())?;
    let report = verify(
        &store,
        &VerifyOptions {
            cold: true,
            ..VerifyOptions::default()
        },
        &Silent,
    )?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(report.ok())
}
