//! The disks that GRUB's packages install it on at the next upgrade, which debconf keeps by name.

use std::path::{Path, PathBuf};

use super::Executor;
use crate::plan::Step;

/// Where debconf keeps the answers.
const ANSWERS: &str = "/var/cache/debconf/config.dat";

/// The value of a question, unless it is empty.
fn answer<'a>(text: &'a str, question: &str) -> Option<&'a str> {
    let block = text.split("\n\n").find(|block| {
        block
            .lines()
            .any(|l| l.strip_prefix("Name: ") == Some(question))
    })?;
    let value = block.lines().find_map(|l| l.strip_prefix("Value:"))?.trim();
    (!value.is_empty()).then_some(value)
}

impl Executor<'_> {
    /// What to tell debconf for grub-pc: else its next upgrade asks for, or writes to, a disk that is gone.
    pub(super) fn grub_pc_devices(&self) -> Option<String> {
        if !self.saved.boot.grub_pc_package {
            return None;
        }
        let devices = self.plan.steps.iter().filter_map(|step| match step {
            Step::GrubBios { device, .. } => Some(self.by_id(device)),
            _ => None,
        });
        Some(selection("grub-pc grub-pc/install_devices", devices))
    }

    /// The same for GRUB for UEFI, where its package keeps partitions.
    pub(super) fn grub_efi_devices(&self) -> Option<String> {
        let answers = self.sys.text(&self.inside(Path::new(ANSWERS)))?;
        answer(&answers, "grub-efi/install_devices")?;
        let devices = self.plan.steps.iter().filter_map(|step| match step {
            Step::EfiBootEntry {
                device, partition, ..
            } => Some(self.by_id(&crate::plan::partition_path(device, *partition))),
            _ => None,
        });
        let mut devices: Vec<PathBuf> = devices.collect();
        devices.dedup();
        if devices.is_empty() {
            return None;
        }
        Some(selection(
            "grub-efi-amd64 grub-efi/install_devices",
            devices.into_iter(),
        ))
    }

    /// The stable name of a disk or partition, as the packages write it down.
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
}

/// A line for debconf-set-selections.
fn selection(question: &str, devices: impl Iterator<Item = PathBuf>) -> String {
    let names: Vec<String> = devices.map(|d| d.display().to_string()).collect();
    format!("{question} multiselect {}\n", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_by_their_question() {
        let text = "Name: grub-pc/install_devices_empty\nTemplate: x\nValue: false\nOwners: grub-pc\n\n\
            Name: grub-pc/install_devices\nTemplate: grub-pc/install_devices\nValue: /dev/disk/by-id/a, /dev/disk/by-id/b\n\
            Owners: grub-pc\n\nName: grub-efi/install_devices\nValue:\n";
        assert_eq!(
            answer(text, "grub-pc/install_devices"),
            Some("/dev/disk/by-id/a, /dev/disk/by-id/b")
        );
        assert_eq!(answer(text, "grub-efi/install_devices"), None);
        assert_eq!(answer(text, "grub-efi/other"), None);
    }

    #[test]
    fn all_disks_are_named() {
        let disks = ["/dev/disk/by-id/a", "/dev/disk/by-id/b"].map(PathBuf::from);
        assert_eq!(
            selection("grub-pc grub-pc/install_devices", disks.into_iter()),
            "grub-pc grub-pc/install_devices multiselect /dev/disk/by-id/a, /dev/disk/by-id/b\n"
        );
    }
}
