//! The case itself: plan, apply, capture, compare, and all of it again.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use layout::apply::{Events, Outcome, apply, recapture};
use layout::diff::diff;
use layout::inventory::inventory;
use layout::model::{Layout, NodeId};
use layout::plan::{Choices, DiskChoice, Plan, PlanError, Step, plan};
use layout::system::Host;
use sha2::{Digest, Sha256};
use vm_tests::uml::case::{Case, Dirt, Expect};

use crate::content::Files;
use crate::machine::{settle, tool};
use crate::{dirt, facts};

/// Where the restored filesystems are mounted.
const TARGET: &str = "/run/target";

/// Progress on the console, which is kept.
struct Console;

impl Events for Console {
    fn step_started(&self, index: usize, total: usize, step: &Step) {
        println!("floor: step {}/{total}: {step}", index + 1);
    }
    fn step_done(&self, _: usize, _: usize, _: &Step, outcome: Outcome, took: Duration) {
        println!("floor:   {outcome:?} after {} ms", took.as_millis());
    }
    fn note(&self, text: &str) {
        println!("floor: note: {text}");
    }
}

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

/// Runs the case that the kernel's command line names.
pub fn run() -> Result<()> {
    let file =
        std::env::var_os("FLOOR_CASE").context("no FLOOR_CASE on the kernel's command line")?;
    let (case, saved) = Case::load(Path::new(&file))?;
    println!("floor: {}", case.description);
    let names: Vec<PathBuf> = (0..case.disks.len())
        .map(|i| PathBuf::from(format!("/dev/ubd{}", (b'a' + i as u8) as char)))
        .collect();
    let mut dirty: Vec<_> = names
        .iter()
        .zip(&case.disks)
        .filter_map(|(name, d)| Some((name, d.dirt?)))
        .collect();
    // Volumes of one name can be active once only: that disk comes last.
    dirty.sort_by_key(|(_, dirt)| matches!(dirt, Dirt::ActivePve | Dirt::PveWithNext));
    for (name, what) in dirty {
        dirt::make(&name.to_string_lossy(), what)
            .with_context(|| format!("making {} dirty", name.display()))?;
    }
    settle()?;
    let others: Vec<&PathBuf> = names
        .iter()
        .filter(|n| !case.map.values().any(|target| target == *n))
        .collect();
    let watched: Vec<&PathBuf> = match case.expect {
        Expect::Restored => others,
        Expect::TooSmall { .. } => names.iter().collect(),
    };
    let before = watched
        .iter()
        .map(|d| fingerprint(d))
        .collect::<Result<Vec<_>>>()?;

    let choices = Choices {
        disks: case
            .map
            .iter()
            .map(|(id, device)| (NodeId::new(id), DiskChoice::Device(device.clone())))
            .collect(),
        grow: case.grow,
        leave_out: case.leave_out.clone(),
        ..Choices::default()
    };
    let present = inventory(&Host)?;
    println!("floor: inventory {}", serde_json::to_string(&present)?);
    match (plan(&saved, &present, &choices), &case.expect) {
        (Err(PlanError::TooSmall { missing, .. }), Expect::TooSmall { missing: expected }) => {
            ensure!(
                missing.0 == *expected,
                "{} bytes are missing, not {expected}",
                missing.0
            );
        }
        (Ok(first), Expect::Restored) => {
            restore(&saved, &first).context("the first time")?;
            let present = inventory(&Host)?;
            let second = plan(&saved, &present, &choices).context("the second plan")?;
            restore(&saved, &second).context("the second time")?;
        }
        (Ok(_), other) => bail!("there is a plan, and {other:?} was expected"),
        (Err(error), other) => bail!("{error}, and {other:?} was expected"),
    }
    for (device, before) in watched.iter().zip(before) {
        let after = fingerprint(device)?;
        ensure!(
            after == before,
            "{} is not what it was: {before:?}, now {after:?}",
            device.display()
        );
    }
    Ok(())
}

fn restore(saved: &Layout, plan: &Plan) -> Result<()> {
    print!("{}", plan.render());
    let root = Path::new(TARGET);
    let mut content = Files { saved, trees: 0 };
    let mut journal = Vec::new();
    apply(
        &Host,
        plan,
        saved,
        root,
        &mut content,
        &Console,
        &mut journal,
    )?;
    ensure!(
        content.trees == saved.filesystems_to_save().len(),
        "{} trees were restored",
        content.trees
    );
    let lines = String::from_utf8(journal)?;
    ensure!(
        lines.lines().count() == 2 * plan.steps.len(),
        "the journal has {} lines",
        lines.lines().count()
    );

    let now = recapture(&Host, plan, saved, root, &mut content)?;
    println!("floor: now {}", now.to_json()?);
    let mut bad = Vec::new();
    for difference in diff(saved, &now, plan) {
        println!("floor: {difference}");
        if !difference.accepted {
            bad.push(difference.to_string());
        }
    }
    ensure!(bad.is_empty(), "differences: {}", bad.join("; "));
    facts::check(saved, plan)
}
