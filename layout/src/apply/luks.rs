//! LUKS through cryptsetup.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::boot::switch_off;
use super::{Executor, Outcome, StepError, io_error};
use crate::capture::devices::{Devices, Probe};
use crate::capture::luks::{Header, read_header};
use crate::model::{Luks, NodeId};
use crate::plan::Step;
use crate::plan::luks::mapping;
use crate::system::{Cmd, SystemError};
use crate::units::Bytes;

/// Where headers are for as long as keys are tried: memory, in the rescue system.
const SCRATCH: &str = "/run/lifeboat-luks";

/// cryptsetup's exit status when no key slot is opened by the key (cryptsetup(8), "RETURN CODES").
const NO_PERMISSION: i32 = 2;

/// A file that is gone when the work is over.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: what stays is the header that is on the disk, too.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Does this key open the container whose header is in a file?
pub fn opens(
    sys: &dyn crate::system::System,
    header: &Path,
    key: &[u8],
) -> Result<bool, SystemError> {
    let output = sys.run(
        &Cmd::new("cryptsetup")
            .args(["open", "--test-passphrase", "--batch-mode", "--key-file=-"])
            .path(header)
            .input(key)
            .accept(NO_PERMISSION),
    )?;
    Ok(output.status == 0)
}

impl Executor<'_> {
    /// Asks for the key and tries it on the saved header: nothing is erased for a container that cannot be filled.
    pub(super) fn luks_key(
        &mut self,
        node: &NodeId,
        name: &str,
        data_offset: Bytes,
    ) -> Result<Outcome, StepError> {
        let key = self.content.luks_key(node, name)?;
        let dir = Path::new(SCRATCH);
        std::fs::create_dir_all(dir).map_err(io_error("cannot make the directory", dir))?;
        let scratch = Scratch(dir.join(format!("{name}.header")));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&scratch.0)
            .map_err(io_error("cannot make the file", &scratch.0))?;
        self.content.restore_image(node, &scratch.0)?;
        // A header without room for data behind it is refused.
        let length = file
            .metadata()
            .map_err(io_error("cannot look at", &scratch.0))?
            .len();
        file.set_len(length.max(data_offset.plus(Bytes::MIB).0))
            .map_err(io_error("cannot set the size of", &scratch.0))?;
        if opens(self.sys, &scratch.0, &key)? {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Refused(format!(
                "the key does not open the LUKS container {name} as it was saved: nothing was erased yet, try another \
                 passphrase or key file"
            )))
        }
    }

    /// Writes the saved header to the device.
    pub(super) fn luks_header(
        &mut self,
        node: &NodeId,
        device: &Path,
        luks: &Luks,
    ) -> Result<Outcome, StepError> {
        self.content.restore_image(node, device)?;
        super::disk::drop_cache(device)?;
        self.settle()?;
        let probe = Devices::new(self.sys)?.probe_now(device);
        let bad = |what: String| {
            StepError::Verify(format!(
                "{} should hold the LUKS container {}, and {what}",
                device.display(),
                luks.uuid
            ))
        };
        let same = probe.fstype.as_deref() == Some("crypto_LUKS")
            && probe
                .uuid
                .as_deref()
                .is_some_and(|u| u.eq_ignore_ascii_case(&luks.uuid));
        if !same {
            return Err(bad(format!("reads as {probe:?}")));
        }
        let Header {
            cipher,
            data_offset,
            key_slots,
            ..
        } = self.header(device, &probe)?.map_err(bad)?;
        if (cipher.as_str(), data_offset, key_slots)
            == (luks.cipher.as_str(), luks.data_offset, luks.key_slots)
        {
            Ok(Outcome::Done)
        } else {
            Err(bad(format!(
                "has {cipher}, data at {data_offset} and {key_slots} key slots"
            )))
        }
    }

    fn header(&self, device: &Path, probe: &Probe) -> Result<Result<Header, String>, StepError> {
        Ok(read_header(self.sys, device, probe)?)
    }

    pub(super) fn luks_open(
        &mut self,
        node: &NodeId,
        device: &Path,
        name: &str,
    ) -> Result<Outcome, StepError> {
        let mapped = mapping(name);
        if self.mapping_exists(name)? {
            self.mapping_lies_on(name, device)?;
            return Ok(Outcome::AlreadySo);
        }
        let key = self.content.luks_key(node, name)?;
        self.sys.run(
            &Cmd::new("cryptsetup")
                .args(["open", "--type", "luks", "--batch-mode", "--key-file=-"])
                .path(device)
                .arg(name)
                .input(key),
        )?;
        self.wait_for(&mapped)?;
        Ok(Outcome::Done)
    }

    /// Takes down what came to life in an open container, and erases both of its ends.
    ///
    /// The container was made of the header of an earlier life: where its data stayed on the disk, they are readable again.
    pub(super) fn luks_erase(&mut self, name: &str) -> Result<Outcome, StepError> {
        let mapped = mapping(name);
        self.settle()?;
        self.take_stack_down(&mut self.stack_on(&mapped)?)?;
        super::disk::zero_edges(&mapped)?;
        self.settle()?;
        super::disk::drop_cache(&mapped)?;
        let left = Devices::new(self.sys)?.probe_now(&mapped);
        match left.unreadable.or(left.table).or(left.fstype) {
            None => Ok(Outcome::Done),
            Some(what) => Err(StepError::Verify(format!(
                "LUKS container {name} should be empty, and its content reads as {what}"
            ))),
        }
    }

    fn mapping_exists(&self, name: &str) -> Result<bool, StepError> {
        let devices = Devices::new(self.sys)?;
        let found = devices
            .virtuals()
            .find(|d| devices.sysfs(d, "dm/name").as_deref() == Some(name));
        let Some(found) = found else {
            return Ok(false);
        };
        // The name may be that of a volume; its prefix is given by cryptsetup (lib/libdevmapper.c).
        let uuid = devices.sysfs(found, "dm/uuid").unwrap_or_default();
        if uuid.starts_with("CRYPT-LUKS") {
            Ok(true)
        } else {
            Err(StepError::Refused(format!(
                "{name} should be a LUKS container, and a device of that name is something else ({uuid}): rename one of them"
            )))
        }
    }

    /// An open container of that name may be another one, on a disk that nobody may write to.
    fn mapping_lies_on(&self, name: &str, device: &Path) -> Result<(), StepError> {
        let devices = Devices::new(self.sys)?;
        let real = self.sys.canonicalize(device)?;
        let below = devices.by_node(&real).map(|d| d.name.clone());
        let mut found = devices.virtuals();
        let found = found.find(|d| devices.sysfs(d, "dm/name").as_deref() == Some(name));
        let lies = found.is_some_and(|d| below.is_some_and(|b| devices.slaves(d).contains(&b)));
        if lies {
            return Ok(());
        }
        Err(StepError::Refused(format!(
            "the LUKS container {name} is open, and does not lie on {}: close it (cryptsetup close {name}) and start again",
            device.display()
        )))
    }

    pub(super) fn luks_close(&mut self, name: &str) -> Result<Outcome, StepError> {
        if !self.mapping_exists(name)? {
            return Ok(Outcome::AlreadySo);
        }
        let ours = self.plan.steps.iter().find_map(|step| match step {
            Step::LuksOpen {
                device, name: of, ..
            }
            | Step::LuksUse {
                device, name: of, ..
            } if of == name => Some(device),
            _ => None,
        });
        if let Some(device) = ours {
            match self.mapping_lies_on(name, device) {
                Ok(()) => {}
                // Not opened by this plan, so not its to close.
                Err(StepError::Refused(_)) => return Ok(Outcome::AlreadySo),
                Err(error) => return Err(error),
            }
        }
        self.settle()?;
        nix::unistd::sync();
        // cryptsetup waits for a while itself when the device is busy.
        self.sys
            .run(&Cmd::new("cryptsetup").args(["close", name]))?;
        self.settle()?;
        if self.mapping_exists(name)? {
            return Err(StepError::Verify(format!("{name} is still open")));
        }
        Ok(Outcome::Done)
    }

    /// Replaces second fields of crypttab.
    pub(super) fn update_crypttab(
        &mut self,
        replace: &[(String, String)],
        left_out: &[String],
    ) -> Result<Outcome, StepError> {
        let path = self.inside(Path::new("/etc/crypttab"));
        let bytes = self.sys.read(&path).unwrap_or_default();
        let Ok(text) = String::from_utf8(bytes) else {
            return Ok(Outcome::AlreadySo);
        };
        let new = switch_off(&replace_sources(&text, replace), left_out);
        if new == text {
            return Ok(Outcome::AlreadySo);
        }
        self.sys.write(&path, new.as_bytes())?;
        for (old, new) in replace {
            self.events
                .note(&format!("/etc/crypttab: {old} is now {new}"));
        }
        for name in left_out {
            self.events.note(&format!(
                "/etc/crypttab: the line of {name} is switched off"
            ));
        }
        Ok(Outcome::Done)
    }
}

