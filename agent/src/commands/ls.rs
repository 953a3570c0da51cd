//! `lifeboat ls`

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use bundle::list::{Depth, EntryKind, Walk};

use crate::cli::LsArgs;
use crate::output::Outcome;
use crate::targets::{chosen, reading};
use crate::{Context, listing, paths};

/// Lists files of a restore point: one line each, or as JSON one object per line, so that a large tree need not fit in
/// memory.
pub fn run(context: &Context, args: &LsArgs) -> anyhow::Result<Outcome> {
    let targets = chosen(&args.from.from, &context.config, "--from")?;
    let mut wanted = args
        .paths
        .iter()
        .map(|p| paths::normal(p))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if wanted.is_empty() {
        wanted.push(PathBuf::from("/"));
    }
    reading(&targets, |sources| {
        let (_, snapshot) = sources.snapshot(&args.snapshot)?;
        let readers = sources.readers();
        let mut out = BufWriter::new(std::io::stdout().lock());
        let mut missing = Vec::new();
        for path in &wanted {
            let itself = Walk::new(&readers, &snapshot.trees, path, Depth::Itself)
                .next()
                .transpose()?;
            let leads_on = || {
                let mut trees = snapshot.trees.iter();
                trees.any(|t| Path::new(&t.mount_point).starts_with(path))
            };
            let depth = match itself {
                _ if args.recursive => Depth::All,
                Some((_, entry)) if entry.kind != EntryKind::Dir => Depth::Itself,
                Some(_) => Depth::Children,
                None if leads_on() => Depth::Children,
                None => {
                    missing.push(path.display().to_string());
                    continue;
                }
            };
            let mut any = false;
            for entry in Walk::new(&readers, &snapshot.trees, path, depth) {
                crate::signals::check()?;
                let (path, entry) = entry?;
                any = true;
                let line = match context.out.json {
                    true => listing::json(&path, &entry)?,
                    false => listing::line(&path, &entry),
                };
                match writeln!(out, "{line}") {
                    Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {
                        return Ok(Outcome::Fine);
                    }
                    other => other?,
                }
            }
            if !any && args.recursive {
                missing.push(path.display().to_string());
            }
        }
        match out.flush() {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => return Err(e.into()),
            _ => {}
        }
        if !missing.is_empty() {
            bail!("the restore point holds nothing at {}", missing.join(", "));
        }
        Ok(Outcome::Fine)
    })
}
