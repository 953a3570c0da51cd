//! btrfs: the superblocks of its devices, and what the kernel and `btrfs` tell of a mounted one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::mount::Mounted;
use super::{Capture, CaptureError};
use crate::model::{Btrfs, Mount, Node, NodeId, Subvolume};
use crate::snapshot;
use crate::system::{BlockDevice, Cmd};
use crate::units::Bytes;

/// Where the first superblock is, and its length (btrfs on-disk format, "Superblock").
const SUPERBLOCK: (u64, usize) = (65_536, 4096);

/// The number of the tree at the top of every filesystem.
const TOP: u64 = 5;

/// Profiles as the kernel names them below `/sys/fs/btrfs/<uuid>/allocation`.
const PROFILES: [&str; 9] = [
    "single", "dup", "raid0", "raid1", "raid1c3", "raid1c4", "raid10", "raid5", "raid6",
];

/// Features that mkfs.btrfs chooses, by bit of the incompatible ones.
const INCOMPAT: [(u64, &str); 4] = [
    (1 << 2, "mixed-bg"),
    (1 << 6, "extref"),
    (1 << 8, "skinny-metadata"),
    (1 << 9, "no-holes"),
];

/// The same by bit of those that only writers must know.
const COMPAT_RO: [(u64, &str); 2] = [(1, "free-space-tree"), (1 << 3, "block-group-tree")];

/// Bits that come by themselves with what is done to the filesystem: back references, default subvolume, compression, big
/// nodes, RAID profiles, a changed UUID; a valid free space tree, fs-verity.
const BY_USE: (u64, u64) = (
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 10 | 1 << 11,
    1 << 1 | 1 << 2,
);

/// A device of a filesystem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    on: NodeId,
    device: BlockDevice,
    superblock: Superblock,
}

/// What is used of a superblock.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Superblock {
    uuid: String,
    label: Option<String>,
    total: u64,
    used: u64,
    devices: u64,
    sector_size: u32,
    node_size: u32,
    checksum: &'static str,
    features: Vec<&'static str>,
    /// Bits of features that are not known here: incompatible ones, and those for writers.
    unknown: (u64, u64),
    seeding: bool,
    /// Number and size of the device that it was read from.
    device: (u64, u64),
}

/// Offsets: btrfs on-disk format, "Superblock" and "DEV_ITEM".
pub(crate) fn parse_superblock(block: &[u8; SUPERBLOCK.1]) -> Result<Superblock, String> {
    let le = |at: usize, length: usize| {
        block[at..at + length]
            .iter()
            .rev()
            .fold(0u64, |n, byte| n << 8 | u64::from(*byte))
    };
    if &block[0x40..0x48] != b"_BHRfS_M" {
        return Err("no btrfs superblock".to_owned());
    }
    let (flags, compat_ro, incompat) = (le(0x38, 8), le(0xb4, 8), le(0xbc, 8));
    let known = |table: &[(u64, &str)]| table.iter().fold(0, |all, (bit, _)| all | bit);
    let mut features: Vec<&str> = INCOMPAT
        .iter()
        .filter(|(bit, _)| incompat & bit != 0)
        .chain(COMPAT_RO.iter().filter(|(bit, _)| compat_ro & bit != 0))
        .map(|(_, name)| *name)
        .collect();
    features.sort_unstable();
    let label: Vec<u8> = block[0x12b..0x22b]
        .iter()
        .copied()
        .take_while(|b| *b != 0)
        .collect();
    Ok(Superblock {
        uuid: uuid::Uuid::from_slice(&block[0x20..0x30])
            .map_err(|e| e.to_string())?
            .to_string(),
        label: (!label.is_empty()).then(|| String::from_utf8_lossy(&label).into_owned()),
        total: le(0x70, 8),
        used: le(0x78, 8),
        devices: le(0x88, 8),
        sector_size: le(0x90, 4) as u32,
        node_size: le(0x94, 4) as u32,
        checksum: match le(0xc4, 2) {
            0 => "crc32c",
            1 => "xxhash",
            2 => "sha256",
            3 => "blake2",
            other => return Err(format!("checksum algorithm {other} is not known")),
        },
        features,
        unknown: (
            incompat & !known(&INCOMPAT) & !BY_USE.0,
            compat_ro & !known(&COMPAT_RO) & !BY_USE.1,
        ),
        seeding: flags & 1 << 32 != 0,
        device: (le(0xc9, 8), le(0xd1, 8)),
    })
}

