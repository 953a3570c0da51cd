//! What follows the end of a run: messages and metrics. Whatever goes wrong here, the run stays what it was.

use nix::unistd::AccessFlags;

use crate::history::{Kind, Run};
use crate::status::Status;
use crate::{Context, metrics, notify};

/// Tells those who want to know that a run has ended.
pub fn ended(context: &Context, run: &Run) {
    // Who saves directories by hand is there to see it, and a user has no messages of the host to send.
    let aside = run.kind == Kind::Directories && context.config.roots.is_empty();
    // For root it is read-only on a dying disk, too: then there is most to tell.
    let own = nix::unistd::geteuid().is_root()
        || nix::unistd::access(&context.config.state, AccessFlags::W_OK).is_ok();
    if aside || !own {
        return;
    }
    let status = match Status::gather_after(context, Some(run)) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("warning: no messages and no metrics: {error:#}");
            return;
        }
    };
    for problem in notify::due(context, &status) {
        eprintln!("warning: {problem}");
    }
    if let Err(error) = metrics::write(&context.config.metrics, &status) {
        eprintln!("warning: {error:#}");
    }
}
