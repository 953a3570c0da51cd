//! Dumps that a storage of the node holds already.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use bundle::backup::Backup;
use bundle::document::guest::GuestKind;
use layout::system::{Cmd, System, SystemError};

use super::take::{Taken, take};
use crate::proxmox::{Guest, Storage};

/// How a dump is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressed {
    /// Not at all.
    No,
    /// `.zst`
    Zstd,
    /// `.gz`
    Gzip,
    /// `.lzo`
    Lzo,
}

/// A dump in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// Where it is.
    pub path: PathBuf,
    /// What it is of.
    pub kind: GuestKind,
    /// The guest's number.
    pub id: u32,
    /// When it was begun: local time, as in its name: `2026_11_20-18_00_00`.
    pub begun: String,
    /// How it is compressed.
    pub compressed: Compressed,
}

impl Dump {
    /// `vzdump-<qemu|lxc>-<id>-YYYY_MM_DD-HH_MM_SS.<vma|tar>[.zst|.gz|.lzo]`, as Proxmox VE's storages know them.
    fn named(dir: &Path, name: &str) -> Option<Dump> {
        let rest = name.strip_prefix("vzdump-")?;
        let (kind, rest) = rest.split_once('-')?;
        let (id, rest) = rest.split_once('-')?;
        let (begun, ending) = rest.split_once('.')?;
        let pattern = "dddd_dd_dd-dd_dd_dd";
        let fits = begun.len() == pattern.len()
            && begun.chars().zip(pattern.chars()).all(|(c, p)| match p {
                'd' => c.is_ascii_digit(),
                p => c == p,
            });
        let (archive, compressed) = match ending.split_once('.') {
            None => (ending, Compressed::No),
            Some((archive, "zst")) => (archive, Compressed::Zstd),
            Some((archive, "gz")) => (archive, Compressed::Gzip),
            Some((archive, "lzo")) => (archive, Compressed::Lzo),
            Some(_) => return None,
        };
        let kind = match (kind, archive) {
            ("qemu", "vma") => GuestKind::Qemu,
            ("lxc", "tar") => GuestKind::Lxc,
            _ => return None,
        };
        fits.then(|| {
            Some(Dump {
                path: dir.join(name),
                kind,
                id: id.parse().ok()?,
                begun: begun.to_owned(),
                compressed,
            })
        })?
    }

    /// When it was begun, RFC 3339 in UTC: of the file's name, which has the node's local time.
    pub fn time(&self) -> Option<String> {
        local_to_utc(&self.begun)
    }
}

/// The directories of dumps of the storages that this node uses, and `/var/lib/vz/dump`, which is one without any.
fn directories(storages: &[Storage], node: &str) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = storages
        .iter()
        .filter_map(|storage| storage.dump_dir(node))
        .collect();
    if dirs.is_empty() {
        dirs.push(PathBuf::from("/var/lib/vz/dump"));
    }
    dirs
}

/// The newest dump of a guest in the node's storages. A file that vzdump is still writing has another name.
pub fn newest(
    sys: &dyn System,
    guest: &Guest,
    storages: &[Storage],
    node: &str,
) -> anyhow::Result<Dump> {
    let dirs = directories(storages, node);
    let dumps = dirs.iter().flat_map(|dir| {
        let names = sys.list_dir(dir).unwrap_or_default();
        names
            .into_iter()
            .filter_map(|name| Dump::named(dir, &name))
            .collect::<Vec<_>>()
    });
    let own = dumps.filter(|d| (d.kind, d.id) == (guest.kind, guest.id));
    own.max_by(|a, b| a.begun.cmp(&b.begun)).ok_or_else(|| {
        let looked: Vec<String> = dirs.iter().map(|d| d.display().to_string()).collect();
        anyhow!("there is no dump of it in {}", looked.join(", "))
    })
}

/// Reads a dump into a backup. Compressed ones are checked by their own sums, too.
pub fn import(sys: &dyn System, dump: &Dump, backup: &mut Backup<'_>) -> anyhow::Result<Taken> {
    let shown = dump.path.display();
    let result = match dump.compressed {
        Compressed::No => {
            let mut file = open(&dump.path)?;
            whole(dump.kind, &mut file, backup)
        }
        Compressed::Zstd => {
            let mut plain = zstd::Decoder::new(open(&dump.path)?)
                .with_context(|| format!("cannot read {shown}"))?;
            whole(dump.kind, &mut plain, backup)
        }
        Compressed::Gzip => through(sys, "gzip", dump, backup),
        Compressed::Lzo => through(sys, "lzop", dump, backup),
    };
    result.with_context(|| format!("the dump {shown}"))
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// What follows an archive would be lost, and its compressed frame's sum not be looked at.
fn whole(kind: GuestKind, from: &mut dyn Read, backup: &mut Backup<'_>) -> anyhow::Result<Taken> {
    let taken = take(kind, from, backup)?;
    std::io::copy(from, &mut std::io::sink()).context("behind the archive")?;
    Ok(taken)
}

/// The field's own tool unpacks it.
fn through(
    sys: &dyn System,
    tool: &str,
    dump: &Dump,
    backup: &mut Backup<'_>,
) -> anyhow::Result<Taken> {
    let command = Cmd::new(tool).args(["-d", "-c"]).path(&dump.path);
    let command = command.stop(crate::signals::stopped);
    let mut taken = None;
    let ended = sys.stream(
        &command,
        &mut |stream| {
            let result = whole(dump.kind, stream, backup);
            let content = result.is_ok();
            taken = Some(result);
            content
        },
        &|_| (),
    );
    match (taken, ended) {
        (Some(Ok(taken)), Ok(_)) => Ok(taken),
        (_, Err(SystemError::Start { .. })) => {
            bail!("it is packed with {tool}, which is not installed: apt install {tool}")
        }
        (Some(Err(error)), Ok(_)) => Err(error),
        // Damage of the compressed file is the cause of an archive that ends early.
        (_, Err(error)) => Err(error.into()),
        (None, Ok(_)) => bail!("{tool} wrote nothing"),
    }
}

/// `2026_11_20-18_00_00` in this machine's time zone as RFC 3339 in UTC.
fn local_to_utc(begun: &str) -> Option<String> {
    let numbers: Vec<i32> = begun
        .split(['_', '-'])
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [year, month, day, hour, minute, second] = numbers[..] else {
        return None;
    };
    // SAFETY: all of its fields are numbers, or a pointer that may be null.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    local.tm_year = year - 1900;
    local.tm_mon = month - 1;
    local.tm_mday = day;
    local.tm_hour = hour;
    local.tm_min = minute;
    local.tm_sec = second;
    // Whether it was summer time is not known: the system finds out, but for the hour that comes twice.
    local.tm_isdst = -1;
    // SAFETY: a valid structure of our own, which it may put in order.
    let seconds = unsafe { libc::mktime(&raw mut local) };
    (seconds != -1).then(|| bundle::time::rfc3339(seconds.saturating_mul(1000)))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
