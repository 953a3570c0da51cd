//! `lifeboat plug`

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bundle::store::Store;
use clap::Parser;
use jiff::Timestamp;
use layout::system::{Cmd, System};
use serde::Serialize;

use crate::cli::{BackupArgs, Cli, Command, PlugArgs};
use crate::commands::backup;
use crate::history::{self, Kind, Process, Recorder, Run, TargetRun, Trigger};
use crate::output::{Outcome, Refused};
use crate::plug::decide::{Action, Facts, decide, last_good, was_there};
use crate::plug::known::{self, Known};
use crate::plug::medium::Medium;
use crate::plug::power::{Places, Power};
use crate::plug::say::{Sound, tell};
use crate::plug::settings::Way;
use crate::plug::{inside, stale};
use crate::targets::{Access, Opened, close_all};
use crate::{Context, after, facts, run_lock, seen, signals};

/// How long it waits for another run, for example that of a second stick.
const PATIENCE: &str = "6h";

#[derive(Serialize)]
struct Said<'a> {
    stick: &'a Path,
    medium: &'a str,
    done: &'static str,
    text: &'a str,
}

/// Does what is to be done with a stick that was plugged in.
pub fn run(context: &Context, args: &PlugArgs) -> anyhow::Result<Outcome> {
    if !nix::unistd::geteuid().is_root() {
        bail!("only root may mount sticks: run this command as root");
    }
    let medium = Medium::find(&context.sys, &args.device)?;
    if args.adopt {
        return adopt(context, &medium);
    }
    stale::unmount();
    let plug = Plug {
        context,
        at_boot: was_there(medium.seen_after, up_after(&context.sys)),
        medium,
    };
    plug.run()
}

/// Makes a stick one of this host's.
fn adopt(context: &Context, medium: &Medium) -> anyhow::Result<Outcome> {
    let opened = Opened::open(&medium.disk, Access::Read)?;
    let info = Store::info(&opened.dir)
        .with_context(|| format!("cannot read the store on {}", medium.disk.display()));
    let info = close_all(vec![opened], info)?;
    let known = Known::new(&medium.guid, &info.id).on(&medium.serial, &medium.model);
    known.shared().remember(&context.config.state)?;
    let text = format!(
        "{} is one of this host's sticks now: it gets restore points when it is plugged in (on-plug = \"{}\")",
        medium.describe(),
        context.config.plug.on_plug
    );
    say(context, medium, "adopted", &text)?;
    Ok(Outcome::Fine)
}

/// A line on standard output, or a document.
fn say(context: &Context, medium: &Medium, done: &'static str, text: &str) -> anyhow::Result<()> {
    let said = Said {
        stick: &medium.disk,
        medium: &medium.guid,
        done,
        text,
    };
    context.out.result(&said, || text.to_owned())
}

/// Microseconds from the start of the kernel until the system was up; 0 while it starts, nothing without systemd.
fn up_after(sys: &dyn System) -> Option<u64> {
    let show = Cmd::new("systemctl").args([
        "show",
        "--property=ActiveEnterTimestampMonotonic",
        "--value",
        "multi-user.target",
    ]);
    sys.run(&show).ok()?.text().trim().parse().ok()
}

struct Plug<'a> {
    context: &'a Context,
    medium: Medium,
    at_boot: bool,
}

