//! The steps of a plan: plain data, complete enough to be carried out without the layout.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::boot::PlannedEsp;
use crate::model::{
    Btrfs, Cache, Ext4, GptTable, GroupSettings, Luks, MbrTable, NodeId, RaidArray, Segments,
    Table, VdevRole, Vfat, VolumeSettings, Xfs, ZfsPool,
};
use crate::units::{Bytes, Lba, SectorSize};

/// One step. Each is checked, done and verified; doing one again is harmless.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Makes every disk that is not a target read-only, and checks that the targets are the planned ones and not in use.
    Fence {
        /// Disks to make read-only.
        disks: Vec<PathBuf>,
        /// The targets.
        targets: Vec<PathBuf>,
        /// Volume groups that will be made: no old one of the same name may be active.
        vgs: Vec<String>,
    },
    /// Takes down stale volumes and removes every old signature from a disk.
    Wipe {
        /// The disk.
        device: PathBuf,
        /// Its size as planned.
        size: Bytes,
    },
    /// Writes a GUID partition table.
    WriteGpt {
        /// The disk.
        device: PathBuf,
        /// Disk GUID and limits, fitted to the present disk.
        table: GptTable,
        /// The unit of all addresses.
        sector_size: SectorSize,
        /// Capacity in sectors.
        sectors: u64,
        /// The partitions.
        partitions: Vec<PlannedPartition>,
    },
    /// Asks for the key of a LUKS container, and tries it on the saved header.
    LuksKey {
        /// The saved container.
        node: NodeId,
        /// Name of the mapping.
        name: String,
        /// Where the encrypted data would start.
        data_offset: Bytes,
    },
    /// Writes the saved header of a LUKS container.
    LuksHeader {
        /// The saved container.
        node: NodeId,
        /// Where.
        device: PathBuf,
        /// What.
        luks: Luks,
    },
    /// Opens a LUKS container.
    LuksOpen {
        /// The saved container.
        node: NodeId,
        /// Where.
        device: PathBuf,
        /// Name of the mapping.
        name: String,
    },
    /// Makes a software RAID array.
    RaidCreate {
        /// The array's device during the restore.
        device: PathBuf,
        /// Where the members are, in the order of the array's list.
        devices: Vec<PathBuf>,
        /// What; `device` in it is as saved.
        array: RaidArray,
    },
    /// Writes a master boot record and the records of logical partitions.
    WriteMbr {
        /// The disk.
        device: PathBuf,
        /// Disk signature and places of the records.
        table: MbrTable,
        /// The unit of all addresses.
        sector_size: SectorSize,
        /// Capacity in sectors.
        sectors: u64,
        /// The partitions, the extended one among them.
        partitions: Vec<PlannedPartition>,
    },
    /// Makes a physical volume.
    PvCreate {
        /// The partition or disk.
        device: PathBuf,
        /// LVM UUID.
        uuid: String,
        /// Where the first extent starts.
        pe_start: Bytes,
    },
    /// Makes a volume group.
    VgCreate {
        /// Name.
        name: String,
        /// Its physical volumes.
        devices: Vec<PathBuf>,
        /// Extent size.
        extent_size: Bytes,
        /// Tags.
        tags: Vec<String>,
    },
    /// Makes a logical volume.
    LvCreate {
        /// Volume group.
        vg: String,
        /// Name.
        name: String,
        /// Size.
        size: Bytes,
        /// `false`: made read-only at the end.
        writeable: bool,
        /// Tags.
        tags: Vec<String>,
        /// The thin pool of a thin volume.
        pool: Option<String>,
        /// How its data lies on physical volumes.
        segments: Segments,
        /// The physical volumes; empty: LVM chooses.
        pvs: Vec<PathBuf>,
        /// What else is set for it.
        settings: VolumeSettings,
    },
    /// Makes a thin pool.
    ThinPoolCreate {
        /// Volume group.
        vg: String,
        /// Name.
        name: String,
        /// Size of the data part.
        size: Bytes,
        /// Chunk size.
        chunk_size: Bytes,
        /// Size of the metadata volume.
        metadata_size: Bytes,
        /// Whether new blocks are zeroed.
        zero: bool,
        /// `ignore`, `nopassdown` or `passdown`.
        discards: String,
        /// Whether the group keeps a spare metadata volume.
        spare: bool,
        /// Tags.
        tags: Vec<String>,
        /// Whether writes fail at once when the pool is full.
        error_when_full: bool,
        /// How its data lies on physical volumes.
        segments: Segments,
        /// How its metadata lies on physical volumes.
        metadata_segments: Segments,
        /// The physical volumes of its data; empty: LVM chooses.
        pvs: Vec<PathBuf>,
        /// The physical volumes of its metadata; empty: LVM chooses.
        metadata_pvs: Vec<PathBuf>,
        /// What else is set for it.
        settings: VolumeSettings,
    },
    /// Makes a fast volume, or a cache pool.
    CacheCreate {
        /// Volume group.
        vg: String,
        /// The cache.
        cache: Cache,
        /// Its physical volumes; empty: LVM chooses.
        pvs: Vec<PathBuf>,
    },
    /// Puts a cache in front of a volume.
    CacheAttach {
        /// Volume group.
        vg: String,
        /// The slow volume.
        volume: String,
        /// The cache.
        cache: Cache,
    },
    /// Sets what would have been in the way while the volumes were made.
    VgSettings {
        /// Volume group.
        name: String,
        /// Its settings.
        settings: GroupSettings,
        /// Its physical volumes that have settings of their own.
        pvs: Vec<PlannedPv>,
    },
    /// Makes an ext2, ext3 or ext4 filesystem.
    MakeExt4 {
        /// Where.
        device: PathBuf,
        /// What; `on` is as saved. With `fill` the numbers are the saved ones, which tell the proportions.
        fs: Ext4,
        /// Whether the filesystem gets all of the device, which grew.
        fill: bool,
    },
    /// Makes an XFS filesystem.
    MakeXfs {
        /// Where.
        device: PathBuf,
        /// What; `on` is as saved.
        fs: Xfs,
        /// Whether the filesystem gets all of the device, which grew.
        fill: bool,
    },
    /// Makes a FAT filesystem.
    MakeVfat {
        /// Where.
        device: PathBuf,
        /// What.
        fs: Vfat,
    },
    /// Makes a btrfs on one or several devices.
    MakeBtrfs {
        /// Where.
        devices: Vec<PathBuf>,
        /// What; sizes and `on` are as saved.
        fs: Btrfs,
    },
    /// Makes the subvolumes of a btrfs.
    MakeSubvolumes {
        /// Devices of the filesystem.
        devices: Vec<PathBuf>,
        /// The subvolumes, each after the one that it lies in.
        subvolumes: Vec<PlannedSubvolume>,
        /// Path of the one that is mounted when none is named; empty: the top of the filesystem.
        default: String,
    },
    /// Makes a swap area.
    MakeSwap {
        /// Where.
        device: PathBuf,
        /// UUID.
        uuid: String,
        /// Label.
        label: Option<String>,
        /// Page size.
        page_size: Bytes,
    },
    /// Writes the saved image of a partition that holds nothing known.
    RestoreImage {
        /// The saved partition.
        node: NodeId,
        /// The present one.
        device: PathBuf,
        /// Its size.
        size: Bytes,
    },
    /// Mounts a filesystem below the restore root.
    Mount {
        /// Device.
        device: PathBuf,
        /// Type.
        fstype: String,
        /// Where, as the restored host sees it.
        mount_point: PathBuf,
    },
    /// Mounts a subvolume of a btrfs below the restore root.
    MountSubvolume {
        /// Devices of the filesystem.
        devices: Vec<PathBuf>,
        /// Path from the top of the filesystem; empty: the top itself.
        subvolume: String,
        /// Options that decide how files are stored: `compress=zstd:1`.
        options: Vec<String>,
        /// Where, as the restored host sees it.
        mount_point: PathBuf,
    },
    /// Makes subvolumes read-only, once their files are there.
    SealSubvolumes {
        /// Where they are mounted, as the restored host sees it.
        mount_points: Vec<PathBuf>,
    },
    /// Replaces numbers of subvolumes in fstab, which are not the same any more.
    NameSubvolumes {
        /// The options.
        replace: Vec<FstabOption>,
    },
    /// Restores the files of a filesystem.
    RestoreTree {
        /// Where it is mounted, as the restored host sees it.
        mount_point: PathBuf,
    },
    /// Makes a swap file, which is not among the saved files.
    MakeSwapFile {
        /// Where, as the restored host sees it.
        path: PathBuf,
        /// Length of the file.
        size: Bytes,
        /// UUID.
        uuid: Option<String>,
        /// Label.
        label: Option<String>,
        /// Page size.
        page_size: Bytes,
        /// Whether it has to be written in place, as on btrfs.
        no_cow: bool,
    },
    /// Replaces device names in fstab that may not be the same on this machine.
    UpdateFstab {
        /// Old first field to new one.
        replace: Vec<(String, String)>,
        /// First fields of lines that are switched off: what they name is left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        switch_off: Vec<String>,
        /// Lines for what the saved host did not mount.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        add: Vec<String>,
    },
    /// Replaces device names in crypttab that may not be the same on this machine.
    UpdateCrypttab {
        /// Old second field to new one.
        replace: Vec<(String, String)>,
        /// First fields of lines of containers that are not made: they become comments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        switch_off: Vec<String>,
    },
    /// Adds the drivers of disks to the list of those that the initramfs holds, and makes it again when they were missing.
    InitramfsDrivers {
        /// The disks.
        devices: Vec<PathBuf>,
    },
    /// Makes the initramfs again.
    UpdateInitramfs {
        /// Why.
        reason: String,
    },
    /// Installs GRUB for BIOS into the MBR and the BIOS boot partition of a disk.
    GrubBios {
        /// The disk.
        device: PathBuf,
        /// Modules that GRUB needs to find /boot, since it may not find out itself.
        modules: Vec<String>,
    },
    /// Installs GRUB for UEFI onto the EFI system partition.
    GrubEfi {
        /// Where the partition is mounted, as the restored host sees it.
        esp: PathBuf,
        /// The partition, when it is mounted there for the installation only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<PathBuf>,
        /// Directory below `/EFI`.
        bootloader_id: String,
        /// Whether shim belongs beside it.
        shim: bool,
    },
    /// Has the restored host's proxmox-boot-tool install boot loaders and copy kernels.
    ProxmoxBoot {
        /// The EFI system partitions that it keeps.
        esps: Vec<PlannedEsp>,
    },
    /// Writes GRUB's configuration.
    GrubConfig,
    /// Makes a boot entry in the firmware's variables, when the machine was started through UEFI.
    EfiBootEntry {
        /// The disk.
        device: PathBuf,
        /// Number of the EFI system partition.
        partition: u32,
        /// Its PARTUUID.
        partuuid: String,
        /// Label.
        label: String,
        /// Loader with backslashes.
        loader: String,
    },
    /// Makes a ZFS pool, and its first dataset with it. Nothing stays mounted.
    ZpoolCreate {
        /// What; its vdevs are as saved.
        pool: ZfsPool,
        /// Its vdevs as they are made.
        vdevs: Vec<PlannedVdev>,
        /// Properties of the first dataset.
        root: BTreeMap<String, String>,
    },
    /// Makes a ZFS filesystem, and does not mount it.
    ZfsCreate {
        /// Full name.
        name: String,
        /// Its properties.
        properties: BTreeMap<String, String>,
    },
    /// Names the dataset that is booted from, and tells the restored host where the pool's devices are.
    ZpoolFinish {
        /// Name of the pool.
        pool: String,
        /// The dataset.
        bootfs: Option<String>,
    },
    /// Sets a property that would have been in the way of the files.
    ZfsSet {
        /// Full name of the dataset.
        name: String,
        /// Property.
        property: String,
        /// Its value.
        value: String,
    },
    /// Exports a pool, so that any host imports it.
    ZpoolExport {
        /// Name of the pool.
        pool: String,
    },
    /// Unmounts everything below the restore root.
    Unmount,
    /// Deactivates volume groups, so that the next start finds them clean.
    Deactivate {
        /// The groups.
        vgs: Vec<String>,
        /// Volumes that were read-only: `vg/lv`.
        read_only: Vec<String>,
    },
    /// Erases both ends of an open LUKS container: under the saved key, what lay there before the restore would come back.
    LuksErase {
        /// Name of the mapping.
        name: String,
    },
    /// Closes a LUKS container.
    LuksClose {
        /// Name of the mapping.
        name: String,
    },
    /// Stops an array, so that the next start finds it clean.
    RaidStop {
        /// The array's device during the restore.
        device: PathBuf,
    },
    /// Takes down what is active on a target, checks its partitions, and makes those read-only that nothing is written to.
    KeepOthers {
        /// The disk.
        device: PathBuf,
        /// Partitions that are used.
        used: Vec<UsedPartition>,
        /// Partitions that become read-only.
        protect: Vec<PathBuf>,
    },
    /// Opens a LUKS container that is there.
    LuksUse {
        /// The saved container.
        node: NodeId,
        /// Where.
        device: PathBuf,
        /// Name of the mapping.
        name: String,
        /// UUID that it must have.
        uuid: String,
    },
    /// Starts a software RAID array that is there.
    RaidUse {
        /// The array's device during the restore.
        device: PathBuf,
        /// Where the members are, in the order of the array's list.
        devices: Vec<PathBuf>,
        /// What; `device` in it is as saved.
        array: RaidArray,
    },
    /// Checks a volume group that is there.
    GroupUse {
        /// Name.
        name: String,
        /// Its physical volumes.
        pvs: Vec<UsedPv>,
    },
    /// Activates a logical volume that is there, and no other.
    VolumeUse {
        /// Volume group.
        vg: String,
        /// Name.
        name: String,
        /// The size that it must have at least.
        at_least: Bytes,
        /// Whether it is only looked at.
        read_only: bool,
    },
    /// Checks that the places of filesystems that are made anew hold no part of anything else: no physical volume, container,
    /// member of an array or pool.
    CheckPlaces {
        /// The partitions and volumes.
        devices: Vec<PathBuf>,
    },
    /// Removes old signatures from a partition or volume that gets a new filesystem.
    Clear {
        /// The partition or volume.
        device: PathBuf,
    },
    /// Writes a partition table around contents that are still there.
    RestoreTable {
        /// The disk.
        device: PathBuf,
        /// What.
        table: Table,
        /// The unit of all addresses.
        sector_size: SectorSize,
        /// Capacity in sectors.
        sectors: u64,
        /// The partitions.
        partitions: Vec<PlannedPartition>,
    },
    /// Keeps a FAT filesystem that is healthy, and makes it anew where it is not.
    KeepVfat {
        /// Where.
        device: PathBuf,
        /// What.
        fs: Vfat,
    },
    /// Mounts a filesystem read-only below the restore root, without replaying its journal.
    MountReadOnly {
        /// Device.
        device: PathBuf,
        /// Type.
        fstype: String,
        /// UUID that it must have.
        uuid: String,
        /// Where, as the host sees it.
        mount_point: PathBuf,
    },
    /// Checks that the boot loader will find its configuration and kernels.
    CheckBoot {
        /// Whether the files that boot code is made of are needed.
        code: bool,
    },
    /// Takes GRUB's files from the installed system, where it has newer ones than the backup.
    GrubFromHost {
        /// Where the EFI system partition is mounted, as the host sees it.
        esp: PathBuf,
        /// Directory below `/EFI`.
        bootloader_id: String,
        /// Whether shim belongs beside it.
        shim: bool,
    },
    /// Writes GRUB's boot code into the MBR and the BIOS boot partition, from the files that the installed system has.
    BootCode {
        /// The disk.
        device: PathBuf,
    },
}

