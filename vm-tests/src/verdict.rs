//! Judges a restored host from outside, by evidence that Lifeboat had no hand in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::artefacts::Artefacts;
use crate::channel::Channel;
use crate::disk;
use crate::golden::Host;
use crate::qemu::Running;

/// The fields of a manifest's line after the path, in the order in which `golden/manifest.pl` prints them.
const FIELDS: [&str; 13] = [
    "type",
    "mode",
    "owner",
    "group",
    "mtime",
    "size",
    "sha256",
    "link target",
    "device",
    "hard links",
    "holes",
    "flags",
    "xattrs",
];

/// What differs between two manifests: one line for each difference, none when they are equal.
pub fn manifest_differences(before: &str, after: &str) -> Vec<String> {
    fn by_path(text: &str) -> BTreeMap<&str, Vec<&str>> {
        text.lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(path, rest)| (path, rest.split('\t').collect()))
            .collect()
    }
    let (before, after) = (by_path(before), by_path(after));
    let mut differences = Vec::new();
    for (path, old) in &before {
        let Some(new) = after.get(path) else {
            differences.push(format!("{path}: missing"));
            continue;
        };
        if old.len() != FIELDS.len() || new.len() != FIELDS.len() {
            differences.push(format!("{path}: not a line of a manifest"));
            continue;
        }
        for ((field, old), new) in FIELDS.iter().zip(old).zip(new) {
            if old != new {
                differences.push(format!("{path}: {field} was {old}, is {new}"));
            }
        }
    }
    differences.extend(
        after
            .keys()
            .filter(|p| !before.contains_key(*p))
            .map(|path| format!("{path}: new")),
    );
    differences
}

/// What a golden host says about itself, taken before the backup and again after the restore.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostFacts {
    /// The manifest of its files.
    pub manifest: String,
    /// Filesystems, volumes, mounts, swap: lines without device names of the machine.
    pub storage: String,
    /// `systemctl is-system-running`.
    pub state: String,
    /// Failed units, one per line.
    pub failed_units: String,
}

impl HostFacts {
    /// Asks a golden host that answers on its root channel.
    pub fn take(host: Host, channel: &mut Channel) -> Result<Self> {
        let mut text = |script: &str, seconds: u64| -> Result<String> {
            let output = channel.run(script, Duration::from_secs(seconds))?;
            String::from_utf8(output).context("the golden host sent no UTF-8")
        };
        // `--wait` until start-up is over; a degraded system is no failure of the question.
        let state = text("systemctl is-system-running --wait || true", 240)?
            .trim()
            .to_owned();
        let failed_units = text(
            "systemctl list-units --failed --plain --no-legend | awk '{print $1}'",
            60,
        )?;
        let storage = text(host.storage_script(), 120)?;
        let others = host.filesystems().join(" ");
        let manifest = text(&format!("golden-manifest / {others}"), 600)?;
        ensure!(
            manifest.lines().count() > 3000,
            "the manifest has only {} lines",
            manifest.lines().count()
        );
        Ok(Self {
            manifest,
            storage,
            state,
            failed_units,
        })
    }

    /// Compares with a host restored from a backup of this one. Writes both to the artefacts.
    pub fn ensure_equal(&self, restored: &Self, log: &Artefacts) -> Result<()> {
        std::fs::write(log.path("manifest.before"), &self.manifest)?;
        std::fs::write(log.path("manifest.after"), &restored.manifest)?;
        std::fs::write(log.path("storage.before"), &self.storage)?;
        std::fs::write(log.path("storage.after"), &restored.storage)?;
        let mut problems = manifest_differences(&self.manifest, &restored.manifest);
        let more = problems.len().saturating_sub(20);
        problems.truncate(20);
        if more > 0 {
            problems.push(format!(
                "and {more} more differences of files (manifest.before, manifest.after)"
            ));
        }
        if self.storage != restored.storage {
            let old: Vec<_> = self.storage.lines().collect();
            let new: Vec<_> = restored.storage.lines().collect();
            problems.extend(
                old.iter()
                    .filter(|l| !new.contains(l))
                    .map(|l| format!("storage: \"{l}\" is gone")),
            );
            problems.extend(
                new.iter()
                    .filter(|l| !old.contains(l))
                    .map(|l| format!("storage: \"{l}\" is new")),
            );
        }
        let new_failures: Vec<_> = restored
            .failed_units
            .lines()
            .filter(|u| !self.failed_units.lines().any(|old| old == *u))
            .collect();
        if !new_failures.is_empty() {
            problems.push(format!(
                "failed units that were not before: {}",
                new_failures.join(", ")
            ));
        }
        if self.state == "running" && restored.state != "running" {
            problems.push(format!("the system is {}, it was running", restored.state));
        }
        if problems.is_empty() {
            return Ok(());
        }
        bail!("the restored host differs:\n{}", problems.join("\n"))
    }
}

