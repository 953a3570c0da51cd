//! Making btrfs filesystems and subvolumes, and mounting them.

use std::path::{Path, PathBuf};

use sys_mount::{Mount, MountFlags};

use super::{Executor, Outcome, StepError, io_error};
use crate::capture::btrfs::parse_subvolume;
use crate::capture::mount::{Mounted, unescape};
use crate::model::Btrfs;
use crate::plan::{FstabOption, PlannedSubvolume};
use crate::system::{Cmd, SystemError};

/// Features that mkfs.btrfs of the last years switches on by itself: the others are only ever asked for.
const BY_DEFAULT: [&str; 3] = ["extref", "no-holes", "skinny-metadata"];

/// A feature that older versions have under another option: on by default in all, so that it is only ever switched off.
const RUNTIME: &str = "free-space-tree";

/// Arguments of mkfs.btrfs for a saved filesystem.
fn mkfs_args(fs: &Btrfs) -> Vec<String> {
    let mut args = vec!["-f".to_owned(), "-q".to_owned()];
    let mut add = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    add("-U", &fs.uuid);
    if let Some(label) = &fs.label {
        add("-L", label);
    }
    add("-s", &fs.sector_size.0.to_string());
    add("-n", &fs.node_size.0.to_string());
    add("--csum", &fs.checksum);
    for (flag, profile) in [("-d", &fs.data), ("-m", &fs.metadata)] {
        if let Some(profile) = profile {
            add(flag, profile);
        }
    }
    let off = BY_DEFAULT
        .iter()
        .filter(|name| !fs.features.iter().any(|f| f == *name))
        .map(|name| format!("^{name}"));
    let on = fs.features.iter().filter(|f| *f != RUNTIME).cloned();
    let features: Vec<String> = on.chain(off).collect();
    if !features.is_empty() {
        add("-O", &features.join(","));
    }
    if !fs.features.iter().any(|f| f == RUNTIME) {
        add("-R", &format!("^{RUNTIME}"));
    }
    args
}

/// Replaces an option in the line of fstab for `file`, and leaves everything else of the text as it is.
fn replace_option(text: &str, change: &FstabOption) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut fields = line.split_whitespace();
        let (spec, file, options) = (fields.next(), fields.next(), fields.nth(1));
        let here = spec.is_some_and(|s| !s.starts_with('#'))
            && file.is_some_and(|f| unescape(f) == change.file);
        match options.filter(|_| here) {
            Some(options) => {
                let new: Vec<&str> = options
                    .split(',')
                    .map(|o| {
                        if o == change.old {
                            change.new.as_str()
                        } else {
                            o
                        }
                    })
                    .collect();
                // The options are a part of this very line.
                let at = options.as_ptr() as usize - line.as_ptr() as usize;
                out.push_str(&line[..at]);
                out.push_str(&new.join(","));
                out.push_str(&line[at + options.len()..]);
            }
            None => out.push_str(line),
        }
    }
    out
}

