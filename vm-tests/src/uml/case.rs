//! Layout files: a saved layout, the disks of the machine that it is restored on, and what must come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layout::model::Layout;
use layout::plan::{Grow, LeaveOut, Mode};
use serde::{Deserialize, Serialize};

/// A layout file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is about.
    pub description: String,
    /// The machine that it runs on.
    #[serde(default)]
    pub machine: Kind,
    /// The machine's disks, `/dev/ubda` first.
    pub disks: Vec<DiskSpec>,
    /// Saved disk to the device that takes its place, or several joined by `+`; `onto:` and another saved disk, or `missing`.
    pub map: BTreeMap<String, String>,
    /// What happens with the space of a bigger disk.
    #[serde(default)]
    pub grow: Grow,
    /// What is not made again.
    #[serde(default)]
    pub leave_out: BTreeSet<LeaveOut>,
    /// Restored as bare metal first, damaged, and then restored in this mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<InPlace>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
    /// Whether restores of it are also cut and made to fail at many places (minutes instead of seconds).
    #[serde(default)]
    pub cuts: bool,
    /// The saved layout...
    #[serde(default)]
    pub layout: Option<serde_json::Value>,
    /// ...or the name of the file that has it.
    #[serde(default)]
    pub layout_of: Option<String>,
}

/// A disk of the machine.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// Size.
    pub mib: u64,
    /// What an earlier life left on it.
    #[serde(default)]
    pub dirt: Option<Dirt>,
    /// Bytes of a sector, if not 512: the kernel's own imitation of a SCSI disk, one at most, `/dev/sda`.
    #[serde(default)]
    pub sector_size: Option<u32>,
}

impl DiskSpec {
    /// The device of the disk of this index.
    pub fn device(&self, index: usize) -> PathBuf {
        match self.sector_size {
            Some(_) => PathBuf::from("/dev/sda"),
            None => PathBuf::from(format!("/dev/ubd{}", (b'a' + index as u8) as char)),
        }
    }
}

/// A machine of the storage floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// User Mode Linux; its disks are `/dev/ubda`, `/dev/ubdb`...
    #[default]
    Uml,
    /// QEMU, on a tree with ZFS; its disks are `/dev/vdb`, `/dev/vdc`..., as the tree is on the first one.
    Zfs,
}

/// What an earlier life left on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dirt {
    /// A volume group called `pve` on the whole disk, with a volume `root` that is active.
    ActivePve,
    /// The same, not active.
    Pve,
    /// A GPT with a partition 3 that holds a volume group called `pve`, as PVE makes it.
    PveInPartition,
    /// A volume group called `pve` on the whole disk and on the next one, with an active volume on both, and with the UUID
    /// of a saved physical volume.
    PveWithNext,
    /// Half of a RAID 1 called `floor:0` on the whole disk, stopped.
    Raid,
    /// The same, running.
    ActiveRaid,
    /// A GPT with half of a RAID 1 called `floor:0` in partition 2, with its metadata at the end; stopped.
    RaidInPartition,
    /// A RAID 1 called `floor:0` on this disk and the next one, running.
    ActiveRaidWithNext,
    /// A LUKS container on the whole disk, open as `root_crypt`.
    ActiveLuks,
    /// ext4 on the whole disk, and a GPT's backup at its end.
    Ext4AndOldBackup,
    /// A pool called `rpool` on the whole disk, exported.
    Pool,
    /// The same, imported.
    ActivePool,
    /// A GPT with a pool called `rpool` in partition 3, exported.
    PoolInPartition,
}

/// A disaster that is answered without bare metal.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InPlace {
    /// How.
    pub mode: Mode,
    /// What happens first.
    pub damage: Vec<Damage>,
    /// What may have other bytes afterwards: `/dev/ubda2`, `pve/root`. Everything else must have the same.
    pub remade: Vec<String>,
}

/// What happens to a restored machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// The first MiB of a device becomes rubbish.
    Rubbish(String),
    /// A device gets another filesystem, with other files.
    Xfs(String),
    /// Both copies of a disk's GUID partition table are zeroed, the boot code not.
    GptZeroed(String),
    /// The MBR's partition records are zeroed, the boot code not.
    MbrZeroed(String),
    /// A logical volume is removed.
    Lvremove(String),
    /// A partition is removed from the table.
    PartitionRemoved(String, u32),
}

/// What must come of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// The layout is there, twice.
    #[default]
    Restored,
    /// The plan is refused with this many bytes missing, and nothing is written.
    TooSmall {
        /// Bytes.
        missing: u64,
    },
    /// What is done in place is refused in these words, and nothing is written.
    Refused {
        /// A part of the reason.
        words: String,
    },
}

impl Case {
    /// The device of the disk of this index.
    pub fn device(&self, index: usize) -> PathBuf {
        match self.machine {
            Kind::Uml => self
                .disks
                .get(index)
                .map_or_else(PathBuf::new, |disk| disk.device(index)),
            Kind::Zfs => PathBuf::from(format!("/dev/vd{}", (b'b' + index as u8) as char)),
        }
    }

    /// Whether a device takes the place of a saved disk, or a part of it.
    pub fn is_target(&self, device: &Path) -> bool {
        let named = self.map.values().flat_map(|words| words.split('+'));
        named.map(Path::new).any(|target| target == device)
    }

    /// Reads a layout file; one that is named by `layout_of` lies beside it.
    pub fn load(path: &Path) -> Result<(Case, Layout)> {
        let case = Case::read(path)?;
        let value = match (&case.layout, &case.layout_of) {
            (Some(layout), None) => layout.clone(),
            (None, Some(name)) => {
                let other = path.with_file_name(format!("{name}.json"));
                Case::read(&other)?
                    .layout
                    .with_context(|| format!("{} has no layout", other.display()))?
            }
            _ => bail!(
                "{}: exactly one of layout and layout_of is needed",
                path.display()
            ),
        };
        let layout = Layout::from_value(value).with_context(|| path.display().to_string())?;
        Ok((case, layout))
    }

    fn read(path: &Path) -> Result<Case> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The layout files of this crate, sorted by name.
    pub fn all() -> Result<Vec<PathBuf>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("layouts");
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_file_is_readable() {
        let files = Case::all().unwrap();
        assert!(files.len() >= 5, "{files:?}");
        for file in files {
            Case::load(&file).unwrap();
        }
    }
}