/// The type GUID of LVM (E6D6D379-F507-44C2-A23C-238F2A3DF928) as it lies on a disk.
const LVM: &str = "79d3d6e607f5c244a23c238f2a3df928";

/// Compares the partition tables of two raw images: disk GUID, and for each partition number, type, GUID, name, flags and
/// size. The partition that holds the volume group may have grown with the disk, and so may the last one on a disk that is bigger.
pub fn ensure_same_partitions(saved: &Path, restored: &Path) -> Result<()> {
    let (old, new) = (disk::gpt(saved)?, disk::gpt(restored)?);
    ensure!(
        old.id == new.id,
        "the disk's GUID was {}, is {}",
        old.id,
        new.id
    );
    let numbers = |gpt: &disk::Gpt| gpt.partitions.iter().map(|p| p.number).collect::<Vec<_>>();
    ensure!(
        numbers(&old) == numbers(&new),
        "the partitions were {:?}, are {:?}",
        numbers(&old),
        numbers(&new)
    );
    let bytes = |image: &Path| std::fs::metadata(image).map(|m| m.len());
    let bigger = bytes(restored)? > bytes(saved)?;
    let last = old.partitions.iter().max_by_key(|p| p.start);
    let last = last.filter(|_| bigger).map(|p| p.number);
    for (a, b) in old.partitions.iter().zip(&new.partitions) {
        let number = a.number;
        let grows = a.kind == LVM || last == Some(number);
        ensure!(
            a.kind == b.kind,
            "partition {number}: type was {}, is {}",
            a.kind,
            b.kind
        );
        ensure!(
            a.uuid == b.uuid,
            "partition {number}: PARTUUID was {}, is {}",
            a.uuid,
            b.uuid
        );
        ensure!(
            a.name == b.name,
            "partition {number}: name was \"{}\", is \"{}\"",
            a.name,
            b.name
        );
        ensure!(
            a.flags == b.flags,
            "partition {number}: flags were {:x}, are {:x}",
            a.flags,
            b.flags
        );
        ensure!(
            a.size == b.size || (grows && b.size > a.size),
            "partition {number} had {} sectors, has {}",
            a.size,
            b.size
        );
    }
    Ok(())
}

/// The bytes of partition `number` have to be equal on both raw images.
pub fn ensure_same_bytes(saved: &Path, restored: &Path, number: u32) -> Result<()> {
    let hash = |image: &Path| -> Result<String> {
        match disk::gpt(image)?
            .partitions
            .iter()
            .find(|p| p.number == number)
        {
            Some(p) => disk::range_hash(image, p.start * 512, p.size * 512),
            None => bail!("{} has no partition {number}", image.display()),
        }
    };
    ensure!(
        hash(saved)? == hash(restored)?,
        "the content of partition {number} differs"
    );
    Ok(())
}

/// A disk that nothing may have written to: watched by its content and by QEMU's counters.
#[derive(Debug)]
pub struct Untouched {
    image: PathBuf,
    serial: String,
    hash: String,
}

impl Untouched {
    /// Remembers the content, before the machine starts.
    pub fn watch(image: impl Into<PathBuf>, serial: impl Into<String>) -> Result<Self> {
        let image = image.into();
        Ok(Self {
            hash: disk::content_hash(&image)?,
            image,
            serial: serial.into(),
        })
    }

    /// Asks QEMU, while the machine is still there (it may be powered off).
    pub fn ensure_no_writes(&self, machine: &mut Running) -> Result<()> {
        let counters = machine.counters(&self.serial)?;
        ensure!(
            counters.writes == 0 && counters.discards == 0,
            "disk {} was written to: {counters:?}",
            self.serial
        );
        Ok(())
    }

