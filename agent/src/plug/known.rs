//! The sticks of this host: one document each, in `<state>/sticks`. `prepare` writes it, a backup that was asked for by hand
//! does, and `lifeboat plug --adopt`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rescue_image::stick::Target;
use serde::{Deserialize, Serialize};

use super::medium::{self, Medium};
use crate::targets::{Kind, Opened};
use crate::{Context, state};

/// Version of the documents.
const FORMAT: u32 = 1;

/// A stick that this host may write to when it is plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    format: u32,
    /// GUID of its data partition.
    pub medium: String,
    /// Id of its store.
    pub store: String,
    /// Serial number of the disk, empty where it has none; nothing until it was seen: it was made as an image file.
    pub serial: Option<String>,
    /// What it is called, for people.
    pub model: String,
    /// Whether it may hold restore points of other hosts only.
    pub shared: bool,
}

impl Known {
    /// A stick that was just made, or is to be one of this host's.
    pub fn new(medium: &str, store: &str) -> Known {
        Known {
            format: FORMAT,
            medium: medium.to_lowercase(),
            store: store.to_owned(),
            serial: None,
            model: String::new(),
            shared: false,
        }
    }

    /// On this disk.
    #[must_use]
    pub fn on(mut self, serial: &str, model: &str) -> Known {
        self.serial = Some(serial.to_owned());
        model.clone_into(&mut self.model);
        self
    }

    /// Whatever is on it.
    #[must_use]
    pub fn shared(mut self) -> Known {
        self.shared = true;
        self
    }

    /// Remembers it; what was known of the same partition is replaced.
    pub fn remember(&self, dir: &Path) -> anyhow::Result<()> {
        let path = path_of(dir, &self.medium).context("the partition's GUID is none")?;
        let json = serde_json::to_vec_pretty(self)?;
        state::write(dir, &path, &json)
            .with_context(|| format!("cannot note the stick in {}", path.display()))
    }
}

fn path_of(state: &Path, medium: &str) -> Option<PathBuf> {
    let guid = medium.len() == 36 && medium.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    guid.then(|| {
        state
            .join("sticks")
            .join(format!("{}.json", medium.to_lowercase()))
    })
}

/// What this host knows of the stick with this data partition.
pub fn find(state: &Path, medium: &str) -> anyhow::Result<Option<Known>> {
    let Some(path) = path_of(state, medium) else {
        return Ok(None);
    };
    let wrong = || format!("cannot read what is known of the stick, {}", path.display());
    let json = match std::fs::read(&path) {
        Ok(json) => json,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(wrong),
    };
    let known: Known = serde_json::from_slice(&json).with_context(wrong)?;
    anyhow::ensure!(
        known.format == FORMAT,
        "{}: format {} is not known to this version",
        path.display(),
        known.format
    );
    Ok(Some(known))
}

/// Notes a stick that somebody had a backup made on by hand, or whose serial number was not known so far. What is known
/// already stays: a copy does not take the place of the stick.
pub fn learn(
    state: &Path,
    medium: &str,
    store: &str,
    serial: &str,
    model: &str,
) -> anyhow::Result<()> {
    let known = match find(state, medium)? {
        None => Known::new(medium, store),
        Some(known) if known.serial.is_none() && known.store == store => known,
        Some(_) => return Ok(()),
    };
    known.on(serial, model).remember(state)
}

/// Notes a stick that was just made here.
pub fn made(context: &Context, target: &Target, medium: &str, store: &str) {
    let mut known = Known::new(medium, store);
    if let Target::Device(disk) = target {
        // udev may not have looked at the partitions yet, but knows the disk.
        match medium::names(&context.sys, disk) {
            Ok((serial, model)) => known = known.on(&serial, &model),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
    let noted = known.remember(&context.config.state);
    match noted {
        Err(error) if matches!(target, Target::Device(_)) => tracing::warn!("{error:#}"),
        // Whoever makes an image need not be root.
        Err(error) => tracing::info!("{error:#}"),
        Ok(()) => {}
    }
}

/// Notes a stick that holds a new restore point of this host now.
pub fn used(context: &Context, opened: &Opened, store: Option<&str>) {
    let (Kind::Device(disk), Some(stick), Some(store)) = (&opened.kind, &opened.stick, store)
    else {
        return;
    };
    let learnt = Medium::find(&context.sys, disk).and_then(|medium| {
        learn(
            &context.config.state,
            stick.medium(),
            store,
            &medium.serial,
            &medium.model,
        )
    });
    if let Err(error) = learnt {
        // Only what happens at the next plugging in hangs on it.
        tracing::info!("{error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "0b2c3d4e-1111-2222-3333-444455556666";

    #[test]
    fn a_copy_does_not_take_the_place_of_the_stick() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        assert_eq!(find(state, GUID).unwrap(), None);
        Known::new(&GUID.to_uppercase(), "s")
            .remember(state)
            .unwrap();
        learn(state, GUID, "other", "X", "").unwrap();
        assert_eq!(find(state, GUID).unwrap().unwrap().serial, None);
        learn(state, GUID, "s", "A", "Stick").unwrap();
        learn(state, GUID, "s", "B", "Copy").unwrap();
        let known = find(state, GUID).unwrap().unwrap();
        assert_eq!(
            (known.serial.as_deref(), known.model.as_str()),
            (Some("A"), "Stick")
        );
        // With consent it does.
        Known::new(GUID, "s")
            .on("B", "Copy")
            .remember(state)
            .unwrap();
        let known = find(state, GUID).unwrap().unwrap();
        assert_eq!(known.serial.as_deref(), Some("B"));
    }

    #[test]
    fn what_is_damaged_is_no_stranger() {
        let state = tempfile::tempdir().unwrap();
        Known::new(GUID, "s").remember(state.path()).unwrap();
        let path = path_of(state.path(), GUID).unwrap();
        std::fs::write(&path, "{").unwrap();
        assert!(find(state.path(), GUID).is_err());
        assert_eq!(find(state.path(), "../../etc/passwd").unwrap(), None);
    }
}
