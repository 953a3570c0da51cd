//! btrfs, as its own tools and the kernel see it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use layout::model::Btrfs;
use layout::plan::{Plan, PlannedSubvolume, Step};
use nix::mount::{MsFlags, mount, umount};

use crate::machine::{text, tool};

const LOOK: &str = "/run/look";

/// Mounts a subvolume (`None`: what is mounted when none is named) and looks at it.
pub fn look<T>(
    devices: &[PathBuf],
    subvolume: Option<&str>,
    flags: MsFlags,
    see: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let first = devices.first().context("no device")?;
    let mut data: Vec<String> = devices
        .iter()
        .map(|d| format!("device={}", d.display()))
        .collect();
    data.extend(subvolume.map(|path| format!("subvol=/{path}")));
    mount(
        Some(first),
        LOOK,
        Some("btrfs"),
        flags,
        Some(data.join(",").as_str()),
    )
    .with_context(|| format!("mounting {}", first.display()))?;
    let seen = see(Path::new(LOOK));
    umount(LOOK)?;
    seen
}

/// Compares a filesystem with the planned one.
pub fn check(devices: &[PathBuf], fs: &Btrfs) -> Result<()> {
    for device in devices {
        crate::facts::signed(device, "btrfs", &fs.uuid, fs.label.as_deref())?;
        let superblock = text(&[
            "btrfs",
            "inspect-internal",
            "dump-super",
            &device.to_string_lossy(),
        ])?;
        let field = |name: &str| {
            let line = superblock
                .lines()
                .find(|l| l.split_whitespace().next() == Some(name));
            line.and_then(|l| l.split_whitespace().nth(1))
                .map(str::to_owned)
        };
        for (name, wanted) in [
            ("num_devices", devices.len().to_string()),
            ("nodesize", fs.node_size.0.to_string()),
            ("sectorsize", fs.sector_size.0.to_string()),
        ] {
            ensure!(
                field(name).as_deref() == Some(&wanted),
                "{name} is {:?}, not {wanted}",
                field(name)
            );
        }
        let sum = superblock
            .lines()
            .find(|l| l.starts_with("csum_type"))
            .context("no csum_type")?;
        ensure!(sum.contains(&fs.checksum), "{sum}, not {}", fs.checksum);
        for (feature, flag) in [
            ("no-holes", "NO_HOLES"),
            ("free-space-tree", "FREE_SPACE_TREE "),
            ("extref", "EXTENDED_IREF"),
        ] {
            let on = superblock.contains(flag);
            ensure!(
                on == fs.features.iter().any(|f| f == feature),
                "{feature} is {on}: {superblock}"
            );
        }
    }
    let first = devices.first().context("no device")?.to_string_lossy();
    tool(&["btrfs", "check", "--readonly", &first])?;
    look(devices, Some(""), MsFlags::MS_RDONLY, |top| {
        let df = text(&["btrfs", "filesystem", "df", &top.to_string_lossy()])?;
        for (kind, profile) in [("Data", &fs.data), ("Metadata", &fs.metadata)] {
            let Some(profile) = profile else { continue };
            let profile = if profile == "single" {
                profile.clone()
            } else {
                profile.to_uppercase()
            };
            let found: Vec<&str> = df
                .lines()
                .filter_map(|l| l.strip_prefix(kind)?.strip_prefix(", ")?.split(':').next())
                .collect();
            ensure!(
                found == [profile.as_str()],
                "{kind} is {found:?}, not {profile}"
            );
        }
        Ok(())
    })
}

/// Compares subvolumes with the planned ones.
pub fn subvolumes(
    devices: &[PathBuf],
    planned: &[PlannedSubvolume],
    default: &str,
    fs: &Btrfs,
) -> Result<()> {
    look(devices, Some(""), MsFlags::MS_RDONLY, |top| {
        let at = top.to_string_lossy();
        let paths = |args: &[&str]| -> Result<BTreeSet<String>> {
            let out = text(&[&["btrfs", "subvolume"], args, &[&*at]].concat())?;
            Ok(out
                .lines()
                .filter_map(|l| Some(l.split_once(" path ")?.1.to_owned()))
                .collect())
        };
        let wanted: BTreeSet<String> = planned.iter().map(|s| s.path.clone()).collect();
        let found = paths(&["list"])?;
        ensure!(found == wanted, "{found:?}, not {wanted:?}");
        let sealed: BTreeSet<String> = planned
            .iter()
            .map(|s| s.path.clone())
            .filter(|path| fs.subvolumes.get(path).is_some_and(|s| s.read_only))
            .collect();
        let found = paths(&["list", "-r"])?;
        ensure!(found == sealed, "read-only: {found:?}, not {sealed:?}");
        let found = paths(&["get-default"])?;
        let wanted: BTreeSet<String> = [default.to_owned()]
            .into_iter()
            .filter(|d| !d.is_empty())
            .collect();
        ensure!(found == wanted, "default: {found:?}, not {wanted:?}");
        Ok(())
    })
}

/// Swap files: what blkid says of them, whether they have holes, whether the kernel takes them.
pub fn swap_files(plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        let Step::MakeSwapFile {
            path,
            size,
            uuid,
            label,
            ..
        } = step
        else {
            continue;
        };
        let below = |place: &Path| path.strip_prefix(place).ok().map(Path::to_owned);
        let see = |dir: &Path, rest: &Path| {
            swap_file(&dir.join(rest), size.0, uuid.as_deref(), label.as_deref())
        };
        // The last mount that the path lies below is the innermost.
        let on = plan.steps.iter().rev().find_map(|step| match step {
            Step::Mount { mount_point, .. } | Step::MountSubvolume { mount_point, .. } => {
                Some((step, below(mount_point)?))
            }
            _ => None,
        });
        match on.with_context(|| format!("{} lies on nothing", path.display()))? {
            (
                Step::MountSubvolume {
                    devices, subvolume, ..
                },
                rest,
            ) => {
                look(devices, Some(subvolume), MsFlags::empty(), |dir| {
                    see(dir, &rest)
                })?;
            }
            (Step::Mount { device, fstype, .. }, rest) => {
                mount(
                    Some(device),
                    LOOK,
                    Some(fstype.as_str()),
                    MsFlags::empty(),
                    None::<&str>,
                )?;
                let seen = see(Path::new(LOOK), &rest);
                umount(LOOK)?;
                seen?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn swap_file(file: &Path, size: u64, uuid: Option<&str>, label: Option<&str>) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(file).with_context(|| file.display().to_string())?;
    ensure!(
        meta.len() == size && meta.blocks() * 512 >= size,
        "{} has {} bytes in {} blocks",
        file.display(),
        meta.len(),
        meta.blocks()
    );
    ensure!(
        meta.mode() & 0o777 == 0o600,
        "{} has mode {:o}",
        file.display(),
        meta.mode()
    );
    let name = file.to_string_lossy();
    let tags = text(&["blkid", "-p", "-o", "export", &name])?;
    let has = |key: &str, value: Option<&str>| {
        value.is_none_or(|v| tags.lines().any(|l| l == format!("{key}={v}")))
    };
    ensure!(
        has("TYPE", Some("swap")) && has("UUID", uuid) && has("LABEL", label),
        "{name}: {tags}"
    );
    tool(&["swapon", &name])?;
    tool(&["swapoff", &name])?;
    Ok(())
}
