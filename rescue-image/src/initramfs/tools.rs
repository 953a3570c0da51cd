//! The programs of the rescue system, and the Debian packages that hold them.

/// A program, or several that do the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// Names to look for, the first that exists is taken.
    pub names: &'static [&'static str],
    /// The Debian package of the first name.
    pub package: &'static str,
    /// Without it there is no rescue system.
    pub required: bool,
    /// Left out of slim images.
    pub comfort: bool,
}

const fn required(names: &'static [&'static str], package: &'static str) -> Tool {
    Tool {
        names,
        package,
        required: true,
        comfort: false,
    }
}
const fn optional(names: &'static [&'static str], package: &'static str) -> Tool {
    Tool {
        names,
        package,
        required: false,
        comfort: false,
    }
}
const fn comfort(names: &'static [&'static str], package: &'static str) -> Tool {
    Tool {
        names,
        package,
        required: false,
        comfort: true,
    }
}

/// In the order in which they are reported.
pub(crate) const TOOLS: &[Tool] = &[
    // Shell and what scripts of other tools (xfs_info, fsck) call.
    required(&["bash"], "bash"),
    required(&["cat"], "coreutils"),
    required(&["ls"], "coreutils"),
    required(&["cp"], "coreutils"),
    required(&["mv"], "coreutils"),
    required(&["rm"], "coreutils"),
    required(&["ln"], "coreutils"),
    required(&["mkdir"], "coreutils"),
    required(&["mknod"], "coreutils"),
    required(&["chmod"], "coreutils"),
    required(&["chown"], "coreutils"),
    required(&["chroot"], "coreutils"),
    required(&["dd"], "coreutils"),
    required(&["df"], "coreutils"),
    required(&["sync"], "coreutils"),
    required(&["sleep"], "coreutils"),
    required(&["stty"], "coreutils"),
    required(&["sha256sum"], "coreutils"),
    optional(&["head"], "coreutils"),
    optional(&["tail"], "coreutils"),
    optional(&["wc"], "coreutils"),
    optional(&["env"], "coreutils"),
    optional(&["uname"], "coreutils"),
    optional(&["date"], "coreutils"),
    optional(&["readlink"], "coreutils"),
    optional(&["touch"], "coreutils"),
    optional(&["sed"], "sed"),
    optional(&["grep"], "grep"),
    optional(&["find"], "findutils"),
    optional(&["tar"], "tar"),
    optional(&["gzip"], "gzip"),
    optional(&["zstd"], "zstd"),
    optional(&["xz"], "xz-utils"),
    comfort(&["du"], "coreutils"),
    comfort(&["sort"], "coreutils"),
    comfort(&["cut"], "coreutils"),
    comfort(&["tee"], "coreutils"),
    comfort(&["od"], "coreutils"),
    comfort(&["stat"], "coreutils"),
    comfort(&["truncate"], "coreutils"),
    comfort(&["awk", "mawk", "gawk"], "mawk"),
    comfort(&["diff"], "diffutils"),
    comfort(&["less"], "less"),
    comfort(&["nano"], "nano"),
    comfort(&["vi", "vim.tiny"], "vim-tiny"),
    comfort(&["rsync"], "rsync"),
    // Kernel, devices, mounts.
    required(&["mount"], "mount"),
    required(&["umount"], "mount"),
    required(&["swapon"], "mount"),
    required(&["swapoff"], "mount"),
    required(&["losetup"], "mount"),
    required(&["kmod"], "kmod"),
    required(&["modprobe"], "kmod"),
    required(&["insmod"], "kmod"),
    required(&["lsmod"], "kmod"),
    required(&["udevadm"], "udev"),
    required(&["blkid"], "util-linux"),
    required(&["lsblk"], "util-linux"),
    required(&["wipefs"], "util-linux"),
    required(&["partx"], "util-linux"),
    required(&["blockdev"], "util-linux"),
    required(&["mkswap"], "util-linux"),
    optional(&["findmnt"], "util-linux"),
    optional(&["dmesg"], "util-linux"),
    optional(&["fsck"], "util-linux"),
    optional(&["setsid"], "util-linux"),
    optional(&["fsfreeze"], "util-linux"),
    optional(&["sfdisk"], "fdisk"),
    optional(&["sgdisk"], "gdisk"),
    comfort(&["fdisk"], "fdisk"),
    comfort(&["parted"], "parted"),
    optional(&["ps"], "procps"),
    comfort(&["free"], "procps"),
    comfort(&["top"], "procps"),
    optional(&["ip"], "iproute2"),
    comfort(&["hdparm"], "hdparm"),
    comfort(&["smartctl"], "smartmontools"),
    comfort(&["nvme"], "nvme-cli"),
    comfort(&["ddrescue"], "gddrescue"),
    // LVM.
    required(&["lvm"], "lvm2"),
    required(&["lvs"], "lvm2"),
    required(&["lvcreate"], "lvm2"),
    required(&["lvchange"], "lvm2"),
    required(&["lvconvert"], "lvm2"),
    required(&["lvextend"], "lvm2"),
    required(&["lvremove"], "lvm2"),
    required(&["lvrename"], "lvm2"),
    required(&["lvdisplay"], "lvm2"),
    required(&["vgs"], "lvm2"),
    required(&["vgcreate"], "lvm2"),
    required(&["vgchange"], "lvm2"),
    required(&["vgrename"], "lvm2"),
    required(&["vgremove"], "lvm2"),
    required(&["vgscan"], "lvm2"),
    required(&["vgcfgrestore"], "lvm2"),
    required(&["pvs"], "lvm2"),
    required(&["pvcreate"], "lvm2"),
    required(&["pvremove"], "lvm2"),
    required(&["pvresize"], "lvm2"),
    required(&["pvscan"], "lvm2"),
    required(&["dmsetup"], "dmsetup"),
    optional(&["thin_check"], "thin-provisioning-tools"),
    optional(&["thin_repair"], "thin-provisioning-tools"),
    optional(&["thin_dump"], "thin-provisioning-tools"),
    optional(&["thin_restore"], "thin-provisioning-tools"),
    // LVM calls it when a cache is activated.
    optional(&["cache_check"], "thin-provisioning-tools"),
    optional(&["cache_repair"], "thin-provisioning-tools"),
    optional(&["cache_dump"], "thin-provisioning-tools"),
    // Software RAID, encrypted containers.
    optional(&["mdadm"], "mdadm"),
    optional(&["cryptsetup"], "cryptsetup-bin"),
    // File systems.
    required(&["mke2fs"], "e2fsprogs"),
    required(&["mkfs.ext4"], "e2fsprogs"),
    required(&["e2fsck"], "e2fsprogs"),
    required(&["fsck.ext4"], "e2fsprogs"),
    required(&["resize2fs"], "e2fsprogs"),
    required(&["tune2fs"], "e2fsprogs"),
    required(&["dumpe2fs"], "e2fsprogs"),
    optional(&["e2label"], "e2fsprogs"),
    optional(&["chattr"], "e2fsprogs"),
    optional(&["lsattr"], "e2fsprogs"),
    optional(&["mkfs.ext3"], "e2fsprogs"),
    optional(&["mkfs.ext2"], "e2fsprogs"),
    required(&["mkfs.vfat"], "dosfstools"),
    required(&["fsck.vfat"], "dosfstools"),
    optional(&["fatlabel"], "dosfstools"),
    optional(&["mkfs.xfs"], "xfsprogs"),
    optional(&["xfs_growfs"], "xfsprogs"),
    optional(&["xfs_info"], "xfsprogs"),
    optional(&["xfs_spaceman"], "xfsprogs"),
    optional(&["xfs_repair"], "xfsprogs"),
    optional(&["xfs_admin"], "xfsprogs"),
    optional(&["xfs_db"], "xfsprogs"),
    optional(&["xfs_io"], "xfsprogs"),
    optional(&["fsck.xfs"], "xfsprogs"),
    optional(&["mkfs.btrfs"], "btrfs-progs"),
    optional(&["btrfs"], "btrfs-progs"),
    comfort(&["btrfstune"], "btrfs-progs"),
    // Boot.
    optional(&["efibootmgr"], "efibootmgr"),
    optional(&["getfattr"], "attr"),
    optional(&["getfacl"], "acl"),
];

