//! Files that name devices by what they may not be called any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::crypttab::places;
use super::mdadm::mdadm_conf;
use super::{Executor, Outcome, StepError};
use crate::capture::mounts::is_fragile_name;
use crate::model::{Layout, Node, NodeId, Partition};
use crate::plan::Step;

/// Where initramfs-tools keeps the device that it looks for a suspended system on (initramfs.conf(5), `RESUME`).
const RESUME: &str = "/etc/initramfs-tools/conf.d/resume";
/// Files besides fstab in which settings of the form `name=/dev/...` tell the next start where to look.
const SETTINGS: [&str; 3] = ["/etc/default/grub", "/etc/kernel/cmdline", RESUME];
/// Directories of such files.
const SETTINGS_IN: [&str; 2] = ["/etc/default/grub.d", "/etc/initramfs-tools/conf.d"];
/// Arrays, and where their members are looked for (mdadm.conf(5)).
const MDADM_CONF: &str = "/etc/mdadm/mdadm.conf";
/// Encrypted devices that are opened at the start (crypttab(5)).
const CRYPTTAB: &str = "/etc/crypttab";
/// What GRUB calls the BIOS's disks; without it GRUB finds out.
const DEVICE_MAP: &str = "/boot/grub/device.map";
/// The devices that LVM may use, by names with serial numbers (lvmdevices(8)); without it LVM looks at all.
const LVM_DEVICES: &str = "/etc/lvm/devices/system.devices";
/// Files besides those above in which a stale name does harm.
const ALSO_CHECKED: [&str; 5] = [
    "/etc/fstab",
    CRYPTTAB,
    MDADM_CONF,
    "/etc/smartd.conf",
    "/etc/hdparm.conf",
];

/// Replaces first fields, and leaves everything else of the text as it is.
pub(super) fn replace_specs(text: &str, replace: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        let (spaces, rest) = line.split_at(indent);
        let spec = rest.split_whitespace().next().unwrap_or("");
        match replace
            .iter()
            .find(|(old, _)| old == spec && !spec.starts_with('#'))
        {
            Some((old, new)) => {
                out.push_str(spaces);
                out.push_str(new);
                out.push_str(&rest[old.len()..]);
            }
            None => out.push_str(line),
        }
    }
    out
}

/// The names to replace, and those first fields that are made of serial numbers of saved disks.
fn specs_with_ids(
    text: &str,
    replace: &[(String, String)],
    saved: &Layout,
) -> Vec<(String, String)> {
    let mut all = replace.to_vec();
    for spec in text.lines().filter_map(|l| l.split_whitespace().next()) {
        let known = all.iter().any(|(old, _)| old == spec);
        if let Some(new) = by_id_content(saved, spec).filter(|_| !known) {
            all.push((spec.to_owned(), new));
        }
    }
    all
}

/// The lines of fstab with other names, and the names that were to be replaced. What is left out is so by the name that the
/// saved host had for it.
fn lines(
    text: &str,
    replace: &[(String, String)],
    left_out: &[String],
    saved: &Layout,
) -> (String, Vec<(String, String)>) {
    let text = switch_off(text, left_out);
    let replace = specs_with_ids(&text, replace, saved);
    (replace_specs(&text, &replace), replace)
}

/// Makes comments of the lines with these first fields.
pub(in crate::apply) fn switch_off(text: &str, specs: &[String]) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let spec = line.split_whitespace().next().unwrap_or("");
        if specs.iter().any(|s| s == spec) && !spec.starts_with('#') {
            out.push_str("# left out by the restore: ");
        }
        out.push_str(line);
    }
    out
}

/// Replaces devices that are values (`root=/dev/sda2`), and leaves everything else of the text as it is.
pub(super) fn replace_values(text: &str, new_name: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        let (before, value) = rest.split_at(at + 1);
        out.push_str(before);
        rest = value;
        let end = value
            .find(|c: char| c.is_whitespace() || c == '"' || c == '\'')
            .unwrap_or(value.len());
        let (word, behind) = value.split_at(end);
        if let Some(new) = new_name(word) {
            out.push_str(&new);
            rest = behind;
        }
    }
    out.push_str(rest);
    out
}

