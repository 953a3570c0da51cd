//! Guests that come back at the first boot after a restore: the list that the rescue system leaves in the restored system,
//! and that `lifeboat guests restore --pending` works off there.
//!
//! `pending.json` is the flag as well: while it is there, units of Proxmox VE that start guests are held back. It goes away
//! when all guests of the list are there. `status.json` says the same to whoever wants to look, and stays.

pub mod install;
pub mod shared;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use bundle::Id;
use bundle::document::guest::{GuestKind, title};
use serde::{Deserialize, Serialize};

/// Where the list is, on the restored system.
pub const DIR: &str = "/var/lib/lifeboat/guests";
/// The list, in that directory.
pub const PENDING: &str = "pending.json";
/// What was done, in that directory.
pub const STATUS: &str = "status.json";
/// Version of [`Pending`].
pub const FORMAT: u32 = 1;
/// How often the restore of a guest is tried without being asked again.
pub const LIMIT: u32 = 3;

/// More is not read: a hundred times what a node with a thousand guests needs.
const MAX_BYTES: u64 = 16 << 20;
/// Numbers of guests (`pve-vmid` of pve-common's JSONSchema.pm).
const IDS: std::ops::RangeInclusive<u32> = 100..=999_999_999;

/// The guests that are to come back, and how far that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// Version of this document; readers refuse others.
    pub format: u32,
    /// The restore point of the host that was restored.
    pub snapshot: Id,
    /// When that was, RFC 3339 in UTC.
    pub restored: String,
    /// How often each guest is tried without being asked again.
    pub limit: u32,
    /// The guests, in the order in which they are started.
    pub guests: Vec<Guest>,
    /// Where the stores were found.
    pub stores: Vec<Place>,
}

/// A guest of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Its number.
    pub id: u32,
    /// What it is.
    pub kind: GuestKind,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The snapshot that holds its dump; `None`: no store that was attached has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Id>,
    /// When its state is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dumped: Option<String>,
    /// What is not as it was meant: an older dump, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How far it is.
    pub state: State,
    /// How often it was begun.
    #[serde(default)]
    pub attempts: u32,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Nothing of its disks was there when the first attempt began: what is there now was left by an attempt.
    #[serde(default)]
    pub was_absent: bool,
    /// What its configuration was (the hash of it) after an attempt that failed and left something of it behind: what is
    /// there is replaced as long as nobody changed that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Id>,
    /// Whether it is started with the node; known when it is back.
    #[serde(default)]
    pub onboot: bool,
    /// Of the attempt that is under way: bytes that are back, of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<(u64, u64)>,
}

/// How far a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not begun.
    Waiting,
    /// Begun; after a power cut it is found like this, and begun again.
    Running,
    /// It is back.
    Done,
    /// Its disks were there all the time, and were left as they are.
    Kept,
    /// The last attempt failed, or there is nothing to restore it from.
    Failed,
}

impl State {
    /// Whether the guest is there.
    pub fn is_there(self) -> bool {
        matches!(self, State::Done | State::Kept)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Done => "done",
            State::Kept => "kept",
            State::Failed => "FAILED",
        })
    }
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The store's id.
    pub id: String,
    /// UUID of the file system that it is on; `None`: `path` is one of the running system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// Type of that file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<String>,
    /// The directory that holds `lifeboat/`: below the root of that file system, without a leading slash.
    pub path: String,
    /// For people.
    pub shown: String,
}

impl Guest {
    /// `VM 100 (web)`.
    pub fn title(&self) -> String {
        title(self.kind, self.id, self.name.as_deref())
    }
}

impl Pending {
    /// All guests are there.
    pub fn complete(&self) -> bool {
        self.guests.iter().all(|g| g.state.is_there())
    }

