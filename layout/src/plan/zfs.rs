//! ZFS: pools made anew on the planned devices, and their datasets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::build::Builder;
use super::{PlanError, PlannedVdev, Step};
use crate::capture::zfs::POOL_PROPERTIES;
use crate::model::{Mount, Node, NodeId, Vdev, VdevRole, ZfsDataset, ZfsMember, ZfsPool};

/// Properties that would be in the way while the files are restored: set when all is there.
const LATE: [&str; 1] = ["readonly"];

/// Space that a dataset has for itself (zfsprops(7)). More than there is makes `zfs create` fail.
const RESERVATIONS: [&str; 2] = ["reservation", "refreservation"];

impl Builder<'_> {
    /// A member is where its device is.
    pub(super) fn zfs_member(&mut self, id: &NodeId, member: &ZfsMember) -> Result<(), PlanError> {
        let device = self.device(id, &member.on)?;
        self.devices.insert(id.clone(), device);
        Ok(())
    }

    pub(super) fn zfs_pool(&mut self, id: &NodeId, pool: &ZfsPool) -> Result<(), PlanError> {
        let refuse = |reason: String| {
            Err(PlanError::Unsupported {
                node: id.clone(),
                reason,
            })
        };
        if let Some(reason) = unsound(pool) {
            return refuse(reason);
        }
        let (mut vdevs, mut absent) = (Vec::new(), Vec::new());
        for vdev in &pool.vdevs {
            let devices: Option<Vec<PathBuf>> = vdev
                .members
                .iter()
                .map(|m| self.devices.get(m).cloned())
                .collect();
            match devices {
                Some(devices) => vdevs.push(planned(vdev, devices)),
                None if vdev.role == VdevRole::Data => {
                    return refuse(format!("nothing makes all members of its {vdev}"));
                }
                None => absent.push(vdev.to_string()),
            }
        }
        if let Some(vdev) = pool
            .vdevs
            .iter()
            .find(|v| v.missing > 0 && v.role == VdevRole::Data && v.kind != "mirror")
        {
            return refuse(format!(
                "{} of its members were missing when the backup was made, and zpool makes no incomplete {}: replace \
                 the disk on the host and make another backup",
                vdev.missing, vdev.kind
            ));
        }
        if !absent.is_empty() {
            self.notes.push(format!(
                "Pool {} is made without {}: the disk is not mapped. It works without; to have it again, map that disk too, \
                 or add it later (zpool add).",
                pool.name,
                absent.join(", ")
            ));
            self.accept(id, "vdevs", "devices that are not mapped are left out");
        }
        if pool.vdevs.iter().any(|v| v.missing > 0) {
            self.notes.push(format!(
                "Pool {} is made of fewer devices than it had: it has less or no redundancy until you add a disk (zpool \
                 attach).",
                pool.name
            ));
            self.accept(id, "vdevs", "it is made of the devices that were there");
        }
        let all = pool.vdevs.iter().flat_map(|v| &v.members);
        let resized = all.filter_map(|m| match self.saved.nodes.get(m) {
            Some(Node::ZfsMember(member)) => Some(&member.on),
            _ => None,
        });
        let changed = resized
            .into_iter()
            .any(|on| self.room(on) != super::fit::saved_size(self.saved, on));
        if changed || !absent.is_empty() {
            self.accept(id, "size", "its devices have other sizes");
        }
        let system = self.saved.mount_at(Path::new("/"));
        if !system.is_some_and(|m| self.relevant.contains(&m.node)) {
            self.accept(id, "hostid", "the system, which has it, is not restored");
        }
        let root = self.saved.nodes.get(&NodeId::dataset(&pool.name));
        let root = match root {
            Some(Node::ZfsDataset(root)) if root.encrypted => {
                self.notes.push(format!(
                    "Pool {0} is made without encryption: its first dataset was encrypted, and so would be what is put into \
                     it. Its files are not restored.",
                    pool.name
                ));
                self.plain(root)
            }
            Some(Node::ZfsDataset(root)) => self.early(root),
            _ => BTreeMap::new(),
        };
        self.steps.push(Step::ZpoolCreate {
            pool: pool.clone(),
            vdevs,
            root,
        });
        Ok(())
    }

    pub(super) fn zfs_dataset(
        &mut self,
        id: &NodeId,
        dataset: &ZfsDataset,
    ) -> Result<(), PlanError> {
        let reason = if dataset.encrypted {
            "encrypted datasets are not restored"
        } else if !dataset.is_made() {
            "guests come back from their own backups"
        } else {
            // The pool makes the first one.
            if dataset.name.contains('/') {
                let properties = self.early(dataset);
                self.steps.push(Step::ZfsCreate {
                    name: dataset.name.clone(),
                    properties,
                });
            }
            return Ok(());
        };
        let root = self.saved.mount_at(Path::new("/"));
        if root.is_some_and(|m| m.node == *id) {
            return Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!("the root filesystem lies on it, and {reason}"),
            });
        }
        self.accept(id, "*", reason);
        // The pool makes the first one.
        if dataset.encrypted && dataset.name.contains('/') && self.holds_made_ones(&dataset.name) {
            let mut properties = self.plain(dataset);
            properties.insert("canmount".to_owned(), "off".to_owned());
            self.notes.push(format!(
                "{} was encrypted: it is made without encryption and stays empty, for what lies below it.",
                dataset.name
            ));
            self.steps.push(Step::ZfsCreate {
                name: dataset.name.clone(),
                properties,
            });
        }
        Ok(())
    }

    /// Properties that a dataset is made with.
    fn early(&mut self, dataset: &ZfsDataset) -> BTreeMap<String, String> {
        let mut properties = dataset.properties.clone();
        properties.retain(|name, _| !LATE.contains(&name.as_str()));
        let pool = dataset.name.split('/').next().unwrap_or_default();
        for name in RESERVATIONS {
            let set = properties.get(name).is_some_and(|v| v != "none");
            if !set || !self.pool_shrinks(pool) {
                continue;
            }
            let value = properties.remove(name).unwrap_or_default();
            self.notes.push(format!(
                "{} is made without its {name} of {value}, as pool {pool} is smaller now: set it again with zfs set.",
                dataset.name
            ));
            let id = NodeId::dataset(&dataset.name);
            self.accept(&id, &format!("properties.{name}"), "the pool is smaller");
        }
        properties
    }

    /// Properties of an encrypted dataset without those that only such a one has.
    fn plain(&mut self, dataset: &ZfsDataset) -> BTreeMap<String, String> {
        let mut properties = self.early(dataset);
        properties.retain(|name, _| {
            !["encryption", "keyformat", "keylocation", "pbkdf2iters"].contains(&name.as_str())
        });
        properties
    }

    /// Whether a device of the pool is smaller than the saved one.
    fn pool_shrinks(&self, name: &str) -> bool {
        let Some(Node::ZfsPool(pool)) = self.saved.nodes.get(&NodeId::pool(name)) else {
            return false;
        };
        let members = pool.vdevs.iter().flat_map(|v| &v.members);
        members
            .filter_map(|id| match self.saved.nodes.get(id) {
                Some(Node::ZfsMember(member)) => Some(&member.on),
                _ => None,
            })
            .any(|on| self.room(on) < super::fit::saved_size(self.saved, on))
    }

    /// Whether a dataset below this one is made, which needs it.
    fn holds_made_ones(&self, name: &str) -> bool {
        self.relevant
            .iter()
            .any(|id| match self.saved.nodes.get(id) {
                Some(Node::ZfsDataset(other)) => {
                    let below = other.name.strip_prefix(name);
                    other.is_made() && below.is_some_and(|rest| rest.starts_with('/'))
                }
                _ => false,
            })
    }

    /// Mounts a dataset and restores its files.
    pub(super) fn mount_dataset(&mut self, dataset: &ZfsDataset, mount: &Mount) {
        if !dataset.is_made() || !self.relevant.contains(&mount.node) {
            return;
        }
        self.steps.push(Step::Mount {
            device: PathBuf::from(&dataset.name),
            fstype: "zfs".to_owned(),
            mount_point: mount.mount_point.clone(),
        });
        self.steps.push(Step::RestoreTree {
            mount_point: mount.mount_point.clone(),
        });
    }

    /// Whether the root filesystem lies in a pool.
    pub(super) fn root_on_zfs(&self) -> bool {
        let root = self.saved.mount_at(Path::new("/"));
        root.is_some_and(|m| matches!(self.saved.nodes.get(&m.node), Some(Node::ZfsDataset(_))))
    }

    fn pools(&self) -> Vec<&ZfsPool> {
        let pools = self.steps.iter().filter_map(|step| match step {
            Step::ZpoolCreate { pool, .. } => self.saved.nodes.get(&NodeId::pool(&pool.name)),
            _ => None,
        });
        pools
            .filter_map(|node| match node {
                Node::ZfsPool(pool) => Some(pool),
                _ => None,
            })
            .collect()
    }

    /// What is only possible, or only known, when all datasets and files are there.
    pub(super) fn zfs_finish(&mut self) {
        let finish: Vec<Step> = self
            .pools()
            .into_iter()
            .map(|pool| Step::ZpoolFinish {
                pool: pool.name.clone(),
                bootfs: pool.bootfs.clone(),
            })
            .collect();
        self.steps.extend(finish);
    }

    /// Properties that were in the way until now.
    pub(super) fn zfs_late(&mut self) {
        let datasets = self.relevant.iter().filter_map(|id| {
            let Some(Node::ZfsDataset(dataset)) = self.saved.nodes.get(id) else {
                return None;
            };
            dataset.is_made().then_some(dataset)
        });
        let late: Vec<Step> = datasets
            .flat_map(|dataset| {
                let late = LATE
                    .iter()
                    .filter_map(|name| Some((*name, dataset.properties.get(*name)?)));
                late.map(|(property, value)| Step::ZfsSet {
                    name: dataset.name.clone(),
                    property: property.to_owned(),
                    value: value.clone(),
                })
            })
            .collect();
        self.steps.extend(late);
    }

    /// What is not restored, and what else to know about pools.
    pub(super) fn zfs_remarks(&mut self) {
        let mounted: Vec<&NodeId> = self
            .saved
            .filesystems_to_save()
            .iter()
            .map(|m| &m.node)
            .collect();
        let (mut guests, mut volumes, mut encrypted, mut empty) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut gone = Vec::new();
        for id in &self.relevant {
            match self.saved.nodes.get(id) {
                Some(Node::ZfsVolume(volume)) => {
                    gone.push(id.clone());
                    let list = match crate::model::is_guest_dataset(&volume.name) {
                        true => &mut guests,
                        false => &mut volumes,
                    };
                    list.push(format!("{} ({})", volume.name, volume.size));
                }
                Some(Node::ZfsDataset(dataset)) if dataset.encrypted => {
                    encrypted.push(dataset.name.clone());
                }
                Some(Node::ZfsDataset(dataset)) if !dataset.is_made() => {
                    guests.push(dataset.name.clone());
                }
                Some(Node::ZfsDataset(dataset))
                    if !dataset.holds_no_files() && !mounted.contains(&id) =>
                {
                    empty.push(dataset.name.clone());
                }
                _ => {}
            }
        }
        for id in gone {
            self.accept(&id, "*", "volumes are not restored here");
        }
        for (list, text) in [
            (
                guests,
                "Datasets and volumes of guests are not restored here, guests come back from their own backups",
            ),
            (volumes, "ZFS volumes are not restored"),
            (
                encrypted,
                "Encrypted datasets are not restored: that needs their key, and the new datasets would have another one",
            ),
            (
                empty,
                "These datasets were not mounted: they are made again and stay empty",
            ),
        ] {
            if !list.is_empty() {
                self.notes.push(format!("{text}: {}.", list.join(", ")));
            }
        }
        let names: Vec<String> = self.pools().iter().map(|p| p.name.clone()).collect();
        for disk in &self.inventory.disks {
            let fenced = !self.disks.iter().any(|d| d.device == disk.device);
            for name in names.iter().filter(|_| fenced) {
                if disk.contents.contains(&crate::inventory::pool_words(name)) {
                    self.notes.push(format!(
                        "{} also holds a pool called {name}: the restored host would find two of that name, and may import \
                         the wrong one or none. Take that disk out before the restart.",
                        super::disk::describe(disk)
                    ));
                }
            }
        }
    }
}