/// The partition that `/dev/disk/by-id/ata-<model>_<serial>-part3` led to.
pub(super) fn by_id<'a>(saved: &'a Layout, name: &str) -> Option<(&'a NodeId, &'a Partition)> {
    let (disk, number) = name
        .strip_prefix("/dev/disk/by-id/")?
        .rsplit_once("-part")?;
    let number: u32 = number.parse().ok()?;
    let (id, _) = saved.disks().find(|(_, d)| {
        let serial = d.serial.as_deref().filter(|s| s.len() > 3);
        let wwn = d.wwn.as_deref();
        // udev puts the number of the namespace behind the serial number of an NVMe.
        let ends = |s: &str| [format!("_{s}"), format!("-{s}"), format!("_{s}_1")];
        serial.is_some_and(|s| ends(s).iter().any(|end| disk.ends_with(end)))
            || wwn.is_some_and(|w| disk == format!("wwn-{w}") || disk == format!("nvme-{w}"))
    })?;
    let mut parts = saved.partitions(id).into_iter();
    parts.find(|(_, p)| p.number == number)
}

/// The same as `UUID=...` of what is on it.
fn by_id_content(saved: &Layout, name: &str) -> Option<String> {
    let (part, _) = by_id(saved, name)?;
    let uuid = saved.children(part).find_map(|(_, node)| match node {
        Node::Swap(swap) => Some(swap.uuid.as_str()),
        node => node.filesystem().map(|fs| fs.uuid),
    })?;
    Some(format!("UUID={uuid}"))
}

/// Names in a text that another machine may give to another device; not those in comments.
fn stale_names(text: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|l| !l.trim_start().starts_with('#')) {
        let mut rest = line;
        while let Some(at) = rest.find("/dev/") {
            let name = &rest[at..];
            let allowed = |c: char| c.is_ascii_alphanumeric() || "/_.:+-".contains(c);
            let end = name.find(|c| !allowed(c)).unwrap_or(name.len());
            let (name, behind) = name.split_at(end);
            if is_fragile_name(name) {
                found.insert(name.to_owned());
            }
            rest = behind;
        }
    }
    found.into_iter().collect()
}

