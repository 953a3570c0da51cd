//! ZFS: imported pools as zpool, zfs and zdb tell of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Capture, CaptureError};
use crate::model::{
    Node, NodeId, Vdev, VdevRole, ZfsDataset, ZfsMember, ZfsPool, ZfsVolume, is_guest_dataset,
};
use crate::system::{BlockDevice, Cmd, SystemError};
use crate::units::Bytes;

/// A device that is signed as a member of a pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SignedMember {
    device: BlockDevice,
    on: NodeId,
}

/// Pool properties that can be set and tell of no moment, machine or device (zpoolprops(7)).
pub(crate) const POOL_PROPERTIES: [&str; 10] = [
    "autoexpand",
    "autoreplace",
    "autotrim",
    "comment",
    "compatibility",
    "delegation",
    "failmode",
    "listsnapshots",
    "multihost",
    "dedup_table_quota",
];

/// Columns of `zfs list`.
const COLUMNS: &str =
    "name,type,usedbydataset,encryption,origin,volsize,casesensitivity,normalization,utf8only";

/// Properties that are fixed when a dataset is made, and what they usually are. Last columns of [`COLUMNS`].
const FIXED: [(&str, &str); 3] = [
    ("casesensitivity", "sensitive"),
    ("normalization", "none"),
    ("utf8only", "off"),
];

const NOT_IMPORTED: &str = "its pool is not imported, so that what is in it cannot be seen: it is not restored. Import the \
                            pool (`zpool import`) and make another backup, or clear the device if it is of no use any more \
                            (`zpool labelclear`)";

/// A vdev as `zpool status` shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShownVdev {
    pub role: VdevRole,
    /// `mirror-0`, or the device.
    pub name: String,
    /// Devices and their states.
    pub leaves: Vec<(String, String)>,
}

/// Reads the configuration in `zpool status -P`.
pub(crate) fn parse_status(text: &str) -> Vec<ShownVdev> {
    let mut role = VdevRole::Data;
    let mut vdevs: Vec<ShownVdev> = Vec::new();
    // Vdevs within the one at the top: two disks while one replaces the other.
    let mut inner: Option<usize> = None;
    let lines = text.lines().skip_while(|line| line.trim() != "config:");
    for line in lines.skip(1) {
        if line.starts_with("errors:") {
            break;
        }
        let Some(line) = line.strip_prefix('\t') else {
            continue;
        };
        let depth = (line.len() - line.trim_start_matches(' ').len()) / 2;
        let mut words = line.split_whitespace();
        let (Some(name), state) = (words.next(), words.next().unwrap_or_default()) else {
            continue;
        };
        if depth == 0 {
            // The pool itself and the heading have a state; sections have none.
            role = match name {
                "special" if state.is_empty() => VdevRole::Special,
                "dedup" if state.is_empty() => VdevRole::Dedup,
                "logs" if state.is_empty() => VdevRole::Log,
                "cache" if state.is_empty() => VdevRole::Cache,
                "spares" if state.is_empty() => VdevRole::Spare,
                _ => VdevRole::Data,
            };
            continue;
        }
        let leaf = name.starts_with('/') || name.bytes().all(|b| b.is_ascii_digit());
        if depth == 1 {
            inner = None;
            vdevs.push(ShownVdev {
                role,
                name: name.to_owned(),
                leaves: if leaf {
                    vec![(name.to_owned(), state.to_owned())]
                } else {
                    Vec::new()
                },
            });
            continue;
        }
        let Some(vdev) = vdevs.last_mut() else {
            continue;
        };
        if inner.is_some_and(|at| depth <= at) {
            inner = None;
        }
        if !leaf {
            inner = Some(depth);
            // What comes is one member, whichever of the devices it will be in the end.
            vdev.leaves.push((String::new(), String::new()));
        } else if inner.is_some() {
            let good = |state: &str| state == "ONLINE";
            if let Some(last) = vdev.leaves.last_mut() {
                if last.0.is_empty() || !good(&last.1) && good(state) {
                    *last = (name.to_owned(), state.to_owned());
                }
            }
        } else {
            vdev.leaves.push((name.to_owned(), state.to_owned()));
        }
    }
    vdevs
}

/// The kind of a vdev by its name in `zpool status`; `None`: one that is not made again.
fn kind(name: &str) -> Option<&'static str> {
    if name.starts_with('/') || name.bytes().all(|b| b.is_ascii_digit()) {
        return Some("single");
    }
    let (kind, _) = name.rsplit_once('-')?;
    ["mirror", "raidz1", "raidz2", "raidz3"]
        .into_iter()
        .find(|k| *k == kind)
}

