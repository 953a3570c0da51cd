//! Guests that are given up.

use layout::system::Cmd;
use rescue_image::guests::Guest;

use super::{Worker, tool};
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
}
