//! The configuration file, and the example of it. One table ([`SETTINGS`]) feeds the example; a test keeps it, the
//! structure and `docs/lifeboat.toml` the same.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use bundle::prune::Policy;
use bundle::store::Store;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cli::Modules;
use crate::compression::Compression;
use crate::consistency;
use crate::guests;
use crate::output::Usage;
use crate::priority::{IoNice, Nice};
use crate::retention::Retention;
use crate::values::Percent;

/// Where the configuration is looked for; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/lifeboat/lifeboat.toml";

/// The settings. Every one has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// Sticks, image files, directories.
    pub targets: Vec<PathBuf>,
    /// Directories to save instead of the whole host.
    pub roots: Vec<PathBuf>,
    /// Patterns to leave out.
    pub exclude: Vec<String>,
    /// Default exclusions to switch off, by their pattern.
    pub include: Vec<String>,
    /// Whether the default exclusions apply.
    pub default_exclusions: bool,
    /// Codec and level.
    pub compression: Compression,
    /// Threads that compress, and that check what was written; 0: one per processor.
    pub max_workers: usize,
    /// Bytes per second that are read of the host at most; none: as fast as it goes.
    pub io_limit: String,
    /// Priority for the processor.
    pub nice: Nice,
    /// Priority for disks.
    pub ionice: IoNice,
    /// Whether a new restore point is read again.
    pub verify: bool,
    /// How much parity targets get.
    pub parity: Parity,
    /// Whether the rescue system on sticks follows changes of kernel and tools.
    pub update_rescue: bool,
    /// Which kernel modules the rescue system carries.
    pub rescue_modules: Modules,
    /// Directory with `pre-backup`, `pre-snapshot`, `post-snapshot` and `post-backup`.
    pub hooks: PathBuf,
    /// Where the host keeps the keys of encrypted targets.
    pub keys: PathBuf,
    /// Where the host remembers what it wrote.
    pub state: PathBuf,
    /// Which restore points stay.
    pub retention: Retention,
    /// The guests of a Proxmox VE node.
    pub guests: guests::Settings,
    /// Snapshots, hooks.
    pub consistency: consistency::Settings,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            targets: Vec::new(),
            roots: Vec::new(),
            exclude: Vec::new(),
            include: Vec::new(),
            default_exclusions: true,
            compression: Compression::Zstd(3),
            max_workers: 0,
            io_limit: String::new(),
            nice: Nice(10),
            // As vzdump, for the same reason.
            ionice: IoNice::BestEffort(7),
            verify: true,
            parity: Parity::Keep,
            update_rescue: true,
            rescue_modules: Modules::Full,
            hooks: PathBuf::from("/etc/lifeboat/hooks.d"),
            keys: PathBuf::from("/etc/lifeboat/keys"),
            state: PathBuf::from("/var/lib/lifeboat"),
            retention: Retention::default(),
            guests: guests::Settings::default(),
            consistency: consistency::Settings::default(),
        }
    }
}

/// How much parity is made beside the files of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// What the target has recorded already.
    Keep,
    /// So many percent; 0 for none.
    Percent(u32),
}

impl FromStr for Parity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<Percent>()) {
            ("keep", _) => Ok(Parity::Keep),
            ("none", _) => Ok(Parity::Percent(0)),
            (_, Ok(Percent(n))) if n <= bundle::parity::MAX_PERCENT => Ok(Parity::Percent(n)),
            _ => Err(format!(
                "'{text}' is not a parity; write 1% to {}%, none, or keep",
                bundle::parity::MAX_PERCENT
            )),
        }
    }
}

impl fmt::Display for Parity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parity::Keep => f.write_str("keep"),
            Parity::Percent(0) => f.write_str("none"),
            Parity::Percent(n) => write!(f, "{n}%"),
        }
    }
}

impl Serialize for Parity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Parity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Parity {
    /// Records it in a store that was opened for writing.
    pub fn apply(self, store: &Store) -> bundle::Result<()> {
        match self {
            Parity::Keep => Ok(()),
            Parity::Percent(percent) => store.set_parity(percent),
        }
    }
}

