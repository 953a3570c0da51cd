//! Numbers for a monitoring system: a text file for the textfile collector of Prometheus' node_exporter.

mod text;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::status::Status;

/// Where Debian's prometheus-node-exporter looks.
const USUAL: &str = "/var/lib/prometheus/node-exporter/lifeboat.prom";

/// The table `[metrics]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// The file; empty: none.
    pub file: PathBuf,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { file: USUAL.into() }
    }
}

/// Setting and explanation, for the example configuration.
pub const SETTINGS: &[(&str, &str)] = &[(
    "file",
    "A text file with numbers for Prometheus, which node_exporter's textfile collector reads: written after each run,\n\
     and by `lifeboat status --metrics`. Its name has to end with .prom. Where the directory of the default is not\n\
     there, none is written; \"\" switches it off.",
)];

/// Writes the file in one go: a reader sees the old or the new one, whole.
pub fn write(settings: &Settings, status: &Status) -> anyhow::Result<()> {
    let file = &settings.file;
    if file.as_os_str().is_empty() {
        return Ok(());
    }
    let dir = file.parent().unwrap_or(Path::new("/"));
    if *file == Path::new(USUAL) && !dir.is_dir() {
        // No node_exporter here.
        return Ok(());
    }
    replace(dir, file, text::text(status).as_bytes())
        .with_context(|| format!("cannot write the metrics to {}", file.display()))
}

fn replace(dir: &Path, file: &Path, content: &[u8]) -> std::io::Result<()> {
    // The collector passes over what does not end with .prom.
    let unfinished = file.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&unfinished);
    let written = (|| {
        let mut out = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&unfinished)?;
        out.write_all(content)?;
        // Whatever the umask is: another user reads it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        out.set_permissions(mode)?;
        out.sync_all()?;
        fs::rename(&unfinished, file)?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_for_all_to_read_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lifeboat.prom");
        replace(dir.path(), &file, b"old").unwrap();
        replace(dir.path(), &file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(dir.path(), &dir.path().join("no/x.prom"), b"").is_err());
    }
}
