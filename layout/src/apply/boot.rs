//! fstab, initramfs, GRUB, EFI boot entries.

use std::path::{Path, PathBuf};

use super::{Executor, Outcome, StepError, io_error};
use crate::capture::boot::{mbr_has_grub, parse_efibootmgr};
use crate::system::Cmd;

/// Replaces first fields, and leaves everything else of the text as it is.
pub(super) fn replace_specs(text: &str, replace: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        let (spaces, rest) = line.split_at(indent);
        let spec = rest.split_whitespace().next().unwrap_or("");
        match replace
            .iter()
            .find(|(old, _)| old == spec && !spec.starts_with('#'))
        {
            Some((old, new)) => {
                out.push_str(spaces);
                out.push_str(new);
                out.push_str(&rest[old.len()..]);
            }
            None => out.push_str(line),
        }
    }
    out
}

/// Makes comments of the lines with these first fields.
pub(super) fn switch_off(text: &str, specs: &[String]) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let spec = line.split_whitespace().next().unwrap_or("");
        if specs.iter().any(|s| s == spec) && !spec.starts_with('#') {
            out.push_str("# left out by the restore: ");
        }
        out.push_str(line);
    }
    out
}

/// Files besides fstab in which settings of the form `name=/dev/...` tell the next start where to look.
const SETTINGS: [&str; 3] = ["/etc/default/grub", "/etc/kernel/cmdline", RESUME];

/// Replaces devices that are values (`root=/dev/sda2`), and leaves everything else of the text as it is.
pub(super) fn replace_values(text: &str, replace: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        let (before, value) = rest.split_at(at + 1);
        out.push_str(before);
        rest = value;
        let end = value
            .find(|c: char| c.is_whitespace() || c == '"' || c == '\'')
            .unwrap_or(value.len());
        let (word, behind) = value.split_at(end);
        if let Some((_, new)) = replace.iter().find(|(old, _)| old == word) {
            out.push_str(new);
            rest = behind;
        }
    }
    out.push_str(rest);
    out
}

/// Where initramfs-tools keeps the device that it looks for a suspended system on (initramfs.conf(5), `RESUME`).
const RESUME: &str = "/etc/initramfs-tools/conf.d/resume";

