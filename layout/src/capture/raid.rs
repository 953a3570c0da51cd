//! Software RAID: the kernel's view in sysfs, and what only the metadata know, from mdadm.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::devices::Probe;
use super::{Capture, CaptureError};
use crate::model::{Node, NodeId, RAID_LEVELS, RaidArray, RaidMember};
use crate::system::{BlockDevice, Cmd, SystemError};
use crate::units::Bytes;

/// A device that is signed as a member.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SignedMember {
    pub device: BlockDevice,
    pub on: NodeId,
    /// UUID of its array, as blkid writes it.
    pub uuid: Option<String>,
}

/// A member as the kernel has it.
struct Member {
    found: RaidMember,
    faulty: bool,
}

const STOPPED: &str = "its array is not running, so that what is in it cannot be seen: it is not restored. Start the \
                       array (`mdadm --assemble --scan`) and make another backup";
const FOREIGN: &str = "it carries the metadata of a running array and is no member of it: it is not restored (if it is \
                       not needed: `mdadm --zero-superblock`)";

impl Capture<'_> {
    /// Remembers a member: arrays are looked at when all devices below them are known.
    pub(super) fn raid_member(&mut self, device: &BlockDevice, on: &NodeId, probe: &Probe) {
        self.raid_members.push(SignedMember {
            device: device.clone(),
            on: on.clone(),
            uuid: probe.uuid.clone(),
        });
    }

    /// Adds the running arrays and what is on them. `told`: whether arrays that cannot be restored are named.
    pub(super) fn arrays(&mut self, told: bool) -> Result<(), CaptureError> {
        let is_md = |d: &&BlockDevice| !d.name.starts_with("dm-");
        let mut open: Vec<BlockDevice> = self.devices.virtuals().filter(is_md).cloned().collect();
        // One array may lie on another: as long as there is something new below, there may be something new above.
        loop {
            let before = open.len();
            for device in std::mem::take(&mut open) {
                if !self.array(&device)? {
                    open.push(device);
                }
            }
            if open.len() == before {
                break;
            }
        }
        for device in open.iter().filter(|_| told) {
            let on = self
                .devices
                .slaves(device)
                .iter()
                .filter_map(|name| self.node_of(name))
                .collect();
            let meaning = "a member lies on something that is not supported: the array and what is on it are not \
                           restored";
            self.unsupported(device, on, "software RAID array", meaning);
        }
        let running: Vec<String> = self
            .layout
            .nodes
            .values()
            .filter_map(|node| match node {
                Node::RaidArray(array) => Some(digits(&array.uuid)),
                _ => None,
            })
            .collect();
        for member in std::mem::take(&mut self.raid_members) {
            let used = |node: &Node| node.on().contains(&member.on);
            if self.layout.nodes.values().any(used) {
                continue;
            }
            let known = member
                .uuid
                .as_deref()
                .is_some_and(|uuid| running.contains(&digits(uuid)));
            let meaning = if known { FOREIGN } else { STOPPED };
            self.unsupported(
                &member.device,
                vec![member.on.clone()],
                "linux_raid_member",
                meaning,
            );
        }
        Ok(())
    }

    /// Adds an array; `false`: a device below it is not known, yet.
    fn array(&mut self, device: &BlockDevice) -> Result<bool, CaptureError> {
        let state = self.md(device, "array_state");
        if matches!(state.as_str(), "" | "clear" | "inactive") {
            return Ok(true);
        }
        let Some(members) = self.kernel_members(device) else {
            return Ok(false);
        };
        let export = match self.sys.run(
            &Cmd::new("mdadm")
                .args(["--detail", "--export"])
                .path(&device.node),
        ) {
            Ok(output) => parse_export(&output.text()),
            Err(SystemError::Start { .. }) => BTreeMap::new(),
            Err(error) => return Err(error.into()),
        };
        let on: Vec<NodeId> = members.iter().map(|m| m.found.on.clone()).collect();
        let array = match self.describe_array(device, members, &export) {
            Ok(array) => array,
            Err(reason) => {
                let meaning = format!("{reason}: the array and what is on it are not restored");
                self.unsupported(device, on, "software RAID array", &meaning);
                return Ok(true);
            }
        };
        let id = NodeId::raid(&array.uuid);
        self.layout.nodes.insert(id.clone(), Node::RaidArray(array));
        self.array_content(device, &id)?;
        Ok(true)
    }

    fn array_content(&mut self, device: &BlockDevice, id: &NodeId) -> Result<(), CaptureError> {
        let probe = self.devices.probe(device);
        if self.devices.partitions(&device.name).next().is_some()
            || (probe.table.is_some() && probe.fstype.is_none())
        {
            let meaning = "partition tables on arrays are not supported: the array is made again, the partitions on it \
                           and what they hold are not restored";
            self.unsupported(device, vec![id.clone()], "partitioned array", meaning);
        } else if !self.content(device, id)? {
            self.layout.warnings.push(format!(
                "{}: no filesystem that is known: the array is made again, its contents are not restored",
                device.node.display()
            ));
        }
        Ok(())
    }

    /// A file of the array's sysfs directory; the first word, since the kernel shows the old value behind while an array
    /// is reshaped.
    fn md(&self, device: &BlockDevice, file: &str) -> String {
        let text = self.devices.sysfs(device, &format!("md/{file}"));
        text.unwrap_or_default()
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// The members; `None`: one of them is nothing known.
    fn kernel_members(&self, device: &BlockDevice) -> Option<Vec<Member>> {
        let dir = PathBuf::from("/sys/class/block")
            .join(&device.name)
            .join("md");
        let mut members = Vec::new();
        for entry in self.sys.list_dir(&dir).unwrap_or_default() {
            let Some(name) = entry.strip_prefix("dev-") else {
                continue;
            };
            let text = |file: &str| self.md(device, &format!("{entry}/{file}"));
            let state = text("state");
            let is = |flag: &str| state.split(',').any(|f| f == flag);
            // A replacement has the slot of the member that it will replace.
            let slot = text("slot").parse().ok().filter(|_| !is("replacement"));
            members.push(Member {
                found: RaidMember {
                    on: self.node_of(name)?,
                    slot,
                    write_mostly: is("write_mostly"),
                    // In units of 512 bytes (kernel: Documentation/admin-guide/md.rst).
                    data_offset: Bytes(
                        text("offset")
                            .parse::<u64>()
                            .unwrap_or(0)
                            .saturating_mul(512),
                    ),
                },
                faulty: is("faulty"),
            });
        }
        Some(members)
    }

    /// Puts together what the kernel and mdadm say; the error is why the array cannot be made again.
    fn describe_array(
        &mut self,
        device: &BlockDevice,
        members: Vec<Member>,
        export: &BTreeMap<String, String>,
    ) -> Result<RaidArray, String> {
        let (Some(uuid), Some(name)) = (export.get("MD_UUID"), export.get("MD_NAME")) else {
            return Err(
                "mdadm does not tell its UUID and name (is mdadm installed? metadata 0.90 and containers are not \
                 supported)"
                    .to_owned(),
            );
        };
        let number = |file: &str| self.md(device, file).parse::<u64>().unwrap_or(0);
        let metadata = self.md(device, "metadata_version");
        let level = self.md(device, "level");
        if !["1.0", "1.1", "1.2"].contains(&metadata.as_str()) {
            return Err(format!("metadata of version {metadata} is not supported"));
        }
        if !RAID_LEVELS.contains(&level.as_str()) {
            return Err(format!("level {level} is not supported"));
        }
        if !matches!(self.md(device, "reshape_position").as_str(), "" | "none") {
            return Err("it is being reshaped (make a backup when that is over)".to_owned());
        }
        let policy = self.md(device, "consistency_policy");
        if matches!(policy.as_str(), "journal" | "ppl") {
            return Err(format!("the consistency policy {policy} is not supported"));
        }
        let location = self.md(device, "bitmap/location");
        let bitmap = match location.as_str() {
            "" | "none" => None,
            "file" => return Err("a bitmap in a file is not supported".to_owned()),
            _ => Some(Bytes(number("bitmap/chunksize"))),
        };
        let layout = layout_name(&level, self.md(device, "layout").parse().unwrap_or(-1))?;
        let raid_devices =
            u32::try_from(number("raid_disks")).map_err(|_| "too many devices".to_owned())?;
        let chunk_size = Bytes(number("chunk_size"));
        // In KiB (kernel: Documentation/admin-guide/md.rst).
        let component_size = Bytes(number("component_size").saturating_mul(1024));
        let members = self.seats(device, uuid, members, raid_devices);
        Ok(RaidArray {
            members,
            device: device.node.clone(),
            uuid: uuid.clone(),
            name: name.clone(),
            level,
            metadata,
            raid_devices,
            chunk_size,
            layout,
            component_size,
            bitmap_chunk: bitmap,
            size: self.devices.size(device),
        })
    }

    /// Gives members that were thrown out their slots again: on a new machine there is no reason to leave them out.
    fn seats(
        &mut self,
        device: &BlockDevice,
        uuid: &str,
        members: Vec<Member>,
        raid_devices: u32,
    ) -> Vec<RaidMember> {
        let path = device.node.display();
        let offset = members.first().map_or(Bytes(0), |m| m.found.data_offset);
        let (out, good): (Vec<Member>, Vec<Member>) = members.into_iter().partition(|m| m.faulty);
        let mut out: Vec<RaidMember> = out.into_iter().map(|m| m.found).collect();
        let mut good: Vec<RaidMember> = good.into_iter().map(|m| m.found).collect();
        for signed in &self.raid_members {
            let same = signed
                .uuid
                .as_deref()
                .is_some_and(|u| digits(u) == digits(uuid));
            if same && !good.iter().chain(&out).any(|m| m.on == signed.on) {
                out.push(RaidMember {
                    on: signed.on.clone(),
                    slot: None,
                    data_offset: offset,
                    write_mostly: false,
                });
            }
        }
        for mut member in out {
            let free = (0..raid_devices.min(4096))
                .find(|slot| !good.iter().any(|m| m.slot == Some(*slot)));
            let Some(slot) = free else { continue };
            let node = self.layout.nodes.get(&member.on).and_then(Node::device);
            let node = node.unwrap_or(Path::new("a device")).display().to_string();
            self.layout.warnings.push(format!(
                "{path}: {node} was thrown out of the array, which runs without it: check that disk. A restore makes it a \
                 full member again"
            ));
            member.slot = Some(slot);
            good.push(member);
        }
        let there = good.iter().filter(|m| m.slot.is_some()).count();
        if there < raid_devices as usize {
            self.layout.warnings.push(format!(
                "{path}: the array is degraded, {there} of {raid_devices} members are there. A restore makes it degraded, \
                 too: add a disk now, or then (`mdadm --add`)"
            ));
        }
        good.sort_by_key(|m| (m.slot.unwrap_or(u32::MAX), m.on.clone()));
        good
    }
}

