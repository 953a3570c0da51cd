//! What a backup says at its end.

use std::path::{Path, PathBuf};

use bundle::backup::LevelUse;
use bundle::document::{HostIdentity, Image, Stats, Summary, Tree};
use serde::Serialize;

use super::guests::{GuestReport, Status};
use super::work::Work;
use crate::compression::{self, Compression};
use crate::history::{Phase, Run, Space, TargetRun};
use crate::output::{Outcome, table};
use crate::rescue::Update;
use crate::retention::Pruned;
use crate::values;

/// [`Report::kind`] of a run that dumps guests only.
pub const GUESTS: &str = "guests";

/// The result of a backup.
#[derive(Debug, Serialize)]
pub struct Report {
    pub kind: String,
    pub host: String,
    pub seconds: u64,
    pub files: u64,
    pub bytes: u64,
    /// Of these, read now, and taken from an earlier restore point as they had not changed.
    pub bytes_read: u64,
    pub bytes_referenced: u64,
    pub segments_reused: u64,
    /// As it was asked for.
    pub compression: Compression,
    /// How much was compressed with which level.
    pub zstd_levels: Vec<LevelUse>,
    pub trees: Vec<TreeReport>,
    pub summary: Summary,
    /// Guests that were to be dumped.
    pub guests: Vec<GuestReport>,
    /// File systems that are not in the restore point, on purpose: no warning, but nobody should rely on them.
    pub not_saved: Vec<String>,
    /// What a restore will not remake.
    pub layout_warnings: Vec<String>,
    /// What happened on the way.
    pub warnings: Vec<String>,
    /// What else to know; nothing is wrong.
    pub notes: Vec<String>,
    pub targets: Vec<TargetReport>,
    pub hook_failed: bool,
    /// A signal came after the restore point was made: what should follow was left out.
    pub stopped: bool,
    /// What took how long.
    pub phases: Vec<Phase>,
}

/// A tree, or a partition.
#[derive(Debug, Serialize)]
pub struct TreeReport {
    pub name: String,
    pub files: u64,
    pub bytes: u64,
}

/// What became of a target.
#[derive(Debug, Serialize)]
pub struct TargetReport {
    pub target: PathBuf,
    /// Whether it is a stick, or an image of one.
    pub stick: bool,
    /// The store's id.
    pub store: Option<String>,
    pub encrypted: bool,
    pub snapshot: Option<bundle::Id>,
    /// Why there is no restore point.
    pub error: Option<String>,
    pub bytes_written: u64,
    pub new_blobs: u64,
    pub known_blobs: u64,
    /// Whether all was read back right; nothing when it was not read back.
    pub verified: Option<bool>,
    pub verified_bytes: u64,
    /// In words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub damage: String,
    /// What else the verification has to say of the store.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The packs that were written.
    #[serde(skip)]
    pub packs: Vec<bundle::Id>,
    pub rescue: Option<Update>,
    /// What was removed to make room for it, or after it.
    pub pruned: Option<Pruned>,
    /// What went wrong after the restore point was made.
    pub problems: Vec<String>,
    /// How many restore points of this host it holds at the end.
    pub restore_points: Option<u64>,
    /// How much room it has at the end.
    pub space: Option<Space>,
}

impl TargetReport {
    pub fn new(target: &Path) -> TargetReport {
        TargetReport {
            target: target.into(),
            stick: false,
            store: None,
            encrypted: false,
            snapshot: None,
            error: None,
            bytes_written: 0,
            new_blobs: 0,
            known_blobs: 0,
            verified: None,
            verified_bytes: 0,
            damage: String::new(),
            notes: Vec::new(),
            packs: Vec::new(),
            rescue: None,
            pruned: None,
            problems: Vec::new(),
            restore_points: None,
            space: None,
        }
    }

    /// For the history of runs.
    pub fn record(&self) -> TargetRun {
        TargetRun {
            target: self.target.clone(),
            stick: self.stick,
            store: self.store.clone(),
            snapshot: self.snapshot,
            error: self.error.clone(),
            bytes_written: self.bytes_written,
            verified: self.verified,
            verified_bytes: self.verified_bytes,
            whole: false,
            damage: self.damage.lines().map(str::to_owned).collect(),
            problems: self.problems.clone(),
            restore_points: self.restore_points,
            space: self.space,
        }
    }

