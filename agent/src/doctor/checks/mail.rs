//! Mail gets out of this host.

use super::messages;
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
    // Without an address nothing is to be sent.
    let nobody = messages::mail_to(look.config).is_some_and(|to| to.is_empty());
    let program = messages::sendmail(look.config);
    if nobody || look.sys.exists(&program) {
        return Vec::new();
    }
    let what = format!("{} is missing", program.display());
    vec![NO_MAIL.found(what, "apt-get install postfix")]
}
