//! Damaging a target, seeing that it is told and that nothing wrong comes out of it, and making it whole again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bundle::events::{Events, Silent};
use bundle::extract::{ExtractReport, Selection};
use bundle::heal::{HealReport, heal};
use bundle::{Error, Id};

use super::op::{End, Hit, How, Meanwhile, Which};
use super::tree::{Kind, Tree};
use super::world::{Stop, Target, World, add};

/// What the hits did.
#[derive(Default)]
struct Done {
    /// What was in files that a store needs.
    before: BTreeMap<PathBuf, Vec<u8>>,
    /// Files that a verification has to name.
    named: BTreeSet<String>,
    /// Restore points whose documents cannot be read now.
    unlisted: BTreeSet<Id>,
}

impl Target {
    fn hit(&mut self, hits: &[Hit]) -> Result<Done> {
        let mut done = Done::default();
        let mut seen = BTreeSet::new();
        for hit in hits {
            let (packs, indexes, documents) = (
                self.files("packs")?,
                self.files("index")?,
                self.files("snapshots")?,
            );
            let is_parity = |f: &PathBuf| f.extension().is_some_and(|e| e == "par");
            let mut files: Vec<PathBuf> = match hit.which {
                Which::Pack => packs,
                Which::Index => indexes,
                Which::Document => documents,
                Which::Parity => [packs, indexes, documents].concat(),
            };
            files.retain(|f| is_parity(f) == matches!(hit.which, Which::Parity));
            let Some(file) = files.get(usize::from(hit.number) % files.len().max(1)) else {
                continue;
            };
            // Of a document that is gone, the parity is what tells that it was not removed on purpose.
            let alone = is_parity(file) && !file.with_extension("").exists();
            if alone || !seen.insert(file.clone()) {
                continue;
            }
            let content = fs::read(file)?;
            let size = content.len() as u64;
            match hit.how {
                How::Flip(at, bits) => {
                    let at = u64::from(at) % size;
                    let open = fs::File::options().write(true).open(file)?;
                    open.write_all_at(&[content[at as usize] ^ bits], at)?;
                }
                How::Truncate(part) => {
                    let open = fs::File::options().write(true).open(file)?;
                    open.set_len(size * u64::from(part) / 65536)?;
                }
                How::Remove => fs::remove_file(file)?,
            }
            let name = file.strip_prefix(self.below(""))?.display().to_string();
            let removed = matches!(hit.how, How::Remove);
            let with_parity = add(file, ".par").exists();
            if !removed || (matches!(hit.which, Which::Document) && with_parity) {
                done.named.insert(name);
            }
            if matches!(hit.which, Which::Document) {
                let mut lost = None;
                for (id, shot) in &self.shots {
                    let time = shot.time.replace(['-', ':', '.'], "");
                    if file
                        .file_name()
                        .is_some_and(|n| n.to_string_lossy().starts_with(&format!("{time}-")))
                    {
                        lost = Some(*id);
                    }
                }
                let id = lost.with_context(|| format!("whose document is {}?", file.display()))?;
                if removed && !with_parity {
                    // It could as well have been removed on purpose.
                    self.shots.remove(&id);
                    continue;
                }
                done.unlisted.insert(id);
            }
            if !matches!(hit.which, Which::Index | Which::Parity) {
                done.before.insert(file.clone(), content);
            }
        }
        Ok(done)
    }

    fn heal(&self, other: &Target, events: &dyn Events) -> Result<HealReport, Error> {
        heal(self.write()?, &[&other.read()?], 2, events)
    }
}