    pub fn fail(&mut self, reason: String) {
        self.error = Some(reason);
    }

    /// Adds what was removed, and what could not be.
    pub fn pruned(&mut self, mut pruned: Pruned) {
        self.problems.append(&mut pruned.notes);
        match &mut self.pruned {
            Some(before) => before.add(pruned),
            None => self.pruned = Some(pruned),
        }
    }

    /// Errors and problems, and what was removed, of a target that was to get nothing of the host itself.
    fn trouble(&self) -> String {
        let pruned = self
            .pruned
            .iter()
            .filter(|p| p.restore_points > 0 || p.freed > 0);
        let pruned = pruned.map(Pruned::text);
        let failed = self.error.iter().map(|error| format!("FAILED: {error}"));
        let lines = failed.chain(pruned).chain(self.problems.iter().cloned());
        let name = self.target.display();
        lines.map(|line| format!("  {name}: {line}\n")).collect()
    }

    pub fn text(&self) -> String {
        let name = self.target.display();
        let pruned = match &self.pruned {
            Some(pruned) if pruned.restore_points > 0 || pruned.freed > 0 => {
                format!("    {}\n", pruned.text())
            }
            _ => String::new(),
        };
        let Some(id) = &self.snapshot else {
            return format!(
                "  {name}: FAILED: {}\n{pruned}",
                self.error.as_deref().unwrap_or("no restore point was made")
            );
        };
        let verified = match self.verified {
            Some(true) => format!(
                ", {} read back and good",
                values::bytes(self.verified_bytes)
            ),
            Some(false) => ", read back and DAMAGED".into(),
            None => ", not read back".into(),
        };
        let mut out = format!(
            "  {name}: restore point {}, {} new{verified}\n{}",
            id.short(),
            values::bytes(self.bytes_written),
            self.damage
        );
        out.push_str(&pruned);
        match &self.rescue {
            Some(Update::Updated) => out.push_str("    the rescue system was updated\n"),
            Some(Update::Kept(why)) => {
                out.push_str(&format!("    the rescue system stays as it is: {why}\n"))
            }
            Some(Update::Current) | None => {}
        }
        for note in &self.notes {
            out.push_str(&format!("    note: {note}\n"));
        }
        for problem in &self.problems {
            out.push_str(&format!("    {problem}\n"));
        }
        out
    }
}

impl Report {
    pub fn new(
        work: &Work,
        host: &HostIdentity,
        trees: &[Tree],
        images: &[Image],
        stats: &Stats,
        compression: Compression,
    ) -> Report {
        let mut summary = Summary::default();
        for tree in trees {
            summary.add(&tree.summary);
        }
        let mut warnings = work.node.warnings.clone();
        for image in images {
            if let Some(error) = &image.error {
                warnings.push(format!("{}: {error}", image.node));
            }
        }
        let partitions = images.iter().map(|i| TreeReport {
            name: format!("{} (block image)", i.node),
            files: 0,
            bytes: i.size,
        });
        let lines: Vec<TreeReport> = trees
            .iter()
            .map(|t| TreeReport {
                name: t.mount_point.clone(),
                files: t.files,
                bytes: t.bytes,
            })
            .chain(partitions)
            .collect();
        Report {
            files: lines.iter().map(|l| l.files).sum(),
            bytes: lines.iter().map(|l| l.bytes).sum(),
            bytes_read: stats.bytes_read,
            bytes_referenced: stats.bytes_referenced,
            segments_reused: stats.segments_reused,
            trees: lines,
            summary,
            not_saved: work.not_saved(),
            layout_warnings: work
                .layout
                .iter()
                .flat_map(|l| l.warnings.iter().cloned())
                .collect(),
            warnings,
            ..Report::empty(work.kind, host, compression)
        }
    }

