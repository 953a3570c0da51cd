//! `lifeboat inventory`

use anyhow::Context as _;

use crate::Context;
use crate::output::{Outcome, table};
use crate::values;

/// Shows the disks at hand.
pub fn run(context: &Context) -> anyhow::Result<Outcome> {
    let inventory = layout::inventory::inventory(&context.sys)
        .context("cannot list the disks of this machine")?;
    context.out.result(&inventory, || {
        let rows: Vec<Vec<String>> = inventory
            .disks
            .iter()
            .map(|d| {
                let mut state = Vec::new();
                if d.in_use {
                    state.push("in use");
                }
                if d.read_only {
                    state.push("read-only");
                }
                if d.removable {
                    state.push("removable");
                }
                vec![
                    d.device.display().to_string(),
                    d.model.clone().unwrap_or_default(),
                    d.serial.clone().unwrap_or_default(),
                    values::bytes(d.size.0),
                    state.join(", "),
                    d.contents.join("; "),
                ]
            })
            .collect();
        table(
            &["disk", "model", "serial", ">size", "state", "contents"],
            &rows,
        )
    })?;
    Ok(Outcome::Fine)
}
