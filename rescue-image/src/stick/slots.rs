//! The two places for rescue systems, and the order of writes that keeps one of them bootable at any moment.
//!
//! 1. the other slot is marked as not ready (one sector),
//! 2. its files are written over in place, synced and read back from the medium,
//! 3. it is marked as ready (one sector),
//! 4. it becomes the current one (one sector).
//!
//! Whatever moment the power fails, the current slot's files were not touched, and the menu offers nothing half written.

use std::fs::File;
use std::path::Path;

use bundle::events::Events;
use sha2::{Digest, Sha256};

use super::{RescueSystem, Slot, Slots};
use crate::error::{Error, Result};
use crate::esp::{Esp, Medium};
use crate::initramfs::RescueInfo;

/// Names the current slot.
const CURRENT: &str = "grub/slot.cfg";

impl Slot {
    /// Its name in paths and on the kernel's command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

fn file(slot: Slot, name: &str) -> String {
    format!("rescue/{}/{name}", slot.name())
}

fn ready_text(slot: Slot, ready: bool) -> String {
    format!("set {}_ready={}\n", slot.name(), u8::from(ready))
}

fn current_text(slot: Slot) -> String {
    format!("set slot={}\n", slot.name())
}

fn says<M: Medium>(esp: &mut Esp<M>, path: &str, text: &str) -> Result<bool> {
    Ok(esp
        .read(path)?
        .is_some_and(|content| content.starts_with(text.as_bytes())))
}

/// What is in the slots.
pub(crate) fn read<M: Medium>(esp: &mut Esp<M>) -> Result<Slots> {
    // The same defaults as in grub.cfg.
    let current = if says(esp, CURRENT, &current_text(Slot::B))? {
        Slot::B
    } else {
        Slot::A
    };
    let mut info = |slot: Slot| -> Result<Option<RescueInfo>> {
        if !says(esp, &file(slot, "state.cfg"), &ready_text(slot, true))? {
            return Ok(None);
        }
        Ok(esp
            .read(&file(slot, "rescue.json"))?
            .as_deref()
            .and_then(RescueInfo::from_json))
    };
    Ok(Slots {
        current,
        a: info(Slot::A)?,
        b: info(Slot::B)?,
    })
}

fn hash_of(path: &Path) -> Result<([u8; 32], u64)> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hash = Sha256::new();
    let size = std::io::copy(&mut file, &mut hash).map_err(Error::io("read", path))?;
    Ok((hash.finalize().into(), size))
}

/// Steps 1 to 3 of the order above. `medium` is for errors.
pub(crate) fn fill<M: Medium>(
    esp: &mut Esp<M>,
    medium: &Path,
    slot: Slot,
    rescue: &RescueSystem,
    events: &dyn Events,
) -> Result<()> {
    let sources = [("vmlinuz", &rescue.kernel), ("initrd.img", &rescue.initrd)];
    let mut expected = Vec::new();
    let mut total = 0;
    for (name, path) in sources {
        let (hash, size) = hash_of(path)?;
        total += size;
        expected.push((file(slot, name), path, hash, size));
    }
    let mut needed = 0;
    for (path, _, _, size) in &expected {
        needed += size.saturating_sub(esp.size(path)?);
    }
    let available = esp.free()?;
    // Room for the small files and the rest of a cluster each.
    if needed + (1 << 20) > available {
        return Err(Error::EspFull {
            path: medium.to_owned(),
            needed: needed + (1 << 20),
            available,
        });
    }
    esp.write_sector(&file(slot, "state.cfg"), &ready_text(slot, false))?;
    events.phase("rescue system", Some(total * 2));
    for (path, source, _, _) in &expected {
        let mut content = File::open(source).map_err(Error::io("open", source.as_path()))?;
        esp.write(path, &mut content, &|n| events.bytes(n))?;
    }
    let info = rescue.info.to_json();
    esp.write_bytes(&file(slot, "rescue.json"), &info)?;
    esp.forget()?;
    for (path, _, hash, size) in &expected {
        if esp.hash(path)? != *hash {
            return Err(Error::ReadBack {
                path: medium.to_owned(),
                what: path.clone(),
            });
        }
        events.bytes(*size);
    }
    if esp.read(&file(slot, "rescue.json"))? != Some(info) {
        return Err(Error::ReadBack {
            path: medium.to_owned(),
            what: file(slot, "rescue.json"),
        });
    }
    esp.write_sector(&file(slot, "state.cfg"), &ready_text(slot, true))
}