impl Plug<'_> {
    fn run(&self) -> anyhow::Result<Outcome> {
        let action = self.decide();
        match action {
            Ok(Action::Backup) => self.back_up(),
            Ok(Action::Leave(text)) => {
                let text = format!("{}: {text}", self.medium.describe());
                self.tell(&text, None);
                say(self.context, &self.medium, "left", &text)?;
                Ok(Outcome::Fine)
            }
            Ok(Action::Stranger(text)) => {
                self.tell(&text, None);
                say(self.context, &self.medium, "unknown", &text)?;
                Ok(Outcome::Fine)
            }
            Ok(Action::Refuse(text)) => self.fail(Refused(text).into()),
            Err(error) => self.fail(error),
        }
    }

    /// What to do, after a look at the stick if there is something to do.
    fn decide(&self) -> anyhow::Result<Action> {
        let Context { config, sys, .. } = self.context;
        let medium = &self.medium;
        let known = known::find(&config.state, &medium.guid)?;
        let runs = history::all(&config.state)?;
        let facts = Facts {
            medium,
            known: known.as_ref(),
            configured: medium.is_configured(&config.targets),
            last_good: known.as_ref().and_then(|k| last_good(&runs, &k.store)),
            at_boot: self.at_boot,
            now: Timestamp::now(),
        };
        let action = decide(&facts, &config.plug);
        if action != Action::Backup {
            return Ok(action);
        }
        let inside = inside::look(&medium.disk)?;
        let own = facts::identity(sys).machine_id;
        let wrote = seen::wrote(&config.state, &inside.store);
        let objection = inside::objection(&inside, known.as_ref(), &own, wrote, &medium.describe());
        Ok(objection.unwrap_or(Action::Backup))
    }

    /// There is no restore point, and the history says why.
    fn fail(&self, error: anyhow::Error) -> anyhow::Result<Outcome> {
        let host = facts::identity(&self.context.sys);
        let state = &self.context.config.state;
        let mut recorder = Recorder::start(state, Kind::Backup, Trigger::Plug, &host);
        let mut target = TargetRun::new(&self.target());
        target.stick = true;
        target.error = Some(format!("{error:#}"));
        recorder.run.targets.push(target);
        let result = Err(error);
        let run = recorder.finish(&result);
        after::ended(self.context, &run);
        self.tell(&self.failed(Some(&run)), Some(Sound::Bad));
        result
    }

    fn target(&self) -> std::path::PathBuf {
        let Context { config, sys, .. } = self.context;
        self.medium.target(sys, &config.targets)
    }

    /// As `lifeboat backup` does; afterwards the stick is powered down.
    fn back_up(&self) -> anyhow::Result<Outcome> {
        let target = self.target();
        self.tell(
            &format!(
                "Lifeboat: backing up to {}; do not pull it out",
                self.medium.describe()
            ),
            None,
        );
        let result = backup::run(self.context, &backup_args(&target)?);
        let run = own_run(&self.context.config.state);
        match &result {
            Ok(Outcome::Fine | Outcome::Warnings) => {
                let saved = run.as_ref().map_or_else(String::new, saved);
                let text = format!("Lifeboat: {saved}{}", self.let_go());
                eprintln!("{text}");
                self.tell(&text, Some(Sound::Good));
            }
            _ => {
                let text = self.failed_with(&result, run.as_ref());
                eprintln!("{text}");
                self.tell(&text, Some(Sound::Bad));
            }
        }
        result
    }

    /// Whether and how it may be pulled out now, after it was powered down if that is wanted.
    fn let_go(&self) -> String {
        let disk = &self.medium.disk;
        let places = Places::default();
        if !places.is_there(disk) {
            return "It was pulled out.".to_owned();
        }
        match places.users(disk) {
            Ok(users) if users.is_empty() => {}
            Ok(users) => {
                return format!("It is in use ({}): DO NOT PULL IT OUT.", users.join(", "));
            }
            Err(error) => return format!("It may be in use ({error:#}): DO NOT PULL IT OUT."),
        }
        // A run that has waited for this one may be about to write to it.
        let state = &self.context.config.state;
        let Ok(_lock) = run_lock::take(state, "lifeboat plug", Duration::ZERO) else {
            return "Another run has begun: DO NOT PULL IT OUT before that is over.".to_owned();
        };
        if self.at_boot || !self.context.config.plug.power_off || signals::stopped() {
            return "It is unmounted: it can be pulled out.".to_owned();
        }
        // The kernel gives a name anew: what is called so now has to be this stick.
        let same = |now: &Medium| now.guid == self.medium.guid && now.serial == self.medium.serial;
        if !Medium::find(&self.context.sys, disk).is_ok_and(|now| same(&now)) {
            return "It was pulled out.".to_owned();
        }
        match places.off(disk) {
            Ok(Power::Off) => "It is powered down: pull it out.".to_owned(),
            Ok(Power::On(reason)) => {
                format!("It is unmounted: pull it out. (It stays powered: {reason}.)")
            }
            Err(error) => format!("It is unmounted: pull it out. (It stays powered: {error:#}.)"),
        }
    }

    fn failed_with(&self, result: &anyhow::Result<Outcome>, run: Option<&Run>) -> String {
        match (run, result) {
            (None, Err(error)) => self.failed_because(&format!("{error:#}")),
            _ => self.failed(run),
        }
    }

    fn failed(&self, run: Option<&Run>) -> String {
        self.failed_because(&run.map(why).unwrap_or_default())
    }

    fn failed_because(&self, why: &str) -> String {
        let disk = &self.medium.disk;
        let places = Places::default();
        let now = match places.users(disk) {
            _ if !places.is_there(disk) => {
                "It was pulled out before the end; what was on it before is whole. Plug it in again"
            }
            Ok(users) if users.is_empty() => "It is not in use: it can be pulled out",
            _ => "It may be in use: DO NOT PULL IT OUT",
        };
        format!(
            "Lifeboat: NO GOOD RESTORE POINT on {}.\n{why}\n{now}.",
            self.medium.describe()
        )
    }

    /// To whoever is near; nobody is when the machine starts.
    fn tell(&self, text: &str, sound: Option<Sound>) {
        let mut ways: Vec<Way> = self.context.config.plug.say.clone();
        if self.at_boot {
            ways.retain(|way| *way == Way::Console);
        }
        tell(&self.context.sys, &ways, text, sound);
    }
}