fn planned(vdev: &Vdev, devices: Vec<PathBuf>) -> PlannedVdev {
    // What is left of a mirror is a single device, to which others can be attached again.
    let kind = if devices.len() == 1 && vdev.kind == "mirror" {
        "single".to_owned()
    } else {
        vdev.kind.clone()
    };
    PlannedVdev {
        role: vdev.role,
        kind,
        ashift: vdev.ashift,
        devices,
    }
}

/// Is it a name of pools and datasets (zfs(8), `zfs_component_namecheck`)?
pub(super) fn is_zfs_name(name: &str) -> bool {
    name.split('/').all(|part| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.: ".contains(c))
    }) && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() < 256
}

/// Is it a name of properties, the users' own included?
pub(super) fn is_property(name: &str) -> bool {
    !name.is_empty()
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ":._-+".contains(c))
}

/// Whether a property leads out of the new system: a mount point is made and mounted below its root.
pub(super) fn leads_outside(name: &str, value: &str) -> bool {
    name == "mountpoint"
        && !matches!(value, "none" | "legacy")
        && !super::safety::stays_inside(Path::new(value))
}

/// What is wrong with a pool that no capture made. Names and words go to zpool's command line.
pub(super) fn unsound(pool: &ZfsPool) -> Option<String> {
    let damaged = |what: &str| {
        Some(format!(
            "its {what} is not one, so the saved layout is damaged or forged: choose another restore point"
        ))
    };
    if !is_zfs_name(&pool.name) || pool.name.contains('/') {
        return damaged("name");
    }
    if pool.features.iter().any(|f| !is_property(f)) {
        return damaged("list of features");
    }
    // Others name files and places of the system that this runs on.
    if (pool.properties.keys()).any(|p| !POOL_PROPERTIES.contains(&p.as_str())) {
        return damaged("list of properties");
    }
    let below =
        |name: &String| is_zfs_name(name) && name.split('/').next() == Some(pool.name.as_str());
    if pool.bootfs.as_ref().is_some_and(|name| !below(name)) {
        return damaged("boot filesystem");
    }
    let hex = |id: &String| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if pool.hostid.as_ref().is_some_and(|id| !hex(id)) {
        return damaged("host id");
    }
    if !pool.vdevs.iter().any(|v| v.role == VdevRole::Data) {
        return damaged("list of devices");
    }
    for vdev in &pool.vdevs {
        let (least, most) = match vdev.kind.as_str() {
            "single" => (1, 1),
            // One is what is left of two.
            "mirror" => (if vdev.missing > 0 { 1 } else { 2 }, usize::MAX),
            "raidz1" => (2, usize::MAX),
            "raidz2" => (3, usize::MAX),
            "raidz3" => (4, usize::MAX),
            _ => return damaged("kind of vdev"),
        };
        if vdev.members.len() < least || vdev.members.len() > most && vdev.kind == "single" {
            // Of a raidz members may be missing: that has a message of its own.
            if vdev.missing == 0 || vdev.members.is_empty() {
                return damaged("list of members");
            }
        }
        // 9 to 16: ASHIFT_MIN and ASHIFT_MAX of OpenZFS.
        if vdev.ashift.is_some_and(|a| !(9..=16).contains(&a)) {
            return damaged("sector size");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    fn pool() -> ZfsPool {
        ZfsPool {
            name: "rpool".to_owned(),
            vdevs: vec![Vdev {
                role: VdevRole::Data,
                kind: "mirror".to_owned(),
                ashift: Some(12),
                members: vec![NodeId::new("a"), NodeId::new("b")],
                missing: 0,
            }],
            properties: BTreeMap::new(),
            features: vec!["lz4_compress".to_owned()],
            bootfs: Some("rpool/ROOT/pve-1".to_owned()),
            hostid: Some("a87c152a".to_owned()),
            size: Bytes::GIB,
        }
    }

    #[test]
    fn what_no_capture_makes_is_refused() {
        assert_eq!(unsound(&pool()), None);
        type Forge = fn(&mut ZfsPool);
        let forged: [Forge; 9] = [
            |p| p.name = "-f".to_owned(),
            |p| p.name = "rpool/ROOT".to_owned(),
            |p| p.bootfs = Some("other/ROOT".to_owned()),
            |p| p.hostid = Some("0x12".to_owned()),
            |p| p.features.push("a=b c".to_owned()),
            |p| p.vdevs[0].kind = "-o".to_owned(),
            |p| p.vdevs[0].members.truncate(1),
            |p| p.vdevs[0].ashift = Some(40),
            |p| p.vdevs.clear(),
        ];
        for (n, forge) in forged.iter().enumerate() {
            let mut pool = pool();
            forge(&mut pool);
            assert!(unsound(&pool).is_some(), "forgery {n}");
        }
    }

    #[test]
    fn names_are_those_that_zfs_takes() {
        for good in ["rpool", "rpool/ROOT/pve-1", "tank/a b:c.d"] {
            assert!(is_zfs_name(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "rpool/",
            "rpool//x",
            "rpool/../x",
            "rpool@snap",
            "-o",
            "1pool",
            "a/b=c,d",
        ] {
            assert!(!is_zfs_name(bad), "{bad}");
        }
    }
}
