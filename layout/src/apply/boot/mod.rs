//! Initramfs, GRUB, EFI boot entries.

mod crypttab;
mod debconf;
mod drivers;
mod mdadm;
mod names;
mod proxmox;

pub(super) use names::switch_off;

use std::path::Path;

use sys_mount::Mount;

use super::{Executor, Outcome, StepError, io_error};
use crate::capture::boot::{mbr_has_grub, parse_efibootmgr};
use crate::system::Cmd;

/// Whether GRUB's configuration has an entry with a kernel. Its scripts leave their names there in any case.
fn boots_a_kernel(text: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| {
        let mut words = line.split_whitespace();
        // `module` is Xen's way.
        let starts = ["linux", "linux16", "linuxefi", "module", "module2"];
        words.next().is_some_and(|word| starts.contains(&word)) && words.next().is_some()
    })
}

impl Executor<'_> {
    pub(super) fn update_initramfs(&mut self) -> Result<Outcome, StepError> {
        // Hooks copy the result to EFI system partitions, and write the command line of a loader's entry anew.
        if !self.saved.boot.systemd_boot.is_empty() || !self.saved.boot.proxmox_esps.is_empty() {
            self.keep_command_line()?;
        }
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
        let debconf = self.grub_pc_devices();
        self.in_host(|run| {
            run(install)?;
            if let Some(line) = debconf {
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

    /// With `device` the partition is mounted at `esp` for the time of the installation, over whatever is there.
    pub(super) fn grub_efi(
        &mut self,
        esp: &Path,
        device: Option<&Path>,
        id: &str,
        shim: bool,
    ) -> Result<Outcome, StepError> {
        let Some(device) = device else {
            return self.grub_efi_on(esp, id, shim);
        };
        let at = self.inside(esp);
        std::fs::create_dir_all(&at).map_err(io_error("cannot make the directory", &at))?;
        Mount::builder()
            .fstype("vfat")
            .mount(device, &at)
            .map_err(io_error("cannot mount", device))?;
        let result = self.grub_efi_on(esp, id, shim);
        let down = self.unmount_one(&at);
        let outcome = result?;
        down?;
        Ok(outcome)
    }

    fn grub_efi_on(&self, esp: &Path, id: &str, shim: bool) -> Result<Outcome, StepError> {
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
        let debconf = self.grub_efi_devices();
        self.in_host(|run| {
            run(install)?;
            if let Some(line) = debconf {
                run(Cmd::new("debconf-set-selections").input(line))?;
            }
            Ok(())
        })?;
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
        // A host that had its kernels elsewhere has entries of its own.
        let own = self.saved.boot.kernels.is_empty() && text.contains("menuentry");
        if boots_a_kernel(&text) || own {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Verify(
                "update-grub wrote a /boot/grub/grub.cfg that starts no kernel: look for kernels in /boot of the restored host"
                    .to_owned(),
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
    fn a_configuration_without_a_kernel_is_none() {
        let empty = "### BEGIN /etc/grub.d/10_linux ###\nfunction gfxmode {\n}\nset linux_gfx_mode=auto\n\
            ### END /etc/grub.d/10_linux ###\nmenuentry 'UEFI Firmware Settings' {\n\tfwsetup\n}\n";
        assert!(!boots_a_kernel(empty) && !boots_a_kernel(""));
        let entry =
            "menuentry 'Debian' {\n\tlinux\t/boot/vmlinuz-6.1.0-1-amd64 root=UUID=1 ro\n}\n";
        assert!(boots_a_kernel(&format!("{empty}{entry}")));
    }
}