    /// Of a backup that has done nothing yet.
    pub fn empty(kind: &str, host: &HostIdentity, compression: Compression) -> Report {
        Report {
            kind: kind.to_owned(),
            host: host.hostname.clone(),
            seconds: 0,
            files: 0,
            bytes: 0,
            bytes_read: 0,
            bytes_referenced: 0,
            segments_reused: 0,
            compression,
            zstd_levels: Vec::new(),
            trees: Vec::new(),
            summary: Summary::default(),
            guests: Vec::new(),
            not_saved: Vec::new(),
            layout_warnings: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
            targets: Vec::new(),
            hook_failed: false,
            stopped: false,
            phases: Vec::new(),
        }
    }

    /// The worst that happened. A target that was read back damaged is a failure: there is nothing to rely on.
    pub fn outcome(&self) -> Outcome {
        let of_guests = self.guests.iter().flat_map(|g| &g.targets);
        let mut targets = self.targets.iter().chain(of_guests);
        let nothing = self.kind == GUESTS && self.guests.iter().all(|g| g.status == Status::Failed);
        if nothing || targets.any(|t| t.verified == Some(false)) {
            return Outcome::Failed;
        }
        let s = &self.summary;
        let complete = s.changed + s.vanished + s.unreadable == 0
            && self.layout_warnings.is_empty()
            && self.warnings.is_empty()
            && !self.hook_failed
            && !self.stopped
            && self.guests.iter().all(GuestReport::is_fine)
            && self
                .targets
                .iter()
                .all(|t| t.error.is_none() && t.problems.is_empty());
        if complete {
            Outcome::Fine
        } else {
            Outcome::Warnings
        }
    }

    /// Adds to the history of runs what is known at the end only.
    pub fn record(&self, run: &mut Run) {
        run.files = self.files;
        run.bytes = self.bytes;
        run.bytes_read = self.bytes_read;
        run.phases = self.phases.clone();
        let layout = self.layout_warnings.iter();
        let layout = layout.map(|w| format!("a restore will not remake this: {w}"));
        run.warnings = self.warnings.iter().cloned().chain(layout).collect();
        let problems = crate::commands::show::problems(&self.summary);
        run.warnings.extend(problems.lines().map(str::to_owned));
        let not_saved = self
            .not_saved
            .iter()
            .map(|line| format!("not saved: {line}"));
        run.notes = self.notes.iter().cloned().chain(not_saved).collect();
    }

