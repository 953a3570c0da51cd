//! What follows an attempt: guests are started, or what starts them is let go.

use std::path::Path;
use std::time::Duration;

use bundle::events::Events as _;
use layout::system::Cmd;
use rescue_image::guests::{Guest, Pending, install};

use super::{UNIT, Worker, tool};
use crate::guests::left;
use crate::guests::present::{Present, look};
use crate::guests::restore::existing;

impl Worker<'_> {
    /// Takes guests off the list: they are given up, or were brought back some other way.
    pub fn forget(&self, ids: &[u32]) -> anyhow::Result<()> {
        for guest in self.now().guests.iter().filter(|g| ids.contains(&g.id)) {
            if guest.was_absent && !guest.state.is_there() {
                self.give_up(guest);
            }
        }
        let mut list = self.list();
        list.guests.retain(|g| !ids.contains(&g.id));
        list.write(&self.dir)?;
        self.status(&list);
        Ok(())
    }

    /// What attempts left of a guest is not started with the node, which may follow at once.
    fn give_up(&self, guest: &Guest) {
        let Some(there) = existing(self.sys, guest.id) else {
            return;
        };
        if matches!(look(self.sys, &there.guest), Ok(Present::Nothing)) {
            return;
        }
        let (title, tool) = (guest.title(), tool(there.guest.kind));
        if !left::is_it(guest.left, &there) {
            self.warn(&format!(
                "{title} may be what an attempt to restore it left, and not whole: look at it"
            ));
            return;
        }
        self.warn(&format!(
            "{title} is what an attempt to restore it left, and not whole: it is not started with the node any more, and \
             `{tool} destroy {}` removes it",
            guest.id
        ));
        if there.guest.onboot {
            let set = ["set", &guest.id.to_string(), "--onboot", "0"];
            self.try_run(&Cmd::new(tool).args(set));
        }
    }

    /// What follows: when all guests are there, the list goes away, and what starts guests is let go; else those that are
    /// there are started, as they would be with the node. True when all are there.
    pub fn finish(&self) -> anyhow::Result<bool> {
        let list = self.now();
        let at_boot = self.at_boot();
        if list.complete() {
            Pending::remove(&self.dir)?;
            for problem in install::uninstall(Path::new("/")) {
                tracing::warn!("{problem}");
            }
            self.progress.say(&format!(
                "all guests of the list are there: {}",
                list.guests.len()
            ));
            // At boot they are started by what waited for this.
            if !at_boot {
                self.try_run(&Cmd::new("systemctl").arg("daemon-reload"));
                let start = ["--nooutput", "create", "/nodes/localhost/startall"];
                self.try_run(
                    &Cmd::new("pvesh")
                        .args(start)
                        .timeout(Duration::from_secs(3600)),
                );
                self.let_go();
            }
            return Ok(true);
        }
        for guest in list
            .guests
            .iter()
            .filter(|g| g.state.is_there() && g.onboot)
        {
            let id = guest.id.to_string();
            let tool = tool(guest.kind);
            let status = self.sys.run(&Cmd::new(tool).args(["status", &id]));
            if status.is_ok_and(|s| s.text().contains("running")) {
                continue;
            }
            self.progress.say(&format!("{}: starting", guest.title()));
            self.try_run(&Cmd::new(tool).args(["start", &id]));
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

    fn try_run(&self, command: &Cmd) {
        if let Err(error) = self.sys.run(command) {
            self.progress.warn(&error.to_string());
        }
    }
}
