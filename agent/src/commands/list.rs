//! `lifeboat list`

use anyhow::Context as _;
use bundle::document::SnapshotHeader;
use serde::Serialize;

use crate::Context;
use crate::cli::ListArgs;
use crate::output::{Outcome, table};
use crate::targets::{chosen, reading};
use crate::values;

#[derive(Serialize)]
struct Listing {
    targets: Vec<Target>,
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Target {
    target: String,
    store: String,
    packs: u64,
    stored_bytes: u64,
    snapshots: Vec<SnapshotHeader>,
    damaged: Vec<bundle::store::DamagedDocument>,
}

#[derive(Serialize)]
struct Failed {
    target: String,
    reason: String,
}

/// Lists the restore points of the targets.
pub fn run(context: &Context, args: &ListArgs) -> anyhow::Result<Outcome> {
    let paths = chosen(&args.from.from, &context.config, "--from")?;
    reading(&paths, |sources| {
        let mut listing = Listing {
            targets: Vec::new(),
            failed: Vec::new(),
        };
        for (path, store) in &sources.stores {
            let unreadable = || format!("cannot list the restore points of {}", path.display());
            let stats = store.stats();
            listing.targets.push(Target {
                target: path.display().to_string(),
                store: store.id().to_owned(),
                packs: stats.packs,
                stored_bytes: stats.stored_bytes,
                snapshots: store.snapshots().with_context(unreadable)?,
                damaged: store.damaged_documents().with_context(unreadable)?,
            });
        }
        for (path, error) in &sources.failed {
            listing.failed.push(Failed {
                target: path.display().to_string(),
                reason: format!("{error:#}"),
            });
        }
        context.out.result(&listing, || text(&listing))?;
        let damaged = listing.targets.iter().any(|t| !t.damaged.is_empty());
        Ok(if damaged || !listing.failed.is_empty() {
            Outcome::Warnings
        } else {
            Outcome::Fine
        })
    })
}

fn text(listing: &Listing) -> String {
    let mut out = String::new();
    for target in &listing.targets {
        out.push_str(&format!(
            "{}: {}, {} in {}\n",
            target.target,
            values::plural(
                target.snapshots.len() as u64,
                "restore point",
                "restore points"
            ),
            values::bytes(target.stored_bytes),
            values::plural(target.packs, "pack", "packs"),
        ));
        let rows: Vec<Vec<String>> = target
            .snapshots
            .iter()
            .map(|s| {
                vec![
                    s.id.short(),
                    s.shown_time(),
                    s.host.hostname.clone(),
                    s.kind.clone(),
                    values::count(s.files),
                    values::bytes(s.bytes),
                    s.trees.join(" "),
                ]
            })
            .collect();
        if !rows.is_empty() {
            out.push_str(&table(
                &["id", "time", "host", "kind", ">files", ">size", "trees"],
                &rows,
            ));
        }
        for d in &target.damaged {
            out.push_str(&format!("damaged: {}: {}\n", d.file.display(), d.reason));
        }
    }
    out
}
