//! Boot loaders on EFI system partitions, whether they are mounted or not.

use std::path::{Path, PathBuf};

use super::fat::Fat;
use crate::model::{
    Boot, GrubEfi, Layout, Node, NodeId, Partition, ProxmoxEsp, SystemdBoot, types,
};
use crate::system::System;

/// Where proxmox-boot-tool lists the volume ids of its partitions.
pub(crate) const PROXMOX_UUIDS: &str = "etc/kernel/proxmox-boot-uuids";

/// The type of an EFI system partition on an MBR disk.
const MBR_ESP: &str = "0xef";

/// Where the names of files come from.
enum Files<'a> {
    Mounted(&'a dyn System, PathBuf),
    Device(Fat),
}

impl Files<'_> {
    /// The names in a directory.
    fn names(&mut self, path: &[&str]) -> Vec<String> {
        match self {
            Files::Device(fat) => fat.names(path).unwrap_or_default(),
            Files::Mounted(sys, root) => {
                // FAT keeps case as written and ignores it: "efi", "EFI" and "Efi" are met.
                let mut dir = root.clone();
                for part in path {
                    let names = sys.list_dir(&dir).unwrap_or_default();
                    match names.iter().find(|n| n.eq_ignore_ascii_case(part)) {
                        Some(name) => dir.push(name),
                        None => return Vec::new(),
                    }
                }
                sys.list_dir(&dir).unwrap_or_default()
            }
        }
    }

    fn has(&mut self, path: &[&str]) -> bool {
        let Some((name, dir)) = path.split_last() else {
            return false;
        };
        let names = self.names(dir);
        names.iter().any(|n| n.eq_ignore_ascii_case(name))
    }
}

/// What boots from an EFI system partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Loaders {
    /// Directories below `/EFI` with GRUB, and whether shim is beside it.
    pub grub: Vec<(String, bool)>,
    /// The loader for firmware that has no entry.
    pub fallback: bool,
    /// systemd-boot.
    pub systemd_boot: bool,
    /// systemd-boot's settings.
    pub loader_conf: bool,
    /// The directory that GRUB reads its configuration from.
    pub grub_dir: bool,
    /// Kernels where proxmox-boot-tool puts them.
    pub kernels: bool,
}

impl Loaders {
    fn of(files: &mut Files<'_>) -> Loaders {
        let mut found = Loaders {
            systemd_boot: files.has(&["EFI", "systemd", "systemd-bootx64.efi"]),
            loader_conf: files.has(&["loader", "loader.conf"]),
            grub_dir: files.has(&["grub", "grub.cfg"]),
            kernels: has_kernels(files),
            fallback: files.has(&["EFI", "BOOT", "BOOTX64.EFI"])
                || files.has(&["EFI", "BOOT", "BOOTAA64.EFI"]),
            grub: Vec::new(),
        };
        for name in files.names(&["EFI"]) {
            if !name.eq_ignore_ascii_case("BOOT") && files.has(&["EFI", &name, "grubx64.efi"]) {
                let shim = files.has(&["EFI", &name, "shimx64.efi"]);
                found.grub.push((name, shim));
            }
        }
        found.grub.sort();
        found
    }

    /// Those on a device that is not mounted.
    pub fn on_device(sys: &dyn System, device: &Path) -> Option<Loaders> {
        Fat::open(sys, device).map(|fat| Loaders::of(&mut Files::Device(fat)))
    }

    fn proxmox(&self, esp: NodeId) -> ProxmoxEsp {
        ProxmoxEsp {
            esp,
            systemd_boot: self.loader_conf,
            grub_efi: self.grub.iter().any(|(id, _)| id == "proxmox"),
            grub: self.grub_dir,
        }
    }
}

fn has_kernels(files: &mut Files<'_>) -> bool {
    let kernel = |name: &String| name.starts_with("vmlinuz-");
    let dir = ["EFI", "proxmox"];
    files.names(&[]).iter().any(kernel)
        || files
            .names(&dir)
            .iter()
            .any(|version| files.names(&[dir[0], dir[1], version]).iter().any(kernel))
}

/// Whether a partition is meant to be an EFI system partition.
pub(crate) fn is_esp(part: &Partition) -> bool {
    part.type_guid == types::ESP || part.type_guid == MBR_ESP
}

/// The volume ids in proxmox-boot-tool's list.
pub(crate) fn proxmox_uuids(sys: &dyn System, root: &Path) -> Vec<String> {
    let text = sys.text(&root.join(PROXMOX_UUIDS)).unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.map(str::to_owned).collect()
}

