//! Software RAID through mdadm.
//!
//! Nothing is assumed to be clean: disks that were erased hold different rubbish, so the kernel synchronises the members
//! (parity for RAID 4, 5 and 6), and goes on with that after the restart. What the restore writes is on all members at
//! once. Nobody waits for it here.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Executor, Outcome, StepError};
use crate::capture::devices::{Devices, size_of};
use crate::capture::raid::{digits, parse_export};
use crate::model::RaidArray;
use crate::plan::Step;
use crate::plan::raid::split_name;
use crate::system::{BlockDevice, Cmd};
use crate::units::Bytes;

/// How long a device may be busy with what udev starts.
const PATIENCE: Duration = Duration::from_secs(10);

/// mdadm without the configuration of the system that this runs on: it may name arrays and a home host.
fn mdadm(mode: &str) -> Cmd {
    Cmd::new("mdadm").args([mode, "--config=none"])
}

fn kib(bytes: Bytes) -> String {
    format!("{}K", bytes.0 / 1024)
}

/// Arguments that make a saved array of `devices`, which are in the order of its members.
fn create_args(array: &RaidArray, devices: &[impl AsRef<Path>]) -> Vec<String> {
    let (home, name) = split_name(&array.name);
    let mut args = vec![
        // Else it asks at old signatures.
        "--run".to_owned(),
        format!("--metadata={}", array.metadata),
        format!("--level={}", array.level),
        format!("--raid-devices={}", array.raid_devices),
        format!("--uuid={}", array.uuid),
        format!("--homehost={}", home.unwrap_or("<none>")),
        format!("--name={name}"),
    ];
    if array.missing() == 0 {
        // Else it makes RAID 5 with a spare that is rebuilt onto, so that what the restore writes has no redundancy until
        // then, and takes no mirror of one. With a missing member the kernel needs it done like that.
        args.push("--force".to_owned());
    }
    if array.component_size > Bytes(0) && array.level != "raid0" {
        args.push(format!("--size={}", kib(array.component_size)));
    }
    if array.chunk_size > Bytes(0) {
        args.push(format!("--chunk={}", kib(array.chunk_size)));
    }
    if let Some(layout) = &array.layout {
        args.push(format!("--layout={layout}"));
    }
    match array.bitmap_chunk {
        // Said in any case: big arrays would get one by default.
        None if array.level != "raid0" => args.push("--bitmap=none".to_owned()),
        None => {}
        Some(chunk) => {
            args.push("--bitmap=internal".to_owned());
            if chunk > Bytes(0) {
                args.push(format!("--bitmap-chunk={}", kib(chunk)));
            }
        }
    }
    let spares = array.spares().count();
    if spares > 0 {
        args.push(format!("--spare-devices={spares}"));
    }
    let first = array.members.first().map(|m| m.data_offset);
    let alike = array.members.iter().all(|m| Some(m.data_offset) == first);
    if !alike {
        args.push("--data-offset=variable".to_owned());
    } else if let Some(offset) = first.filter(|offset| *offset > Bytes(0)) {
        args.push(format!("--data-offset={}", kib(offset)));
    }
    let named = |index: usize| {
        let device = devices
            .get(index)
            .map(|d| d.as_ref().to_string_lossy().into_owned())
            .unwrap_or_default();
        if alike {
            device
        } else {
            let offset = array.members.get(index).map(|m| m.data_offset);
            format!("{device}:{}", kib(offset.unwrap_or_default()))
        }
    };
    let at = |wanted: Option<u32>| {
        array
            .members
            .iter()
            .enumerate()
            .filter(move |(_, m)| m.slot == wanted)
            .map(|(index, _)| index)
    };
    for slot in 0..array.slots().len() as u32 {
        args.push(
            at(Some(slot))
                .next()
                .map_or_else(|| "missing".to_owned(), named),
        );
    }
    args.extend(at(None).map(named));
    args
}

