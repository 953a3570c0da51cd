//! Encryption of targets: it is there, and the day on which the key is needed was thought of.

use bundle::crypt::SlotKind;

use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};
use crate::keys;

const PLAIN: Kind = Kind {
    id: "target-not-encrypted",
    severity: Severity::Hint,
    about: "a target is not encrypted",
    why: "Whoever finds it has all of the host's passwords and keys.",
};
const NO_RECOVERY: Kind = Kind {
    id: "no-recovery-key",
    severity: Severity::Warning,
    about: "an encrypted target has no recovery key",
    why: "When the passphrase is forgotten, its restore points are lost with the host.",
};
const NOT_KEPT: Kind = Kind {
    id: "key-not-kept",
    severity: Severity::Warning,
    about: "this host does not keep the key of an encrypted target",
    why: "A scheduled backup has nobody to ask, and fails.",
};

pub const CHECK: Check = Check {
    kinds: &[PLAIN, NO_RECOVERY, NOT_KEPT],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let mut found = Vec::new();
    for (target, here) in look.here() {
        let Ok(store) = &here.store else { continue };
        let (name, arg) = (target.named.display(), quoted(&target.named));
        if !store.encrypted {
            found.push(PLAIN.found(
                format!("{name} is not encrypted"),
                format!("lifeboat key init --on {arg}  # while it holds nothing"),
            ));
            continue;
        }
        if store.keys.iter().all(|key| key.kind != SlotKind::Recovery) {
            found.push(NO_RECOVERY.found(
                format!("{name} has no recovery key"),
                format!("lifeboat key add --recovery --on {arg}"),
            ));
        }
        // Others than root do not see what root keeps.
        if look.root && !keys::is_kept(&look.config.keys, &store.id) {
            found.push(NOT_KEPT.found(
                format!("this host does not keep the key of {name}"),
                format!("lifeboat key keep --on {arg}"),
            ));
        }
    }
    found
}
