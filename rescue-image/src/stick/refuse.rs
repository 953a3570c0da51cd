//! What a disk is, and why it must not be erased.

use std::path::{Path, PathBuf};

use layout::system::{Cmd, System};
use layout::units::Bytes;
use serde::Deserialize;

use super::Identity;
use crate::error::{Error, Result};

/// A line of `lsblk --json`.
#[derive(Debug, Default, Deserialize)]
struct Node {
    path: PathBuf,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    vendor: Option<String>,
    #[serde(default)]
    serial: Option<String>,
    #[serde(default)]
    tran: Option<String>,
    #[serde(default)]
    rm: bool,
    #[serde(default)]
    ro: bool,
    #[serde(default)]
    fstype: Option<String>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    parttypename: Option<String>,
    #[serde(rename = "log-sec", default)]
    sector: Option<u32>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(default)]
    children: Vec<Node>,
}

#[derive(Deserialize)]
struct List {
    blockdevices: Vec<Node>,
}

const COLUMNS: &str =
    "PATH,TYPE,SIZE,MODEL,VENDOR,SERIAL,TRAN,RM,RO,FSTYPE,LABEL,PARTTYPENAME,LOG-SEC,MOUNTPOINTS";

fn look(sys: &dyn System, device: &Path) -> Result<Node> {
    let out = sys.run(
        &Cmd::new("lsblk")
            .args(["--json", "--tree", "--bytes", "--output", COLUMNS])
            .path(device),
    )?;
    let list: List = serde_json::from_slice(&out.stdout).map_err(|e| {
        Error::format(
            device,
            format!("lsblk's answer was not understood ({e}); is util-linux 2.37 or newer?"),
        )
    })?;
    list.blockdevices
        .into_iter()
        .next()
        .ok_or_else(|| Error::format(device, "no such disk"))
}

/// Signatures that `wipefs` finds on this node itself, read now and not from udev's memory.
fn signatures(sys: &dyn System, node: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Signature {
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        signatures: Vec<Signature>,
    }
    let out = sys.run(&Cmd::new("wipefs").args(["--json", "--no-act"]).path(node))?;
    if out.text().trim().is_empty() {
        return Ok(Vec::new());
    }
    let found: Found = serde_json::from_slice(&out.stdout)
        .map_err(|e| Error::format(node, format!("wipefs' answer was not understood ({e})")))?;
    Ok(found.signatures.into_iter().map(|s| s.kind).collect())
}

fn walk<'a>(node: &'a Node, each: &mut dyn FnMut(&'a Node)) {
    each(node);
    for child in &node.children {
        walk(child, each);
    }
}

/// Reads what `device` is and what is on it.
pub fn identify(sys: &dyn System, device: &Path) -> Result<Identity> {
    let disk = look(sys, device)?;
    let mut contents = Vec::new();
    walk(&disk, &mut |node| {
        let what = match (&node.fstype, &node.parttypename) {
            (Some(fs), _) => fs.clone(),
            (None, Some(kind)) => kind.clone(),
            (None, None) if node.kind == "part" => "partition".into(),
            (None, None) => return,
        };
        let label = node
            .label
            .as_ref()
            .map(|l| format!(" \"{l}\""))
            .unwrap_or_default();
        let used: Vec<_> = node
            .mountpoints
            .iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let used = if used.is_empty() {
            String::new()
        } else {
            format!(", in use at {}", used.join(", "))
        };
        let size = Bytes(node.size.unwrap_or_default());
        contents.push(format!(
            "{}: {what}{label}, {size}{used}",
            node.path.display()
        ));
    });
    if contents.is_empty() {
        // No partitions that the kernel knows: what is on the whole disk.
        contents.extend(
            signatures(sys, device)?
                .into_iter()
                .map(|kind| format!("{}: {kind}", device.display())),
        );
        contents.dedup();
    }
    let words = [disk.vendor.as_deref(), disk.model.as_deref()];
    Ok(Identity {
        device: device.to_owned(),
        model: words
            .iter()
            .flatten()
            .map(|w| w.trim())
            .filter(|w| !w.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
        serial: disk.serial.unwrap_or_default(),
        size: Bytes(disk.size.unwrap_or_default()),
        sector_size: disk.sector.unwrap_or(512),
        removable: disk.rm,
        transport: disk.tran.unwrap_or_default(),
        read_only: disk.ro,
        contents,
    })
}

/// All reasons why `device` must not become a medium; empty: none.
pub fn refusals(sys: &dyn System, device: &Path, needed: Bytes) -> Result<Vec<String>> {
    let disk = look(sys, device)?;
    let mut reasons = Vec::new();
    match disk.kind.as_str() {
        "disk" | "loop" => {}
        "part" => reasons.push("it is a partition; name the whole disk".into()),
        other => reasons.push(format!("it is not a disk but of type {other}")),
    }
    if disk.ro {
        reasons.push("it is write protected".into());
    }
    let size = Bytes(disk.size.unwrap_or_default());
    if size < needed {
        reasons.push(format!("it has {size}, but {needed} are needed"));
    }
    let mut nodes = Vec::new();
    walk(&disk, &mut |node| nodes.push(node));
    for node in nodes {
        let name = node.path.display();
        for place in node.mountpoints.iter().flatten() {
            reasons.push(if place == "[SWAP]" {
                format!("{name} is swap in use")
            } else {
                format!("{name} is mounted at {place}")
            });
        }
        let inner = !matches!(node.kind.as_str(), "disk" | "part" | "loop" | "rom");
        if inner {
            reasons.push(format!("{name} ({}) is active on it", node.kind));
            continue;
        }
        let mut kinds = signatures(sys, &node.path)?;
        kinds.extend(node.fstype.clone());
        kinds.sort();
        kinds.dedup();
        for kind in kinds {
            match kind.as_str() {
                "LVM2_member" => reasons.push(format!(
                    "{name} is an LVM physical volume (if it is not needed: pvremove, wipefs)"
                )),
                // linux_, ddf_, isw_, and those of a dozen controllers.
                raid if raid.ends_with("_raid_member") => {
                    reasons.push(format!(
                        "{name} is a member of a RAID array (if it is not needed: wipefs)"
                    ));
                }
                "zfs_member" => reasons.push(format!(
                    "{name} is a member of a ZFS pool (if it is not needed: zpool labelclear)"
                )),
                "bcache" | "ceph_bluestore" | "drbd" => reasons.push(format!(
                    "{name} is a part of {kind} (if it is not needed: wipefs)"
                )),
                _ => {}
            }
        }
    }
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Recorded;

    #[test]
    fn members_of_any_raid_are_refused() {
        for kind in [
            "linux_raid_member",
            "adaptec_raid_member",
            "promise_fasttrack_raid_member",
        ] {
            let list = r#"{"blockdevices":[{"path":"/dev/sdx","type":"disk","size":99999999}]}"#;
            let found = format!(r#"{{"signatures":[{{"type":"{kind}"}}]}}"#);
            let sys = Recorded::new()
                .command(
                    &format!("lsblk --json --tree --bytes --output {COLUMNS} /dev/sdx"),
                    list,
                )
                .command("wipefs --json --no-act /dev/sdx", &found);
            let reasons = refusals(&sys, Path::new("/dev/sdx"), Bytes(1)).unwrap();
            assert!(
                reasons.len() == 1 && reasons[0].contains("RAID"),
                "{kind}: {reasons:?}"
            );
        }
    }
}
