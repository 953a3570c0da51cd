//! Which kernel modules go into the rescue system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::initramfs::ModuleSet;

/// Folders (below `kernel/`) that any machine may need to reach its disks, its keyboard and its consoles.
const STORAGE_DIRS: &[&str] = &[
    "drivers/ata/",
    "drivers/cdrom/",
    "drivers/hv/",
    "drivers/md/",
    "drivers/message/fusion/",
    "drivers/mmc/",
    "drivers/nvme/host/",
    "drivers/pci/controller/",
    "drivers/scsi/",
    "drivers/thunderbolt/",
    "drivers/ufs/",
    "drivers/usb/common/",
    "drivers/usb/core/",
    "drivers/usb/host/",
    "drivers/usb/roles/",
    "drivers/usb/storage/",
    "drivers/virtio/",
    "drivers/char/hw_random/",
    "drivers/char/tpm/",
    "drivers/gpu/drm/tiny/",
    "fs/btrfs/",
    "fs/efivarfs/",
    "fs/exfat/",
    "fs/ext4/",
    "fs/fat/",
    "fs/fuse/",
    "fs/isofs/",
    "fs/nls/",
    "fs/overlayfs/",
    "fs/squashfs/",
    "fs/udf/",
    "fs/xfs/",
];

/// Parts of those folders that no rescue needs: network file and block protocols, test drivers, ancient buses.
const NOT: &[&str] = &[
    "drivers/ata/pata_",
    "drivers/gpu/drm/tiny/gm12u320",
    "drivers/gpu/drm/tiny/cirrus",
    "drivers/nvme/host/nvme-fc",
    "drivers/nvme/host/nvme-rdma",
    "drivers/nvme/host/nvme-tcp",
    "drivers/nvme/host/nvme-fabrics",
    "drivers/md/md-cluster",
    "drivers/scsi/aic94xx",
    "drivers/scsi/be2iscsi/",
    "drivers/scsi/bfa/",
    "drivers/scsi/bnx2fc/",
    "drivers/scsi/bnx2i/",
    "drivers/scsi/csiostor/",
    "drivers/scsi/cxgbi/",
    "drivers/scsi/fcoe/",
    "drivers/scsi/fnic/",
    "drivers/scsi/pcmcia/",
    "drivers/scsi/qedf/",
    "drivers/scsi/qedi/",
    "drivers/scsi/scsi_debug",
    "drivers/scsi/snic/",
];

/// Single modules beside the folders.
const STORAGE_NAMES: &[&str] = &[
    // Block devices.
    "virtio_blk",
    "virtio_console",
    "xen-blkfront",
    "mtip32xx",
    "loop",
    "nbd",
    // Checksums and ciphers: ext4, xfs and btrfs ask for them by algorithm, which modules.dep does not show.
    "crc32c_generic",
    "crc32_generic",
    "crc32c-intel",
    "crc32-pclmul",
    "crct10dif_generic",
    "crct10dif-pclmul",
    "libcrc32c",
    "crc16",
    "xxhash_generic",
    "blake2b_generic",
    "sha256_generic",
    "sha256-ssse3",
    "sha512_generic",
    "sha512-ssse3",
    "aes_generic",
    "aesni-intel",
    "xts",
    "cbc",
    "ecb",
    "essiv",
    "authenc",
    // Ciphers of LUKS beside AES.
    "serpent_generic",
    "twofish_generic",
    "camellia_generic",
    "adiantum",
    "nhpoly1305",
    "chacha20poly1305",
    "af_alg",
    "algif_skcipher",
    "algif_hash",
    // Keyboards.
    "hid",
    "hid-generic",
    "usbhid",
    "hid-apple",
    "hid-cherry",
    "hid-hyperv",
    "hid-lenovo",
    "hid-logitech",
    "hid-logitech-dj",
    "hid-logitech-hidpp",
    "hid-microsoft",
    "hid-roccat",
    "i8042",
    "atkbd",
    "evdev",
    "hyperv-keyboard",
    // Consoles.
    "8250",
    "8250_pci",
    "simplefb",
    "simpledrm",
    "hyperv_fb",
    "fbcon",
    // What QEMU tells the guest.
    "qemu_fw_cfg",
];

/// Common wired network cards, and what a virtual machine has.
const NETWORK_NAMES: &[&str] = &[
    "virtio_net",
    "e1000",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "i40e",
    "ice",
    "r8169",
    "realtek",
    "tg3",
    "bnx2",
    "bnxt_en",
    "atlantic",
    "alx",
    "atl1c",
    "sky2",
    "vmxnet3",
    "hv_netvsc",
    "xen-netfront",
    "r8152",
    "ax88179_178a",
    "asix",
    "cdc_ether",
    "cdc_ncm",
    "mlx4_en",
    "mlx5_core",
    "ena",
    "bonding",
    "8021q",
    "bridge",
];