/// A physical volume that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedPv {
    /// The device.
    pub device: PathBuf,
    /// LVM UUID.
    pub uuid: String,
}

/// A partition that is there, and is written to or looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedPartition {
    /// The device.
    pub device: PathBuf,
    /// Its size as planned.
    pub size: Bytes,
}

/// Settings of a physical volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPv {
    /// The device.
    pub device: PathBuf,
    /// Tags.
    pub tags: Vec<String>,
    /// `false`: LVM puts no new volumes on it.
    pub allocatable: bool,
}

/// A vdev at the top of a pool to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedVdev {
    /// What for.
    pub role: VdevRole,
    /// As in [`crate::model::Vdev`].
    pub kind: String,
    /// Exponent of the sector size.
    pub ashift: Option<u32>,
    /// Its devices.
    pub devices: Vec<PathBuf>,
}

/// A partition to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPartition {
    /// The saved partition.
    pub node: NodeId,
    /// Device node that it will have.
    pub device: PathBuf,
    /// Number.
    pub number: u32,
    /// Type as [`crate::model::Partition`] has it.
    pub type_guid: String,
    /// Unique GUID, or `signature-NN`.
    pub partuuid: String,
    /// Name.
    pub name: String,
    /// Attribute bits.
    pub attributes: u64,
    /// First block.
    pub start: Lba,
    /// Last block, inclusive.
    pub end: Lba,
}

