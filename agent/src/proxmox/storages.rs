//! Storages: `/etc/pve/storage.cfg`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

/// What a storage's directory of dumps holds.
const DUMPS: &str = "dumps of guests";

/// A storage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Storage {
    /// Name: `local-lvm`.
    pub id: String,
    /// Plugin: `dir`, `lvmthin`, `zfspool`, `nfs`, `pbs`...
    pub kind: String,
    /// What it may hold: `images`, `rootdir`, `backup`, `iso`...
    pub content: Vec<String>,
    /// The other keys, as they are: `path`, `vgname`, `thinpool`, `pool`, `nodes`, `disable`...
    pub options: BTreeMap<String, String>,
}

impl Storage {
    /// Whether Proxmox VE uses it on this node.
    fn is_used_on(&self, node: &str) -> bool {
        let listed = |nodes: &String| nodes.split(',').any(|n| n.trim() == node);
        let off = self.options.get("disable").is_some_and(|v| v != "0");
        !off && self.options.get("nodes").is_none_or(listed)
    }

    /// Directories of volumes and dumps of guests, each with what is in it; none where the storage is no directory, or not
    /// used on this node: files there are no guest's.
    pub fn guest_dirs(&self, node: &str) -> Vec<(PathBuf, &'static str)> {
        let path = self.options.get("path").map(PathBuf::from);
        let Some(path) = path.filter(|path| path.is_absolute() && self.is_used_on(node)) else {
            return Vec::new();
        };
        // `content-dirs`: kind=directory, below the path.
        let other = self.options.get("content-dirs");
        let kinds = [
            ("images", "images", "disks of guests"),
            ("rootdir", "private", "disks of containers"),
            ("backup", "dump", DUMPS),
        ];
        let held = kinds
            .iter()
            .filter(|(kind, ..)| self.content.iter().any(|c| c == kind));
        held.filter_map(|(kind, usual, what)| {
            let named = other.and_then(|dirs| {
                dirs.split(',')
                    .find_map(|word| word.trim().strip_prefix(kind)?.strip_prefix('='))
            });
            let dir = named.unwrap_or(usual).trim_matches('/');
            // The storage's directory itself, or one outside of it, holds more than guests.
            let inside = dir.split('/').all(|part| !matches!(part, "" | "." | ".."));
            inside.then(|| (path.join(dir), *what))
        })
        .collect()
    }

    /// The directory of dumps of guests, if it takes any.
    pub fn dump_dir(&self, node: &str) -> Option<PathBuf> {
        let mut dirs = self.guest_dirs(node).into_iter();
        dirs.find(|(_, what)| *what == DUMPS).map(|(dir, _)| dir)
    }
}

/// Sections: a line `kind: id` that is not indented, and indented lines `key value` below it; an option that is switched on is
/// a key alone.
pub fn parse(text: &str) -> Vec<Storage> {
    let mut storages: Vec<Storage> = Vec::new();
    for line in text.lines() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if !line.starts_with(char::is_whitespace) {
            if let Some((kind, id)) = line.split_once(':') {
                storages.push(Storage {
                    id: id.trim().to_owned(),
                    kind: kind.trim().to_owned(),
                    ..Storage::default()
                });
            }
            continue;
        }
        let Some(storage) = storages.last_mut() else {
            continue;
        };
        let line = line.trim();
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        if key == "content" {
            storage.content = value.split(',').map(|c| c.trim().to_owned()).collect();
        } else {
            storage.options.insert(key.to_owned(), value.to_owned());
        }
    }
    storages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installers_storages() {
        let text = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup,import\n\n# guests\nlvmthin: local-lvm\n\tthinpool \
                    data\n\tvgname pve\n\tcontent rootdir,images\n\nnfs: far\n\tserver 192.0.2.9\n\tdisable\n";
        let found = parse(text);
        let ids: Vec<&str> = found.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids, ["local", "local-lvm", "far"]);
        assert_eq!(found[0].content, ["iso", "vztmpl", "backup", "import"]);
        assert_eq!(found[1].content, ["rootdir", "images"]);
        assert_eq!(found[1].options["thinpool"], "data");
        assert_eq!(found[2].options["disable"], "");
        assert!(parse("\tpath /x\n").is_empty());
    }

    #[test]
    fn directories_of_guests() {
        let text = "dir: a\n\tpath /srv/a\n\tcontent images,backup,iso\n\tnodes pve2, pve1\n\ndir: b\n\tpath /srv/b\n\tcontent \
                    rootdir,images\n\tcontent-dirs images=vm/disks/,backup=x\n\nlvmthin: c\n\tcontent images\n\ndir: d\n\tpath \
                    /srv\n\tcontent images\n\tnodes pve2\n\ndir: e\n\tpath /srv\n\tcontent images\n\tdisable\n\ndir: f\n\tpath \
                    /\n\tcontent images,backup,rootdir\n\tcontent-dirs images=,backup=/,rootdir=../home\n\ndir: g\n\tpath \
                    srv\n\tcontent images\n";
        let found = parse(text);
        let dirs = |n: usize| -> Vec<String> {
            let dirs = found[n].guest_dirs("pve1").into_iter();
            dirs.map(|(dir, _)| dir.display().to_string()).collect()
        };
        assert_eq!(dirs(0), ["/srv/a/images", "/srv/a/dump"]);
        assert_eq!(dirs(1), ["/srv/b/vm/disks", "/srv/b/private"]);
        assert_eq!(found[0].dump_dir("pve1"), Some("/srv/a/dump".into()));
        assert_eq!(found[1].dump_dir("pve1"), None);
        assert_eq!(found.len(), 7);
        for other in &found[2..] {
            assert!(other.guest_dirs("pve1").is_empty(), "{other:?}");
        }
    }
}