impl Config {
    /// Reads the file that was named, or the default one if it exists. What is wrong in it is a [`Usage`] error that
    /// names file, line and what would be right.
    pub fn load(named: Option<&Path>) -> anyhow::Result<Config> {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                return Ok(Config::default());
            }
            Err(e) => {
                return Err(e)
                    .with_context(|| format!("cannot read the configuration {}", path.display()));
            }
        };
        Self::parse(&text).map_err(|e| {
            Usage(format!(
                "the configuration {} is wrong:\n{e}",
                path.display()
            ))
            .into()
        })
    }

    /// Bytes per second, where there is a limit.
    pub fn io_limit(&self) -> Result<Option<u64>, String> {
        if self.io_limit.is_empty() {
            return Ok(None);
        }
        let size: crate::values::Size = self
            .io_limit
            .parse()
            .map_err(|e| format!("io-limit: {e}"))?;
        Ok(Some(size.0))
    }

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|e| {
            format!("{e}Every setting is optional; `lifeboat config example` shows all of them with their defaults.")
        })?;
        if config.retention.policy() == Policy::NOTHING {
            return Err("retention: nothing is kept; give at least one of the keep- settings a number above 0".into());
        }
        if config.guests.policy() == Policy::NOTHING {
            return Err(
                "guests: nothing is kept; give at least one of the keep- settings a number above 0"
                    .into(),
            );
        }
        for root in &config.roots {
            if !root.is_absolute() {
                return Err(format!(
                    "roots: '{}' is not an absolute path",
                    root.display()
                ));
            }
        }
        config.io_limit()?;
        for target in &config.targets {
            if !target.is_absolute() {
                return Err(format!(
                    "targets: '{}' is not an absolute path; a timer would look for it in the wrong place",
                    target.display()
                ));
            }
        }
        Ok(config)
    }
}

