//! Working on partitions and volumes that are there: nothing else is started, and what nothing is written to becomes
//! read-only where the kernel can do that.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sys_mount::{Mount, MountFlags};

use super::disk::{claim, drop_cache, reread_partitions, set_read_only, zero_edges};
use super::table::DiskTable;
use super::{Executor, Outcome, StepError, io_error};
use crate::capture::devices::{AMBIGUOUS, Devices};
use crate::capture::volumes::lv_path;
use crate::model::{NodeId, RaidArray, Vfat};
use crate::plan::in_place::is_part_of_more;
use crate::plan::{UsedPartition, UsedPv};
use crate::system::Cmd;
use crate::units::Bytes;

/// Length of the boot code in front of a partition table (UEFI specification 2.10, 5.2.1).
const BOOT_CODE: usize = 440;

impl Executor<'_> {
    /// An earlier attempt of this session may have made partitions of a target read-only.
    pub(super) fn lift_partitions(&self, disk: &Path) -> Result<(), StepError> {
        let devices = Devices::new(self.sys)?;
        let Some(disk) = devices.by_node(disk) else {
            return Ok(());
        };
        for part in devices.partitions(&disk.name) {
            if devices.sysfs(part, "ro").as_deref() == Some("1") {
                set_read_only(self.sys, &part.node, false)?;
            }
        }
        Ok(())
    }

    pub(super) fn keep_others(
        &mut self,
        device: &Path,
        used: &[UsedPartition],
        protect: &[PathBuf],
    ) -> Result<Outcome, StepError> {
        let mut stack = self.stack_on(device)?;
        self.take_stack_down(&mut stack)?;
        claim(device)?;
        let devices = Devices::new(self.sys)?;
        for part in used {
            let size = devices.by_node(&part.device).map(|d| devices.size(d));
            if size != Some(part.size) {
                return Err(StepError::Refused(format!(
                    "{} is not as it was when the plan was made: make the plan again",
                    part.device.display()
                )));
            }
        }
        for part in protect {
            set_read_only(self.sys, part, true)?;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn luks_use(
        &mut self,
        node: &NodeId,
        device: &Path,
        name: &str,
        uuid: &str,
    ) -> Result<Outcome, StepError> {
        let probe = Devices::new(self.sys)?.probe_now(device);
        let same = probe.fstype.as_deref() == Some("crypto_LUKS")
            && probe
                .uuid
                .as_deref()
                .is_some_and(|u| u.eq_ignore_ascii_case(uuid));
        if !same {
            return Err(StepError::Refused(format!(
                "{} does not hold the LUKS container {name} with UUID {uuid}: nothing was written yet; bare metal makes it \
                 anew",
                device.display()
            )));
        }
        self.luks_open(node, device, name)
    }

    pub(super) fn raid_use(
        &mut self,
        device: &Path,
        devices: &[PathBuf],
        array: &RaidArray,
    ) -> Result<Outcome, StepError> {
        self.raid_assemble(device, devices, array)?;
        Ok(Outcome::Done)
    }

    pub(super) fn group_use(&mut self, name: &str, pvs: &[UsedPv]) -> Result<Outcome, StepError> {
        let refuse = |what: String| {
            StepError::Refused(format!(
                "{what}: nothing was written yet; bare metal makes everything anew"
            ))
        };
        for pv in pvs {
            let of = pv.device.to_string_lossy();
            let row = self.report("pvs", "pv", "pv_uuid,vg_name", &of)?;
            let found = row.map(|r| (r.text("pv_uuid").to_owned(), r.text("vg_name").to_owned()));
            if found != Some((pv.uuid.clone(), name.to_owned())) {
                return Err(refuse(format!(
                    "{of} is not the physical volume {} of group {name} but {found:?}",
                    pv.uuid
                )));
            }
        }
        let row = self.report("vgs", "vg", "vg_name,vg_missing_pv_count", name)?;
        match row {
            Some(row) if matches!(row.text("vg_missing_pv_count"), "" | "0") => Ok(Outcome::Done),
            Some(_) => Err(refuse(format!(
                "volume group {name} lacks a physical volume"
            ))),
            None => Err(refuse(format!("volume group {name} is not there"))),
        }
    }

    pub(super) fn volume_use(
        &mut self,
        vg: &str,
        name: &str,
        at_least: Bytes,
        read_only: bool,
    ) -> Result<Outcome, StepError> {
        let of = format!("{vg}/{name}");
        let row = self.report("lvs", "lv", "lv_size,lv_permissions", &of)?;
        let writeable = row
            .as_ref()
            .is_none_or(|row| !row.text("lv_permissions").starts_with("read-only"));
        if !(read_only || writeable) {
            return Err(StepError::Refused(format!(
                "logical volume {of} is read-only: nothing was written yet; make it writable (lvchange --permission rw {of}), or \
                 use bare metal"
            )));
        }
        match row.map(|row| row.bytes("lv_size")) {
            Some(size) if size >= at_least => {}
            Some(size) => {
                return Err(StepError::Refused(format!(
                    "logical volume {of} has {size} ({} bytes), and {at_least} ({} bytes) are needed: extend it \
                     (lvextend), or use bare metal",
                    size.0, at_least.0
                )));
            }
            None => {
                return Err(StepError::Refused(format!(
                    "logical volume {of} is not there: nothing was written yet; bare metal makes everything anew"
                )));
            }
        }
        let command = self.lvm("lvchange").args(["--activate", "y"]);
        self.run_lvm(command.args(["--ignoreactivationskip", "--yes", &of]))?;
        let path = lv_path(vg, name);
        self.wait_for(&path)?;
        if read_only {
            let real = self.sys.canonicalize(&path)?;
            set_read_only(self.sys, &real, true)?;
        }
        Ok(Outcome::Done)
    }

    /// What is on volumes and in containers is seen when these are open: that is still before the first write.
    pub(super) fn check_places(&mut self, devices: &[PathBuf]) -> Result<Outcome, StepError> {
        self.settle()?;
        for device in devices {
            let probe = Devices::new(self.sys)?.probe_now(device);
            if let Some(reason) = probe.unreadable {
                return Err(StepError::Refused(format!(
                    "what is on {} cannot be read, and would be erased: nothing was written yet; look at its disk and cables \
                     ({reason})",
                    device.display()
                )));
            }
            let holds = match probe.fstype.as_deref() {
                Some(AMBIGUOUS) => "signatures of several kinds".to_owned(),
                Some(kind) if is_part_of_more(kind) => {
                    format!("{kind}, which is part of something else and would be lost")
                }
                _ => continue,
            };
            return Err(StepError::Refused(format!(
                "{0} holds {holds} now: nothing was written yet; when nothing of it is needed, remove it (wipefs -a {0}) and \
                 start again",
                device.display()
            )));
        }
        Ok(Outcome::AlreadySo)
    }

    pub(super) fn clear(&mut self, device: &Path) -> Result<Outcome, StepError> {
        self.sys
            .run(&Cmd::new("wipefs").args(["-a", "-f", "-q"]).path(device))?;
        zero_edges(device)?;
        self.settle()?;
        Ok(Outcome::Done)
    }

    /// Writes a table around contents that are there: no byte of them, and none of the boot code.
    pub(super) fn restore_table(
        &mut self,
        device: &Path,
        table: &dyn DiskTable,
    ) -> Result<Outcome, StepError> {
        let bad = |reason: String| {
            StepError::Verify(format!(
                "partition table of {}: {reason}: start the repair again",
                device.display()
            ))
        };
        table.rehearse().map_err(bad)?;
        let mut stack = self.stack_on(device)?;
        self.take_stack_down(&mut stack)?;
        claim(device)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(device)
            .map_err(io_error("cannot open for writing", device))?;
        let mut code = [0u8; BOOT_CODE];
        file.read_exact(&mut code)
            .map_err(io_error("cannot read", device))?;
        table.write(&mut file).map_err(bad)?;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&code))
            .and_then(|()| file.sync_all())
            .map_err(io_error("cannot write", device))?;
        drop(file);
        drop_cache(device)?;
        table.check(self.sys.open(device)?.as_mut()).map_err(bad)?;
        reread_partitions(device)?;
        for part in table.with_contents() {
            self.wait_for(&part.device)?;
        }
        self.settle()?;
        Ok(Outcome::Done)
    }

    /// What else is on it stays, as long as it can be repaired.
    pub(super) fn keep_vfat(&mut self, device: &Path, fs: &Vfat) -> Result<Outcome, StepError> {
        if self.verify(device, "vfat", &fs.uuid).is_ok() {
            // A machine that was switched off leaves it marked as dirty.
            let repair = Cmd::new("fsck.vfat").arg("-a").path(device).accept(1);
            let check = Cmd::new("fsck.vfat").arg("-n").path(device);
            if self.sys.run(&repair).is_ok() && self.sys.run(&check).is_ok() {
                return Ok(Outcome::AlreadySo);
            }
            self.events.note(&format!(
                "the filesystem on {} is damaged beyond repair, and is made anew",
                device.display()
            ));
        }
        self.clear(device)?;
        self.make_vfat(device, fs)
    }

    pub(super) fn mount_read_only(
        &mut self,
        device: &Path,
        fstype: &str,
        uuid: &str,
        at: &Path,
    ) -> Result<Outcome, StepError> {
        if self.verify(device, fstype, uuid).is_err() {
            return Err(StepError::Refused(format!(
                "{} does not hold the filesystem {uuid} of {} any more, so that a boot loader would find nothing: nothing \
                 was written yet; system only makes it anew",
                device.display(),
                at.display()
            )));
        }
        let real = self.sys.canonicalize(device)?;
        let target = self.inside(at);
        if !target.exists() {
            std::fs::create_dir_all(&target)
                .map_err(io_error("cannot make the directory", &target))?;
        }
        // Replaying the journal would write.
        let (kind, data) = match fstype {
            "xfs" => ("xfs", "norecovery,nouuid"),
            _ => ("ext4", "noload"),
        };
        Mount::builder()
            .fstype(kind)
            .flags(MountFlags::RDONLY)
            .data(data)
            .mount(&real, &target)
            .map_err(io_error("cannot mount", device))?;
        Ok(Outcome::Done)
    }

    pub(super) fn check_boot(&mut self, code: bool) -> Result<Outcome, StepError> {
        let refuse = |what: &str| {
            Err(StepError::Refused(format!(
                "the installed system has {what}: nothing was written yet; system only makes it anew"
            )))
        };
        let config = self.inside(Path::new("/boot/grub/grub.cfg"));
        let text = self.sys.text(&config).unwrap_or_default();
        if text.is_empty() {
            return refuse("no /boot/grub/grub.cfg");
        }
        let names = self
            .sys
            .list_dir(&self.inside(Path::new("/boot")))
            .unwrap_or_default();
        let mut kernels = names.iter().filter(|n| n.starts_with("vmlinuz-"));
        if !kernels.any(|kernel| text.contains(kernel.as_str())) {
            return refuse("no kernel in /boot that its GRUB knows");
        }
        if code && !self.sys.exists(&self.inside(Path::new(CORE))) {
            return refuse("no /boot/grub/i386-pc/core.img, of which boot code is made");
        }
        Ok(Outcome::Done)
    }

    pub(super) fn grub_from_host(
        &mut self,
        esp: &Path,
        id: &str,
        shim: bool,
    ) -> Result<Outcome, StepError> {
        let efi = self.inside(esp).join("EFI");
        let own = efi.join(id);
        // What starts from the fallback path is a copy of the loader.
        let fallback = efi.join("BOOT/BOOTX64.EFI");
        let loader = own.join(if shim { "shimx64.efi" } else { "grubx64.efi" });
        let copied = same(&fallback, &loader);
        let mut changed = false;
        let sources: &[(&str, &str)] = if shim { &SIGNED } else { &BUILT };
        for (source, name) in sources {
            let source = self.inside(Path::new(source));
            let mut targets = vec![own.join(name)];
            let beside = efi.join("BOOT").join(name);
            if beside.exists() {
                targets.push(beside);
            }
            if copied && targets.first() == Some(&loader) {
                targets.push(fallback.clone());
            }
            for target in targets {
                if source.exists() && !same(&source, &target) {
                    std::fs::copy(&source, &target).map_err(io_error("cannot copy to", &target))?;
                    changed = true;
                }
            }
        }
        if !own.join("grubx64.efi").exists() {
            return Err(StepError::Verify(format!(
                "neither the backup nor the installed system has GRUB for {}: use system only",
                own.display()
            )));
        }
        Ok(if changed {
            Outcome::Done
        } else {
            Outcome::AlreadySo
        })
    }

    pub(super) fn boot_code(&mut self, device: &Path) -> Result<Outcome, StepError> {
        let setup = SETUP
            .iter()
            .find(|p| self.sys.exists(&self.inside(Path::new(p))));
        let Some(setup) = setup else {
            return Err(StepError::Verify(
                "the installed system has no grub-bios-setup (package grub-pc-bin): use system only"
                    .to_owned(),
            ));
        };
        let command = Cmd::new(*setup)
            .arg("--directory=/boot/grub/i386-pc")
            .path(device);
        self.in_host(|run| run(command))?;
        drop_cache(device)?;
        if crate::capture::boot::mbr_has_grub(self.sys, device) {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Verify(format!(
                "grub-bios-setup succeeded, but the MBR of {} has no GRUB",
                device.display()
            )))
        }
    }
}

