//! What a command is about, out of its options. What may be a secret, and files that hold secrets, are not among it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::{Command, GuestsCommand, KeyCommand, ScheduleCommand};
use crate::config::Config;
use crate::history::Trigger;

/// A command, and the targets, restore points and guests that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub command: String,
    /// What it is about, by kind.
    pub things: BTreeMap<String, Vec<String>>,
    /// It is done only where it can be noted.
    pub grave: bool,
}

/// How many things of a kind are listed, and how long each may be: a line stays readable, and below a limit.
const MANY: usize = 100;
const LONG: usize = 300;

/// A text of bounded length.
pub fn short(text: &str) -> String {
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl About {
    /// A command without anything yet.
    pub fn new(command: &str) -> About {
        About {
            command: command.to_owned(),
            things: BTreeMap::new(),
            grave: false,
        }
    }

    /// Adds a thing.
    pub fn add(&mut self, kind: &str, thing: impl AsRef<str>) {
        let all = self.things.entry(kind.to_owned()).or_default();
        match all.len() {
            0..MANY => all.push(short(thing.as_ref())),
            MANY => all.push("...".to_owned()),
            _ => {}
        }
    }

    /// The same in a row.
    #[must_use]
    pub fn with<T: AsRef<str>>(mut self, kind: &str, things: impl IntoIterator<Item = T>) -> About {
        things.into_iter().for_each(|thing| self.add(kind, thing));
        self
    }

    fn paths<T: AsRef<Path>>(self, kind: &str, paths: impl IntoIterator<Item = T>) -> About {
        let texts = paths.into_iter();
        self.with(kind, texts.map(|p| p.as_ref().display().to_string()))
    }

    /// The targets of a command: those given, else the configured ones.
    fn targets<T: AsRef<Path>>(self, given: &[T], config: &Config) -> About {
        match given {
            [] => self.paths("target", &config.targets),
            given => self.paths("target", given),
        }
    }

    fn grave(mut self) -> About {
        self.grave = true;
        self
    }

    fn trigger(self, trigger: Trigger) -> About {
        match trigger {
            Trigger::Command => self,
            Trigger::Timer => self.with("trigger", ["timer"]),
            Trigger::Plug => self.with("trigger", ["plug"]),
        }
    }

    /// Of a command that changes something, or that gives away what is in a restore point; nothing of one that only looks.
    pub fn of(command: &Command, config: &Config, config_file: Option<&Path>) -> Option<About> {
        let about = match command {
            Command::Prepare(args) => {
                let about = About::new("prepare").paths("target", &args.target);
                (!args.check_kernel).then(|| about.grave())?
            }
            Command::Backup(args) if !args.dry_run => About::new("backup")
                .targets(&args.to, config)
                .paths("root", &args.root)
                .with("guest", args.guests.iter().map(ToString::to_string))
                .with("only", args.only_guests.then_some("guests"))
                .trigger(args.start.trigger),
            Command::Verify(args) if args.heal => {
                About::new("verify --heal").targets(&args.from.from, config)
            }
            Command::Prune(args) if !args.dry_run => About::new("prune")
                .targets(&args.target, config)
                .with("host", &args.host)
                .grave(),
            Command::Extract(args) => About::new("extract")
                .targets(&args.from.from, config)
                .with("restore point", [&args.snapshot])
                .paths("path", &args.paths)
                .paths("to", args.to.iter().chain(&args.tar)),
            Command::Mount(args) => About::new("mount")
                .targets(&args.from.from, config)
                .with("restore point", [&args.snapshot])
                .paths("to", [&args.dir]),
            Command::Arm(args) => About::new("arm")
                .paths("target", [&args.on])
                .with("restore point", [&args.snapshot])
                .with("mode", [args.mode.to_string()])
                .grave(),
            Command::Disarm(args) => About::new("disarm").paths("target", [&args.on]),
            Command::Guests(args) => guests(&args.what, config)?,
            Command::Key(args) => key(&args.what)?,
            Command::Schedule(args) => match args.what {
                ScheduleCommand::Apply => About::new("schedule apply"),
                ScheduleCommand::Show => return None,
            },
            Command::Plug(args) => {
                let about = About::new("plug").paths("stick", [&args.device]);
                about.with("adopt", args.adopt.then_some("yes"))
            }
            Command::Setup(args) if !args.dry_run => {
                About::new("setup").paths("answers", &args.answers).grave()
            }
            _ => return None,
        };
        Some(about.paths("config", config_file))
    }
}

fn guests(command: &GuestsCommand, config: &Config) -> Option<About> {
    let numbers = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>();
    Some(match command {
        GuestsCommand::Restore(args) => {
            let about = About::new("guests restore")
                .targets(&args.from.from, config)
                .with("guest", numbers(&args.ids))
                .with("restore point", [&args.snapshot])
                .with("as", args.r#as.map(|id| id.to_string()))
                .with("only", args.pending.then_some("pending"));
            match args.force {
                true => about.with("force", ["yes"]).grave(),
                false => about,
            }
        }
        GuestsCommand::Export(args) => About::new("guests export")
            .targets(&args.from.from, config)
            .with("guest", numbers(&[args.id]))
            .with("restore point", [&args.snapshot])
            .with("disk", &args.disk)
            .paths("to", args.to.iter().chain(&args.archive)),
        GuestsCommand::Forget(args) => {
            About::new("guests forget").with("guest", numbers(&args.ids))
        }
        GuestsCommand::List(_) | GuestsCommand::Status => return None,
    })
}

fn key(command: &KeyCommand) -> Option<About> {
    Some(match command {
        KeyCommand::Init { on } => About::new("key init").paths("target", [&on.on]).grave(),
        KeyCommand::Add { on, recovery, .. } => About::new("key add")
            .paths("target", [&on.on])
            .with("kind", recovery.then_some("recovery"))
            .grave(),
        KeyCommand::Remove { key, on } => About::new("key remove")
            .paths("target", [&on.on])
            .with("slot", [key])
            .grave(),
        KeyCommand::Rotate { key, on, .. } => About::new("key rotate")
            .paths("target", [&on.on])
            .with("slot", [key])
            .grave(),
        KeyCommand::Keep { on } => About::new("key keep").paths("target", [&on.on]),
        KeyCommand::List { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn about(line: &str) -> Option<About> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let config = Config {
            targets: vec!["/mnt/configured".into()],
            ..Config::default()
        };
        About::of(&cli.command, &config, cli.common.config.as_deref())
    }

    #[test]
    fn what_changes_or_reveals_something_is_noted() {
        let backup = about("lifeboat backup --trigger timer").unwrap();
        assert_eq!(backup.things["target"], ["/mnt/configured"]);
        assert_eq!(backup.things["trigger"], ["timer"]);
        assert!(!backup.grave);
        let extract =
            about("lifeboat extract latest /etc/shadow --from /dev/sdb --to /tmp").unwrap();
        assert_eq!(extract.things["path"], ["/etc/shadow"]);
        assert_eq!(extract.things["target"], ["/dev/sdb"]);
        assert!(about("lifeboat prune").unwrap().grave);
        assert!(about("lifeboat guests restore 100 --force").unwrap().grave);
        let named = about("lifeboat --config /tmp/x.toml schedule apply").unwrap();
        assert_eq!(named.things["config"], ["/tmp/x.toml"]);
    }

    #[test]
    fn what_only_looks_is_not() {
        for line in [
            "list",
            "show latest",
            "ls latest",
            "backup --dry-run",
            "prune --dry-run",
            "verify",
            "schedule show",
            "key list --on /dev/sdb",
            "prepare --check-kernel",
        ] {
            assert_eq!(about(&format!("lifeboat {line}")), None, "{line}");
        }
    }

    #[test]
    fn secrets_and_their_files_are_not_among_it() {
        for line in [
            "key add --on /dev/sdb --new-passphrase-file /root/hush",
            "key rotate 1a2b --on /dev/sdb --new-key-file /root/hush",
            "prepare /dev/sdb --encrypt --passphrase-file /root/hush",
            "extract latest --to /tmp --key-file /root/hush",
        ] {
            let about = about(&format!("lifeboat {line}")).unwrap();
            assert!(!format!("{about:?}").contains("hush"), "{line}");
        }
    }

    #[test]
    fn lines_stay_short() {
        let about = About::new("x").with("path", (0..1000).map(|_| "ä".repeat(5000)));
        assert_eq!(about.things["path"].len(), MANY + 1);
        assert!(format!("{about:?}").len() < super::super::chain::LONGEST + 40_000);
    }
}
