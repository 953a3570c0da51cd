//! Restores that are cut or made to fail at many places, and are then started again from the beginning: the end has to be
//! the same as without.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use layout::apply::unmount_below;
use layout::plan::{Plan, Step};
use layout::system::{Cmd, Host, System};

use crate::failpoint::{Failpoint, How, Place, Trap};
use crate::machine::text;
use crate::restore::{Setup, TARGET};

/// Tells the process that is cut where that happens.
pub const FAILPOINT: &str = "FLOOR_FAILPOINT";

/// The failpoint of this process.
pub fn failpoint() -> Result<Option<Failpoint>> {
    match std::env::var(FAILPOINT) {
        Ok(text) => Ok(Some(text.parse()?)),
        Err(_) => Ok(None),
    }
}

/// One attempt with a trap in its way, which is not come past: in a process that is killed there, or in a machine that is
/// switched off.
pub fn attempt(setup: &Setup, at: Failpoint) -> Result<()> {
    let plan = setup.plan_as(setup.mode())?.context("the plan")?;
    let trap = Trap::new(Some(at));
    match setup.attempt(&plan, &trap)? {
        Err(error) => bail!("instead of a cut at {at}: {error}"),
        Ok(()) => bail!("the restore came to its end, past {at}"),
    }
}

/// Steps that bring files or images.
fn contents(plan: &Plan) -> Vec<&Step> {
    let brings =
        |step: &&Step| matches!(step, Step::RestoreTree { .. } | Step::RestoreImage { .. });
    plan.steps.iter().filter(brings).collect()
}

fn every(count: usize, stride: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(stride.max(1))
}

/// Where a restore is cut.
pub struct Points {
    /// Each.
    pub all: Vec<Failpoint>,
    boundaries: usize,
    of: usize,
}

impl Points {
    /// Before every `stride`-th step, and half way through every tree and image in each possible way.
    pub fn of(plan: &Plan, stride: usize) -> Points {
        // Before the first step nothing was done.
        let of = plan.steps.len() - 1;
        let mut all: Vec<Failpoint> = every(of, stride)
            .map(|n| Failpoint {
                place: Place::Step(n + 1),
                how: How::Kill,
            })
            .collect();
        let boundaries = all.len();
        for (n, step) in contents(plan).iter().enumerate() {
            let mut hows = vec![How::Kill, How::Error];
            if matches!(step, Step::RestoreTree { mount_point } if on_device_mapper(plan, mount_point))
            {
                hows.push(How::Broken);
            }
            let place = Place::Content(n);
            all.extend(hows.into_iter().map(|how| Failpoint { place, how }));
        }
        Points {
            all,
            boundaries,
            of,
        }
    }
}

impl std::fmt::Display for Points {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} boundaries between steps were cut, and the content {} times",
            self.boundaries,
            self.of,
            self.all.len() - self.boundaries
        )
    }
}

/// Kills the restoring process at each of [`Points`], and restores after it.
pub fn cuts(setup: &Setup, stride: usize) -> Result<()> {
    setup.make_dirty()?;
    let watch = setup.watch()?;
    let plan = setup.plan()?.context("the plan")?;
    let points = Points::of(&plan, stride);
    for (n, at) in points.all.iter().enumerate() {
        let started = Instant::now();
        if n > 0 {
            setup.make_dirty_again()?;
        }
        println!("floor: cut {} of {}: {at}", n + 1, points.all.len());
        cut(setup, *at)
            .and_then(|()| setup.restore())
            .with_context(|| format!("after a cut at {at}"))?;
        println!("floor: restored after {} ms", started.elapsed().as_millis());
    }
    watch.ensure_same()?;
    println!("floor: {points}");
    Ok(())
}

/// A restore that does not come to its end.
pub fn cut(setup: &Setup, at: Failpoint) -> Result<()> {
    match at.how {
        How::Kill => kill(at),
        _ => fail(setup, at),
    }
}

