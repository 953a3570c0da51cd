//! Absolute paths of the host, and which tree of a snapshot holds them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bundle::document::Tree;
use bundle::extract::Selection;

use crate::output::Usage;

/// Takes `.` and `..` out by name. A relative path is refused: it would be relative to what?
pub fn normal(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.is_absolute() {
        let text = format!(
            "'{}' must be an absolute path, as it is on the host: /etc/fstab",
            path.display()
        );
        return Err(Usage(text).into());
    }
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    Ok(out)
}

/// Does it hold wildcards?
pub fn is_wild(path: &Path) -> bool {
    bundle::pattern::is_wild(path.as_os_str().as_bytes())
}

/// A path of the host, or a pattern: one without a slash is of names anywhere.
pub fn pattern(path: &Path) -> anyhow::Result<PathBuf> {
    match is_wild(path) && path.components().count() == 1 && !path.is_absolute() {
        true => Ok(path.to_path_buf()),
        false => normal(path),
    }
}

/// What has to be taken out of which tree to get `wanted` (normal paths; none: everything). A path belongs to the tree
/// with the longest mount point above it; trees mounted below it belong to it wholly.
pub fn select<'t>(trees: &'t [Tree], wanted: &[PathBuf]) -> Vec<(&'t Tree, Selection)> {
    if wanted.is_empty() {
        return trees.iter().map(|tree| (tree, Selection::All)).collect();
    }
    let holder = |path: &Path| {
        let above = trees.iter().filter(|t| path.starts_with(&t.mount_point));
        above.max_by_key(|t| Path::new(&t.mount_point).components().count())
    };
    trees
        .iter()
        .filter_map(|tree| {
            let mount_point = Path::new(&tree.mount_point);
            if wanted.iter().any(|w| mount_point.starts_with(w)) {
                return Some((tree, Selection::All));
            }
            let paths: Vec<PathBuf> = wanted
                .iter()
                .filter(|w| holder(w).is_some_and(|h| std::ptr::eq(h, tree)))
                .filter_map(|w| w.strip_prefix(mount_point).ok().map(Path::to_path_buf))
                .collect();
            (!paths.is_empty()).then_some((tree, Selection::Paths(paths)))
        })
        .collect()
}

/// Of `wanted`, those that no tree can hold.
pub fn outside<'w>(trees: &[Tree], wanted: &'w [PathBuf]) -> Vec<&'w PathBuf> {
    let related = |w: &Path, t: &Tree| {
        w.starts_with(&t.mount_point) || Path::new(&t.mount_point).starts_with(w)
    };
    wanted
        .iter()
        .filter(|w| !trees.iter().any(|t| related(w, t)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trees(mount_points: &[&str]) -> Vec<Tree> {
        mount_points
            .iter()
            .map(|m| Tree {
                mount_point: (*m).to_owned(),
                filesystem: None,
                catalogue: Vec::new(),
                entries: 0,
                files: 0,
                bytes: 0,
                segments: 0,
                summary: Default::default(),
            })
            .collect()
    }

    fn selected(mount_points: &[&str], wanted: &[&str]) -> Vec<(String, Option<Vec<String>>)> {
        let wanted: Vec<PathBuf> = wanted.iter().map(PathBuf::from).collect();
        select(&trees(mount_points), &wanted)
            .into_iter()
            .map(|(tree, selection)| {
                let paths = match selection {
                    Selection::All => None,
                    Selection::Paths(p) => {
                        Some(p.iter().map(|p| p.display().to_string()).collect())
                    }
                };
                (tree.mount_point.clone(), paths)
            })
            .collect()
    }

    #[test]
    fn longest_mount_point_wins() {
        let all = ["/", "/boot", "/boot/efi", "/var"];
        assert_eq!(
            selected(&all, &["/etc/fstab"]),
            [("/".into(), Some(vec!["etc/fstab".into()]))]
        );
        assert_eq!(
            selected(&all, &["/boot/efi/EFI"]),
            [("/boot/efi".into(), Some(vec!["EFI".into()]))]
        );
        assert_eq!(
            selected(&all, &["/variable"]),
            [("/".into(), Some(vec!["variable".into()]))]
        );
    }

    #[test]
    fn trees_below_a_path_belong_to_it() {
        let all = ["/", "/boot", "/boot/efi", "/var"];
        assert_eq!(
            selected(&all, &["/boot"]),
            [("/boot".into(), None), ("/boot/efi".into(), None)]
        );
        assert_eq!(selected(&all, &["/"]).len(), 4);
        assert_eq!(selected(&all, &[]).len(), 4);
        let outer = selected(&["/", "/srv/a/b"], &["/srv/a"]);
        assert_eq!(
            outer,
            [
                ("/".into(), Some(vec!["srv/a".into()])),
                ("/srv/a/b".into(), None)
            ]
        );
    }

    #[test]
    fn roots_that_are_not_slash() {
        let trees = trees(&["/srv/data"]);
        let wanted = [
            PathBuf::from("/etc"),
            PathBuf::from("/srv/data/x"),
            PathBuf::from("/srv"),
        ];
        assert_eq!(outside(&trees, &wanted), [&PathBuf::from("/etc")]);
    }

    #[test]
    fn normal_paths() {
        assert_eq!(
            normal(Path::new("/etc//./x/../fstab")).unwrap(),
            Path::new("/etc/fstab")
        );
        assert_eq!(normal(Path::new("/../..")).unwrap(), Path::new("/"));
        assert!(normal(Path::new("etc")).is_err());
    }
}
