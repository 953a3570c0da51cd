//! The targets as far as they are at hand. Sticks are mounted read-only, and let go of again.

use std::path::{Path, PathBuf};

use bundle::store::{Store, StoreInfo};
use layout::system::System;
use rescue_image::stick::{Slot, Stick};

use super::place::{self, Place};
use crate::history::Space;
use crate::rescue::{Builder, Wish};
use crate::targets::{Access, Kind, Opened, close_all};

/// Names that udev gives to disks that are built in.
const BUILT_IN: [&str; 6] = ["ata-", "nvme-", "scsi-", "virtio-", "wwn-", "md-"];

/// A configured target.
#[derive(Debug)]
pub struct Target {
    /// As it is configured.
    pub named: PathBuf,
    /// What was seen of it.
    pub seen: Seen,
}

/// What was seen of a target.
#[derive(Debug)]
pub enum Seen {
    /// There is nothing of this name.
    Absent,
    /// It was left alone, for this reason.
    Passed(String),
    /// It cannot be used.
    Broken(String),
    /// It is there.
    Here(Box<Here>),
}

/// A target that is at hand.
#[derive(Debug)]
pub struct Here {
    /// What it is.
    pub kind: Kind,
    /// Its store, or why it has none.
    pub store: Result<StoreInfo, String>,
    /// Room.
    pub space: Option<Space>,
    /// Where its bytes are.
    pub place: Place,
    /// Of a stick: its rescue system.
    pub rescue: Option<Rescue>,
}

/// The rescue system of a stick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rescue {
    /// There is no whole one.
    None,
    /// It is made of what this host has now.
    Current,
    /// It is made of something else: of this version and with this kernel.
    Old { version: String, kernel: String },
}

impl Target {
    /// Looks at it.
    pub fn look(sys: &dyn System, named: &Path, wish: &Wish, busy: Option<&str>) -> Target {
        let seen = see(sys, named, wish, busy);
        Target {
            named: named.into(),
            seen,
        }
    }

    /// What is there of it.
    pub fn here(&self) -> Option<&Here> {
        match &self.seen {
            Seen::Here(here) => Some(here),
            _ => None,
        }
    }

    /// Whether it is a stick, or stands for one, as far as that can be told while it is away.
    pub fn may_be_unplugged(&self) -> bool {
        let name = self.named.file_name().unwrap_or_default().to_string_lossy();
        self.named.starts_with("/dev") && !BUILT_IN.iter().any(|begin| name.starts_with(begin))
    }
}

fn see(sys: &dyn System, named: &Path, wish: &Wish, busy: Option<&str>) -> Seen {
    match std::fs::metadata(named) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Seen::Absent,
        Err(e) => return Seen::Broken(format!("cannot look at {}: {e}", named.display())),
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            if !nix::unistd::geteuid().is_root() {
                return Seen::Passed("only root may look into a stick".into());
            }
            if let Some(busy) = busy {
                return Seen::Passed(busy.to_owned());
            }
        }
    }
    let opened = match Opened::open(named, Access::Read) {
        Ok(opened) => opened,
        Err(error) => return Seen::Broken(format!("{error:#}")),
    };
    let here = Here {
        kind: opened.kind.clone(),
        store: Store::info(&opened.dir).map_err(|e| e.to_string()),
        space: Space::of(&opened.dir),
        place: match &opened.kind {
            Kind::Device(device) => Place::Disk(device.clone()),
            Kind::Image(path) | Kind::Directory(path) => place::of(sys, path),
        },
        rescue: opened.stick.as_ref().map(|s| rescue_of(sys, s, wish)),
    };
    match close_all(vec![opened], Ok(())) {
        Ok(()) => Seen::Here(Box::new(here)),
        Err(error) => Seen::Broken(format!("{error:#}")),
    }
}

fn rescue_of(sys: &dyn System, stick: &Stick, wish: &Wish) -> Rescue {
    let current = stick.slots().ok().and_then(|slots| match slots.current {
        Slot::A => slots.a,
        Slot::B => slots.b,
    });
    let Some(info) = current else {
        return Rescue::None;
    };
    // Where no rescue system can be built, another check says so.
    let wanted = Builder::new(sys, wish).and_then(|builder| builder.fingerprint(sys));
    match wanted {
        Ok(wanted) if wanted != info.fingerprint => Rescue::Old {
            version: info.version,
            kernel: info.kernel,
        },
        _ => Rescue::Current,
    }
}
