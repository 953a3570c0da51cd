//! The guests of a node: each is dumped on its own, and becomes a restore point of its own on the targets that take
//! guests. One that fails takes no other along.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use bundle::Id;
use bundle::backup::Backup;
use bundle::document::guest::{GuestDump, GuestKind, KIND, title};
use bundle::document::{HostIdentity, SnapshotDraft};
use bundle::store::Store;
use bundle::verify::verdicts;
use serde::Serialize;

use super::follow_up::check;
use super::part::Part;
use super::report::TargetReport;
use super::{options, room};
use crate::cli::BackupArgs;
use crate::config::Config;
use crate::guests::awaited::Awaited;
use crate::guests::choice::choose;
use crate::guests::dump::{Log, vzdump};
use crate::guests::file::{self, Dump};
use crate::guests::known::Known;
use crate::guests::settings::{OnSticks, Source};
use crate::guests::take::Taken;
use crate::history::{GuestRun, RunResult, Trigger};
use crate::output::Usage;
use crate::progress::Progress;
use crate::proxmox::{Guest, Node};
use crate::retention::Automatic;
use crate::targets::Opened;
use crate::{Context, audit, seen, signals, values};

/// What became of a guest.
#[derive(Debug, Serialize)]
pub struct GuestReport {
    pub id: u32,
    pub kind: GuestKind,
    pub name: Option<String>,
    pub status: Status,
    /// Why it failed.
    pub error: Option<String>,
    /// Sizes of its disks or files.
    pub bytes: u64,
    pub seconds: u64,
    /// When its dump was made, where that was before this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dumped: Option<String>,
    /// What vzdump warned of.
    pub warnings: Vec<String>,
    pub targets: Vec<TargetReport>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// There is a new restore point of it on at least one target.
    Saved,
    /// The newest dump that a storage holds is in the targets already.
    Unchanged,
    /// There is none.
    Failed,
}

impl GuestReport {
    fn new(guest: &Guest) -> GuestReport {
        GuestReport {
            id: guest.id,
            kind: guest.kind,
            name: guest.name.clone(),
            status: Status::Failed,
            error: None,
            bytes: 0,
            seconds: 0,
            dumped: None,
            warnings: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Whether all went well, on every target.
    pub fn is_fine(&self) -> bool {
        let fine =
            |t: &TargetReport| t.error.is_none() && t.problems.is_empty() && t.snapshot.is_some();
        self.status != Status::Failed && self.warnings.is_empty() && self.targets.iter().all(fine)
    }

    /// For the history of runs.
    pub fn record(&self) -> GuestRun {
        GuestRun {
            id: self.id,
            kind: self.kind,
            name: self.name.clone(),
            result: match self.status {
                Status::Failed => RunResult::Failed,
                _ if self.targets.iter().any(|t| t.verified == Some(false)) => RunResult::Failed,
                _ if self.is_fine() => RunResult::Fine,
                _ => RunResult::Warnings,
            },
            error: self.error.clone(),
            bytes: self.bytes,
            seconds: self.seconds,
            dumped: self.dumped.as_ref().and_then(|time| time.parse().ok()),
            warnings: self.warnings.clone(),
            targets: self.targets.iter().map(TargetReport::record).collect(),
        }
    }

    /// `VM 100 (web)`
    pub fn title(&self) -> String {
        title(self.kind, self.id, self.name.as_deref())
    }

    pub fn text(&self) -> String {
        let took = values::duration(std::time::Duration::from_secs(self.seconds));
        let mut out = match self.status {
            Status::Saved => format!(
                "{}: {} in {took}\n",
                self.title(),
                values::bytes(self.bytes)
            ),
            Status::Unchanged => format!("{}: its newest dump is there already\n", self.title()),
            Status::Failed => format!(
                "{}: FAILED: {}\n",
                self.title(),
                self.error.as_deref().unwrap_or("no target holds it")
            ),
        };
        for warning in &self.warnings {
            out.push_str(&format!("    warning: {warning}\n"));
        }
        self.targets.iter().for_each(|t| out.push_str(&t.text()));
        out
    }
}

/// Which guests are to be dumped; none where this is no node, or where they are not wanted.
pub fn wanted<'n>(
    config: &Config,
    args: &BackupArgs,
    node: Option<&'n Node>,
) -> anyhow::Result<Vec<&'n Guest>> {
    let asked = !args.guests.is_empty() || args.only_guests;
    let Some(node) = node else {
        if asked {
            return Err(Usage("this is no Proxmox VE node: it has no guests".into()).into());
        }
        return Ok(Vec::new());
    };
    let settings = &config.guests;
    // They have a timer of their own.
    let apart = args.start.trigger == Trigger::Timer && !config.schedule.guests.is_off();
    if args.no_guests || apart && !asked || settings.source == Source::None && !asked {
        return Ok(Vec::new());
    }
    let (which, exclude) = match args.guests.as_slice() {
        [] => (&settings.which[..], &settings.exclude[..]),
        asked => (asked, &[][..]),
    };
    choose(&node.guests, which, exclude).map_err(|e| Usage(e).into())
}

