//! What this host remembers between its backups, in files for root only that are whole whatever happens.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes a file in one go. `state` is made with the usual mode where it is missing, directories below it for root only.
pub fn write(state: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(state);
    // The state directory may be there already, with whatever mode; what is in others is root's alone.
    fs::create_dir_all(state)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let unfinished = path.with_extension("new");
    let _ = fs::remove_file(&unfinished);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(dir)?.sync_all()
}