    /// Reads a list; what does not fit together is refused.
    pub fn parse(json: &[u8]) -> Result<Pending> {
        let pending: Pending = serde_json::from_slice(json)?;
        ensure!(
            pending.format == FORMAT,
            "it has format {}, and this version of lifeboat knows {FORMAT}",
            pending.format
        );
        let mut seen = BTreeSet::new();
        for guest in &pending.guests {
            ensure!(
                IDS.contains(&guest.id),
                "{} is no number of a guest",
                guest.id
            );
            ensure!(seen.insert(guest.id), "guest {} is in it twice", guest.id);
        }
        for place in &pending.stores {
            place.check()?;
        }
        Ok(pending)
    }

    /// The list in a directory; `None` where there is none.
    pub fn read(dir: &Path) -> Result<Option<Pending>> {
        read(&dir.join(PENDING))
    }

    /// What was done, in a directory.
    pub fn read_status(dir: &Path) -> Result<Option<Pending>> {
        read(&dir.join(STATUS))
    }

    /// Writes the list, so that it is there after a power cut: this one or the one before.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write(dir, PENDING, self)
    }

    /// Writes what was done, the same way.
    pub fn write_status(&self, dir: &Path) -> Result<()> {
        write(dir, STATUS, self)
    }

    /// Takes the list away, when all is done.
    pub fn remove(dir: &Path) -> Result<()> {
        let path = dir.join(PENDING);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed
                .and_then(|()| File::open(dir)?.sync_all())
                .with_context(|| format!("cannot remove {}", path.display())),
        }
    }
}

impl Place {
    fn check(&self) -> Result<()> {
        let word = |text: &str| {
            (1..=64).contains(&text.len())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        ensure!(word(&self.id), "{:?} is no id of a store", self.id);
        for name in self.filesystem.iter().chain(&self.fs_type) {
            // They become a file name and an option of mount(2).
            ensure!(
                word(name) && !name.starts_with('.'),
                "{name:?} names no file system"
            );
        }
        let path = Path::new(&self.path);
        let below = |c: Component<'_>| matches!(c, Component::Normal(_));
        let good = match self.filesystem {
            Some(_) => path.components().all(below),
            None => path.is_absolute() && path.components().skip(1).all(below),
        };
        ensure!(
            good && !self.path.contains('\0'),
            "{:?} is no place of a store",
            self.path
        );
        Ok(())
    }
}

/// Text without what could steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn read(path: &Path) -> Result<Option<Pending>> {
    let file = match File::options()
        .read(true)
        // A pipe would never end.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let parsed = (|| {
        let mut json = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut json)?;
        if json.len() as u64 > MAX_BYTES {
            bail!("it is longer than any list of guests");
        }
        Pending::parse(&json)
    })();
    parsed.map(Some).with_context(|| {
        format!(
            "the list of guests in {} cannot be used; restore each guest with `lifeboat guests restore ID --force`, then \
             remove that file",
            path.display()
        )
    })
}