impl World {
    pub fn damage(
        &mut self,
        number: usize,
        hits: &[Hit],
        report: bool,
        meanwhile: &Meanwhile,
        cut: Option<u8>,
    ) -> Result<()> {
        let other = 1 - number;
        let index_goes = |h: &Hit| matches!((h.which, h.how), (Which::Index, How::Remove));
        let all_listed = cut.is_none()
            && matches!(meanwhile, Meanwhile::Nothing)
            && !hits.iter().any(index_goes)
            && !self.targets[number].unlisted()?;
        let done = self.targets[number].hit(hits)?;
        let said = self.targets[number].verify()?;
        let named: BTreeSet<String> = said.damaged.iter().map(|d| d.file.clone()).collect();
        ensure!(
            done.named.is_subset(&named),
            "not named: {:?}, in {said:#?}",
            done.named.difference(&named)
        );
        self.check_damaged(number, &done.unlisted)?;
        if report {
            self.targets[number].write_report(&said)?;
        }
        let before: BTreeSet<Id> = self.targets[number].shots.keys().copied().collect();
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Prune(prune) => self.prune(prune, Some(number))?,
            Meanwhile::Backup(backup) => {
                self.backup(backup, Some(number))?;
                let now = self.targets[number].shots.keys();
                let new: Vec<Id> = now.filter(|id| !before.contains(id)).copied().collect();
                if report && matches!(backup.end, End::Commit) {
                    // It knew what not to rely on.
                    for id in new {
                        self.compare(number, &id)
                            .context("a backup after a report of damage")?;
                    }
                }
            }
        }
        if let Some(cut) = cut {
            let stop = Stop::after_questions(i64::from(cut));
            match self.targets[number].heal(&self.targets[other], &stop) {
                Ok(_) | Err(Error::Cancelled) => {}
                Err(error) => return Err(error).context("healing that is cut short"),
            }
            // By now documents may be healed, nothing more may be lost.
            let listed: BTreeSet<Id> = self.targets[number].listed()?.into_iter().collect();
            let known = self.targets[number].shots.keys().copied();
            let unlisted: BTreeSet<Id> = known.filter(|id| !listed.contains(id)).collect();
            ensure!(
                unlisted.is_subset(&done.unlisted),
                "lost by healing: {unlisted:?}"
            );
            self.check_damaged(number, &unlisted)
                .context("after healing that was cut short")?;
        }
        let healed = self.targets[number].heal(&self.targets[other], &Silent)?;
        let held = |id: &Id| self.targets[other].shots.contains_key(id);
        if self.targets[number].shots.keys().all(held) {
            ensure!(
                healed.after.ok(),
                "the other target holds everything: {healed:#?}"
            );
        }
        if all_listed && healed.after.ok() {
            let unlisted = self.targets[number].unlisted()?;
            ensure!(!unlisted, "healing left packs in no index: {healed:#?}");
        }
        if !healed.after.ok() {
            let now: BTreeSet<Id> = self.targets[number].listed()?.into_iter().collect();
            let known = self.targets[number].shots.keys().copied();
            let unlisted = known.filter(|id| !now.contains(id)).collect();
            self.check_damaged(number, &unlisted)
                .context("after healing what could be healed")?;
            // The medium is read once more, and gives everything. (A healed document of an encrypted store has another
            // name than before.)
            let here = |id: &Id| {
                let time = self.targets[number].shots[id]
                    .time
                    .replace(['-', ':', '.'], "");
                format!("{time}-")
            };
            let here: Vec<String> = now.iter().map(here).collect();
            for (file, content) in &done.before {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let healed = here.iter().any(|time| name.starts_with(time));
                if !healed && fs::read(file).ok().as_ref() != Some(content) {
                    fs::create_dir_all(file.parent().context("a file without a directory")?)?;
                    fs::write(file, content)?;
                }
            }
            let again = self.targets[number].heal(&self.targets[other], &Silent)?;
            ensure!(
                again.after.ok(),
                "everything is there again: {again:#?}\nafter {healed:#?}"
            );
        }
        self.check(number).context("after healing")
    }

    /// Nothing wrong comes out, and a restore point of which something is lost is named.
    fn check_damaged(&self, number: usize, unlisted: &BTreeSet<Id>) -> Result<()> {
        let target = &self.targets[number];
        let listed: BTreeSet<Id> = target.listed()?.into_iter().collect();
        let known = target.shots.keys().copied();
        let expected: BTreeSet<Id> = known.filter(|id| !unlisted.contains(id)).collect();
        ensure!(
            listed == expected,
            "listed {listed:?} instead of {expected:?}"
        );
        let report = target.verify()?;
        for id in &listed {
            let (said, found) = self.extract(&[number], id, &Selection::All)?;
            let tree = &target.shots[id].tree;
            never_wrong(tree, &said, &found)
                .with_context(|| format!("restore point {}", id.short()))?;
            let affected = report.damaged.iter().any(|d| d.snapshots.contains(id));
            let whole = said.missing.is_empty()
                && found.len() == tree.len()
                && said.incomplete_metadata.len() <= usize::from(!crate::store_support::is_root());
            ensure!(
                affected != whole,
                "{}: affected {affected}, whole {whole}: {said:#?} {report:#?}",
                id.short()
            );
            // All targets are read as one.
            let other = &self.targets[1 - number];
            if other.shots.contains_key(id) {
                let (said, found) = self.extract(&[number, 1 - number], id, &Selection::All)?;
                ensure!(said.missing.is_empty(), "with both targets: {said:#?}");
                super::tree::same(tree, &found, "with both targets")?;
            }
        }
        Ok(())
    }
}

/// Is everything that came out right, and what did not come out told?
fn never_wrong(expected: &Tree, said: &ExtractReport, found: &Tree) -> Result<()> {
    let all_lost = said.missing.iter().any(|m| m.path.as_os_str() == ".");
    let incomplete = |path: &PathBuf| {
        let of = |p: &PathBuf| p == path || (path.as_os_str().is_empty() && p.as_os_str() == ".");
        said.incomplete_metadata.iter().any(|m| of(&m.path))
    };
    for (path, node) in expected {
        let Some(other) = found.get(path) else {
            let told = all_lost || said.missing.iter().any(|m| m.path == *path);
            ensure!(
                told,
                "{path:?} did not come out, and nobody said so: {said:#?}"
            );
            continue;
        };
        let mut differ = node.differences(other);
        if incomplete(path) || node.first.is_some() {
            differ.retain(|what| *what != "xattrs");
        }
        if all_lost {
            // A directory that only comes as the parent of others; links whose first name is lost.
            differ.retain(|what| {
                *what == "kind or content" || (*what != "links" && node.kind != Kind::Dir)
            });
        }
        ensure!(
            differ.is_empty(),
            "{path:?} differs in {differ:?}: {node:?}, {other:?}"
        );
    }
    let more = found.keys().find(|p| !expected.contains_key(*p));
    ensure!(more.is_none(), "{more:?} should not be there");
    Ok(())
}
