//! `lifeboat layout`

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use layout::model::Layout;

use crate::Context;
use crate::cli::LayoutArgs;
use crate::output::{Outcome, Usage};
use crate::targets::{chosen, reading};

/// Shows a layout: of this host, or of a restore point.
pub fn run(context: &Context, args: &LayoutArgs) -> anyhow::Result<Outcome> {
    if let Some(file) = &args.record {
        return record(context, file);
    }
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

/// Keeps what this host says of its storage.
fn record(context: &Context, path: &Path) -> anyhow::Result<Outcome> {
    let recording = layout::record::record(&context.sys);
    let text = recording.to_json()?;
    // A file that is there may be anything.
    let mut file = File::create_new(path)
        .with_context(|| format!("cannot make {} (it must not exist yet)", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    let value = serde_json::json!({ "file": path, "problems": recording.problems });
    context.out.summary(&value, || {
        let mut text = String::new();
        for problem in &recording.problems {
            text.push_str(&format!("note: {problem}\n"));
        }
        text.push_str(&format!(
            "{} holds what this host's kernel and tools say of its storage.\n\
             Serial numbers, UUIDs, labels, addresses and the host's name are replaced by others; names of volume\n\
             groups, volumes and mount points are as they are. Read it before you pass it on.\n",
            path.display()
        ));
        text
    })?;
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
