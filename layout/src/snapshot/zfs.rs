//! Snapshots of ZFS datasets.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Choice, PREFIX, Way};
use crate::system::{Cmd, System};

/// The property by which a snapshot is known as one of this program.
const PROPERTY: &str = "lifeboat:snapshot";

/// By pool, why its datasets have no snapshot.
pub(super) struct Pools(BTreeMap<String, Result<(), String>>);

impl Pools {
    pub(super) fn became_of(&self, dataset: &str) -> Result<(), String> {
        let none = || Err("the pool was not asked".to_owned());
        self.0.get(pool(dataset)).cloned().unwrap_or_else(none)
    }
}

fn pool(dataset: &str) -> &str {
    dataset.split('/').next().unwrap_or(dataset)
}

/// Makes the snapshots of each pool by one command: they are all of one moment.
pub(super) fn make(sys: &dyn System, choices: &[Choice], name: &str) -> Pools {
    let mut pools: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for choice in choices {
        if let Ok(Way::Zfs { dataset }) = &choice.way {
            let snapshots = pools.entry(pool(dataset)).or_default();
            snapshots.push(format!("{dataset}@{name}"));
        }
    }
    let made = pools.into_iter().map(|(pool, snapshots)| {
        let mark = format!("{PROPERTY}={}", super::host(sys));
        let command = Cmd::new("zfs").args(["snapshot", "-o"]).arg(mark);
        let made = sys.run(&command.args(snapshots));
        (pool.to_owned(), made.map(|_| ()).map_err(|e| e.to_string()))
    });
    Pools(made.collect())
}

/// The directory in which ZFS shows a snapshot; looking at it has it mounted there, and holding it keeps it so.
pub(super) fn open(mount_point: &Path, name: &str) -> std::io::Result<OwnedFd> {
    let all = mount_point.join(".zfs/snapshot");
    let root = File::open(all.join(name))?;
    if root.metadata()?.dev() == std::fs::metadata(&all)?.dev() {
        let text = format!("ZFS does not show it in {}", all.display());
        return Err(std::io::Error::other(text));
    }
    Ok(root.into())
}

pub(super) fn remove(sys: &dyn System, snapshot: &str) -> Result<(), String> {
    // Never what is no snapshot: a name without @ would be the dataset itself.
    if !snapshot
        .split_once('@')
        .is_some_and(|(_, name)| name.starts_with(PREFIX))
    {
        return Err(format!("{snapshot} is no snapshot of this program"));
    }
    let command = Cmd::new("zfs").args(["destroy", snapshot]);
    super::lvm::patiently(sys, &command)
}

pub(super) fn leftovers(sys: &dyn System, datasets: &[&str]) -> Vec<Result<String, String>> {
    // What was received from another pool or host has the property, too, but not of its own.
    let command = Cmd::new("zfs")
        .args(["get", "-H", "-s", "local", "-t", "snapshot", "-d", "1"])
        .args(["-o", "name,value", PROPERTY])
        .args(datasets.iter().copied());
    match sys.run(&command) {
        Ok(output) => ours(&output.text(), &super::host(sys))
            .into_iter()
            .map(|name| remove(sys, &name).map(|()| name))
            .collect(),
        Err(error) => vec![Err(format!(
            "cannot look for snapshots that are left: {error}"
        ))],
    }
}

/// Names of those that have both this host's mark and such a name.
fn ours(list: &str, host: &str) -> Vec<String> {
    let lines = list.lines().filter_map(|line| line.split_once('\t'));
    lines
        .filter(|(name, mark)| {
            let snapshot = name.split_once('@').map(|(_, snapshot)| snapshot);
            *mark == host && snapshot.is_some_and(|s| s.starts_with(PREFIX))
        })
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Recorded;

    #[test]
    fn only_what_has_name_and_mark_is_left_over() {
        let list = "rpool@lifeboat-snap-0a1b2c3d\t0123\n\
                    rpool/data@lifeboat-snap-mine\t-\n\
                    rpool/data@lifeboat-snap-4e5f\t4567\n\
                    rpool/data@daily\t0123\n\
                    rpool/lifeboat-snap-x@y\t0123\n";
        assert_eq!(ours(list, "0123"), ["rpool@lifeboat-snap-0a1b2c3d"]);
        let command =
            "zfs get -H -s local -t snapshot -d 1 -o name,value lifeboat:snapshot rpool rpool/data";
        let sys = Recorded::new()
            .file("/etc/machine-id", "0123\n")
            .command(command, list)
            .command("zfs destroy rpool@lifeboat-snap-0a1b2c3d", "");
        let done = leftovers(&sys, &["rpool", "rpool/data"]);
        assert_eq!(done, [Ok("rpool@lifeboat-snap-0a1b2c3d".to_owned())]);
    }

    #[test]
    fn a_dataset_is_never_destroyed() {
        let sys = Recorded::new();
        for name in ["rpool", "rpool/lifeboat-snap-1", "rpool@daily"] {
            assert!(remove(&sys, name).is_err(), "{name}");
        }
        assert!(sys.log.lock().unwrap().is_empty());
    }

    #[test]
    fn the_datasets_of_a_pool_are_of_one_moment() {
        let of = |name: &str| Choice {
            mount_point: "/x".into(),
            way: Ok(Way::Zfs {
                dataset: name.to_owned(),
            }),
        };
        let sys = Recorded::new().command(
            "zfs snapshot -o lifeboat:snapshot=unknown rpool/ROOT/pve-1@n rpool/var@n",
            "",
        );
        let pools = make(
            &sys,
            &[of("rpool/ROOT/pve-1"), of("tank"), of("rpool/var")],
            "n",
        );
        assert!(pools.became_of("rpool/var").is_ok());
        assert!(pools.became_of("tank").is_err());
    }
}
