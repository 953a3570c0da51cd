//! Messages that could not be sent yet: each in a file of its own, sent again after the next run.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Message;
use crate::state;

/// So many are kept, and so long; what is older helps nobody.
const KEPT: usize = 50;
const SPAN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A message and who has not got it yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What.
    pub message: Message,
    /// To whom, by the names of channels.
    pub to: Vec<String>,
    #[serde(skip)]
    file: PathBuf,
}

/// The directory.
pub struct Outbox<'o> {
    state: &'o Path,
}

impl<'o> Outbox<'o> {
    /// That of a host.
    pub fn new(state: &'o Path) -> Outbox<'o> {
        Outbox { state }
    }

    fn dir(&self) -> PathBuf {
        self.state.join("outbox")
    }

    /// What is in it, the oldest first; what is too old, or too much, is taken out.
    pub fn entries(&self, now: Timestamp) -> Vec<Entry> {
        let Ok(found) = fs::read_dir(self.dir()) else {
            return Vec::new();
        };
        let files = found.filter_map(Result::ok).map(|e| e.path());
        let mut files: Vec<PathBuf> = files
            .filter(|p| p.extension().is_some_and(|e| e == "json"))
            .collect();
        files.sort();
        let mut entries = Vec::new();
        for file in files {
            let read = fs::read(&file).ok();
            let entry = read.and_then(|json| serde_json::from_slice::<Entry>(&json).ok());
            match entry {
                Some(entry) if now.duration_since(entry.message.time) < SPAN => {
                    entries.push(Entry { file, ..entry });
                }
                _ => drop(fs::remove_file(&file)),
            }
        }
        let surplus = entries.len().saturating_sub(KEPT);
        for entry in entries.drain(..surplus) {
            drop(fs::remove_file(&entry.file));
        }
        entries
    }

    /// A message as it would be in it; [`Outbox::keep`] puts it there.
    pub fn entry(&self, message: &Message, to: &[String], number: usize) -> Entry {
        let time = message.time.strftime("%Y%m%dT%H%M%S%.3fZ");
        let name = format!("{time}-{}-{number}.json", std::process::id());
        Entry {
            message: message.clone(),
            to: to.to_vec(),
            file: self.dir().join(name),
        }
    }

    /// Writes who has not got it yet; nobody: it goes.
    pub fn keep(&self, entry: &Entry) -> std::io::Result<()> {
        if entry.to.is_empty() {
            return match fs::remove_file(&entry.file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        }
        let json = serde_json::to_vec(entry).map_err(std::io::Error::from)?;
        state::write(self.state, &entry.file, &json)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::*;

    fn message(hours: i64) -> Message {
        let time = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        Message::new(Event::Failure, "pve1", time, "x", "y")
    }

    fn add(outbox: &Outbox<'_>, message: &Message, to: &[String], number: usize) -> Entry {
        let entry = outbox.entry(message, to, number);
        outbox.keep(&entry).unwrap();
        entry
    }

    #[test]
    fn what_is_not_sent_waits_and_what_is_too_old_goes() {
        let state = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(state.path());
        let to = ["mail".to_owned(), "ntfy 1".to_owned()];
        let now = message(200).time;
        let mut entry = add(&outbox, &message(100), &to, 0);
        add(&outbox, &message(1), &to, 1);
        assert_eq!(outbox.entries(now), [entry.clone()]);
        entry.to.pop();
        outbox.keep(&entry).unwrap();
        assert_eq!(outbox.entries(now)[0].to, ["mail"]);
        entry.to.clear();
        outbox.keep(&entry).unwrap();
        assert_eq!(outbox.entries(now), []);
        assert_eq!(fs::read_dir(outbox.dir()).unwrap().count(), 0);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let state = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(state.path());
        for number in 0..KEPT + 3 {
            let hours = 100 + number as i64;
            add(&outbox, &message(hours), &["mail".into()], number);
        }
        fs::write(outbox.dir().join("0.json"), "{").unwrap();
        let left = outbox.entries(message(200).time);
        assert_eq!(left.len(), KEPT);
        assert_eq!(left[0].message, message(103));
    }
}
