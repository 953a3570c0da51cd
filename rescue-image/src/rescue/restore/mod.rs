//! A restore from beginning to end: what wizard, unattended mode, command line and tests all call.
//!
//! [`prepare`] computes the plan and writes nothing; [`check`] reads everything that the restore needs; [`run`] writes.
//! Between them the caller has the plan confirmed. Whatever stops a restore is a [`Stop`], which says whether anything
//! was written. Success is never reported on partial data: files that are lost, or differences between the saved
//! layout and what the machine shows afterwards, are in the [`Outcome`], and its [`Outcome::exit_code`] tells.

mod content;
mod finish;
pub mod guests;
pub mod keys;
mod logs;
mod parts;
pub mod ui;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bundle::Id;
use bundle::document::Snapshot;
use bundle::verify::{Damage, VerifyReport};
use layout::apply::ApplyError;
use layout::diff::Difference;
use layout::inventory::Inventory;
use layout::model::{Layout, NodeId};
use layout::plan::{Choices, DiskChoice, LeaveOut, Mode, Plan, PlanError, Step};

use super::cluster::Start;
use super::events::{Announce, Line};
use super::network::Choice;
use content::{Losses, StoreContent};
pub use finish::Finish;
pub(in crate::rescue) use finish::SHOWN;
use keys::LuksKeys;
use logs::Logs;
pub(in crate::rescue) use logs::{now, timestamp};
pub use parts::{Parts, Real};
pub(in crate::rescue) use parts::{is_locked, wait_for_lock};
use ui::Ui;

/// What is to be restored, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// Beginning of the id of the restore point, or `latest`.
    pub snapshot: String,
    /// The operator's decisions. The media that hold bundles are added to `never` by [`prepare`].
    pub choices: Choices,
    /// Files that are known to be damaged in every store may be missing from the result.
    pub accept_loss: bool,
    /// What opens the LUKS containers that are filled.
    pub luks_keys: LuksKeys,
    /// Which card of this machine takes the place of a saved network card, by the saved name.
    pub nics: BTreeMap<String, Choice>,
    /// How a member of a Proxmox VE cluster starts.
    pub start: Start,
    /// Where the new file systems are mounted while they are filled.
    pub root: PathBuf,
    /// Where journal, plan, captures and event lines go.
    pub log_dir: PathBuf,
}

impl Request {
    /// A restore of `snapshot` with nothing decided yet, in the usual places.
    pub fn new(snapshot: impl Into<String>) -> Self {
        Self {
            snapshot: snapshot.into(),
            choices: Choices::default(),
            accept_loss: false,
            luks_keys: LuksKeys::default(),
            nics: BTreeMap::new(),
            start: Start::default(),
            root: PathBuf::from("/target"),
            log_dir: PathBuf::from(super::LOG_DIR),
        }
    }
}

/// A restore that is planned: nothing is written yet.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Id of the restore point.
    pub id: Id,
    /// Its document.
    pub snapshot: Snapshot,
    /// The layout it holds.
    pub saved: Layout,
    /// The machine at hand.
    pub inventory: Inventory,
    /// What will be done.
    pub plan: Plan,
    /// What is done to the files of the host.
    pub finish: Finish,
    /// The request, with the media in `choices.never`.
    pub request: Request,
    /// The guests that come back at the first boot; `None` where guests stay as they are, or there are none.
    pub guests: Option<guests::Returning>,
}