/// Step 4.
pub(crate) fn make_current<M: Medium>(esp: &mut Esp<M>, slot: Slot) -> Result<()> {
    esp.write_sector(CURRENT, &current_text(slot))
}

/// See [`super::Stick::update_rescue`].
pub(crate) fn update<M: Medium>(
    esp: &mut Esp<M>,
    medium: &Path,
    rescue: &RescueSystem,
    events: &dyn Events,
) -> Result<bool> {
    let slots = read(esp)?;
    let (current, older) = match slots.current {
        Slot::A => (&slots.a, &slots.b),
        Slot::B => (&slots.b, &slots.a),
    };
    if current
        .as_ref()
        .is_some_and(|i| i.fingerprint == rescue.info.fingerprint)
    {
        return Ok(false);
    }
    // A current slot that is damaged is no loss, while the other one is what the menu boots instead.
    let slot = if current.is_none() && older.is_some() {
        slots.current
    } else {
        slots.current.other()
    };
    fill(esp, medium, slot, rescue, events)?;
    make_current(esp, slot)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::tests::{Recorder, SMALL};
    use bundle::events::Silent;

    fn rescue(dir: &Path, byte: u8) -> RescueSystem {
        let system = RescueSystem {
            kernel: dir.join(format!("k{byte}")),
            initrd: dir.join(format!("i{byte}")),
            info: RescueInfo {
                format: 1,
                version: "1".into(),
                host: "h".into(),
                kernel: "6".into(),
                fingerprint: byte.to_string(),
            },
        };
        std::fs::write(&system.kernel, vec![byte; 9000 + usize::from(byte) * 700]).unwrap();
        std::fs::write(&system.initrd, vec![byte; 20_000 - usize::from(byte) * 700]).unwrap();
        system
    }

    fn medium(dir: &Path) -> Recorder {
        let mut disk = Recorder::new(SMALL);
        let mut esp = Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
        for folder in ["grub", "rescue/a", "rescue/b"] {
            esp.make_dir(folder).unwrap();
        }
        for slot in [Slot::A, Slot::B] {
            esp.write_sector(&file(slot, "state.cfg"), &ready_text(slot, false))
                .unwrap();
        }
        fill(
            &mut esp,
            Path::new("test"),
            Slot::A,
            &rescue(dir, 1),
            &Silent,
        )
        .unwrap();
        make_current(&mut esp, Slot::A).unwrap();
        disk
    }

    #[test]
    fn an_update_goes_to_the_other_slot_and_the_old_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = medium(dir.path());
        let mut esp = Esp::new(&mut disk, Path::new("test"));
        assert!(
            !update(&mut esp, Path::new("test"), &rescue(dir.path(), 1), &Silent).unwrap(),
            "nothing changed"
        );
        assert!(update(&mut esp, Path::new("test"), &rescue(dir.path(), 2), &Silent).unwrap());
        let slots = read(&mut esp).unwrap();
        assert_eq!(slots.current, Slot::B);
        assert_eq!(
            (slots.a.unwrap().fingerprint, slots.b.unwrap().fingerprint),
            ("1".into(), "2".into())
        );
        assert_eq!(
            esp.read("rescue/b/initrd.img").unwrap().unwrap(),
            vec![2; 20_000 - 1400]
        );
        assert!(update(&mut esp, Path::new("test"), &rescue(dir.path(), 3), &Silent).unwrap());
        assert_eq!(read(&mut esp).unwrap().current, Slot::A);
    }

    /// The medium is pulled after each single write of an update, twice in a row: it always boots a whole system.
    #[test]
    fn pulling_the_medium_at_any_write_leaves_a_whole_current_slot() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = medium(dir.path());
        let mut systems_seen = std::collections::BTreeSet::new();
        // The second round starts with two used slots.
        for (old, new) in [(1, 2), (2, 3)] {
            let before = disk.bytes.clone();
            disk.recording = true;
            update(
                &mut Esp::new(&mut disk, Path::new("test")),
                Path::new("test"),
                &rescue(dir.path(), new),
                &Silent,
            )
            .unwrap();
            disk.recording = false;
            let writes = std::mem::take(&mut disk.writes);
            assert!(writes.len() > 20);
            let mut pulled = Recorder {
                bytes: before,
                ..Recorder::default()
            };
            for (at, content) in std::iter::once((0, Vec::new())).chain(writes) {
                pulled.bytes[at as usize..at as usize + content.len()].copy_from_slice(&content);
                let mut esp = Esp::new(&mut pulled, Path::new("test"));
                let slots = read(&mut esp).unwrap();
                for slot in [Slot::A, Slot::B] {
                    let info = if slot == Slot::A { &slots.a } else { &slots.b };
                    // Whatever is offered is whole; the current one is always offered.
                    let Some(info) = info else {
                        assert_ne!(slot, slots.current);
                        continue;
                    };
                    let byte: u8 = info.fingerprint.parse().unwrap();
                    let system = rescue(dir.path(), byte);
                    assert_eq!(
                        esp.hash(&file(slot, "vmlinuz")).unwrap(),
                        hash_of(&system.kernel).unwrap().0
                    );
                    assert_eq!(
                        esp.hash(&file(slot, "initrd.img")).unwrap(),
                        hash_of(&system.initrd).unwrap().0
                    );
                    if slot == slots.current {
                        assert!([old, new].contains(&byte));
                        systems_seen.insert(byte);
                    }
                }
            }
        }
        assert_eq!(systems_seen.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    /// The boot menu takes the other slot when the current one is damaged: then that one must stay until the end.
    #[test]
    fn the_only_whole_slot_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = medium(dir.path());
        let mut esp = Esp::new(&mut disk, Path::new("test"));
        update(&mut esp, Path::new("test"), &rescue(dir.path(), 2), &Silent).unwrap();
        esp.write_sector("rescue/b/state.cfg", &ready_text(Slot::B, false))
            .unwrap();
        let mut pulled = Recorder {
            bytes: disk.bytes.clone(),
            ..Recorder::default()
        };
        disk.recording = true;
        let mut esp = Esp::new(&mut disk, Path::new("test"));
        assert!(update(&mut esp, Path::new("test"), &rescue(dir.path(), 3), &Silent).unwrap());
        let slots = read(&mut esp).unwrap();
        assert!(slots.a.is_some() && slots.b.is_some());
        for (at, content) in std::mem::take(&mut disk.writes) {
            pulled.bytes[at as usize..at as usize + content.len()].copy_from_slice(&content);
            let slots = read(&mut Esp::new(&mut pulled, Path::new("test"))).unwrap();
            assert!(slots.a.is_some() || slots.b.is_some(), "nothing boots");
        }
    }

    #[test]
    fn a_system_that_does_not_fit_is_refused_before_the_other_slot_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = medium(dir.path());
        let mut esp = Esp::new(&mut disk, Path::new("test"));
        update(&mut esp, Path::new("test"), &rescue(dir.path(), 2), &Silent).unwrap();
        let big = rescue(dir.path(), 3);
        std::fs::write(&big.initrd, vec![3; SMALL]).unwrap();
        assert!(matches!(
            update(&mut esp, Path::new("test"), &big, &Silent),
            Err(Error::EspFull { .. })
        ));
        let slots = read(&mut esp).unwrap();
        assert!(slots.a.is_some() && slots.b.is_some());
    }
}