/// A subvolume to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedSubvolume {
    /// Path from the top of the filesystem.
    pub path: String,
    /// Whether it is made read-only at once, as it stays empty.
    pub read_only: bool,
}

/// An option of a line of fstab(5) that is replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FstabOption {
    /// Second field of the line.
    pub file: String,
    /// The option as it is.
    pub old: String,
    /// The option as it becomes.
    pub new: String,
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no other disk".to_owned();
    }
    paths
        .iter()
        .map(|p| p.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Says how a volume lies on physical volumes, where that is more than usual.
fn spread(f: &mut fmt::Formatter<'_>, segments: &Segments, pvs: &[PathBuf]) -> fmt::Result {
    if *segments != Segments::Linear {
        write!(f, ", {segments}")?;
    }
    if !pvs.is_empty() {
        write!(f, " on {}", list(pvs))?;
    }
    Ok(())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Fence { disks, targets, .. } => {
                write!(
                    f,
                    "Make {} read-only and check {}",
                    list(disks),
                    list(targets)
                )
            }
            Step::Wipe { device, .. } => write!(f, "Erase {}", device.display()),
            Step::WriteGpt {
                device, partitions, ..
            }
            | Step::WriteMbr {
                device, partitions, ..
            } => {
                write!(
                    f,
                    "Write the partition table of {} ({} partitions)",
                    device.display(),
                    partitions.len()
                )
            }
            Step::LuksKey { name, .. } => write!(f, "Try the key of LUKS container {name}"),
            Step::LuksHeader { device, luks, .. } => write!(
                f,
                "Write the saved LUKS header {} to {}",
                luks.uuid,
                device.display()
            ),
            Step::LuksOpen { device, name, .. } => {
                write!(f, "Open LUKS container {name} on {}", device.display())
            }
            Step::LuksErase { name } => {
                write!(f, "Erase both ends of LUKS container {name}")
            }
            Step::LuksClose { name } => write!(f, "Close LUKS container {name}"),
            Step::UpdateCrypttab { .. } => f.write_str("Check device names in /etc/crypttab"),
            Step::RaidCreate {
                device,
                devices,
                array,
            } => {
                let missing = match array.missing() {
                    0 => String::new(),
                    n => format!(" ({n} missing)"),
                };
                write!(
                    f,
                    "Make {} array {} on {}{missing} as {}",
                    array.level,
                    array.name,
                    list(devices),
                    device.display()
                )
            }
            Step::PvCreate { device, .. } => {
                write!(f, "Make {} an LVM physical volume", device.display())
            }
            Step::VgCreate { name, devices, .. } => {
                write!(f, "Make volume group {name} on {}", list(devices))
            }
            Step::LvCreate {
                vg,
                name,
                size,
                segments,
                pvs,
                ..
            } => {
                write!(f, "Make logical volume {vg}/{name} of {size}")?;
                spread(f, segments, pvs)
            }
            Step::ThinPoolCreate {
                vg,
                name,
                size,
                segments,
                pvs,
                ..
            } => {
                write!(f, "Make thin pool {vg}/{name} of {size}")?;
                spread(f, segments, pvs)
            }
            Step::CacheCreate { vg, cache, pvs } => {
                write!(f, "Make cache {vg}/{} of {}", cache.name, cache.size)?;
                spread(f, &Segments::Linear, pvs)
            }
            Step::CacheAttach { vg, volume, cache } => {
                write!(f, "Put cache {} in front of {vg}/{volume}", cache.name)
            }
            Step::VgSettings { name, .. } => {
                write!(f, "Set the attributes of volume group {name}")
            }
            Step::MakeExt4 { device, fs, .. } => {
                write!(
                    f,
                    "Make {} filesystem {} on {}",
                    fs.fstype,
                    fs.uuid,
                    device.display()
                )
            }
            Step::MakeXfs { device, fs, .. } => {
                write!(f, "Make xfs filesystem {} on {}", fs.uuid, device.display())
            }
            Step::MakeVfat { device, fs } => write!(
                f,
                "Make vfat filesystem {} on {}",
                fs.uuid,
                device.display()
            ),
            Step::MakeBtrfs { devices, fs } => {
                write!(f, "Make btrfs filesystem {} on {}", fs.uuid, list(devices))
            }
            Step::MakeSubvolumes {
                devices,
                subvolumes,
                ..
            } => {
                let paths: Vec<&str> = subvolumes.iter().map(|s| s.path.as_str()).collect();
                write!(
                    f,
                    "Make subvolumes {} on {}",
                    paths.join(", "),
                    list(devices)
                )
            }
            Step::MountSubvolume {
                devices,
                subvolume,
                mount_point,
                ..
            } => {
                write!(
                    f,
                    "Mount subvolume /{subvolume} of {} as {}",
                    list(devices),
                    mount_point.display()
                )
            }
            Step::SealSubvolumes { mount_points } => {
                write!(f, "Make the subvolumes at {} read-only", list(mount_points))
            }
            Step::NameSubvolumes { .. } => {
                f.write_str("Replace numbers of subvolumes in /etc/fstab")
            }
            Step::MakeSwap { device, uuid, .. } => {
                write!(f, "Make swap area {uuid} on {}", device.display())
            }
            Step::RestoreImage { node, device, .. } => {
                write!(f, "Write the saved image of {node} to {}", device.display())
            }
            Step::Mount {
                device,
                mount_point,
                ..
            } => {
                write!(f, "Mount {} as {}", device.display(), mount_point.display())
            }
            Step::MakeSwapFile { path, size, .. } => {
                write!(f, "Make swap file {} of {size}", path.display())
            }
            Step::RestoreTree { mount_point } => {
                write!(f, "Restore the files of {}", mount_point.display())
            }
            Step::UpdateFstab { .. } => f.write_str("Check device names in /etc/fstab"),
            Step::InitramfsDrivers { devices } => {
                write!(
                    f,
                    "See that the initramfs has the drivers of {}",
                    list(devices)
                )
            }
            Step::UpdateInitramfs { .. } => f.write_str("Make the initramfs again"),
            Step::GrubBios { device, .. } => {
                write!(f, "Install GRUB for BIOS on {}", device.display())
            }
            Step::GrubEfi {
                esp,
                device,
                bootloader_id,
                ..
            } => {
                let on = device.as_ref().unwrap_or(esp);
                write!(
                    f,
                    "Install GRUB for UEFI as {bootloader_id} on {}",
                    on.display()
                )
            }
            Step::ProxmoxBoot { esps } => {
                let devices: Vec<PathBuf> = esps.iter().map(|e| e.device.clone()).collect();
                write!(f, "Have proxmox-boot-tool set up {}", list(&devices))
            }
            Step::GrubConfig => f.write_str("Write GRUB's configuration"),
            Step::EfiBootEntry { label, .. } => write!(f, "Make EFI boot entry \"{label}\""),
            Step::ZpoolCreate { pool, vdevs, .. } => {
                write!(f, "Make ZFS pool {}:", pool.name)?;
                for vdev in vdevs {
                    let role = vdev.role.keyword().map(|w| format!("{w} "));
                    let role = role.unwrap_or_default();
                    write!(f, " {role}{} {}", vdev.kind, list(&vdev.devices))?;
                }
                Ok(())
            }
            Step::ZfsCreate { name, .. } => write!(f, "Make ZFS filesystem {name}"),
            Step::ZpoolFinish { pool, .. } => {
                write!(f, "Make pool {pool} known to the restored host")
            }
            Step::ZfsSet {
                name,
                property,
                value,
            } => write!(f, "Set {property}={value} on {name}"),
            Step::ZpoolExport { pool } => write!(f, "Export pool {pool}"),
            Step::Unmount => f.write_str("Unmount everything"),
            Step::Deactivate { vgs, .. } => write!(f, "Deactivate volume group {}", vgs.join(", ")),
            Step::RaidStop { device } => write!(f, "Stop array {}", device.display()),
            Step::KeepOthers {
                device, protect, ..
            } => {
                write!(f, "Check the partitions of {}", device.display())?;
                match protect.as_slice() {
                    [] => Ok(()),
                    protect => write!(f, ", and make {} read-only", list(protect)),
                }
            }
            Step::LuksUse { device, name, .. } => {
                write!(f, "Open LUKS container {name} on {}", device.display())
            }
            Step::RaidUse {
                device,
                devices,
                array,
            } => write!(
                f,
                "Start array {} on {} as {}",
                array.name,
                list(devices),
                device.display()
            ),
            Step::GroupUse { name, .. } => write!(f, "Check volume group {name}"),
            Step::VolumeUse {
                vg,
                name,
                read_only,
                ..
            } => {
                let how = if *read_only { " read-only" } else { "" };
                write!(f, "Activate logical volume {vg}/{name}{how}, and no other")
            }
            Step::CheckPlaces { devices } => {
                write!(f, "Check that nothing else lies on {}", list(devices))
            }
            Step::Clear { device } => {
                write!(f, "Remove old signatures from {}", device.display())
            }
            Step::RestoreTable {
                device, partitions, ..
            } => write!(
                f,
                "Write the saved partition table of {} back ({} partitions)",
                device.display(),
                partitions.len()
            ),
            Step::KeepVfat { device, fs } => write!(
                f,
                "Check vfat filesystem {} on {}, and make it anew if it is damaged",
                fs.uuid,
                device.display()
            ),
            Step::MountReadOnly {
                device,
                mount_point,
                ..
            } => write!(
                f,
                "Mount {} read-only as {}",
                device.display(),
                mount_point.display()
            ),
            Step::CheckBoot { .. } => {
                f.write_str("Check that GRUB's configuration and kernels are there")
            }
            Step::GrubFromHost { esp, .. } => write!(
                f,
                "Bring GRUB on {} to the version of the installed system",
                esp.display()
            ),
            Step::BootCode { device } => {
                write!(f, "Write GRUB's boot code to {}", device.display())
            }
        }
    }
}
