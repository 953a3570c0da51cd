//! `lifeboat diff`

use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bundle::diff::{Change, What, diff};
use bundle::list::{Entry, EntryKind};

use crate::cli::DiffArgs;
use crate::output::Outcome;
use crate::progress::{Progress, printable};
use crate::targets::{chosen, reading};
use crate::{Context, paths, values};

/// Shows what changed between two restore points: one line each, or as JSON one object per line.
pub fn run(context: &Context, args: &DiffArgs) -> anyhow::Result<Outcome> {
    let targets = chosen(&args.from.from, &context.config, "--from")?;
    let path = args.path.as_deref().map(paths::normal).transpose()?;
    // No bar: the lines come as they are found. It says whether to stop.
    let progress = Progress::new(true);
    reading(&targets, |sources| {
        let (_, a) = sources.snapshot(&args.a)?;
        let (_, b) = sources.snapshot(&args.b)?;
        let mut out = BufWriter::new(std::io::stdout().lock());
        let mut failed = None;
        let report = diff(
            &sources.readers(),
            &a,
            &b,
            path.as_deref(),
            &progress,
            &mut |change| {
                let written = match context.out.json {
                    true => serde_json::to_string(&change).map_err(std::io::Error::from),
                    false => Ok(line(&change)),
                };
                failed = written.and_then(|text| writeln!(out, "{text}")).err();
                failed.is_none()
            },
        )?;
        let failed = failed.or_else(|| out.flush().err());
        drop(out);
        match failed {
            Some(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Outcome::Fine),
            Some(e) => return Err(e.into()),
            None => {}
        }
        for lost in &report.lost {
            eprintln!("warning: {lost}");
        }
        if !context.out.json && !context.out.quiet {
            context.out.write(&format!(
                "{} added, {} removed, {} changed\n",
                values::count(report.added),
                values::count(report.removed),
                values::count(report.changed)
            ))?;
        }
        Ok(match report.lost.is_empty() {
            true => Outcome::Fine,
            false => Outcome::Warnings,
        })
    })
}

fn line(change: &Change) -> String {
    let show = |path: &Path| printable(path.as_os_str().as_bytes());
    match change {
        Change::Added { path, after } => format!("+ {}{}", show(path), size(after)),
        Change::Removed { path, before } => format!("- {}{}", show(path), size(before)),
        Change::Changed {
            path,
            what,
            before,
            after,
        } => {
            let words: Vec<String> = what.iter().map(|w| respect(*w, before, after)).collect();
            format!("~ {}  {}", show(path), words.join(", "))
        }
        Change::Image {
            node,
            before,
            after,
        } => match (before, after) {
            (None, Some(n)) => format!("+ image {node}  {}", values::bytes(*n)),
            (Some(n), None) => format!("- image {node}  {}", values::bytes(*n)),
            (Some(a), Some(b)) if a != b => format!(
                "~ image {node}  content, {} to {}",
                values::bytes(*a),
                values::bytes(*b)
            ),
            _ => format!("~ image {node}  content"),
        },
    }
}

fn size(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::File => format!("  {}", values::bytes(entry.size)),
        EntryKind::Dir => "/".into(),
        _ => String::new(),
    }
}

fn respect(what: What, a: &Entry, b: &Entry) -> String {
    match what {
        What::Type => "type".into(),
        What::Content if a.size != b.size => {
            let (a, b) = (values::bytes(a.size), values::bytes(b.size));
            match a == b {
                true => "content".into(),
                false => format!("content ({a} to {b})"),
            }
        }
        What::Content => "content".into(),
        What::Mode => format!("mode ({:04o} to {:04o})", a.mode, b.mode),
        What::Owner => format!("owner ({}:{} to {}:{})", a.uid, a.gid, b.uid, b.gid),
        What::Times => "times".into(),
        What::Links => "links".into(),
        What::Attributes => "attributes".into(),
        What::State => "how far it could be read".into(),
    }
}
