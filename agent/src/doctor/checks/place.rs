//! Where targets lie: not where the host itself does.

use crate::doctor::finding::quoted;
use crate::doctor::place::Place;
use crate::doctor::{Check, Finding, Kind, Look, Severity};

const SAME: Kind = Kind {
    id: "target-on-host-disk",
    severity: Severity::Critical,
    about: "a target lies on a disk of the host's own system",
    why: "When that disk dies, or is restored onto, its restore points are gone as well.",
};
const MEMORY: Kind = Kind {
    id: "target-in-memory",
    severity: Severity::Critical,
    about: "a target lies in memory (tmpfs)",
    why: "It is gone with the next restart.",
};
const ONE: Kind = Kind {
    id: "one-target",
    severity: Severity::Hint,
    about: "there is one target only",
    why: "A second one on another medium heals damage of the first, and is there when the first is lost.",
};

pub const CHECK: Check = Check {
    kinds: &[SAME, MEMORY, ONE],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let mut found = Vec::new();
    let system = match &look.layout {
        Ok(layout) => layout.system_disks(),
        Err(_) => Default::default(),
    };
    for (target, here) in look.here() {
        let name = target.named.display();
        let shared = look.disks_of(here);
        let shared: Vec<String> = shared
            .intersection(&system)
            .filter_map(|id| {
                let node = look.layout.as_ref().ok()?.nodes.get(id)?;
                Some(node.device()?.display().to_string())
            })
            .collect();
        if !shared.is_empty() {
            let what = format!(
                "{name} lies on {}, which holds the system itself",
                shared.join(" and ")
            );
            found.push(SAME.found(what, "lifeboat setup"));
        }
        if let Place::Mount { fstype, .. } = &here.place {
            if matches!(fstype.as_str(), "tmpfs" | "ramfs") {
                let what = format!("{name} lies in memory ({fstype})");
                found.push(MEMORY.found(what, "lifeboat setup"));
            }
        }
    }
    if let [only] = &look.targets[..] {
        let what = format!("{} is the only target", only.named.display());
        found.push(ONE.found(
            what,
            format!("lifeboat setup  # besides {}", quoted(&only.named)),
        ));
    }
    found
}
