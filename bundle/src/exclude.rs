//! What a backup leaves out.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::backup::TreeSource;
use crate::events::Events;
use crate::pattern::{check_brackets, glob, is_wild};
use crate::walk::{Visit, Walk};
use crate::{Error, Result, bytes};

/// Patterns of files that are left out.
#[derive(Debug, Clone, Default)]
pub struct Exclusions {
    texts: Vec<String>,
    /// Whole paths and names without wildcards: most patterns, found by one look-up each.
    paths: HashMap<Vec<u8>, usize>,
    names: HashMap<Vec<u8>, usize>,
    globs: Vec<Glob>,
    /// Patterns that hold for directories only.
    only_dirs: HashSet<usize>,
}

#[derive(Debug, Clone)]
struct Glob {
    number: usize,
    /// Matches the whole path on the host; else the last name.
    whole: bool,
    pattern: Vec<u8>,
}

impl Exclusions {
    /// Nothing is left out.
    pub fn none() -> Exclusions {
        Exclusions::default()
    }

    /// The simple part of gitignore's patterns: without a slash, a name anywhere; with one, a path on the host; a
    /// slash at the end restricts to directories; `*`, `?` and `[a-z]` within a name, `**` across names, `\` takes the
    /// next character as it is. A directory that matches is left out with all that is below it; `/tmp/*` keeps the
    /// directory itself.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Exclusions> {
        let mut all = Exclusions::default();
        for pattern in patterns {
            all.add(pattern.as_ref())?;
        }
        Ok(all)
    }

    /// Adds a pattern.
    pub fn add(&mut self, pattern: &str) -> Result<()> {
        let refuse = |reason| Error::Pattern {
            pattern: pattern.to_string(),
            reason,
        };
        if pattern.starts_with('!') {
            return Err(refuse("exceptions with `!` are not supported"));
        }
        let number = self.texts.len();
        let (body, only_dirs) = match pattern.strip_suffix('/') {
            Some(body) => (body, true),
            None => (pattern, false),
        };
        if body.is_empty() {
            return Err(refuse("it would leave out everything"));
        }
        check_brackets(body.as_bytes()).map_err(refuse)?;
        let whole = body.contains('/');
        let mut bytes = body.as_bytes().to_vec();
        if whole && !body.starts_with('/') {
            bytes.insert(0, b'/');
        }
        if is_wild(&bytes) {
            self.globs.push(Glob {
                number,
                whole,
                pattern: bytes,
            });
        } else {
            let exact = if whole {
                &mut self.paths
            } else {
                &mut self.names
            };
            // When given twice, the form that leaves out more holds.
            let before = exact.get(&bytes).copied();
            if before.is_none_or(|b| self.only_dirs.contains(&b)) {
                exact.insert(bytes, number);
            }
        }
        if only_dirs {
            self.only_dirs.insert(number);
        }
        self.texts.push(pattern.to_string());
        Ok(())
    }

    /// Leaves out exactly this path on the host (a target, a mount point), with what is below it.
    pub fn add_path(&mut self, path: &Path) -> Result<()> {
        let text = path.display().to_string();
        if !path.is_absolute() || path.parent().is_none() {
            return Err(Error::Pattern {
                pattern: text,
                reason: "an absolute path other than / is expected",
            });
        }
        let mut exact = bytes::of(path).to_vec();
        while exact.last() == Some(&b'/') {
            exact.pop();
        }
        self.paths.insert(exact, self.texts.len());
        self.texts.push(text);
        Ok(())
    }

    /// The patterns, as given.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The number of a pattern that leaves out this path on the host.
    pub(crate) fn find(&self, path: &[u8], is_dir: bool) -> Option<usize> {
        let (_, name) = bytes::split(path);
        let holds = |number: &usize| is_dir || !self.only_dirs.contains(number);
        let exact = [self.paths.get(path), self.names.get(name)]
            .into_iter()
            .flatten()
            .find(|n| holds(n));
        exact.copied().or_else(|| {
            let fits =
                |g: &&Glob| holds(&g.number) && glob(&g.pattern, if g.whole { path } else { name });
            self.globs.iter().find(fits).map(|g| g.number)
        })
    }
}

/// What a pattern leaves out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Excluded {
    /// The pattern.
    pub pattern: String,
    /// Entries of every kind.
    pub files: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// What a backup of a tree would hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Estimate {
    /// Entries of every kind.
    pub files: u64,
    /// Bytes of regular files, hard links once.
    pub bytes: u64,
    /// What each pattern leaves out, patterns without an effect included.
    pub excluded: Vec<Excluded>,
}

