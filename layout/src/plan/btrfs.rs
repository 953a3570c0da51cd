//! btrfs: the filesystem, its subvolumes, where they are mounted.

use std::path::{Path, PathBuf};

use super::build::Builder;
use super::step::FstabOption;
use super::{PlanError, PlannedSubvolume, Step};
use crate::model::{Btrfs, Mount, Node, NodeId, is_guest_subvolume};

/// How many devices a profile needs at least (mkfs.btrfs(8), "Profiles").
fn least_devices(profile: &str) -> usize {
    match profile {
        "raid1" | "raid10" | "raid5" => 2,
        "raid1c3" | "raid6" => 3,
        "raid1c4" => 4,
        _ => 1,
    }
}

impl Builder<'_> {
    pub(super) fn btrfs(&mut self, id: &NodeId, fs: &Btrfs) -> Result<(), PlanError> {
        let refused = |reason: String| {
            Err(PlanError::Unsupported {
                node: id.clone(),
                reason,
            })
        };
        if fs.on.is_empty() || fs.on.len() != fs.sizes.len() {
            return refused("its devices are not known: the saved layout is damaged".to_owned());
        }
        let mut devices = Vec::new();
        for on in &fs.on {
            devices.push(self.device(id, on)?);
        }
        for profile in fs.data.iter().chain(&fs.metadata) {
            let least = least_devices(profile);
            if devices.len() < least {
                return refused(format!(
                    "{profile} needs {least} devices, and {} of the saved ones were there",
                    devices.len()
                ));
            }
        }
        let now = self.fit.size(id).unwrap_or(fs.size);
        let what = "btrfs filesystem".to_owned();
        self.resized(id, what, fs.size, now, &["size", "sizes"]);
        if fs.data.is_none() {
            self.notes.push(format!(
                "The profiles and subvolumes of btrfs {id} are not known, as it was not mounted: it is made with the defaults."
            ));
            for what in ["data", "metadata"] {
                self.accept(id, what, "it was not known when the backup was made");
            }
        }
        self.steps.push(Step::MakeBtrfs {
            devices: devices.clone(),
            fs: fs.clone(),
        });
        self.subvolumes(id, fs, devices);
        Ok(())
    }

    fn subvolumes(&mut self, id: &NodeId, fs: &Btrfs, devices: Vec<PathBuf>) {
        let restored: Vec<String> = self
            .saved
            .filesystems_to_save()
            .iter()
            .filter(|m| m.node == *id)
            .filter_map(|m| m.subvolume().map(str::to_owned))
            .collect();
        let (mut made, mut snapshots, mut guests) = (Vec::new(), Vec::new(), Vec::new());
        for (path, subvolume) in &fs.subvolumes {
            // What is the default, or mounted, is made in any case.
            if fs.is_made(path) || restored.contains(path) || fs.default_subvolume == *path {
                self.accept(
                    id,
                    &format!("subvolumes.{path}.id"),
                    "btrfs gives a new subvolume a new number",
                );
                self.accept(
                    id,
                    &format!("subvolumes.{path}.snapshot"),
                    "what was a copy becomes a subvolume of its own",
                );
                made.push(PlannedSubvolume {
                    path: path.clone(),
                    // Those with files are sealed when the files are there.
                    read_only: subvolume.read_only && !restored.contains(path),
                });
                continue;
            }
            let (list, reason) = if is_guest_subvolume(path) {
                (&mut guests, "volumes of guests come back with the guests")
            } else {
                (&mut snapshots, "snapshots are not restored")
            };
            list.push(path.clone());
            self.accept(id, &format!("subvolumes.{path}"), reason);
        }
        if !snapshots.is_empty() {
            self.notes.push(format!(
                "Snapshots of btrfs {} are not restored: {}.",
                fs.uuid,
                snapshots.join(", ")
            ));
        }
        if !guests.is_empty() {
            self.notes.push(format!(
                "Subvolumes of guests are not restored here, guests come back from their own backups: {}.",
                guests.join(", ")
            ));
        }
        if !made.is_empty() {
            self.steps.push(Step::MakeSubvolumes {
                devices,
                subvolumes: made,
                default: fs.default_subvolume.clone(),
            });
        }
    }

    /// Mounts a subvolume and restores its files.
    pub(super) fn mount_subvolume(&mut self, fs: &Btrfs, mount: &Mount) {
        let devices: Option<Vec<PathBuf>> = fs
            .on
            .iter()
            .map(|on| self.devices.get(on).cloned())
            .collect();
        let Some(devices) = devices else { return };
        // What is written from now on is compressed as the host would have done it.
        let compress = |o: &&String| o.starts_with("compress=") || o.starts_with("compress-force=");
        self.steps.push(Step::MountSubvolume {
            devices,
            subvolume: mount.subvolume().unwrap_or_default().to_owned(),
            options: mount.options.iter().filter(compress).cloned().collect(),
            mount_point: mount.mount_point.clone(),
        });
        self.steps.push(Step::RestoreTree {
            mount_point: mount.mount_point.clone(),
        });
    }

    /// Subvolumes that are only to be read become so when their files are there.
    pub(super) fn seal_subvolumes(&mut self) {
        let saved = self.saved;
        let sealed: Vec<PathBuf> = saved
            .filesystems_to_save()
            .into_iter()
            .filter(|mount| match saved.nodes.get(&mount.node) {
                Some(Node::Btrfs(fs)) if self.relevant.contains(&mount.node) => mount
                    .subvolume()
                    .and_then(|path| fs.subvolumes.get(path))
                    .is_some_and(|subvolume| subvolume.read_only),
                _ => false,
            })
            .map(|mount| mount.mount_point.clone())
            .collect();
        if !sealed.is_empty() {
            self.steps.push(Step::SealSubvolumes {
                mount_points: sealed,
            });
        }
    }

    /// Lines of fstab that name a subvolume by number name it by path from now on, as the numbers are others.
    pub(super) fn subvolume_options(&mut self) {
        let mut replace = Vec::new();
        for mount in &self.saved.mounts {
            let (Some(Node::Btrfs(fs)), Some(line)) =
                (self.saved.nodes.get(&mount.node), &mount.fstab)
            else {
                continue;
            };
            let numbered = line.options.iter().find_map(|option| {
                let id = option.strip_prefix("subvolid=")?.parse::<u64>().ok()?;
                let path = fs.subvolumes.iter().find(|(_, s)| s.id == id)?.0;
                Some((option.clone(), format!("subvol=/{path}")))
            });
            if let Some((old, new)) = numbered.filter(|_| self.relevant.contains(&mount.node)) {
                replace.push(FstabOption {
                    file: line.file.clone(),
                    old,
                    new,
                });
            }
        }
        let root = self.saved.mount_at(Path::new("/"));
        let root = root.is_some_and(|mount| self.relevant.contains(&mount.node));
        if root && !replace.is_empty() {
            self.steps.push(Step::NameSubvolumes { replace });
        }
    }
}
