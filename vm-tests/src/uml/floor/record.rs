//! The restored machine as if it was running, recorded: capture sees the recording as it sees the machine.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use layout::capture::capture;
use layout::plan::{Plan, Step};
use layout::record::{record, replay};
use layout::system::{Cmd, Host, System};
use nix::mount::{MsFlags, mount};

use crate::restore::{Setup, TARGET};
use crate::{facts, stack};

/// Set for the process that records inside of the restored root.
pub const RECORD: &str = "FLOOR_RECORD";

/// Restores, starts what was restored as far as storage goes, records it, and keeps the document where the harness wants it.
pub fn run(setup: &Setup) -> Result<()> {
    setup.make_dirty()?;
    setup.restore()?;
    let plan = setup.plan()?.context("the plan")?;
    up(&plan)?;
    let command = Cmd::new("/proc/self/exe")
        .env(RECORD, "1")
        .in_root(TARGET)
        .timeout(Duration::from_secs(90));
    let text = Host.run(&command)?.text();
    let (document, problems) = text.split_once("\nproblems:").context("no document")?;
    ensure!(problems.trim().is_empty(), "the recording: {problems}");
    let layout = capture(&replay(document)?)?;
    let mut places: Vec<&PathBuf> = layout.mounts.iter().map(|m| &m.mount_point).collect();
    let mut expected: Vec<&PathBuf> = setup.saved.mounts.iter().map(|m| &m.mount_point).collect();
    places.sort();
    expected.sort();
    ensure!(
        places == expected,
        "mounted are {places:?}, not {expected:?}"
    );
    let out = std::env::var("FLOOR_OUT").context("no FLOOR_OUT on the kernel's command line")?;
    let kept = Path::new("/run/out");
    std::fs::create_dir_all(kept)?;
    mount(
        Some("none"),
        kept,
        Some("hostfs"),
        MsFlags::empty(),
        Some(out.as_str()),
    )
    .with_context(|| format!("mounting {out}"))?;
    std::fs::write(kept.join("host.json"), document)?;
    Ok(())
}

/// What process 1 of the restored machine would do.
fn up(plan: &Plan) -> Result<()> {
    stack::up(plan, &|args| facts::lvm(plan, args))?;
    let bind = |from: &str, to: &Path| -> Result<()> {
        std::fs::create_dir_all(to)?;
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("binding {from}"))
    };
    let root = Path::new(TARGET);
    let mut mounted_root = false;
    for step in &plan.steps {
        let (device, fstype, mount_point, options) = match step {
            Step::Mount {
                device,
                fstype,
                mount_point,
            } => (device, fstype.as_str(), mount_point, String::new()),
            Step::MountSubvolume {
                devices,
                subvolume,
                mount_point,
                ..
            } => {
                let first = devices.first().context("a btrfs without devices")?;
                let of = devices.iter().map(|d| format!("device={},", d.display()));
                let options = format!("{}subvol=/{subvolume}", of.collect::<String>());
                (first, "btrfs", mount_point, options)
            }
            _ => continue,
        };
        if mount_point != Path::new("/") && !mounted_root {
            // A disk without a system: its root is elsewhere.
            mount(
                Some("tmpfs"),
                root,
                Some("tmpfs"),
                MsFlags::empty(),
                None::<&str>,
            )?;
        }
        mounted_root = true;
        let at = root.join(mount_point.strip_prefix("/")?);
        std::fs::create_dir_all(&at)?;
        mount(
            Some(&device.canonicalize()?),
            &at,
            Some(fstype),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .with_context(|| format!("mounting {}", device.display()))?;
    }
    for dir in ["/usr", "/proc", "/sys", "/dev", "/run"] {
        bind(dir, &root.join(&dir[1..]))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        if !root.join(name).exists() {
            symlink(format!("usr/{name}"), root.join(name))?;
        }
    }
    Ok(())
}

/// In the restored root: prints the document, and what is wrong with it.
pub fn inside() -> ExitCode {
    let recording = record(&Host);
    match recording.to_json() {
        Ok(text) => {
            print!("{text}\nproblems:{}", recording.problems.join("; "));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
