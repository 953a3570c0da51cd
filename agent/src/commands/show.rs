//! `lifeboat show`

use std::io::Write;
use std::path::{Path, PathBuf};

use bundle::document::guest::{GuestDump, GuestRef};
use bundle::document::{Snapshot, Summary};
use bundle::extract::Selection;
use bundle::list::{Entry, EntryKind, EntryState};
use serde::Serialize;

use crate::Context;
use crate::cli::ShowArgs;
use crate::output::{Outcome, table};
use crate::proxmox::Guest;
use crate::targets::{Sources, chosen, reading};
use crate::{consistency, paths, values};

/// How many problems are named; JSON has them all.
const PROBLEMS: usize = 20;

/// Shows a restore point, or its files.
pub fn run(context: &Context, args: &ShowArgs) -> anyhow::Result<Outcome> {
    let targets = chosen(&args.from.from, &context.config, "--from")?;
    let wanted = args
        .paths
        .iter()
        .map(|p| paths::normal(p))
        .collect::<anyhow::Result<Vec<_>>>()?;
    reading(&targets, |sources| {
        let (id, snapshot) = sources.snapshot(&args.snapshot)?;
        if args.files {
            return files(context, sources, &snapshot, &wanted);
        }
        let mut document = serde_json::to_value(&snapshot)?;
        if let Some(map) = document.as_object_mut() {
            map.insert("id".into(), id.to_string().into());
        }
        context.out.result(&document, || text(&id, &snapshot))?;
        Ok(Outcome::Fine)
    })
}

fn text(id: &bundle::Id, s: &Snapshot) -> String {
    let mut out = format!("restore point {id}\n");
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<10} {value}\n"));
    line("host", s.host.hostname.clone());
    line(
        "made",
        format!(
            "{} by lifeboat {} in {} s",
            s.time, s.tool_version, s.stats.seconds
        ),
    );
    line(
        "holds",
        match &s.guest {
            Some(guest) => dump(guest),
            None if s.kind == "host" => "a whole host".into(),
            None => format!("{} (no host to restore)", s.kind),
        },
    );
    let fact = |name: &str| {
        s.facts
            .pointer(name)
            .and_then(|v| v.as_str())
            .map(str::to_owned)
    };
    if let Some(system) = fact("/os_release/PRETTY_NAME") {
        let kernel = fact("/kernel")
            .map(|k| format!(", kernel {k}"))
            .unwrap_or_default();
        line("system", format!("{system}{kernel}"));
    }
    if let Some(proxmox) = fact("/proxmox/version") {
        line("proxmox", proxmox);
    }
    if let Some(packages) = s.facts.get("packages").and_then(|v| v.as_array()) {
        line("packages", values::count(packages.len() as u64));
    }
    let states = consistency::of_facts(&s.facts);
    let rows: Vec<Vec<String>> = s
        .trees
        .iter()
        .map(|t| {
            let mut states = states.iter();
            let state = states.find(|state| state.mount_point == Path::new(&t.mount_point));
            vec![
                t.mount_point.clone(),
                values::count(t.entries),
                values::count(t.files),
                values::bytes(t.bytes),
                state.map(|s| printed(&s.text())).unwrap_or_default(),
            ]
        })
        .collect();
    let mut heads = vec!["tree", ">entries", ">files", ">size"];
    if !states.is_empty() {
        heads.push("read from");
    }
    out.push_str(&format!("\n{}", table(&heads, &rows)));
    if !s.images.is_empty() {
        let rows: Vec<Vec<String>> = s
            .images
            .iter()
            .map(|i| {
                vec![
                    i.node.clone(),
                    values::bytes(i.size),
                    i.error.clone().unwrap_or_default(),
                ]
            })
            .collect();
        out.push_str(&format!(
            "\n{}",
            table(&["image", ">size", "read errors"], &rows)
        ));
    }
    out.push_str(&guests(&s.facts, &s.guests));
    for config in s.guest.iter().flat_map(|g| &g.configs) {
        let text = String::from_utf8_lossy(&config.data);
        let lines = text.lines().map(|l| format!("  {}\n", printed(l)));
        out.push_str(&format!(
            "\n{}:\n{}",
            printed(&config.name),
            lines.collect::<String>()
        ));
    }
    out.push_str(&problems(&s.summary));
    if let Some(warnings) = s
        .layout
        .get("warnings")
        .and_then(|w| w.as_array())
        .filter(|w| !w.is_empty())
    {
        out.push_str("\nwhat a restore will not remake:\n");
        for warning in warnings.iter().filter_map(|w| w.as_str()) {
            out.push_str(&format!("  {warning}\n"));
        }
    }
    out
}

fn printed(text: &str) -> String {
    crate::progress::printable(text.as_bytes())
}

/// Which guest, and when its state is of.
fn dump(guest: &GuestDump) -> String {
    let name = guest.name.as_deref().map(printed);
    format!(
        "{} {}{} as of {}, from {}",
        guest.kind,
        guest.id,
        name.map(|n| format!(" ({n})")).unwrap_or_default(),
        guest.dumped,
        printed(&guest.source)
    )
}

