//! Short-lived snapshots of mounted filesystems: a backup reads from them what was there at one moment.
//!
//! [`choose`] says which mounts can have one and how, [`take`] makes them, all of them before any is read, and a
//! [`Snapshot`] removes itself when it goes out of scope. What a killed program or a power cut left is removed by
//! [`remove_leftovers`] at the next run: never by its name alone, but by the mark that only this program sets, too.
//!
//! Snapshots are mounted nowhere: a *detached* mount (fsmount(2)) exists as a descriptor of this process only. Nobody
//! else sees it or keeps it busy, and the kernel takes it down with the process, however that ends.

pub(crate) mod btrfs;
mod detached;
pub(crate) mod lvm;
mod room;
mod zfs;

pub use btrfs::PLACE;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

use crate::model::{Layout, Mount, Node, NodeId};
use crate::system::System;

/// How the name of every snapshot begins.
pub const PREFIX: &str = "lifeboat-snap-";

/// Where the lock is that only one program has while it makes, uses and removes snapshots.
pub const LOCK: &str = "/run/lifeboat-snapshots.lock";

/// How much space snapshots may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the size of a classic LVM volume: what is set aside for blocks that are written to meanwhile, in percent.
    pub reserve: u32,
    /// How full a thin pool (its data or its metadata), a ZFS pool or a btrfs may be, in percent.
    pub pool: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            reserve: 20,
            pool: 90,
        }
    }
}

/// Why a filesystem is read as it is, while it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// In words.
    pub reason: String,
    /// It is mounted read-only everywhere: it does not change.
    pub unchanging: bool,
}

impl Live {
    fn because(reason: impl Into<String>) -> Live {
        Live {
            reason: reason.into(),
            unchanging: false,
        }
    }
}

/// How a snapshot of a filesystem is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// A classic LVM snapshot, which has so many bytes of its own.
    Lvm {
        /// Volume group.
        vg: String,
        /// The volume.
        lv: String,
        /// Bytes for what is overwritten meanwhile.
        size: u64,
        /// What is on it.
        fstype: String,
    },
    /// A snapshot in a thin pool.
    Thin {
        /// Volume group.
        vg: String,
        /// The volume.
        lv: String,
        /// Its pool.
        pool: String,
        /// What is on it.
        fstype: String,
    },
    /// A snapshot of a dataset.
    Zfs {
        /// Full name.
        dataset: String,
    },
    /// A snapshot of a subvolume.
    Btrfs {
        /// UUID of the filesystem.
        uuid: String,
        /// One of its devices.
        device: PathBuf,
    },
}

impl Way {
    /// One word for it, as restore points keep it.
    pub fn word(&self) -> &'static str {
        match self {
            Way::Lvm { .. } => "lvm-snapshot",
            Way::Thin { .. } => "lvm-thin-snapshot",
            Way::Zfs { .. } => "zfs-snapshot",
            Way::Btrfs { .. } => "btrfs-snapshot",
        }
    }
}

/// What is to be done for a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Where the filesystem is mounted.
    pub mount_point: PathBuf,
    /// How, or why not.
    pub way: Result<Way, Live>,
}

/// Decides for each of these mounts of the layout how a snapshot of it is made. Asks LVM how much room there is now.
pub fn choose(
    sys: &dyn System,
    layout: &Layout,
    mount_points: &[PathBuf],
    limits: &Limits,
) -> Vec<Choice> {
    let mut choices: Vec<Choice> = mount_points
        .iter()
        .map(|mount_point| Choice {
            mount_point: mount_point.clone(),
            way: way(layout, mount_point),
        })
        .collect();
    lvm::size(sys, &mut choices, limits);
    room::check(sys, &mut choices, limits);
    choices
}

/// What tells this host from others that see the same storage: `/etc/machine-id`.
fn host(sys: &dyn System) -> String {
    let id = sys.text(Path::new("/etc/machine-id")).unwrap_or_default();
    let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    match id.is_empty() {
        true => "unknown".to_owned(),
        false => id,
    }
}

fn way(layout: &Layout, mount_point: &Path) -> Result<Way, Live> {
    let mounts = layout.mounts.iter();
    let mut mounted = mounts.filter(|m| m.mounted && m.mount_point == mount_point);
    let mount = mounted
        .next()
        .ok_or_else(|| Live::because("it is no filesystem of the layout"))?;
    if is_read_only(mount) {
        return Err(Live {
            reason: "it is mounted read-only and does not change".to_owned(),
            unchanging: true,
        });
    }
    match layout.nodes.get(&mount.node) {
        Some(Node::Ext4(fs)) => on_volume(layout, &fs.on, mount),
        Some(Node::Xfs(fs)) => on_volume(layout, &fs.on, mount),
        Some(Node::Vfat(_)) => Err(Live::because("vfat has no snapshots")),
        Some(Node::Btrfs(fs)) => {
            let mut devices = fs.on.iter().filter_map(|on| layout.nodes.get(on)?.device());
            let device = devices
                .next()
                .ok_or_else(|| Live::because("no device of the btrfs is known"))?;
            Ok(Way::Btrfs {
                uuid: fs.uuid.clone(),
                device: device.to_owned(),
            })
        }
        Some(Node::ZfsDataset(dataset)) => Ok(Way::Zfs {
            dataset: dataset.name.clone(),
        }),
        _ => Err(Live::because(format!("{} has no snapshots", mount.fstype))),
    }
}

