//! LVM snapshots: classic ones, which have space of their own, and those in thin pools.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Choice, Limits, Live, PREFIX, Snapshot, Way};
use crate::capture::lvm::{NEVER_INSIDE, Row, parse};
use crate::system::{Cmd, System, SystemError};

/// The tag by which a volume is known as a snapshot of this program.
pub(crate) const TAG: &str = "lifeboat-snapshot";

/// A classic snapshot is not made smaller than this, or than its origin.
const LEAST: u64 = 16 << 20;

const FIELDS: &str = "vg_name,lv_name,lv_tags,lv_attr,lv_size,origin,pool_lv,vg_free,vg_extent_size,data_percent,metadata_percent,\
                      lv_snapshot_invalid";

fn ask(sys: &dyn System) -> Result<Vec<Row>, String> {
    let command = Cmd::new("lvs").args([
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "--config",
        NEVER_INSIDE,
        "-o",
        FIELDS,
    ]);
    // Status 5: some group is incomplete, the rest is reported.
    match sys.run(&command.accept(5)) {
        Ok(output) => parse(&output.text(), "lv").map_err(|e| format!("lvs: {e}")),
        Err(SystemError::Start { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a row of a report is that of a snapshot of this program: by its tag and by its name. Of a group that several
/// hosts see, it may be another host's.
pub(crate) fn is_ours(row: &Row) -> bool {
    row.text("lv_name").starts_with(PREFIX)
        && row.tags("lv_tags").iter().any(|tag| tag.starts_with(TAG))
        && !row.text("origin").is_empty()
}

/// The tag of this host's: another one, which sees the group, too, must not remove them.
fn tag(sys: &dyn System) -> String {
    format!("{TAG}-{}", super::host(sys))
}

fn percent(row: &Row, field: &str) -> Option<f64> {
    row.text(field).parse().ok()
}

fn find<'r>(rows: &'r [Row], vg: &str, lv: &str) -> Option<&'r Row> {
    let mut rows = rows.iter();
    rows.find(|row| row.text("vg_name") == vg && row.text("lv_name") == lv)
}

/// Why a pool has no room for what is overwritten while a snapshot is there.
fn fullness(pool: &Row, limit: u32) -> Option<String> {
    let parts = [("data", "data_percent"), ("metadata", "metadata_percent")];
    parts.into_iter().find_map(|(what, field)| {
        let used = percent(pool, field);
        // What LVM does not tell is no reason to trust it.
        let over = used.is_none_or(|used| used >= f64::from(limit));
        over.then(|| {
            let used = used.map_or("unknown".to_owned(), |used| format!("{used:.0} %"));
            format!(
                "of the thin pool {}/{} {used} of the {what} is in use, the limit is {limit} %",
                pool.text("vg_name"),
                pool.text("lv_name")
            )
        })
    })
}

/// Gives classic snapshots their sizes, and takes back the choice where there is no room.
pub(super) fn size(sys: &dyn System, choices: &mut [Choice], limits: &Limits) {
    let lvm = |c: &Choice| matches!(c.way, Ok(Way::Lvm { .. } | Way::Thin { .. }));
    if !choices.iter().any(lvm) {
        return;
    }
    let rows = match ask(sys) {
        Ok(rows) => rows,
        Err(error) => {
            for choice in choices.iter_mut().filter(|c| lvm(c)) {
                choice.way = Err(Live::because(format!("LVM cannot be asked: {error}")));
            }
            return;
        }
    };
    let mut classic: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, choice) in choices.iter_mut().enumerate() {
        let refused = match &choice.way {
            Ok(Way::Lvm { vg, lv, .. }) if find(&rows, vg, lv).is_some() => {
                classic.entry(vg.clone()).or_default().push(index);
                None
            }
            Ok(Way::Thin { vg, pool, .. }) => match find(&rows, vg, pool) {
                Some(row) => fullness(row, limits.pool),
                None => Some(format!("LVM does not know the pool {vg}/{pool}")),
            },
            Ok(Way::Lvm { vg, lv, .. }) => Some(format!("LVM does not know {vg}/{lv}")),
            _ => None,
        };
        if let Some(reason) = refused {
            choice.way = Err(Live::because(reason));
        }
    }
    for (vg, indices) in classic {
        let of = |index: &usize| match &choices[*index].way {
            Ok(Way::Lvm { lv, .. }) => find(&rows, &vg, lv),
            _ => None,
        };
        let sizes: Vec<u64> = indices
            .iter()
            .map(|i| of(i).map_or(0, |row| row.bytes("lv_size").0))
            .collect();
        let first = indices.first().and_then(of);
        let free = first.map_or(0, |row| row.bytes("vg_free").0);
        let extent = first.map_or(0, |row| row.bytes("vg_extent_size").0);
        let given = share(&sizes, free, extent, limits.reserve);
        for (index, given) in indices.into_iter().zip(given) {
            match (&mut choices[index].way, given) {
                (Ok(Way::Lvm { size, .. }), Some(given)) => *size = given,
                (way, _) => {
                    *way = Err(Live::because(format!(
                        "the volume group {vg} has too little free space for a snapshot ({} MiB)",
                        free >> 20
                    )));
                }
            }
        }
    }
}

/// How much of the free space each of the volumes of a group gets, in their order. A quarter stays free: pools may have
/// to grow meanwhile.
fn share(sizes: &[u64], free: u64, extent: u64, percent: u32) -> Vec<Option<u64>> {
    let extent = extent.max(1);
    let up = |bytes: u64| bytes.div_ceil(extent) * extent;
    let budget = free / 4 * 3;
    let wanted = |size: u64| {
        let part = u128::from(size) * u128::from(percent) / 100;
        let part = u64::try_from(part).unwrap_or(u64::MAX / 2);
        up(part.max(least(size)))
    };
    let mut count = sizes.len();
    // The last ones go without, where it is not enough for all.
    while count > 0 {
        let sum: u128 = sizes[..count].iter().map(|s| u128::from(wanted(*s))).sum();
        let given = |size: u64| {
            let part = u128::from(wanted(size)) * u128::from(budget) / sum.max(1);
            let part = u64::try_from(part).unwrap_or(u64::MAX);
            part.min(wanted(size)) / extent * extent
        };
        if sizes[..count].iter().all(|s| given(*s) >= least(*s)) {
            let mut all: Vec<Option<u64>> =
                sizes[..count].iter().map(|s| Some(given(*s))).collect();
            all.resize(sizes.len(), None);
            return all;
        }
        count -= 1;
    }
    vec![None; sizes.len()]
}

fn least(size: u64) -> u64 {
    LEAST.min(size)
}

/// Rules for udev, between those of LVM, which tell the names (56-lvm.rules), and those that make links (60-).
const RULES: &str = "/run/udev/rules.d/57-lifeboat-snapshots.rules";

/// A snapshot has the UUID and label of its origin, and of two thin volumes with the same, udev may let either have the link in
/// `/dev/disk/by-uuid`: snapshots get no links.
const NO_LINKS: &str = "# Snapshots that exist while a backup is made.\n\
    SUBSYSTEM==\"block\", ENV{DM_LV_NAME}==\"lifeboat-snap-*\", ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}=\"1\"\n";

/// Has udev leave the snapshots alone that are made from now on, until the next reboot.
pub(super) fn keep_links(sys: &dyn System) {
    let path = Path::new(RULES);
    if sys.text(path).is_some_and(|text| text == NO_LINKS.trim()) {
        return;
    }
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .map_err(|e| e.to_string())
        .and_then(|()| {
            sys.write(path, NO_LINKS.as_bytes())
                .map_err(|e| e.to_string())
        })
        .and_then(|()| {
            let reload = Cmd::new("udevadm").args(["control", "--reload"]);
            sys.run(&reload).map(|_| ()).map_err(|e| e.to_string())
        });
    if let Err(error) = written {
        tracing::warn!("udev may let links lead to snapshots meanwhile: {error}");
    }
}

/// How long LVM may take to change a volume: longer than anything that ends by itself.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Makes a snapshot that can only be read. LVM freezes the filesystem for that moment.
pub(super) fn make(sys: &dyn System, way: &Way, name: &str) -> Result<(), String> {
    // No backup of LVM's metadata for what is gone in an hour.
    let command = Cmd::new("lvcreate").args(["--autobackup", "n", "--yes", "--snapshot"]);
    // One that is killed between suspending the origin and resuming it leaves the host hanging.
    let command = command.timeout(PATIENCE);
    let tag = tag(sys);
    let command = command.args(["--permission", "r", "--name", name, "--addtag", &tag]);
    let command = match way {
        Way::Lvm { vg, lv, size, .. } => command
            .args(["--size", &format!("{size}b")])
            .arg(format!("{vg}/{lv}")),
        // Active now, but not after a reboot: it has the UUIDs of its origin.
        Way::Thin { vg, lv, .. } => command
            .args(["--setactivationskip", "y", "--ignoreactivationskip"])
            .arg(format!("{vg}/{lv}")),
        _ => return Err("not of LVM".to_owned()),
    };
    let made = sys.run(&command).map(|_| ()).map_err(|e| e.to_string());
    if made.is_err() {
        // It may be there all the same: made, and not active.
        let (Way::Lvm { vg, .. } | Way::Thin { vg, .. }) = way else {
            return made;
        };
        let rows = ask(sys).unwrap_or_default();
        if find(&rows, vg, name).is_some_and(is_ours) {
            if let Err(error) = remove(sys, &format!("{vg}/{name}")) {
                tracing::warn!("the snapshot {vg}/{name} could not be removed: {error}");
            }
        }
    }
    made
}

pub(super) fn remove(sys: &dyn System, volume: &str) -> Result<(), String> {
    let command = Cmd::new("lvremove").args(["--autobackup", "n", "--yes", volume]);
    let command = command.timeout(PATIENCE);
    patiently(sys, &command)
}

/// Runs a command that removes a snapshot; udev, or somebody who looks at all devices, may hold it for a moment.
pub(super) fn patiently(sys: &dyn System, command: &Cmd) -> Result<(), String> {
    let mut pause = Duration::from_millis(200);
    loop {
        match sys.run(command) {
            Ok(_) => return Ok(()),
            Err(error @ SystemError::Failed { .. }) if pause < Duration::from_secs(4) => {
                tracing::debug!("once more in {} ms: {error}", pause.as_millis());
            }
            Err(error) => return Err(error.to_string()),
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
}

pub(super) fn leftovers(sys: &dyn System) -> Vec<Result<String, String>> {
    let rows = match ask(sys) {
        Ok(rows) => rows,
        Err(error) => {
            return vec![Err(format!(
                "cannot look for snapshots that are left: {error}"
            ))];
        }
    };
    let tag = tag(sys);
    let of_this_host = |row: &&Row| is_ours(row) && row.tags("lv_tags").contains(&tag);
    let ours = rows.iter().filter(of_this_host);
    ours.map(|row| {
        let volume = format!("{}/{}", row.text("vg_name"), row.text("lv_name"));
        remove(sys, &volume)
            .map_err(|e| format!("the snapshot {volume} cannot be removed: {e}"))
            .map(|()| volume)
    })
    .collect()
}

/// See [`super::examine`].
pub(super) fn examine(
    sys: &dyn System,
    snapshots: &[&Snapshot<'_>],
    limits: &Limits,
) -> Vec<(PathBuf, String)> {
    let lvm = |s: &&&Snapshot<'_>| matches!(s.way, Way::Lvm { .. } | Way::Thin { .. });
    let snapshots: Vec<&&Snapshot<'_>> = snapshots.iter().filter(lvm).collect();
    if snapshots.is_empty() {
        return Vec::new();
    }
    let rows = ask(sys);
    let troubles = snapshots.into_iter().filter_map(|snapshot| {
        let why = match &rows {
            Ok(rows) => trouble(rows, &snapshot.way, &snapshot.name, limits)?,
            Err(error) => format!("LVM does not tell whether its snapshot is whole: {error}"),
        };
        Some((snapshot.mount_point.clone(), why))
    });
    troubles.collect()
}

fn trouble(rows: &[Row], way: &Way, name: &str, limits: &Limits) -> Option<String> {
    match way {
        Way::Lvm { vg, .. } => {
            let Some(row) = find(rows, vg, name) else {
                return Some(format!("its snapshot {vg}/{name} is gone"));
            };
            let attributes = row.text("lv_attr");
            // Capital S, and I in the fifth place: lvs(8).
            let invalid = row.is_set("lv_snapshot_invalid")
                || attributes.starts_with('S')
                || matches!(attributes.chars().nth(4), Some('I' | 'S'))
                || percent(row, "data_percent").is_none_or(|used| used >= 100.0);
            invalid.then(|| {
                format!(
                    "its snapshot {vg}/{name} ran full: more was written than its {} MiB can keep; raise \
                     consistency.reserve, or give the volume group more free space",
                    row.bytes("lv_size").0 >> 20
                )
            })
        }
        Way::Thin { vg, pool, .. } => match (find(rows, vg, name), find(rows, vg, pool)) {
            (Some(_), Some(row)) => fullness(row, limits.pool),
            _ => Some(format!("its snapshot {vg}/{name} is gone")),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_free_space_is_shared_out() {
        let e = 4 * MIB;
        let g = 1024 * MIB;
        // Enough for all: the share of each, at least the least.
        assert_eq!(
            share(&[g, 40 * MIB], g, e, 20),
            [Some(208 * MIB), Some(16 * MIB)]
        );
        // A tiny volume needs no more than itself.
        assert_eq!(share(&[8 * MIB], g, e, 20), [Some(8 * MIB)]);
        // Less than that: in proportion, and a quarter stays free.
        assert_eq!(
            share(&[10 * g, 10 * g], g, e, 20),
            [Some(384 * MIB), Some(384 * MIB)]
        );
        // Not for all: the first one.
        assert_eq!(share(&[g, g], 40 * MIB, e, 20), [Some(28 * MIB), None]);
        assert_eq!(share(&[g], 16 * MIB, e, 20), [None]);
        assert_eq!(share(&[g], 0, 0, 20), [None]);
    }
}
