//! Firmware, boot loaders, kernels.

use std::io::Read;
use std::path::Path;

use crate::model::{Boot, EfiEntry, Firmware, GrubBios, Layout};
use crate::system::{Cmd, System};

/// How this machine was started.
pub(crate) fn firmware(sys: &dyn System) -> Firmware {
    if sys.exists(Path::new("/sys/firmware/efi")) {
        Firmware::Uefi
    } else {
        Firmware::Bios
    }
}

/// Looks for boot loaders of the system in `root`.
pub(crate) fn boot(sys: &dyn System, root: &Path, layout: &Layout) -> Boot {
    let mut boot = Boot {
        secure_boot: secure_boot(sys),
        kernel_command_line: sys.text(Path::new("/proc/cmdline")).unwrap_or_default(),
        running_kernel: sys
            .text(Path::new("/proc/sys/kernel/osrelease"))
            .unwrap_or_default(),
        grub_pc_package: sys.exists(&root.join("var/lib/dpkg/info/grub-pc.list")),
        initramfs_modules: initramfs_modules(sys, root),
        ..Boot::default()
    };
    let mut kernels: Vec<String> = sys
        .list_dir(&root.join("boot"))
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.strip_prefix("vmlinuz-"))
        .map(str::to_owned)
        .collect();
    kernels.sort();
    boot.kernels = kernels;
    let system = layout.system_disks();
    for (id, disk) in layout.disks() {
        if system.contains(id) && mbr_has_grub(sys, &disk.device) {
            boot.grub_bios.push(GrubBios { disk: id.clone() });
        }
    }
    super::esp::loaders(sys, root, layout, &mut boot);
    boot.grub_platforms = grub_platforms(sys, root);
    if firmware(sys) == Firmware::Uefi {
        if let Ok(output) = sys.run(&Cmd::new("efibootmgr").arg("-v")) {
            boot.efi_entries = parse_efibootmgr(&output.text());
        }
    }
    boot
}

fn secure_boot(sys: &dyn System) -> Option<bool> {
    // The variable's value follows four bytes of attributes (kernel: Documentation/filesystems/efivarfs.rst).
    let path =
        Path::new("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");
    sys.read(path).ok()?.get(4).map(|byte| *byte == 1)
}

fn initramfs_modules(sys: &dyn System, root: &Path) -> Option<String> {
    let mut found = None;
    let mut files = vec![root.join("etc/initramfs-tools/initramfs.conf")];
    let parts = root.join("etc/initramfs-tools/conf.d");
    files.extend(
        sys.list_dir(&parts)
            .unwrap_or_default()
            .iter()
            .map(|name| parts.join(name)),
    );
    for file in files {
        for line in sys.text(&file).unwrap_or_default().lines() {
            if let Some(value) = line.trim().strip_prefix("MODULES=") {
                found = Some(value.trim_matches(['"', '\'']).to_owned());
            }
        }
    }
    found
}

/// GRUB's boot.img contains this text within the 440 bytes of boot code.
pub(crate) fn mbr_has_grub(sys: &dyn System, disk: &Path) -> bool {
    let mut code = [0u8; 440];
    let read = sys
        .open(disk)
        .is_ok_and(|mut file| file.read_exact(&mut code).is_ok());
    read && code.windows(4).any(|window| window == b"GRUB")
}

/// The platforms whose modules are there.
fn grub_platforms(sys: &dyn System, root: &Path) -> Vec<String> {
    let dir = root.join("usr/lib/grub");
    let names = sys.list_dir(&dir).unwrap_or_default();
    // grub-common has files there, too.
    let known = |name: &String| ["i386-pc", "x86_64-efi", "arm64-efi"].contains(&name.as_str());
    names.into_iter().filter(known).collect()
}

