//! A host and its targets, and beside them what the model says of both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bundle::backup::{Backup, BackupOptions, TreeSource};
use bundle::document::HostIdentity;
use bundle::events::{Events, Silent};
use bundle::extract::{ExtractOptions, ExtractReport, Selection, extract};
use bundle::store::{Store, StoreOptions};
use bundle::verify::{VerifyOptions, VerifyReport, verify, write_report};
use bundle::{Error, Id};

use super::change;
use super::op::{self, End, Op};
use super::tree::{Tree, names, same, scan};
use crate::store_support::{PASSPHRASE, draft, passphrase, ring, source};

/// What the model knows of a restore point.
#[derive(Debug, Clone)]
pub struct Shot {
    pub host: HostIdentity,
    pub time: String,
    pub kind: String,
    pub mount_point: String,
    pub tree: Arc<Tree>,
}

/// A target, and what should be on it.
pub struct Target {
    pub dir: PathBuf,
    pub encrypted: bool,
    pub shots: BTreeMap<Id, Shot>,
    /// Whether the last verification was good.
    pub verdicts: BTreeMap<Id, bool>,
}

pub struct World {
    dir: tempfile::TempDir,
    /// What is backed up.
    pub root: PathBuf,
    pub targets: [Target; 2],
    /// How many operations there were.
    pub done: u64,
}

/// Says stop after so many bytes or questions.
pub struct Stop(AtomicI64, bool);

impl Stop {
    pub fn after_bytes(bytes: i64) -> Stop {
        Stop(AtomicI64::new(bytes), false)
    }

    pub fn after_questions(count: i64) -> Stop {
        Stop(AtomicI64::new(count), true)
    }
}

impl Events for Stop {
    fn bytes(&self, n: u64) {
        if !self.1 {
            self.0.fetch_sub(n as i64, Ordering::Relaxed);
        }
    }

    fn cancelled(&self) -> bool {
        let left = self.0.fetch_sub(i64::from(self.1), Ordering::Relaxed);
        left < 0
    }
}

/// Three machines; two of them have one name, as after a fresh installation.
pub fn host(number: u8) -> HostIdentity {
    let (id, name) = [("1", "one"), ("2", "two"), ("3", "one")][usize::from(number) % 3];
    HostIdentity {
        machine_id: id.repeat(32),
        hostname: name.into(),
    }
}

impl Target {
    pub fn read(&self) -> bundle::Result<Store> {
        Store::open_read_only_with(&self.dir, &ring(PASSPHRASE))
    }

    pub fn write(&self) -> bundle::Result<Store> {
        Store::open_with(&self.dir, &ring(PASSPHRASE))
    }

    pub fn below(&self, path: &str) -> PathBuf {
        self.dir.join("lifeboat").join(path)
    }

