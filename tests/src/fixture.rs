//! The fixture stores in `tests/fixtures`: what opens them, how they are kept as text, and the listing by which what
//! comes out of them is compared. `tests/fixtures/README.md` says more.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bundle::Id;

/// Opens the encrypted fixture store.
pub const PASSPHRASE: &str = "fixture of format 1";
/// The content of the key file that opens it.
pub const KEY_FILE: &[u8; 32] = b"key file of a fixture, 32 bytes.";
/// Files that are not text have this suffix, and are kept in base64.
const ENCODED: &str = ".base64";
/// Directories that every store has, and that git does not keep when they are empty.
const DIRS: [&str; 5] = ["tmp", "packs", "index", "snapshots", "reports"];

/// The directory of a format's fixture.
pub fn dir(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/format-{format}"))
}

/// Runs a shell script in a directory and gives what it prints.
#[allow(
    clippy::disallowed_methods,
    reason = "tools that are not this project's code make the tree and judge what comes out"
)]
pub fn sh(dir: &Path, script: &str, arguments: &[&Path]) -> anyhow::Result<Vec<u8>> {
    let output = std::process::Command::new("sh")
        .args(["-euc", script, "sh"])
        .args(arguments)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .context("cannot start sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}\n{said}");
    Ok(output.stdout)
}

/// Copies a store into the form in which it is kept: what is not text, as base64.
pub fn pack(store: &Path, fixture: &Path) -> anyhow::Result<()> {
    for path in files(store)? {
        let inside = path.strip_prefix(store)?;
        let mut to = fixture.join(inside);
        let parent = to.parent().context("a file lies in a directory")?;
        fs::create_dir_all(parent)?;
        let bytes = fs::read(&path)?;
        if std::str::from_utf8(&bytes).is_ok() {
            fs::write(&to, bytes)?;
            continue;
        }
        to.as_mut_os_string().push(ENCODED);
        fs::write(to, sh(store, "base64 -w 100 \"$1\"", &[&path])?)?;
    }
    Ok(())
}

/// Makes the store again from the form in which it is kept.
pub fn unpack(fixture: &Path, store: &Path) -> anyhow::Result<()> {
    for name in DIRS {
        fs::create_dir_all(store.join("lifeboat").join(name))?;
    }
    for path in files(fixture)? {
        let mut to = store.join(path.strip_prefix(fixture)?);
        let parent = to.parent().context("a file lies in a directory")?;
        fs::create_dir_all(parent)?;
        match to.to_string_lossy().strip_suffix(ENCODED) {
            Some(name) => {
                to = PathBuf::from(name);
                fs::write(to, sh(fixture, "base64 -d \"$1\"", &[&path])?)?;
            }
            None => {
                fs::copy(&path, to)?;
            }
        }
    }
    Ok(())
}

/// All files below a directory, sorted.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A line for everything in a tree: path, kind, mode, owner, time, what is in it, extended attributes, inode flags.
/// Made without this project's code, but for the hash.
pub fn listing(root: &Path) -> anyhow::Result<String> {
    let mut paths = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
        paths.push(path);
    }
    paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    let mut firsts = HashMap::new();
    let mut out = String::new();
    for path in &paths {
        let inside = path.strip_prefix(root)?.as_os_str().as_bytes();
        let meta = fs::symlink_metadata(path)?;
        let kind = meta.file_type();
        let (word, content) = if kind.is_dir() {
            ("dir", String::new())
        } else if kind.is_symlink() {
            (
                "symlink",
                escaped(fs::read_link(path)?.as_os_str().as_bytes()),
            )
        } else if kind.is_fifo() {
            ("fifo", String::new())
        } else if kind.is_char_device() || kind.is_block_device() {
            let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
            let word = if kind.is_block_device() {
                "block"
            } else {
                "char"
            };
            (word, format!("{major}:{minor}"))
        } else {
            let bytes = fs::read(path)?;
            ("file", format!("{} sha256:{}", bytes.len(), Id::of(&bytes)))
        };
        let shown = if inside.is_empty() { b"." } else { inside };
        write!(
            out,
            "{} {word} {:04o} {}:{} {}.{:09}",
            escaped(shown),
            meta.permissions().mode() & 0o7777,
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        )?;
        if !content.is_empty() {
            write!(out, " {content}")?;
        }
        let first = firsts.entry((meta.dev(), meta.ino())).or_insert(path);
        if *first != path {
            let first = first.strip_prefix(root)?;
            write!(out, " same-as:{}", escaped(first.as_os_str().as_bytes()))?;
        }
        let mut names: Vec<_> = xattr::list(path)?.collect();
        names.sort();
        for name in names {
            let value = xattr::get(path, &name)?.unwrap_or_default();
            let value: String = value.iter().map(|b| format!("{b:02x}")).collect();
            write!(out, " {}={value}", escaped(name.as_bytes()))?;
        }
        if kind.is_file() || kind.is_dir() {
            let said = sh(root, "lsattr -d -- \"$1\"", &[path])?;
            let letters = said.split(|b| *b == b' ').next().unwrap_or_default();
            // Those that a store keeps. Others are of the file system: how it stores a file's blocks.
            let flags: Vec<u8> = letters
                .iter()
                .copied()
                .filter(|letter| b"SiadAD".contains(letter))
                .collect();
            if !flags.is_empty() {
                write!(out, " flags:{}", escaped(&flags))?;
            }
        }
        out.push('\n');
    }
    Ok(out)
}

/// Names as they can stand in a line: what is no letter, as `\x..` or the like.
fn escaped(name: &[u8]) -> String {
    name.escape_ascii().to_string().replace(' ', "\\x20")
}
