//! What follows when the list was worked off: guests are started, or let go to be started.

use std::path::Path;
use std::time::Duration;

use bundle::document::guest::GuestKind;
use bundle::events::Events as _;
use layout::system::Cmd;
use rescue_image::guests::shared::{HELD, Held};
use rescue_image::guests::{Pending, install};

use super::{Worker, tool};
use crate::proxmox::guests::collect;

/// The unit that works the list off at boot.
const UNIT: &str = "lifeboat-guests.service";

impl Worker<'_> {
    /// When all guests are there, the list goes away, and what starts guests is let go; else those that are there are started,
    /// as they would be with the node. True when all are there.
    ///
    /// On a node that was restored alone and whose guests have disks that other nodes reach, nothing else starts guests: so
    /// those that only this node can run are started in both cases.
    pub fn finish(&self) -> anyhow::Result<bool> {
        let list = self.now();
        let held = self.held();
        if list.complete() {
            // Asked before the unit's file goes away.
            let at_boot = self.at_boot();
            Pending::remove(&self.dir)?;
            for problem in install::uninstall(&self.root) {
                tracing::warn!("{problem}");
            }
            self.progress.say(&format!(
                "all guests of the list are there: {}",
                list.guests.len()
            ));
            if !at_boot {
                self.try_run(&Cmd::new("systemctl").arg("daemon-reload"));
            }
            match held {
                Some(held) => self.start_others(&held),
                // At boot they are started by what waited for this.
                None if at_boot => {}
                None => {
                    let start = ["--nooutput", "create", "/nodes/localhost/startall"];
                    self.try_run(
                        &Cmd::new("pvesh")
                            .args(start)
                            .timeout(Duration::from_secs(3600)),
                    );
                }
            }
            if !at_boot {
                self.let_go();
            }
            return Ok(true);
        }
        let there = list.guests.iter().filter(|g| g.state.is_there());
        for guest in there.filter(|g| g.onboot) {
            match &held {
                Some(held) if held.holds(guest.id) => self.not_started(&guest.title()),
                _ => self.start(guest.kind, guest.id, &guest.title()),
            }
        }
        for guest in list.guests.iter().filter(|g| !g.state.is_there()) {
            let why = guest.error.as_deref().unwrap_or("not tried");
            self.progress
                .say(&format!("{} is not back: {why}", guest.title()));
        }
        self.progress.say(
            "Restore what is missing with `lifeboat guests restore ID`, or give it up with `lifeboat guests forget ID`; until \
             then the node starts no guests by itself that are not on this list.",
        );
        Ok(false)
    }

    /// The guests that are held back, on a node that was restored alone and has such guests. A file that cannot be read holds
    /// all of them.
    fn held(&self) -> Option<Held> {
        let path = Path::new(HELD);
        let there = self.sys.exists(path);
        there.then(|| Held::parse(&self.sys.text(path).unwrap_or_default()))
    }

    /// Starts what pve-guests would, but for those that are held back: also guests that are not on the list.
    fn start_others(&self, held: &Held) {
        let mut guests = collect(self.sys, &self.node);
        guests.retain(|g| g.onboot && !g.template);
        guests.sort_by_key(|g| (g.order.unwrap_or(u32::MAX), g.id));
        for guest in &guests {
            let title = guest.title();
            if held.holds(guest.id) {
                self.not_started(&title);
                continue;
            }
            // A lock that the backup of the configuration caught: so does `startall`.
            if guest.lock.as_deref() == Some("backup") {
                self.try_run(&Cmd::new(tool(guest.kind)).args(["unlock", &guest.id.to_string()]));
            }
            self.start(guest.kind, guest.id, &title);
        }
        self.progress.say(&format!(
            "This node was restored alone, and starts no guests by itself at the next boots: {HELD} says why, and how it does \
             again."
        ));
    }

    fn not_started(&self, title: &str) {
        self.progress.warn(&format!(
            "{title}: NOT started, as other nodes may reach its disks and run it (see {HELD})"
        ));
    }

    fn start(&self, kind: GuestKind, id: u32, title: &str) {
        let (tool, id) = (tool(kind), id.to_string());
        let status = self.sys.run(&Cmd::new(tool).args(["status", &id]));
        if status.is_ok_and(|s| s.text().contains("running")) {
            return;
        }
        self.progress.say(&format!("{title}: starting"));
        self.try_run(&Cmd::new(tool).args(["start", &id]));
    }

    /// Whether this is the unit's doing: then those that start guests wait for its end.
    fn at_boot(&self) -> bool {
        // Status 3: a unit that is not active, which it is not before its end.
        let ask = Cmd::new("systemctl")
            .args(["is-active", UNIT])
            .accept(3)
            .accept(4);
        let answer = self.sys.run(&ask);
        answer.is_ok_and(|output| output.text().trim() == "activating")
    }

    /// What was held back at boot runs from now on: with it, guests are shut down in order with the node, and those that
    /// are watched over by the cluster are. `pve-guests` refuses to be started by hand, so that another unit asks for it.
    fn let_go(&self) {
        let mut ask = Cmd::new("systemd-run").args(["--quiet", "--no-block", "--collect"]);
        let mut some = false;
        for unit in install::STARTERS {
            let unit = format!("{unit}.service");
            let is_enabled = Cmd::new("systemctl").args(["is-enabled", &unit]);
            // Masked ones stay masked, and one that the admin does not want stays away.
            if self.sys.run(&is_enabled).is_ok() {
                ask = ask.arg(format!("--property=Wants={unit}"));
                some = true;
            }
        }
        if some {
            self.try_run(&ask.arg("true"));
        }
    }

    pub(super) fn try_run(&self, command: &Cmd) {
        if let Err(error) = self.sys.run(command) {
            self.progress.warn(&error.to_string());
        }
    }
}

#[cfg(test)]
#[path = "finish_tests.rs"]
mod tests;
