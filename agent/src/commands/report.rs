//! `lifeboat report`

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::cli::{Format, ReportArgs};
use crate::output::Outcome;
use crate::report::period::{Asked, Days};
use crate::report::{Sources, page, report};
use crate::{Context, facts, history};

#[derive(Serialize)]
struct Written {
    file: PathBuf,
    /// The data, where they are too many for the page.
    data: Option<PathBuf>,
}

/// Writes a report.
pub fn run(context: &Context, args: &ReportArgs) -> anyhow::Result<Outcome> {
    let now = Timestamp::now();
    let asked = Asked {
        length: args.period,
        complete: args.complete,
        since: args.since,
        until: args.until,
    };
    let days = Days::new(asked, now, TimeZone::system())?;
    let state = &context.config.state;
    let runs = history::all(state)?;
    let sources = Sources {
        unreadable: documents(&history::dir(state)).saturating_sub(runs.len() as u64),
        runs,
        config: &context.config,
        host: facts::identity(&context.sys),
        now,
    };
    let report = report(sources, &days);
    let to_stdout = args.to == Path::new("-");
    let wants_json = args.format == Format::Json || (context.out.json && to_stdout);
    if wants_json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        return match to_stdout {
            true => context.out.write(&json).map(|()| Outcome::Fine),
            false => said(context, &args.to, &json, None),
        };
    }
    let data = serde_json::to_value(&report)?;
    let json = serde_json::to_string(&report)?;
    let beside =
        (json.len() > page::EMBEDDED && !to_stdout).then(|| args.to.with_extension("json"));
    let source = match (&beside, json.len() > page::EMBEDDED) {
        (_, false) => page::Data::Embedded(&json),
        (Some(file), true) => page::Data::Beside {
            file,
            sha256: bundle::Id::of(json.as_bytes()).to_string(),
        },
        (None, true) => page::Data::Elsewhere,
    };
    let html = page::render(&data, &source);
    match to_stdout {
        true => context.out.write(&html).map(|()| Outcome::Fine),
        false => said(context, &args.to, &html, beside.map(|file| (file, json))),
    }
}

/// How many documents there are, readable or not.
fn documents(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.path());
    names
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .count() as u64
}

fn said(
    context: &Context,
    to: &Path,
    text: &str,
    beside: Option<(PathBuf, String)>,
) -> anyhow::Result<Outcome> {
    if let Some((file, json)) = &beside {
        write(file, json)?;
    }
    write(to, text)?;
    let written = Written {
        file: to.to_owned(),
        data: beside.map(|(file, _)| file),
    };
    context.out.summary(&written, || match &written.data {
        None => format!("written to {}", to.display()),
        Some(data) => format!(
            "written to {}, its data to {}",
            to.display(),
            data.display()
        ),
    })?;
    Ok(Outcome::Fine)
}

/// The whole file or nothing; for its owner only, as names of hosts and errors are nobody else's business.
fn write(to: &Path, text: &str) -> anyhow::Result<()> {
    let wrong = || format!("cannot write the report to {}", to.display());
    let special = fs::metadata(to).is_ok_and(|meta| !meta.is_file());
    if special {
        return fs::write(to, text).with_context(wrong);
    }
    let dir = match to.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(dir).with_context(wrong)?;
    file.write_all(text.as_bytes()).with_context(wrong)?;
    file.as_file().sync_all().with_context(wrong)?;
    file.persist(to).with_context(wrong)?;
    Ok(())
}
