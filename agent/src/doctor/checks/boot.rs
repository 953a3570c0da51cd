//! What a restore runs inside the restored host, to make it boot.

use crate::doctor::{Check, Finding, Kind, Look, Severity};

const LOADER: Kind = Kind {
    id: "boot-tool-missing",
    severity: Severity::Critical,
    about: "the host boots with a loader whose installer is not installed",
    why: "A restore runs it inside the restored host; without it the host does not boot.",
};
const DUMPER: Kind = Kind {
    id: "vzdump-missing",
    severity: Severity::Critical,
    about: "a node of Proxmox VE lacks vzdump",
    why: "Its guests are not backed up.",
};

pub const CHECK: Check = Check {
    kinds: &[LOADER, DUMPER],
    settings: false,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Ok(layout) = &look.layout {
        let boot = &layout.boot;
        let needed = [
            (!boot.grub_bios.is_empty(), "grub-install", "grub-pc"),
            (!boot.grub_efi.is_empty(), "grub-install", "grub-efi-amd64"),
            (
                !boot.proxmox_esps.is_empty(),
                "proxmox-boot-tool",
                "proxmox-kernel-helper",
            ),
        ];
        let lost = needed
            .iter()
            .find(|(wanted, program, _)| *wanted && !look.has(program));
        if let Some((_, program, package)) = lost {
            found.push(LOADER.found(
                format!("{program} is missing"),
                format!("apt-get install {package}"),
            ));
        }
    }
    if look.node.is_some() && !look.has("vzdump") {
        found.push(DUMPER.found(
            "vzdump is missing",
            "apt-get install --reinstall pve-manager",
        ));
    }
    found
}