    /// Files of the store in one of its directories, sorted.
    pub fn files(&self, below: &str) -> Result<Vec<PathBuf>> {
        let dir = self.below(below);
        let mut found = Vec::new();
        if dir.exists() {
            for name in names(&dir)? {
                let path = dir.join(name);
                if path.is_dir() {
                    for name in names(&path)? {
                        found.push(path.join(name));
                    }
                } else {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }

    /// The document of a restore point: times are all different.
    pub fn document(&self, shot: &Shot) -> Result<PathBuf> {
        let time = format!("{}-", shot.time.replace(['-', ':', '.'], ""));
        let is = |f: &PathBuf| {
            let name = f.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&time) && !name.ends_with(".par")
        };
        let found = self.files("snapshots")?.into_iter().find(is);
        found.with_context(|| format!("no document of {time} in {}", self.dir.display()))
    }

    pub fn listed(&self) -> Result<Vec<Id>> {
        Ok(self.read()?.snapshots()?.iter().map(|s| s.id).collect())
    }

    /// Packs that no index lists: a reader has to read their footers.
    pub fn unlisted(&self) -> Result<bool> {
        let report = self.verify()?;
        Ok(report.notes.iter().any(|n| n.contains("in no index")))
    }

    /// In the order of their times.
    pub fn in_order(&self) -> Vec<Id> {
        let mut ids: Vec<Id> = self.shots.keys().copied().collect();
        ids.sort_by(|a, b| (&self.shots[a].time, a).cmp(&(&self.shots[b].time, b)));
        ids
    }

    pub fn verify(&self) -> Result<VerifyReport> {
        let options = VerifyOptions {
            cold: true,
            workers: 2,
            ..VerifyOptions::default()
        };
        Ok(verify(&self.read()?, &options, &Silent)?)
    }

    pub fn write_report(&mut self, report: &VerifyReport) -> Result<()> {
        write_report(&self.read()?, report)?;
        for id in &report.snapshots {
            let good = !report.damaged.iter().any(|d| d.snapshots.contains(id));
            self.verdicts.insert(*id, good);
        }
        Ok(())
    }

    /// The list is the model's, and nothing is wrong.
    pub fn check(&self) -> Result<()> {
        let name = self.dir.display();
        let listed = self.read()?.snapshots()?;
        let ids: Vec<Id> = listed.iter().map(|s| s.id).collect();
        ensure!(
            ids == self.in_order(),
            "{name} lists {ids:?}, should list {:?}",
            self.in_order()
        );
        for header in listed {
            let shot = &self.shots[&header.id];
            let said = (&header.time, &header.host, &header.kind, &header.trees[0]);
            let known = (&shot.time, &shot.host, &shot.kind, &shot.mount_point);
            ensure!(said == known, "{name}: {header:?}");
        }
        let report = self.verify()?;
        ensure!(report.ok(), "{name}: {report:#?}");
        ensure!(report.snapshots.len() == ids.len(), "{name}: {report:#?}");
        Ok(())
    }
}

impl World {
    pub fn new(tree: tempfile::TempDir, encrypted: u8) -> Result<World> {
        let (root, path) = (tree.path().join("tree"), tree.path().to_path_buf());
        let target = |n: u8| -> Result<Target> {
            let dir = path.join(["one", "two"][usize::from(n)]);
            fs::create_dir(&dir)?;
            let mut store = Store::create(&dir, &StoreOptions::default())?;
            let encrypted = encrypted >> n & 1 == 1;
            if encrypted {
                store.encrypt(&[passphrase(PASSPHRASE)])?;
            }
            Ok(Target {
                dir,
                encrypted,
                shots: BTreeMap::new(),
                verdicts: BTreeMap::new(),
            })
        };
        Ok(World {
            root,
            targets: [target(0)?, target(1)?],
            dir: tree,
            done: 0,
        })
    }

    pub fn run(&mut self, ops: &[Op]) -> Result<()> {
        for (n, op) in ops.iter().enumerate() {
            self.step(op).with_context(|| format!("operation {n}"))?;
            self.done += 1;
        }
        for target in 0..2 {
            self.check(target).context("at the end")?;
        }
        Ok(())
    }

    fn step(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Change(changes) => changes
                .iter()
                .try_for_each(|c| change::apply(&self.root, c)),
            Op::Backup(backup) => self.backup(backup, None),
            Op::Wait => {
                std::thread::sleep(Duration::from_millis(2100));
                Ok(())
            }
            Op::Age(hours) => self.age(*hours),
            Op::Prune(prune) => {
                self.prune(prune, None)?;
                self.check(usize::from(prune.target))
            }
            Op::Damage {
                target,
                hits,
                report,
                meanwhile,
                cut,
            } => self.damage(usize::from(*target), hits, *report, meanwhile, *cut),
            Op::LoseIndexes { target, directory } => {
                let target = usize::from(*target);
                let dir = self.targets[target].below("index");
                if dir.exists() {
                    fs::remove_dir_all(&dir)?;
                }
                if !directory {
                    fs::create_dir(&dir)?;
                }
                self.check(target)
            }
            Op::Leftover { target, number } => {
                let target = &self.targets[usize::from(*target)];
                let rest = fs::read(target.below("store.json"))?;
                fs::write(
                    target.below(&format!("tmp/{number}.tmp")),
                    &rest[..rest.len() / 2],
                )?;
                target.check()
            }
            Op::Verify { target } => {
                let target = &mut self.targets[usize::from(*target)];
                let report = target.verify()?;
                ensure!(report.ok(), "{report:#?}");
                target.write_report(&report)
            }
            Op::Parity { target, percent } => {
                let target = &self.targets[usize::from(*target)];
                target.write()?.set_parity(u32::from(*percent))?;
                target.check()
            }
            Op::Look {
                target,
                a,
                b,
                path,
                pattern,
            } => self.look(usize::from(*target), *a, *b, *path, *pattern),
        }
    }

    /// `damaged`: the target of which less is expected.
    pub fn backup(&mut self, backup: &op::Backup, damaged: Option<usize>) -> Result<()> {
        let chosen: Vec<usize> = (0..2).filter(|n| backup.to >> n & 1 == 1).collect();
        let host = host(backup.host);
        let indexes: Vec<_> = chosen
            .iter()
            .map(|n| self.targets[*n].files("index"))
            .collect::<Result<_>>()?;
        let stores = chosen.iter().map(|n| self.targets[*n].write());
        let stores = stores.collect::<bundle::Result<Vec<_>>>()?;
        let options = BackupOptions {
            workers: 2,
            pack_size: backup.pack_size,
            since: (!backup.reread).then(|| host.machine_id.clone()),
            ..BackupOptions::default()
        };
        let (kind, mount_point) = [
            ("host", "/"),
            ("directories", "/"),
            ("directories", "/mnt/data"),
        ][usize::from(backup.kind) % 3];
        let stop = match backup.end {
            End::Cancelled(kib) => Stop::after_bytes(i64::from(kib) << 10),
            _ => Stop::after_bytes(i64::MAX),
        };
        let expected = Arc::new(scan(&self.root)?);
        let mut running = Backup::start(stores, options, &stop)?;
        let time = running.time().to_string();
        let from = TreeSource {
            mount_point: mount_point.into(),
            filesystem: Some("one".into()),
            ..source(&self.root)
        };
        let tree = match running.tree(&from) {
            Ok(tree) => tree,
            Err(Error::Cancelled) if matches!(backup.end, End::Cancelled(_)) => {
                drop(running);
                return self.check_list(&chosen, damaged);
            }
            Err(error) => return Err(error.into()),
        };
        let problems = &tree.summary.problems;
        ensure!(problems.is_empty(), "{problems:?}");
        ensure!(
            tree.entries == expected.len() as u64,
            "{} entries of {}",
            tree.entries,
            expected.len()
        );
        if matches!(backup.end, End::Cancelled(_) | End::Abandoned) {
            for (dir, result) in running.abandon() {
                result.with_context(|| dir.display().to_string())?;
            }
            return self.check_list(&chosen, damaged);
        }
        let mut draft = draft(vec![tree]);
        draft.host = host.clone();
        draft.kind = kind.into();
        let results = running.commit(draft);
        let shot = Shot {
            host,
            time,
            kind: kind.into(),
            mount_point: mount_point.into(),
            tree: expected,
        };
        let mut made = BTreeSet::new();
        for ((n, result), indexes) in chosen.iter().zip(results).zip(indexes) {
            let id = result
                .snapshot
                .with_context(|| result.dir.display().to_string())?;
            made.insert(id);
            let target = &mut self.targets[*n];
            if let End::Cut { index } = backup.end {
                let document = target.document(&shot)?;
                let mut gone = vec![document.clone(), add(&document, ".par")];
                if index {
                    let new = target.files("index")?.into_iter();
                    gone.extend(new.filter(|f| !indexes.contains(f)));
                }
                for file in gone.iter().filter(|f| f.exists()) {
                    fs::remove_file(file)?;
                }
            } else {
                target.shots.insert(id, shot.clone());
                let left = target.files("tmp")?;
                ensure!(left.is_empty(), "left in tmp: {left:?}");
                ensure!(
                    damaged == Some(*n) || !target.unlisted()?,
                    "a backup left packs in no index"
                );
                if damaged != Some(*n) {
                    self.compare(*n, &id)?;
                }
            }
        }
        ensure!(made.len() == 1, "one backup has several ids: {made:?}");
        self.check_list(&chosen, damaged)
    }

    fn check_list(&self, chosen: &[usize], damaged: Option<usize>) -> Result<()> {
        for n in chosen.iter().filter(|n| damaged != Some(**n)) {
            self.targets[*n].check()?;
        }
        Ok(())
    }

    /// Everything that should hold of an undamaged target.
    pub fn check(&self, target: usize) -> Result<()> {
        self.targets[target].check()?;
        for id in self.targets[target].shots.keys() {
            self.compare(target, id)?;
        }
        Ok(())
    }

    /// Extracts, from several targets read as one.
    pub fn extract(
        &self,
        from: &[usize],
        id: &Id,
        selection: &Selection,
    ) -> Result<(ExtractReport, Tree)> {
        let stores: Vec<Store> = from
            .iter()
            .map(|n| self.targets[*n].read())
            .collect::<bundle::Result<_>>()?;
        let (_, snapshot) = stores[0].snapshot(&id.to_string())?;
        let out = tempfile::tempdir_in(self.dir.path())?;
        let options = ExtractOptions {
            workers: 2,
            ..ExtractOptions::default()
        };
        let readers: Vec<&Store> = stores.iter().collect();
        let tree = &snapshot.trees[0];
        let report = extract(
            &readers,
            &snapshot,
            tree,
            selection,
            out.path(),
            &options,
            &Silent,
        )?;
        ensure!(report.doubtful.is_empty(), "{:?}", report.doubtful);
        Ok((report, scan(out.path())?))
    }

    pub fn compare(&self, target: usize, id: &Id) -> Result<()> {
        let (report, found) = self.extract(&[target], id, &Selection::All)?;
        let name = format!("{} of {}", id.short(), self.targets[target].dir.display());
        ensure!(report.missing.is_empty(), "{name}: {:?}", report.missing);
        same(&self.targets[target].shots[id].tree, &found, &name)
    }
}

/// The path with something at the end of its name.
pub fn add(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}