impl Executor<'_> {
    /// Settings that name a device by what it is not called any more.
    fn update_settings(&mut self, replace: &[(String, String)]) -> Result<(), StepError> {
        for name in SETTINGS {
            let path = self.inside(Path::new(name));
            let text = self.sys.read(&path).ok();
            let Some(text) = text.and_then(|bytes| String::from_utf8(bytes).ok()) else {
                continue;
            };
            let new = replace_values(&text, replace);
            if new == text {
                continue;
            }
            self.sys.write(&path, new.as_bytes())?;
            self.events.note(&format!(
                "{name}: kernel names of devices are replaced by their UUIDs"
            ));
            if name == RESUME {
                // It has a copy of the file.
                self.update_initramfs()?;
            }
        }
        Ok(())
    }

    /// The initramfs would wait for a swap area that is left out.
    fn no_resume(&self) -> Result<(), StepError> {
        let path = self.inside(Path::new(RESUME));
        if self.sys.exists(&path) {
            self.sys.write(&path, b"RESUME=none\n")?;
            self.events.note(&format!("{RESUME}: RESUME is now none"));
        }
        Ok(())
    }

    pub(super) fn update_fstab(
        &mut self,
        replace: &[(String, String)],
        left_out: &[String],
    ) -> Result<Outcome, StepError> {
        if !left_out.is_empty() {
            self.no_resume()?;
        }
        self.update_settings(replace)?;
        let path = self.inside(Path::new("/etc/fstab"));
        let Some(text) = self
            .sys
            .read(&path)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
        else {
            self.events
                .note("the restored host has no readable /etc/fstab: nothing to check");
            return Ok(Outcome::AlreadySo);
        };
        let new = switch_off(&replace_specs(&text, replace), left_out);
        if new == text {
            return Ok(Outcome::AlreadySo);
        }
        self.sys.write(&path, new.as_bytes())?;
        for (old, new) in replace {
            self.events.note(&format!("/etc/fstab: {old} is now {new}"));
        }
        for spec in left_out {
            self.events
                .note(&format!("/etc/fstab: the line of {spec} is switched off"));
        }
        Ok(Outcome::Done)
    }

    pub(super) fn update_initramfs(&mut self) -> Result<Outcome, StepError> {
        self.in_host(|run| run(Cmd::new("update-initramfs").args(["-u", "-k", "all"])))?;
        Ok(Outcome::Done)
    }

    /// proxmox-boot-tool diverts grub-install and keeps the real one under another name.
    fn grub_install(&self) -> &'static str {
        let diverted = ["/usr/sbin/grub-install.real", "/sbin/grub-install.real"];
        if diverted
            .iter()
            .any(|p| self.sys.exists(&self.inside(Path::new(p))))
        {
            "grub-install.real"
        } else {
            "grub-install"
        }
    }

    pub(super) fn grub_bios(
        &mut self,
        device: &Path,
        modules: &[String],
    ) -> Result<Outcome, StepError> {
        let install = Cmd::new(self.grub_install())
            .args(["--target=i386-pc", "--no-floppy", "--recheck"])
            .arg(format!("--modules={}", modules.join(" ")))
            .path(device);
        let debconf = self.saved.boot.grub_pc_package.then(|| self.by_id(device));
        self.in_host(|run| {
            run(install)?;
            if let Some(name) = &debconf {
                // Else the next upgrade of grub-pc asks for, or writes to, a disk that is gone.
                let line = format!(
                    "grub-pc grub-pc/install_devices multiselect {}\n",
                    name.display()
                );
                run(Cmd::new("debconf-set-selections").input(line))?;
            }
            Ok(())
        })?;
        super::disk::drop_cache(device)?;
        if mbr_has_grub(self.sys, device) {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Verify(format!(
                "grub-install succeeded, but the MBR of {} has no GRUB",
                device.display()
            )))
        }
    }

    /// The stable name of a disk, as the grub-pc package writes it down.
    fn by_id(&self, device: &Path) -> PathBuf {
        let dir = Path::new("/dev/disk/by-id");
        let names = self.sys.list_dir(dir).unwrap_or_default();
        let same = |name: &&String| {
            self.sys
                .canonicalize(&dir.join(name))
                .is_ok_and(|real| real == device)
        };
        let plain = names
            .iter()
            .filter(same)
            .find(|n| !n.starts_with("wwn-") && !n.starts_with("nvme-eui."));
        plain
            .or_else(|| names.iter().find(same))
            .map_or_else(|| device.to_owned(), |name| dir.join(name))
    }

    pub(super) fn grub_efi(
        &mut self,
        esp: &Path,
        id: &str,
        shim: bool,
    ) -> Result<Outcome, StepError> {
        let mut install = Cmd::new(self.grub_install())
            .args([
                "--target=x86_64-efi",
                "--no-floppy",
                "--recheck",
                "--no-nvram",
            ])
            .arg(format!("--efi-directory={}", esp.display()))
            .arg(format!("--bootloader-id={id}"));
        // A Debian option; elsewhere the files are copied below.
        if self
            .sys
            .exists(&self.inside(Path::new("/etc/debian_version")))
        {
            install = install.arg("--force-extra-removable");
        }
        if shim {
            install = install.arg("--uefi-secure-boot");
        }
        self.in_host(|run| run(install))?;
        let efi = self.inside(esp).join("EFI");
        let own = efi.join(id);
        let loader = own.join(if shim && own.join("shimx64.efi").exists() {
            "shimx64.efi"
        } else {
            "grubx64.efi"
        });
        if !loader.exists() {
            return Err(StepError::Verify(format!(
                "grub-install succeeded, but {} is not there",
                loader.display()
            )));
        }
        if shim && !own.join("shimx64.efi").exists() {
            self.events.note("shim was installed on the saved host and its package is not in the restored one: Secure Boot will not work");
        }
        let fallback = efi.join("BOOT/BOOTX64.EFI");
        if !fallback.exists() {
            std::fs::create_dir_all(efi.join("BOOT"))
                .map_err(io_error("cannot make the directory", &efi.join("BOOT")))?;
            std::fs::copy(&loader, &fallback).map_err(io_error("cannot copy to", &fallback))?;
            let grub = own.join("grubx64.efi");
            if loader != grub && grub.exists() {
                let beside = efi.join("BOOT/grubx64.efi");
                std::fs::copy(&grub, &beside).map_err(io_error("cannot copy to", &beside))?;
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) fn grub_config(&mut self) -> Result<Outcome, StepError> {
        self.in_host(|run| run(Cmd::new("update-grub")))?;
        let path = self.inside(Path::new("/boot/grub/grub.cfg"));
        let text = self.sys.text(&path).unwrap_or_default();
        if text.contains("menuentry") || text.contains("linux") {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Verify(
                "update-grub wrote a /boot/grub/grub.cfg without any entry".to_owned(),
            ))
        }
    }

    pub(super) fn efi_entry(
        &mut self,
        device: &Path,
        partition: u32,
        partuuid: &str,
        label: &str,
        loader: &str,
    ) -> Result<Outcome, StepError> {
        let entries = |text: &str| {
            parse_efibootmgr(text).into_iter().find(|e| {
                e.partuuid
                    .as_deref()
                    .is_some_and(|p| p.eq_ignore_ascii_case(partuuid))
                    && e.loader
                        .as_deref()
                        .is_some_and(|l| l.eq_ignore_ascii_case(loader))
            })
        };
        let list = || Cmd::new("efibootmgr").arg("-v");
        // The restored host's efibootmgr is used where the rescue system has none.
        let here = self.sys.run(&list()).is_ok();
        let make = Cmd::new("efibootmgr")
            .args(["--create", "--disk"])
            .path(device)
            .args([
                "--part".to_owned(),
                partition.to_string(),
                "--label".to_owned(),
                label.to_owned(),
            ])
            .args(["--loader", loader]);
        let work = |run: &dyn Fn(Cmd) -> Result<crate::system::Output, StepError>| {
            if entries(&run(list())?.text()).is_some_and(|e| e.active) {
                return Ok(Outcome::AlreadySo);
            }
            run(make)?;
            match entries(&run(list())?.text()) {
                Some(_) => Ok(Outcome::Done),
                None => Err(StepError::Verify(format!(
                    "the firmware did not keep the boot entry {label}"
                ))),
            }
        };
        let result = if here {
            work(&|command| Ok(self.sys.run(&command)?))
        } else {
            self.in_host(work)
        };
        match result {
            Ok(outcome) => Ok(outcome),
            // Firmware with full or write-protected variables still boots the fallback path.
            Err(error) => {
                self.events.note(&format!(
                    "no EFI boot entry was made ({error}); the machine boots from the fallback path"
                ));
                Ok(Outcome::AlreadySo)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_field_of_fstab_is_replaced() {
        let text = "# /dev/sda1 was here\n/dev/sda1\t/ ext4 defaults 0 1\n  /dev/sda10 /x ext4 dev=/dev/sda1 0 0\nproc /proc proc";
        let replace = [("/dev/sda1".to_owned(), "UUID=1".to_owned())];
        assert_eq!(
            replace_specs(text, &replace),
            "# /dev/sda1 was here\nUUID=1\t/ ext4 defaults 0 1\n  /dev/sda10 /x ext4 dev=/dev/sda1 0 0\nproc /proc proc"
        );
        assert_eq!(replace_specs(text, &[]), text);
    }

    #[test]
    fn devices_that_are_values_are_replaced() {
        let text = "GRUB_CMDLINE_LINUX=\"root=/dev/sda2 resume=/dev/sda3\"\n# /dev/sda3\nX=/dev/sda30\nRESUME=/dev/sda3";
        let replace = [
            ("/dev/sda2".to_owned(), "UUID=2".to_owned()),
            ("/dev/sda3".to_owned(), "UUID=3".to_owned()),
        ];
        assert_eq!(
            replace_values(text, &replace),
            "GRUB_CMDLINE_LINUX=\"root=UUID=2 resume=UUID=3\"\n# /dev/sda3\nX=/dev/sda30\nRESUME=UUID=3"
        );
        assert_eq!(replace_values(text, &[]), text);
    }

    #[test]
    fn lines_are_switched_off_once() {
        let text =
            "UUID=1 / ext4\n/dev/vg/swap none swap\n# /dev/vg/swap\n/dev/vg/swap2 none swap\n";
        let off = ["/dev/vg/swap".to_owned()];
        let once = switch_off(text, &off);
        assert_eq!(
            once,
            "UUID=1 / ext4\n# left out by the restore: /dev/vg/swap none swap\n# /dev/vg/swap\n/dev/vg/swap2 none swap\n"
        );
        assert_eq!(switch_off(&once, &off), once);
    }
}