/// The guests of a node with their volumes, as its configuration said, and their dumps; nothing where there are none.
fn guests(facts: &serde_json::Value, dumps: &[GuestRef]) -> String {
    let facts = facts.pointer("/proxmox/guests").cloned();
    let guests: Vec<Guest> = facts
        .and_then(|guests| serde_json::from_value(guests).ok())
        .unwrap_or_default();
    let dump = |guest: &Guest| {
        let mut dumps = dumps.iter();
        match dumps.find(|d| (d.kind, d.id) == (guest.kind, guest.id)) {
            Some(dump) => {
                let places = dump.stores.iter().map(|store| printed(&store.place));
                let places: Vec<String> = places.collect();
                format!("{} on {}", dump.snapshot.short(), places.join(", "))
            }
            None => "none".to_owned(),
        }
    };
    let mut rows = Vec::new();
    for guest in &guests {
        let mut cells = guest.volumes.iter().map(|volume| {
            vec![
                printed(&volume.key),
                printed(&format!("{}:{}", volume.storage, volume.name)),
                volume.size.map(|s| values::bytes(s.0)).unwrap_or_default(),
            ]
        });
        let first = vec![
            guest.id.to_string(),
            guest.kind.to_string(),
            printed(guest.name.as_deref().unwrap_or_default()),
            dump(guest),
        ];
        let blank = |n| vec![String::new(); n];
        rows.push([first, cells.next().unwrap_or_else(|| blank(3))].concat());
        rows.extend(cells.map(|cells| [blank(4), cells].concat()));
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "\n{}",
        table(
            &[">guest", "", "name", "dump", "disk", "volume", ">size"],
            &rows
        )
    )
}

/// What was not kept as it was, in words; nothing when all was.
pub fn problems(summary: &Summary) -> String {
    let mut out = String::new();
    for (n, text) in [
        (summary.changed, "changed while they were read"),
        (summary.vanished, "vanished before they were read"),
        (summary.unreadable, "could not be read, or not completely"),
    ] {
        if n > 0 {
            out.push_str(&format!("\n{} {text}", values::plural(n, "file", "files")));
        }
    }
    if out.is_empty() {
        return out;
    }
    out.push('\n');
    for problem in summary.problems.iter().take(PROBLEMS) {
        let path = crate::progress::printable(problem.path.as_bytes());
        out.push_str(&format!("  {}: {path}: {}\n", problem.what, problem.detail));
    }
    let more =
        (summary.changed + summary.vanished + summary.unreadable).saturating_sub(PROBLEMS as u64);
    if more > 0 {
        out.push_str(&format!(
            "  and {}; `lifeboat show --json` names more\n",
            values::count(more)
        ));
    }
    out
}

#[derive(Serialize)]
struct FileLine<'a> {
    path: String,
    kind: EntryKind,
    size: u64,
    mode: String,
    uid: u32,
    gid: u32,
    mtime: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: &'a Option<EntryState>,
}

/// One line per file; as JSON, one object per line, so that a large tree need not fit in memory.
fn files(
    context: &Context,
    sources: &Sources,
    snapshot: &Snapshot,
    wanted: &[PathBuf],
) -> anyhow::Result<Outcome> {
    let readers = sources.readers();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut shown = false;
    for (tree, selection) in paths::select(&snapshot.trees, wanted) {
        for entry in bundle::list::entries(&readers, tree) {
            let entry = entry?;
            let inside = entry.path.strip_prefix(".").unwrap_or(&entry.path);
            let chosen = match &selection {
                Selection::All => true,
                Selection::Paths(paths) => paths.iter().any(|p| inside.starts_with(p)),
            };
            if !chosen {
                continue;
            }
            shown = true;
            let path = Path::new(&tree.mount_point).join(inside);
            let written = if context.out.json {
                json_line(&path, &entry)?
            } else {
                crate::listing::line(&path, &entry)
            };
            match writeln!(out, "{written}") {
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Outcome::Fine),
                other => other?,
            }
        }
    }
    out.flush()?;
    drop(out);
    if !shown && !wanted.is_empty() {
        anyhow::bail!("the restore point holds nothing at {}", wanted[0].display());
    }
    Ok(Outcome::Fine)
}

fn json_line(path: &Path, entry: &Entry) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&FileLine {
        path: path.to_string_lossy().into_owned(),
        kind: entry.kind,
        size: entry.size,
        mode: format!("{:04o}", entry.mode & 0o7777),
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime.0,
        target: entry
            .target
            .as_ref()
            .map(|t| t.to_string_lossy().into_owned()),
        state: &entry.state,
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::guests::{Kind, parse};
    use bundle::document::guest::StoreRef;

    #[test]
    fn guests_and_their_volumes() {
        let web = "name: web\nscsi0: local-lvm:vm-100-disk-0,size=32G\nscsi1: nas:vm-100-disk-1\n";
        let all = [
            parse(100, Kind::Qemu, web),
            parse(101, Kind::Lxc, "hostname: d\u{1b}b\n"),
        ];
        let facts = serde_json::json!({ "proxmox": { "guests": all } });
        let dump = GuestRef {
            id: 100,
            kind: Kind::Qemu,
            name: None,
            snapshot: bundle::Id::of(b"100"),
            dumped: String::new(),
            stores: vec![StoreRef {
                id: String::new(),
                place: "/mnt/drive".into(),
            }],
        };
        let short = dump.snapshot.short();
        let text = guests(&facts, &[dump]);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert!(
            rows.iter().any(|r| r.starts_with(&[
                "100",
                "VM",
                "web",
                short.as_str(),
                "on",
                "/mnt/drive",
                "scsi0",
                "local-lvm:vm-100-disk-0"
            ])),
            "{text}"
        );
        assert!(
            rows.iter().any(|r| r == &["scsi1", "nas:vm-100-disk-1"]),
            "{text}"
        );
        assert!(
            rows.iter().any(|r| r[..] == ["101", "CT", "d?b", "none"]),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(guests(&serde_json::Value::Null, &[]), "");
    }
}
