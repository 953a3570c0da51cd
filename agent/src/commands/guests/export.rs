//! `lifeboat guests export`

use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context as _, bail};
use bundle::document::{Image, Snapshot};
use serde::Serialize;

use crate::Context;
use crate::cli::GuestsExportArgs;
use crate::guests::archive;
use crate::guests::dumps::{Wanted, find};
use crate::output::{Outcome, Refused, Usage};
use crate::progress::Progress;
use crate::targets::{Sources, chosen, reading};
use crate::{facts, values};

#[derive(Serialize)]
struct Exported {
    snapshot: bundle::Id,
    guest: u32,
    /// The disk; none: the whole archive.
    disk: Option<String>,
    destination: String,
    bytes: u64,
}

/// Writes one disk, or the whole archive.
pub fn run(context: &Context, args: &GuestsExportArgs) -> anyhow::Result<Outcome> {
    let (file, disk) = match (&args.to, &args.archive, &args.disk) {
        (Some(file), None, Some(disk)) => (file, Some(disk)),
        (None, Some(file), None) => (file, None),
        _ => {
            let text =
                "give --disk NAME --to FILE for one disk, or --archive FILE for all of the guest";
            return Err(Usage(text.into()).into());
        }
    };
    let to_stdout = disk.is_none() && file == Path::new("-");
    let paths = chosen(&args.from.from, &context.config, "--from")?;
    let progress = Progress::new(context.out.quiet);
    reading(&paths, |sources| {
        let host = facts::identity(&context.sys);
        let wanted = Wanted {
            id: args.id,
            snapshot: &args.snapshot,
            machine_id: &host.machine_id,
        };
        let (id, snapshot) = find(sources, &wanted)?;
        let bytes = match disk {
            Some(disk) => {
                let image = image(&snapshot, disk)?;
                new_file(file, &mut |out| {
                    let stores = sources.readers();
                    bundle::extract::image_to(&stores, image, out, &progress)
                        .with_context(|| archive::title(&snapshot))
                })?;
                image.size
            }
            None if to_stdout => {
                let mut out = Count(std::io::stdout().lock(), 0);
                write_archive(sources, &snapshot, &mut out, &progress)?;
                out.1
            }
            None => {
                let mut bytes = 0;
                new_file(file, &mut |file| {
                    let mut out = Count(file, 0);
                    write_archive(sources, &snapshot, &mut out, &progress)?;
                    bytes = out.1;
                    Ok(())
                })?;
                bytes
            }
        };
        progress.finish();
        let done = Exported {
            snapshot: id,
            guest: args.id,
            disk: disk.cloned(),
            destination: file.display().to_string(),
            bytes,
        };
        if !to_stdout {
            let text = || format!("{} to {}\n", values::bytes(bytes), file.display());
            context.out.summary(&done, text)?;
        }
        Ok(Outcome::Fine)
    })
}

/// A disk by its name in the archive, or in the guest's configuration: `drive-scsi0`, `scsi0`.
fn image<'s>(snapshot: &'s Snapshot, disk: &str) -> anyhow::Result<&'s Image> {
    let named =
        |image: &&Image| image.node == disk || image.node.strip_prefix("drive-") == Some(disk);
    if let Some(image) = snapshot.images.iter().find(named) {
        return Ok(image);
    }
    let names: Vec<&str> = snapshot
        .images
        .iter()
        .map(|i| i.node.strip_prefix("drive-").unwrap_or(&i.node))
        .collect();
    if names.is_empty() {
        bail!(
            "{} has no disks of its own; copy files out of it with `lifeboat extract`",
            archive::title(snapshot)
        );
    }
    bail!(
        "{} has no disk {disk}: its disks are {}",
        archive::title(snapshot),
        names.join(", ")
    )
}

fn write_archive(
    sources: &Sources,
    snapshot: &Snapshot,
    out: &mut dyn Write,
    progress: &Progress,
) -> anyhow::Result<()> {
    archive::write(&sources.readers(), snapshot, out, progress)
        .with_context(|| archive::title(snapshot))?;
    out.flush().context("cannot write the archive")
}

/// A file that gets its name when it is complete. What is there already is never overwritten, a device least of all.
fn new_file(
    path: &Path,
    write: &mut dyn FnMut(&std::fs::File) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        let what = match std::fs::metadata(path).unwrap_or(meta).file_type() {
            kind if kind.is_block_device() => "a device: this writes files only",
            kind if kind.is_dir() => "a directory: name a file in it",
            _ => "there already",
        };
        return Err(Refused(format!("{} is {what}", path.display())).into());
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    let cannot = || format!("cannot write {}", path.display());
    let file = tempfile::Builder::new()
        .prefix(".lifeboat-")
        .suffix(".part")
        .tempfile_in(dir)
        .with_context(cannot)?;
    write(file.as_file())?;
    file.as_file().sync_all().with_context(cannot)?;
    file.persist_noclobber(path).with_context(cannot)?;
    Ok(())
}

/// Counts what goes through.
struct Count<W>(W, u64);

impl<W: Write> Write for Count<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let written = self.0.write(data)?;
        self.1 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
