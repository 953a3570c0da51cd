//! Software RAID: arrays made anew with their saved UUIDs and names.

use std::path::{Path, PathBuf};

use super::build::Builder;
use super::{PlanError, SizeChange, Step};
use crate::model::{NodeId, RAID_LEVELS, RaidArray};
use crate::units::Bytes;

/// Arrays are numbered from here during a restore: mdadm gives numbers from 127 downwards, and hosts from 0 upwards. On
/// the restored host they have the names that its own configuration gives them.
const FIRST_NUMBER: usize = 200;

impl Builder<'_> {
    pub(super) fn raid_array(&mut self, id: &NodeId, array: &RaidArray) -> Result<(), PlanError> {
        let refuse = |reason: String| PlanError::Unsupported {
            node: id.clone(),
            reason,
        };
        if let Some(reason) = unsound(array) {
            return Err(refuse(reason));
        }
        if !array.can_run() {
            return Err(refuse(format!(
                "{} of its {} members are missing, and {} cannot run without them",
                array.missing(),
                array.raid_devices,
                array.level
            )));
        }
        let mut devices = Vec::new();
        let mut bigger = false;
        for member in &array.members {
            devices.push(self.device(id, &member.on)?);
            let needed = array.needed(member);
            let least = member.data_offset.plus(array.component_size);
            match self.room(&member.on) {
                // What is needed beyond that is an upper bound: what fitted as it was saved fits again.
                Some(space)
                    if space < least || space < needed && !self.as_saved(&member.on, space) =>
                {
                    return Err(refuse(format!(
                        "its member {} needs {needed}, and has {space}: use a bigger disk",
                        member.on
                    )));
                }
                Some(_) => bigger |= self.grows(&member.on),
                None => {}
            }
        }
        if array.missing() > 0 {
            self.notes.push(format!(
                "Array {} is made with {} of its {} members: it has less or no redundancy until you add a disk \
                 (mdadm --add).",
                array.name,
                array.raid_devices as usize - array.missing(),
                array.raid_devices
            ));
        }
        if array.level == "raid6" && array.missing() == 1 {
            self.accept(
                id,
                "members",
                "mdadm rebuilds a member of a RAID 6 that starts without one, and gives it a slot",
            );
        }
        if array.level == "raid0" {
            let mut rooms = array.members.iter().map(|m| self.room(&m.on));
            let first = rooms.next();
            if array.layout.is_none() || rooms.all(|room| Some(room) == first) {
                self.accept(
                    id,
                    "layout",
                    "it is kept only where members differ in size, which is where it matters",
                );
            }
            if bigger {
                self.accept(id, "size", "the array takes all of its bigger members");
                self.sizes.push(SizeChange {
                    node: id.clone(),
                    what: format!("array {}", array.name),
                    saved: array.size,
                    now: self.striped(array),
                });
            }
        }
        let count = self
            .steps
            .iter()
            .filter(|s| matches!(s, Step::RaidCreate { .. }))
            .count();
        let device = ours(count);
        self.devices.insert(id.clone(), device.clone());
        self.steps.push(Step::RaidCreate {
            device,
            devices,
            array: array.clone(),
        });
        Ok(())
    }

    /// What the operator will see after the restart.
    pub(super) fn raid_remarks(&mut self) {
        let names: Vec<&str> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::RaidCreate { array, .. } if array.level != "raid0" => {
                    Some(array.name.as_str())
                }
                _ => None,
            })
            .collect();
        if !names.is_empty() {
            self.notes.push(format!(
                "The restored host synchronises its arrays after the start (cat /proc/mdstat shows how far it is): {}.",
                names.join(", ")
            ));
        }
    }

    /// Whether a member has at least the size that it had.
    fn as_saved(&self, member: &NodeId, space: Bytes) -> bool {
        super::fit::saved_size(self.saved, member).is_none_or(|saved| space >= saved)
    }

    /// The size of a RAID 0 of the present members, at most.
    fn striped(&self, array: &RaidArray) -> Bytes {
        array.members.iter().fold(Bytes(0), |sum, member| {
            let space = self.room(&member.on).unwrap_or(Bytes(0));
            sum.plus(space.minus(member.data_offset).round_down(array.chunk_size))
        })
    }
}

/// What is wrong with an array that no capture made. Names and words go to mdadm's command line.
pub(super) fn unsound(array: &RaidArray) -> Option<String> {
    let damaged = |what: &str| {
        Some(format!(
            "its {what} is not one, so the saved layout is damaged or forged: choose another restore point"
        ))
    };
    let hex = |group: &str| group.len() == 8 && group.chars().all(|c| c.is_ascii_hexdigit());
    if array.uuid.split(':').count() != 4 || !array.uuid.split(':').all(hex) {
        return damaged("UUID");
    }
    let (home, name) = split_name(&array.name);
    // Newer versions of mdadm take no other characters (4.3: is_name_posix_compatible in lib.c).
    let plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if !plain(name) || !home.is_none_or(plain) {
        return Some(format!(
            "its name {:?} has characters that mdadm does not take: rename the array and make another backup",
            array.name
        ));
    }
    if !RAID_LEVELS.contains(&array.level.as_str()) {
        return damaged("level");
    }
    if !["1.0", "1.1", "1.2"].contains(&array.metadata.as_str()) {
        return damaged("metadata version");
    }
    let word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if array
        .layout
        .as_deref()
        .is_some_and(|l| l.is_empty() || l.starts_with('-') || !word(l))
    {
        return damaged("layout");
    }
    let slots = array.slots();
    let seated = array.members.iter().filter(|m| m.slot.is_some()).count();
    if seated == 0
        || slots.len() != array.raid_devices as usize
        || seated != slots.iter().flatten().count()
    {
        return damaged("list of members");
    }
    None
}

/// Home host and name.
pub(crate) fn split_name(name: &str) -> (Option<&str>, &str) {
    match name.split_once(':') {
        Some((home, name)) => (Some(home), name),
        None => (None, name),
    }
}

/// The device node of an array during a restore.
pub(super) fn ours(count: usize) -> PathBuf {
    PathBuf::from(format!("/dev/md{}", FIRST_NUMBER + count))
}

/// Whether a device node is one that [`ours`] gives.
pub(super) fn is_ours(device: &Path) -> bool {
    device
        .to_str()
        .and_then(|d| d.strip_prefix("/dev/md"))
        .filter(|n| n.chars().all(|c| c.is_ascii_digit()))
        .and_then(|n| n.parse::<usize>().ok())
        .is_some_and(|n| n >= FIRST_NUMBER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart_at_the_home_host() {
        assert_eq!(split_name("pve:0"), (Some("pve"), "0"));
        assert_eq!(split_name("data"), (None, "data"));
    }

    #[test]
    fn only_our_numbers_are_ours() {
        assert!(is_ours(Path::new("/dev/md200")));
        for other in [
            "/dev/md0",
            "/dev/md127",
            "/dev/md/200",
            "/dev/md200p1",
            "/dev/sda",
        ] {
            assert!(!is_ours(Path::new(other)), "{other}");
        }
    }
}
