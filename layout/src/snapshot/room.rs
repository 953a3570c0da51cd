//! Room for what is overwritten while snapshots are there, where they have none of their own: pools of ZFS, and btrfs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Choice, Limits, Live, Snapshot, Way};
use crate::system::{Cmd, System};

/// Takes back the choice where the filesystem is too full.
pub(super) fn check(sys: &dyn System, choices: &mut [Choice], limits: &Limits) {
    let mut known = BTreeMap::new();
    for choice in choices {
        let Ok(way) = &choice.way else { continue };
        if let Some(reason) = trouble(sys, &mut known, way, &choice.mount_point, limits) {
            choice.way = Err(Live::because(reason));
        }
    }
}

/// See [`super::examine`].
pub(super) fn examine(
    sys: &dyn System,
    snapshots: &[&Snapshot<'_>],
    limits: &Limits,
) -> Vec<(PathBuf, String)> {
    let mut known = BTreeMap::new();
    let found = snapshots.iter().filter_map(|snapshot| {
        let point = &snapshot.mount_point;
        let reason = trouble(sys, &mut known, &snapshot.way, point, limits)?;
        Some((point.clone(), reason))
    });
    found.collect()
}

/// Why there is too little room. Each pool and each btrfs is asked once.
fn trouble(
    sys: &dyn System,
    known: &mut BTreeMap<String, Option<u32>>,
    way: &Way,
    mount_point: &Path,
    limits: &Limits,
) -> Option<String> {
    let (name, what, command) = match way {
        Way::Zfs { dataset } => {
            let pool = dataset.split('/').next().unwrap_or(dataset);
            let command = Cmd::new("zpool").args(["list", "-H", "-p", "-o", "capacity", pool]);
            (pool.to_owned(), format!("the pool {pool}"), command)
        }
        Way::Btrfs { uuid, .. } => {
            let command = Cmd::new("df").arg("--output=pcent").path(mount_point);
            let what = format!("the btrfs at {}", mount_point.display());
            (uuid.clone(), what, command)
        }
        Way::Lvm { .. } | Way::Thin { .. } => return None,
    };
    let used = *known.entry(name).or_insert_with(|| {
        let text = sys.run(&command).ok()?.text();
        // `zpool` writes the number alone, `df` a heading and ` 42%`.
        text.lines()
            .last()?
            .trim()
            .trim_end_matches('%')
            .parse()
            .ok()
    });
    match used {
        Some(used) if used < limits.pool => None,
        Some(used) => Some(format!(
            "{used} % of {what} is in use, the limit is {} %",
            limits.pool
        )),
        // What is not told is no reason to trust it.
        None => Some(format!("it is not known how full {what} is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Recorded;

    fn zfs(dataset: &str) -> Choice {
        Choice {
            mount_point: "/".into(),
            way: Ok(Way::Zfs {
                dataset: dataset.to_owned(),
            }),
        }
    }

    fn after(sys: &Recorded, choice: Choice) -> Result<Way, String> {
        let mut choices = [choice];
        check(sys, &mut choices, &Limits::default());
        let [choice] = choices;
        choice.way.map_err(|live| live.reason)
    }

    #[test]
    fn a_pool_that_is_nearly_full_gets_none() {
        let line = "zpool list -H -p -o capacity rpool";
        let with = |used: &str| Recorded::new().command(line, used);
        assert!(after(&with("89\n"), zfs("rpool/ROOT/pve-1")).is_ok());
        let why = after(&with("90\n"), zfs("rpool/ROOT/pve-1")).unwrap_err();
        assert!(why.contains("90 % of the pool rpool"), "{why}");
        let why = after(&Recorded::new(), zfs("rpool")).unwrap_err();
        assert!(why.contains("not known how full"), "{why}");
    }

    #[test]
    fn so_does_a_btrfs_and_it_is_watched() {
        let way = Way::Btrfs {
            uuid: "u".into(),
            device: "/dev/sdb1".into(),
        };
        let choice = Choice {
            mount_point: "/srv".into(),
            way: Ok(way.clone()),
        };
        let with = |used: &str| {
            Recorded::new().command("df --output=pcent /srv", &format!("Use%\n{used}\n"))
        };
        assert!(after(&with(" 42%"), choice.clone()).is_ok());
        let full = with(" 95%");
        let why = after(&full, choice).unwrap_err();
        assert!(why.contains("95 % of the btrfs at /srv"), "{why}");
        let sys = Recorded::new();
        let mut held = super::super::tests::snapshot(&sys, way);
        held.mount_point = "/srv".into();
        let found = super::super::examine(&full, &[&held], &Limits::default());
        assert!(
            found.len() == 1 && found[0].0 == Path::new("/srv"),
            "{found:?}"
        );
    }
}
