//! The kinds of golden hosts: what their storage is, and what is particular about them.

use std::time::Duration;

use anyhow::Result;

use super::DISK_BYTES;
use crate::disk::GIB;
use crate::qemu::{Firmware, Running};

/// A kind of golden host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host {
    /// The layout of the Proxmox VE installer for ext4 on LVM, with both GRUBs.
    PveExt4,
    /// Two mirrored disks, UEFI: the EFI system partition on metadata 1.0, a volume group with root and swap on 1.2.
    Md1,
    /// Debian's "encrypted LVM", BIOS: /boot in the open, root and swap in a volume group in a LUKS container.
    Luks,
    /// Debian's btrfs, UEFI: root and home in subvolumes.
    Btrfs,
    /// A node with guests: the layout of [`Host::PveExt4`] with stand-ins for Proxmox's programs, VMs and containers on the
    /// thin pool, and a second drive at /mnt/backup.
    PveNode,
}

/// The passphrase of [`Host::Luks`].
pub const PASSPHRASE: &str = "correct horse battery staple";

impl Host {
    /// All of them.
    pub const ALL: [Host; 5] = [
        Host::PveExt4,
        Host::Md1,
        Host::Luks,
        Host::Btrfs,
        Host::PveNode,
    ];

    /// In file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::PveExt4 => "pve-ext4",
            Self::Md1 => "md1",
            Self::Luks => "luks",
            Self::Btrfs => "btrfs",
            Self::PveNode => "pve-node",
        }
    }

    /// Sizes of its disks, in bytes.
    pub fn disks(self) -> &'static [u64] {
        match self {
            Self::PveExt4 => &[DISK_BYTES],
            Self::Md1 => &[3 * GIB, 3 * GIB],
            Self::Luks | Self::Btrfs => &[3 * GIB],
            Self::PveNode => &[DISK_BYTES, 2 * GIB],
        }
    }

    /// The script that fills the disks, by its path from `golden/`.
    pub(super) fn script(self) -> &'static str {
        match self {
            Self::PveExt4 => "make-disk",
            Self::Md1 => "make-disk-md1",
            Self::Luks => "make-disk-luks",
            Self::Btrfs => "make-disk-btrfs",
            Self::PveNode => "../golden-pve/make-disk-pve",
        }
    }

    /// The firmware that it boots with, where it boots with one only.
    pub fn only_with(self) -> Option<Firmware> {
        match self {
            Self::PveExt4 | Self::PveNode => None,
            Self::Luks => Some(Firmware::Bios),
            Self::Md1 | Self::Btrfs => Some(Firmware::Uefi),
        }
    }

    /// The partition that holds nothing known, by number.
    pub fn unknown_partition(self) -> Option<u32> {
        (self == Self::PveExt4).then_some(4)
    }

    /// Filesystems beside the root whose files are compared.
    pub fn filesystems(self) -> &'static [&'static str] {
        match self {
            Self::PveExt4 | Self::Md1 | Self::PveNode => &[],
            Self::Luks => &["/boot"],
            Self::Btrfs => &["/home", "/srv/nested"],
        }
    }

    /// A script that prints what has to be the same after a restore, whatever the disk is called.
    pub(crate) fn storage_script(self) -> &'static str {
        match self {
            Self::PveExt4 | Self::PveNode => include_str!("../../golden/facts/pve-ext4"),
            Self::Md1 => include_str!("../../golden/facts/md1"),
            Self::Luks => include_str!("../../golden/facts/luks"),
            Self::Btrfs => include_str!("../../golden/facts/btrfs"),
        }
    }

    /// Types what the host asks for while it starts.
    pub fn unlock(self, machine: &Running) -> Result<()> {
        if self == Self::Luks {
            machine
                .serial
                .expect("Please unlock disk", Duration::from_secs(240))?;
            machine.serial.expect("_crypt: ", Duration::from_secs(30))?;
            machine.serial.send(&format!("{PASSPHRASE}\r"))?;
        }
        Ok(())
    }
}