/// Name, explanation and example (where it differs from the default) of every setting, in the order of the example.
const SETTINGS: &[(&str, &str, Option<&str>)] = &[
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

/// The same of the tables, which a TOML file has at its end: table and setting.
const TABLES: &[(&str, &str, &str)] = &[
    (
        "retention",
        "automatic",
        "Which restore points of this host a backup removes by itself: when-full (those that the policy does\n\
         not keep, and only when a target has no room for a new one), always (the same after every backup),\n\
         or never. `lifeboat prune --dry-run` shows which they are, and why the others stay.",
    ),
    (
        "retention",
        "keep-last",
        "The policy: how many restore points stay on each target. keep-last: the newest ones. The others: the\n\
         newest one of each of the last N hours, days, weeks (from Monday), months and years, in UTC, that\n\
         have one. One rule is enough for it to stay. Besides, these are never removed: the newest one, the\n\
         newest one that was verified, and those of other hosts.",
    ),
    ("retention", "keep-hourly", ""),
    ("retention", "keep-daily", ""),
    ("retention", "keep-weekly", ""),
    ("retention", "keep-monthly", ""),
    ("retention", "keep-yearly", ""),
    (
        "guests",
        "source",
        "Where dumps of the guests of a Proxmox VE node come from: vzdump (each backup makes new ones), latest-dump\n\
         (the newest one that a storage of the node holds, as a backup job of Proxmox VE made it), or none.",
    ),
    (
        "guests",
        "which",
        "Which guests: numbers (\"100\"), \"tag:NAME\" for all with a tag, or \"all\".",
    ),
    ("guests", "exclude", "Which of them not."),
    (
        "guests",
        "mode",
        "How vzdump comes to a consistent state: snapshot (the guest goes on), suspend, or stop.",
    ),
    (
        "guests",
        "on-sticks",
        "Guests go to targets that are no sticks. when-room: to sticks, too, as long as these have room for them and\n\
         for the host; or never.",
    ),
    (
        "guests",
        "keep-last",
        "The policy for dumps, of each guest on its own, as in [retention].",
    ),
    ("guests", "keep-hourly", ""),
    ("guests", "keep-daily", ""),
    ("guests", "keep-weekly", ""),
    ("guests", "keep-monthly", ""),
    ("guests", "keep-yearly", ""),
    (
        "consistency",
        "snapshots",
        "Whether the host's file systems are read from short-lived snapshots of LVM, ZFS or btrfs: auto (where that is\n\
         possible), never, or always (a backup of the host fails where it is not, but for boot file systems).",
    ),
    (
        "consistency",
        "reserve",
        "What a classic LVM snapshot gets of the size of its volume, for what is overwritten during the backup: at most\n\
         three quarters of what the volume group has free. One that runs full is of no use, and its files are read live.",
    ),
    (
        "consistency",
        "pool-limit",
        "A thin pool that is fuller than this, data or metadata, gets no snapshots, and loses those of a running backup.",
    ),
    (
        "consistency",
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
    let mut table = "";
    for (of, name, text) in TABLES {
        let default = defaults
            .get(*of)
            .and_then(|t| t.get(*name))
            .with_context(|| format!("no setting is called {of}.{name}"))?;
        if table != *of {
            table = of;
            out.push_str(&format!("\n#[{of}]\n"));
        }
        if !text.is_empty() {
            out.push('\n');
        }
        for line in text.lines() {
            out.push_str(&format!("# {line}\n"));
        }
        out.push_str(&format!("# Default: {default}\n#{name} = {default}\n"));
    }
    Ok(out)
}

#[cfg(test)]
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_configurations() {
        let all = "targets = ['/mnt/a']\nroots = ['/srv']\nexclude = ['*.iso', '/x/**']\nmax-workers = 3\n\
            compression = 'zstd:19'\nverify = false\nrescue-modules = 'slim'\nnice = 19\nionice = 'idle'\nhooks = '/etc/h'\n";
        Config::parse(all).unwrap();
        let values = ["1.5 GiB", "32G", "24h", "zstd:9"].map(|v| v.as_bytes().to_vec());
        let seeds = [vec![all.into()], values.to_vec()].concat();
        super::mutate::damaged("configurations", 5000, &seeds, |data| {
            let text = String::from_utf8_lossy(data);
            if let Ok(config) = Config::parse(&text) {
                assert!(config.targets.iter().all(|t| t.is_absolute()));
                toml::to_string(&config).unwrap();
            }
            if let Ok(size) = text.parse::<crate::values::Size>() {
                assert!(size.0 > 0);
            }
            let _ = text.parse::<crate::values::Hours>();
            let _ = text.parse::<Compression>();
        });
        // Brackets in brackets must not use up the stack.
        let deep = format!("targets = {}", "[".repeat(1 << 20));
        assert!(Config::parse(&deep).is_err());
    }

    #[test]
    fn empty_file_means_defaults() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn unknown_setting_is_named_with_its_line_and_the_known_ones() {
        let e = Config::parse("verify = true\ntarget = [\"/x\"]\n").unwrap_err();
        assert!(
            e.contains("target") && e.contains("line 2") && e.contains("`targets`"),
            "{e}"
        );
        assert!(e.contains("lifeboat config example"), "{e}");
    }

    #[test]
    fn wrong_values_are_refused() {
        assert!(
            Config::parse("compression = \"gzip\"")
                .unwrap_err()
                .contains("zstd:1")
        );
        assert!(Config::parse("compression = \"zstd:99\"").is_err());
        assert!(
            Config::parse("io-limit = \"fast\"")
                .unwrap_err()
                .contains("io-limit")
        );
        for (wrong, right) in [
            ("nice = 20", "0 to 19"),
            ("nice = -5", "0 to 19"),
            ("ionice = \"realtime:0\"", "best-effort:7"),
        ] {
            assert!(Config::parse(wrong).unwrap_err().contains(right), "{wrong}");
        }
        let limited = Config::parse("io-limit = \"1M\"").unwrap();
        assert_eq!(limited.io_limit(), Ok(Some(1 << 20)));
        assert!(
            Config::parse("targets = [\"stick.img\"]")
                .unwrap_err()
                .contains("absolute")
        );
    }

    #[test]
    fn retention_is_a_table_and_keeps_something() {
        let config = Config::parse("[retention]\nautomatic = \"always\"\nkeep-daily = 3").unwrap();
        assert_eq!(config.retention.policy().daily, 3);
        assert_eq!(config.retention.policy().last, Policy::default().last);
        let nothing =
            "[retention]\nkeep-last = 0\nkeep-daily = 0\nkeep-weekly = 0\nkeep-monthly = 0";
        assert!(
            Config::parse(nothing)
                .unwrap_err()
                .contains("nothing is kept")
        );
        assert!(Config::parse("[retention]\nkeep = 3").is_err());
        assert!(
            Config::parse("[retention]\nautomatic = \"maybe\"")
                .unwrap_err()
                .contains("when-full")
        );
    }

    #[test]
    fn parities_read_as_written() {
        for text in ["keep", "none", "1%", "50%"] {
            assert_eq!(text.parse::<Parity>().unwrap().to_string(), text);
        }
        for wrong in ["5", "0%", "51%", "-1%", "5.5%", ""] {
            assert!(wrong.parse::<Parity>().unwrap_err().contains("1% to 50%"));
        }
    }

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
                    TABLES.iter().any(|(t, s, _)| t == name && s == setting),
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
