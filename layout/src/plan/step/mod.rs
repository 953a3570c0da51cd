//! The steps of a plan: plain data, complete enough to be carried out without the layout.

mod parts;
mod words;

pub(in crate::plan) use words::count_of_partitions;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use parts::{
    FstabOption, PlannedPartition, PlannedPv, PlannedSubvolume, PlannedVdev, UsedPartition, UsedPv,
};

use super::boot::PlannedEsp;
use crate::model::{
    Btrfs, Cache, Ext4, GptTable, GroupSettings, Luks, MbrTable, NodeId, RaidArray, Segments,
    Table, Vfat, VolumeSettings, Xfs, ZfsPool,
};
use crate::units::{Bytes, SectorSize};

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