/// Why a restore ended early.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// It was refused; no disk was written to.
    #[error("{reason}")]
    Refused {
        /// Why, and what to do next.
        reason: String,
        /// How much too small the disk is.
        missing_bytes: Option<u64>,
        /// What can be left out so that it is big enough.
        without: Vec<LeaveOut>,
        /// What can be chosen for a saved disk that has no place.
        instead: Vec<(NodeId, DiskChoice)>,
    },
    /// Data that it needs are damaged in every attached store; no disk was written to.
    #[error(
        "{} of the restore point cannot be read from any attached bundle; attach another bundle that holds it, choose \
         an older restore point, or accept the loss of the files named",
        damages(.0)
    )]
    Damaged(Box<VerifyReport>),
    /// It failed on the way: the target disks are incomplete. It can be started again.
    #[error("{}{reason}; the target disks are incomplete: remove the cause and start the restore again", step_text(.step))]
    Failed {
        /// The step that failed.
        step: Option<String>,
        /// Why.
        reason: String,
    },
    /// All of it was written, but what is there now could not be compared with the saved layout.
    #[error(
        "everything was written, but the result could not be compared with what was saved: {0}; start the restored \
         machine and look at it before you rely on it, or start the restore again"
    )]
    NotCompared(String),
}

fn damages(report: &VerifyReport) -> String {
    match report.damaged.len() {
        1 => "one part".to_owned(),
        n => format!("{n} parts"),
    }
}

fn step_text(step: &Option<String>) -> String {
    step.as_ref()
        .map(|s| format!("\"{s}\" failed: "))
        .unwrap_or_default()
}

impl Stop {
    /// A refusal.
    pub fn refused(reason: impl std::fmt::Display) -> Self {
        Self::Refused {
            reason: reason.to_string(),
            missing_bytes: None,
            without: Vec::new(),
            instead: Vec::new(),
        }
    }

    /// Whether the target disks are not what they were.
    pub fn written(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::NotCompared(_))
    }

    /// Exit status: 2 nothing was written, 1 the target disks are incomplete, or nobody knows what they are.
    pub fn exit_code(&self) -> u8 {
        if self.written() { 1 } else { 2 }
    }

    /// The lines that tell it to log readers.
    pub fn announce(&self, to: &dyn Announce) {
        match self {
            Self::Refused {
                reason,
                missing_bytes,
                ..
            } => {
                let mut line = Line::new("refused").with("reason", reason);
                if let Some(missing) = missing_bytes {
                    line = line.with("missing_bytes", missing);
                }
                to.line(&line);
            }
            Self::Damaged(report) => {
                report.damaged.iter().for_each(|d| announce_damage(d, to));
                to.line(&Line::new("refused").with("reason", self));
            }
            Self::Failed { step, reason } => {
                let step = step.as_deref().unwrap_or("");
                to.line(
                    &Line::new("failed")
                        .with("step", step)
                        .with("reason", reason),
                );
            }
            Self::NotCompared(_) => to.line(
                &Line::new("failed")
                    .with("step", "compare")
                    .with("reason", self),
            ),
        }
    }
}

impl From<PlanError> for Stop {
    fn from(error: PlanError) -> Self {
        let (mut missing_bytes, mut without, mut instead) = (None, Vec::new(), Vec::new());
        match &error {
            PlanError::TooSmall {
                missing,
                without: offered,
                ..
            } => {
                missing_bytes = Some(missing.get());
                without.clone_from(offered);
            }
            PlanError::NoDiskFor {
                disk,
                instead: offered,
                ..
            } => {
                let offered = offered.iter().map(|choice| (disk.clone(), choice.clone()));
                instead.extend(offered);
            }
            _ => {}
        }
        Self::Refused {
            reason: error.to_string(),
            missing_bytes,
            without,
            instead,
        }
    }
}

/// One line per affected file, or one for the damage when it affects no file.
fn announce_damage(damage: &Damage, to: &dyn Announce) {
    let pack = damage
        .pack
        .map_or_else(|| damage.file.clone(), |id| id.to_string());
    let mut line = Line::new("damaged").with("pack", pack);
    if let Some(blob) = &damage.blob {
        line = line.with("blob", blob);
    }
    line = line.with("reason", &damage.reason);
    if damage.files.is_empty() {
        to.line(&line);
    }
    for file in &damage.files {
        to.line(&line.clone().with("file", file));
    }
}

