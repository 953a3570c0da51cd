//! Programs for the restored host, so that boot loaders are really installed, and a look at what came of it.
//!
//! GRUB is the one of the machine outside. proxmox-boot-tool is an imitation that takes the same commands and leaves the same
//! files: an entry in its list, a loader, kernels.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use layout::model::{Layout, Node, NodeId};
use layout::plan::{Plan, Step};
use nix::mount::{MsFlags, mount, umount};

use crate::machine::text;

/// A volume id that is in proxmox-boot-tool's list, of a disk that is gone.
const GONE: &str = "DEAD-BEEF";
const LIST: &str = "etc/kernel/proxmox-boot-uuids";

const BOOT_TOOL: &str = r#"#!/usr/bin/bash
set -e
list=/etc/kernel/proxmox-boot-uuids
case $1 in
clean)
    while read -r uuid; do [ ! -e "/dev/disk/by-uuid/$uuid" ] || echo "$uuid"; done <"$list" >"$list.new"
    mv "$list.new" "$list" ;;
init)
    uuid=$(blkid -p -s UUID -o value "$2")
    [ "$(blkid -p -s TYPE -o value "$2")" = vfat ]
    if findmnt -S "$2"; then exit 1; fi
    grep -q root= /etc/kernel/cmdline
    at=/var/tmp/espmounts/$uuid
    mkdir -p "$at"
    mount -t vfat "$2" "$at"
    [ ! -d /sys/firmware/efi ] # this machine has none
    grub-install --boot-directory "$at" --target i386-pc --no-floppy --modules="part_gpt fat" "${2%2}"
    cp /boot/vmlinuz-* "$at/"
    echo "linux /vmlinuz" >"$at/grub/grub.cfg"
    umount "$at"
    echo "$uuid" >>"$list"
    sort -uo "$list" "$list" ;;
*) exit 1 ;;
esac
"#;

fn io_error(error: nix::Error) -> io::Error {
    io::Error::from_raw_os_error(error as i32)
}

/// Puts programs into the restored root, where the layout has loaders.
pub fn programs(saved: &Layout, root: &Path) -> io::Result<()> {
    if saved.boot.grub_platforms.is_empty() {
        return Ok(());
    }
    for dir in [
        "usr",
        "bin",
        "tmp",
        "var/tmp",
        "boot/grub",
        "etc/default",
        "etc/kernel",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    let usr = root.join("usr");
    mount(
        Some("/usr"),
        &usr,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(io_error)?;
    // What is signed is not on every machine that the floor runs on.
    for signed in ["lib/grub/x86_64-efi-signed", "lib/shim"] {
        let at = usr.join(signed);
        if at.exists() {
            mount(
                Some("none"),
                &at,
                Some("tmpfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .map_err(io_error)?;
        }
    }
    let link = |to: &str, at: &str| match symlink(to, root.join(at)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    for (to, at) in [
        ("usr/lib", "lib"),
        ("usr/lib64", "lib64"),
        ("usr/sbin", "sbin"),
        ("/usr/bin/dash", "bin/sh"),
        ("/usr/bin/bash", "bin/bash"),
    ] {
        link(to, at)?;
    }
    fs::create_dir_all(root.join("etc/grub.d"))?;
    for part in ["00_header", "10_linux"] {
        fs::copy(
            Path::new("/etc/grub.d").join(part),
            root.join("etc/grub.d").join(part),
        )?;
    }
    fs::write(
        root.join("etc/default/grub"),
        "GRUB_DISABLE_OS_PROBER=true\n",
    )?;
    for kernel in &saved.boot.kernels {
        fs::write(root.join(format!("boot/vmlinuz-{kernel}")), "kernel\n")?;
    }
    if !saved.boot.proxmox_esps.is_empty() {
        let tool = root.join("bin/proxmox-boot-tool");
        fs::write(&tool, BOOT_TOOL)?;
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755))?;
        let mut list = format!("{GONE}\n");
        for esp in &saved.boot.proxmox_esps {
            list.push_str(esp.esp.as_str().trim_start_matches("fs:"));
            list.push('\n');
        }
        fs::write(root.join(LIST), list)?;
    }
    Ok(())
}

/// Writes to a device what the image of an EFI system partition holds.
pub fn esp_image(saved: &Layout, part: &NodeId, device: &Path) -> Result<()> {
    let fs = saved.children(part).find_map(|(_, node)| match node {
        Node::Vfat(fs) => Some(fs),
        _ => None,
    });
    let fs = fs.context("no FAT in the layout")?;
    let device = device.to_string_lossy();
    text(&[
        "mkfs.vfat",
        "-F",
        &fs.fat_bits.to_string(),
        "-s",
        &(fs.cluster_size.0 / 512).to_string(),
        "-i",
        &fs.uuid.replace('-', ""),
        &device,
    ])
    .map(drop)
}

/// Looks at every loader that the plan installs.
pub fn check(plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        match step {
            Step::GrubBios { device, .. } => mbr(device)?,
            Step::GrubEfi {
                device: Some(device),
                bootloader_id,
                ..
            } => {
                let loader = format!("EFI/{bootloader_id}/grubx64.efi");
                has(device, &[&loader, "EFI/BOOT/BOOTX64.EFI"])?;
            }
            Step::ProxmoxBoot { esps } => {
                for esp in esps {
                    has(&esp.device, &["grub/grub.cfg", "vmlinuz-6.8.12-1-pve"])?;
                    let disk = esp.device.to_string_lossy();
                    mbr(Path::new(disk.trim_end_matches('2')))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn mbr(disk: &Path) -> Result<()> {
    let mut code = [0u8; 440];
    fs::File::open(disk)?.read_exact(&mut code)?;
    ensure!(
        code.windows(4).any(|w| w == b"GRUB"),
        "{} has no boot code",
        disk.display()
    );
    Ok(())
}

fn has(device: &Path, files: &[&str]) -> Result<()> {
    let at = PathBuf::from("/run/look");
    let flags = MsFlags::MS_RDONLY;
    mount(Some(device), &at, Some("vfat"), flags, None::<&str>)
        .with_context(|| format!("mounting {}", device.display()))?;
    let missing: Vec<&&str> = files.iter().filter(|f| !at.join(f).exists()).collect();
    let missing = format!("{missing:?}");
    umount(&at)?;
    ensure!(missing == "[]", "{} has no {missing}", device.display());
    Ok(())
}

/// The list has the partitions that are there, and no other.
pub fn check_list(saved: &Layout, root: &Path) -> Result<()> {
    if saved.boot.proxmox_esps.is_empty() {
        return Ok(());
    }
    let list = fs::read_to_string(root.join(LIST)).context(LIST)?;
    let ids = saved.boot.proxmox_esps.iter();
    let ids: Vec<&str> = ids
        .map(|e| e.esp.as_str().trim_start_matches("fs:"))
        .collect();
    ensure!(
        list.lines().collect::<Vec<_>>() == ids,
        "the list of partitions is {list:?}"
    );
    Ok(())
}
