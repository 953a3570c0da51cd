//! What the operator decides, before and at a restore.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Mode;
use super::identity::same_serial;
use crate::inventory::Inventory;
use crate::model::{Layout, NodeId};

fn is_default(mode: &Mode) -> bool {
    *mode == Mode::default()
}

/// What the operator decided.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Choices {
    /// How much of the machine is touched.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Saved disk to present disk; what is not named here is matched by WWN, serial and size.
    pub disks: BTreeMap<NodeId, DiskChoice>,
    /// Devices that are never written to: the media that hold the bundle.
    pub never: Vec<PathBuf>,
    /// Disks that the planner itself adds to a layout, each with the saved disk that it is a further one for.
    #[serde(skip)]
    pub further: BTreeMap<NodeId, NodeId>,
    /// What happens with the space of a bigger disk.
    pub grow: Grow,
    /// What is not made again, so that the rest fits or has more room.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub leave_out: BTreeSet<LeaveOut>,
    /// Nobody will be asked: a disk that is neither named here nor recognised by WWN or serial is taken only when it
    /// is blank, and when no volume, filesystem or swap area has to shrink for it. Free space may be given up. A host that
    /// silently comes back with less room than it had would fail later, with nobody watching: who wants that names the
    /// disk beforehand.
    pub blank_only: bool,
}

/// A present disk, by what identifies it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskChoice {
    /// By serial number.
    Serial(String),
    /// By world wide name.
    Wwn(String),
    /// By device node.
    Device(PathBuf),
    /// None of its own: what was on it goes onto the disk that takes the place of this other saved disk.
    Onto(NodeId),
    /// None: what was on it is done without, which mirrors can.
    Missing,
    /// Several: the first takes the place of the saved one, the volume group that lies on it is spread over the others, too.
    Spread(Vec<DiskChoice>),
}

/// Before the saved disk that another one goes onto.
const ONTO: &str = "onto:";
const MISSING: &str = "missing";
/// Between disks that take the place of one saved disk together.
const AND: char = '+';

impl DiskChoice {
    /// What is meant on command lines and in tokens: `onto:SAVED`, `missing`, a device below `/dev`, or else a serial number;
    /// several of the latter two joined by `+`. Whether a serial number has a `+` of its own is seen later
    /// ([`Choices::settled`]).
    pub fn parse(text: &str) -> DiskChoice {
        if let Some(saved) = text.strip_prefix(ONTO) {
            DiskChoice::Onto(NodeId::new(saved))
        } else if text == MISSING {
            DiskChoice::Missing
        } else if let Some(parts) = DiskChoice::parts(text) {
            DiskChoice::Spread(parts.into_iter().map(DiskChoice::one).collect())
        } else {
            DiskChoice::one(text)
        }
    }

    fn one(text: &str) -> DiskChoice {
        if text.starts_with("/dev/") {
            DiskChoice::Device(text.into())
        } else {
            DiskChoice::Serial(text.to_owned())
        }
    }

    /// The words for several disks; `None`: it is one.
    pub fn parts(text: &str) -> Option<Vec<&str>> {
        let parts: Vec<&str> = text.split(AND).collect();
        (parts.len() > 1 && parts.iter().all(|part| !part.is_empty())).then_some(parts)
    }

    /// The saved disk that a word of a command line names after `onto:`.
    pub fn onto(text: &str) -> Option<&str> {
        text.strip_prefix(ONTO)
    }
}

impl std::fmt::Display for DiskChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiskChoice::Serial(text) | DiskChoice::Wwn(text) => f.write_str(text),
            DiskChoice::Device(path) => write!(f, "{}", path.display()),
            DiskChoice::Onto(saved) => write!(f, "{ONTO}{saved}"),
            DiskChoice::Missing => f.write_str(MISSING),
            DiskChoice::Spread(all) => {
                for (n, choice) in all.iter().enumerate() {
                    if n > 0 {
                        write!(f, "{AND}")?;
                    }
                    choice.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl Choices {
    /// What looks like several disks is one where a saved disk or one at hand has that for its serial number.
    pub fn settled(&self, saved: &Layout, inventory: Option<&Inventory>) -> Choices {
        let mut settled = self.clone();
        for choice in settled.disks.values_mut() {
            if !matches!(choice, DiskChoice::Spread(_)) {
                continue;
            }
            let text = choice.to_string();
            let at_hand = inventory.into_iter().flat_map(|i| &i.disks);
            let mut serials = saved
                .disks()
                .map(|(_, disk)| &disk.serial)
                .chain(at_hand.map(|disk| &disk.serial));
            if serials.any(|serial| same_serial(serial, &text)) {
                *choice = DiskChoice::Serial(text);
            }
        }
        settled
    }
}

/// What happens with the space of a bigger disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grow {
    /// The root volume and its filesystem grow.
    #[default]
    Root,
    /// The thin pool of the guests grows. Where there is none, the space stays free as with [`Grow::Nothing`].
    ThinPool,
    /// The space stays free: in the volume group, or behind the last partition.
    #[serde(alias = "vg_free")]
    Nothing,
    /// Partitions stay as they were: the space stays behind the last one.
    Untouched,
}

/// What may be left out of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveOut {
    /// Swap areas, with the partitions and volumes that carry them. Their lines in fstab are switched off.
    Swap,
    /// Thin pools whose volumes all belong to guests. The guests cannot come back until they get another place.
    GuestPool,
}

