//! The Debian package, on a clean Debian of each release that it is for: no machine, a tree to change the root into.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::artefacts::Artefacts;
use crate::golden::{cache_dir, suite};
use crate::installed;
use crate::process::{self, Cmd};
use crate::runner::Scenario;

/// The releases that it is for.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// One for each release. They take a few minutes, most of them for what they download.
pub fn scenarios() -> Vec<Scenario> {
    let needs: [fn() -> Result<(), String>; 2] = [|| needs(SUITES[0]), || needs(SUITES[1])];
    let about = "the package installs with its Depends alone, makes a stick, upgrades, and leaves backups when it is purged";
    SUITES
        .into_iter()
        .zip(needs)
        .map(|(suite, needs)| {
            let name = format!("package-{suite}");
            Scenario::new(&name, about, needs, |log| check(suite, log)).long()
        })
        .collect()
}

fn needs(on: &str) -> Result<(), String> {
    super::reason(installed::missing())?;
    if !process::installed("debootstrap") {
        return Err("debootstrap is not installed".to_owned());
    }
    let position = |suite: &str| SUITES.iter().position(|s| *s == suite);
    // A C library is newer in each release, and programs need that they were built with.
    if position(on) < position(&suite()) {
        let here = suite();
        return Err(format!(
            "built on {here}, the package is not for {on}: this machine is too new for that"
        ));
    }
    Ok(())
}

fn check(suite: &str, log: &Artefacts) -> Result<()> {
    let package = installed::package(log)?;
    // A quarter of an hour: where downloads are slow. `timeout` asks first, so that nothing stays mounted.
    let command = Cmd::new("timeout")
        .args(["--kill-after=60", "900"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("package/check"))
        .arg(suite)
        .arg(&package)
        .arg(log.path("work"))
        .arg(cache_dir().join(format!("debs-package-{suite}")));
    let ended = process::output(&command, log, Duration::from_secs(1000))?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let kept = log.path("check.log");
    fs::write(&kept, &said)?;
    if ended.status != 0 || !said.lines().any(|line| line == "== done") {
        bail!(
            "the package on {suite} ({}):\n{}",
            kept.display(),
            process::tail(&said, 3000)
        );
    }
    Ok(())
}