/// The options of the backup, as they would be at a terminal.
fn backup_args(target: &Path) -> anyhow::Result<BackupArgs> {
    let words = [
        "lifeboat",
        "backup",
        "--trigger",
        "plug",
        "--wait",
        PATIENCE,
        "--to",
    ];
    let words = words.iter().map(std::ffi::OsStr::new);
    match Cli::try_parse_from(words.chain([target.as_os_str()]))?.command {
        Command::Backup(args) => Ok(args),
        _ => bail!("there is no command backup"),
    }
}

/// What the history says of the backup that this process made.
fn own_run(state: &Path) -> Option<Run> {
    let own = Process::own();
    let runs = history::all(state).ok()?;
    runs.into_iter().rev().find(|run| run.process == own)
}

/// What was saved, in a sentence for each target.
fn saved(run: &Run) -> String {
    let mut out = String::new();
    for target in run.targets.iter().filter(|t| t.is_good()) {
        let id = target.snapshot.map(|id| id.short()).unwrap_or_default();
        let verified = match target.verified {
            Some(true) => "and was read back without errors",
            _ => "and was NOT READ BACK",
        };
        out.push_str(&format!(
            "restore point {id} of {} is on the stick {verified}.\n",
            run.host
        ));
        for problem in &target.problems {
            out.push_str(&format!("{problem}\n"));
        }
    }
    out
}

/// Why there is no good restore point.
fn why(run: &Run) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    for target in &run.targets {
        let target = target
            .error
            .iter()
            .chain(&target.damage)
            .chain(&target.problems);
        reasons.extend(target.map(String::as_str));
    }
    if reasons.is_empty() {
        reasons.extend(run.error.as_deref());
    }
    reasons.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Recorded;

    #[test]
    fn the_backup_is_one_by_plugging_in() {
        let args = backup_args(Path::new("/dev/disk/by-id/usb-a b")).unwrap();
        assert_eq!(args.start.trigger, Trigger::Plug);
        assert_eq!(args.start.patience().as_secs(), 6 * 3600);
        assert_eq!(args.to, [Path::new("/dev/disk/by-id/usb-a b")]);
        assert!(!args.no_verify && !args.no_guests);
    }

    #[test]
    fn when_the_system_was_up() {
        let line =
            "systemctl show --property=ActiveEnterTimestampMonotonic --value multi-user.target";
        let sys = Recorded::new().command(line, "21500000\n");
        assert_eq!(up_after(&sys), Some(21_500_000));
        assert_eq!(up_after(&Recorded::new()), None);
    }

    #[test]
    fn what_is_said_is_what_the_history_says() {
        let state = tempfile::tempdir().unwrap();
        let host = facts::identity(&Recorded::new().file("/proc/sys/kernel/hostname", "pve1\n"));
        let mut recorder = Recorder::start(state.path(), Kind::Backup, Trigger::Plug, &host);
        let mut target = TargetRun::new(Path::new("/dev/sdb"));
        target.snapshot = Some(bundle::Id::of(b"x"));
        target.verified = Some(true);
        recorder.run.targets.push(target);
        let run = recorder.finish(&Ok(Outcome::Fine));
        assert_eq!(own_run(state.path()).as_ref(), Some(&run));
        let text = saved(&run);
        assert!(
            text.contains("of pve1") && text.contains("without errors"),
            "{text}"
        );
        let mut unread = run.clone();
        unread.targets[0].verified = None;
        assert!(saved(&unread).contains("NOT READ BACK"));
        let mut bad = run;
        bad.targets[0].verified = Some(false);
        bad.targets[0].damage = vec!["packs/aa/x.pack: damaged".into()];
        assert_eq!(saved(&bad), "");
        assert_eq!(why(&bad), "packs/aa/x.pack: damaged");
    }
}
