//! Guests of a node: each of them is backed up, and in the way that was meant.

use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};
use crate::guests::{Mode, OnSticks, Source, choose};
use crate::history::RunResult;
use crate::proxmox::guests::Kind as GuestKind;
use crate::proxmox::{Guest, Node};

const OFF: Kind = Kind {
    id: "guests-off",
    severity: Severity::Warning,
    about: "the node has guests, and backups of guests are switched off",
    why: "A restore brings the node back without any guest.",
};
const WRONG: Kind = Kind {
    id: "guests-unknown",
    severity: Severity::Critical,
    about: "the configuration names a guest that the node does not have",
    why: "Backups of guests fail until it is corrected.",
};
const LEFT_OUT: Kind = Kind {
    id: "guests-left-out",
    severity: Severity::Hint,
    about: "some guests are left out of backups",
    why: "A restore does not bring them back.",
};
const NOWHERE: Kind = Kind {
    id: "guests-without-target",
    severity: Severity::Warning,
    about: "all targets are sticks, and guests do not go to sticks",
    why: "No guest is backed up.",
};
const NOT_SAVED: Kind = Kind {
    id: "guest-overdue",
    severity: Severity::Warning,
    about: "there is no dump of a guest that is as new as it has to be (`guests-rpo`)",
    why: "A restore brings the guest back as it was then, or not at all.",
};
const DISKS: Kind = Kind {
    id: "guest-disks-left-out",
    severity: Severity::Hint,
    about: "disks of guests are marked as not to be backed up (`backup=0`), or are no volumes of a storage",
    why: "Such a guest comes back without them.",
};
const PAUSES: Kind = Kind {
    id: "containers-pause",
    severity: Severity::Hint,
    about: "containers lie on a storage without snapshots",
    why: "vzdump suspends them for as long as it copies the last of their files.",
};

pub const CHECK: Check = Check {
    kinds: &[OFF, WRONG, LEFT_OUT, NOWHERE, NOT_SAVED, DISKS, PAUSES],
    settings: true,
    run,
};

/// Kinds of storages of which vzdump can take a snapshot of a container (PVE::Storage's feature `snapshot`).
const SNAPSHOTS: [&str; 4] = ["lvmthin", "zfspool", "rbd", "btrfs"];

fn run(look: &Look) -> Vec<Finding> {
    match &look.node {
        Some(node) => of_node(look, node),
        None => Vec::new(),
    }
}

fn of_node(look: &Look, node: &Node) -> Vec<Finding> {
    let file = quoted(look.file);
    let settings = &look.config.guests;
    if node.guests.is_empty() {
        return Vec::new();
    }
    if settings.source == Source::None {
        let what = format!("guests that are not backed up: {}", ids(&node.guests));
        return vec![OFF.found(
            what,
            format!("editor {file}  # [guests] source = \"vzdump\""),
        )];
    }
    let chosen = match choose(&node.guests, &settings.which, &settings.exclude) {
        Ok(chosen) => chosen,
        Err(error) => return vec![WRONG.found(error, format!("editor {file}  # [guests]"))],
    };
    let mut found = Vec::new();
    let is_chosen = |guest: &Guest| chosen.iter().any(|c| c.id == guest.id);
    let out = ids(node.guests.iter().filter(|guest| !is_chosen(guest)));
    if !out.is_empty() {
        let what = format!("guests that are left out: {out}");
        found.push(LEFT_OUT.found(what, format!("editor {file}  # [guests]")));
    }
    let sticks = look
        .targets
        .iter()
        .all(|t| t.here().map_or(t.may_be_unplugged(), Look::is_stick));
    if sticks && !look.targets.is_empty() && settings.on_sticks == OnSticks::Never {
        found.push(NOWHERE.found("no target takes guests", "lifeboat setup"));
    } else {
        let old = ids(chosen
            .iter()
            .copied()
            .filter(|guest| is_overdue(look, guest)));
        if !old.is_empty() {
            let what = format!("guests without a new enough dump: {old}");
            found.push(NOT_SAVED.found(what, "lifeboat backup --only-guests"));
        }
    }
    for guest in &chosen {
        let keys = guest.volumes.iter().filter(|v| !v.dumped);
        let keys: Vec<&str> = keys.map(|v| v.key.as_str()).collect();
        if !keys.is_empty() {
            found.push(DISKS.found(
                format!("{}: {} not backed up", guest.title(), keys.join(", ")),
                format!("{} config {}", tool(guest), guest.id),
            ));
        }
    }
    let pausing = chosen.iter().copied().filter(|guest| pauses(node, guest));
    let pausing = ids(pausing);
    if settings.mode == Mode::Snapshot && !pausing.is_empty() {
        let what = format!("containers on storages without snapshots: {pausing}");
        found.push(PAUSES.found(what, "pvesm status"));
    }
    found
}

fn ids<'g>(guests: impl IntoIterator<Item = &'g Guest>) -> String {
    let ids: Vec<String> = guests.into_iter().map(|g| g.id.to_string()).collect();
    ids.join(", ")
}

fn tool(guest: &Guest) -> &'static str {
    match guest.kind {
        GuestKind::Qemu => "qm",
        GuestKind::Lxc => "pct",
    }
}

fn is_overdue(look: &Look, guest: &Guest) -> bool {
    let good = look.runs.iter().rev().find(|run| {
        let mut guests = run.guests.iter();
        guests.any(|g| g.id == guest.id && g.result != RunResult::Failed)
    });
    let within = look.config.objectives.guests_rpo.0.max(1);
    good.is_none_or(|run| look.hours_since(run.started) >= within)
}

fn pauses(node: &Node, guest: &Guest) -> bool {
    let mut volumes = guest.volumes.iter().filter(|v| v.dumped);
    guest.kind == GuestKind::Lxc
        && volumes.any(|volume| {
            let storage = node.storages.iter().find(|s| s.id == volume.storage);
            storage.is_some_and(|s| !SNAPSHOTS.contains(&s.kind.as_str()))
        })
}