/// What is in use by vdev, from `zpool list -HpvP`.
pub(crate) fn parse_allocated(text: &str) -> BTreeMap<String, Bytes> {
    text.lines()
        .filter_map(|line| {
            let mut columns = line.trim_start().split('\t');
            let name = columns.next()?;
            let allocated = columns.nth(1)?.parse().ok()?;
            Some((name.to_owned(), Bytes(allocated)))
        })
        .collect()
}

/// A row of `zfs get -Hp` or `zpool get -Hp`: name, property, value, source. A value may hold tabs.
pub(crate) fn parse_row(line: &str) -> Option<[&str; 4]> {
    let (name, rest) = line.split_once('\t')?;
    let (property, rest) = rest.split_once('\t')?;
    let (value, source) = rest.rsplit_once('\t')?;
    Some([name, property, value, source])
}

/// The exponent of the sector size in `zdb -l`.
pub(crate) fn parse_ashift(text: &str) -> Option<u32> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("ashift:"))?;
    line.trim().parse().ok()
}

/// `/etc/hostid` as eight hexadecimal digits: a number in the byte order of the machine (gethostid(3)).
pub(crate) fn parse_hostid(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 4] = bytes.try_into().ok()?;
    let id = u32::from_le_bytes(bytes);
    (id != 0).then(|| format!("{id:08x}"))
}

/// A mount point without the directory that the pool was imported below.
fn below(value: &str, altroot: &str) -> String {
    match value.strip_prefix(altroot) {
        Some("") if !altroot.is_empty() => "/".to_owned(),
        Some(rest) if !altroot.is_empty() && rest.starts_with('/') => rest.to_owned(),
        _ => value.to_owned(),
    }
}

