//! `lifeboat backup --dry-run`

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use bundle::document::guest::GuestKind;
use bundle::exclude::estimate;
use serde::Serialize;

use super::guests;
use super::work::Work;
use crate::cli::BackupArgs;
use crate::output::{Outcome, table};
use crate::progress::{Progress, printable};
use crate::{Context, facts, proxmox, signals, values};

#[derive(Serialize)]
struct Preview {
    /// Entries of every kind that would be saved.
    files: u64,
    /// Bytes that would be saved, before compression: of files, and of partitions.
    bytes: u64,
    trees: Vec<Tree>,
    images: Vec<Image>,
    guests: Vec<GuestLine>,
    excluded: Vec<Excluded>,
    not_saved: Vec<String>,
    warnings: Vec<String>,
    targets: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Tree {
    mount_point: PathBuf,
    files: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Image {
    node: String,
    device: PathBuf,
    bytes: u64,
}

/// A guest that would be dumped.
#[derive(Serialize)]
struct GuestLine {
    id: u32,
    kind: GuestKind,
    name: Option<String>,
    /// Sizes of the volumes that vzdump takes, as far as they are known: not what is in them.
    bytes: u64,
}

#[derive(Serialize)]
struct Excluded {
    pattern: String,
    why: String,
    files: u64,
    bytes: u64,
}

/// Walks without reading and shows what a backup would do.
pub fn run(context: &Context, args: &BackupArgs, roots: &[PathBuf]) -> anyhow::Result<Outcome> {
    // Without a target the sizes can be shown as well.
    let targets = if args.to.is_empty() {
        context.config.targets.clone()
    } else {
        args.to.clone()
    };
    let progress = Progress::new(context.out.quiet);
    let node = match roots {
        [] => proxmox::collect(&context.sys, &facts::identity(&context.sys).hostname),
        _ => None,
    };
    let guests = guests::wanted(&context.config, args, node.as_ref())?;
    let guests = guests.iter().map(|g| GuestLine {
        id: g.id,
        kind: g.kind,
        name: g.name.clone(),
        bytes: g.dumped_bytes(),
    });
    let guests: Vec<GuestLine> = guests.collect();
    let work = Work::find(context, args, roots, &targets)?;
    let mut excluded: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut trees = Vec::new();
    for source in &work.trees {
        let e = estimate(source, &progress)
            .with_context(|| format!("cannot look through {}", source.mount_point.display()))?;
        signals::check()?;
        trees.push(Tree {
            mount_point: source.mount_point.clone(),
            files: e.files,
            bytes: e.bytes,
        });
        for x in e.excluded {
            let sum = excluded.entry(x.pattern).or_default();
            sum.0 += x.files;
            sum.1 += x.bytes;
        }
    }
    let headers = work
        .layout
        .iter()
        .flat_map(|l| l.luks_headers())
        .map(|h| Image {
            node: h.id.to_string(),
            device: h.device,
            bytes: h.size.0,
        });
    let sizes = work.layout.iter().flat_map(|l| l.unknown_partitions());
    let images: Vec<Image> = sizes
        .map(|p| Image {
            node: p.id.to_string(),
            device: p.device,
            bytes: p.size.0,
        })
        .chain(headers)
        .collect();
    let mut warnings = progress.finish();
    warnings.extend(work.layout.iter().flat_map(|l| l.warnings.iter().cloned()));
    warnings.extend(work.node.warnings.iter().cloned());
    let preview = Preview {
        files: trees.iter().map(|t| t.files).sum(),
        bytes: trees.iter().map(|t| t.bytes).sum::<u64>()
            + images.iter().map(|i| i.bytes).sum::<u64>(),
        images,
        guests,
        not_saved: work.not_saved(),
        excluded: with_reasons(&work.reasons, &excluded),
        trees,
        warnings,
        targets,
    };
    context.out.result(&preview, || text(&preview))?;
    Ok(Outcome::Fine)
}

/// In the order in which the exclusions were given, the biggest first within equals of a report.
fn with_reasons(
    reasons: &[(String, String)],
    sizes: &BTreeMap<String, (u64, u64)>,
) -> Vec<Excluded> {
    let mut all: Vec<Excluded> = reasons
        .iter()
        .map(|(pattern, why)| {
            let (files, bytes) = sizes.get(pattern).copied().unwrap_or_default();
            Excluded {
                pattern: pattern.clone(),
                why: why.clone(),
                files,
                bytes,
            }
        })
        .collect();
    all.sort_by_key(|x| std::cmp::Reverse(x.bytes));
    all
}

fn text(p: &Preview) -> String {
    let mut out = String::from("Would be saved:\n");
    let mut rows: Vec<Vec<String>> = p
        .trees
        .iter()
        .map(|t| {
            vec![
                t.mount_point.display().to_string(),
                values::count(t.files),
                values::bytes(t.bytes),
            ]
        })
        .collect();
    rows.extend(p.images.iter().map(|i| {
        vec![
            format!("{} (block image)", i.device.display()),
            String::new(),
            values::bytes(i.bytes),
        ]
    }));
    rows.push(vec![
        "in all".into(),
        values::count(p.files),
        values::bytes(p.bytes),
    ]);
    out.push_str(&table(&["tree", ">entries", ">size"], &rows));
    let rows = p.guests.iter().map(|g| {
        vec![
            g.id.to_string(),
            g.kind.to_string(),
            printable(g.name.as_deref().unwrap_or_default().as_bytes()),
            values::bytes(g.bytes),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        out.push_str("\nWould be dumped, each as a restore point of its own:\n");
        out.push_str(&table(&[">guest", "", "name", ">volumes"], &rows));
    }
    out.push_str("\nWould be left out (--include PATTERN saves it after all):\n");
    let rows: Vec<Vec<String>> = p
        .excluded
        .iter()
        .filter(|x| x.files > 0)
        .map(|x| {
            vec![
                x.pattern.clone(),
                values::count(x.files),
                values::bytes(x.bytes),
                x.why.clone(),
            ]
        })
        .collect();
    out.push_str(&table(&["pattern", ">entries", ">size", "why"], &rows));
    let idle = p.excluded.iter().filter(|x| x.files == 0).count();
    if idle > 0 {
        let patterns = values::plural(idle as u64, "more pattern matches", "more patterns match");
        out.push_str(&format!("{patterns} nothing here (--json shows all)\n"));
    }
    for line in &p.not_saved {
        out.push_str(&format!("Not saved: {line}\n"));
    }
    for line in &p.warnings {
        out.push_str(&format!("Warning: {line}\n"));
    }
    if p.targets.is_empty() {
        out.push_str("No target is configured; a backup needs --to PATH.\n");
    } else {
        let targets: Vec<_> = p.targets.iter().map(|t| t.display().to_string()).collect();
        out.push_str(&format!("Targets: {}\n", targets.join(", ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exclusion_is_there_the_biggest_first() {
        let reasons = [
            ("/tmp/*".to_owned(), "temporary".to_owned()),
            ("/x/*".to_owned(), "asked for".to_owned()),
        ];
        let sizes = BTreeMap::from([("/x/*".to_owned(), (2, 500))]);
        let all = with_reasons(&reasons, &sizes);
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[0].pattern.as_str(), all[0].files, all[0].bytes),
            ("/x/*", 2, 500)
        );
        assert_eq!((all[1].pattern.as_str(), all[1].bytes), ("/tmp/*", 0));
    }
}