/// Why guests are not even tried: nobody asked for them, and all targets are sticks, which take none by the settings.
pub fn not_tried(config: &Config, args: &BackupArgs, parts: &[Part]) -> Option<String> {
    let asked = !args.guests.is_empty() || args.only_guests;
    let sticks = parts
        .iter()
        .all(|p| p.opened.as_ref().is_some_and(|o| o.stick.is_some()));
    (!asked && sticks && config.guests.on_sticks == OnSticks::Never).then(|| {
        "guests were not dumped: all targets of this run are sticks, which take none (guests.on-sticks)".to_owned()
    })
}

/// Dumps them, one after the other.
pub fn save(
    context: &Context,
    args: &BackupArgs,
    node: &Node,
    guests: &[&Guest],
    host: &HostIdentity,
    parts: &[Part],
    progress: &Progress,
) -> Vec<GuestReport> {
    let mut reports = Vec::new();
    for guest in guests {
        let mut report = GuestReport::new(guest);
        let start = Instant::now();
        // The list changes meanwhile: they come back one after the other.
        let awaited = Awaited::now(&context.config).instead_of_dump(guest);
        if signals::stopped() {
            report.error = Some("not dumped: stopped before".into());
        } else if awaited.is_some() {
            report.error = awaited;
        } else {
            progress.say(&format!("{}:", report.title()));
            let run = Run {
                context,
                args,
                node,
                guest,
                host,
                progress,
            };
            if let Err(error) = run.save(parts, &mut report) {
                report.status = Status::Failed;
                report.error = Some(format!("{error:#}"));
            }
        }
        report.seconds = start.elapsed().as_secs();
        if report.status == Status::Failed {
            let reason = report.error.as_deref().unwrap_or("no target holds it");
            progress.say(&format!("{} FAILED: {reason}", report.title()));
        }
        reports.push(report);
    }
    reports
}

/// Looks up where the newest dump of each guest is, and remembers it.
pub fn known(config: &Config, host: &HostIdentity, stores: &[(&Store, &Path)]) -> Known {
    let mut known = Known::remembered(&config.state);
    for (store, place) in stores {
        if let Err(error) = known.look(store, place, &host.machine_id) {
            tracing::warn!("the dumps of guests on {}: {error:#}", place.display());
        }
    }
    if let Err(error) = known.remember(&config.state) {
        tracing::warn!("{error:#}");
    }
    known
}

struct Run<'r> {
    context: &'r Context,
    args: &'r BackupArgs,
    node: &'r Node,
    guest: &'r Guest,
    host: &'r HostIdentity,
    progress: &'r Progress,
}

/// A target that a guest is written to.
struct Place<'p> {
    opened: &'p Opened,
    report: TargetReport,
    full: bool,
}

