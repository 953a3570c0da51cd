//! A crash at every write, sync, rename and other change of a store, and an error at each of them: what was reported as
//! made stays readable, and the next run succeeds. [`disk`] says what a crash may leave.
#![allow(clippy::unwrap_used, reason = "tests")]

mod disk;
mod explore;
mod judge;
mod mounted;
#[path = "../store_support/mod.rs"]
mod store_support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bundle::backup::{Backup, BackupOptions};
use bundle::crypt::KeyRing;
use bundle::events::Silent;
use bundle::heal::heal;
use bundle::prune::{Policy, Prune, PruneOptions, Whose};
use bundle::store::{Store, StoreOptions};
use bundle::verify::{VerifyOptions, verify, write_report};
use bundle::{Error, Id};
use explore::{Bench, Work, explore};
use judge::{Content, Holds, content};
use store_support::{draft, noise, passphrase, ring, source};

const OLD: &str = "correct horse";
const NEW: &str = "battery staple";

/// How a store is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Style {
    encrypted: bool,
    parity: bool,
}

const PLAIN: Style = Style {
    encrypted: false,
    parity: false,
};
const ALL: Style = Style {
    encrypted: true,
    parity: true,
};

impl Style {
    fn opens(self) -> Vec<&'static str> {
        if self.encrypted { vec![OLD] } else { vec![] }
    }
}

/// Directories to be backed up. Files with holes are in blobs of their own however small they are, so that a few
/// kilobytes are several blobs in several packs.
struct Trees(Vec<PathBuf>);

impl Trees {
    /// Each has what the one before it has of the same name.
    fn new(dir: &Path, names: &[&str]) -> Trees {
        let mut trees: Vec<PathBuf> = Vec::new();
        for names in names {
            let tree = dir.join(format!("tree-{}", trees.len()));
            fs::create_dir(&tree).unwrap();
            for name in names.chars().map(String::from) {
                let file = tree.join(&name);
                match trees.last().map(|tree| tree.join(&name)) {
                    Some(same) if same.exists() => fs::hard_link(same, file).unwrap(),
                    _ => {
                        fs::write(&file, noise(6000)).unwrap();
                        let opened = fs::File::options().write(true).open(file).unwrap();
                        opened.set_len(100_000).unwrap();
                    }
                }
            }
            fs::write(tree.join("small"), names).unwrap();
            trees.push(tree);
        }
        // Files that changed less than two seconds ago are always read again.
        std::thread::sleep(Duration::from_millis(2100));
        Trees(trees)
    }

    fn content(&self, number: usize) -> Content {
        content(&self.0[number])
    }
}

/// What a scheduled run does: a backup of what has changed since the last one, which is then read again.
fn backup(stores: Vec<Store>, tree: &Path) -> bundle::Result<Id> {
    let options = BackupOptions {
        workers: 1,
        pack_size: 16 << 10,
        since: Some("0".repeat(32)),
        ..BackupOptions::default()
    };
    let dir = stores[0].dir().to_path_buf();
    let key = stores[0].data_key().cloned();
    let id = stores[0].id().to_string();
    let mut backup = Backup::start(stores, options, &Silent)?;
    let mut source = source(tree);
    source.filesystem = Some("1234".into());
    let tree = backup.tree(&source)?;
    let mut made = None;
    for result in backup.commit(draft(vec![tree])) {
        let id = result.snapshot?;
        made.get_or_insert((id, result.packs));
    }
    let (made, packs) = made.unwrap();
    let mut keys = KeyRing::default();
    if let Some(key) = key {
        keys.add_data_key(&id, key);
    }
    let opened = Store::open_read_only_with(&dir, &keys)?;
    let options = VerifyOptions {
        snapshot: Some(made.to_string()),
        cold: true,
        workers: 1,
        packs: Some(packs),
        ..VerifyOptions::default()
    };
    let report = verify(&opened, &options, &Silent)?;
    assert!(report.ok(), "{report:#?}");
    // The restore point is there whether its report can be written or not.
    let _ = write_report(&opened, &report);
    Ok(made)
}

/// Opens the store, or makes it where there is none, or only a part of one.
fn open_or_make(dir: &Path, style: Style) -> bundle::Result<Store> {
    let mut keys = ring(OLD);
    keys.add(bundle::crypt::Secret::typed(NEW).unwrap());
    let mut store = match Store::open_with(dir, &keys) {
        Err(Error::NoStore { .. }) => Store::create(dir, &StoreOptions::default())?,
        opened => opened?,
    };
    if style.encrypted && !store.encrypted() {
        store.encrypt(&[passphrase(OLD)])?;
    }
    if style.parity {
        store.set_parity(20)?;
    }
    Ok(store)
}

