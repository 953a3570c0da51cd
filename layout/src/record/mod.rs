//! Records a machine's answers while it is captured, so that a strange host can be looked at, and tested with, elsewhere.
//!
//! A [`Recording`] holds what the door to the machine answered, and nothing that tells whose machine it is: serial numbers,
//! WWNs, UUIDs, MAC and IP addresses, host names and labels are replaced by others of the same length and form, the same by
//! the same ([`anonymise`]). Of disks it keeps only what capture understands.

mod anonymise;
mod disk;
mod document;
mod esp;
mod names;
mod recorder;
mod zfs;

pub use document::RecordingError;

use std::collections::BTreeMap;
use std::path::Path;

use crate::capture::capture;
use crate::inventory::inventory;
use crate::model::Layout;
use crate::system::{Recorded, System};
use recorder::Recorder;

/// A machine's answers, and what to know of them.
#[derive(Debug)]
pub struct Recording {
    /// The answers; as a machine, they can be captured.
    pub machine: Recorded,
    /// Why the recording may be of little use: the machine could not be captured, or the recording gives something else.
    pub problems: Vec<String>,
}

impl Recording {
    /// The document that is kept and passed on.
    pub fn to_json(&self) -> Result<String, RecordingError> {
        document::write(&self.machine)
    }
}

/// Reads a document that [`Recording::to_json`] wrote.
pub fn replay(text: &str) -> Result<Recorded, RecordingError> {
    document::read(text)
}

/// Captures a machine and lists its disks, and keeps all it answers. That either fails is no error but one of the recording's
/// [problems](Recording::problems): such machines are the ones to record.
pub fn record(sys: &dyn System) -> Recording {
    let recorder = Recorder::new(sys);
    let mut problems = Vec::new();
    let captured = capture(&recorder);
    if let Err(error) = &captured {
        problems.push(format!("this host cannot be captured: {error}"));
    }
    if let Err(error) = inventory(&recorder) {
        problems.push(format!("the disks of this host cannot be listed: {error}"));
    }
    let names = [
        "/proc/sys/kernel/hostname",
        "/etc/hostname",
        "/etc/mailname",
    ];
    let names = names.iter().filter_map(|path| sys.text(Path::new(path)));
    let machine = anonymise::anonymise(recorder.into_answers(), names);
    match (
        captured.map(|l| kinds(&l)),
        capture(&machine).map(|l| kinds(&l)),
    ) {
        (Ok(was), Ok(is)) if was != is => problems.push(format!(
            "the recording gives another layout than the host: {is:?} instead of {was:?}"
        )),
        (Ok(_), Err(error)) => {
            problems.push(format!("the recording cannot be captured: {error}"));
        }
        _ => {}
    }
    Recording { machine, problems }
}

/// How many nodes of each kind there are, how many mounts and warnings.
fn kinds(layout: &Layout) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for node in layout.nodes.values() {
        let value = serde_json::to_value(node).unwrap_or_default();
        let kind = value["kind"].as_str().unwrap_or("unknown").to_owned();
        *count.entry(kind).or_default() += 1;
    }
    count.insert("mounts".to_owned(), layout.mounts.len());
    count.insert("warnings".to_owned(), layout.warnings.len());
    count.insert(
        "fstab".to_owned(),
        layout.mounts.iter().filter(|m| m.fstab.is_some()).count(),
    );
    count
}

#[cfg(test)]
mod tests;
