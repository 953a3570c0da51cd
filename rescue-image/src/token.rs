//! The one-time permission for an unattended restore, on the boot partition of a medium.
//!
//! `lifeboat/armed.json` is the permission; `lifeboat/armed.cfg` makes the boot menu pass its token on. The permission is
//! written first and removed first: a menu entry without it restores nothing.

use std::collections::{BTreeMap, BTreeSet};

use layout::plan::{Grow, LeaveOut, Mode};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::esp::{Esp, Medium};
use crate::grub;
use crate::stick::Stick;

/// Version of [`Armed`].
pub const FORMAT: u32 = 1;

/// Seconds that the boot menu shows the armed entry before it starts.
const SECONDS: u32 = 10;

const PERMISSION: &str = "lifeboat/armed.json";
const MENU: &str = "lifeboat/armed.cfg";

/// What happens after an unattended restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Reboot into the restored system.
    Reboot,
    /// Power off.
    PowerOff,
}

/// `lifeboat/armed.json` on the boot partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Armed {
    /// Version of this document; readers refuse others.
    pub format: u32,
    /// The secret that the kernel command line must repeat, hexadecimal.
    pub token: String,
    /// Snapshot id, or "latest".
    pub snapshot: String,
    /// Saved disk (node id) to the serial (or device path) of the disk that takes its place, or several joined by `+`; `onto:`
    /// and another saved disk (node id), or `missing`.
    pub disks: BTreeMap<String, String>,
    /// What happens afterwards.
    pub then: Then,
    /// RFC 3339 UTC; not honoured later than this.
    pub expires: Option<String>,
    /// What happens with the space of a bigger disk.
    #[serde(default)]
    pub grow: Grow,
    /// What is not made again.
    #[serde(default)]
    pub leave_out: BTreeSet<LeaveOut>,
    /// How much of the machine is touched. Left out for bare metal, so that sticks of earlier releases understand it.
    #[serde(default, skip_serializing_if = "is_bare_metal")]
    pub mode: Mode,
    /// Saved network card to the address or name of the one that takes its place, or `none`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nics: BTreeMap<String, String>,
    /// A member of a Proxmox VE cluster starts as one, not alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cluster_member: bool,
}

fn is_bare_metal(mode: &Mode) -> bool {
    *mode == Mode::BareMetal
}

/// Arms the medium: the next boot restores without asking.
pub fn arm(stick: &Stick, armed: &Armed) -> Result<()> {
    write(&mut stick.esp(true)?, armed)
}

/// The token, if the medium is armed. A permission that is damaged or of an unknown version is an error.
pub fn read(stick: &Stick) -> Result<Option<Armed>> {
    find(&mut stick.esp(false)?)
}

/// Removes the token and makes sure that it is gone from the medium. Returns what it was.
pub fn consume(stick: &Stick) -> Result<Option<Armed>> {
    remove(&mut stick.esp(true)?)
}

pub(crate) fn write<M: Medium>(esp: &mut Esp<M>, armed: &Armed) -> Result<()> {
    let refuse = |why: &str| Error::format(PERMISSION, why);
    if armed.format != FORMAT {
        return Err(refuse("a token of another version"));
    }
    // It becomes a word of a GRUB script and of the kernel's command line.
    if armed.token.len() < 16 || !armed.token.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refuse(
            "a token has at least 16 hexadecimal digits and nothing else",
        ));
    }
    let json = serde_json::to_vec_pretty(armed).map_err(|e| refuse(&e.to_string()))?;
    esp.make_dir("lifeboat")?;
    esp.write_bytes(PERMISSION, &json)?;
    esp.sync()?;
    esp.write_bytes(MENU, grub::armed_config(&armed.token, SECONDS).as_bytes())?;
    esp.forget()?;
    if find(esp)?.as_ref() != Some(armed) || esp.read(MENU)?.is_none() {
        return Err(refuse(
            "read back differently from what was written; the medium is defective, use another one",
        ));
    }
    Ok(())
}