/// Replaces second fields, and leaves everything else of the text as it is.
fn replace_sources(text: &str, replace: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut fields = line.split_whitespace();
        let (first, second) = (fields.next().unwrap_or(""), fields.next());
        let new = second.and_then(|s| replace.iter().find(|(old, _)| old == s));
        match (second, new) {
            (Some(old), Some((_, new))) if !first.starts_with('#') => {
                // The first field cannot hold the second: it is searched behind it.
                let after = line.find(first).map_or(0, |at| at + first.len());
                let (head, tail) = line.split_at(after);
                out.push_str(head);
                out.push_str(&tail.replacen(old, new, 1));
            }
            _ => out.push_str(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::fakes::with_executor;
    use crate::system::{BlockDevice, Recorded};

    /// A machine with an open container called `root_crypt` on a device.
    fn open_on(below: &str) -> Recorded {
        let device = |name: &str, parent: Option<&str>| BlockDevice {
            name: name.to_owned(),
            node: Path::new("/dev").join(name),
            parent: parent.map(str::to_owned),
            ..BlockDevice::default()
        };
        let dm = "/sys/class/block/dm-0";
        let mut sys = Recorded::new()
            .file(format!("{dm}/dm/name"), "root_crypt")
            .file(format!("{dm}/dm/uuid"), "CRYPT-LUKS2-1f2e-root_crypt");
        sys.dirs
            .insert(format!("{dm}/slaves").into(), vec![below.to_owned()]);
        for (name, parent) in [
            ("dm-0", None),
            ("sda", None),
            ("sda3", Some("sda")),
            ("sdb", None),
            ("sdb3", Some("sdb")),
        ] {
            sys = sys.device(device(name, parent));
        }
        sys.link("/dev/disk/by-partuuid/root", "/dev/sda3")
            .command("cryptsetup close root_crypt", "")
    }

    fn with<T>(sys: &Recorded, work: impl FnOnce(&mut Executor<'_>) -> T) -> T {
        let step = Step::LuksOpen {
            node: NodeId::luks("1f2e"),
            device: "/dev/sda3".into(),
            name: "root_crypt".to_owned(),
        };
        with_executor(sys, vec![step], work)
    }

    #[test]
    fn an_open_container_on_another_disk_is_not_taken_for_the_planned_one() {
        let node = NodeId::luks("1f2e");
        for device in ["/dev/sda3", "/dev/disk/by-partuuid/root"] {
            let open =
                |sys: &Recorded| with(sys, |e| e.luks_open(&node, Path::new(device), "root_crypt"));
            assert_eq!(open(&open_on("sda3")).unwrap(), Outcome::AlreadySo);
            let sys = open_on("sdb3");
            let error = open(&sys).unwrap_err();
            assert!(
                matches!(&error, StepError::Refused(text) if text.contains("does not lie on")),
                "{error}"
            );
            assert!(sys.log.lock().unwrap().is_empty(), "something was started");
        }
        // A whole disk is not its partition.
        let error = with(&open_on("sda"), |e| {
            e.luks_open(&node, Path::new("/dev/sda3"), "root_crypt")
        });
        error.unwrap_err();
    }

    #[test]
    fn a_device_of_the_name_that_is_no_container_is_refused() {
        let sys = open_on("sda3").file("/sys/class/block/dm-0/dm/uuid", "LVM-abc");
        let node = NodeId::luks("1f2e");
        let error = with(&sys, |e| {
            e.luks_open(&node, Path::new("/dev/sda3"), "root_crypt")
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("something else (LVM-abc)"), "{error}");
    }

    #[test]
    fn a_container_of_another_disk_stays_open() {
        let sys = open_on("sdb3");
        let outcome = with(&sys, |e| e.luks_close("root_crypt")).unwrap();
        assert_eq!(outcome, Outcome::AlreadySo);
        assert!(sys.log.lock().unwrap().is_empty());
    }

    #[test]
    fn only_the_second_field_of_crypttab_is_replaced() {
        let text = "# root /dev/sda3\n/dev/sda3 /dev/sda3 /dev/sda3 luks\nb\t/dev/sda30 none";
        let replace = [("/dev/sda3".to_owned(), "UUID=1".to_owned())];
        assert_eq!(
            replace_sources(text, &replace),
            "# root /dev/sda3\n/dev/sda3 UUID=1 /dev/sda3 luks\nb\t/dev/sda30 none"
        );
        assert_eq!(replace_sources(text, &[]), text);
        assert_eq!(
            switch_off("a UUID=1 none\nb UUID=2 none\n", &["b".to_owned()]),
            "a UUID=1 none\n# left out by the restore: b UUID=2 none\n"
        );
    }
}