impl Executor<'_> {
    /// A file of the restored host that is text.
    fn host_text(&self, name: &Path) -> Option<String> {
        let bytes = self.sys.read(&self.inside(name)).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// The files with settings, those of loaders' entries among them.
    fn settings(&self) -> BTreeSet<PathBuf> {
        let mut dirs: Vec<PathBuf> = SETTINGS_IN.iter().map(PathBuf::from).collect();
        let mounted = self.saved.mounts.iter().filter(|m| m.mounted);
        dirs.extend(mounted.map(|m| m.mount_point.join("loader/entries")));
        let mut files: BTreeSet<PathBuf> = SETTINGS.iter().map(PathBuf::from).collect();
        for dir in dirs {
            let names = self.sys.list_dir(&self.inside(&dir)).unwrap_or_default();
            files.extend(names.iter().map(|name| dir.join(name)));
        }
        files
    }

    fn new_name(&self, replace: &[(String, String)], word: &str) -> Option<String> {
        let known = replace.iter().find(|(old, _)| old == word);
        known
            .map(|(_, new)| new.clone())
            .or_else(|| by_id_content(self.saved, word))
    }

    /// A command line of the saved host with names that hold on this machine.
    pub(super) fn lasting_names(&self, line: &str) -> String {
        let replace = self.plan.steps.iter().find_map(|step| match step {
            Step::UpdateFstab { replace, .. } => Some(replace.as_slice()),
            _ => None,
        });
        replace_values(line, &|word| {
            self.new_name(replace.unwrap_or_default(), word)
        })
    }

    /// Settings that name a device by what it is not called any more. Says whether the initramfs has a copy of one.
    fn update_settings(&self, replace: &[(String, String)]) -> Result<bool, StepError> {
        let mut copied = false;
        let new_name = |word: &str| self.new_name(replace, word);
        for name in self.settings() {
            let Some(text) = self.host_text(&name) else {
                continue;
            };
            let new = replace_values(&text, &new_name);
            if new == text {
                continue;
            }
            self.sys.write(&self.inside(&name), new.as_bytes())?;
            self.events.note(&format!(
                "{}: kernel names of devices are replaced by their UUIDs",
                name.display()
            ));
            copied |= name.starts_with("/etc/initramfs-tools");
        }
        if let Some(text) = self.host_text(Path::new(MDADM_CONF)) {
            let new = mdadm_conf(&text, self.saved);
            if new != text {
                self.sys
                    .write(&self.inside(Path::new(MDADM_CONF)), new.as_bytes())?;
                self.events.note(&format!(
                    "{MDADM_CONF}: arrays are found by their UUIDs on all partitions"
                ));
                copied = true;
            }
        }
        copied |= self.update_containers()?;
        self.set_aside(DEVICE_MAP)?;
        copied |= self.set_aside(LVM_DEVICES)?;
        Ok(copied)
    }

    /// Containers without a header, which are found by the names of their devices only.
    fn update_containers(&self) -> Result<bool, StepError> {
        let Some(text) = self.host_text(Path::new(CRYPTTAB)) else {
            return Ok(false);
        };
        let done = self.plan.steps.iter().find_map(|step| match step {
            Step::UpdateCrypttab { replace, .. } => Some(replace.as_slice()),
            _ => None,
        });
        let (new, notes) = places(&text, self.saved, done.unwrap_or_default());
        if new == text {
            return Ok(false);
        }
        self.sys
            .write(&self.inside(Path::new(CRYPTTAB)), new.as_bytes())?;
        for note in notes {
            self.events.note(&format!("{CRYPTTAB}: {note}"));
        }
        Ok(true)
    }

    /// Renames a file that lists devices of the saved machine, and without which they are looked for.
    fn set_aside(&self, name: &str) -> Result<bool, StepError> {
        let path = self.inside(Path::new(name));
        if !self.sys.exists(&path) {
            return Ok(false);
        }
        let aside = self.inside(Path::new(&format!("{name}.before-restore")));
        std::fs::rename(&path, &aside).map_err(super::io_error("cannot rename", &path))?;
        self.events.note(&format!(
            "{name} lists disks of the saved machine: it is now {name}.before-restore"
        ));
        Ok(true)
    }

    /// The initramfs would wait for a swap area that is left out.
    fn no_resume(&self) -> Result<(), StepError> {
        let path = self.inside(Path::new(RESUME));
        if self.sys.exists(&path) {
            self.sys.write(&path, b"RESUME=none\n")?;
            self.events.note(&format!("{RESUME}: RESUME is now none"));
        }
        Ok(())
    }

    pub(in crate::apply) fn update_fstab(
        &mut self,
        replace: &[(String, String)],
        left_out: &[String],
        add: &[String],
    ) -> Result<Outcome, StepError> {
        if !left_out.is_empty() {
            self.no_resume()?;
        }
        // The first step after the files, and before all that copies them.
        let events = self.events;
        let note = |text: &str| events.note(text);
        let mut copied = self.content.files_complete(self.root, &note)?;
        copied |= self.update_settings(replace)?;
        let outcome = self.update_lines(replace, left_out, add)?;
        let later = |s: &Step| matches!(s, Step::UpdateInitramfs { .. });
        if copied && !self.saved.boot.kernels.is_empty() && !self.plan.steps.iter().any(later) {
            return self.update_initramfs();
        }
        Ok(outcome)
    }

    fn update_lines(
        &self,
        replace: &[(String, String)],
        left_out: &[String],
        add: &[String],
    ) -> Result<Outcome, StepError> {
        let Some(text) = self.host_text(Path::new("/etc/fstab")) else {
            self.events
                .note("the restored host has no readable /etc/fstab: nothing to check");
            return Ok(Outcome::AlreadySo);
        };
        let (mut new, replace) = lines(&text, replace, left_out, self.saved);
        for line in add.iter().filter(|add| !text.lines().any(|l| l == *add)) {
            if !new.is_empty() && !new.ends_with('\n') {
                new.push('\n');
            }
            new.push_str(line);
            new.push('\n');
            self.events.note(&format!("/etc/fstab: added {line}"));
        }
        if new == text {
            return Ok(Outcome::AlreadySo);
        }
        let path = self.inside(Path::new("/etc/fstab"));
        self.sys.write(&path, new.as_bytes())?;
        let named = |spec: &String| text.split_whitespace().any(|word| word == spec);
        for (old, new) in replace.iter().filter(|(old, _)| named(old)) {
            self.events.note(&format!("/etc/fstab: {old} is now {new}"));
        }
        for spec in left_out {
            self.events
                .note(&format!("/etc/fstab: the line of {spec} is switched off"));
        }
        Ok(Outcome::Done)
    }

    /// Tells what is left, for a person to decide about.
    pub(in crate::apply) fn check_names(&self) {
        let mut files = self.settings();
        files.extend(ALSO_CHECKED.iter().map(PathBuf::from));
        for name in files {
            let text = self.host_text(&name).unwrap_or_default();
            let stale = stale_names(&text);
            if !stale.is_empty() {
                self.events.note(&format!(
                    "{} still names {}: on this machine that may be another device; see to it after the restart",
                    name.display(),
                    stale.join(", ")
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::fakes::saved_arrays as saved;
    use crate::model::{NodeId, Swap};
    use crate::units::Bytes;

    #[test]
    fn only_the_first_field_of_fstab_is_replaced() {
        let text = "# /dev/sda1 was here\n/dev/sda1\t/ ext4 defaults 0 1\n  /dev/sda10 /x ext4 dev=/dev/sda1 0 0\nproc /proc proc";
        let replace = [("/dev/sda1".to_owned(), "UUID=1".to_owned())];
        assert_eq!(
            replace_specs(text, &replace),
            "# /dev/sda1 was here\nUUID=1\t/ ext4 defaults 0 1\n  /dev/sda10 /x ext4 dev=/dev/sda1 0 0\nproc /proc proc"
        );
        assert_eq!(replace_specs(text, &[]), text);
    }

    #[test]
    fn devices_that_are_values_are_replaced() {
        let text = "GRUB_CMDLINE_LINUX=\"root=/dev/sda2 resume=/dev/sda3\"\n# /dev/sda3\nX=/dev/sda30\nRESUME=/dev/sda3";
        let replace = |word: &str| match word {
            "/dev/sda2" => Some("UUID=2".to_owned()),
            "/dev/sda3" => Some("UUID=3".to_owned()),
            _ => None,
        };
        assert_eq!(
            replace_values(text, &replace),
            "GRUB_CMDLINE_LINUX=\"root=UUID=2 resume=UUID=3\"\n# /dev/sda3\nX=/dev/sda30\nRESUME=UUID=3"
        );
        assert_eq!(replace_values(text, &|_| None), text);
    }

    #[test]
    fn lines_are_switched_off_once() {
        let text =
            "UUID=1 / ext4\n/dev/vg/swap none swap\n# /dev/vg/swap\n/dev/vg/swap2 none swap\n";
        let off = ["/dev/vg/swap".to_owned()];
        let once = switch_off(text, &off);
        assert_eq!(
            once,
            "UUID=1 / ext4\n# left out by the restore: /dev/vg/swap none swap\n# /dev/vg/swap\n/dev/vg/swap2 none swap\n"
        );
        assert_eq!(switch_off(&once, &off), once);
    }

    #[test]
    fn what_is_left_out_is_switched_off_whatever_its_line_is_called() {
        let mut layout = saved();
        let found = layout.nodes.values().find_map(|node| match node {
            Node::Partition(part) => Some((part.on.clone(), part.number, part.partuuid.clone())),
            _ => None,
        });
        let (disk, number, partuuid) = found.unwrap();
        if let Some(Node::Disk(disk)) = layout.nodes.get_mut(&disk) {
            disk.serial = Some("S3R1AL".to_owned());
        }
        let swap = Swap {
            on: NodeId::partition(&partuuid),
            uuid: "feed".to_owned(),
            label: None,
            page_size: Bytes(4096),
            size: Bytes(4096),
            active: false,
            fstab: None,
        };
        layout.nodes.insert(NodeId::swap("feed"), Node::Swap(swap));
        let spec = format!("/dev/disk/by-id/ata-Disk_S3R1AL-part{number}");
        let text = format!("UUID=1 / ext4\n{spec} /data ext4\n");
        let (new, _) = lines(&text, &[], std::slice::from_ref(&spec), &layout);
        assert_eq!(
            new,
            format!("UUID=1 / ext4\n# left out by the restore: {spec} /data ext4\n")
        );
        let (new, _) = lines(&text, &[], &[], &layout);
        assert_eq!(new, "UUID=1 / ext4\nUUID=feed /data ext4\n");
    }

    #[test]
    fn a_name_with_the_serial_number_leads_to_what_was_on_the_partition() {
        let mut layout = saved();
        let found = layout.nodes.iter().find_map(|(id, node)| match node {
            Node::Partition(part) => Some((id.clone(), part.on.clone(), part.number)),
            _ => None,
        });
        let (on, disk, part) = found.unwrap();
        let swap = Swap {
            on,
            uuid: "feed".to_owned(),
            label: None,
            page_size: Bytes(4096),
            size: Bytes(4096),
            active: false,
            fstab: None,
        };
        layout.nodes.insert(NodeId::swap("feed"), Node::Swap(swap));
        if let Some(Node::Disk(disk)) = layout.nodes.get_mut(&disk) {
            disk.serial = Some("S3R1AL".to_owned());
            disk.wwn = Some("0x5002538d".to_owned());
        }
        let name = |text: &str| by_id_content(&layout, text);
        let expected = Some("UUID=feed".to_owned());
        assert_eq!(
            name(&format!("/dev/disk/by-id/ata-Disk_S3R1AL-part{part}")),
            expected
        );
        assert_eq!(
            name(&format!("/dev/disk/by-id/wwn-0x5002538d-part{part}")),
            expected
        );
        assert_eq!(name(&format!("/dev/disk/by-id/ata-Other-part{part}")), None);
        assert_eq!(name("/dev/disk/by-id/ata-Disk_S3R1AL"), None);
        assert_eq!(name("/dev/disk/by-id/ata-Disk_S3R1AL-part99"), None);
        // A line of fstab for what is mounted by another line goes by the serial number as well.
        let text = format!("UUID=1 / ext4\n/dev/disk/by-id/ata-Disk_S3R1AL-part{part} /x ext4\n");
        let replace = specs_with_ids(&text, &[], &layout);
        assert_eq!(
            replace_specs(&text, &replace),
            "UUID=1 / ext4\nUUID=feed /x ext4\n"
        );
    }

    #[test]
    fn names_that_may_lead_elsewhere_are_found_and_comments_are_not() {
        let text = "# /dev/sda1\nroot=/dev/sdb2,x \"/dev/disk/by-id/ata-1-part2\" UUID=1 /dev/pve/root\n/dev/nvme0n1p3 /x\n\
            /dev/mapper/x /dev/null /dev/sdb2";
        assert_eq!(
            stale_names(text),
            ["/dev/disk/by-id/ata-1-part2", "/dev/nvme0n1p3", "/dev/sdb2"]
        );
    }

    /// Content that remembers where its files are complete.
    #[derive(Default)]
    struct Complete(Vec<PathBuf>);

    impl crate::apply::Content for Complete {
        fn restore_tree(&mut self, _: &Path, _: &Path) -> Result<(), crate::apply::ContentError> {
            Ok(())
        }
        fn restore_image(
            &mut self,
            _: &NodeId,
            _: &Path,
        ) -> Result<(), crate::apply::ContentError> {
            Ok(())
        }
        fn files_complete(
            &mut self,
            root: &Path,
            _: &dyn Fn(&str),
        ) -> Result<bool, crate::apply::ContentError> {
            self.0.push(root.to_owned());
            match self.0.len() {
                1 => Ok(true),
                _ => Err(crate::apply::ContentError::new("not alone")),
            }
        }
    }

    #[test]
    fn content_has_a_say_when_its_files_are_complete() {
        let sys = crate::system::Recorded::new();
        let mut layout = Layout::new(crate::model::Firmware::Bios);
        let plan = crate::apply::fakes::plan_of(Vec::new());
        let mut content = Complete::default();
        let mut update = |saved: &Layout| {
            let mut executor = Executor {
                sys: &sys,
                plan: &plan,
                saved,
                root: Path::new("/nowhere"),
                content: &mut content,
                events: &crate::apply::Silent,
                held: Vec::new(),
            };
            executor.update_fstab(&[], &[], &[])
        };
        // Without a kernel there is no initramfs to be made again.
        assert!(update(&layout).is_ok());
        layout.boot.kernels.push("6.1.0-1-amd64".to_owned());
        let error = update(&layout).unwrap_err();
        assert!(error.to_string().contains("not alone"), "{error}");
        assert_eq!(content.0, [Path::new("/nowhere"), Path::new("/nowhere")]);
    }
}
