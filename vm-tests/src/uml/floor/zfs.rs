//! Pools: those of earlier lives, and facts asked of zpool, zfs and zdb.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use layout::model::{Layout, Node, NodeId, ZfsPool};
use layout::plan::{PlannedVdev, Step};

use crate::machine::{settle, text, tool};

/// Where the pools of the layouts are imported for a look.
const LOOK: &str = "/run/look";

/// What lies in the cache of pools until the restore makes a new one.
pub const STALE_CACHE: &[u8] = b"the cache of the saved host";

/// Makes an old pool, called as that of the layouts is.
pub fn stale(device: &str, active: bool) -> Result<()> {
    tool(&[
        "zpool",
        "create",
        "-f",
        "-o",
        "cachefile=none",
        "-O",
        "mountpoint=none",
        "rpool",
        device,
    ])?;
    tool(&["zfs", "create", "-u", "rpool/ROOT"])?;
    if !active {
        tool(&["zpool", "export", "rpool"])?;
    }
    settle()
}

/// Imports a restored pool, without mounting anything.
pub fn import(pool: &ZfsPool, vdevs: &[PlannedVdev]) -> Result<()> {
    let mut argv = vec!["zpool", "import", "-N", "-R", LOOK, "-o", "cachefile=none"];
    let devices: Vec<String> = vdevs
        .iter()
        .flat_map(|v| &v.devices)
        .map(|d| d.display().to_string())
        .collect();
    for device in &devices {
        argv.extend(["-d", device]);
    }
    argv.push(&pool.name);
    tool(&argv)?;
    settle()
}

/// Exports it again.
pub fn export(pool: &str) -> Result<()> {
    tool(&["zpool", "export", pool])?;
    settle()
}

fn property(tool_name: &str, of: &str, name: &str) -> Result<String> {
    let out = text(&[tool_name, "get", "-Hp", "-o", "value", name, of])?;
    Ok(out.trim_end().to_owned())
}

/// Looks at an imported pool.
pub fn check(pool: &ZfsPool, vdevs: &[PlannedVdev], saved: &Layout) -> Result<()> {
    // Every block is read and compared with its checksum.
    tool(&["zpool", "scrub", "-w", &pool.name])?;
    let status = text(&["zpool", "status", "-P", "-L", &pool.name])?;
    ensure!(
        status.contains("with 0 errors") && status.contains("errors: No known data errors"),
        "pool {}: {status}",
        pool.name
    );
    for device in vdevs.iter().flat_map(|v| &v.devices) {
        let line = status
            .lines()
            .find(|l| l.split_whitespace().next() == Some(&*device.to_string_lossy()));
        let state = line.and_then(|l| l.split_whitespace().nth(1));
        ensure!(
            matches!(state, Some("ONLINE" | "AVAIL")),
            "{} is {state:?} in {status}",
            device.display()
        );
    }
    for vdev in vdevs.iter().filter(|v| v.kind != "single") {
        ensure!(
            status.contains(&format!("  {}-", vdev.kind)),
            "there is no {} in {status}",
            vdev.kind
        );
    }
    for vdev in vdevs {
        let (Some(ashift), Some(device)) = (vdev.ashift, vdev.devices.first()) else {
            continue;
        };
        let label = text(&["zdb", "-l", &device.to_string_lossy()])?;
        ensure!(
            label.contains(&format!("ashift: {ashift}\n")),
            "{}: no ashift {ashift} in {label}",
            device.display()
        );
        if let Some(hostid) = &pool.hostid {
            let number = u32::from_str_radix(hostid, 16)?;
            ensure!(
                label.contains(&format!("hostid: {number}\n")),
                "{}: no host id {number} in {label}",
                device.display()
            );
        }
    }
    let bootfs = property("zpool", &pool.name, "bootfs")?;
    ensure!(
        bootfs == pool.bootfs.as_deref().unwrap_or("-"),
        "bootfs is {bootfs}"
    );
    let all = text(&[
        "zpool",
        "get",
        "-Hp",
        "-o",
        "property,value",
        "all",
        &pool.name,
    ])?;
    let mut features: Vec<&str> = all
        .lines()
        .filter_map(|l| l.strip_prefix("feature@")?.split_once('\t'))
        .filter(|(_, value)| *value != "disabled")
        .map(|(name, _)| name)
        .collect();
    features.sort_unstable();
    ensure!(features == pool.features, "features are {features:?}");
    datasets(pool, saved)
}

fn datasets(pool: &ZfsPool, saved: &Layout) -> Result<()> {
    let on = NodeId::pool(&pool.name);
    let mut expected: Vec<&str> = Vec::new();
    for node in saved.nodes.values() {
        let Node::ZfsDataset(dataset) = node else {
            continue;
        };
        if dataset.on != on || !dataset.is_made() {
            continue;
        }
        expected.push(&dataset.name);
        for (name, value) in &dataset.properties {
            let mut found = property("zfs", &dataset.name, name)?;
            if name == "mountpoint" {
                if let Some(rest) = found.strip_prefix(LOOK) {
                    found = if rest.is_empty() { "/" } else { rest }.to_owned();
                }
            }
            ensure!(
                found == *value,
                "{}: {name} is {found} rather than {value}",
                dataset.name
            );
        }
    }
    expected.sort_unstable();
    let out = text(&[
        "zfs", "list", "-H", "-r", "-t", "all", "-o", "name", &pool.name,
    ])?;
    let mut found: Vec<&str> = out.lines().collect();
    found.sort_unstable();
    ensure!(found == expected, "datasets are {found:?}");
    Ok(())
}

/// The restored host's cache of pools is a new one, with the pools in it.
pub fn cache(steps: &[Step], root: &Path) -> Result<()> {
    let path: PathBuf = root.join("etc/zfs/zpool.cache");
    for step in steps {
        let Step::ZpoolCreate { pool, .. } = step else {
            continue;
        };
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        ensure!(
            text != STALE_CACHE
                && text
                    .windows(pool.name.len())
                    .any(|w| w == pool.name.as_bytes()),
            "the cache of pools knows nothing of {}",
            pool.name
        );
    }
    Ok(())
}
