//! The example of the configuration: every setting with its explanation and its default. A test keeps it, the structure
//! and `docs/lifeboat.toml` the same.

use anyhow::Context as _;

use super::Config;
use crate::{metrics, notify, objectives, plug, schedule};

/// Name, explanation and example (where it differs from the default) of every setting, in the order of the example.
pub const SETTINGS: &[(&str, &str, Option<&str>)] = &[
    (
        "targets",
        "Where restore points go when --to is not given: sticks (use the stable names in /dev/disk/by-id),\n\
         image files, directories on other drives. `lifeboat prepare` makes a target.",
        Some(
            r#"["/dev/disk/by-id/usb-Example_Stick_0123456789-0:0", "/mnt/backup-drive/lifeboat"]"#,
        ),
    ),
    (
        "roots",
        "Save these directories, each as a tree of its own, instead of the whole host. The restore point\n\
         then has no layout: files can be extracted from it, a machine cannot be restored.",
        None,
    ),
    (
        "exclude",
        "What to leave out besides the default exclusions. A pattern with a slash is a path of the host, one\n\
         without is a name at any depth. * and ? stay within a name, ** crosses directories. A directory that\n\
         matches is left out with all below it; to keep it as an empty one, end with /*.",
        Some(r#"["/srv/scratch/*", "*.iso"]"#),
    ),
    (
        "include",
        "Default exclusions to switch off, written as `lifeboat config exclusions` shows them.",
        Some(r#"["/var/tmp/*"]"#),
    ),
    (
        "default-exclusions",
        "Whether the default exclusions apply at all.",
        None,
    ),
    (
        "compression",
        "zstd:1 (fast) to zstd:19 (small), xz:0 to xz:9 (very slow), none, or auto: zstd with a level from 1 to 9 that\n\
         is raised while targets are the slowest, and lowered while the processor is. The report says which were used.\n\
         What a target holds already is found and not written again, whatever it was compressed with.",
        None,
    ),
    (
        "max-workers",
        "How many threads may compress, check or extract at once; 0 means one per processor.",
        None,
    ),
    (
        "io-limit",
        "How much of the host a backup reads per second at most, so that guests keep their share of the disks.\n\
         Empty: as fast as it goes.",
        Some("\"100M\""),
    ),
    (
        "nice",
        "Priority of a backup for the processor, 0 (as any program) to 19 (only what others leave). Hooks inherit it.\n\
         A command that was started with a higher value keeps that.",
        None,
    ),
    (
        "ionice",
        "Priority of a backup for disks: best-effort:0 (first) to best-effort:7 (after others), idle (only while\n\
         nobody else wants the disk: on a busy host, a backup may never end), or none (as it was started).\n\
         Only some I/O schedulers heed it: bfq, and mq-deadline for idle. Where they do not, io-limit helps.",
        None,
    ),
    (
        "verify",
        "Read what a backup has written again, past the page cache, right after it was written.",
        None,
    ),
    (
        "parity",
        "How much parity to make beside every file of a target: 1% to 50%, or none. `lifeboat verify --heal`\n\
         repairs damage up to that size from it, without another target. Each target records what it has;\n\
         keep leaves it as it is. Files that have none get it at the next backup.",
        Some("\"5%\""),
    ),
    (
        "update-rescue",
        "Give sticks a new rescue system when the kernel or the tools of this host have changed.",
        None,
    ),
    (
        "rescue-modules",
        "Kernel modules of the rescue system: full (any machine), storage (without network cards), or\n\
         slim (virtual machines only).",
        None,
    ),
    (
        "hooks",
        "The executables pre-backup and post-backup in this directory are run before and after each backup\n\
         (or every executable in directories of these names, in order), and pre-snapshot and post-snapshot before and\n\
         after the moment that the host's files are of (docs/consistency.md). If one of the pre- ones fails, nothing is\n\
         backed up. The post- ones run whatever happened; LIFEBOAT_STATUS tells post-backup (ok, warnings, failed).",
        None,
    ),
    (
        "keys",
        "Where this host keeps the keys of encrypted targets, for root only, so that backups do not ask. Left out\n\
         of a backup that goes to any target that is not encrypted.",
        None,
    ),
    (
        "state",
        "Where this host remembers the last restore point that it wrote to each target: a target to which an\n\
         older state was put back is noticed.",
        None,
    ),
];

/// What is known of each setting of a table: its name, and its explanation.
pub type Explained = &'static [(&'static str, &'static str)];

/// The tables, which a TOML file has at its end. Those with a module of their own explain their settings there.
pub const TABLES: &[(&str, Explained)] = &[
    ("retention", RETENTION),
    ("guests", GUESTS),
    ("objectives", objectives::SETTINGS),
    ("consistency", CONSISTENCY),
    ("schedule", schedule::SETTINGS),
    ("plug", plug::settings::SETTINGS),
    ("notify", notify::SETTINGS),
    ("metrics", metrics::SETTINGS),
];

const RETENTION: Explained = &[
    (
        "automatic",
        "Which restore points of this host a backup removes by itself: when-full (those that the policy does\n\
         not keep, and only when a target has no room for a new one), always (the same after every backup),\n\
         or never. `lifeboat prune --dry-run` shows which they are, and why the others stay.",
    ),
    (
        "keep-last",
        "The policy: how many restore points stay on each target. keep-last: the newest ones. The others: the\n\
         newest one of each of the last N hours, days, weeks (from Monday), months and years, in UTC, that\n\
         have one. One rule is enough for it to stay. Besides, these are never removed: the newest one, the\n\
         newest one that was verified, and those of other hosts.",
    ),
    ("keep-hourly", ""),
    ("keep-daily", ""),
    ("keep-weekly", ""),
    ("keep-monthly", ""),
    ("keep-yearly", ""),
];

const GUESTS: Explained = &[
    (
        "source",
        "Where dumps of the guests of a Proxmox VE node come from: vzdump (each backup makes new ones), latest-dump\n\
         (the newest one that a storage of the node holds, as a backup job of Proxmox VE made it), or none.",
    ),
    (
        "which",
        "Which guests: numbers (\"100\"), \"tag:NAME\" for all with a tag, or \"all\".",
    ),
    ("exclude", "Which of them not."),
    (
        "mode",
        "How vzdump comes to a consistent state: snapshot (the guest goes on), suspend, or stop.",
    ),
    (
        "on-sticks",
        "Guests go to targets that are no sticks. when-room: to sticks, too, as long as these have room for them and\n\
         for the host; or never.",
    ),
    (
        "keep-last",
        "The policy for dumps, of each guest on its own, as in [retention].",
    ),
    ("keep-hourly", ""),
    ("keep-daily", ""),
    ("keep-weekly", ""),
    ("keep-monthly", ""),
    ("keep-yearly", ""),
];

const CONSISTENCY: Explained = &[
    (
        "snapshots",
        "Whether the host's file systems are read from short-lived snapshots of LVM, ZFS or btrfs: auto (where that is\n\
         possible), never, or always (a backup of the host fails where it is not, but for boot file systems).",
    ),
    (
        "reserve",
        "What a classic LVM snapshot gets of the size of its volume, for what is overwritten during the backup: at most\n\
         three quarters of what the volume group has free. One that runs full is of no use, and its files are read live.",
    ),
    (
        "pool-limit",
        "A thin pool (data or metadata), a ZFS pool or a btrfs that is fuller than this gets no snapshots, and loses those of a\n\
         running backup.",
    ),
    (
        "hook-timeout",
        "How long each hook may take, as 30s, 10m or 2h; after that it is stopped with all that it started.",
    ),
];

/// The example configuration: every setting, commented out, with its default or an example.
pub fn example() -> anyhow::Result<String> {
    let defaults = toml::Table::try_from(Config::default())
        .context("cannot write out the default configuration")?;
    let mut out = String::from(
        "# Lifeboat's configuration: /etc/lifeboat/lifeboat.toml. Every setting is optional.\n\
         # This example is written by `lifeboat config example`.\n",
    );
    for (name, text, example) in SETTINGS {
        let default = defaults
            .get(*name)
            .with_context(|| format!("no setting is called {name}"))?;
        out.push('\n');
        for line in text.lines() {
            out.push_str(&format!("# {line}\n"));
        }
        out.push_str(&format!("# Default: {default}\n"));
        out.push_str(&match example {
            Some(example) => format!("#{name} = {example}\n"),
            None => format!("#{name} = {default}\n"),
        });
    }
    for (table, settings) in TABLES {
        out.push_str(&format!("\n#[{table}]\n"));
        for (name, text) in *settings {
            let default = defaults
                .get(*table)
                .and_then(|t| t.get(*name))
                .with_context(|| format!("no setting is called {table}.{name}"))?;
            if !text.is_empty() {
                out.push('\n');
            }
            for line in text.lines() {
                out.push_str(&format!("# {line}\n"));
            }
            out.push_str(&format!("# Default: {default}\n#{name} = {default}\n"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every setting is in the example, and the example, with its comment signs removed, is a valid configuration.
    #[test]
    fn example_is_complete_and_valid() {
        let example = example().unwrap();
        let names: Vec<_> = toml::Table::try_from(Config::default())
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let mut count = 0;
        for name in &names {
            let defaults = toml::Table::try_from(Config::default()).unwrap();
            let Some(table) = defaults[name].as_table() else {
                count += 1;
                assert!(
                    SETTINGS.iter().any(|s| s.0 == *name),
                    "{name} is missing in the example"
                );
                continue;
            };
            count += 1 + table.len();
            for setting in table.keys() {
                assert!(
                    TABLES
                        .iter()
                        .any(|(t, known)| t == name && known.iter().any(|(s, _)| s == setting)),
                    "{name}.{setting} is missing in the example"
                );
            }
        }
        let active: String = example
            .lines()
            .filter_map(|l| l.strip_prefix('#'))
            .filter(|l| !l.starts_with(' '))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!(active.lines().count(), count);
        Config::parse(&active).unwrap();
    }

    #[test]
    fn documented_example_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lifeboat.toml");
        let documented = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            documented,
            example().unwrap(),
            "docs/lifeboat.toml differs from the code: run `lifeboat config example > docs/lifeboat.toml`"
        );
    }
}
