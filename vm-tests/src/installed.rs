//! The product installed in a host by its package.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::artefacts::Artefacts;
use crate::process::{self, Cmd, run};
use crate::qemu::Running;

/// The package's file in what the host shares.
const NAME: &str = "lifeboat.deb";

/// What is missing to build the package.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("building the package needs root".to_owned());
    }
    ["dpkg-buildpackage", "dh", "lintian", "jq"]
        .into_iter()
        .find(|program| !process::installed(program))
        .map(|program| format!("{program} is not installed"))
}

/// Builds the package, once for all that ask. The programs in it are those that are built already.
pub fn package(log: &Artefacts) -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(path) = &*built {
        return Ok(path.clone());
    }
    let command = Cmd::new(root().join("scripts/package"));
    let said = run(&command, log, Duration::from_secs(1800))?;
    let said = String::from_utf8_lossy(&said);
    let path = said.lines().last().map(PathBuf::from);
    let path = path.filter(|p| p.is_file()).with_context(|| {
        format!(
            "scripts/package names no package: {}",
            process::tail(&said, 500)
        )
    })?;
    Ok(built.insert(path).clone())
}

/// Puts the package into a directory that the host gets as its [share](crate::qemu::Machine::share), with packages of
/// Debian that the host is to get, too.
pub fn share(dir: &Path, debian: &[&str], log: &Artefacts) -> Result<()> {
    fs::create_dir_all(dir)?;
    let package = package(log)?;
    fs::copy(&package, dir.join(NAME)).with_context(|| format!("{}", package.display()))?;
    if debian.is_empty() {
        return Ok(());
    }
    // The golden hosts are of this machine's release. apt's own user could not write there.
    let download = "cd \"$0\" && { apt-get -q -o APT::Sandbox::User=root download \"$@\" ||
        { apt-get -q update && apt-get -q -o APT::Sandbox::User=root download \"$@\"; }; }";
    let command = Cmd::new("sh").args(["-c", download]).arg(dir);
    run(
        &command.args(debian.iter().copied()),
        log,
        Duration::from_secs(300),
    )?;
    Ok(())
}

/// Installs all of it in a host that runs, with apt, and writes this configuration.
pub fn install(host: &mut Running, config: &str) -> Result<()> {
    let said = host.channel.run(
        &format!(
            "set -e
            mkdir -p /run/share
            modprobe 9pnet_virtio
            mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576 share /run/share
            DEBIAN_FRONTEND=noninteractive apt-get -y -o Dpkg::Use-Pty=0 --no-install-recommends install /run/share/*.deb
            umount /run/share
            rmdir /run/share
            cat >/etc/lifeboat/lifeboat.toml <<'EOF'\n{config}\nEOF
            dpkg-query -Wf '${{db:Status-Abbrev}}${{Version}}\\n' lifeboat
            lifeboat --version"
        ),
        Duration::from_secs(300),
    )?;
    let said = String::from_utf8_lossy(&said);
    let mut last = said.lines().rev();
    let (program, package) = (
        last.next().unwrap_or_default(),
        last.next().unwrap_or_default(),
    );
    ensure!(
        package.strip_prefix("ii ") == program.strip_prefix("lifeboat "),
        "the package was not installed: {package}, {program}"
    );
    Ok(())
}

fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}
