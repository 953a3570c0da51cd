//! Arrays: those of earlier lives, and facts asked of mdadm and the kernel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use layout::model::RaidArray;

use crate::machine::{settle, text, tool};

/// How the layouts' arrays are called, too: an old array of that name must not come in between.
const NAME: [&str; 2] = ["--homehost=floor", "--name=0"];

/// Makes an old array on a device, and on a second one where there is one; stopped, unless `active`.
pub fn stale(
    device: &str,
    second: Option<&str>,
    metadata: &str,
    array: &str,
    active: bool,
) -> Result<()> {
    let mut argv = vec![
        "mdadm",
        "--create",
        array,
        "--run",
        "--force",
        "--assume-clean",
        "--level=1",
        "--raid-devices=2",
        "--bitmap=none",
        metadata,
    ];
    argv.extend(NAME);
    argv.extend([device, second.unwrap_or("missing")]);
    tool(&argv)?;
    settle()?;
    tool(&[
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "stale", array, "32M",
    ])?;
    if !active {
        settle()?;
        tool(&["mdadm", "--stop", array])?;
    } else if second.is_some() {
        // Until then the kernel writes to the members by itself.
        let file = Path::new("/sys/class/block")
            .join(array.trim_start_matches("/dev/"))
            .join("md/array_state");
        nix::unistd::sync();
        for _ in 0..50 {
            if std::fs::read_to_string(&file)?.trim() == "clean" {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// No array is left running.
pub fn all_stopped() -> Result<()> {
    let stat = std::fs::read_to_string("/proc/mdstat").unwrap_or_default();
    ensure!(
        !stat.lines().any(|l| l.starts_with("md")),
        "arrays are still there: {stat}"
    );
    Ok(())
}

/// Finds the members by the metadata alone, as the restored host will.
pub fn assemble(device: &Path, array: &RaidArray) -> Result<()> {
    tool(&[
        "mdadm",
        "--assemble",
        &device.to_string_lossy(),
        "--config=partitions",
        "--uuid",
        &array.uuid,
        "--run",
    ])?;
    settle()
}

pub fn stop(device: &Path) -> Result<()> {
    settle()?;
    tool(&["mdadm", "--stop", &device.to_string_lossy()])?;
    Ok(())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|l| l.split_once(" : "))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// What mdadm says of a running array and of its members.
pub fn check(device: &Path, members: &[PathBuf], array: &RaidArray) -> Result<()> {
    let node = device.to_string_lossy();
    let detail = text(&["mdadm", "--detail", &node])?;
    let is = |name: &str, wanted: &str| {
        let found = field(&detail, name);
        ensure!(
            found.is_some_and(|f| f == wanted || f.starts_with(&format!("{wanted} "))),
            "{node}: {name} is {found:?}, not {wanted}: {detail}"
        );
        Ok(())
    };
    is("Version", &array.metadata)?;
    is("Raid Level", &array.level)?;
    is("Raid Devices", &array.raid_devices.to_string())?;
    is("UUID", &array.uuid)?;
    is("Name", &array.name)?;
    if array.chunk_size.0 > 0 {
        is("Chunk Size", &format!("{}K", array.chunk_size.0 >> 10))?;
    }
    if let Some(layout) = &array.layout {
        // RAID 10 is told in other words than it is asked for.
        let words = match layout.split_at(1) {
            ("n", copies) if array.level == "raid10" => format!("near={copies}"),
            ("f", copies) if array.level == "raid10" => format!("far={copies}"),
            ("o", copies) if array.level == "raid10" => format!("offset={copies}"),
            _ => layout.clone(),
        };
        is("Layout", &words)?;
    }
    let bitmap = field(&detail, "Intent Bitmap").is_some();
    ensure!(
        bitmap == array.bitmap_chunk.is_some(),
        "{node}: bitmap {bitmap}: {detail}"
    );
    let size: u64 = text(&["blockdev", "--getsize64", &node])?.trim().parse()?;
    ensure!(
        size == array.size.0,
        "{node} has {size} bytes, not {}",
        array.size.0
    );
    for (at, member) in members.iter().zip(&array.members) {
        let examined = text(&["mdadm", "--examine", &at.to_string_lossy()])?;
        let get =
            |name: &str| field(&examined, name).with_context(|| format!("no {name}: {examined}"));
        let role = match member.slot {
            Some(slot) => format!("Active device {slot}"),
            None => "spare".to_owned(),
        };
        ensure!(get("Device Role")? == role, "{}: {examined}", at.display());
        let offset = format!("{} sectors", member.data_offset.0 / 512);
        // Metadata at the end: the data start where the member starts, and mdadm says nothing of it.
        let found = field(&examined, "Data Offset").unwrap_or("0 sectors");
        ensure!(found == offset, "{}: {examined}", at.display());
        let flag = field(&examined, "Flags").is_some_and(|f| f.contains("write-mostly"));
        ensure!(flag == member.write_mostly, "{}: {examined}", at.display());
    }
    Ok(())
}