impl Run<'_> {
    fn config(&self) -> &Config {
        &self.context.config
    }

    fn save(&self, parts: &[Part], report: &mut GuestReport) -> anyhow::Result<()> {
        let dump = match self.config().guests.source {
            Source::LatestDump => {
                let node = self.node;
                Some(file::newest(
                    &self.context.sys,
                    self.guest,
                    &node.storages,
                    &node.name,
                )?)
            }
            Source::Vzdump | Source::None => None,
        };
        let mut places = Vec::new();
        let mut refused = Vec::new();
        for part in parts {
            let Some(opened) = &part.opened else {
                let target = part.report.target.display();
                refused.push(format!("{target}: it cannot be opened"));
                continue;
            };
            match self.takes(opened) {
                Ok(()) => places.push(Place {
                    opened,
                    report: TargetReport::new(&opened.named),
                    full: false,
                }),
                Err(why) => refused.push(format!("{}: {why}", opened.named.display())),
            }
        }
        if places.is_empty() {
            anyhow::bail!("no target of this run takes it ({})", refused.join("; "));
        }
        if let Some(dump) = &dump {
            report.dumped = dump.time();
            let before = places.len();
            places.retain(|place| !self.holds(place, dump));
            if places.is_empty() && before > 0 {
                report.status = Status::Unchanged;
                return Ok(());
            }
        }
        let mut result = self.write(dump.as_ref(), places.iter_mut().collect(), report);
        // Targets that ran full get another run, if there was something to remove.
        let full: Vec<&mut Place<'_>> = places.iter_mut().filter(|p| p.full).collect();
        let mut again = Vec::new();
        for place in full {
            let made = room::make(
                self.config(),
                self.host,
                place.opened,
                &mut place.report,
                self.progress,
            );
            if made.is_some() {
                place.full = false;
                place.report.error = None;
                again.push(place);
            }
        }
        if !again.is_empty() {
            result = self.write(dump.as_ref(), again, report);
        }
        if let Err(error) = &result {
            let left_out = places.iter_mut().map(|p| &mut p.report);
            left_out
                .filter(|r| r.snapshot.is_none() && r.error.is_none())
                .for_each(|r| r.fail(format!("{error:#}")));
        }
        let saved = places.iter().any(|p| p.report.snapshot.is_some());
        report.targets = places.into_iter().map(|p| p.report).collect();
        if saved {
            report.status = Status::Saved;
            return Ok(());
        }
        result
    }

    /// Whether a target takes this guest, or why not.
    fn takes(&self, opened: &Opened) -> Result<(), String> {
        if opened.stick.is_none() {
            return Ok(());
        }
        if self.config().guests.on_sticks == OnSticks::Never {
            return Err("it is a stick, and guests.on-sticks is never".into());
        }
        let store = opened.reader().map_err(|e| format!("{e:#}"))?;
        let space = store.space().map_err(|e| e.to_string())?;
        let size = self.guest.dumped_bytes();
        let before = store.snapshots().is_ok_and(|all| {
            all.iter().any(|s| {
                let same = s.guest.as_ref().map(|g| (g.kind, g.id));
                same == Some((self.guest.kind, self.guest.id))
            })
        });
        // What is new from one day to the next; of a first dump, what compression usually leaves.
        let needs = if before { size / 20 } else { size / 2 };
        // The host itself comes first on a stick.
        let reserve = space.total / 5;
        if needs.saturating_add(reserve) > space.free {
            return Err(format!(
                "it is a stick with {} free, of which the host needs {}, and the guest may need {}",
                values::bytes(space.free),
                values::bytes(reserve),
                values::bytes(needs)
            ));
        }
        Ok(())
    }

    /// Whether a target holds this very dump already.
    fn holds(&self, place: &Place<'_>, dump: &Dump) -> bool {
        let (Ok(store), Some(time)) = (place.opened.reader(), dump.time()) else {
            return false;
        };
        let headers = store.snapshots().unwrap_or_default();
        let verdicts = verdicts(&store).unwrap_or_default();
        // One that is damaged is read once more: what is damaged of it is written anew.
        let whole = |id| verdicts.get(id).is_none_or(|v| v.good);
        headers.iter().filter(|h| whole(&h.id)).any(|header| {
            header.host == *self.host
                && header.guest.as_ref().is_some_and(|g| {
                    (g.kind, g.id, g.dumped.as_str())
                        == (self.guest.kind, self.guest.id, time.as_str())
                })
        })
    }

    /// One dump, to all of these targets.
    fn write(
        &self,
        dump: Option<&Dump>,
        mut places: Vec<&mut Place<'_>>,
        report: &mut GuestReport,
    ) -> anyhow::Result<()> {
        let mut stores = Vec::new();
        for place in &mut places {
            match self.store(place.opened, &mut place.report) {
                Ok(store) => stores.push(store),
                Err(error) => place.report.fail(format!("{error:#}")),
            }
        }
        if stores.is_empty() {
            return Ok(());
        }
        let mut backup = Backup::start(stores, options(self.config(), self.args)?, self.progress)?;
        let (taken, log) = match dump {
            Some(dump) => {
                let taken = file::import(&self.context.sys, dump, &mut backup);
                (taken, Log::default())
            }
            None => {
                let mode = self.config().guests.mode;
                vzdump(&self.context.sys, self.guest, mode, &mut backup)
            }
        };
        report.warnings.clone_from(&log.warnings);
        let failed = |places: &mut [&mut Place<'_>], dir: &Path, error: &bundle::Error| {
            let place = places.iter_mut().find(|p| p.opened.dir == dir);
            if let Some(place) = place {
                place.full = error.is_full();
                place.report.fail(error.to_string());
            }
        };
        let taken = match taken.and_then(|taken| signals::check().map(|()| taken)) {
            Ok(taken) => taken,
            Err(error) => {
                for (dir, written) in backup.abandon() {
                    if let Err(error) = written {
                        failed(&mut places, &dir, &error);
                    }
                }
                return Err(signals::check().err().unwrap_or(error));
            }
        };
        report.bytes = taken.bytes;
        let time = backup.time().to_owned();
        let draft = self.draft(dump, &time, taken, &log);
        for result in backup.commit(draft) {
            let id = match &result.snapshot {
                Ok(id) => *id,
                Err(error) => {
                    failed(&mut places, &result.dir, error);
                    continue;
                }
            };
            let place = places.iter_mut().find(|p| p.opened.dir == result.dir);
            let Some(place) = place else { continue };
            place.report.snapshot = Some(id);
            audit::made(id, &place.report.target);
            place.report.bytes_written = result.bytes_written;
            place.report.new_blobs = result.new_blobs;
            place.report.known_blobs = result.known_blobs;
            place.report.packs = result.packs;
            self.follow_up(place, id, &time);
        }
        Ok(())
    }

    /// Opens a store for writing, with some room in it.
    fn store(&self, opened: &Opened, report: &mut TargetReport) -> anyhow::Result<Store> {
        let mut store = opened.writer()?;
        self.config().parity.apply(&store)?;
        report.store = Some(store.id().to_owned());
        report.encrypted = store.encrypted();
        let scarce = store.space().is_ok_and(|s| s.free < room::wanted(s));
        if scarce && self.config().retention.automatic != Automatic::Never {
            drop(store);
            store = match room::make(self.config(), self.host, opened, report, self.progress) {
                Some(store) => store,
                None => opened.writer()?,
            };
        }
        Ok(store)
    }

    fn draft(&self, dump: Option<&Dump>, time: &str, taken: Taken, log: &Log) -> SnapshotDraft {
        let dumped = dump.and_then(Dump::time).unwrap_or_else(|| time.to_owned());
        let source = dump.map_or("vzdump".into(), |dump| dump.path.display().to_string());
        SnapshotDraft {
            host: self.host.clone(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: KIND.to_owned(),
            layout: serde_json::Value::Null,
            trees: taken.trees,
            images: taken.images,
            guest: Some(GuestDump {
                id: self.guest.id,
                kind: self.guest.kind,
                name: self.guest.name.clone(),
                dumped,
                source,
                configs: taken.configs,
                vma: taken.vma,
            }),
            guests: Vec::new(),
            facts: serde_json::json!({ "guest": self.guest, "log": log.lines }),
        }
    }

    fn follow_up(&self, place: &mut Place<'_>, id: Id, time: &str) {
        let store = place.report.store.as_deref().unwrap_or_default();
        let noted = seen::remember(&self.config().state, store, id, time);
        if let Err(error) = noted.context("only the notice of a rollback hangs on it") {
            tracing::warn!("{error:#}");
        }
        if self.config().verify && !self.args.no_verify {
            let id = id.to_string();
            check(
                self.context,
                place.opened,
                &id,
                &mut place.report,
                self.progress,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::guests::{Kind, parse};

    #[test]
    fn a_guest_that_failed_is_named_with_the_reason() {
        let mut report = GuestReport::new(&parse(100, Kind::Qemu, "name: web\n"));
        report.error = Some("vzdump: got timeout".into());
        assert!(!report.is_fine());
        assert_eq!(report.text(), "VM 100 (web): FAILED: vzdump: got timeout\n");
        report.status = Status::Saved;
        report.targets.push(TargetReport::new(Path::new("/mnt/a")));
        // For example, as vzdump failed in the second run for a target that was full.
        assert!(!report.is_fine());
        report.targets[0].snapshot = Some(Id::of(b"x"));
        assert!(report.is_fine());
        report.targets[0].fail("full".into());
        assert!(!report.is_fine());
    }
}
