//! `--disk SAVED=DISK`: which saved disk goes onto which disk at hand. `SAVED=onto:OTHER` puts it where the saved disk OTHER
//! goes, `SAVED=missing` does without it, `SAVED=DISK+DISK` spreads the volume group on it over both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use layout::inventory::Inventory;
use layout::model::{Layout, NodeId};
use layout::plan::DiskChoice;

use crate::output::Usage;

/// Splits `SAVED=DISK` and finds the saved disk: by its name in the layout, its serial, or its device at that time.
pub fn split(saved: &Layout, arg: &str) -> anyhow::Result<(NodeId, String)> {
    let wrong = |reason: String| {
        let known: Vec<String> = saved.disks().map(|(id, _)| id.to_string()).collect();
        Usage(format!(
            "--disk {arg}: {reason}; saved disks: {}",
            known.join(", ")
        ))
    };
    let both = match arg.find("=onto:") {
        Some(at) => Some((&arg[..at], &arg[at + 1..])),
        // The last `=`: names of saved disks may hold one, serials and devices do not.
        None => arg.rsplit_once('='),
    };
    let (wanted, disk) = both.ok_or_else(|| wrong("write SAVED=DISK".into()))?;
    if wanted.is_empty() || disk.is_empty() {
        return Err(wrong("write SAVED=DISK".into()).into());
    }
    let id = find(saved, wanted).map_err(&wrong)?;
    let disk = match DiskChoice::onto(disk) {
        Some(other) => DiskChoice::Onto(find(saved, other).map_err(&wrong)?).to_string(),
        None => disk.to_owned(),
    };
    Ok((id, disk))
}

/// The saved disk with this name, serial, or device at that time.
fn find(saved: &Layout, wanted: &str) -> Result<NodeId, String> {
    let mut fits = saved.disks().filter(|(id, d)| {
        id.as_str() == wanted
            || id.as_str().strip_prefix("disk:") == Some(wanted)
            || d.serial.as_deref() == Some(wanted)
            || d.device == Path::new(wanted)
    });
    match (fits.next(), fits.next()) {
        (Some((id, _)), None) => Ok(id.clone()),
        (None, _) => Err(format!("there is no saved disk {wanted}")),
        (Some(_), Some(_)) => Err(format!("{wanted} fits several saved disks, use the name")),
    }
}

/// The choices for a plan. A disk at hand is meant by device when it is a path, else by WWN or serial.
pub fn choices(
    saved: &Layout,
    at_hand: &Inventory,
    args: &[String],
) -> anyhow::Result<BTreeMap<NodeId, DiskChoice>> {
    let mut choices = BTreeMap::new();
    for arg in args {
        let (id, disk) = split(saved, arg)?;
        let choice = choice(&disk, at_hand);
        if choices.insert(id.clone(), choice).is_some() {
            return Err(Usage(format!("--disk names the saved disk {id} twice")).into());
        }
    }
    Ok(choices)
}

fn choice(disk: &str, at_hand: &Inventory) -> DiskChoice {
    // A plus may be a part of a name.
    let parts = DiskChoice::parts(disk).filter(|_| !Path::new(disk).exists());
    if let Some(parts) = parts {
        DiskChoice::Spread(parts.into_iter().map(|part| one(part, at_hand)).collect())
    } else {
        one(disk, at_hand)
    }
}

fn one(disk: &str, at_hand: &Inventory) -> DiskChoice {
    let is_it = |wwn: &Option<String>| wwn.as_deref() == Some(disk);
    if disk.starts_with('/') {
        // A name like /dev/disk/by-id/... leads to the device that the inventory names.
        let path = PathBuf::from(disk);
        DiskChoice::Device(path.canonicalize().unwrap_or(path))
    } else if at_hand.disks.iter().any(|d| is_it(&d.wwn)) {
        DiskChoice::Wwn(disk.to_owned())
    } else {
        DiskChoice::parse(disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::model::{Disk, Firmware, Node};
    use layout::units::{Bytes, SectorSize};

    fn saved() -> Layout {
        let mut layout = Layout::new(Firmware::Bios);
        for (id, device, serial) in [("aaaa", "/dev/nvme0n1", "S1"), ("bbbb", "/dev/sda", "S2")] {
            let disk = Disk {
                device: device.into(),
                model: None,
                serial: Some(serial.into()),
                wwn: None,
                size: Bytes::GIB,
                sector_size: SectorSize::S512,
                transport: None,
                removable: false,
                table: None,
            };
            layout.nodes.insert(NodeId::disk(id), Node::Disk(disk));
        }
        layout
    }

    #[test]
    fn saved_disks_by_name_serial_and_device() {
        for name in ["disk:aaaa", "aaaa", "S1", "/dev/nvme0n1"] {
            assert_eq!(
                split(&saved(), &format!("{name}=NEW")).unwrap(),
                (NodeId::disk("aaaa"), "NEW".into())
            );
        }
    }

    #[test]
    fn one_disk_goes_onto_another_or_nowhere() {
        let onto = (NodeId::disk("bbbb"), "onto:disk:aaaa".to_owned());
        for other in ["disk:aaaa", "aaaa", "S1", "/dev/nvme0n1"] {
            assert_eq!(split(&saved(), &format!("S2=onto:{other}")).unwrap(), onto);
        }
        assert!(split(&saved(), "S2=onto:S9").is_err());
        let none = Inventory {
            firmware: Firmware::Bios,
            disks: Vec::new(),
            memory: Bytes(0),
            present: None,
        };
        let args = ["S1=missing".to_owned(), "S2=onto:aaaa".to_owned()];
        let choices = choices(&saved(), &none, &args).unwrap();
        assert_eq!(choices[&NodeId::disk("aaaa")], DiskChoice::Missing);
        assert_eq!(
            choices[&NodeId::disk("bbbb")],
            DiskChoice::Onto(NodeId::disk("aaaa"))
        );
    }

    #[test]
    fn several_disks_together_are_each_named_in_their_own_way() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("by-id");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let none = Inventory {
            firmware: Firmware::Bios,
            disks: Vec::new(),
            memory: Bytes(0),
            present: None,
        };
        let args = [format!("S1=NEW+{}", link.display())];
        let choices = choices(&saved(), &none, &args).unwrap();
        assert_eq!(
            choices[&NodeId::disk("aaaa")],
            DiskChoice::Spread(vec![
                DiskChoice::Serial("NEW".into()),
                DiskChoice::Device("/dev/null".into())
            ])
        );
    }

    #[test]
    fn wrong_ones_are_named_with_the_right_ones() {
        for arg in ["nonsense", "=x", "S1=", "S9=x"] {
            let e = split(&saved(), arg).unwrap_err();
            assert!(e.to_string().contains("disk:aaaa, disk:bbbb"), "{e}");
            assert_eq!(crate::output::error_code(&e), 2);
        }
        let none = Inventory {
            firmware: Firmware::Bios,
            disks: Vec::new(),
            memory: Bytes(0),
            present: None,
        };
        let twice = ["S1=x".to_owned(), "aaaa=y".to_owned()];
        assert!(choices(&saved(), &none, &twice).is_err());
    }
}
