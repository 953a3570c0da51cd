//! `lifeboat layout`

use anyhow::Context as _;
use layout::model::Layout;

use crate::Context;
use crate::cli::LayoutArgs;
use crate::output::{Outcome, Usage};
use crate::targets::{chosen, reading};

/// Shows a layout: of this host, or of a restore point.
pub fn run(context: &Context, args: &LayoutArgs) -> anyhow::Result<Outcome> {
    let layout = match &args.snapshot {
        Some(wanted) => {
            let targets = chosen(&args.from.from, &context.config, "--from")?;
            reading(&targets, |sources| saved(&sources.snapshot(wanted)?.1))?
        }
        None if args.from.from.is_empty() => layout::capture::capture(&context.sys)
            .context("cannot capture the layout of this host")?,
        None => {
            return Err(Usage(
                "--from needs a restore point: lifeboat layout latest --from PATH".into(),
            )
            .into());
        }
    };
    context
        .out
        .result(&layout, || layout::render::tree(&layout))?;
    Ok(Outcome::Fine)
}

/// The layout in a snapshot. A snapshot of directories has none.
pub fn saved(snapshot: &bundle::document::Snapshot) -> anyhow::Result<Layout> {
    if snapshot.layout.is_null() {
        anyhow::bail!(
            "this restore point holds directories ({}), not a whole host: it has no layout",
            snapshot
                .trees
                .iter()
                .map(|t| t.mount_point.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    Layout::from_value(snapshot.layout.clone())
        .context("cannot read the layout in the restore point")
}