impl Executor<'_> {
    pub(super) fn make_btrfs(
        &mut self,
        devices: &[PathBuf],
        fs: &Btrfs,
    ) -> Result<Outcome, StepError> {
        // The kernel remembers devices of filesystems that are gone; it fails when there is nothing to forget.
        let forget = Cmd::new("btrfs").args(["device", "scan", "--forget"]);
        self.sys.run(&forget.accept(1))?;
        let mut command = Cmd::new("mkfs.btrfs").args(mkfs_args(fs));
        for device in devices {
            command = command.path(device);
        }
        match self.sys.run(&command) {
            Err(SystemError::Failed { stderr, .. }) if stderr.contains("non-unique UUID") => {
                return Err(StepError::Refused(format!(
                    "another disk of this machine holds a btrfs with the same UUID {}, and the kernel would mix the two up: \
                     take that disk out and start the restore again",
                    fs.uuid
                )));
            }
            other => other?,
        };
        for device in devices {
            self.verify(device, "btrfs", &fs.uuid)?;
        }
        Ok(Outcome::Done)
    }

    /// Makes subvolumes with the top of the filesystem mounted at the restore root.
    pub(super) fn make_subvolumes(
        &mut self,
        devices: &[PathBuf],
        subvolumes: &[PlannedSubvolume],
        default: &str,
    ) -> Result<Outcome, StepError> {
        let top = Path::new("/");
        self.mount_subvolume(devices, "", &[], top, false)?;
        let made = self.in_top(subvolumes, default);
        self.unmount_one(self.root)?;
        made
    }

    fn in_top(&self, subvolumes: &[PlannedSubvolume], default: &str) -> Result<Outcome, StepError> {
        let run = |args: &[&str], at: &Path, more: &[&str]| {
            let command = Cmd::new("btrfs").args(args.iter().copied()).path(at);
            self.sys.run(&command.args(more.iter().copied()))
        };
        let list = || -> Result<Vec<String>, StepError> {
            let text = run(&["subvolume", "list"], self.root, &[])?.text();
            let paths = text.lines().filter_map(parse_subvolume);
            Ok(paths.map(|(_, _, path)| path.to_owned()).collect())
        };
        let there = list()?;
        for subvolume in subvolumes {
            let at = self.root.join(&subvolume.path);
            if !there.contains(&subvolume.path) {
                if let Some(parent) = at.parent() {
                    std::fs::create_dir_all(parent)
                        .map_err(io_error("cannot make the directory", parent))?;
                }
                run(&["subvolume", "create"], &at, &[])?;
            }
        }
        // A subvolume in a read-only one could not be made.
        for subvolume in subvolumes.iter().filter(|s| s.read_only) {
            let at = self.root.join(&subvolume.path);
            run(&["property", "set", "-t", "subvol"], &at, &["ro", "true"])?;
        }
        if !default.is_empty() {
            run(&["subvolume", "set-default"], &self.root.join(default), &[])?;
        }
        let there = list()?;
        match subvolumes.iter().find(|s| !there.contains(&s.path)) {
            Some(missing) => Err(StepError::Verify(format!(
                "subvolume {} was made and is not there",
                missing.path
            ))),
            None => Ok(Outcome::Done),
        }
    }

    pub(super) fn mount_subvolume(
        &mut self,
        devices: &[PathBuf],
        subvolume: &str,
        options: &[String],
        at: &Path,
        read_only: bool,
    ) -> Result<Outcome, StepError> {
        let mut real = Vec::new();
        for device in devices {
            real.push(self.sys.canonicalize(device)?);
        }
        let Some(first) = real.first() else {
            return Err(StepError::Refused("a btrfs without devices".to_owned()));
        };
        let named = format!("subvol=/{subvolume}");
        let is_it = |m: &&Mounted| {
            let source = self.sys.canonicalize(Path::new(&m.source));
            m.mount_point == at
                && m.options.contains(&named)
                && source.is_ok_and(|source| real.contains(&source))
        };
        if self.below()?.iter().any(|m| is_it(&m)) {
            return Ok(Outcome::AlreadySo);
        }
        let target = self.inside(at);
        if !read_only || !target.exists() {
            std::fs::create_dir_all(&target)
                .map_err(io_error("cannot make the directory", &target))?;
        }
        // The top is named by number: a name would be looked for from the default subvolume by older kernels.
        let mut data = vec![if subvolume.is_empty() {
            "subvolid=5".to_owned()
        } else {
            named.clone()
        }];
        // All devices are named: nothing else need have told the kernel of them.
        data.extend(real.iter().map(|d| format!("device={}", d.display())));
        data.extend(options.iter().cloned());
        let mut flags = MountFlags::empty();
        if read_only {
            flags |= MountFlags::RDONLY;
        }
        Mount::builder()
            .fstype("btrfs")
            .flags(flags)
            .data(&data.join(","))
            .mount(first, &target)
            .map_err(io_error("cannot mount", first))?;
        if self.below()?.iter().any(|m| is_it(&m)) {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Verify(format!(
                "subvolume {subvolume} of {} is not mounted at {}",
                first.display(),
                target.display()
            )))
        }
    }

    pub(super) fn seal_subvolumes(&mut self, places: &[PathBuf]) -> Result<Outcome, StepError> {
        for place in places {
            let at = self.inside(place);
            let property = |verb: &str| {
                Cmd::new("btrfs")
                    .args(["property", verb, "-t", "subvol"])
                    .path(&at)
                    .arg("ro")
            };
            self.sys.run(&property("set").arg("true"))?;
            let now = self.sys.run(&property("get"))?.text();
            if now.trim() != "ro=true" {
                return Err(StepError::Verify(format!(
                    "subvolume at {} did not become read-only",
                    place.display()
                )));
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) fn name_subvolumes(
        &mut self,
        replace: &[FstabOption],
    ) -> Result<Outcome, StepError> {
        let path = self.inside(Path::new("/etc/fstab"));
        let Some(text) = self
            .sys
            .read(&path)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
        else {
            return Ok(Outcome::AlreadySo);
        };
        let mut new = text.clone();
        for change in replace {
            new = replace_option(&new, change);
        }
        if new == text {
            return Ok(Outcome::AlreadySo);
        }
        self.sys.write(&path, new.as_bytes())?;
        for change in replace {
            self.events.note(&format!(
                "/etc/fstab: {} of {} is now {}",
                change.old, change.file, change.new
            ));
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;
    use crate::units::Bytes;

    #[test]
    fn features_are_switched_on_and_off_as_saved() {
        let fs = Btrfs {
            on: vec![NodeId::new("a"), NodeId::new("b")],
            sizes: vec![Bytes::GIB, Bytes::GIB],
            uuid: "f3af626e-2c77-4fdc-bc73-7c248d348957".to_owned(),
            label: Some("data".to_owned()),
            sector_size: Bytes(4096),
            node_size: Bytes(16384),
            checksum: "xxhash".to_owned(),
            features: vec!["block-group-tree".to_owned(), "extref".to_owned()],
            data: Some("single".to_owned()),
            metadata: Some("raid1".to_owned()),
            subvolumes: Default::default(),
            default_subvolume: String::new(),
            size: Bytes(2 << 30),
            used: None,
        };
        assert_eq!(
            mkfs_args(&fs).join(" "),
            "-f -q -U f3af626e-2c77-4fdc-bc73-7c248d348957 -L data -s 4096 -n 16384 --csum xxhash -d single -m raid1 \
             -O block-group-tree,extref,^no-holes,^skinny-metadata -R ^free-space-tree"
        );
    }

    #[test]
    fn only_the_option_of_that_line_is_replaced() {
        let text = "# UUID=1 /home btrfs subvolid=257 0 0\nUUID=1 / btrfs subvolid=256 0 0\n\
                    UUID=1\t/home  btrfs\tnoatime,subvolid=257,ssd 0 0 # subvolid=257\nUUID=1 /short\n";
        let change = FstabOption {
            file: "/home".to_owned(),
            old: "subvolid=257".to_owned(),
            new: "subvol=/@home".to_owned(),
        };
        assert_eq!(
            replace_option(text, &change),
            text.replacen("noatime,subvolid=257", "noatime,subvol=/@home", 1)
        );
    }
}