/// Where systemd's device manager is, newest place first. On Debian 12 it is a link to `udevadm`.
pub(crate) const UDEVD: &[&str] = &[
    "/usr/lib/systemd/systemd-udevd",
    "/lib/systemd/systemd-udevd",
];

/// Libraries that programs open at run time, without a note in the program that says so.
pub(crate) const OPENED_LIBRARIES: &[&str] = &[
    // pthread_exit and pthread_cancel.
    "libgcc_s.so.1",
    // Users and groups by name, before glibc 2.34.
    "libnss_files.so.2",
    // systemd-udevd of Debian 13.
    "libkmod.so.2",
    "libblkid.so.1",
    "libacl.so.1",
];

/// Rules of the device manager that a rescue needs. Those that activate LVM or md by themselves are left out on purpose:
/// what is on the disks stays as it is until a person, or a plan, wants something.
pub(crate) const UDEV_RULES: &[&str] = &[
    "50-firmware.rules",
    "50-udev-default.rules",
    "55-dm.rules",
    "56-lvm.rules",
    "60-block.rules",
    "60-cdrom_id.rules",
    "60-persistent-input.rules",
    "60-persistent-storage-dm.rules",
    "60-persistent-storage.rules",
    "60-serial.rules",
    "63-md-raid-arrays.rules",
    "64-btrfs.rules",
    "80-drivers.rules",
    "95-dm-notify.rules",
];

/// Helpers that those rules call, below `/usr/lib/udev`.
pub(crate) const UDEV_HELPERS: &[&str] = &["ata_id", "scsi_id", "cdrom_id"];

/// Further files of the host, taken where they exist.
pub(crate) const FILES: &[&str] = &["/etc/mke2fs.conf"];

/// Terminal descriptions for pagers and editors.
pub(crate) const TERMINFO: &[&str] = &[
    "l/linux",
    "v/vt100",
    "v/vt102",
    "v/vt220",
    "x/xterm",
    "x/xterm-256color",
    "s/screen",
    "d/dumb",
];