/// What came of a restore that ran to its end.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How much of the machine was touched.
    pub mode: Mode,
    /// Differences between the saved layout and the machine afterwards, accepted ones included.
    pub differences: Vec<Difference>,
    /// Files that are missing or lack metadata.
    pub losses: Losses,
    /// What was done to the files of the host because this is another machine, or it was a member of a cluster.
    pub notes: Vec<String>,
    /// What else to tell: logs that could not be kept, for example.
    pub warnings: Vec<String>,
    /// How long it took.
    pub seconds: u64,
    /// Where the logs are.
    pub logs: Vec<PathBuf>,
    /// How many guests come back at the first boot, and from where.
    pub guests: Option<String>,
}

impl Outcome {
    /// Differences that nothing explains.
    pub fn unexplained(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(|d| !d.accepted)
    }

    /// Everything is as it was saved.
    pub fn complete(&self) -> bool {
        self.unexplained().next().is_none() && self.losses.is_empty()
    }

    /// 0: everything is as it was saved. 3: restored, with differences or losses.
    pub fn exit_code(&self) -> u8 {
        if self.complete() { 0 } else { 3 }
    }

    fn announce(&self, to: &dyn Announce) {
        for d in &self.differences {
            let value = |v: &Option<String>| v.clone().unwrap_or_else(|| "-".to_owned());
            let line = Line::new("difference")
                .with("node", &d.node)
                .with("what", &d.what);
            to.line(
                &line
                    .with("saved", value(&d.saved))
                    .with("now", value(&d.now))
                    .with("accepted", d.accepted),
            );
        }
        for warning in &self.warnings {
            to.line(&Line::new("warning").with("text", warning));
        }
        let line = Line::new("restored").with("differences", self.unexplained().count());
        to.line(
            &line
                .with("lost", self.losses.missing.len())
                .with("seconds", self.seconds),
        );
    }
}

/// Reads the restore point and the machine, and computes the plan. Writes nothing.
pub fn prepare(parts: &dyn Parts, request: &Request) -> Result<Prepared, Stop> {
    let (id, snapshot) = parts
        .snapshot(&request.snapshot)
        .map_err(|e| Stop::refused(format!("{e:#}")))?;
    let saved = Layout::from_value(snapshot.layout.clone()).map_err(|e| {
        Stop::refused(format!(
            "the layout in restore point {} cannot be used: {e}",
            id.short()
        ))
    })?;
    parts
        .take_down(&request.root)
        .map_err(|e| Stop::refused(format!("unmounting what the last attempt left: {e:#}")))?;
    let inventory = parts
        .inventory(&saved, &request.choices)
        .map_err(|e| Stop::refused(format!("looking at this machine's disks: {e:#}")))?;
    let mut request = request.clone();
    for disk in parts.media_disks() {
        if !request.choices.never.contains(&disk) {
            request.choices.never.push(disk);
        }
    }
    let plan = layout::plan::plan(&saved, &inventory, &request.choices)?;
    never_on_media(&plan, &request.choices.never)?;
    let guests = match plan.mode() {
        Mode::BareMetal => parts.guests(id, &snapshot),
        _ => None,
    };
    let finish = Finish::prepare(parts, &snapshot, &plan, &request.nics, request.start)
        .map_err(Stop::refused)?;
    Ok(Prepared {
        id,
        snapshot,
        saved,
        inventory,
        plan,
        finish,
        request,
        guests,
    })
}

/// The planner honours `never`; losing the only bundle is bad enough to look a second time.
fn never_on_media(plan: &Plan, never: &[PathBuf]) -> Result<(), Stop> {
    match plan.disks.iter().find(|d| never.contains(&d.device)) {
        Some(disk) => Err(Stop::refused(format!(
            "{} holds the bundle and must not be erased",
            disk.device.display()
        ))),
        None => Ok(()),
    }
}