/// What QEMU's machines need.
const SLIM_NAMES: &[&str] = &[
    "virtio_blk",
    "virtio_scsi",
    "virtio_pci",
    "virtio_console",
    "virtio-rng",
    "virtio_net",
    "ahci",
    "ata_piix",
    "sd_mod",
    "sr_mod",
    "nvme",
    "usb-storage",
    "uas",
    "xhci-pci",
    "ehci-pci",
    "usbhid",
    "hid-generic",
    "evdev",
    "loop",
    "dm-mod",
    "dm-thin-pool",
    "dm-snapshot",
    "dm-mirror",
    "dm-crypt",
    // LVM's RAID and caches.
    "dm-raid",
    "raid0",
    "raid1",
    "raid10",
    "raid456",
    "dm-cache",
    "dm-cache-smq",
    "dm-writecache",
    "xts",
    "essiv",
    "cbc",
    "algif_skcipher",
    "ext4",
    // Without it an ext4 with the feature quota cannot be mounted.
    "quota_v2",
    "xfs",
    "btrfs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
    "nls_utf8",
    "efivarfs",
    "overlay",
    "crc32c_generic",
    "crc32_generic",
    "crct10dif_generic",
    "libcrc32c",
    "9p",
    "9pnet_virtio",
];

/// Endings of module files.
const ENDINGS: &[&str] = &[".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// Whether a file of a kernel package (path below `lib/modules/<version>/`) can be needed by any [`ModuleSet`]. Leaves
/// out what is large and never wanted.
pub(crate) fn ever_wanted(path: &str) -> bool {
    const NEVER: &[&str] = &[
        "kernel/sound/",
        "kernel/drivers/accessibility/",
        "kernel/drivers/comedi/",
        "kernel/drivers/gpu/drm/amd/",
        "kernel/drivers/gpu/drm/i915/",
        "kernel/drivers/gpu/drm/nouveau/",
        "kernel/drivers/gpu/drm/radeon/",
        "kernel/drivers/gpu/drm/xe/",
        "kernel/drivers/iio/",
        "kernel/drivers/infiniband/",
        "kernel/drivers/isdn/",
        "kernel/drivers/media/",
        "kernel/drivers/net/wireless/",
        "kernel/drivers/staging/",
        "kernel/net/mac80211/",
        "kernel/net/wireless/",
    ];
    !NEVER.iter().any(|n| path.starts_with(n))
}

/// `kernel/fs/ext4/ext4.ko.xz` is `ext4`; `-` and `_` mean the same.
pub(crate) fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = ENDINGS.iter().find_map(|e| file.strip_suffix(e))?;
    Some(stem.replace('-', "_"))
}

fn wanted(set: ModuleSet, path: &str, name: &str) -> bool {
    let named = |names: &[&str]| names.iter().any(|n| n.replace('-', "_") == name);
    if set == ModuleSet::Slim {
        return named(SLIM_NAMES);
    }
    let inner = path.strip_prefix("kernel/").unwrap_or(path);
    let in_dirs = STORAGE_DIRS.iter().any(|d| inner.starts_with(d))
        && !NOT.iter().any(|n| inner.starts_with(n));
    in_dirs || named(STORAGE_NAMES) || (set == ModuleSet::Full && named(NETWORK_NAMES))
}

/// The module files (paths relative to `modules_dir`, sorted) of this set and those with the names in `more`, with all that
/// they depend on.
pub(crate) fn select(modules_dir: &Path, set: ModuleSet, more: &[&str]) -> Result<Vec<String>> {
    let dep = modules_dir.join("modules.dep");
    let text = fs::read_to_string(&dep).map_err(Error::io("read", &dep))?;
    // modules.softdep is a comfort: a kernel without it has no such dependencies.
    let soft = fs::read_to_string(modules_dir.join("modules.softdep")).unwrap_or_default();
    Ok(closure(&text, &soft, set, more))
}

/// The names of all modules there are.
pub(crate) fn names(modules_dir: &Path) -> Result<BTreeSet<String>> {
    let dep = modules_dir.join("modules.dep");
    let text = fs::read_to_string(&dep).map_err(Error::io("read", &dep))?;
    let paths = text.lines().filter_map(|line| line.split_once(':'));
    Ok(paths.filter_map(|(path, _)| name_of(path)).collect())
}

pub(crate) fn closure(dep: &str, soft: &str, set: ModuleSet, more: &[&str]) -> Vec<String> {
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut by_name: BTreeMap<String, &str> = BTreeMap::new();
    for line in dep.lines() {
        let Some((path, on)) = line.split_once(':') else {
            continue;
        };
        needs.insert(path, on.split_whitespace().collect());
        if let Some(name) = name_of(path) {
            by_name.insert(name, path);
        }
    }
    let mut also: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in soft.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("softdep") {
            continue;
        }
        let Some(module) = words.next() else { continue };
        let others = words
            .filter(|w| !w.ends_with(':'))
            .map(|w| w.replace('-', "_"));
        also.entry(module.replace('-', "_"))
            .or_default()
            .extend(others);
    }
    let mut todo: Vec<&str> = by_name
        .iter()
        .filter(|(name, path)| wanted(set, path, name) || more.contains(&name.as_str()))
        .map(|(_, path)| *path)
        .collect();
    let mut chosen = BTreeSet::new();
    while let Some(path) = todo.pop() {
        if !chosen.insert(path.to_owned()) {
            continue;
        }
        todo.extend(needs.get(path).into_iter().flatten());
        let soft = name_of(path)
            .and_then(|n| also.get(&n))
            .into_iter()
            .flatten();
        todo.extend(soft.filter_map(|n| by_name.get(n)));
    }
    chosen.into_iter().collect()
}

