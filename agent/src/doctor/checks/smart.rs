//! What disks say of themselves, where smartctl is installed.

use std::path::Path;

use layout::model::{Node, NodeId};
use layout::system::Cmd;

use crate::doctor::{Check, Finding, Kind, Look, Severity};

const TARGET: Kind = Kind {
    id: "target-disk-failing",
    severity: Severity::Critical,
    about: "the disk of a target says that it is failing (SMART)",
    why: "Its restore points may be gone when they are needed.",
};
const HOST: Kind = Kind {
    id: "host-disk-failing",
    severity: Severity::Critical,
    about: "a disk of the host says that it is failing (SMART)",
    why: "The restore will be needed soon: a backup now, and a spare disk.",
};

pub const CHECK: Check = Check {
    kinds: &[TARGET, HOST],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let Ok(layout) = &look.layout else {
        return Vec::new();
    };
    if !look.has("smartctl") {
        return Vec::new();
    }
    let failing = |id: &NodeId| match layout.nodes.get(id) {
        Some(Node::Disk(disk)) if fails(look, &disk.device) => Some(disk.device.clone()),
        _ => None,
    };
    let mut found = Vec::new();
    for (target, here) in look.here() {
        for disk in look.disks_of(here).iter().filter_map(failing) {
            found.push(TARGET.found(
                format!(
                    "{} on {} is failing",
                    target.named.display(),
                    disk.display()
                ),
                format!("smartctl --all {}", disk.display()),
            ));
        }
    }
    for disk in layout.system_disks().iter().filter_map(failing) {
        found.push(HOST.found(format!("{} is failing", disk.display()), "lifeboat backup"));
    }
    found
}

/// smartctl(8): bits of the exit status say what is wrong with the disk, and are no reason not to read its answer.
fn fails(look: &Look, disk: &Path) -> bool {
    let ask = Cmd::new("smartctl")
        .args(["--json", "--health"])
        .path(disk)
        .timeout(std::time::Duration::from_secs(30));
    let ask = (1..=255).fold(ask, Cmd::accept);
    let Ok(output) = look.sys.run(&ask) else {
        return false;
    };
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    answer["smart_status"]["passed"].as_bool() == Some(false)
}