impl std::fmt::Display for LeaveOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            LeaveOut::Swap => "swap",
            LeaveOut::GuestPool => "the thin pool of the guests",
        })
    }
}

impl Grow {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Grow; 4] = [Grow::Root, Grow::ThinPool, Grow::Nothing, Grow::Untouched];

    /// The word for it on command lines and in questions.
    pub fn word(self) -> &'static str {
        match self {
            Grow::Root => "root",
            Grow::ThinPool => "thin-pool",
            Grow::Nothing => "vg-free",
            Grow::Untouched => "untouched",
        }
    }
}

impl FromStr for Grow {
    type Err = String;

    fn from_str(word: &str) -> Result<Grow, String> {
        one_of(word, &Grow::ALL, |grow| grow.word())
    }
}

impl LeaveOut {
    /// All of them.
    pub const ALL: [LeaveOut; 2] = [LeaveOut::Swap, LeaveOut::GuestPool];

    /// The word for it on command lines.
    pub fn word(self) -> &'static str {
        match self {
            LeaveOut::Swap => "swap",
            LeaveOut::GuestPool => "guest-pool",
        }
    }
}

impl FromStr for LeaveOut {
    type Err = String;

    fn from_str(word: &str) -> Result<LeaveOut, String> {
        one_of(word, &LeaveOut::ALL, |what| what.word())
    }
}

pub(super) fn one_of<T: Copy>(
    word: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let words = || all.iter().map(|t| name(*t)).collect::<Vec<_>>().join(", ");
    let found = all.iter().copied().find(|t| name(*t) == word);
    found.ok_or_else(|| format!("\"{word}\" is none of: {}", words()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_and_others_are_told() {
        for grow in Grow::ALL {
            assert_eq!(grow.word().parse(), Ok(grow));
        }
        for what in LeaveOut::ALL {
            assert_eq!(what.word().parse(), Ok(what));
        }
        let error = "pool".parse::<Grow>().unwrap_err();
        assert_eq!(
            error,
            "\"pool\" is none of: root, thin-pool, vg-free, untouched"
        );
    }

    #[test]
    fn words_for_disks_are_read_as_they_are_written() {
        for (text, choice) in [
            ("onto:disk:a", DiskChoice::Onto(NodeId::disk("a"))),
            ("missing", DiskChoice::Missing),
            ("/dev/sdb", DiskChoice::Device("/dev/sdb".into())),
            ("S-1", DiskChoice::Serial("S-1".into())),
            ("S-1+", DiskChoice::Serial("S-1+".into())),
            (
                "S-1+/dev/sdb",
                DiskChoice::Spread(vec![
                    DiskChoice::Serial("S-1".into()),
                    DiskChoice::Device("/dev/sdb".into()),
                ]),
            ),
        ] {
            assert_eq!(DiskChoice::parse(text), choice);
            assert_eq!(choice.to_string(), text);
        }
    }

    #[test]
    fn a_serial_number_may_have_a_plus() {
        let id = NodeId::disk("a");
        let text = r#"{"device": "/dev/sda", "model": null, "serial": "S+1", "wwn": null, "size": 1073741824,
            "sector_size": 512, "transport": null, "removable": false, "table": null}"#;
        let disk: crate::model::Disk = serde_json::from_str(text).unwrap();
        let mut saved = Layout::new(crate::model::Firmware::Bios);
        saved
            .nodes
            .insert(id.clone(), crate::model::Node::Disk(disk));
        for (text, one) in [("S+1", true), ("S+2", false)] {
            let mut choices = Choices::default();
            choices.disks.insert(id.clone(), DiskChoice::parse(text));
            let settled = choices.settled(&saved, None);
            let expected = match one {
                true => DiskChoice::Serial(text.to_owned()),
                false => DiskChoice::parse(text),
            };
            assert_eq!(settled.disks[&id], expected);
        }
    }

    #[test]
    fn documents_of_earlier_releases_are_read() {
        let old = r#"{"disks": {}, "never": [], "grow": "nothing", "blank_only": true}"#;
        let choices: Choices = serde_json::from_str(old).unwrap();
        assert_eq!(choices.grow, Grow::Nothing);
        assert!(choices.leave_out.is_empty());
        assert_eq!(
            serde_json::from_str::<Grow>("\"vg_free\"").unwrap(),
            Grow::Nothing
        );
    }
}