fn write(dir: &Path, name: &str, pending: &Pending) -> Result<()> {
    let path = dir.join(name);
    let written = (|| {
        let json = serde_json::to_vec_pretty(pending)?;
        fs::create_dir_all(dir)?;
        let unfinished = path.with_extension("new");
        let _ = fs::remove_file(&unfinished);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(&json)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(dir)?.sync_all()?;
        anyhow::Ok(())
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn guest(id: u32, kind: GuestKind) -> Guest {
        Guest {
            id,
            kind,
            name: Some("web".to_owned()),
            snapshot: Some(Id::of(&id.to_le_bytes())),
            dumped: Some("2026-11-20T02:00:00Z".to_owned()),
            note: None,
            state: State::Waiting,
            attempts: 0,
            error: None,
            was_absent: false,
            left: None,
            onboot: false,
            progress: None,
        }
    }

    pub fn pending() -> Pending {
        Pending {
            format: FORMAT,
            snapshot: Id::of(b"host"),
            restored: "2026-11-20T03:00:00Z".to_owned(),
            limit: LIMIT,
            guests: vec![guest(100, GuestKind::Qemu), guest(200, GuestKind::Lxc)],
            stores: vec![
                Place {
                    id: "0f8fad5b-d9cb-469f-a165-70867728950e".to_owned(),
                    filesystem: Some("1234-ABCD".to_owned()),
                    fs_type: Some("ext4".to_owned()),
                    path: "backup/pve1".to_owned(),
                    shown: "/dev/sdb1 (ext4)".to_owned(),
                },
                Place {
                    id: "0f8fad5b-d9cb-469f-a165-708677289500".to_owned(),
                    filesystem: None,
                    fs_type: None,
                    path: "/mnt/backup".to_owned(),
                    shown: "/mnt/backup".to_owned(),
                },
            ],
        }
    }

    #[test]
    fn a_list_is_read_as_written_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("guests");
        assert_eq!(Pending::read(&dir).unwrap(), None);
        let mut list = pending();
        list.write(&dir).unwrap();
        list.guests[1].state = State::Failed;
        list.guests[1].error = Some("no space".to_owned());
        list.write(&dir).unwrap();
        assert_eq!(Pending::read(&dir).unwrap(), Some(list.clone()));
        assert!(!list.complete());
        list.guests[0].state = State::Kept;
        list.guests[1].state = State::Done;
        assert!(list.complete());
        // A second file that a power cut left is no obstacle.
        fs::write(dir.join("pending.new"), b"{").unwrap();
        list.write(&dir).unwrap();
        Pending::remove(&dir).unwrap();
        Pending::remove(&dir).unwrap();
        assert_eq!(Pending::read(&dir).unwrap(), None);
    }

    #[test]
    fn what_leads_elsewhere_or_does_not_fit_is_refused() {
        let good = serde_json::to_value(pending()).unwrap();
        let parse = |value: &serde_json::Value| Pending::parse(&serde_json::to_vec(value).unwrap());
        parse(&good).unwrap();
        for (at, wrong) in [
            ("/format", serde_json::json!(2)),
            ("/guests/0/id", serde_json::json!(200)),
            ("/guests/0/id", serde_json::json!(7)),
            ("/guests/0/id", serde_json::json!("100; reboot")),
            ("/guests/0/state", serde_json::json!("gone")),
            ("/guests/0/snapshot", serde_json::json!("latest")),
            ("/guests/0/more", serde_json::json!(1)),
            ("/stores/0/id", serde_json::json!("../../etc/shadow")),
            ("/stores/0/filesystem", serde_json::json!("../sda")),
            ("/stores/0/filesystem", serde_json::json!("..")),
            ("/stores/0/fs_type", serde_json::json!("ext4,rw")),
            ("/stores/0/path", serde_json::json!("/etc")),
            ("/stores/0/path", serde_json::json!("a/../../etc")),
            ("/stores/1/path", serde_json::json!("mnt")),
            ("/stores/1/path", serde_json::json!("/mnt/../etc")),
        ] {
            let mut list = good.clone();
            match list.pointer_mut(at) {
                Some(place) => *place = wrong.clone(),
                None => list["guests"][0]["more"] = wrong.clone(),
            }
            assert!(parse(&list).is_err(), "{at} {wrong}");
        }
        for text in ["", "[]", "{}", "{\"format\":1}"] {
            assert!(Pending::parse(text.as_bytes()).is_err());
        }
    }

    #[test]
    fn an_endless_file_is_not_read_and_it_is_said_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join(PENDING)).unwrap();
        file.set_len(1 << 40).unwrap();
        let error = format!("{:#}", Pending::read(dir.path()).unwrap_err());
        assert!(error.contains("lifeboat guests restore ID"), "{error}");
        assert!(error.contains("longer than any"), "{error}");
    }

    #[test]
    fn names_cannot_steer_the_console() {
        let mut guest = guest(100, GuestKind::Qemu);
        guest.name = Some("a\x1b[2J".to_owned());
        assert_eq!(guest.title(), "VM 100 (a?[2J)");
    }
}