/// Reads everything that the restore needs, from all stores as one. Writes nothing.
pub fn check(
    parts: &dyn Parts,
    prepared: &Prepared,
    ui: &dyn Ui,
    to: &dyn Announce,
) -> Result<VerifyReport, Stop> {
    keys::check(parts, prepared)?;
    to.line(&Line::new("checking").with("snapshot", prepared.id));
    let started = Instant::now();
    let report = parts
        .check_readable(&needed(prepared), &ui::Reading(ui))
        .map_err(|e| {
            Stop::refused(format!(
                "restore point {} cannot be read: {e:#}",
                prepared.id.short()
            ))
        })?;
    // Their data are read at the first boot: it would take hours here. That parts are missing is known at once.
    let dumps = prepared.guests.iter().flat_map(|g| parts.missing_of(g));
    for (guest, text) in dumps {
        let text = format!("the dump of guest {guest} is damaged: {text}");
        to.line(&Line::new("warning").with("text", &text));
        ui.warn(&text);
    }
    if report.ok() {
        let line = Line::new("readable").with("snapshot", prepared.id);
        to.line(&line.with("seconds", started.elapsed().as_secs()));
        return Ok(report);
    }
    if prepared.request.accept_loss {
        report.damaged.iter().for_each(|d| announce_damage(d, to));
        return Ok(report);
    }
    Err(Stop::Damaged(Box::new(report)))
}

/// The restore point without what the plan does not bring back: damage in that is no reason to refuse.
fn needed(prepared: &Prepared) -> Snapshot {
    let mut snapshot = prepared.snapshot.clone();
    if prepared.plan.in_place.is_some() {
        let steps = &prepared.plan.steps;
        snapshot.trees.retain(|tree| {
            let is_it = |step: &Step| matches!(step, Step::RestoreTree { mount_point } if Path::new(&tree.mount_point) == mount_point);
            steps.iter().any(is_it)
        });
        snapshot.images.clear();
    }
    snapshot
}

/// Whether the plan makes the root filesystem anew, so that the logs have a place in it.
fn fills_root(plan: &Plan) -> bool {
    let is_root = |step: &Step| matches!(step, Step::RestoreTree { mount_point } if mount_point == Path::new("/"));
    plan.steps.iter().any(is_root)
}

/// Does it. `before_first_write` is called when nothing is left that could refuse (an unattended restore uses its
/// token up there); if it fails, nothing was written.
pub fn run(
    parts: &dyn Parts,
    prepared: &Prepared,
    ui: &dyn Ui,
    to: &dyn Announce,
    before_first_write: &mut dyn FnMut() -> anyhow::Result<()>,
) -> Result<Outcome, Stop> {
    let started = Instant::now();
    let request = &prepared.request;
    // The check may have taken half an hour, in which disks were plugged and pulled.
    let again = prepare(parts, request)?;
    if again.plan != prepared.plan || again.id != prepared.id {
        return Err(Stop::refused(
            "the disks of this machine are not the same any more as when the plan was shown; look at the plan again",
        ));
    }
    let _only_one = parts.lock().map_err(|e| Stop::refused(format!("{e:#}")))?;
    let mut logs = Logs::start(&request.log_dir, prepared).map_err(|e| {
        Stop::refused(format!(
            "keeping a journal in {}: {e:#}",
            request.log_dir.display()
        ))
    })?;
    before_first_write().map_err(|e| Stop::refused(format!("{e:#}")))?;
    for disk in &prepared.plan.disks {
        let serial = disk.identity.serial.as_deref().unwrap_or("-");
        let line = match prepared.plan.mode() {
            Mode::BareMetal => Line::new("erasing"),
            mode => Line::new("working-on").with("mode", mode.word()),
        };
        to.line(
            &line
                .with("disk", disk.device.display())
                .with("serial", serial),
        );
    }
    for disk in &prepared.plan.fence {
        to.line(&Line::new("fenced").with("disk", disk.device.display()));
    }
    if let Some(returning) = &prepared.guests {
        returning.announce(to);
    }
    let left = Mutex::new(Vec::new());
    prepared.finish.announce(to);
    let mut content = StoreContent::new(parts, prepared, ui);
    let events = ui::Steps {
        ui,
        to,
        into_target: &|| match fills_root(&prepared.plan) {
            true => {
                let notes = guests::leave_in(prepared);
                notes.iter().for_each(|text| ui.warn(text));
                left.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(notes);
                logs::copy_into(&request.log_dir, &request.root).map(drop)
            }
            false => Ok(()),
        },
    };
    let applied = parts.apply(
        &prepared.plan,
        &prepared.saved,
        &request.root,
        &mut content,
        &events,
        &mut logs.journal,
    );
    let finished = applied
        .map_err(stop_of)
        .and_then(|()| compare(parts, prepared, &mut content));
    let (losses, notes) = content.outcome();
    let mut warnings = left.into_inner().unwrap_or_else(PoisonError::into_inner);
    let result = finished.map(|(differences, now)| {
        if let Err(error) = logs.keep("after.json", &now) {
            warnings.push(format!(
                "the layout after the restore could not be kept: {error:#}"
            ));
        }
        if let Err(error) = logs.keep("differences.json", &differences) {
            warnings.push(format!("the differences could not be kept: {error:#}"));
        }
        differences
    });
    let places = kept_on_media(parts, &request.log_dir, &mut warnings);
    let differences = result?;
    let seconds = started.elapsed().as_secs();
    let outcome = Outcome {
        mode: prepared.plan.mode(),
        differences,
        losses,
        notes,
        warnings,
        seconds,
        logs: places,
        guests: prepared.guests.as_ref().map(|g| g.summary()),
    };
    outcome.announce(to);
    Ok(outcome)
}

