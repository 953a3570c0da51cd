//! Mail gets out of this host.

use crate::doctor::{Check, Finding, Kind, Look, Severity};

const NO_MAIL: Kind = Kind {
    id: "no-mail",
    severity: Severity::Warning,
    about: "no program takes mail (`sendmail` is missing)",
    why: "When a backup fails at night, nobody gets to know.",
};

pub const CHECK: Check = Check {
    kinds: &[NO_MAIL],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    // Debian's mail transport agents, and those of Proxmox VE, put it there.
    if look.has("sendmail") || look.sys.exists("/usr/lib/sendmail".as_ref()) {
        return Vec::new();
    }
    // Without an address nothing is to be sent.
    if super::messages::mail_to(look.config).is_some_and(|to| to.is_empty()) {
        return Vec::new();
    }
    vec![NO_MAIL.found("sendmail is missing", "apt-get install postfix")]
}