/// Walks a tree without reading files, and counts.
pub fn estimate(source: &TreeSource, events: &dyn Events) -> Result<Estimate> {
    let mut estimate = Estimate {
        excluded: source
            .exclude
            .patterns()
            .map(|p| Excluded {
                pattern: p.to_string(),
                files: 0,
                bytes: 0,
            })
            .collect(),
        ..Estimate::default()
    };
    let mut linked = HashSet::new();
    let walk = Walk {
        root: &source.root,
        mount_point: &source.mount_point,
        exclude: &source.exclude,
        count_excluded: true,
    };
    walk.run(&mut |visit| {
        match visit {
            Visit::Entry { stat, .. } => {
                estimate.files += 1;
                if stat.is_file() && (stat.nlink < 2 || linked.insert(stat.ino)) {
                    estimate.bytes += stat.size;
                }
            }
            Visit::Excluded { pattern, stat } => {
                let excluded = &mut estimate.excluded[pattern];
                excluded.files += 1;
                if stat.is_file() {
                    excluded.bytes += stat.size;
                }
            }
            Visit::Failed { path, error } => {
                let mount_point = source.mount_point.to_string_lossy();
                events.warn(&format!(
                    "cannot examine {}: {error}",
                    bytes::on_host(&mount_point, path)
                ));
            }
        }
        !events.cancelled()
    })?;
    if events.cancelled() {
        return Err(Error::Cancelled);
    }
    Ok(estimate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(pattern: &str, path: &str, is_dir: bool) -> bool {
        Exclusions::new([pattern])
            .unwrap()
            .find(path.as_bytes(), is_dir)
            .is_some()
    }

    #[test]
    fn patterns_as_in_gitignore() {
        for (pattern, path) in [
            ("*.o", "/usr/src/a.o"),
            ("lost+found", "/var/lost+found"),
            ("/tmp/*", "/tmp/x"),
            (
                "/var/cache/apt/archives/*.deb",
                "/var/cache/apt/archives/a.deb",
            ),
            ("/var/lib/vz/**", "/var/lib/vz/images/100/disk.raw"),
            ("**/node_modules", "/home/a/node_modules"),
            ("/a/**/z", "/a/z"),
            ("/a/**/z", "/a/b/c/z"),
            ("/home/*/.cache", "/home/anna/.cache"),
            ("swap[0-9]", "/swap3"),
            ("[!a]x", "/bx"),
            ("var/tmp", "/var/tmp"),
            (r"\*", "/*"),
            ("a?c", "/abc"),
        ] {
            assert!(hit(pattern, path, false), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.o", "/usr/src/a.os"),
            ("/tmp/*", "/tmp"),
            ("/tmp/*", "/tmp/x/y"),
            ("/tmp", "/var/tmp"),
            ("/home/*/.cache", "/home/a/b/.cache"),
            ("a?c", "/a/c"),
            ("/a/**/z", "/az"),
            ("**/b", "/ab"),
        ] {
            assert!(!hit(pattern, path, false), "{pattern} {path}");
        }
        assert!(hit("cache/", "/x/cache", true) && !hit("cache/", "/x/cache", false));
        assert!(
            Exclusions::new(["!x"]).is_err()
                && Exclusions::new(["/"]).is_err()
                && Exclusions::new(["a["]).is_err()
        );
    }

    #[test]
    fn stars_take_no_exponential_time() {
        let text = "/".to_string() + &"a".repeat(3000);
        assert!(!hit(
            &("/".to_string() + &"a*".repeat(40) + "b"),
            &text,
            false
        ));
        assert!(!hit(
            &("/".to_string() + &"**a".repeat(40) + "b"),
            &text,
            false
        ));
    }

    #[test]
    fn the_estimate_counts_what_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("keep/cache/deep")).unwrap();
        std::fs::write(dir.path().join("keep/file"), [1; 100]).unwrap();
        std::fs::hard_link(dir.path().join("keep/file"), dir.path().join("keep/link")).unwrap();
        std::fs::write(dir.path().join("keep/cache/deep/big"), [1; 1000]).unwrap();
        let exclude = Exclusions::new(["/mnt/keep/cache", "*.none"]).unwrap();
        let source = TreeSource {
            root: dir.path().into(),
            mount_point: "/mnt".into(),
            filesystem: None,
            exclude,
            instead: Default::default(),
        };
        let estimate = estimate(&source, &crate::events::Silent).unwrap();
        assert_eq!((estimate.files, estimate.bytes), (4, 100));
        assert_eq!(
            (estimate.excluded[0].files, estimate.excluded[0].bytes),
            (3, 1000)
        );
        assert_eq!(estimate.excluded[1].files, 0);
    }
}
