//! `lifeboat guests list`

use std::collections::BTreeMap;

use bundle::document::guest::GuestKind;
use bundle::verify::{Verdict, verdicts};
use serde::Serialize;

use crate::Context;
use crate::cli::GuestsListArgs;
use crate::commands::list::verified;
use crate::guests::dumps::size;
use crate::output::{Outcome, table};
use crate::targets::{chosen, reading};
use crate::values;

#[derive(Serialize)]
struct Dump {
    snapshot: bundle::Id,
    id: u32,
    kind: GuestKind,
    name: Option<String>,
    host: String,
    /// When its state is of.
    dumped: String,
    bytes: u64,
    source: String,
    targets: Vec<On>,
}

#[derive(Serialize)]
struct On {
    target: String,
    /// What its last verification found; nothing when there was none.
    verified: Option<Verdict>,
}

/// Lists the dumps of guests in the targets.
pub fn run(context: &Context, args: &GuestsListArgs) -> anyhow::Result<Outcome> {
    let paths = chosen(&args.from.from, &context.config, "--from")?;
    reading(&paths, |sources| {
        let mut on: BTreeMap<bundle::Id, Vec<On>> = BTreeMap::new();
        for (path, store) in &sources.stores {
            let mut verdicts = verdicts(store)?;
            for header in store.snapshots()? {
                on.entry(header.id).or_default().push(On {
                    target: path.display().to_string(),
                    verified: verdicts.remove(&header.id),
                });
            }
        }
        let mut dumps = Vec::new();
        for (snapshot, document) in sources.all_snapshots()? {
            let bytes = size(&document);
            let Some(guest) = document.guest else {
                continue;
            };
            if !args.ids.is_empty() && !args.ids.contains(&guest.id) {
                continue;
            }
            dumps.push(Dump {
                snapshot,
                id: guest.id,
                kind: guest.kind,
                name: guest.name,
                host: document.host.hostname,
                dumped: guest.dumped,
                bytes,
                source: guest.source,
                targets: on.remove(&snapshot).unwrap_or_default(),
            });
        }
        dumps.sort_by(|a, b| (a.id, &a.dumped).cmp(&(b.id, &b.dumped)));
        context.out.result(&dumps, || text(&dumps))?;
        Ok(match sources.failed.is_empty() {
            true => Outcome::Fine,
            false => Outcome::Warnings,
        })
    })
}

fn text(dumps: &[Dump]) -> String {
    if dumps.is_empty() {
        return "no dumps of guests".into();
    }
    let rows: Vec<Vec<String>> = dumps
        .iter()
        .map(|dump| {
            let name = dump.name.as_deref().unwrap_or("-");
            let on = dump.targets.iter();
            let on = on.map(|on| format!("{} ({})", on.target, verified(on.verified.as_ref())));
            vec![
                dump.id.to_string(),
                dump.kind.to_string(),
                crate::progress::printable(name.as_bytes()),
                dump.snapshot.short(),
                bundle::time::shown(&dump.dumped),
                dump.host.clone(),
                values::bytes(dump.bytes),
                on.collect::<Vec<_>>().join(", "),
            ]
        })
        .collect();
    table(
        &[
            ">guest",
            "kind",
            "name",
            "snapshot",
            "as of",
            "host",
            ">size",
            "on (verified)",
        ],
        &rows,
    )
}