/// The core image that grub-install made, with what is needed to find /boot.
const CORE: &str = "/boot/grub/i386-pc/core.img";

/// Where Debian has the program that writes boot code.
const SETUP: [&str; 2] = [
    "/usr/lib/grub/i386-pc/grub-bios-setup",
    "/usr/sbin/grub-bios-setup",
];

/// Signed files of the installed packages, and their names beside each other.
const SIGNED: [(&str, &str); 3] = [
    ("/usr/lib/shim/shimx64.efi.signed", "shimx64.efi"),
    ("/usr/lib/shim/mmx64.efi.signed", "mmx64.efi"),
    (
        "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
        "grubx64.efi",
    ),
];

/// What grub-install made, with the place of /boot in it.
const BUILT: [(&str, &str); 1] = [("/boot/grub/x86_64-efi/core.efi", "grubx64.efi")];

fn same(a: &Path, b: &Path) -> bool {
    match (std::fs::read(a), std::fs::read(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::fakes::with_executor;
    use crate::system::{Output, Recorded};

    #[test]
    fn a_place_is_erased_only_when_it_is_known_what_is_there() {
        let checked = |status: i32, stdout: &str, stderr: &str| {
            let mut sys = Recorded::new();
            let output = Output {
                status,
                stdout: stdout.into(),
                stderr: stderr.into(),
                ..Output::default()
            };
            sys.commands
                .insert("blkid -p -o udev /dev/pve/root".to_owned(), output);
            let places = [PathBuf::from("/dev/pve/root")];
            with_executor(&sys, Vec::new(), |e| e.check_places(&places))
        };
        for (status, stdout) in [(2, ""), (0, "ID_FS_TYPE=ext4\n"), (0, "ID_FS_TYPE=swap\n")] {
            assert_eq!(checked(status, stdout, "").unwrap(), Outcome::AlreadySo);
        }
        for (status, stdout, stderr, words) in [
            (0, "ID_FS_TYPE=LVM2_member\n", "", "holds LVM2_member"),
            (8, "", "", "signatures of several kinds"),
            (
                2,
                "",
                "error: /dev/pve/root: Input/output error",
                "cannot be read",
            ),
            (4, "", "usage", "cannot be read"),
        ] {
            let error = checked(status, stdout, stderr).unwrap_err();
            assert!(
                matches!(&error, StepError::Refused(text) if text.contains(words)),
                "{error}"
            );
        }
    }
}
