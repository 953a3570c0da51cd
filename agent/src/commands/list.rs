//! `lifeboat list`

use anyhow::Context as _;
use bundle::document::{GuestName, SnapshotHeader};
use bundle::verify::{How, Verdict, verdicts};
use serde::Serialize;

use crate::Context;
use crate::cli::ListArgs;
use crate::output::{Outcome, table};
use crate::targets::{chosen, reading};
use crate::{seen, values};

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
    snapshots: Vec<Listed>,
    damaged: Vec<bundle::store::DamagedDocument>,
    encrypted: bool,
    /// This host wrote a later restore point than there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    rolled_back: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    header: SnapshotHeader,
    /// What its last verification found; nothing when there was none.
    verified: Option<Verdict>,
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
            let mut verdicts = verdicts(store).with_context(unreadable)?;
            let headers = store.snapshots().with_context(unreadable)?.into_iter();
            let listed = headers.map(|header| Listed {
                verified: verdicts.remove(&header.id),
                header,
            });
            listing.targets.push(Target {
                target: path.display().to_string(),
                store: store.id().to_owned(),
                packs: stats.packs,
                stored_bytes: stats.stored_bytes,
                snapshots: listed.collect(),
                damaged: store.damaged_documents().with_context(unreadable)?,
                encrypted: store.encrypted(),
                rolled_back: seen::rolled_back(&context.config.state, path, store),
            });
        }
        for (path, error) in &sources.failed {
            listing.failed.push(Failed {
                target: path.display().to_string(),
                reason: format!("{error:#}"),
            });
        }
        context.out.result(&listing, || text(&listing))?;
        let damaged = listing
            .targets
            .iter()
            .any(|t| !t.damaged.is_empty() || t.rolled_back.is_some());
        Ok(if damaged || !listing.failed.is_empty() {
            Outcome::Warnings
        } else {
            Outcome::Fine
        })
    })
}

/// A verdict in a few words.
pub fn verified(verdict: Option<&Verdict>) -> String {
    let Some(verdict) = verdict else {
        return "never".into();
    };
    let day = |time: &str| time.get(..10).unwrap_or(time).to_owned();
    let what = match (verdict.good, verdict.how) {
        (false, _) => "DAMAGED",
        (true, How::Whole) => "whole",
        (true, How::Written) => "new data",
        (true, How::Sample) => "sample",
    };
    let mut text = format!("{what} {}", day(&verdict.time));
    if let Some(sampled) = &verdict.sampled {
        text.push_str(&format!(", sample {}", day(sampled)));
    }
    text
}

/// What a restore point holds: of a dump, which guest.
pub fn what(guest: Option<&GuestName>, kind: &str) -> String {
    match guest {
        Some(guest) => crate::progress::printable(guest.to_string().as_bytes()),
        None => kind.to_owned(),
    }
}

fn text(listing: &Listing) -> String {
    let mut out = String::new();
    for target in &listing.targets {
        out.push_str(&format!(
            "{}: {}, {} in {}{}\n",
            target.target,
            values::plural(
                target.snapshots.len() as u64,
                "restore point",
                "restore points"
            ),
            values::bytes(target.stored_bytes),
            values::plural(target.packs, "pack", "packs"),
            if target.encrypted { ", encrypted" } else { "" },
        ));
        let rows: Vec<Vec<String>> = target
            .snapshots
            .iter()
            .map(|listed| {
                let s = &listed.header;
                vec![
                    s.id.short(),
                    s.shown_time(),
                    s.host.hostname.clone(),
                    what(s.guest.as_ref(), &s.kind),
                    values::count(s.files),
                    values::bytes(s.bytes),
                    verified(listed.verified.as_ref()),
                    s.trees.join(" "),
                ]
            })
            .collect();
        if !rows.is_empty() {
            out.push_str(&table(
                &[
                    "id", "time", "host", "holds", ">files", ">size", "verified", "trees",
                ],
                &rows,
            ));
        }
        if let Some(text) = &target.rolled_back {
            out.push_str(&format!("{text}\n"));
        }
        for d in &target.damaged {
            out.push_str(&format!("damaged: {}: {}\n", d.file.display(), d.reason));
        }
    }
    out
}
