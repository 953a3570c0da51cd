//! The snapshot document: one plain JSON file per restore point, written last.

pub mod guest;

use serde::{Deserialize, Serialize};

use crate::Id;
use guest::{GuestDump, GuestKind, GuestRef};

/// The version of the snapshot document that this code writes and reads.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// Which machine a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostIdentity {
    /// Content of `/etc/machine-id`: changes with a fresh install.
    pub machine_id: String,
    /// The host's name.
    pub hostname: String,
}

/// One restore point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Version of this document, [`SNAPSHOT_FORMAT`].
    pub format: u32,
    /// The machine.
    pub host: HostIdentity,
    /// When the backup began, RFC 3339 in UTC with milliseconds: `2026-11-20T20:31:36.250Z`.
    pub time: String,
    /// The program that wrote it.
    pub tool_version: String,
    /// What it holds, in a word: `host`, `directories`, or [`guest::KIND`].
    pub kind: String,
    /// The machine's layout, as `layout::model::Layout` writes it.
    pub layout: serde_json::Value,
    /// File trees, one per file system, root first.
    pub trees: Vec<Tree>,
    /// Block images.
    pub images: Vec<Image>,
    /// Of the dump of a guest: which one, and what is needed to give it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestDump>,
    /// Of a host: the newest dump of each of its guests, in the order in which they are started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<GuestRef>,
    /// What could not be kept as it was.
    pub summary: Summary,
    /// Sizes and times of the run.
    pub stats: Stats,
    /// Packages, network and other facts, as the agent writes them.
    pub facts: serde_json::Value,
}

/// The files of one file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Where the file system was mounted, `/` first.
    pub mount_point: String,
    /// Which file system it was: its UUID. Where it is not known, the next backup reads everything again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// The catalogue's blobs, in order: JSON lines that name the segments and their entries.
    pub catalogue: Vec<Id>,
    /// Number of entries of every kind.
    pub entries: u64,
    /// Number of regular files.
    pub files: u64,
    /// Sum of the sizes of regular files, in bytes.
    pub bytes: u64,
    /// Number of segments.
    pub segments: u64,
    /// What could not be kept as it was in this tree.
    pub summary: Summary,
}

/// A block device's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The layout's node that the content belongs to; of a VM, the name of its device: `drive-scsi0`.
    pub node: String,
    /// Size of the device in bytes.
    pub size: u64,
    /// The content list.
    pub content: Id,
    /// The device could not be read completely: unreadable parts are zeroes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Counts of what was not kept as it was, and the first of them by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Files that changed while they were read.
    pub changed: u64,
    /// Files that were listed but gone when they were to be read.
    pub vanished: u64,
    /// Files that could not be read, or not completely.
    pub unreadable: u64,
    /// Sockets, which are not kept.
    pub sockets: u64,
    /// Files and directories left out by an exclusion.
    pub excluded: u64,
    /// The first [`Summary::MAX_PROBLEMS`] problems.
    pub problems: Vec<Problem>,
}

impl Summary {
    /// How many problems are named; the counts are always complete.
    pub const MAX_PROBLEMS: usize = 1000;

    /// Adds another tree's summary.
    pub fn add(&mut self, other: &Summary) {
        self.changed += other.changed;
        self.vanished += other.vanished;
        self.unreadable += other.unreadable;
        self.sockets += other.sockets;
        self.excluded += other.excluded;
        let room = Self::MAX_PROBLEMS.saturating_sub(self.problems.len());
        self.problems
            .extend(other.problems.iter().take(room).cloned());
    }

    pub(crate) fn note(&mut self, problem: Problem) {
        if self.problems.len() < Self::MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// One file that was not kept as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Path on the host; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// `changed`, `vanished`, `unreadable` or `partial`.
    pub what: String,
    /// The system's reason, or what was seen.
    pub detail: String,
}

/// Sizes and times of the run that made a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Bytes of files and block devices that were read.
    pub bytes_read: u64,
    /// Bytes of files that were not read, as an earlier snapshot holds them.
    pub bytes_referenced: u64,
    /// Segments that were taken from an earlier snapshot.
    pub segments_reused: u64,
    /// Seconds from the start of the backup to the document.
    pub seconds: u64,
}

/// What the agent gives to [`crate::backup::Backup::commit`]; the rest of the document is filled in there.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotDraft {
    /// The machine.
    pub host: HostIdentity,
    /// The program that writes, with its version.
    pub tool_version: String,
    /// What it holds: `host`.
    pub kind: String,
    /// The machine's layout.
    pub layout: serde_json::Value,
    /// The trees made by this backup.
    pub trees: Vec<Tree>,
    /// The images made by this backup.
    pub images: Vec<Image>,
    /// Which guest it is the dump of.
    pub guest: Option<GuestDump>,
    /// The dumps of the host's guests.
    pub guests: Vec<GuestRef>,
    /// Facts.
    pub facts: serde_json::Value,
}

/// What a list of snapshots shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotHeader {
    /// SHA-256 of the document.
    pub id: Id,
    /// When the backup began.
    pub time: String,
    /// The machine.
    pub host: HostIdentity,
    /// What it holds.
    pub kind: String,
    /// Of the dump of a guest: which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestName>,
    /// Mount points of its trees.
    pub trees: Vec<String>,
    /// Number of regular files in all trees.
    pub files: u64,
    /// Bytes of all trees and images.
    pub bytes: u64,
    /// What was not kept as it was.
    pub summary: Summary,
}

/// A guest, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuestName {
    /// Its number.
    pub id: u32,
    /// What it is.
    pub kind: GuestKind,
    /// Its name.
    pub name: Option<String>,
    /// When its state is of, RFC 3339 in UTC.
    pub dumped: String,
}

impl GuestName {
    pub(crate) fn of(dump: &GuestDump) -> GuestName {
        GuestName {
            id: dump.id,
            kind: dump.kind,
            name: dump.name.clone(),
            dumped: dump.dumped.clone(),
        }
    }
}

impl std::fmt::Display for GuestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&guest::title(self.kind, self.id, self.name.as_deref()))
    }
}

impl SnapshotHeader {
    /// The time for people: `2026-11-20 20:31:36 UTC`.
    pub fn shown_time(&self) -> String {
        crate::time::shown(&self.time)
    }

    pub(crate) fn new(id: Id, snapshot: &Snapshot) -> SnapshotHeader {
        let trees = snapshot.trees.iter();
        SnapshotHeader {
            id,
            time: snapshot.time.clone(),
            host: snapshot.host.clone(),
            kind: snapshot.kind.clone(),
            guest: snapshot.guest.as_ref().map(GuestName::of),
            trees: trees.clone().map(|t| t.mount_point.clone()).collect(),
            files: trees.clone().fold(0, |sum, t| sum.saturating_add(t.files)),
            bytes: trees
                .map(|t| t.bytes)
                .chain(snapshot.images.iter().map(|i| i.size))
                .fold(0, |sum: u64, n| sum.saturating_add(n)),
            summary: snapshot.summary.clone(),
        }
    }
}