/// The hexadecimal digits of a UUID, which blkid and mdadm group in different ways.
pub(crate) fn digits(uuid: &str) -> String {
    uuid.chars()
        .filter(char::is_ascii_hexdigit)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Parses `mdadm --detail --export`.
pub(crate) fn parse_export(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The layout in the words of `mdadm --layout`. Numbers: kernel, drivers/md/raid5.h (`ALGORITHM_*`), raid10.c
/// (`setup_geo`), raid0.h (`enum r0layout`).
pub(crate) fn layout_name(level: &str, number: i64) -> Result<Option<String>, String> {
    let unknown = || Err(format!("its layout {number:#x} is not supported"));
    let name = match level {
        "raid0" => match number {
            1 => "original",
            2 => "alternate",
            // Made before there was a choice. Members of one size are laid out alike in any case.
            _ => return Ok(None),
        },
        "raid5" | "raid6" => match number {
            0 => "left-asymmetric",
            1 => "right-asymmetric",
            2 => "left-symmetric",
            3 => "right-symmetric",
            4 => "parity-first",
            5 => "parity-last",
            _ => return unknown(),
        },
        "raid10" => {
            let (near, far, offset) = (number & 0xff, number >> 8 & 0xff, number & 1 << 16 != 0);
            return match (near, far) {
                (2.., 1) if number >> 16 == 0 => Ok(Some(format!("n{near}"))),
                (1, 2..) if number >> 17 == 0 => {
                    Ok(Some(format!("{}{far}", if offset { 'o' } else { 'f' })))
                }
                _ => unknown(),
            };
        }
        _ => return Ok(None),
    };
    Ok(Some(name.to_owned()))
}

#[cfg(test)]
mod tests;