    /// Reads the image again, after the machine ended.
    pub fn ensure_same_content(&self) -> Result<()> {
        ensure!(
            disk::content_hash(&self.image)? == self.hash,
            "the content of disk {} changed",
            self.serial
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Cmd, run};

    fn sh(script: &str, dir: &Path, log: &Artefacts) {
        let cmd = Cmd::new("bash")
            .args(["-ec", &format!("cd \"$0\"\n{script}")])
            .arg(dir);
        run(&cmd, log, Duration::from_secs(60)).unwrap();
    }

    fn manifest(dir: &Path, log: &Artefacts) -> String {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/manifest.pl");
        let out = run(
            &Cmd::new("perl").arg(program).arg(dir),
            log,
            Duration::from_secs(60),
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_manifest_notices_each_kind_of_change() {
        let dir = tempfile::tempdir().unwrap();
        let log = Artefacts::new(dir.path().join("log")).unwrap();
        let changes = [
            ("printf y >f; touch -d @1600000000 f", "f: sha256 was"),
            ("chmod u+s f; touch -d @1600000000 f", "f: mode was"),
            ("setfattr -n user.a -v other f", "f: xattrs was"),
            (
                "touch -d '2020-09-13 12:26:40.000000001 UTC' f",
                "f: mtime was 1600000000.000000000, is 1600000000.000000001",
            ),
            (
                "ln -sfn elsewhere l; touch -h -d @1600000000 l",
                "l: link target was",
            ),
            ("rm h; cp -p --preserve=all f h", "h: hard links was"),
            ("cp -p --sparse=never s t; mv t s", "s: holes was"),
            ("rm f", "f: missing"),
            ("echo >new", "new: new"),
            (
                "truncate -s 5 f; touch -d @1600000000 f",
                "f: size was 1, is 5",
            ),
        ];
        for (change, expected) in changes {
            let tree = dir.path().join("tree");
            std::fs::create_dir(&tree).unwrap();
            let make =
                "printf x >f; setfattr -n user.a -v b f; ln f h; ln -s there l; truncate -s 4M s
                        touch -h -d @1600000000 f l s";
            sh(make, &tree, &log);
            let before = manifest(&tree, &log);
            assert_eq!(
                manifest_differences(&before, &manifest(&tree, &log)),
                [""; 0],
                "the same tree twice"
            );
            sh(change, &tree, &log);
            let found = manifest_differences(&before, &manifest(&tree, &log));
            assert!(
                found.iter().any(|d| d.starts_with(&format!("/{expected}"))),
                "{change}: {found:?}"
            );
            std::fs::remove_dir_all(&tree).unwrap();
        }
    }

    #[test]
    fn failed_units_and_storage_are_compared() {
        let dir = tempfile::tempdir().unwrap();
        let log = Artefacts::new(dir.path().join("log")).unwrap();
        let facts = HostFacts {
            manifest: String::new(),
            storage: "root UUID=1\nlv pve root linear\n".to_owned(),
            state: "running".to_owned(),
            failed_units: String::new(),
        };
        facts.ensure_equal(&facts, &log).unwrap();
        let mut other = facts.clone();
        other.storage = "root UUID=2\nlv pve root linear\n".to_owned();
        other.failed_units = "ssh.service\n".to_owned();
        other.state = "degraded".to_owned();
        let text = facts.ensure_equal(&other, &log).unwrap_err().to_string();
        for part in [
            "\"root UUID=1\" is gone",
            "\"root UUID=2\" is new",
            "ssh.service",
            "is degraded",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn partition_tables_are_compared() {
        if !crate::process::installed("sgdisk") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let log = Artefacts::new(dir.path().join("log")).unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        disk::blank(&a, 64 << 20).unwrap();
        sh(
            "sgdisk -n 1:2048:4095 -n 2:4096:8191 -t 2:8E00 a >/dev/null; cp a b",
            dir.path(),
            &log,
        );
        ensure_same_partitions(&a, &b).unwrap();
        ensure_same_bytes(&a, &b, 1).unwrap();
        sh("sgdisk -c 1:other b >/dev/null", dir.path(), &log);
        assert!(
            ensure_same_partitions(&a, &b)
                .unwrap_err()
                .to_string()
                .contains("partition 1: name")
        );
        sh("cp a b; sgdisk -u 2:R b >/dev/null", dir.path(), &log);
        assert!(
            ensure_same_partitions(&a, &b)
                .unwrap_err()
                .to_string()
                .contains("partition 2: PARTUUID")
        );
        sh("cp a b; sgdisk -U R b >/dev/null", dir.path(), &log);
        assert!(
            ensure_same_partitions(&a, &b)
                .unwrap_err()
                .to_string()
                .contains("the disk's GUID")
        );
        sh(
            "cp a b; printf x | dd of=b bs=1 seek=1048580 conv=notrunc status=none",
            dir.path(),
            &log,
        );
        assert!(ensure_same_bytes(&a, &b, 1).is_err());
    }
}