    /// For the hook after a backup.
    pub fn status(&self) -> &'static str {
        match self.outcome() {
            Outcome::Fine => "ok",
            Outcome::Warnings => "warnings",
            Outcome::Failed | Outcome::Own(_) => "failed",
        }
    }

    pub fn text(&self) -> String {
        let what = match self.kind.as_str() {
            "host" => "host",
            GUESTS => "guests of host",
            _ => "directories of host",
        };
        let took = values::duration(std::time::Duration::from_secs(self.seconds));
        if self.kind == GUESTS {
            let saved = self.guests.iter().filter(|g| g.status != Status::Failed);
            let mut out = format!(
                "Saved {what} {}: {} of {} in {took}\n",
                self.host,
                saved.count(),
                self.guests.len(),
            );
            // Each guest has its restore points below; here is what was wrong with the targets themselves.
            self.targets.iter().for_each(|t| out.push_str(&t.trouble()));
            out.push_str(&self.end());
            return out;
        }
        let mut out = format!(
            "Saved {what} {}: {}, {} in {took}\n",
            self.host,
            values::plural(self.files, "file", "files"),
            values::bytes(self.bytes),
        );
        if self.segments_reused > 0 {
            out.push_str(&format!(
                "Read {}; {} had not changed since the last restore point\n",
                values::bytes(self.bytes_read),
                values::bytes(self.bytes_referenced),
            ));
        }
        match compression::levels(&self.zstd_levels) {
            Some(levels) if self.compression == Compression::Auto => {
                out.push_str(&format!("Compressed with {levels}\n"));
            }
            _ => {}
        }
        let rows: Vec<Vec<String>> = self
            .trees
            .iter()
            .map(|t| {
                vec![
                    format!("  {}", t.name),
                    values::count(t.files),
                    values::bytes(t.bytes),
                ]
            })
            .collect();
        out.push_str(&table(&["  tree", ">files", ">size"], &rows));
        for line in &self.not_saved {
            out.push_str(&format!("Not saved: {line}\n"));
        }
        out.push_str("Targets:\n");
        self.targets.iter().for_each(|t| out.push_str(&t.text()));
        out.push_str(&crate::commands::show::problems(&self.summary));
        out.push_str(&self.end());
        out
    }

    /// What follows the sizes: guests, notes, warnings.
    fn end(&self) -> String {
        let mut out = String::new();
        if !self.guests.is_empty() {
            out.push_str("Guests:\n");
        }
        self.guests.iter().for_each(|g| out.push_str(&g.text()));
        for note in &self.notes {
            out.push_str(&format!("note: {note}\n"));
        }
        if !self.layout_warnings.is_empty() {
            out.push_str("\nWhat a restore will not remake:\n");
            self.layout_warnings
                .iter()
                .for_each(|w| out.push_str(&format!("  {w}\n")));
        }
        if !self.warnings.is_empty() {
            out.push_str("\nWarnings:\n");
            self.warnings
                .iter()
                .for_each(|w| out.push_str(&format!("  {w}\n")));
        }
        if self.stopped {
            out.push_str("\nStopped after the restore point was made: verification or rescue system are not complete.\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        report_of(crate::proxmox::Saved::default())
    }

    fn report_of(node: crate::proxmox::Saved) -> Report {
        let work = Work {
            kind: "host",
            layout: None,
            trees: Vec::new(),
            images: Vec::new(),
            _headers: None,
            node,
            reasons: Vec::new(),
        };
        let host = HostIdentity {
            machine_id: String::new(),
            hostname: "pve1".into(),
        };
        let mut report = Report::new(&work, &host, &[], &[], &Stats::default(), Compression::Auto);
        let mut target = TargetReport::new(Path::new("/mnt/drive"));
        target.snapshot = Some(bundle::Id::of(b"x"));
        target.verified = Some(true);
        report.targets.push(target);
        report
    }

    #[test]
    fn outcomes() {
        assert_eq!(report().outcome(), Outcome::Fine);
        let mut r = report();
        r.summary.changed = 1;
        assert_eq!(r.outcome(), Outcome::Warnings);
        let mut r = report();
        r.targets.push(TargetReport::new(Path::new("/gone")));
        r.targets[1].fail("not there".into());
        assert_eq!(r.outcome(), Outcome::Warnings);
        assert!(
            r.text().contains("/gone: FAILED: not there"),
            "{}",
            r.text()
        );
        r.targets[0].verified = Some(false);
        assert_eq!(r.outcome(), Outcome::Failed);
        let mut r = report();
        r.layout_warnings.push("the array md0 is not remade".into());
        assert_eq!(r.outcome(), Outcome::Warnings);
        assert!(r.text().contains("md0"));
        let mut node = crate::proxmox::Saved::default();
        node.warnings.push("config.db is damaged".into());
        let r = report_of(node);
        assert_eq!(r.outcome(), Outcome::Warnings);
        assert!(r.text().contains("config.db"));
    }

    #[test]
    fn what_is_wrong_with_a_target_is_said_where_only_guests_are_saved() {
        let mut r = report();
        r.kind = GUESTS.to_owned();
        r.targets[0].problems.push("not pruned: no".into());
        r.targets.push(TargetReport::new(Path::new("/gone")));
        r.targets[1].fail("not there".into());
        let text = r.text();
        assert!(text.contains("/mnt/drive: not pruned: no"), "{text}");
        assert!(text.contains("/gone: FAILED: not there"), "{text}");
    }

    #[test]
    fn levels_are_said_where_they_were_chosen() {
        let mut r = report();
        r.zstd_levels = [(3, 5), (4, 9)]
            .map(|(level, bytes)| LevelUse { level, bytes })
            .into();
        let said = "Compressed with zstd 3 to 4, mostly 4\n";
        assert!(r.text().contains(said), "{}", r.text());
        r.compression = Compression::Zstd(3);
        assert!(!r.text().contains("Compressed"), "{}", r.text());
    }
}