impl Capture<'_> {
    /// Remembers a member: pools are looked at when all devices below them are known.
    pub(super) fn zfs_signed(&mut self, device: &BlockDevice, on: &NodeId) {
        self.zfs_members.push(SignedMember {
            device: device.clone(),
            on: on.clone(),
        });
    }

    /// Adds the imported pools. `told`: whether what cannot be restored is named.
    pub(super) fn pools(&mut self, told: bool) -> Result<(), CaptureError> {
        // zpool would load the kernel's module, on hosts that never had a pool, too.
        if self.zfs_members.is_empty() {
            return Ok(());
        }
        let list = Cmd::new("zpool").args(["list", "-Hp", "-o", "name"]);
        let names = match self.sys.run(&list) {
            Ok(output) => output.text(),
            // Not installed, or without its module: then no pool is imported.
            Err(SystemError::Start { .. } | SystemError::Failed { .. }) => String::new(),
            Err(error) => return Err(error.into()),
        };
        for name in names.lines().filter(|name| !name.is_empty()) {
            self.zfs_pool(name, told)?;
        }
        for member in std::mem::take(&mut self.zfs_members) {
            let used = |node: &Node| node.on().contains(&member.on);
            if !self.layout.nodes.values().any(used) && told {
                let on = vec![member.on.clone()];
                self.unsupported(&member.device, on, "zfs_member", NOT_IMPORTED);
            }
        }
        Ok(())
    }

    fn zfs_pool(&mut self, name: &str, told: bool) -> Result<(), CaptureError> {
        let run = |command: Cmd| self.sys.run(&command.arg(name)).map(|o| o.text());
        let shown = parse_status(&run(Cmd::new("zpool").args(["status", "-P"]))?);
        let allocated = parse_allocated(&run(Cmd::new("zpool").args(["list", "-HpvP"]))?);
        let properties = run(Cmd::new("zpool").args(["get", "-Hp", "all"]))?;
        let place = |path: &str| {
            let device = self.devices.by_node(Path::new(path))?;
            self.node_of(&device.name)
        };
        let data = || shown.iter().filter(|v| v.role == VdevRole::Data);
        let known: Vec<NodeId> = data()
            .flat_map(|v| &v.leaves)
            .filter_map(|(path, _)| place(path))
            .collect();
        if known.is_empty() {
            // On disks that are not looked at.
            return Ok(());
        }
        let odd = shown
            .iter()
            .find(|v| kind(&v.name).is_none() && v.role != VdevRole::Spare);
        let elsewhere = data().flat_map(|v| &v.leaves).find(|(path, _)| {
            self.devices.by_node(Path::new(path)).is_some() && place(path).is_none()
        });
        let reason = match (odd, elsewhere) {
            (Some(vdev), _) => Some(format!(
                "its vdev {} is of a kind that is not supported",
                vdev.name
            )),
            (None, Some((path, _))) => Some(format!(
                "its device {path} lies on something that is not supported"
            )),
            (None, None) => None,
        };
        if let Some(reason) = reason {
            let meaning = format!("{reason}: the pool and its datasets are not restored");
            let first = self.zfs_members.iter().find(|m| known.contains(&m.on));
            if let Some(device) = first.map(|m| m.device.clone()).filter(|_| told) {
                self.unsupported(&device, known, &format!("ZFS pool {name}"), &meaning);
            }
            return Ok(());
        }
        let ashifts: Vec<Option<u32>> = shown.iter().map(|vdev| self.ashift(vdev)).collect();
        let mut vdevs: Vec<Vdev> = Vec::new();
        let mut members: Vec<(NodeId, ZfsMember)> = Vec::new();
        let mut warnings = Vec::new();
        let mut taken = BTreeSet::new();
        for (vdev, ashift) in shown.iter().zip(ashifts) {
            let Some(kind) = kind(&vdev.name) else {
                continue;
            };
            let number = vdevs.iter().filter(|v| v.role == vdev.role).count();
            let used = share(vdev, kind, &allocated);
            let (mut ids, mut missing) = (Vec::new(), 0);
            for (path, state) in &vdev.leaves {
                let on = place(path).filter(|on| !taken.contains(on));
                match on {
                    Some(on) => {
                        if !matches!(state.as_str(), "ONLINE" | "AVAIL" | "INUSE") {
                            warnings.push(format!(
                                "pool {name}: {path} is {state}: check that disk. A restore makes it a full member again"
                            ));
                        }
                        let id = NodeId::zfs_member(name, vdev.role, number, ids.len());
                        taken.insert(on.clone());
                        members.push((
                            id.clone(),
                            ZfsMember {
                                on,
                                pool: name.to_owned(),
                                role: vdev.role,
                                used,
                            },
                        ));
                        ids.push(id);
                    }
                    // A spare that is in use is shown where it is used, too.
                    None if vdev.role == VdevRole::Spare => {}
                    None => {
                        missing += 1;
                        warnings.push(format!(
                            "pool {name}: {path} is missing ({state}): the pool is degraded. Replace that disk"
                        ));
                    }
                }
            }
            if !ids.is_empty() {
                vdevs.push(Vdev {
                    role: vdev.role,
                    kind: kind.to_owned(),
                    ashift,
                    members: ids,
                    missing,
                });
            }
        }
        vdevs.sort_by_key(|v| v.role);
        let pool = self.pool_of(name, vdevs, &properties);
        let altroot = pool_property(&properties, "altroot")
            .filter(|v| *v != "-")
            .unwrap_or_default()
            .to_owned();
        for (id, member) in members {
            self.layout.nodes.insert(id, Node::ZfsMember(member));
        }
        self.layout
            .warnings
            .extend(warnings.into_iter().filter(|_| told));
        self.layout
            .nodes
            .insert(NodeId::pool(name), Node::ZfsPool(pool));
        self.datasets(name, &altroot, told)
    }

    /// The sector size that a vdev was made for, from the label of one of its devices.
    fn ashift(&self, vdev: &ShownVdev) -> Option<u32> {
        if matches!(vdev.role, VdevRole::Cache | VdevRole::Spare) {
            return None;
        }
        vdev.leaves.iter().find_map(|(path, _)| {
            let device = self.devices.by_node(Path::new(path))?;
            let command = Cmd::new("zdb").arg("-l").path(&device.node);
            parse_ashift(&self.sys.run(&command).ok()?.text())
        })
    }

    fn pool_of(&self, name: &str, vdevs: Vec<Vdev>, rows: &str) -> ZfsPool {
        let mut pool = ZfsPool {
            name: name.to_owned(),
            vdevs,
            properties: BTreeMap::new(),
            features: Vec::new(),
            bootfs: None,
            hostid: None,
            size: Bytes(0),
        };
        for [_, property, value, source] in rows.lines().filter_map(parse_row) {
            match property {
                "size" => pool.size = Bytes(value.parse().unwrap_or(0)),
                "bootfs" if value != "-" => pool.bootfs = Some(value.to_owned()),
                _ if source == "local" && POOL_PROPERTIES.contains(&property) => {
                    pool.properties
                        .insert(property.to_owned(), value.to_owned());
                }
                _ => {
                    if let Some(feature) = property.strip_prefix("feature@") {
                        if value == "enabled" || value == "active" {
                            pool.features.push(feature.to_owned());
                        }
                    }
                }
            }
        }
        pool.features.sort();
        let hostid = self.sys.read(&self.root.join("etc/hostid"));
        pool.hostid = hostid.ok().and_then(|bytes| parse_hostid(&bytes));
        pool
    }

    fn datasets(&mut self, pool: &str, altroot: &str, told: bool) -> Result<(), CaptureError> {
        let kinds = ["-Hp", "-r", "-t", "filesystem,volume"];
        let list = Cmd::new("zfs")
            .arg("list")
            .args(kinds)
            .args(["-o", COLUMNS, pool]);
        let list = self.sys.run(&list)?.text();
        let get = Cmd::new("zfs").arg("get").args(kinds);
        let get = get.args([
            "-s",
            "local,received",
            "-o",
            "name,property,value,source",
            "all",
            pool,
        ]);
        let rows = self.sys.run(&get)?.text();
        let mut own: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
        for [name, property, value, _] in rows.lines().filter_map(parse_row) {
            let value = if property == "mountpoint" {
                below(value, altroot)
            } else {
                value.to_owned()
            };
            let set = own.entry(name).or_default();
            set.insert(property.to_owned(), value);
        }
        let (mut encrypted, mut clones) = (Vec::new(), Vec::new());
        for line in list.lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let [name, kind, used, encryption, origin, size, fixed @ ..] = columns.as_slice()
            else {
                continue;
            };
            let used = used.parse().ok().map(Bytes);
            let on = NodeId::pool(pool);
            let node = if *kind == "volume" {
                Node::ZfsVolume(ZfsVolume {
                    on,
                    name: (*name).to_owned(),
                    size: Bytes(size.parse().unwrap_or(0)),
                    used,
                })
            } else {
                let mut properties = own.remove(name).unwrap_or_default();
                for ((property, usual), value) in FIXED.iter().zip(fixed) {
                    if value != usual && *value != "-" {
                        properties.insert((*property).to_owned(), (*value).to_owned());
                    }
                }
                if !is_guest_dataset(name) {
                    if *encryption != "off" && *encryption != "-" {
                        encrypted.push(*name);
                    } else if *origin != "-" && !origin.is_empty() {
                        clones.push(*name);
                    }
                }
                Node::ZfsDataset(ZfsDataset {
                    on,
                    name: (*name).to_owned(),
                    properties,
                    encrypted: *encryption != "off" && *encryption != "-",
                    used,
                })
            };
            self.layout.nodes.insert(NodeId::dataset(name), node);
        }
        if !encrypted.is_empty() && told {
            self.layout.warnings.push(format!(
                "pool {pool}: encrypted datasets are not backed up as files and not restored, as they could not be encrypted \
                 with the same key again: {}",
                encrypted.join(", ")
            ));
        }
        if !clones.is_empty() && told {
            self.layout.warnings.push(format!(
                "pool {pool}: clones become datasets of their own, and take the room of their files: {}",
                clones.join(", ")
            ));
        }
        Ok(())
    }

    /// The dataset that is mounted, or named in fstab, where it is one that a restore fills.
    pub(super) fn dataset_called(&self, name: &str) -> Option<NodeId> {
        let id = NodeId::dataset(name);
        match self.layout.nodes.get(&id) {
            Some(Node::ZfsDataset(dataset)) if dataset.is_made() => Some(id),
            _ => None,
        }
    }
}

/// What each member of a vdev has of what is in use there.
fn share(vdev: &ShownVdev, kind: &str, allocated: &BTreeMap<String, Bytes>) -> Option<Bytes> {
    if matches!(vdev.role, VdevRole::Cache | VdevRole::Spare) {
        return Some(Bytes(0));
    }
    let all = allocated.get(&vdev.name)?;
    // Parity is counted there: it is spread over all of them.
    Some(match kind.starts_with("raidz") {
        true => Bytes(all.0.div_ceil(vdev.leaves.len().max(1) as u64)),
        false => *all,
    })
}

fn pool_property<'a>(rows: &'a str, wanted: &str) -> Option<&'a str> {
    rows.lines()
        .filter_map(parse_row)
        .find(|[_, property, _, _]| *property == wanted)
        .map(|[_, _, value, _]| value)
}

#[cfg(test)]
mod tests;