/// A line of `btrfs subvolume list -q`: number, whether it is a copy, path.
pub(crate) fn parse_subvolume(line: &str) -> Option<(u64, bool, &str)> {
    let (fields, path) = line.split_once(" path ")?;
    let words: Vec<&str> = fields.split_whitespace().collect();
    let after = |key: &str| {
        let at = words.iter().position(|word| *word == key)?;
        words.get(at + 1).copied()
    };
    let id = after("ID")?.parse().ok()?;
    let snapshot = after("parent_uuid").is_some_and(|uuid| uuid != "-");
    Some((id, snapshot, path))
}

/// A path that `btrfs subvolume list -a` gave for the subvolume `within`, from the top of the filesystem. The tool marks what
/// does not lie in it; what does is counted from the top as well (btrfs-progs 6.2), or from `within`.
fn from_top(path: &str, within: &str) -> String {
    match path.strip_prefix("<FS_TREE>/") {
        Some(path) => path.to_owned(),
        None if within.is_empty() || Path::new(path).starts_with(within) => path.to_owned(),
        None => format!("{within}/{path}"),
    }
}

/// The subvolume of a mount, as a path from the top.
fn subvolume_of(mounted: &Mounted) -> Option<&str> {
    mounted
        .options
        .iter()
        .find_map(|o| o.strip_prefix("subvol="))
}

