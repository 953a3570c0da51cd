//! Drivers that the initramfs needs for disks of another kind.

use std::path::{Path, PathBuf};

use super::{Executor, Outcome, StepError};
use crate::system::System;

/// Where initramfs-tools has the list of modules (initramfs-tools(7), `MODULES=list`).
const LIST: &str = "/etc/initramfs-tools/modules";

/// The kernel modules between a disk and the processor. What is built into the running kernel is not among them: the restored
/// host has the same kernel, or one of the same distribution.
fn modules(sys: &dyn System, device: &Path) -> Vec<String> {
    let Some(name) = device.file_name() else {
        return Vec::new();
    };
    let mut found: Vec<String> = Vec::new();
    let link = Path::new("/sys/class/block").join(name);
    let Ok(mut place) = sys.canonicalize(&link) else {
        return found;
    };
    while place.starts_with("/sys/devices") {
        if let Ok(module) = sys.canonicalize(&place.join("driver/module")) {
            if let Some(name) = module.file_name() {
                let name = name.to_string_lossy().into_owned();
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
        if !place.pop() {
            break;
        }
    }
    found
}

/// Those that the list does not have.
fn missing(list: &str, wanted: &[String]) -> Vec<String> {
    let plain = |name: &str| name.replace('-', "_");
    let listed: Vec<String> = list
        .lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .filter_map(|l| l.split_whitespace().next())
        .map(plain)
        .collect();
    wanted
        .iter()
        .filter(|m| !listed.contains(&plain(m)))
        .cloned()
        .collect()
}

impl Executor<'_> {
    pub(in crate::apply) fn initramfs_drivers(
        &mut self,
        devices: &[PathBuf],
    ) -> Result<Outcome, StepError> {
        let mut wanted: Vec<String> = devices.iter().flat_map(|d| modules(self.sys, d)).collect();
        wanted.sort();
        wanted.dedup();
        let path = self.inside(Path::new(LIST));
        let mut text = self.sys.text(&path).unwrap_or_default();
        let new = missing(&text, &wanted);
        if new.is_empty() {
            return Ok(Outcome::AlreadySo);
        }
        if !text.is_empty() {
            text.push('\n');
        }
        for module in &new {
            text.push_str(module);
            text.push('\n');
        }
        self.sys.write(&path, text.as_bytes())?;
        self.events
            .note(&format!("{LIST}: added {}", new.join(", ")));
        self.update_initramfs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Recorded;

    #[test]
    fn every_driver_on_the_way_to_a_disk_is_found() {
        let disk = "/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda";
        let sys = Recorded::new()
            .link("/sys/class/block/sda", disk)
            .link(
                "/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/driver/module",
                "/sys/module/sd_mod",
            )
            .link(
                "/sys/devices/pci0000:00/0000:00:1f.2/driver/module",
                "/sys/module/ahci",
            );
        assert_eq!(modules(&sys, Path::new("/dev/sda")), ["sd_mod", "ahci"]);
        assert!(modules(&sys, Path::new("/dev/sdb")).is_empty());
    }

    #[test]
    fn what_is_listed_is_not_missing() {
        let list = "# nvme\nsd-mod\next4 option=1\n";
        let wanted = ["sd_mod", "ext4", "nvme"].map(str::to_owned);
        assert_eq!(missing(list, &wanted), ["nvme"]);
    }
}
