//! proxmox-boot-tool of the restored host: it installs loaders on its partitions and copies kernels to them.

use std::path::{Path, PathBuf};

use super::{Executor, Outcome, StepError};
use crate::capture::esp::{Loaders, proxmox_uuids};
use crate::plan::{PlannedEsp, ProxmoxMode};
use crate::system::Cmd;

const TOOL: &str = "proxmox-boot-tool";
/// The command line that it gives to kernels.
const COMMAND_LINE: &str = "/etc/kernel/cmdline";

/// The words of a command line that belong to the host rather than to the loader that started it.
fn own_words(line: &str) -> Option<String> {
    let words: Vec<&str> = line
        .split_whitespace()
        .filter(|w| !w.starts_with("BOOT_IMAGE=") && !w.starts_with("initrd="))
        .collect();
    words
        .iter()
        .any(|w| w.starts_with("root="))
        .then(|| words.join(" "))
}

impl Executor<'_> {
    pub(in crate::apply) fn proxmox_boot(
        &mut self,
        esps: &[PlannedEsp],
    ) -> Result<Outcome, StepError> {
        // The tool takes no partition that is mounted. Files on one that was are restored by now.
        let mounted = self.below()?;
        for esp in esps {
            let real = self.sys.canonicalize(&esp.device)?;
            for mount in mounted.iter().rev() {
                let source = self.sys.canonicalize(Path::new(&mount.source));
                if source.is_ok_and(|s| s == real) {
                    self.unmount_one(&self.inside(&mount.mount_point))?;
                }
            }
        }
        self.keep_command_line()?;
        let has = |path: &str| self.sys.exists(&self.inside(Path::new(path)));
        let systemd = has("/usr/lib/systemd/boot/efi") && has("/usr/bin/bootctl");
        self.in_host(|run| {
            // Partitions of disks that are not there any more would be complained about at every kernel update.
            run(Cmd::new(TOOL).arg("clean"))?;
            for esp in esps {
                let grub = match esp.mode {
                    ProxmoxMode::GrubEfi => true,
                    ProxmoxMode::Uefi => !systemd,
                    ProxmoxMode::SystemdBoot | ProxmoxMode::GrubBios => false,
                };
                let init = Cmd::new(TOOL).arg("init").path(&esp.device);
                // It copies kernels as well, to each partition that is set up.
                run(if grub { init.arg("grub") } else { init })?;
            }
            Ok(())
        })?;
        let listed = proxmox_uuids(self.sys, self.root);
        for esp in esps {
            if !listed.contains(&esp.uuid) {
                return Err(StepError::Verify(format!(
                    "{TOOL} succeeded, but does not list {} ({})",
                    esp.uuid,
                    esp.device.display()
                )));
            }
            super::super::disk::drop_cache(&esp.device)?;
            let found = Loaders::on_device(self.sys, &esp.device).unwrap_or_default();
            if !boots(&found, esp.mode) {
                return Err(StepError::Verify(format!(
                    "{TOOL} succeeded, but there is nothing on {} that boots",
                    esp.device.display()
                )));
            }
        }
        Ok(Outcome::Done)
    }

    /// Without this file, tools take the command line of the kernel that is running: here that of the rescue system.
    pub(super) fn keep_command_line(&self) -> Result<(), StepError> {
        let path: PathBuf = self.inside(Path::new(COMMAND_LINE));
        if self.sys.exists(&path) {
            return Ok(());
        }
        if let Some(line) = own_words(&self.saved.boot.kernel_command_line) {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)
                    .map_err(super::io_error("cannot make the directory", dir))?;
            }
            let line = self.lasting_names(&line);
            self.sys.write(&path, format!("{line}\n").as_bytes())?;
            self.events.note(&format!(
                "{COMMAND_LINE} was not there: it is now what the saved host was started with"
            ));
        }
        Ok(())
    }
}

/// Whether what was found is what the tool installs, with a kernel's configuration.
fn boots(found: &Loaders, mode: ProxmoxMode) -> bool {
    let systemd = found.systemd_boot && found.loader_conf;
    let grub = found.grub_dir && found.grub.iter().any(|(id, _)| id == "proxmox");
    if !found.kernels {
        return false;
    }
    match mode {
        ProxmoxMode::SystemdBoot => systemd,
        ProxmoxMode::GrubEfi => grub,
        ProxmoxMode::GrubBios => found.grub_dir,
        ProxmoxMode::Uefi => systemd || grub,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::fakes::with_saved;
    use crate::model::{Firmware, Layout};
    use crate::plan::Step;
    use crate::system::Recorded;

    #[test]
    fn a_command_line_loses_what_the_loader_added() {
        assert_eq!(
            own_words("BOOT_IMAGE=/boot/vmlinuz-6.8 root=ZFS=rpool/ROOT/pve-1 boot=zfs\n")
                .as_deref(),
            Some("root=ZFS=rpool/ROOT/pve-1 boot=zfs")
        );
        assert_eq!(
            own_words("initrd=\\EFI\\proxmox\\initrd root=UUID=1 quiet").as_deref(),
            Some("root=UUID=1 quiet")
        );
        assert_eq!(own_words("console=ttyS0"), None);
    }

    #[test]
    fn a_command_line_that_is_written_down_has_lasting_names() {
        let dir = tempfile::tempdir().unwrap();
        let mut saved = Layout::new(Firmware::Uefi);
        saved.boot.kernel_command_line = "root=/dev/sda2 ro quiet\n".to_owned();
        let steps = vec![Step::UpdateFstab {
            replace: vec![("/dev/sda2".to_owned(), "UUID=2".to_owned())],
            switch_off: Vec::new(),
            add: Vec::new(),
        }];
        let sys = Recorded::new();
        with_saved(&sys, &saved, steps, dir.path(), |e| e.keep_command_line()).unwrap();
        let log = sys.log.lock().unwrap().join("\n");
        assert!(
            log.contains("kernel/cmdline: root=UUID=2 ro quiet"),
            "{log}"
        );
    }

    #[test]
    fn half_a_loader_does_not_boot() {
        let grub = Loaders {
            grub: vec![("proxmox".to_owned(), true)],
            grub_dir: true,
            kernels: true,
            ..Loaders::default()
        };
        let systemd = Loaders {
            systemd_boot: true,
            loader_conf: true,
            kernels: true,
            ..Loaders::default()
        };
        assert!(boots(&grub, ProxmoxMode::GrubEfi) && boots(&grub, ProxmoxMode::GrubBios));
        assert!(boots(&systemd, ProxmoxMode::SystemdBoot));
        assert!(boots(&grub, ProxmoxMode::Uefi) && boots(&systemd, ProxmoxMode::Uefi));
        assert!(!boots(&systemd, ProxmoxMode::GrubEfi) && !boots(&grub, ProxmoxMode::SystemdBoot));
        let without = Loaders {
            kernels: false,
            ..systemd.clone()
        };
        assert!(!boots(&without, ProxmoxMode::SystemdBoot));
        let dir = Loaders {
            grub_dir: true,
            kernels: true,
            ..Loaders::default()
        };
        assert!(
            !boots(&dir, ProxmoxMode::GrubEfi) && !boots(&Loaders::default(), ProxmoxMode::Uefi)
        );
    }
}