/// Options of the mount and of the filesystem are in one list: one `rw` is enough for it to change.
fn is_read_only(mount: &Mount) -> bool {
    let has = |option: &str| mount.options.iter().any(|o| o == option);
    has("ro") && !has("rw")
}

fn on_volume(layout: &Layout, on: &NodeId, mount: &Mount) -> Result<Way, Live> {
    let what = match layout.nodes.get(on) {
        Some(Node::LogicalVolume(lv)) => {
            let group = |id: &NodeId| match layout.nodes.get(id) {
                Some(Node::VolumeGroup(vg)) => Ok(vg.name.clone()),
                _ => Err(Live::because("the volume group is not known")),
            };
            let fstype = mount.fstype.clone();
            return match layout.nodes.get(&lv.on) {
                Some(Node::ThinPool(pool)) => Ok(Way::Thin {
                    vg: group(&pool.on)?,
                    lv: lv.name.clone(),
                    pool: pool.name.clone(),
                    fstype,
                }),
                _ => Ok(Way::Lvm {
                    vg: group(&lv.on)?,
                    lv: lv.name.clone(),
                    size: 0,
                    fstype,
                }),
            };
        }
        Some(Node::Partition(_)) => "a partition",
        Some(Node::RaidArray(_)) => "a RAID array without LVM",
        Some(Node::Luks(_)) => "an encrypted container",
        _ => "a device without LVM",
    };
    Err(Live::because(format!(
        "{} on {what} has no snapshots",
        mount.fstype
    )))
}

/// The right to make snapshots on this machine, until it goes out of scope or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<std::fs::File>,
}

impl Lock {
    /// Takes it; `None`: another program has it.
    pub fn take(path: &Path) -> std::io::Result<Option<Lock>> {
        let file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            // Whoever can read it can hold it.
            .mode(0o600)
            .open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Lock { _file: file })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }
}

/// A snapshot that is there. It is removed when this goes out of scope.
pub struct Snapshot<'s> {
    sys: &'s dyn System,
    /// Where the filesystem is mounted.
    pub mount_point: PathBuf,
    /// How it was made.
    pub way: Way,
    name: String,
    /// The root directory of what is to be read.
    root: Option<OwnedFd>,
    /// Of a btrfs: all of the filesystem.
    top: Option<Arc<OwnedFd>>,
    removed: bool,
}

impl std::fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.title(), self.mount_point.display())
    }
}

/// What became of a mount.
#[derive(Debug)]
pub struct View<'s> {
    /// Where the filesystem is mounted.
    pub mount_point: PathBuf,
    /// Its snapshot, or why it has none.
    pub snapshot: Result<Snapshot<'s>, Live>,
}

/// Makes the snapshots that were chosen, one directly after the other, and opens them then. One that cannot be made is no
/// error: its view says why.
pub fn take<'s>(sys: &'s dyn System, choices: Vec<Choice>) -> Vec<View<'s>> {
    let id = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    // What is written out now need not be while the filesystems are frozen: they are so for a shorter time, and the
    // moments of the snapshots are closer together.
    for choice in choices.iter().filter(|c| c.way.is_ok()) {
        let synced = std::fs::File::open(&choice.mount_point)
            .and_then(|dir| nix::unistd::syncfs(&dir).map_err(Into::into));
        if let Err(error) = synced {
            tracing::debug!(mount_point = %choice.mount_point.display(), %error, "not synced before its snapshot");
        }
    }
    let lvm = |c: &Choice| matches!(c.way, Ok(Way::Lvm { .. } | Way::Thin { .. }));
    if choices.iter().any(lvm) {
        lvm::keep_links(sys);
    }
    let mut views = make(sys, choices, &id);
    for view in &mut views {
        let opened = match &mut view.snapshot {
            Ok(snapshot) => snapshot.open(),
            Err(_) => continue,
        };
        if let Err(error) = opened {
            // One that ran full at once says so itself.
            let full = match &view.snapshot {
                Ok(snapshot) => examine(sys, &[snapshot], &Limits::default()).pop(),
                Err(_) => None,
            };
            let text = match full {
                Some((_, why)) => why,
                None => format!("its snapshot cannot be read: {error}"),
            };
            // The snapshot itself goes with what it is replaced by.
            view.snapshot = Err(Live::because(text));
        }
    }
    views
}

