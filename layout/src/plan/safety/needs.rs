//! What a step writes to, and the tools that it needs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::plan::Step;

impl Step {
    /// The block devices that a step writes to.
    pub fn writes_to(&self) -> Vec<PathBuf> {
        match self {
            Step::Wipe { device, .. }
            | Step::WriteGpt { device, .. }
            | Step::WriteMbr { device, .. }
            | Step::PvCreate { device, .. }
            | Step::MakeExt4 { device, .. }
            | Step::MakeXfs { device, .. }
            | Step::MakeVfat { device, .. }
            | Step::MakeSwap { device, .. }
            | Step::RestoreImage { device, .. }
            | Step::LuksHeader { device, .. }
            | Step::LuksOpen { device, .. }
            | Step::Mount { device, .. }
            | Step::KeepOthers { device, .. }
            | Step::LuksUse { device, .. }
            | Step::Clear { device }
            | Step::RestoreTable { device, .. }
            | Step::KeepVfat { device, .. }
            | Step::BootCode { device }
            | Step::GrubBios { device, .. }
            | Step::EfiBootEntry { device, .. } => vec![device.clone()],
            Step::MakeBtrfs { devices, .. }
            | Step::MakeSubvolumes { devices, .. }
            | Step::MountSubvolume { devices, .. } => devices.clone(),
            Step::VgCreate { devices, .. }
            | Step::RaidCreate { devices, .. }
            | Step::RaidUse { devices, .. } => devices.clone(),
            Step::GroupUse { pvs, .. } => pvs.iter().map(|pv| pv.device.clone()).collect(),
            Step::RaidStop { device } => vec![device.clone()],
            Step::GrubEfi { device, .. } => device.iter().cloned().collect(),
            Step::ProxmoxBoot { esps } => esps.iter().map(|esp| esp.device.clone()).collect(),
            Step::InitramfsDrivers { .. } => Vec::new(),
            Step::ZpoolCreate { vdevs, .. } => {
                vdevs.iter().flat_map(|v| v.devices.clone()).collect()
            }
            Step::LvCreate { pvs, .. } | Step::CacheCreate { pvs, .. } => pvs.clone(),
            Step::ThinPoolCreate {
                pvs, metadata_pvs, ..
            } => pvs.iter().chain(metadata_pvs).cloned().collect(),
            Step::VgSettings { pvs, .. } => pvs.iter().map(|pv| pv.device.clone()).collect(),
            Step::Fence { .. }
            | Step::CacheAttach { .. }
            | Step::VolumeUse { .. }
            | Step::MountReadOnly { .. }
            | Step::CheckBoot { .. }
            | Step::CheckPlaces { .. }
            | Step::GrubFromHost { .. }
            | Step::LuksKey { .. }
            | Step::LuksErase { .. }
            | Step::LuksClose { .. }
            | Step::UpdateCrypttab { .. }
            | Step::RestoreTree { .. }
            | Step::MakeSwapFile { .. }
            | Step::SealSubvolumes { .. }
            | Step::NameSubvolumes { .. }
            | Step::UpdateFstab { .. }
            | Step::UpdateInitramfs { .. }
            | Step::GrubConfig
            | Step::Unmount
            | Step::ZfsCreate { .. }
            | Step::ZpoolFinish { .. }
            | Step::ZfsSet { .. }
            | Step::ZpoolExport { .. }
            | Step::Deactivate { .. } => Vec::new(),
        }
    }

    /// Programs that must be there in the rescue system (what runs inside the restored host is not listed).
    pub fn tools(&self) -> &'static [&'static str] {
        match self {
            Step::Wipe { .. } => &["wipefs", "blkid", "udevadm"],
            Step::WriteGpt { .. } | Step::WriteMbr { .. } => &["wipefs", "udevadm"],
            Step::PvCreate { .. }
            | Step::VgCreate { .. }
            | Step::LvCreate { .. }
            | Step::VgSettings { .. }
            | Step::CacheCreate { .. }
            | Step::Deactivate { .. } => &["lvm"],
            Step::CacheAttach { cache, .. } if cache.kind == "cache" => &["lvm", "cache_check"],
            Step::CacheAttach { .. } => &["lvm"],
            Step::ThinPoolCreate { .. } => &["lvm", "thin_check"],
            Step::LuksKey { .. }
            | Step::LuksHeader { .. }
            | Step::LuksOpen { .. }
            | Step::LuksErase { .. }
            | Step::LuksUse { .. }
            | Step::LuksClose { .. } => &["cryptsetup", "blkid", "udevadm"],
            Step::RaidCreate { .. } | Step::RaidStop { .. } | Step::RaidUse { .. } => {
                &["mdadm", "udevadm"]
            }
            Step::KeepOthers { .. } | Step::RestoreTable { .. } => &["udevadm"],
            Step::GroupUse { .. } | Step::VolumeUse { .. } => &["lvm"],
            Step::Clear { .. } => &["wipefs"],
            Step::KeepVfat { .. } => &["blkid", "fsck.vfat", "mkfs.vfat", "wipefs"],
            Step::MountReadOnly { .. } | Step::CheckPlaces { .. } => &["blkid"],
            Step::MakeExt4 { .. } => &["mke2fs", "tune2fs", "dumpe2fs"],
            Step::MakeXfs { .. } => &["mkfs.xfs"],
            Step::MakeVfat { .. } => &["mkfs.vfat"],
            Step::MakeSwap { .. } => &["mkswap"],
            Step::ZpoolCreate { .. } => &["zpool", "zfs", "zdb"],
            Step::MakeSwapFile { no_cow: true, .. } => &["chattr", "mkswap"],
            Step::MakeSwapFile { .. } => &["mkswap"],
            Step::MakeBtrfs { .. } => &["btrfs", "mkfs.btrfs"],
            Step::MakeSubvolumes { .. } | Step::SealSubvolumes { .. } => &["btrfs"],
            _ => &[],
        }
    }
}

/// The tools of all steps, sorted.
pub(in crate::plan) fn tools(steps: &[Step]) -> Vec<String> {
    let all: BTreeSet<&str> = steps
        .iter()
        .flat_map(|step| step.tools())
        .copied()
        .collect();
    all.into_iter().map(str::to_owned).collect()
}
