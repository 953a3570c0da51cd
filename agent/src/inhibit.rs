//! Keeps the machine from being switched off or put to sleep while something is written.

use std::path::Path;
use std::time::Duration;

use layout::system::{Cmd, Held};

/// As long as it lives, systemd-logind refuses to switch the machine off, unless it is forced to.
#[derive(Debug)]
pub struct Inhibitor(#[expect(dead_code, reason = "its end lets go")] Option<Held>);

/// Where there is no logind, or where it does not answer, the work goes on without: a stop by a signal, which a machine
/// that is switched off sends, is a clean one.
pub fn shutdown(why: &str) -> Inhibitor {
    // As sd_booted(3) finds out. Others than root would be asked for a password.
    if !Path::new("/run/systemd/system").exists() || !nix::unistd::geteuid().is_root() {
        return Inhibitor(None);
    }
    // cat ends with this process, and with it the lock.
    let command = Cmd::new("systemd-inhibit")
        .args(["--what=shutdown:sleep", "--who=Lifeboat", "--mode=block"])
        .arg(format!("--why={why}"))
        .arg("cat")
        .timeout(Duration::from_secs(10));
    let held = Held::start(&command);
    Inhibitor(
        held.inspect_err(|error| {
            tracing::info!("the machine may be switched off meanwhile: {error}")
        })
        .ok(),
    )
}