/// The snapshots themselves; nothing is opened yet.
fn make<'s>(sys: &'s dyn System, choices: Vec<Choice>, id: &str) -> Vec<View<'s>> {
    let mut tops = btrfs::Tops::default();
    let pools = zfs::make(sys, &choices, &format!("{PREFIX}{id}"));
    let mut number = 0;
    choices
        .into_iter()
        .map(|Choice { mount_point, way }| {
            let snapshot = way.and_then(|way| {
                number += 1;
                let mut snapshot = Snapshot {
                    sys,
                    mount_point: mount_point.clone(),
                    name: match way {
                        // One name for all of them: those of a pool are made in one transaction.
                        Way::Zfs { .. } => format!("{PREFIX}{id}"),
                        _ => format!("{PREFIX}{id}-{number}"),
                    },
                    way,
                    root: None,
                    top: None,
                    removed: true,
                };
                let made = match &snapshot.way {
                    Way::Lvm { .. } | Way::Thin { .. } => {
                        lvm::make(sys, &snapshot.way, &snapshot.name)
                    }
                    Way::Zfs { dataset } => pools.became_of(dataset),
                    Way::Btrfs { uuid, device } => tops.of(uuid, device).and_then(|top| {
                        btrfs::make(&top, &mount_point, &snapshot.name)?;
                        snapshot.top = Some(top);
                        Ok(())
                    }),
                };
                made.map_err(|error| Live::because(format!("no snapshot could be made: {error}")))?;
                snapshot.removed = false;
                Ok(snapshot)
            });
            View {
                mount_point,
                snapshot,
            }
        })
        .collect()
}

impl Snapshot<'_> {
    /// Its name for people and for the tools.
    pub fn title(&self) -> String {
        match &self.way {
            Way::Lvm { vg, .. } | Way::Thin { vg, .. } => format!("{vg}/{}", self.name),
            Way::Zfs { dataset } => format!("{dataset}@{}", self.name),
            Way::Btrfs { .. } => format!("{}/{}", btrfs::PLACE, self.name),
        }
    }

    /// Where its files are read: a path that means something in this process only.
    pub fn root(&self) -> PathBuf {
        match &self.root {
            Some(root) => PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())),
            None => PathBuf::new(),
        }
    }

    fn open(&mut self) -> std::io::Result<()> {
        self.root = Some(match &self.way {
            Way::Lvm { vg, fstype, .. } | Way::Thin { vg, fstype, .. } => {
                detached::volume(&Path::new("/dev").join(vg).join(&self.name), fstype)?
            }
            Way::Zfs { .. } => zfs::open(&self.mount_point, &self.name)?,
            Way::Btrfs { .. } => match &self.top {
                Some(top) => btrfs::open(top, &self.name)?,
                None => return Err(std::io::Error::other("the btrfs is not open")),
            },
        });
        Ok(())
    }

    /// Removes it. Nobody may be reading it any more.
    pub fn remove(mut self) -> Result<(), String> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), String> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        self.root = None;
        let done = match &self.way {
            Way::Lvm { .. } | Way::Thin { .. } => lvm::remove(self.sys, &self.title()),
            Way::Zfs { .. } => zfs::remove(self.sys, &self.title()),
            Way::Btrfs { .. } => match &self.top {
                Some(top) => btrfs::remove(top, &self.name),
                None => Ok(()),
            },
        };
        done.map_err(|error| {
            format!(
                "the snapshot {} could not be removed; the next backup tries again: {error}",
                self.title()
            )
        })
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            tracing::warn!("{error}");
        }
    }
}

/// What is wrong with snapshots that are in use: mount point and reason. One that ran full shows nothing of use any
/// more; those of a pool that fills up have to go before it is full.
pub fn examine(
    sys: &dyn System,
    snapshots: &[&Snapshot<'_>],
    limits: &Limits,
) -> Vec<(PathBuf, String)> {
    let mut troubles = lvm::examine(sys, snapshots, limits);
    troubles.extend(room::examine(sys, snapshots, limits));
    troubles
}

/// Removes what an earlier run that did not come to its end has left. Says what was removed, and what could not be. The
/// caller has the [`Lock`], so that these are nobody's.
pub fn remove_leftovers(sys: &dyn System, layout: &Layout) -> Vec<Result<String, String>> {
    let mut done = Vec::new();
    let mut groups = false;
    let mut datasets = Vec::new();
    let mut tops = btrfs::Tops::default();
    for node in layout.nodes.values() {
        match node {
            Node::VolumeGroup(_) => groups = true,
            Node::ZfsDataset(dataset) if !crate::model::is_guest_dataset(&dataset.name) => {
                datasets.push(dataset.name.as_str());
            }
            _ => {}
        }
    }
    if groups {
        done.extend(lvm::leftovers(sys));
    }
    if !datasets.is_empty() {
        done.extend(zfs::leftovers(sys, &datasets));
    }
    // One that is not mounted can have none of them, or will have them removed when it is mounted again.
    for (id, node) in &layout.nodes {
        let Node::Btrfs(fs) = node else { continue };
        let mounted = |m: &Mount| m.mounted && m.node == *id && !is_read_only(m);
        let device = fs.on.iter().find_map(|on| layout.nodes.get(on)?.device());
        if let Some(device) = device.filter(|_| layout.mounts.iter().any(mounted)) {
            match tops.of(&fs.uuid, device) {
                Ok(top) => done.extend(btrfs::leftovers(&top)),
                Err(error) => done.push(Err(format!(
                    "cannot look for snapshots that are left on {}: {error}",
                    device.display()
                ))),
            }
        }
    }
    done
}

#[cfg(test)]
mod tests;