impl Capture<'_> {
    /// Notes a device of a filesystem. Says whether it is one.
    pub(super) fn btrfs_member(
        &mut self,
        device: &BlockDevice,
        on: &NodeId,
    ) -> Result<bool, CaptureError> {
        let mut block = [0; SUPERBLOCK.1];
        let mut file = self.sys.open(&device.node)?;
        let superblock = file
            .seek(SeekFrom::Start(SUPERBLOCK.0))
            .and_then(|_| file.read_exact(&mut block))
            .map_err(|e| e.to_string())
            .and_then(|()| parse_superblock(&block))
            .map_err(|reason| CaptureError::parse(device.node.display().to_string(), reason))?;
        self.members.push(Member {
            on: on.clone(),
            device: device.clone(),
            superblock,
        });
        Ok(true)
    }

    /// Adds the filesystems whose devices were met.
    pub(super) fn btrfs(&mut self) -> Result<(), CaptureError> {
        let mut groups: BTreeMap<String, Vec<Member>> = BTreeMap::new();
        for member in std::mem::take(&mut self.members) {
            groups
                .entry(member.superblock.uuid.clone())
                .or_default()
                .push(member);
        }
        for (uuid, mut members) in groups {
            members.sort_by_key(|m| m.superblock.device.0);
            let mut numbers = BTreeSet::new();
            let (members, copies): (Vec<Member>, Vec<Member>) = members
                .into_iter()
                .partition(|m| numbers.insert(m.superblock.device.0));
            for copy in copies {
                self.layout.warnings.push(format!(
                    "{}: it is a copy of a device of the btrfs {uuid}, with the same UUID: only the first is restored",
                    copy.device.node.display()
                ));
            }
            if let Some(first) = members.first().cloned() {
                self.one_btrfs(&uuid, &members, &first)?;
            }
        }
        Ok(())
    }

    fn one_btrfs(
        &mut self,
        uuid: &str,
        members: &[Member],
        first: &Member,
    ) -> Result<(), CaptureError> {
        let superblock = &first.superblock;
        let mut warn = |text: String| self.layout.warnings.push(format!("btrfs {uuid}: {text}"));
        if superblock.devices > members.len() as u64 {
            warn(format!(
                "{} of its {} devices are there: a restore makes it on these",
                members.len(),
                superblock.devices
            ));
        }
        if superblock.unknown != (0, 0) {
            warn(format!(
                "it has features that this version does not know (incompat {:#x}, ro {:#x}): a restore makes it without",
                superblock.unknown.0, superblock.unknown.1
            ));
        }
        if superblock.seeding {
            warn(
                "it is a seed of other filesystems: a restore makes it an ordinary one".to_owned(),
            );
        }
        let mut fs = Btrfs {
            on: members.iter().map(|m| m.on.clone()).collect(),
            sizes: members
                .iter()
                .map(|m| Bytes(m.superblock.device.1))
                .collect(),
            uuid: uuid.to_owned(),
            label: superblock.label.clone(),
            sector_size: Bytes(superblock.sector_size.into()),
            node_size: Bytes(superblock.node_size.into()),
            checksum: superblock.checksum.to_owned(),
            features: superblock
                .features
                .iter()
                .map(|f| (*f).to_owned())
                .collect(),
            data: None,
            metadata: None,
            subvolumes: BTreeMap::new(),
            default_subvolume: String::new(),
            size: Bytes(superblock.total),
            used: Some(Bytes(superblock.used)),
        };
        let mounted = self.mounted.iter().find(|m| {
            m.fstype == "btrfs"
                && self
                    .devices
                    .by_node(Path::new(&m.source))
                    .is_some_and(|d| members.iter().any(|member| member.device.name == d.name))
        });
        if let Some(mounted) = mounted {
            let at = self.place(&mounted.mount_point);
            let within = subvolume_of(mounted)
                .unwrap_or("")
                .trim_matches('/')
                .to_owned();
            if let Err(error) = self.subvolumes(&mut fs, &at, &within) {
                let what = format!("its subvolumes cannot be listed ({error}): it is not restored");
                for member in members {
                    self.unsupported(&member.device, vec![member.on.clone()], "btrfs", &what);
                }
                return Ok(());
            }
            self.profiles(&mut fs);
            if self.sys.exists(&sysfs(uuid).join("qgroups")) {
                self.layout.warnings.push(format!(
                    "btrfs {uuid}: quotas are on: quota groups and their limits are not restored"
                ));
            }
        }
        self.layout.nodes.insert(NodeId::fs(uuid), Node::Btrfs(fs));
        Ok(())
    }

    /// Where a place of the host is reached from here.
    fn place(&self, mount_point: &Path) -> PathBuf {
        self.root
            .join(mount_point.strip_prefix("/").unwrap_or(mount_point))
    }

    /// Asks `btrfs` for subvolumes, which of them are read-only, and the default one. The subvolume `within` is at `at`.
    fn subvolumes(&self, fs: &mut Btrfs, at: &Path, within: &str) -> Result<(), CaptureError> {
        let ask = |args: &[&str]| -> Result<String, CaptureError> {
            let command = Cmd::new("btrfs")
                .arg("subvolume")
                .args(args.iter().copied());
            Ok(self.sys.run(&command.path(at))?.text())
        };
        let read_only: BTreeSet<u64> = ask(&["list", "-a", "-r"])?
            .lines()
            .filter_map(parse_subvolume)
            .map(|(id, ..)| id)
            .collect();
        for (id, is_snapshot, path) in ask(&["list", "-a", "-q"])?
            .lines()
            .filter_map(parse_subvolume)
        {
            let path = from_top(path, within);
            // What a backup makes for its own time is not the host's.
            if snapshot::btrfs::is_ours(&path) {
                continue;
            }
            fs.subvolumes.insert(
                path,
                Subvolume {
                    id,
                    read_only: read_only.contains(&id),
                    snapshot: is_snapshot,
                },
            );
        }
        let default = ask(&["get-default"])?;
        // "ID 256 gen 9 ...", and at the top "ID 5 (FS_TREE)".
        let id = default
            .split_whitespace()
            .nth(1)
            .and_then(|id| id.parse().ok());
        fs.default_subvolume = fs
            .subvolumes
            .iter()
            .find(|(_, subvolume)| Some(subvolume.id) == id)
            .map(|(path, _)| path.clone())
            .unwrap_or_default();
        if fs.default_subvolume.is_empty() && id != Some(TOP) {
            return Err(CaptureError::parse(
                "btrfs subvolume get-default",
                default.trim(),
            ));
        }
        Ok(())
    }

    /// Profiles out of sysfs, where the kernel has a directory for each that is in use.
    fn profiles(&mut self, fs: &mut Btrfs) {
        let base = sysfs(&fs.uuid).join("allocation");
        let mut profile = |kind: &str| {
            let size = |name: &str| -> u64 {
                let text = self
                    .sys
                    .text(&base.join(kind).join(name).join("total_bytes"));
                text.and_then(|t| t.parse().ok()).unwrap_or(0)
            };
            let mut found: Vec<(u64, &str)> = self
                .sys
                .list_dir(&base.join(kind))
                .unwrap_or_default()
                .iter()
                .filter_map(|name| PROFILES.into_iter().find(|known| *known == name.as_str()))
                .map(|name| (size(name), name))
                .filter(|(size, _)| *size > 0)
                .collect();
            found.sort();
            let names: Vec<&str> = found.iter().map(|(_, name)| *name).collect();
            let most = names.last().copied()?;
            if names.len() > 1 {
                self.layout.warnings.push(format!(
                    "btrfs {}: its {kind} is in several profiles ({}), as after an unfinished balance: a restore makes all \
                     of it {most}",
                    fs.uuid,
                    names.join(", ")
                ));
            }
            Some(most.to_owned())
        };
        let mixed = profile("mixed");
        fs.data = mixed.clone().or_else(|| profile("data"));
        fs.metadata = mixed.or_else(|| profile("metadata"));
    }

    /// The filesystem that is mounted somewhere; `None` also for a directory of one, as bind mounts show it.
    pub(super) fn mounted_filesystem(&self, mounted: &Mounted) -> Option<NodeId> {
        if mounted.fstype == "zfs" {
            let whole = mounted.subtree == "/";
            return self.dataset_called(&mounted.source).filter(|_| whole);
        }
        if mounted.fstype != "btrfs" {
            return self
                .filesystem_on(&mounted.major_minor)
                .filter(|_| mounted.subtree == "/");
        }
        // btrfs has device numbers of its own: its device is found by name.
        let device = self.devices.by_node(Path::new(&mounted.source))?;
        let subvolume = subvolume_of(mounted)?;
        self.content_of(&device.node)
            .filter(|_| subvolume == mounted.subtree)
    }

    /// Subvolumes that are reached below the mounts of their filesystem count as mounted there: a walk of the tree above
    /// does not enter them, as they look like other filesystems.
    pub(super) fn subvolume_mounts(&mut self) {
        let system = self.layout.system_disks();
        let mut found: Vec<Mount> = Vec::new();
        for (id, node) in &self.layout.nodes {
            let Node::Btrfs(fs) = node else { continue };
            let mounts: Vec<&Mount> = self
                .layout
                .mounts
                .iter()
                .filter(|m| m.mounted && m.node == *id)
                .collect();
            if mounts.is_empty() || self.layout.disks_below(id).is_disjoint(&system) {
                continue;
            }
            for path in fs.subvolumes.keys().filter(|path| fs.is_made(path)) {
                if mounts.iter().any(|m| m.subvolume() == Some(path.as_str())) {
                    continue;
                }
                match self.reached(path, &mounts) {
                    Some(mount) => found.push(mount),
                    None => self.layout.warnings.push(format!(
                        "btrfs {}: subvolume {path} is not mounted, so that its files are not saved: a restore makes it empty",
                        fs.uuid
                    )),
                }
            }
        }
        self.layout.mounts.extend(found);
        self.layout.mounts.sort_by(|a, b| {
            a.mount_point
                .cmp(&b.mount_point)
                .then_with(|| a.node.cmp(&b.node))
        });
    }

    /// Where a subvolume is seen below one of the mounts.
    fn reached(&self, path: &str, mounts: &[&Mount]) -> Option<Mount> {
        let (above, rest) = mounts
            .iter()
            .filter_map(|mount| {
                let rest = match mount.subvolume()? {
                    "" => path,
                    above => path.strip_prefix(above)?.strip_prefix('/')?,
                };
                Some((*mount, rest))
            })
            .min_by_key(|(_, rest)| rest.len())?;
        let place = above.mount_point.join(rest);
        // Something else may be mounted over it, or over a directory on the way.
        let covered = self.mounted.iter().any(|m| {
            place.starts_with(&m.mount_point)
                && m.mount_point != above.mount_point
                && m.mount_point.starts_with(&above.mount_point)
        });
        let mut options = above.options.clone();
        options.retain(|o| !o.starts_with("subvol=") && !o.starts_with("subvolid="));
        options.push(format!("subvol=/{path}"));
        (!covered).then(|| Mount {
            mount_point: place,
            options,
            fstab: None,
            ..above.clone()
        })
    }
}

fn sysfs(uuid: &str) -> PathBuf {
    Path::new("/sys/fs/btrfs").join(uuid)
}

#[cfg(test)]
mod tests;
