//! Which guests are meant.

use std::fmt;
use std::str::FromStr;

use crate::proxmox::Guest;

/// A guest, or some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// By its number.
    Id(u32),
    /// Those with this tag.
    Tag(String),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let tag = text.strip_prefix("tag:").filter(|tag| !tag.is_empty());
        match (text, tag, text.parse()) {
            ("all", ..) => Ok(Which::All),
            (_, Some(tag), _) => Ok(Which::Tag(tag.to_owned())),
            // Proxmox VE gives numbers from 100 on.
            (_, _, Ok(id)) if id >= 100 => Ok(Which::Id(id)),
            _ => Err(format!(
                "'{text}' is no guest; write its number (100), tag:NAME for all with a tag, or all"
            )),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::All => f.write_str("all"),
            Which::Id(id) => write!(f, "{id}"),
            Which::Tag(tag) => write!(f, "tag:{tag}"),
        }
    }
}

crate::values::as_text!(Which);

impl Which {
    /// Whether this guest is meant.
    pub fn means(&self, guest: &Guest) -> bool {
        match self {
            Which::All => true,
            Which::Id(id) => guest.id == *id,
            Which::Tag(tag) => guest.tags.contains(tag),
        }
    }
}

/// The guests that are meant, in their order. Numbers that no guest has are an error: one who asks for a guest by
/// its number relies on its being saved.
pub fn choose<'g>(
    guests: &'g [Guest],
    which: &[Which],
    exclude: &[Which],
) -> Result<Vec<&'g Guest>, String> {
    let unknown = which.iter().find(|word| match word {
        Which::Id(id) => !guests.iter().any(|g| g.id == *id),
        _ => false,
    });
    if let Some(word) = unknown {
        return Err(format!("this node has no guest {word}"));
    }
    let meant = |guest: &&Guest| {
        which.iter().any(|w| w.means(guest)) && !exclude.iter().any(|w| w.means(guest))
    };
    Ok(guests.iter().filter(meant).collect())
}

/// As Proxmox VE starts them: those with an order by it, then the others by their numbers.
pub fn in_start_order(guests: &[Guest]) -> Vec<&Guest> {
    let mut guests: Vec<&Guest> = guests.iter().collect();
    guests.sort_by_key(|g| (g.order.unwrap_or(u32::MAX), g.id));
    guests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::guests::{Kind, parse};

    #[test]
    fn words_read_as_written() {
        for text in ["all", "100", "tag:prod"] {
            assert_eq!(text.parse::<Which>().unwrap().to_string(), text);
        }
        for wrong in ["", "99", "-1", "tag:", "web"] {
            assert!(wrong.parse::<Which>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn guests_by_number_and_tag() {
        let guests = [
            parse(100, Kind::Qemu, "tags: prod;web\nstartup: order=2\n"),
            parse(101, Kind::Lxc, "tags: test\n"),
            parse(102, Kind::Lxc, "startup: order=1\n"),
        ];
        let ids = |which: &[&str], exclude: &[&str]| {
            let words = |words: &[&str]| -> Vec<Which> {
                words.iter().map(|w| w.parse().unwrap()).collect()
            };
            let found = choose(&guests, &words(which), &words(exclude))?;
            Ok::<_, String>(found.iter().map(|g| g.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["all"], &["tag:test"]).unwrap(), [100, 102]);
        assert_eq!(ids(&["tag:web", "101"], &[]).unwrap(), [100, 101]);
        assert_eq!(ids(&["tag:none"], &[]).unwrap(), [0; 0]);
        assert!(ids(&["100", "103"], &[]).unwrap_err().contains("103"));
        let order: Vec<u32> = in_start_order(&guests).iter().map(|g| g.id).collect();
        assert_eq!(order, [102, 100, 101]);
    }
}
