//! The configuration file, and the example of it.

mod example;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use bundle::prune::Policy;
use bundle::store::Store;
use serde::{Deserialize, Serialize};

use crate::cli::Modules;
use crate::compression::Compression;
use crate::consistency;
use crate::guests;
use crate::metrics;
use crate::notify;
use crate::objectives::Objectives;
use crate::output::Usage;
use crate::plug;
use crate::priority::{IoNice, Nice};
use crate::retention::Retention;
use crate::schedule;
use crate::values::Percent;

pub use example::example;

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
    /// What backups are held against.
    pub objectives: Objectives,
    /// Snapshots, hooks.
    pub consistency: consistency::Settings,
    /// What runs by itself.
    pub schedule: schedule::Settings,
    /// What a stick that is plugged in gets.
    pub plug: plug::Settings,
    /// Who is told of what.
    pub notify: notify::Settings,
    /// Numbers for a monitoring system.
    pub metrics: metrics::Settings,
    /// Users other than the file's own may read the configuration: no place for secrets.
    #[serde(skip)]
    pub exposed: bool,
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
            objectives: Objectives::default(),
            consistency: consistency::Settings::default(),
            schedule: schedule::Settings::default(),
            plug: plug::Settings::default(),
            notify: notify::Settings::default(),
            metrics: metrics::Settings::default(),
            exposed: false,
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

crate::values::as_text!(Parity);

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
        let mut config = Self::parse(&text).map_err(|e| {
            Usage(format!(
                "the configuration {} is wrong:\n{e}",
                path.display()
            ))
        })?;
        let mode = std::fs::metadata(path).map_or(0o777, |meta| meta.mode());
        config.exposed = mode & 0o077 != 0;
        Ok(config)
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

    /// Reads the text of a configuration; an error says what is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|e| {
            let e = hidden(&e.to_string());
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
        let sample = config.schedule.sample();
        sample.map_err(|e| format!("schedule: verify-sample: {e}"))?;
        config.notify.check()?;
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

/// The parser shows the line that is wrong, which may have a secret in it.
fn hidden(error: &str) -> String {
    let secret = |line: &&str| {
        let (number, text) = line.split_once('|').unwrap_or_default();
        let quoted = number.trim().parse::<u32>().is_ok();
        quoted
            && ["://", "token", "url"]
                .iter()
                .any(|word| text.contains(word))
    };
    let lines = error.lines().map(|line| match secret(&line) {
        true => "  | (not shown: it may have a secret in it)\n".to_owned(),
        false => format!("{line}\n"),
    });
    lines.collect()
}

#[cfg(test)]
#[path = "../../../tests/fuzz/mutate.rs"]
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
    fn a_line_with_a_secret_is_not_shown() {
        let text = "verify = true\n[notify]\nwebhooks = [{ kind = 'none', url = 'https://s3cret', token = 't' }]\n";
        let e = Config::parse(text).unwrap_err();
        assert!(!e.contains("s3cret") && e.contains("line 3"), "{e}");
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
}
