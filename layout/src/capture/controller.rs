//! Hardware RAID: what hides behind a controller is not seen, and its configuration is not saved.

use std::path::Path;

use super::Capture;
use crate::system::BlockDevice;

/// Drivers of controllers that make disks of disks (kernel: `proc_name` of their host templates).
const RAID_DRIVERS: [&str; 11] = [
    "3w-9xxx",
    "3w-sas",
    "3w-xxxx",
    "aacraid",
    "arcmsr",
    "cciss",
    "hpsa",
    "ips",
    "megaraid_mbox",
    "megaraid_sas",
    "smartpqi",
];

impl Capture<'_> {
    /// Warns of a disk that a RAID controller makes.
    pub(super) fn controller(&mut self, device: &BlockDevice) {
        let Some(driver) = self.raid_driver(device) else {
            return;
        };
        self.layout.warnings.push(format!(
            "{} is made by a RAID controller ({driver}), whose configuration is not saved: before a restore, make an array \
             with the controller's own tools",
            device.node.display()
        ));
    }

    /// The driver of the RAID controller that makes a disk of others. A disk that is only passed through is none of it.
    fn raid_driver(&self, device: &BlockDevice) -> Option<String> {
        let link = Path::new("/sys/class/block")
            .join(&device.name)
            .join("device");
        let real = self.sys.canonicalize(&link).ok()?;
        // .../0000:02:00.0/host0/target0:2:0/0:2:0:0
        let host = real.iter().find_map(|part| {
            let name = part.to_str()?;
            let number = name.strip_prefix("host")?;
            (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(name)
        })?;
        let driver = self
            .sys
            .text(
                &Path::new("/sys/class/scsi_host")
                    .join(host)
                    .join("proc_name"),
            )
            .filter(|driver| RAID_DRIVERS.contains(&driver.as_str()))?;
        // ATA disks that are passed through keep the vendor that libata and SAT give them, others say their level.
        let vendor = self.devices.sysfs(device, "device/vendor");
        let level = self.devices.sysfs(device, "device/raid_level");
        let passed = vendor.as_deref() == Some("ATA") || level.as_deref() == Some("N/A");
        (!passed).then_some(driver)
    }
}

#[cfg(test)]
mod tests {
    use crate::capture::capture;
    use crate::system::{BlockDevice, Recorded};

    fn warnings(driver: &str, vendor: &str) -> Vec<String> {
        let place = "/sys/devices/pci0000:00/0000:02:00.0/host3/target3:2:0/3:2:0:0";
        let sys = Recorded::new()
            .file("/proc/self/mountinfo", "22 1 0:20 / / rw - tmpfs none rw\n")
            .file("/sys/class/block/sda/size", "2048")
            .file("/sys/class/block/sda/device/vendor", vendor)
            .link("/sys/class/block/sda/device", place)
            .file("/sys/class/scsi_host/host3/proc_name", driver)
            .command("blkid -p -o udev /dev/sda", "")
            .device(BlockDevice {
                name: "sda".into(),
                node: "/dev/sda".into(),
                ..BlockDevice::default()
            });
        capture(&sys).unwrap().warnings
    }

    #[test]
    fn arrays_of_controllers_are_named_and_passed_disks_are_not() {
        let found = warnings("megaraid_sas", "DELL");
        assert!(
            found.len() == 1 && found[0].contains("/dev/sda") && found[0].contains("megaraid_sas"),
            "{found:?}"
        );
        assert!(warnings("megaraid_sas", "ATA").is_empty());
        assert!(warnings("ahci", "ATA").is_empty());
    }
}