fn on_device_mapper(plan: &Plan, at: &Path) -> bool {
    plan.steps.iter().any(|step| match step {
        Step::Mount {
            device,
            mount_point,
            ..
        } => {
            mount_point == at
                && plan.steps.iter().any(|s| {
                    matches!(s, Step::LvCreate { vg, name, .. } if *device == Path::new("/dev").join(vg).join(name))
                })
        }
        _ => false,
    })
}

/// A process that restores, and is killed.
fn kill(at: Failpoint) -> Result<()> {
    let command = Cmd::new("/proc/self/exe")
        .env(FAILPOINT, &at.to_string())
        .timeout(Duration::from_secs(600))
        // 128 and SIGKILL.
        .accept(137)
        .accept(1);
    let output = Host.run(&command)?;
    ensure!(
        output.status == 137,
        "the restoring process was not killed but ended with status {}",
        output.status
    );
    let mounts = text(&["findmnt", "-r", "-n", "-o", "TARGET"])?;
    let left = mounts.lines().filter(|l| l.starts_with(TARGET)).count();
    let volumes = text(&["dmsetup", "ls"])?;
    println!(
        "floor: left mounted: {left}; device-mapper: {}",
        volumes.trim().replace('\n', ", ")
    );
    // As the rescue system does before it looks at the disks.
    unmount_below(&Host, Path::new(TARGET))?;
    Ok(())
}

/// A restore that fails, and says so.
fn fail(setup: &Setup, at: Failpoint) -> Result<()> {
    let plan = setup.plan_as(setup.mode())?.context("the plan")?;
    let trap = Trap::new(Some(at));
    let result = setup.attempt(&plan, &trap)?;
    ensure!(trap.sprung(), "{at} was not reached: {result:?}");
    match result {
        Ok(()) => bail!("the restore reports success although it failed at {at}"),
        Err(error) => {
            println!("floor: it says: {error}");
            Ok(())
        }
    }
}

/// Lets every `stride`-th call through the door fail: before it is made, and in another restore after it was made. The restore
/// fails too, or ends as it should; the one after it ends as it should.
pub fn errors(setup: &Setup, stride: usize) -> Result<()> {
    setup.make_dirty()?;
    let watch = setup.watch()?;
    let plan = setup.plan()?.context("the plan")?;
    let counter = Trap::default();
    setup.attempt(&plan, &counter)??;
    setup.ensure_restored(&plan)?;
    let calls = counter.calls();
    let (mut failed, mut went_on) = (0, 0);
    for (turn, n) in every(calls, stride).enumerate() {
        // With a stride both ways take turns.
        let hows: &[How] = match (stride, turn % 2) {
            (0 | 1, _) => &[How::Error, How::ErrorAfter],
            (_, 0) => &[How::Error],
            _ => &[How::ErrorAfter],
        };
        for how in hows {
            let at = Failpoint {
                place: Place::Call(n),
                how: *how,
            };
            let started = Instant::now();
            println!("floor: {at} of {calls}");
            setup.make_dirty_again()?;
            if one_error(setup, at).with_context(|| format!("{at} of {calls}"))? {
                went_on += 1;
            } else {
                failed += 1;
            }
            println!("floor: restored after {} ms", started.elapsed().as_millis());
        }
    }
    watch.ensure_same()?;
    println!(
        "floor: of {calls} calls {} were made to fail: {failed} ended the restore, {went_on} did not matter",
        failed + went_on
    );
    Ok(())
}

/// Says whether the restore succeeded although a call failed.
fn one_error(setup: &Setup, at: Failpoint) -> Result<bool> {
    let plan = setup.plan()?.context("the plan")?;
    let trap = Trap::new(Some(at));
    let result = setup.attempt(&plan, &trap)?;
    ensure!(trap.sprung(), "it was not reached: {result:?}");
    match &result {
        Ok(()) => setup
            .ensure_restored(&plan)
            .context("success was reported, and it is none")?,
        Err(error) => println!("floor: it says: {error}"),
    }
    setup.restore().context("the restore after it")?;
    Ok(result.is_ok())
}
