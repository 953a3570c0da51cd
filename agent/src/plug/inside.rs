//! What is on a stick that this host knows: the last look before something is written to it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use bundle::store::Store;

use super::decide::Action;
use super::known::Known;
use crate::targets::{Access, Opened, close_all};

/// What was found on a stick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Id of its store.
    pub store: String,
    /// The hosts that restore points are of, by machine id, with their names; nothing where the store cannot be opened.
    pub hosts: Option<BTreeSet<(String, String)>>,
}

/// Mounts a stick read-only, and looks.
pub fn look(target: &Path) -> anyhow::Result<Inside> {
    let opened = Opened::open(target, Access::Read)?;
    let found = Store::info(&opened.dir)
        .with_context(|| format!("cannot read the store on {}", target.display()))
        .map(|info| Inside {
            store: info.id,
            // That it has no key, or is damaged, the backup says better.
            hosts: opened
                .reader()
                .and_then(|store| Ok(store.snapshots()?))
                .ok()
                .map(|all| {
                    let hosts = all.into_iter().map(|s| s.host);
                    hosts.map(|h| (h.machine_id, h.hostname)).collect()
                }),
        });
    close_all(vec![opened], found)
}

/// Why nothing should be written to it, if so. `wrote`: this host has written to the store before.
pub fn objection(
    inside: &Inside,
    known: Option<&Known>,
    own: &str,
    wrote: bool,
    named: &str,
) -> Option<Action> {
    if known.is_some_and(|k| k.store != inside.store) {
        return Some(Action::Refuse(format!(
            "{named} holds another store than the one that this host knows there; nothing was written to it. If that is \
             right: `lifeboat plug --adopt`"
        )));
    }
    let hosts = inside.hosts.as_ref()?;
    let shared = wrote || known.is_none_or(|k| k.shared);
    if shared || hosts.is_empty() || hosts.iter().any(|(id, _)| id == own) {
        return None;
    }
    let names: Vec<&str> = hosts.iter().map(|(_, name)| name.as_str()).collect();
    Some(Action::Stranger(format!(
        "{named} holds restore points of other hosts only ({}); nothing was done with it. `lifeboat plug --adopt` makes it \
         one of this host's, too",
        names.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(hosts: &[&str]) -> Inside {
        Inside {
            store: "s".into(),
            hosts: Some(
                hosts
                    .iter()
                    .map(|h| ((*h).into(), format!("name-{h}")))
                    .collect(),
            ),
        }
    }

    #[test]
    fn another_hosts_stick_needs_consent() {
        let known = Known::new("g", "s");
        let objects = |inside: &Inside, known: Option<&Known>, wrote| {
            objection(inside, known, "own", wrote, "/dev/sdb")
        };
        assert_eq!(objects(&inside(&[]), Some(&known), false), None);
        assert_eq!(
            objects(&inside(&["own", "other"]), Some(&known), false),
            None
        );
        let Some(Action::Stranger(text)) = objects(&inside(&["other"]), Some(&known), false) else {
            panic!("it would be written to");
        };
        assert!(
            text.contains("name-other") && text.contains("--adopt"),
            "{text}"
        );
        // What this host wrote was pruned by another; the configuration names it; somebody agreed.
        assert_eq!(objects(&inside(&["other"]), Some(&known), true), None);
        assert_eq!(objects(&inside(&["other"]), None, false), None);
        let shared = known.shared();
        assert_eq!(objects(&inside(&["other"]), Some(&shared), false), None);
    }

    #[test]
    fn another_store_in_its_place_is_refused() {
        let known = Known::new("g", "t");
        let unreadable = Inside {
            store: "s".into(),
            hosts: None,
        };
        let action = objection(&unreadable, Some(&known), "own", true, "/dev/sdb");
        assert!(matches!(action, Some(Action::Refuse(_))), "{action:?}");
        assert_eq!(objection(&unreadable, None, "own", true, "/dev/sdb"), None);
    }
}