impl Executor<'_> {
    pub(super) fn raid_create(
        &mut self,
        device: &Path,
        devices: &[impl AsRef<Path>],
        array: &RaidArray,
    ) -> Result<Outcome, StepError> {
        // What an earlier attempt left is ours.
        self.raid_stop(device)?;
        self.sys.run(
            &mdadm("--create")
                .path(device)
                .args(create_args(array, devices)),
        )?;
        self.wait_for(device)?;
        for (member, at) in array.members.iter().zip(devices) {
            if member.write_mostly {
                self.set_write_mostly(device, at.as_ref())?;
            }
        }
        // What lay at these places of the members must not come back to life in the array.
        super::disk::zero_edges(device)?;
        self.verify_array(device, array)
    }

    /// mdadm has an option that is for all members behind it, and they have their order.
    fn set_write_mostly(&self, device: &Path, member: &Path) -> Result<(), StepError> {
        let name = |path: &Path| -> Result<String, StepError> {
            let real = self.sys.canonicalize(path)?;
            let name = real.file_name().unwrap_or_default();
            Ok(name.to_string_lossy().into_owned())
        };
        let file = Path::new("/sys/class/block")
            .join(name(device)?)
            .join("md")
            .join(format!("dev-{}", name(member)?))
            .join("state");
        std::fs::write(&file, "writemostly").map_err(super::io_error(
            "cannot make a member write-mostly through",
            &file,
        ))
    }

    /// Asks mdadm and the kernel whether it became what was planned.
    fn verify_array(&self, device: &Path, array: &RaidArray) -> Result<Outcome, StepError> {
        let text = self
            .sys
            .run(
                &Cmd::new("mdadm")
                    .args(["--detail", "--export"])
                    .path(device),
            )?
            .text();
        let export = parse_export(&text);
        let get = |key: &str| export.get(key).map_or("", String::as_str);
        let same = digits(get("MD_UUID")) == digits(&array.uuid)
            && get("MD_NAME") == array.name
            && get("MD_LEVEL") == array.level
            && get("MD_METADATA") == array.metadata
            && get("MD_DEVICES") == array.raid_devices.to_string();
        if !same {
            return Err(StepError::Verify(format!(
                "{} became another array than planned: {export:?}",
                device.display()
            )));
        }
        let size = size_of(self.sys, device)?;
        if size < array.size {
            return Err(StepError::Verify(format!(
                "array {} has {size} ({} bytes), {} bytes fewer than the saved one: use bigger disks",
                array.name,
                size.0,
                array.size.minus(size).0
            )));
        }
        Ok(Outcome::Done)
    }

    /// Starts an array of the plan again, to look at it.
    pub(super) fn raid_assemble(
        &mut self,
        device: &Path,
        devices: &[impl AsRef<Path>],
        array: &RaidArray,
    ) -> Result<(), StepError> {
        if self.array_at(device)?.is_some() {
            // The number may be that of another one.
            return self.verify_array(device, array).map(drop);
        }
        let mut command = mdadm("--assemble")
            .path(device)
            .args(["--run".to_owned(), format!("--uuid={}", array.uuid)]);
        for member in devices {
            command = command.path(member.as_ref());
        }
        self.sys.run(&command)?;
        self.wait_for(device)?;
        self.verify_array(device, array)?;
        Ok(())
    }

    /// The array that is active, or being made, at this device node.
    fn array_at(&self, device: &Path) -> Result<Option<BlockDevice>, StepError> {
        let devices = Devices::new(self.sys)?;
        let found = devices.virtuals().find(|d| d.node == device).cloned();
        // A node without an array stays for a moment, or for good without udev.
        Ok(found.filter(|d| {
            !matches!(
                devices.sysfs(d, "md/array_state").as_deref(),
                None | Some("clear")
            )
        }))
    }

    /// Stops an array: its metadata say then that it is clean, or how far the members are synchronised.
    pub(super) fn raid_stop(&mut self, device: &Path) -> Result<Outcome, StepError> {
        if self.array_at(device)?.is_none() {
            return Ok(Outcome::AlreadySo);
        }
        self.settle()?;
        nix::unistd::sync();
        let start = Instant::now();
        while let Err(error) = self.sys.run(&mdadm("--stop").path(device)) {
            // Tools that udev starts have it for a moment.
            if start.elapsed() > PATIENCE {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.settle()?;
        match self.array_at(device)? {
            None => Ok(Outcome::Done),
            Some(_) => Err(StepError::Verify(format!(
                "{} is still active",
                device.display()
            ))),
        }
    }

    /// Arrays with the numbers of ours, which an attempt with other disks left behind.
    pub(super) fn stale_arrays(&self) -> Result<Vec<BlockDevice>, StepError> {
        let mut found = Vec::new();
        for step in &self.plan.steps {
            if let Step::RaidCreate { device, .. } | Step::RaidUse { device, .. } = step {
                found.extend(self.array_at(device)?);
            }
        }
        Ok(found)
    }

    /// Whether a stale array may be stopped. That marks it as clean on all of its members, those on disks that must not
    /// be written to among them, unless it is clean already.
    pub(super) fn may_stop(&self, array: &BlockDevice) -> Result<(), StepError> {
        let start = Instant::now();
        loop {
            let devices = Devices::new(self.sys)?;
            let outside = devices.slaves(array).into_iter().find(|name| {
                let member = devices.list.iter().find(|d| d.name == *name);
                let disk = member.map(|m| m.parent.as_deref().unwrap_or(&m.name));
                let disk = devices.disks().find(|d| Some(d.name.as_str()) == disk);
                disk.is_some_and(|d| !self.plan.disks.iter().any(|a| a.device == d.node))
            });
            let Some(outside) = outside else {
                return Ok(());
            };
            let text = |file: &str| {
                devices
                    .sysfs(array, &format!("md/{file}"))
                    .unwrap_or_default()
            };
            let quiet = matches!(
                text("array_state").as_str(),
                "clean" | "readonly" | "read-auto" | "inactive"
            ) && matches!(text("sync_action").as_str(), "" | "idle" | "frozen");
            if quiet {
                return Ok(());
            }
            // The kernel marks an array as clean soon after the last write.
            if start.elapsed() > PATIENCE {
                return Err(StepError::Refused(format!(
                    "the array {} lies on a disk to be erased and on {outside}, which must not be written to, and is not \
                     clean: stop it first (mdadm --stop {})",
                    array.name,
                    array.node.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeId, RaidMember};

    fn array(level: &str, members: &[(Option<u32>, u64)]) -> RaidArray {
        RaidArray {
            members: members
                .iter()
                .map(|(slot, mib)| RaidMember {
                    on: NodeId::new("x"),
                    slot: *slot,
                    data_offset: Bytes::mib(*mib),
                    write_mostly: false,
                })
                .collect(),
            device: "/dev/md0".into(),
            uuid: "7c8e9b5a:11223344:55667788:99aabbcc".to_owned(),
            name: "pve:root".to_owned(),
            level: level.to_owned(),
            metadata: "1.2".to_owned(),
            raid_devices: 2,
            chunk_size: Bytes(0),
            layout: None,
            component_size: Bytes::mib(100),
            bitmap_chunk: Some(Bytes::mib(64)),
            size: Bytes::mib(100),
        }
    }

    fn args(array: &RaidArray) -> String {
        let devices: Vec<String> = (0..array.members.len())
            .map(|n| format!("/dev/sd{}1", (b'a' + n as u8) as char))
            .collect();
        create_args(array, &devices).join(" ")
    }

    #[test]
    fn a_mirror_is_never_assumed_to_be_clean() {
        let text = args(&array("raid1", &[(Some(0), 1), (Some(1), 1), (None, 1)]));
        assert_eq!(
            text,
            "--run --metadata=1.2 --level=raid1 --raid-devices=2 --uuid=7c8e9b5a:11223344:55667788:99aabbcc \
             --homehost=pve --name=root --force --size=102400K --bitmap=internal --bitmap-chunk=65536K --spare-devices=1 \
             --data-offset=1024K /dev/sda1 /dev/sdb1 /dev/sdc1"
        );
    }

    #[test]
    fn members_keep_their_slots_and_offsets() {
        // The list is by slot; here it is not, to see that the slot counts.
        let text = args(&array("raid1", &[(Some(1), 1), (Some(0), 2)]));
        assert!(
            text.ends_with("--data-offset=variable /dev/sdb1:2048K /dev/sda1:1024K"),
            "{text}"
        );
        let mut degraded = array("raid1", &[(Some(1), 1)]);
        degraded.bitmap_chunk = None;
        degraded.name = "root".to_owned();
        let text = args(&degraded);
        assert!(text.ends_with(" missing /dev/sda1"), "{text}");
        assert!(
            !text.contains("--force")
                && text.contains("--bitmap=none")
                && text.contains("--homehost=<none>")
        );
        let text = args(&array("raid0", &[(Some(0), 1), (Some(1), 1)]));
        assert!(!text.contains("--size"), "{text}");
    }
}
