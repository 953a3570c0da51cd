//! The case itself: plan, apply, capture, compare, and all of it again.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use layout::apply::{ApplyError, apply, recapture};
use layout::diff::diff;
use layout::inventory::inventory_for;
use layout::model::{Layout, NodeId};
use layout::plan::{Choices, DiskChoice, Mode, Plan, PlanError, Step, plan};
use layout::system::Host;
use sha2::{Digest, Sha256};
use vm_tests::uml::case::{Case, Dirt, Expect};

use crate::content::Files;
use crate::dirt;
use crate::facts;
use crate::failpoint::{Console, Door, Trap};
use crate::machine::{other_sectors, settle, tool};

/// Where the restored filesystems are mounted.
pub const TARGET: &str = "/run/target";

/// The content of a disk as the kernel has it on the medium, and how often it was written to.
fn fingerprint(device: &Path) -> Result<(String, u64)> {
    nix::unistd::sync();
    tool(&["blockdev", "--flushbufs", &device.to_string_lossy()])?;
    let mut hash = Sha256::new();
    let mut file = File::open(device).with_context(|| device.display().to_string())?;
    let mut buf = vec![0u8; 1 << 20];
    loop {
        let n = file.read(&mut buf)?;
        if n == 0 {
            break;
        }
        hash.update(&buf[..n]);
    }
    let name = device
        .file_name()
        .context("no device name")?
        .to_string_lossy()
        .into_owned();
    let stat = std::fs::read_to_string(format!("/sys/class/block/{name}/stat"))?;
    // Completed writes: the fifth field (kernel: Documentation/block/stat.rst).
    let writes = stat
        .split_whitespace()
        .nth(4)
        .context("stat has no write counter")?
        .parse()?;
    Ok((hex::encode(hash.finalize()), writes))
}

/// Disks that nobody may write to, and what they were.
pub struct Watch(Vec<(PathBuf, (String, u64))>);

impl Watch {
    fn new(disks: &[PathBuf]) -> Result<Watch> {
        let seen = disks.iter().map(|d| Ok((d.clone(), fingerprint(d)?)));
        Ok(Watch(seen.collect::<Result<_>>()?))
    }

    /// They are what they were.
    pub fn ensure_same(&self) -> Result<()> {
        for (device, before) in &self.0 {
            let after = fingerprint(device)?;
            ensure!(
                after == *before,
                "{} is not what it was: {before:?}, now {after:?}",
                device.display()
            );
        }
        Ok(())
    }
}

/// A case with the disks of this machine.
pub struct Setup {
    /// The case.
    pub case: Case,
    /// Its saved layout.
    pub saved: Layout,
    /// The machine's disks, in the order of the case.
    pub disks: Vec<PathBuf>,
}

impl Setup {
    /// The case that the kernel's command line names.
    pub fn load() -> Result<Setup> {
        let file =
            std::env::var_os("FLOOR_CASE").context("no FLOOR_CASE on the kernel's command line")?;
        let (case, saved) = Case::load(Path::new(&file))?;
        println!("floor: {}", case.description);
        let disks = case
            .disks
            .iter()
            .enumerate()
            .map(|(i, _)| case.device(i))
            .collect();
        for disk in &case.disks {
            other_sectors(disk)?;
        }
        Ok(Setup { case, saved, disks })
    }

    fn is_target(&self, disk: &Path) -> bool {
        self.case.is_target(disk)
    }

    /// Gives all disks their past.
    pub fn make_dirty(&self) -> Result<()> {
        self.soil(|_| true)
    }

    /// Gives the targets their past once more. Nothing on them may be active.
    pub fn make_dirty_again(&self) -> Result<()> {
        for disk in self.disks.iter().filter(|d| self.is_target(d)) {
            dirt::clear(disk).with_context(|| format!("clearing {}", disk.display()))?;
        }
        self.soil(|disk| self.is_target(disk))
    }

    fn soil(&self, wanted: impl Fn(&Path) -> bool) -> Result<()> {
        let mut dirty: Vec<(&PathBuf, Dirt)> = self
            .disks
            .iter()
            .zip(&self.case.disks)
            .filter(|(disk, _)| wanted(disk))
            .filter_map(|(disk, spec)| Some((disk, spec.dirt?)))
            .collect();
        // Volumes of one name can be active once only: that disk comes last.
        dirty.sort_by_key(|(_, dirt)| {
            matches!(dirt, Dirt::ActivePve | Dirt::PveWithNext | Dirt::ActivePool)
        });
        for (disk, what) in dirty {
            dirt::make(&disk.to_string_lossy(), what)
                .with_context(|| format!("making {} dirty", disk.display()))?;
        }
        settle()
    }

