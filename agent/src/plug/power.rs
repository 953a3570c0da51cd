//! Powers a stick down, as desktops do: the disk is told to write its cache and to stop, it is taken out of the system, and
//! its USB device is removed, which disables the port until something is plugged in there again. (The port's own switch,
//! `disable`, would leave it dead for the next stick.)

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How long a disk may take to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    /// It is off.
    Off,
    /// It stays on, for this reason; it may be pulled out all the same.
    On(String),
}

/// The machine's `/sys` and `/proc`; other ones in tests.
#[derive(Debug, Clone)]
pub struct Places {
    sys: PathBuf,
    proc: PathBuf,
    patience: Duration,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            sys: "/sys".into(),
            proc: "/proc".into(),
            patience: PATIENCE,
        }
    }
}

impl Places {
    fn block(&self, name: &str) -> PathBuf {
        self.sys.join("class/block").join(name)
    }

    /// Who uses a disk or a partition of it: mount points, and devices on top of it.
    pub fn users(&self, disk: &Path) -> anyhow::Result<Vec<String>> {
        let name = name_of(disk)?;
        let dir = self.device(&name)?;
        let mounts = fs::read_to_string(self.proc.join("self/mountinfo"))
            .context("cannot read which file systems are mounted")?;
        let mut users = Vec::new();
        for part in self.parts(&dir)? {
            let number = text(&part.join("dev"));
            users.extend(mounts.lines().filter_map(|line| {
                let mut fields = line.split(' ').skip(2);
                (fields.next()? == number)
                    .then(|| fields.nth(1))?
                    .map(str::to_owned)
            }));
            users.extend(names(&part.join("holders")));
        }
        Ok(users)
    }

    /// Where the device is, below `devices`.
    fn device(&self, name: &str) -> anyhow::Result<PathBuf> {
        let link = self.block(name);
        link.canonicalize()
            .with_context(|| format!("the disk {name} is gone"))
    }

    /// A disk and its partitions.
    fn parts(&self, disk: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let mut parts = vec![disk.to_path_buf()];
        for name in names(disk) {
            let path = disk.join(name);
            if path.join("partition").exists() {
                parts.push(path);
            }
        }
        Ok(parts)
    }

    /// Whether other disks with a medium in them hang on the same USB device: a card reader, a dock.
    fn shared(&self, usb: &Path, disk: &Path) -> bool {
        let all = names(&self.sys.join("class/block"));
        all.iter()
            .filter_map(|name| self.block(name).canonicalize().ok())
            .filter(|path| !path.join("partition").exists() && path != disk)
            .any(|path| {
                path.starts_with(usb) && !matches!(text(&path.join("size")).as_str(), "" | "0")
            })
    }

    /// Powers a disk down that nobody uses.
    pub fn off(&self, disk: &Path) -> anyhow::Result<Power> {
        let name = name_of(disk)?;
        let dir = self.device(&name)?;
        let Some(usb) = usb_device(&dir) else {
            return Ok(Power::On("it is not on USB".into()));
        };
        let users = self.users(disk)?;
        if !users.is_empty() {
            bail!("{} is in use by {}", disk.display(), users.join(", "));
        }
        // A node that is missing has nothing in its cache.
        if disk.exists() {
            File::open(disk)
                .and_then(|file| file.sync_all())
                .with_context(|| format!("cannot write everything to {}", disk.display()))?;
        }
        let scsi = dir.join("device");
        for address in names(&scsi.join("scsi_disk")) {
            // The kernel then sends STOP UNIT, too; one of these exists (6.7 renamed it).
            for switch in ["manage_start_stop", "manage_system_start_stop"] {
                let path = scsi.join("scsi_disk").join(&address).join(switch);
                if path.exists() {
                    let _ = fs::write(&path, "1");
                }
            }
        }
        let shared = self.shared(&usb, &dir);
        let delete = scsi.join("delete");
        if delete.exists() {
            write(&delete)?;
            if !self.gone(&name) {
                return Ok(Power::On("the kernel does not let go of it".into()));
            }
        }
        if shared {
            return Ok(Power::On("other disks hang on the same USB device".into()));
        }
        write(&usb.join("remove"))?;
        Ok(Power::Off)
    }

