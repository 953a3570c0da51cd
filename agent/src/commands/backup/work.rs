//! What a backup saves, and what it leaves out.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bundle::backup::{ImageSource, TreeSource};
use bundle::exclude::Exclusions;
use layout::model::Layout;
use layout::system::System;

use rescue_image::stick::FOLDER;
use tempfile::TempDir;

use crate::Context;
use crate::cli::BackupArgs;
use crate::config::Config;
use crate::exclusions::{DEFAULTS, SWAP_NAMES, swap_files};
use crate::output::Usage;
use crate::proxmox::Saved;

/// What is to be done.
pub struct Work {
    /// `host`, or `directories`.
    pub kind: &'static str,
    /// The layout of a host.
    pub layout: Option<Layout>,
    /// File systems, or directories.
    pub trees: Vec<TreeSource>,
    /// Partitions that hold nothing known, and headers of LUKS containers.
    pub images: Vec<ImageSource>,
    /// Where those headers are, for as long as the backup runs.
    pub _headers: Option<TempDir>,
    /// A Proxmox VE node.
    pub node: Saved,
    /// Every exclusion with the reason for it.
    pub reasons: Vec<(String, String)>,
}

impl Work {
    /// Looks at the host.
    pub fn find(
        context: &Context,
        args: &BackupArgs,
        roots: &[PathBuf],
        targets: &[PathBuf],
    ) -> anyhow::Result<Work> {
        if !roots.is_empty() {
            return directories(context, args, roots, targets);
        }
        let mut layout = layout::capture::capture(&context.sys)
            .context("cannot capture the layout of this host")?;
        without_own_mounts(&mut layout);
        let mount_points: Vec<PathBuf> = layout
            .filesystems_to_save()
            .into_iter()
            .map(|m| m.mount_point.clone())
            .collect();
        if !mount_points.iter().any(|m| m == Path::new("/")) {
            bail!(
                "the root file system lies on nothing that this version knows; it cannot be saved for a restore. \
                 `lifeboat layout` shows what was found; single directories can be saved with --root /"
            );
        }
        let mut images: Vec<ImageSource> = layout
            .unknown_partitions()
            .into_iter()
            .map(|p| ImageSource {
                node: p.id.to_string(),
                path: p.device,
            })
            .collect();
        let headers = luks_headers(&context.sys, &layout, &mut images)?;
        let mut node = Saved::find(&context.sys)?;
        let (mut exclude, mut reasons) = exclusions(
            &context.sys,
            &context.config,
            args,
            &mount_points,
            targets,
            guest_rules(&node),
        )?;
        for mount in layout.filesystems_to_save() {
            if mount.fstype == "zfs" {
                let pattern = format!("{}/.zfs", literal(&mount.mount_point).trim_end_matches('/'));
                exclude.add(&pattern).map_err(|e| Usage(e.to_string()))?;
                reasons.push((pattern, "what ZFS shows of snapshots".to_owned()));
            }
        }
        for path in &node.superfluous {
            exclude.add_path(path).map_err(|e| Usage(e.to_string()))?;
            let why = "its content is in the copy of the database".to_owned();
            reasons.push((path.display().to_string(), why));
        }
        let mut trees: Vec<TreeSource> = mount_points
            .into_iter()
            .map(|m| TreeSource {
                root: m.clone(),
                filesystem: filesystem_of(&layout, &m),
                mount_point: m,
                exclude: exclude.clone(),
                instead: node.instead.clone(),
            })
            .collect();
        trees.extend(node.tree.take());
        Ok(Work {
            kind: "host",
            layout: Some(layout),
            trees,
            images,
            _headers: headers,
            node,
            reasons,
        })
    }

    /// Mounted file systems that are on disks which carry nothing of the system: a restore leaves them alone.
    pub fn not_saved(&self) -> Vec<String> {
        let Some(layout) = &self.layout else {
            return Vec::new();
        };
        layout
            .mounts
            .iter()
            .filter(|m| m.mounted && !self.trees.iter().any(|t| t.mount_point == m.mount_point))
            .map(|m| {
                format!(
                    "{} ({}, on a disk that carries nothing of the system)",
                    m.mount_point.display(),
                    m.fstype
                )
            })
            .collect()
    }
}