/// The path without the ending of a compression.
pub(crate) fn plain_path(path: &str) -> &str {
    for ending in [".xz", ".zst", ".gz"] {
        if let Some(plain) = path.strip_suffix(ending) {
            return plain;
        }
    }
    path
}

/// The module itself. Compressed ones are unpacked: the archive around them compresses better than they do one by one,
/// and `modprobe` of any build can load them.
pub(crate) fn load(path: &Path) -> Result<Vec<u8>> {
    let raw = fs::read(path).map_err(Error::io("read", path))?;
    let mut plain = Vec::new();
    match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => xz2::read::XzDecoder::new(raw.as_slice()).read_to_end(&mut plain),
        Some("zst") => zstd::stream::copy_decode(raw.as_slice(), &mut plain).map(|()| 0),
        Some("gz") => {
            return Err(Error::format(
                path,
                "modules compressed with gzip are not supported; use another kernel",
            ));
        }
        _ => return Ok(raw),
    }
    .map_err(Error::io("unpack", path))?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko\n\
        kernel/fs/jbd2/jbd2.ko: kernel/lib/crc-x.ko\n\
        kernel/lib/crc-x.ko:\nkernel/lib/crc16.ko:\nkernel/fs/mbcache.ko:\n\
        kernel/crypto/crc32c_generic.ko:\n\
        kernel/drivers/scsi/megaraid/megaraid_sas.ko:\nkernel/drivers/scsi/qedf/qedf.ko:\n\
        kernel/drivers/net/ethernet/intel/igb/igb.ko.xz: kernel/drivers/dca/dca.ko.xz\n\
        kernel/drivers/dca/dca.ko.xz:\n\
        kernel/sound/soundcore.ko:\n";

    #[test]
    fn dependencies_of_dependencies_come_along() {
        let chosen = closure(DEP, "", ModuleSet::Slim, &[]);
        for module in [
            "fs/ext4/ext4",
            "fs/jbd2/jbd2",
            "lib/crc-x",
            "fs/mbcache",
            "crypto/crc32c_generic",
        ] {
            assert!(
                chosen.contains(&format!("kernel/{module}.ko")),
                "{module} in {chosen:?}"
            );
        }
        assert!(
            !chosen
                .iter()
                .any(|m| m.contains("sound") || m.contains("megaraid") || m.contains("igb"))
        );
    }

    #[test]
    fn the_full_set_has_controllers_and_network_cards_but_not_everything() {
        let full = closure(DEP, "", ModuleSet::Full, &[]);
        assert!(full.iter().any(|m| m.contains("megaraid_sas")));
        assert!(full.iter().any(|m| m.contains("igb")) && full.iter().any(|m| m.contains("dca")));
        assert!(
            !full
                .iter()
                .any(|m| m.contains("sound") || m.contains("qedf"))
        );
        assert!(
            !closure(DEP, "", ModuleSet::Storage, &[])
                .iter()
                .any(|m| m.contains("igb"))
        );
    }

    #[test]
    fn soft_dependencies_come_along() {
        let dep = "kernel/fs/ext4/ext4.ko:\nkernel/crypto/special-hash.ko:\n";
        let chosen = closure(
            dep,
            "# text\nsoftdep ext4 pre: special_hash\n",
            ModuleSet::Slim,
            &[],
        );
        assert!(chosen.contains(&"kernel/crypto/special-hash.ko".to_owned()));
    }

    #[test]
    fn modules_that_are_asked_for_by_name_come_along() {
        let dep = "updates/dkms/zfs.ko: updates/dkms/spl.ko\nupdates/dkms/spl.ko:\n";
        assert!(closure(dep, "", ModuleSet::Full, &[]).is_empty());
        let chosen = closure(dep, "", ModuleSet::Slim, &["zfs"]);
        assert_eq!(chosen, ["updates/dkms/spl.ko", "updates/dkms/zfs.ko"]);
    }

    #[test]
    fn compressed_modules_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.ko.zst");
        fs::write(&path, zstd::encode_all(&b"module"[..], 1).unwrap()).unwrap();
        assert_eq!(load(&path).unwrap(), b"module");
        assert_eq!(plain_path("kernel/m.ko.zst"), "kernel/m.ko");
        assert_eq!(plain_path("kernel/m.ko"), "kernel/m.ko");
    }
}