pub(crate) fn find<M: Medium>(esp: &mut Esp<M>) -> Result<Option<Armed>> {
    let Some(json) = esp.read(PERMISSION)? else {
        return Ok(None);
    };
    parse(&json).map(Some)
}

/// Reads a permission.
pub(crate) fn parse(json: &[u8]) -> Result<Armed> {
    let armed: Armed = serde_json::from_slice(json).map_err(|e| {
        Error::format(
            PERMISSION,
            format!("not understood ({e}); run `lifeboat arm` again"),
        )
    })?;
    if armed.format != FORMAT {
        return Err(Error::format(
            PERMISSION,
            format!("format {} is unknown to this version", armed.format),
        ));
    }
    Ok(armed)
}

pub(crate) fn remove<M: Medium>(esp: &mut Esp<M>) -> Result<Option<Armed>> {
    // Also when it cannot be read: what is there must go.
    let armed = find(esp);
    esp.remove(PERMISSION)?;
    esp.sync()?;
    esp.remove(MENU)?;
    esp.forget()?;
    if esp.exists(PERMISSION)? || esp.exists(MENU)? {
        return Err(Error::format(
            PERMISSION,
            "cannot be removed from the medium; nothing is restored without asking",
        ));
    }
    armed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::tests::{Recorder, SMALL};
    use crate::fuzz::seeds::armed;
    use std::path::Path;

    #[test]
    fn a_token_is_used_once() {
        let mut disk = Recorder::new(SMALL);
        let mut esp = Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
        assert_eq!(remove(&mut esp).unwrap(), None);
        write(&mut esp, &armed()).unwrap();
        assert_eq!(find(&mut esp).unwrap(), Some(armed()));
        let menu = String::from_utf8(esp.read(MENU).unwrap().unwrap()).unwrap();
        assert!(
            menu.contains("set lifeboat_token=0123456789abcdef\n"),
            "{menu}"
        );
        assert_eq!(remove(&mut esp).unwrap(), Some(armed()));
        assert_eq!(find(&mut esp).unwrap(), None);
        assert_eq!(esp.read(MENU).unwrap(), None);
    }

    #[test]
    fn pulled_while_arming_or_disarming_the_menu_never_outlives_the_permission_unnoticed() {
        let mut disk = Recorder::new(SMALL);
        let mut esp = Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
        esp.make_dir("lifeboat").unwrap();
        let before = disk.bytes.clone();
        disk.recording = true;
        let mut esp = Esp::new(&mut disk, Path::new("test"));
        write(&mut esp, &armed()).unwrap();
        remove(&mut esp).unwrap();
        let mut pulled = Recorder {
            bytes: before,
            ..Recorder::default()
        };
        for (at, content) in std::mem::take(&mut disk.writes) {
            pulled.bytes[at as usize..at as usize + content.len()].copy_from_slice(&content);
            // Whole, absent, or an error: never another permission.
            if let Ok(Some(found)) = find(&mut Esp::new(&mut pulled, Path::new("test"))) {
                assert_eq!(found, armed());
            }
        }
        assert_eq!(
            find(&mut Esp::new(&mut pulled, Path::new("test"))).unwrap(),
            None
        );
    }

    #[test]
    fn tokens_that_would_change_the_menu_are_refused_and_damaged_ones_removed() {
        let mut disk = Recorder::new(SMALL);
        let mut esp = Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
        for token in ["", "short", "0123456789abcdef\nreboot", "0123456789abcde;"] {
            assert!(
                write(
                    &mut esp,
                    &Armed {
                        token: token.into(),
                        ..armed()
                    }
                )
                .is_err(),
                "{token}"
            );
        }
        assert!(!esp.exists(PERMISSION).unwrap());
        esp.make_dir("lifeboat").unwrap();
        esp.write_bytes(PERMISSION, b"{\"format\":9}").unwrap();
        assert!(find(&mut esp).is_err());
        assert!(remove(&mut esp).is_err());
        assert!(!esp.exists(PERMISSION).unwrap());
    }
}