/// Sticks that this program has mounted are no part of the host.
pub fn without_own_mounts(layout: &mut Layout) {
    layout.mounts.retain(|m| !m.mount_point.starts_with(FOLDER));
}

/// The UUID in the captured layout.
fn filesystem_of(layout: &Layout, mount_point: &Path) -> Option<String> {
    let mount = layout
        .mounts
        .iter()
        .find(|m| m.mounted && m.mount_point == mount_point)?;
    let Some(uuid) = mount.node.as_str().strip_prefix("fs:") else {
        // A dataset of ZFS has a number that is its own, and a name that another one may get.
        return crate::filesystem::identity(mount_point);
    };
    // Each subvolume of a btrfs has inode numbers of its own.
    let name = match mount.subvolume() {
        Some(path) if !path.is_empty() => format!("{uuid}/{path}"),
        _ => uuid.to_owned(),
    };
    crate::filesystem::as_this_user(name)
}

impl Work {
    /// Leaves the keys of encrypted targets out: on a plain target, whoever finds it could open the others. Says so,
    /// where there are keys.
    pub fn without_keys(&mut self, keys: &Path) -> anyhow::Result<Option<String>> {
        let Ok(keys) = keys.canonicalize() else {
            return Ok(None);
        };
        let empty = std::fs::read_dir(&keys).is_ok_and(|mut entries| entries.next().is_none());
        if empty || !self.trees.iter().any(|t| keys.starts_with(&t.mount_point)) {
            return Ok(None);
        }
        let why = "keys of encrypted targets, and a target of this run is not encrypted";
        let pattern = format!("{}/*", literal(&keys).trim_end_matches('/'));
        for tree in &mut self.trees {
            tree.exclude
                .add(&pattern)
                .map_err(|e| Usage(e.to_string()))?;
        }
        self.reasons.push((pattern, why.to_owned()));
        Ok(Some(format!("{} was left out: {why}", keys.display())))
    }
}

/// Rules for the directories of a node's storages.
fn guest_rules(node: &Saved) -> Vec<(String, String)> {
    let dirs = node.guest_dirs.iter();
    dirs.map(|(dir, what)| {
        let dir = literal(dir);
        (
            format!("{}/*", dir.trim_end_matches('/')),
            format!("{what}: guests are saved by vzdump"),
        )
    })
    .collect()
}

/// Has cryptsetup copy the headers of the system's LUKS containers into memory, and adds them to the images.
fn luks_headers(
    sys: &dyn System,
    layout: &Layout,
    images: &mut Vec<ImageSource>,
) -> anyhow::Result<Option<TempDir>> {
    let headers = layout.luks_headers();
    if headers.is_empty() {
        return Ok(None);
    }
    // Private, and not on a disk: whoever has a header can try passphrases.
    let dir = tempfile::Builder::new()
        .prefix("lifeboat-luks-")
        .tempdir_in("/run")
        .context("cannot make a directory for LUKS headers in /run")?;
    for (number, header) in headers.iter().enumerate() {
        let file = dir.path().join(format!("{number}.header"));
        layout::capture::luks::backup_header(sys, &header.device, &file).with_context(|| {
            format!("cannot save the LUKS header of {}", header.device.display())
        })?;
        images.push(ImageSource {
            node: header.id.to_string(),
            path: file,
        });
    }
    Ok(Some(dir))
}

fn directories(
    context: &Context,
    args: &BackupArgs,
    roots: &[PathBuf],
    targets: &[PathBuf],
) -> anyhow::Result<Work> {
    let mut found: Vec<PathBuf> = Vec::new();
    for root in roots {
        let real = root
            .canonicalize()
            .with_context(|| format!("cannot save the directory {}", root.display()))?;
        if !real.is_dir() {
            return Err(Usage(format!("{} is not a directory", root.display())).into());
        }
        if !found.contains(&real) {
            found.push(real);
        }
    }
    found.sort_by_key(|p| p.components().count());
    let (exclude, reasons) = exclusions(
        &context.sys,
        &context.config,
        args,
        &found,
        targets,
        Vec::new(),
    )?;
    let trees = found
        .into_iter()
        .map(|m| TreeSource {
            root: m.clone(),
            filesystem: crate::filesystem::identity(&m),
            mount_point: m,
            exclude: exclude.clone(),
            instead: Default::default(),
        })
        .collect();
    Ok(Work {
        kind: "directories",
        layout: None,
        trees,
        images: Vec::new(),
        _headers: None,
        node: Saved::default(),
        reasons,
    })
}

