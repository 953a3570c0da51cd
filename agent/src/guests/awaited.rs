//! Guests that are still to come back after a restore. Until they are there, no backup may take what there is of them for
//! them, and nothing may take away what they come back from.

use rescue_image::guests::{Guest, Pending};

use super::pending::dir;
use crate::config::Config;
use crate::proxmox;

/// Those that are not there yet.
#[derive(Debug, Default)]
pub struct Awaited {
    guests: Vec<Guest>,
    /// Why it is not known which ones.
    unknown: Option<String>,
}

impl Awaited {
    /// As the list says it now.
    pub fn now(config: &Config) -> Awaited {
        match Pending::read(&dir(config)) {
            Ok(list) => Awaited {
                guests: list.map_or_else(Vec::new, |list| list.guests),
                unknown: None,
            },
            Err(error) => Awaited {
                guests: Vec::new(),
                unknown: Some(format!("{error:#}")),
            },
        }
    }

    /// Why a guest is not to be dumped.
    pub fn instead_of_dump(&self, guest: &proxmox::Guest) -> Option<String> {
        if let Some(error) = &self.unknown {
            return Some(format!(
                "not dumped, as it may still have to come back after a restore: {error}"
            ));
        }
        let id = guest.id;
        let awaited = self
            .guests
            .iter()
            .any(|g| g.id == id && !g.state.is_there());
        awaited.then(|| {
            format!(
                "not dumped, as it is still to come back after a restore: see `lifeboat guests status`; where it is back by other \
                 ways, `lifeboat guests forget {id}`"
            )
        })
    }

    /// Why nothing is to be removed from any target.
    pub fn instead_of_prune(&self) -> Option<String> {
        if let Some(error) = &self.unknown {
            return Some(error.clone());
        }
        let missing = self.guests.iter().filter(|g| !g.state.is_there());
        let missing: Vec<String> = missing.map(|g| g.id.to_string()).collect();
        (!missing.is_empty()).then(|| {
            format!(
                "guests are still to come back after a restore, and may need what would be removed: {}; see `lifeboat guests \
                 status`, or give them up with `lifeboat guests forget`",
                missing.join(", ")
            )
        })
    }
}
