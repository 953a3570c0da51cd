//! The tree of the golden Proxmox-like node: that of the other golden hosts, with `golden-pve/` and the stand-ins for
//! Proxmox's programs (`stand-ins/`) in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::kept_tree;
use crate::artefacts::Artefacts;
use crate::process::Cmd;

/// What is not in the tree: the script that puts it onto disks, and what scenarios bring along.
const NOT_IN_TREE: [&str; 2] = ["golden-pve/make-disk-pve", "golden-pve/selftest"];

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the recipe, by their paths from this crate's directory.
fn files() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from("golden-pve"), PathBuf::from("stand-ins")];
    while let Some(dir) = todo.pop() {
        let entries =
            fs::read_dir(here().join(&dir)).with_context(|| format!("{}", dir.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                // Python's own copies.
                true if entry.file_name() == "__pycache__" => {}
                true => todo.push(path),
                false => found.push(path),
            }
        }
    }
    found.retain(|path| !NOT_IN_TREE.iter().any(|name| path == Path::new(name)));
    found.sort();
    Ok(found)
}

/// Names the tree by what it is made of, the tree below it among that.
pub(super) fn tree_key(base: &str) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(base);
    for path in files()? {
        let content =
            fs::read(here().join(&path)).with_context(|| format!("{}", path.display()))?;
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    Ok(hex::encode(hash.finalize()))
}

/// The tree, as an archive; made out of that of the golden hosts when it is not in the cache (half a minute).
pub(super) fn tree_tar(
    cache: &Path,
    suite: &str,
    base: &str,
    base_tar: &Path,
    log: &Artefacts,
) -> Result<PathBuf> {
    let key = tree_key(base)?;
    kept_tree(cache, &format!("tree-pve-{suite}-"), &key, log, |work| {
        Cmd::new(here().join("golden-pve/build-tree"))
            .arg(base_tar)
            .arg(work.join("tree"))
            .arg(work.join("tree.tar"))
            .arg(cache.join("debs"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_named_by_the_stand_ins_too() {
        let files = files().unwrap();
        for name in [
            "stand-ins/vzdump",
            "stand-ins/lib/vma.py",
            "golden-pve/build-tree",
            "golden-pve/files/etc/network/interfaces",
        ] {
            assert!(files.iter().any(|f| f == Path::new(name)), "{name}");
        }
        for name in NOT_IN_TREE {
            assert!(here().join(name).exists() && !files.iter().any(|f| f == Path::new(name)));
        }
        assert_ne!(tree_key("a").unwrap(), tree_key("b").unwrap());
    }
}