/// Looks at every EFI system partition of the system disks.
pub(super) fn loaders(sys: &dyn System, root: &Path, layout: &Layout, boot: &mut Boot) {
    let system = layout.system_disks();
    let kept = proxmox_uuids(sys, root);
    for (id, node) in &layout.nodes {
        if layout.disks_below(id).is_disjoint(&system) {
            continue;
        }
        let mounted = layout.mounts.iter().find(|m| m.mounted && m.node == *id);
        let (esp, files) = match (node, mounted) {
            (Node::Vfat(_), Some(mount)) => {
                let below = mount.mount_point.strip_prefix("/");
                let at = root.join(below.unwrap_or(&mount.mount_point));
                (id, Files::Mounted(sys, at))
            }
            (Node::Vfat(fs), None) => match layout.nodes.get(&fs.on) {
                Some(Node::Partition(part)) if is_esp(part) => {
                    if !kept.contains(&fs.uuid) {
                        boot.esp_images.push(fs.on.clone());
                    }
                    match Fat::open(sys, &part.device) {
                        Some(fat) => (id, Files::Device(fat)),
                        None => continue,
                    }
                }
                _ => continue,
            },
            // A copy of another one, made with dd: it has the same volume id, and is no node of its own.
            (Node::Partition(part), _) if is_esp(part) && layout.children(id).next().is_none() => {
                match Fat::open(sys, &part.device) {
                    Some(fat) => (id, Files::Device(fat)),
                    None => continue,
                }
            }
            _ => continue,
        };
        let mut files = files;
        let loaders = Loaders::of(&mut files);
        if matches!(node, Node::Vfat(fs) if kept.contains(&fs.uuid)) {
            boot.proxmox_esps.push(loaders.proxmox(esp.clone()));
            continue;
        }
        if loaders.systemd_boot {
            boot.systemd_boot.push(SystemdBoot {
                esp: esp.clone(),
                fallback: loaders.fallback,
            });
        }
        boot.grub_efi
            .extend(loaders.grub.into_iter().map(|(id, shim)| GrubEfi {
                esp: esp.clone(),
                bootloader_id: id,
                shim,
                fallback: loaders.fallback,
            }));
    }
    boot.esp_images.sort();
}

#[cfg(test)]
mod tests {
    use super::super::fat::tests::image;
    use super::*;
    use crate::system::Recorded;

    #[test]
    fn grub_on_a_mounted_esp_is_found_whatever_the_case() {
        let sys = Recorded::new()
            .file("/boot/efi/EFI/proxmox/grubx64.efi", "")
            .file("/boot/efi/EFI/proxmox/shimx64.efi", "")
            .file("/boot/efi/EFI/Boot/bootx64.efi", "");
        let found = Loaders::of(&mut Files::Mounted(&sys, "/boot/efi".into()));
        assert_eq!(found.grub, [("proxmox".to_owned(), true)]);
        assert!(found.fallback && !found.systemd_boot && !found.grub_dir);
    }

    #[test]
    fn loaders_are_found_on_a_partition_that_is_not_mounted() {
        let on = |files: &[&str]| {
            let sys = Recorded::new().file("/dev/sda2", image(32, files));
            Loaders::on_device(&sys, Path::new("/dev/sda2")).unwrap()
        };
        let systemd = on(&[
            "EFI/systemd/systemd-bootx64.efi",
            "EFI/BOOT/BOOTX64.EFI",
            "loader/loader.conf",
            "EFI/proxmox/6.8.12-1-pve/vmlinuz-6.8.12-1-pve",
        ]);
        assert!(systemd.systemd_boot && systemd.fallback && systemd.grub.is_empty());
        assert!(systemd.kernels && on(&["vmlinuz-6.8"]).kernels);
        let esp = systemd.proxmox(NodeId::fs("A"));
        assert!(esp.systemd_boot && !esp.grub_efi && !esp.grub);
        let grub = on(&["EFI/proxmox/grubx64.efi", "grub/grub.cfg"]);
        assert_eq!(grub.grub, [("proxmox".to_owned(), false)]);
        assert!(!grub.kernels);
        let esp = grub.proxmox(NodeId::fs("A"));
        assert!(!esp.systemd_boot && esp.grub_efi && esp.grub);
        assert_eq!(on(&["other/file"]), Loaders::default());
    }
}