fn with(holds: &Holds, id: Id, content: Content) -> Holds {
    let mut holds = holds.clone();
    holds.must.insert(id, content);
    holds
}

/// The first backup to a new target, or another one to it.
struct Backups {
    trees: Trees,
    style: Style,
    first: bool,
}

impl Work for Backups {
    fn name(&self) -> &'static str {
        match (self.first, self.style.encrypted) {
            (true, false) => "first backup",
            (true, true) => "first backup, encrypted, with parity",
            (false, false) => "second backup",
            (false, true) => "second backup, encrypted, with parity",
        }
    }

    fn floor(&self) -> usize {
        if self.first { 50 } else { 30 }
    }

    fn before(&self, dir: &Path) -> Holds {
        let mut holds = Holds {
            fresh: self.trees.content(1),
            opens: self.style.opens(),
            keyed: self.first && self.style.encrypted,
            ..Holds::default()
        };
        if !self.first {
            let store = open_or_make(dir, self.style).unwrap();
            let id = backup(vec![store], &self.trees.0[0]).unwrap();
            holds.must.insert(id, self.trees.content(0));
        }
        holds
    }

    fn work(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds> {
        let id = backup(vec![open_or_make(dir, self.style)?], &self.trees.0[1])?;
        let holds = Holds {
            keyed: false,
            ..holds.clone()
        };
        Ok(with(&holds, id, self.trees.content(1)))
    }

    fn next(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds> {
        self.work(dir, holds)
    }
}

/// Removing the oldest of three restore points: packs that nobody needs any more go, one of which little is needed is
/// written anew, the index is written anew.
struct Prunes {
    trees: Trees,
    style: Style,
}

impl Prunes {
    fn options() -> PruneOptions {
        PruneOptions {
            guests: Policy::GUESTS,
            policy: Policy {
                last: 2,
                ..Policy::NOTHING
            },
            whose: Whose::This(draft(Vec::new()).host),
        }
    }
}

impl Work for Prunes {
    fn name(&self) -> &'static str {
        match self.style.encrypted {
            false => "prune",
            true => "prune, encrypted, with parity",
        }
    }

    fn floor(&self) -> usize {
        20
    }

    fn before(&self, dir: &Path) -> Holds {
        let mut holds = Holds {
            fresh: self.trees.content(2),
            opens: self.style.opens(),
            ..Holds::default()
        };
        for number in 0..3 {
            let store = open_or_make(dir, self.style).unwrap();
            let id = backup(vec![store], &self.trees.0[number]).unwrap();
            let known = if number == 0 {
                &mut holds.may
            } else {
                &mut holds.must
            };
            known.insert(id, self.trees.content(number));
        }
        let store = open_or_make(dir, self.style).unwrap();
        let planned = Prune::new(store, &Prunes::options(), &Silent).unwrap();
        let plan = planned.plan();
        let going = (plan.going(), plan.dead_packs, plan.mostly_dead_packs);
        assert!(going.0 == 1 && going.1 > 0 && going.2 > 0, "{plan:#?}");
        holds
    }

    fn work(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds> {
        let store = open_or_make(dir, self.style)?;
        let prune = Prune::new(store, &Prunes::options(), &Silent)?;
        prune.apply(&Silent)?;
        let mut holds = holds.clone();
        holds.may.clear();
        Ok(holds)
    }

    fn next(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds> {
        let holds = self.work(dir, holds)?;
        let id = backup(vec![open_or_make(dir, self.style)?], &self.trees.0[2])?;
        Ok(with(&holds, id, self.trees.content(2)))
    }
}

/// A pack of the newest of two restore points is damaged and healed.
struct Heals {
    trees: Trees,
    style: Style,
    /// Another store, or nothing where parity heals.
    other: Option<PathBuf>,
}

impl Work for Heals {
    fn name(&self) -> &'static str {
        match self.other {
            Some(_) => "heal from another store",
            None => "heal from parity",
        }
    }

    fn floor(&self) -> usize {
        12
    }

    fn before(&self, dir: &Path) -> Holds {
        let mut holds = Holds {
            fresh: self.trees.content(1),
            other: self.other.clone(),
            ..Holds::default()
        };
        let mut damaged = None;
        for number in 0..2 {
            let mut stores = vec![open_or_make(dir, self.style).unwrap()];
            if let Some(other) = &self.other {
                stores.push(open_or_make(other, self.style).unwrap());
            }
            let before = store_support::files(dir, "packs", ".pack");
            let id = backup(stores, &self.trees.0[number]).unwrap();
            let known = if number == 0 {
                &mut holds.must
            } else {
                &mut holds.hurt
            };
            known.insert(id, self.trees.content(number));
            let mut packs = store_support::files(dir, "packs", ".pack");
            packs.retain(|pack| !before.contains(pack));
            // The smallest: parity writes shard by shard.
            packs.sort_by_key(|pack| fs::metadata(pack).unwrap().len());
            damaged = packs.into_iter().next();
        }
        let damaged = damaged.unwrap();
        let byte = fs::read(&damaged).unwrap()[40];
        let file = fs::File::options().write(true).open(damaged).unwrap();
        file.write_all_at(&[byte ^ 1], 40).unwrap();
        holds
    }

    fn work(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds> {
        let other = self.other.as_ref().map(|dir| Store::open_read_only(dir));
        let other = other.transpose()?;
        let others: Vec<_> = other.iter().collect();
        let report = heal(open_or_make(dir, self.style)?, &others, 1, &Silent)?;
        let mut holds = holds.clone();
        // A heal that says otherwise has not said that it healed anything.
        if report.after.ok() {
            holds.must.append(&mut holds.hurt);
        }
        Ok(holds)
    }

    fn next(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds> {
        let holds = self.work(dir, holds)?;
        assert!(holds.hurt.is_empty(), "not healed");
        let id = backup(vec![open_or_make(dir, self.style)?], &self.trees.0[1])?;
        Ok(with(&holds, id, self.trees.content(1)))
    }
}

/// A passphrase is replaced by another one.
struct Rotates {
    trees: Trees,
}

impl Work for Rotates {
    fn name(&self) -> &'static str {
        "rotation of a key"
    }

    fn floor(&self) -> usize {
        10
    }

    fn before(&self, dir: &Path) -> Holds {
        let store = open_or_make(dir, ALL).unwrap();
        let id = backup(vec![store], &self.trees.0[0]).unwrap();
        let holds = Holds {
            fresh: self.trees.content(0),
            opens: vec![OLD, NEW],
            keyed: true,
            ..Holds::default()
        };
        with(&holds, id, self.trees.content(0))
    }

    fn work(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds> {
        let mut store = open_or_make(dir, ALL)?;
        let id = store.keys()?.remove(0).id;
        store.rotate_key(&id, &passphrase(NEW))?;
        Ok(Holds {
            opens: vec![NEW],
            shut: vec![OLD],
            keyed: false,
            ..holds.clone()
        })
    }

    fn next(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds> {
        let id = backup(vec![open_or_make(dir, ALL)?], &self.trees.0[0])?;
        let holds = Holds {
            keyed: false,
            ..holds.clone()
        };
        Ok(with(&holds, id, self.trees.content(0)))
    }
}

fn backups(style: Style, first: bool) {
    let Some(bench) = Bench::new() else { return };
    let trees = Trees::new(bench.dir(), &["abcde", "abcfgh"]);
    let work = Backups {
        trees,
        style,
        first,
    };
    explore(&bench, &work);
}

#[test]
fn the_first_backup() {
    backups(PLAIN, true);
}

#[test]
fn the_first_backup_of_an_encrypted_store_with_parity() {
    backups(ALL, true);
}

#[test]
fn the_second_backup() {
    backups(PLAIN, false);
}

#[test]
fn the_second_backup_of_an_encrypted_store_with_parity() {
    backups(ALL, false);
}

fn prunes(style: Style) {
    let Some(bench) = Bench::new() else { return };
    let trees = Trees::new(bench.dir(), &["abcdefgh", "aij", "ajk"]);
    explore(&bench, &Prunes { trees, style });
}

#[test]
fn a_prune() {
    prunes(PLAIN);
}

#[test]
fn a_prune_of_an_encrypted_store_with_parity() {
    prunes(ALL);
}

fn heals(style: Style, other: bool) {
    let Some(bench) = Bench::new() else { return };
    let trees = Trees::new(bench.dir(), &["abcde", "abcfgh"]);
    let other = other.then(|| bench.dir().join("other"));
    if let Some(other) = &other {
        fs::create_dir(other).unwrap();
    }
    let work = Heals {
        trees,
        style,
        other,
    };
    explore(&bench, &work);
}

#[test]
fn healing_from_another_store() {
    heals(PLAIN, true);
}

#[test]
fn healing_from_parity() {
    let parity = Style {
        encrypted: false,
        parity: true,
    };
    heals(parity, false);
}

#[test]
fn the_rotation_of_a_key() {
    let Some(bench) = Bench::new() else { return };
    let trees = Trees::new(bench.dir(), &["ab"]);
    explore(&bench, &Rotates { trees });
}