/// All exclusions, with the reason of each; `found` are further default ones that this host has.
fn exclusions(
    sys: &dyn System,
    config: &Config,
    args: &BackupArgs,
    mount_points: &[PathBuf],
    targets: &[PathBuf],
    found: Vec<(String, String)>,
) -> anyhow::Result<(Exclusions, Vec<(String, String)>)> {
    let mut exclude = Exclusions::none();
    let mut reasons: Vec<(String, String)> = Vec::new();
    let included: Vec<&String> = config.include.iter().chain(&args.include).collect();
    let rules = DEFAULTS.iter().chain(SWAP_NAMES);
    let mut defaults: Vec<(String, String)> = rules
        .map(|rule| (rule.pattern.to_owned(), rule.why.to_owned()))
        .collect();
    for rule in found {
        if !defaults.iter().any(|(known, _)| *known == rule.0) {
            defaults.push(rule);
        }
    }
    if let Some(unknown) = included
        .iter()
        .find(|i| !defaults.iter().any(|(pattern, _)| pattern == i.as_str()))
    {
        return Err(Usage(format!(
            "include '{unknown}': no default exclusion is written like that; `lifeboat config exclusions` shows them"
        ))
        .into());
    }
    let mut add = |pattern: &str, why: &str| -> anyhow::Result<()> {
        exclude.add(pattern).map_err(|e| Usage(e.to_string()))?;
        reasons.push((pattern.to_owned(), why.to_owned()));
        Ok(())
    };
    if config.default_exclusions && !args.no_default_exclusions {
        for (pattern, why) in defaults
            .iter()
            .filter(|(pattern, _)| !included.contains(&pattern))
        {
            add(pattern, why)?;
        }
        for mount_point in mount_points {
            let pattern = format!(
                "{}/lost+found/*",
                literal(mount_point).trim_end_matches('/')
            );
            add(&pattern, "what fsck found; the directory itself is kept")?;
        }
    }
    for pattern in config.exclude.iter().chain(&args.exclude) {
        add(pattern, "asked for")?;
    }
    let mut paths: Vec<(PathBuf, &str)> = Vec::new();
    if config.default_exclusions && !args.no_default_exclusions {
        let in_use = swap_files(&sys.read(Path::new("/proc/swaps")).unwrap_or_default());
        paths.extend(in_use.into_iter().map(|p| (p, "swap file in use")));
    }
    let all_targets: Vec<PathBuf> = targets.iter().chain(&config.targets).cloned().collect();
    paths.extend(
        super::own_places(&all_targets)
            .into_iter()
            .map(|p| (p, "a target of backups")),
    );
    for (path, why) in paths {
        let shown = path.display().to_string();
        if reasons.iter().any(|(known, _)| *known == shown) {
            continue;
        }
        exclude.add_path(&path).map_err(|e| Usage(e.to_string()))?;
        reasons.push((shown, why.to_owned()));
    }
    Ok((exclude, reasons))
}

