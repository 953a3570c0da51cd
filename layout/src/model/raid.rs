//! Linux software RAID (md).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::NodeId;
use crate::units::Bytes;

/// A software RAID array with version 1 metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RaidArray {
    /// Members by slot, then the spares.
    pub members: Vec<RaidMember>,
    /// Device node at capture time: `/dev/md0`.
    pub device: PathBuf,
    /// UUID as mdadm writes it: four groups of eight hexadecimal digits with colons between them.
    pub uuid: String,
    /// Name in the metadata, with the home host where there is one: `pve:0`.
    pub name: String,
    /// `raid0`, `raid1`, `raid4`, `raid5`, `raid6` or `raid10`.
    pub level: String,
    /// Version of the metadata, which says where it lies: `1.0` at the end, `1.1` at the start, `1.2` 4 KiB behind it.
    pub metadata: String,
    /// Number of slots; more than active members when the array was degraded.
    pub raid_devices: u32,
    /// Chunk size; zero for RAID 1.
    pub chunk_size: Bytes,
    /// Layout in mdadm's words (`left-symmetric`, `n2`, `f2`, `o2`, `original`); `None` where the level has none.
    pub layout: Option<String>,
    /// What the array uses of each member; zero for RAID 0, which uses all.
    pub component_size: Bytes,
    /// Bytes that a bit of the internal write-intent bitmap stands for; `None`: no bitmap.
    pub bitmap_chunk: Option<Bytes>,
    /// Size of the array.
    pub size: Bytes,
}

/// A device in an array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RaidMember {
    /// The disk, partition or whatever it is.
    pub on: NodeId,
    /// Slot from 0; `None`: a spare.
    pub slot: Option<u32>,
    /// Where on the member the array's data start.
    pub data_offset: Bytes,
    /// Whether it is read only when the others cannot be: the slow half of a mirror.
    pub write_mostly: bool,
}

/// Levels that can be made again.
pub(crate) const RAID_LEVELS: [&str; 6] = ["raid0", "raid1", "raid4", "raid5", "raid6", "raid10"];

/// Most slots that an array of version 1 has: `MAX_DEVS` of mdadm's super1.c, rounded up.
const MOST_DEVICES: u32 = 4096;

impl RaidArray {
    /// The member in each slot; `None`: missing. Slots out of range, which no capture makes, are passed over.
    pub fn slots(&self) -> Vec<Option<&RaidMember>> {
        (0..self.raid_devices.min(MOST_DEVICES))
            .map(|slot| self.members.iter().find(|m| m.slot == Some(slot)))
            .collect()
    }

    /// The spares.
    pub fn spares(&self) -> impl Iterator<Item = &RaidMember> {
        self.members.iter().filter(|m| m.slot.is_none())
    }

    /// How many slots have no member.
    pub fn missing(&self) -> usize {
        self.slots().iter().filter(|slot| slot.is_none()).count()
    }

    /// How big a member must be at least.
    pub fn needed(&self, member: &RaidMember) -> Bytes {
        let data = if self.component_size > Bytes(0) {
            self.component_size
        } else {
            // RAID 0 of equal members; of unequal ones, the biggest is needed as it was, which its partition is.
            Bytes(self.size.0 / u64::from(self.raid_devices.max(1)))
        };
        // Version 1.0 has superblock, bad block log and bitmap behind the data: mdadm's super1.c leaves 12 KiB, and up to
        // 128 KiB for the bitmap.
        let tail = if self.metadata == "1.0" {
            Bytes(140 << 10)
        } else {
            Bytes(0)
        };
        member.data_offset.plus(data).plus(tail)
    }

    /// How many members may be missing before the data are gone; `None` where that depends on which.
    fn redundancy(&self) -> Option<usize> {
        match self.level.as_str() {
            "raid0" => Some(0),
            "raid1" => Some((self.raid_devices as usize).saturating_sub(1)),
            "raid4" | "raid5" => Some(1),
            "raid6" => Some(2),
            _ => None,
        }
    }

    /// Whether it can run with the members that it had.
    pub fn can_run(&self) -> bool {
        let slots = self.slots();
        match self.redundancy() {
            Some(redundancy) => self.missing() <= redundancy,
            // RAID 10: the copies of a block lie on as many slots in a row, the last followed by the first. With near
            // copies that divide the slots evenly, rows start at every so many slots.
            None => {
                let layout = self.layout.as_deref().unwrap_or("n2");
                let copies = layout
                    .get(1..)
                    .and_then(|n| n.parse::<usize>().ok())
                    .unwrap_or(2)
                    .max(1);
                let even = layout.starts_with('n') && slots.len() % copies == 0;
                (0..slots.len())
                    .step_by(if even { copies } else { 1 })
                    .all(|first| {
                        (first..first.saturating_add(copies.min(slots.len())))
                            .any(|slot| slots[slot % slots.len()].is_some())
                    })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(level: &str, slots: &[bool]) -> RaidArray {
        let member = |slot: usize| RaidMember {
            on: NodeId::new(format!("part:{slot}")),
            slot: Some(slot as u32),
            data_offset: Bytes::MIB,
            write_mostly: false,
        };
        RaidArray {
            members: (0..slots.len()).filter(|s| slots[*s]).map(member).collect(),
            device: "/dev/md0".into(),
            uuid: "00000000:00000000:00000000:00000001".to_owned(),
            name: "pve:0".to_owned(),
            level: level.to_owned(),
            metadata: "1.2".to_owned(),
            raid_devices: slots.len() as u32,
            chunk_size: Bytes(0),
            layout: (level == "raid10").then(|| "n2".to_owned()),
            component_size: Bytes::GIB,
            bitmap_chunk: None,
            size: Bytes::GIB,
        }
    }

    #[test]
    fn what_may_be_missing_depends_on_the_level() {
        for (level, slots, runs) in [
            ("raid0", &[true, false][..], false),
            ("raid1", &[false, true], true),
            ("raid1", &[false, false], false),
            ("raid5", &[true, false, true], true),
            ("raid5", &[true, false, false], false),
            ("raid6", &[true, false, false, true], true),
            ("raid10", &[true, false, false, true], true),
            ("raid10", &[false, false, true, true], false),
            ("raid10", &[true, true, false], true),
            ("raid10", &[true, false, false], false),
        ] {
            let array = array(level, slots);
            assert_eq!(array.can_run(), runs, "{level} {slots:?}");
            assert_eq!(
                array.missing(),
                slots.iter().filter(|s| !**s).count(),
                "{level}"
            );
        }
    }

    #[test]
    fn a_member_has_room_for_offset_data_and_metadata() {
        let mut array = array("raid1", &[true, true]);
        let member = array.members[0].clone();
        assert_eq!(array.needed(&member), Bytes::GIB.plus(Bytes::MIB));
        array.metadata = "1.0".to_owned();
        assert!(array.needed(&member) > Bytes::GIB.plus(Bytes::MIB));
        array.raid_devices = u32::MAX;
        assert!(array.slots().len() < 1 << 16, "a forged number is no loop");
    }
}