    /// Watches the disks that are not restored onto; all of them when the case is to be refused.
    pub fn watch(&self) -> Result<Watch> {
        let refused = matches!(self.case.expect, Expect::TooSmall { .. });
        let disks: Vec<PathBuf> = self
            .disks
            .iter()
            .filter(|d| refused || !self.is_target(d))
            .cloned()
            .collect();
        Watch::new(&disks)
    }

    /// What the case is about, in the end.
    pub fn mode(&self) -> Mode {
        let in_place = self.case.in_place.as_ref();
        in_place.map_or(Mode::BareMetal, |case| case.mode)
    }

    /// Makes a plan of bare metal for the machine as it is now.
    pub fn plan(&self) -> Result<Result<Plan, PlanError>> {
        self.plan_as(Mode::BareMetal)
    }

    /// As [`Setup::plan`], in a mode.
    pub fn plan_as(&self, mode: Mode) -> Result<Result<Plan, PlanError>> {
        let disks = self.case.map.iter();
        let choices = Choices {
            mode,
            disks: disks
                .map(|(id, device)| (NodeId::new(id), DiskChoice::parse(device)))
                .collect(),
            grow: self.case.grow,
            leave_out: self.case.leave_out.clone(),
            ..Choices::default()
        };
        let present = inventory_for(&Host, &self.saved, &choices)?;
        println!("floor: inventory {}", serde_json::to_string(&present)?);
        Ok(plan(&self.saved, &present, &choices))
    }

    /// One restore from the plan to the comparison.
    pub fn restore(&self) -> Result<()> {
        let plan = self.plan()?.context("the plan")?;
        print!("{}", plan.render());
        self.attempt(&plan, &Trap::default())??;
        self.ensure_restored(&plan)
    }

    /// Applies a plan, with a trap in its way.
    pub fn attempt(&self, plan: &Plan, trap: &Trap) -> Result<Result<(), ApplyError>> {
        let mut content = Files {
            saved: &self.saved,
            trees: 0,
            trap,
        };
        let mut journal = Vec::new();
        let done = apply(
            &Door(trap),
            plan,
            &self.saved,
            Path::new(TARGET),
            &mut content,
            &Console(trap),
            &mut journal,
        );
        if done.is_ok() {
            let trees = match plan.in_place {
                None => self.saved.filesystems_to_save().len(),
                Some(_) => {
                    let steps = plan.steps.iter();
                    steps
                        .filter(|s| matches!(s, Step::RestoreTree { .. }))
                        .count()
                }
            };
            ensure!(
                content.trees == trees,
                "{} trees were restored",
                content.trees
            );
            let lines = String::from_utf8(journal)?.lines().count();
            ensure!(
                lines == 2 * plan.steps.len(),
                "the journal has {lines} lines"
            );
        }
        Ok(done)
    }

    /// Captures again, compares with what was saved, and asks other tools.
    pub fn ensure_restored(&self, plan: &Plan) -> Result<()> {
        self.ensure_same_layout(plan)?;
        facts::check(&self.saved, plan)
    }

    /// Captures again and compares with what was saved.
    pub fn ensure_same_layout(&self, plan: &Plan) -> Result<()> {
        let trap = Trap::default();
        let mut content = Files {
            saved: &self.saved,
            trees: 0,
            trap: &trap,
        };
        let now = recapture(&Host, plan, &self.saved, Path::new(TARGET), &mut content)?;
        println!("floor: now {}", now.to_json()?);
        let mut bad = Vec::new();
        for difference in diff(&self.saved, &now, plan) {
            println!("floor: {difference}");
            if !difference.accepted {
                bad.push(difference.to_string());
            }
        }
        ensure!(bad.is_empty(), "differences: {}", bad.join("; "));
        Ok(())
    }
}

/// Runs the case.
pub fn run(setup: &Setup) -> Result<()> {
    setup.make_dirty()?;
    let watch = setup.watch()?;
    match (setup.plan()?, &setup.case.expect) {
        (Err(PlanError::TooSmall { missing, .. }), Expect::TooSmall { missing: expected }) => {
            ensure!(
                missing.0 == *expected,
                "{} bytes are missing, not {expected}",
                missing.0
            );
        }
        (Ok(_), Expect::Restored) => {
            setup.restore().context("the first time")?;
            setup.restore().context("the second time")?;
        }
        (Ok(_), other) => bail!("there is a plan, and {other:?} was expected"),
        (Err(error), other) => bail!("{error}, and {other:?} was expected"),
    }
    watch.ensure_same()
}