/// Steps that come before the first write.
fn only_looks(step: &Step) -> bool {
    matches!(
        step,
        Step::LuksKey { .. }
            | Step::KeepOthers { .. }
            | Step::LuksUse { .. }
            | Step::RaidUse { .. }
            | Step::GroupUse { .. }
            | Step::VolumeUse { .. }
            | Step::MountReadOnly { .. }
            | Step::CheckBoot { .. }
            | Step::CheckPlaces { .. }
    )
}

fn stop_of(error: ApplyError) -> Stop {
    match error {
        // The fence is the first step: when it refuses, no disk was written to.
        ApplyError::Step {
            index: 0, source, ..
        } => Stop::refused(source),
        // Keys are tried, and what stays is looked at, before anything is erased.
        ApplyError::Step { step, source, .. } if only_looks(&step) => Stop::refused(source),
        ApplyError::Unsafe(reason) => Stop::refused(format!("the plan is not safe: {reason}")),
        ApplyError::Step { step, source, .. } => Stop::Failed {
            step: Some(step.to_string()),
            reason: source.to_string(),
        },
    }
}

/// Captures the machine again and compares: the last line of every restore.
fn compare(
    parts: &dyn Parts,
    prepared: &Prepared,
    content: &mut StoreContent<'_>,
) -> Result<(Vec<Difference>, Layout), Stop> {
    let now = parts
        .recapture(
            &prepared.plan,
            &prepared.saved,
            &prepared.request.root,
            content,
        )
        .map_err(|e| Stop::NotCompared(format!("{e:#}")))?;
    Ok((
        layout::diff::diff(&prepared.saved, &now, &prepared.plan),
        now,
    ))
}

/// Copies the logs onto the media that hold bundles; that one cannot be written to is only a warning.
fn kept_on_media(parts: &dyn Parts, log_dir: &Path, warnings: &mut Vec<String>) -> Vec<PathBuf> {
    let mut places = vec![log_dir.to_owned()];
    match parts.keep_on_media(&|store_dir| logs::copy_onto_bundle(log_dir, store_dir)) {
        Ok(kept) => places.extend(kept),
        Err(error) => warnings.push(format!(
            "the logs could not be kept on the bundle: {error:#}"
        )),
    }
    places
}

#[cfg(test)]
pub(in crate::rescue) mod fakes;
#[cfg(test)]
pub(in crate::rescue) mod finish_tests;
#[cfg(test)]
mod tests;
