//! What a backup saves of a node besides the files of its filesystems.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::backup::TreeSource;
use bundle::exclude::Exclusions;
use layout::system::System;
use rescue_image::rescue::init::mounts::is_mount_point;
use tempfile::TempDir;

use super::TREE;
use super::database::{BESIDE, DATABASE, copy};
use super::storages;

/// A node, ready to be read.
#[derive(Default)]
pub struct Saved {
    /// For [`TreeSource::instead`]: the database, and its copy.
    pub instead: BTreeMap<PathBuf, PathBuf>,
    /// Files that the copy makes superfluous.
    pub superfluous: Vec<PathBuf>,
    /// Directories with disks and dumps of guests, which are no files of the host, each with what is in it.
    pub guest_dirs: Vec<(PathBuf, &'static str)>,
    /// `/etc/pve`, to be read by people; a restore takes the database.
    pub tree: Option<TreeSource>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// Where the copy is, for as long as the backup runs.
    dir: Option<TempDir>,
}

impl Saved {
    /// Copies the database. Without one there is nothing to copy, and that is said where Proxmox VE is installed.
    pub fn find(sys: &dyn System) -> anyhow::Result<Saved> {
        let mut saved = Saved::default();
        if !super::is_node(sys) {
            return Ok(saved);
        }
        // Private: it holds passwords and keys. Not on a disk that is being saved.
        let dir = tempfile::Builder::new()
            .prefix("lifeboat-node-")
            .tempdir_in("/run")
            .context("cannot make a directory for the copy of config.db in /run")?;
        saved.copy_database(Path::new(DATABASE), dir.path());
        saved.dir = Some(dir);
        saved.take_tree(Path::new(TREE));
        let text = sys.text(&Path::new(TREE).join("storage.cfg"));
        let storages = storages::parse(&text.unwrap_or_default());
        let node = super::node_name(&crate::facts::identity(sys).hostname);
        let dirs = storages.iter().flat_map(|s| s.guest_dirs(&node));
        saved.guest_dirs = dirs.collect();
        Ok(saved)
    }

    fn copy_database(&mut self, database: &Path, dir: &Path) {
        let to = dir.join("config.db");
        match copy(database, &to) {
            Ok(()) => {
                self.instead.insert(database.to_owned(), to);
                self.superfluous.extend(BESIDE.iter().map(|end| {
                    let mut name = database.as_os_str().to_owned();
                    name.push(end);
                    PathBuf::from(name)
                }));
            }
            // Better as it lies there than not at all.
            Err(error) => self.warnings.push(format!(
                "the node's database is saved as its files are, which may not fit each other: {error:#}"
            )),
        }
    }

    fn take_tree(&mut self, root: &Path) {
        // What lies below it otherwise is not what pmxcfs shows.
        if !is_mount_point(root) {
            self.warnings.push(format!(
                "{} is not mounted (is pve-cluster running?): the guests are not known, and the readable copy of the node's \
                 configuration is missing",
                root.display()
            ));
            return;
        }
        let mut exclude = Exclusions::none();
        // Status of the cluster, made anew at each look.
        if let Err(error) = exclude.add(&format!("{}/.*", root.display())) {
            self.warnings.push(error.to_string());
        }
        self.tree = Some(TreeSource {
            root: root.to_owned(),
            mount_point: root.to_owned(),
            filesystem: None,
            exclude,
            instead: BTreeMap::new(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_cannot_be_copied_is_left_to_the_files_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut saved = Saved::default();
        saved.copy_database(&dir.path().join("config.db"), dir.path());
        assert!(saved.instead.is_empty() && saved.superfluous.is_empty());
        assert!(
            saved.warnings[0].contains("config.db"),
            "{:?}",
            saved.warnings
        );
        saved.take_tree(dir.path());
        assert!(saved.tree.is_none());
        assert!(
            saved.warnings[1].contains("not mounted"),
            "{:?}",
            saved.warnings
        );
    }
}
