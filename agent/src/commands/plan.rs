//! `lifeboat plan`

use anyhow::Context as _;
use layout::inventory::Inventory;
use layout::plan::{Choices, Grow, PlanError, plan};

use crate::Context;
use crate::cli::PlanArgs;
use crate::disks;
use crate::output::{Outcome, Refused};
use crate::targets::{chosen, reading};

/// Shows what a restore would do. Opens no disk for writing.
pub fn run(context: &Context, args: &PlanArgs) -> anyhow::Result<Outcome> {
    let targets = chosen(&args.from.from, &context.config, "--from")?;
    let (saved, never) = reading(&targets, |sources| {
        let (_, snapshot) = sources.snapshot(&args.snapshot)?;
        Ok((super::layout::saved(&snapshot)?, sources.media.clone()))
    })?;
    let inventory: Inventory = match &args.inventory {
        Some(file) => {
            let text = std::fs::read(file)
                .with_context(|| format!("cannot read the inventory {}", file.display()))?;
            serde_json::from_slice(&text)
                .with_context(|| format!("{} is not an inventory", file.display()))?
        }
        None => layout::inventory::inventory(&context.sys)
            .context("cannot list the disks of this machine")?,
    };
    let choices = Choices {
        mode: args.mode,
        disks: disks::choices(&saved, &inventory, &args.disk)?,
        never,
        grow: if args.no_grow {
            Grow::Nothing
        } else {
            args.grow
        },
        leave_out: args.leave_out.iter().copied().collect(),
        blank_only: false,
        ..Choices::default()
    };
    // An inventory from a file tells what is on the disks, or it does not.
    let inventory = if args.mode.is_in_place() && args.inventory.is_none() {
        layout::inventory::inventory_at_rest(&context.sys, &saved, &choices)
            .context("cannot look at what is on the disks of this machine")?
    } else {
        inventory
    };
    let plan = plan(&saved, &inventory, &choices).map_err(|error| match error {
        // These are answers about the disks, not failures: a restore would refuse as well.
        PlanError::TooSmall { .. }
        | PlanError::NoDiskFor { .. }
        | PlanError::Ambiguous { .. }
        | PlanError::Doubtful { .. }
        | PlanError::BadChoice { .. }
        | PlanError::NotInPlace { .. }
        | PlanError::SectorSize { .. } => anyhow::Error::from(Refused(error.to_string())),
        other => anyhow::Error::from(other).context("a restore is not possible"),
    })?;
    context.out.result(&plan, || plan.render())?;
    Ok(Outcome::Fine)
}