/// Parses `efibootmgr -v`, in boot order.
pub(crate) fn parse_efibootmgr(text: &str) -> Vec<EfiEntry> {
    let mut order: Vec<String> = Vec::new();
    let mut entries: Vec<EfiEntry> = Vec::new();
    for line in text.lines() {
        if let Some(list) = line.strip_prefix("BootOrder:") {
            order = list.split(',').map(|n| n.trim().to_owned()).collect();
            continue;
        }
        let Some(rest) = line.strip_prefix("Boot") else {
            continue;
        };
        let (Some(number), Some(after)) = (rest.get(..4), rest.get(4..)) else {
            continue;
        };
        if !number.chars().all(|c| c.is_ascii_hexdigit()) {
            continue;
        }
        let active = after.starts_with('*');
        let after = after.trim_start_matches('*').trim_start();
        let (label, path) = after.split_once('\t').unwrap_or((after, ""));
        // HD(2,GPT,<partuuid>,0x800,0x100000)/File(\EFI\debian\shimx64.efi); newer versions leave "File()" out.
        let partuuid = path
            .split_once("GPT,")
            .and_then(|(_, r)| r.split(',').next())
            .map(str::to_lowercase)
            .or_else(|| mbr_partuuid(path));
        let loader = match path.split_once("File(") {
            Some((_, rest)) => rest.split(')').next().map(str::to_owned),
            None => path.split_once(")/\\").map(|(_, rest)| {
                let end = rest
                    .to_ascii_lowercase()
                    .find(".efi")
                    .map_or(rest.len(), |at| at + 4);
                format!("\\{}", &rest[..end])
            }),
        };
        entries.push(EfiEntry {
            number: number.to_owned(),
            label: label.trim().to_owned(),
            active,
            partuuid,
            loader,
        });
    }
    entries.sort_by_key(|e| {
        order
            .iter()
            .position(|n| *n == e.number)
            .unwrap_or(usize::MAX)
    });
    entries
}

/// PARTUUID out of `HD(1,MBR,0x5e0f5a3c,0x800,0x100000)`.
fn mbr_partuuid(path: &str) -> Option<String> {
    let (before, after) = path.split_once(",MBR,0x")?;
    let number: u32 = before.rsplit('(').next()?.parse().ok()?;
    let signature = u32::from_str_radix(after.split([',', ')']).next()?, 16).ok()?;
    Some(format!("{signature:08x}-{number:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Recorded;

    #[test]
    fn efibootmgr_names_partitions_of_mbr_disks() {
        let text = "Boot0001* debian\tHD(1,MBR,0xa0f5a3c,0x800,0x100000)/File(\\EFI\\debian\\grubx64.efi)\n";
        let entries = parse_efibootmgr(text);
        assert_eq!(entries[0].partuuid.as_deref(), Some("0a0f5a3c-01"));
        assert_eq!(mbr_partuuid("HD(x,MBR,0xzz)"), None);
    }

    #[test]
    fn efibootmgr_is_understood() {
        let text = "BootCurrent: 0004\nTimeout: 0 seconds\nBootOrder: 0004,0000\n\
            Boot0000* UiApp\tFvVol(7cb8bdc9)/FvFile(462caa21)\n\
            Boot0004* proxmox\tHD(2,GPT,5E0F5A3C-0000-4000-8000-000000000001,0x800,0x100000)/File(\\EFI\\proxmox\\shimx64.efi)\n\
            Boot0005  old\tHD(2,GPT,5e0f5a3c-0000-4000-8000-000000000001,0x800,0x100000)/\\EFI\\debian\\grubx64.efi0000\n";
        let entries = parse_efibootmgr(text);
        assert_eq!(entries[0].label, "proxmox");
        assert_eq!(
            entries[0].partuuid.as_deref(),
            Some("5e0f5a3c-0000-4000-8000-000000000001")
        );
        assert_eq!(
            entries[0].loader.as_deref(),
            Some("\\EFI\\proxmox\\shimx64.efi")
        );
        assert_eq!(entries[1].label, "UiApp");
        assert!(!entries[2].active);
        assert_eq!(
            entries[2].loader.as_deref(),
            Some("\\EFI\\debian\\grubx64.efi")
        );
    }

    #[test]
    fn a_later_file_decides_about_initramfs_modules() {
        let sys = Recorded::new()
            .file(
                "/etc/initramfs-tools/initramfs.conf",
                "#MODULES=x\nMODULES=most\n",
            )
            .file("/etc/initramfs-tools/conf.d/driver-policy", "MODULES=dep\n");
        assert_eq!(
            initramfs_modules(&sys, Path::new("/")).as_deref(),
            Some("dep")
        );
    }
}