    fn gone(&self, name: &str) -> bool {
        let begun = Instant::now();
        while self.block(name).exists() {
            if begun.elapsed() >= self.patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// Whether a disk is there.
    pub fn is_there(&self, disk: &Path) -> bool {
        name_of(disk).is_ok_and(|name| self.block(&name).exists())
    }
}

fn write(path: &Path) -> anyhow::Result<()> {
    fs::write(path, "1").with_context(|| format!("cannot write to {}", path.display()))
}

fn name_of(disk: &Path) -> anyhow::Result<String> {
    let name = disk.file_name().context("not a disk")?;
    Ok(name.to_string_lossy().into_owned())
}

fn text(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The USB device that a disk is on: the nearest directory above with a vendor, and a switch.
fn usb_device(dir: &Path) -> Option<PathBuf> {
    let mut above = dir.ancestors();
    let device = above.find(|d| d.join("idVendor").exists())?;
    device.join("remove").exists().then(|| device.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const LUN: &str = "devices/pci0000:00/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0";

    struct Machine {
        dir: tempfile::TempDir,
        places: Places,
    }

    impl Machine {
        /// A stick sdb on USB, whose second partition is mounted if that is wanted.
        fn new(mounted: bool) -> Machine {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            let put = |path: &str, text: &str| {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            };
            put("sys/devices/pci0000:00/usb2/2-1/idVendor", "46f4");
            put("sys/devices/pci0000:00/usb2/2-1/remove", "");
            put(&format!("sys/{LUN}/delete"), "");
            put(
                &format!("sys/{LUN}/scsi_disk/6:0:0:0/manage_start_stop"),
                "0",
            );
            put(&format!("sys/{LUN}/block/sdb/dev"), "8:16\n");
            put(&format!("sys/{LUN}/block/sdb/size"), "8388608\n");
            put(&format!("sys/{LUN}/block/sdb/sdb2/partition"), "2\n");
            put(&format!("sys/{LUN}/block/sdb/sdb2/dev"), "8:18\n");
            fs::create_dir(root.join(format!("sys/{LUN}/block/sdb/sdb2/holders"))).unwrap();
            symlink("../..", root.join(format!("sys/{LUN}/block/sdb/device"))).unwrap();
            let device = if mounted { "8:18" } else { "8:2" };
            put(
                "proc/self/mountinfo",
                &format!("40 29 {device} / /mnt/stick rw - ext4 /dev/x rw\n"),
            );
            let machine = Machine {
                places: Places {
                    sys: root.join("sys"),
                    proc: root.join("proc"),
                    patience: Duration::ZERO,
                },
                dir,
            };
            machine.link("sdb", LUN, "sdb");
            machine
        }

        fn link(&self, name: &str, lun: &str, inside: &str) {
            let class = self.dir.path().join("sys/class/block");
            fs::create_dir_all(&class).unwrap();
            symlink(format!("../../{lun}/block/{inside}"), class.join(name)).unwrap();
        }

        fn text(&self, path: &str) -> String {
            text(&self.dir.path().join("sys").join(path))
        }
    }

    /// As the kernel does: the disk goes away once it is deleted.
    fn off(machine: &Machine) -> anyhow::Result<Power> {
        let places = Places {
            patience: Duration::from_secs(60),
            ..machine.places.clone()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..600 {
                    if machine.text(&format!("{LUN}/delete")) == "1" {
                        let _ = fs::remove_file(places.block("sdb"));
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            places.off(Path::new("/nonexistent/sdb"))
        })
    }

    #[test]
    fn a_stick_stops_and_its_port_is_off() {
        let machine = Machine::new(false);
        assert_eq!(off(&machine).unwrap(), Power::Off);
        assert_eq!(machine.text("devices/pci0000:00/usb2/2-1/remove"), "1");
        let switch = format!("{LUN}/scsi_disk/6:0:0:0/manage_start_stop");
        assert_eq!(machine.text(&switch), "1");
        assert!(!machine.places.is_there(Path::new("/dev/sdb")));
    }

    #[test]
    fn one_that_is_in_use_stays_on() {
        let machine = Machine::new(true);
        let error = machine.places.off(Path::new("/dev/sdb")).unwrap_err();
        assert!(error.to_string().contains("/mnt/stick"), "{error}");
        let machine = Machine::new(false);
        let holders = machine
            .dir
            .path()
            .join(format!("sys/{LUN}/block/sdb/sdb2/holders"));
        symlink("/nonexistent", holders.join("dm-0")).unwrap();
        let error = machine.places.off(Path::new("/dev/sdb")).unwrap_err();
        assert!(error.to_string().contains("dm-0"), "{error}");
        assert_eq!(machine.text(&format!("{LUN}/delete")), "");
    }

    #[test]
    fn another_disk_on_the_same_device_goes_on() {
        let machine = Machine::new(false);
        let other = LUN.replace("6:0:0:0", "6:0:0:1");
        let size = machine
            .dir
            .path()
            .join("sys")
            .join(&other)
            .join("block/sdc/size");
        fs::create_dir_all(size.parent().unwrap()).unwrap();
        fs::write(&size, "0\n").unwrap();
        machine.link("sdc", &other, "sdc");
        let usb = usb_device(&machine.places.device("sdb").unwrap()).unwrap();
        let disk = machine.places.device("sdb").unwrap();
        // An empty slot of a card reader.
        assert!(!machine.places.shared(&usb, &disk));
        fs::write(&size, "2048\n").unwrap();
        assert!(matches!(off(&machine).unwrap(), Power::On(_)));
        assert_eq!(machine.text("devices/pci0000:00/usb2/2-1/remove"), "");
    }

    #[test]
    fn a_disk_that_is_not_on_usb_is_let_alone() {
        let machine = Machine::new(false);
        fs::remove_file(
            machine
                .dir
                .path()
                .join("sys/devices/pci0000:00/usb2/2-1/idVendor"),
        )
        .unwrap();
        let power = machine.places.off(Path::new("/dev/sdb")).unwrap();
        assert!(matches!(power, Power::On(_)));
        assert_eq!(machine.text(&format!("{LUN}/delete")), "");
        assert!(machine.places.off(Path::new("/dev/sdz")).is_err());
    }
}