/// A path as a pattern that fits it alone.
fn literal(path: &Path) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().chars() {
        match c {
            '*' | '?' | '[' => out.extend(['[', c, ']']),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Recorded;

    fn args() -> BackupArgs {
        use clap::Parser;
        match crate::cli::Cli::try_parse_from(["lifeboat", "backup"])
            .unwrap()
            .command
        {
            crate::cli::Command::Backup(args) => args,
            _ => unreachable!(),
        }
    }

    fn patterns(config: &Config, args: &BackupArgs, targets: &[PathBuf]) -> Vec<String> {
        let swaps = "Filename Type Size Used Priority\n/srv/swapfile1 file 1 0 -2\n";
        let sys = Recorded::new().file("/proc/swaps", swaps);
        let mounts = [PathBuf::from("/"), PathBuf::from("/var")];
        let (_, reasons) = exclusions(&sys, config, args, &mounts, targets, Vec::new()).unwrap();
        reasons.into_iter().map(|(pattern, _)| pattern).collect()
    }

    #[test]
    fn defaults_swap_targets_and_lost_found() {
        let dir = tempfile::tempdir().unwrap();
        let all = patterns(
            &Config::default(),
            &args(),
            &[dir.path().to_path_buf(), "/srv/new.img".into()],
        );
        let store = dir
            .path()
            .canonicalize()
            .unwrap()
            .join("lifeboat")
            .display()
            .to_string();
        for wanted in [
            "/tmp/*",
            "/srv/swapfile1",
            "/lost+found/*",
            "/var/lost+found/*",
            "/srv/new.img",
            &store,
        ] {
            assert!(
                all.iter().any(|p| p == wanted),
                "{wanted} is missing in {all:?}"
            );
        }
    }

    #[test]
    fn file_systems_outside_are_named() {
        let case = include_str!("../../../../vm-tests/layouts/gpt-ext4-xfs-swap.json");
        let mut case: serde_json::Value = serde_json::from_str(case).unwrap();
        let root = PathBuf::from("/");
        let work = Work {
            kind: "host",
            layout: Some(Layout::from_value(case["layout"].take()).unwrap()),
            trees: vec![TreeSource {
                root: root.clone(),
                mount_point: root,
                filesystem: None,
                exclude: Exclusions::none(),
                instead: Default::default(),
            }],
            images: Vec::new(),
            _headers: None,
            node: Saved::default(),
            reasons: Vec::new(),
        };
        let named = work.not_saved();
        assert!(
            named.len() == 1 && named[0].starts_with("/home (xfs"),
            "{named:?}"
        );
        let mut layout = work.layout.unwrap();
        let before = layout.mounts.len();
        let home = layout.mounts.iter_mut();
        let home = home.filter(|m| m.mount_point == Path::new("/home"));
        home.for_each(|m| m.mount_point = Path::new(FOLDER).join("medium-x"));
        without_own_mounts(&mut layout);
        assert_eq!(layout.mounts.len(), before - 1);
    }

    #[test]
    fn include_switches_a_default_off() {
        let config = Config {
            include: vec!["/var/tmp/*".into()],
            ..Config::default()
        };
        assert!(!patterns(&config, &args(), &[]).contains(&"/var/tmp/*".to_owned()));
        let wrong = Config {
            include: vec!["/var/tmp".into()],
            ..Config::default()
        };
        let e = exclusions(&Recorded::new(), &wrong, &args(), &[], &[], Vec::new()).unwrap_err();
        assert_eq!(crate::output::error_code(&e), 2);
    }

    #[test]
    fn without_defaults_the_targets_still_stay_out() {
        let mut args = args();
        args.no_default_exclusions = true;
        args.exclude = vec!["*.iso".into()];
        assert_eq!(
            patterns(&Config::default(), &args, &["/srv/new.img".into()]),
            ["*.iso", "/srv/new.img"]
        );
    }

    #[test]
    fn disks_of_guests_in_directories_are_left_out_unless_asked_for() {
        let mut node = Saved::default();
        node.guest_dirs = vec![
            ("/srv/[a]/images".into(), "disks"),
            ("/srv/b/dump".into(), "dumps"),
            ("/var/lib/vz/dump".into(), "dumps"),
        ];
        let patterns = |args: &BackupArgs| -> Vec<String> {
            let (config, sys) = (Config::default(), Recorded::new());
            let rules = guest_rules(&node);
            let (_, reasons) = exclusions(&sys, &config, args, &[], &[], rules).unwrap();
            let patterns = reasons.into_iter().map(|(pattern, _)| pattern);
            patterns
                .filter(|p| p.ends_with("/dump/*") || p.starts_with("/srv"))
                .collect()
        };
        let mut args = args();
        let known = ["/var/lib/vz/dump/*", "/var/lib/pve/local-btrfs/dump/*"];
        let all = [&known[..], &["/srv/[[]a]/images/*", "/srv/b/dump/*"]].concat();
        assert_eq!(patterns(&args), all);
        args.include = vec!["/srv/b/dump/*".into()];
        assert_eq!(patterns(&args), all[..3]);
        args.no_default_exclusions = true;
        assert!(patterns(&args).is_empty());
    }

    #[test]
    fn paths_with_signs_of_patterns() {
        assert_eq!(literal(Path::new("/srv/a*b[1]?")), "/srv/a[*]b[[]1][?]");
    }
}
