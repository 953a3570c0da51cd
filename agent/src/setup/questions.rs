//! The questions, each with a default that is there.

use std::path::PathBuf;

use super::machine::Machine;
use super::terminal::{Ask, menu, yes};
use super::{Answers, answers};
use crate::config::Config;
use crate::values;

/// Asks. What is configured already comes first, and stays unless something else is chosen.
pub fn ask(
    who: &mut dyn Ask,
    machine: &Machine,
    config: &Config,
    may_schedule: bool,
    may_tell: bool,
) -> anyhow::Result<Answers> {
    let mut answers = Answers::default();
    if !config.targets.is_empty() {
        let names = config.targets.iter().map(|t| format!("  {}", t.display()));
        who.say("Targets that are configured already, and stay:");
        who.say(&names.collect::<Vec<_>>().join("\n"));
    }
    stick(who, machine, config, &mut answers)?;
    drive(who, machine, config, &mut answers)?;
    if answers.stick.is_some() || answers.drive.is_some() {
        who.say("\nRestore points hold the passwords and keys of this host.");
        answers.encrypt = yes(who, "Encrypt new targets?", true)?;
    }
    if may_schedule {
        answers.time = Some(time(who, config)?);
    }
    if may_tell {
        let now = setting(config, "notify", "mail-to");
        let default = match now.as_deref() {
            None => "root",
            Some("") => "none",
            Some(now) => now,
        };
        who.say("");
        let to = who.ask(
            "Who gets a mail when something is wrong? (none: nobody)",
            default,
        )?;
        answers.mail_to = Some(if to == "none" { String::new() } else { to });
    }
    who.say("");
    answers.first_backup = yes(who, "Make a backup at the end?", true)?;
    Ok(answers)
}

fn stick(
    who: &mut dyn Ask,
    machine: &Machine,
    config: &Config,
    answers: &mut Answers,
) -> anyhow::Result<()> {
    let is_configured = |path: &PathBuf| {
        let same = |t: &PathBuf| t == path || t.canonicalize().ok() == path.canonicalize().ok();
        config.targets.iter().any(same)
    };
    let new: Vec<_> = machine
        .sticks
        .iter()
        .filter(|disk| !is_configured(&disk.path))
        .collect();
    let mut items: Vec<String> = new
        .iter()
        .map(|disk| match disk.ours {
            true => format!("{}  (a Lifeboat stick: stays as it is)", disk.title),
            false => format!("{}  (will be ERASED)", disk.title),
        })
        .collect();
    items.push("an image file, to be written to a stick later".into());
    let none = match config.targets.is_empty() {
        true => "no stick: the rescue system of another one is needed for a restore",
        false => "no further stick",
    };
    items.push(none.into());
    // With targets there is nothing to be done; without, a stick is what is missing.
    let default = match config.targets.is_empty() && !new.is_empty() {
        true => 0,
        false => items.len() - 1,
    };
    let chosen = menu(
        who,
        "Which stick is to boot on the bad day?",
        &items,
        default,
    )?;
    if let Some(disk) = new.get(chosen) {
        answers.stick = Some(disk.path.clone());
    } else if chosen == new.len() {
        let path = absolute(who, "Image file", "/var/lib/lifeboat-stick.img")?;
        if !path.exists() {
            answers.size = Some(loop {
                match who.ask("Its size", "32G")?.parse() {
                    Ok(size) => break size,
                    Err(error) => who.say(&error),
                }
            });
        }
        answers.stick = Some(path);
    }
    Ok(())
}

fn drive(
    who: &mut dyn Ask,
    machine: &Machine,
    config: &Config,
    answers: &mut Answers,
) -> anyhow::Result<()> {
    let new: Vec<_> = machine
        .drives
        .iter()
        .filter(|drive| !config.targets.iter().any(|t| t.starts_with(&drive.point)))
        .collect();
    let mut items: Vec<String> = new
        .iter()
        .map(|drive| {
            format!(
                "{}  {}  {} free of {}",
                drive.point.display(),
                drive.fstype,
                values::bytes(drive.space.free),
                values::bytes(drive.space.size)
            )
        })
        .collect();
    items.push("another directory".into());
    items.push("no drive: guests and a second copy of the host have no place".into());
    let default = match config.targets.is_empty() && !new.is_empty() {
        true => 0,
        false => items.len() - 1,
    };
    let chosen = menu(
        who,
        "Which drive takes the guests, and the host a second time?",
        &items,
        default,
    )?;
    let suggested = match new.get(chosen) {
        Some(drive) => drive.point.join("lifeboat-store").display().to_string(),
        None if chosen == new.len() => String::new(),
        None => return Ok(()),
    };
    answers.drive = Some(absolute(
        who,
        "Directory (it is made where it is missing)",
        &suggested,
    )?);
    Ok(())
}

fn absolute(who: &mut dyn Ask, question: &str, default: &str) -> anyhow::Result<PathBuf> {
    loop {
        let path = PathBuf::from(who.ask(question, default)?);
        if path.is_absolute() {
            return Ok(path);
        }
        who.say("Please give an absolute path, one that begins with /.");
    }
}

fn time(who: &mut dyn Ask, config: &Config) -> anyhow::Result<String> {
    let now = setting(config, "schedule", "host").unwrap_or_default();
    let usual = now.strip_prefix("daily ").unwrap_or(&now);
    let default = match (usual, config.targets.is_empty()) {
        ("", true) => "02:00",
        // So it was answered the last time.
        ("", false) => "none",
        (usual, _) => usual,
    };
    who.say("");
    loop {
        let text = who.ask(
            "At what time is the host backed up each day? (none: never)",
            default,
        )?;
        if text == "none" {
            return Ok(String::new());
        }
        // A schedule that was written by hand stays.
        if text == now || answers::clock(&text).is_some() {
            return Ok(text);
        }
        who.say("Please answer with a time like 02:00, or none.");
    }
}

/// A setting of a table that this version may have.
fn setting(config: &Config, table: &str, name: &str) -> Option<String> {
    let all = toml::Table::try_from(config).ok()?;
    let value = all.get(table)?.as_table()?.get(name)?;
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Space;
    use crate::setup::machine::{Disk, Drive};
    use crate::setup::terminal::Script;
    use crate::values::Size;

    fn machine() -> Machine {
        let disk = |name: &str, ours| Disk {
            path: format!("/dev/disk/by-id/usb-{name}").into(),
            device: format!("/dev/{name}").into(),
            title: format!("/dev/{name}  Stick  serial {name}  32 GiB"),
            ours,
        };
        let space = Space {
            free: 5 << 40,
            size: 8 << 40,
        };
        Machine {
            sticks: vec![disk("sdx", false), disk("sdy", true)],
            drives: vec![Drive {
                point: "/mnt/big".into(),
                fstype: "xfs".into(),
                space,
            }],
        }
    }

    #[test]
    fn enter_takes_what_is_there() {
        let mut who = Script::new(&["", "", "", "", "", "", ""]);
        let answers = ask(&mut who, &machine(), &Config::default(), true, true).unwrap();
        assert!(who.is_done(), "{}", who.said);
        assert_eq!(answers.stick, Some("/dev/disk/by-id/usb-sdx".into()));
        assert_eq!(answers.drive, Some("/mnt/big/lifeboat-store".into()));
        assert!(answers.encrypt && answers.first_backup);
        assert_eq!(answers.time.as_deref(), Some("02:00"));
        assert_eq!(answers.mail_to.as_deref(), Some("root"));
        assert!(
            who.said
                .contains("sdx  Stick  serial sdx  32 GiB  (will be ERASED)")
        );
        assert!(
            who.said
                .contains("sdy  Stick  serial sdy  32 GiB  (a Lifeboat stick")
        );
        assert!(
            who.said.lines().all(|line| line.chars().count() < 80),
            "{}",
            who.said
        );
    }

    #[test]
    fn with_targets_enter_changes_nothing() {
        let config = Config {
            targets: vec!["/mnt/big/old".into()],
            ..Config::default()
        };
        let mut who = Script::new(&["", "", "no"]);
        let answers = ask(&mut who, &machine(), &config, false, false).unwrap();
        assert_eq!(answers, Answers::default());
        // It is a target already.
        assert!(!who.said.contains("/mnt/big  xfs"), "{}", who.said);
    }

    #[test]
    fn images_and_other_directories() {
        let typed = [
            "3",
            "x.img",
            "/does/not/exist/x.img",
            "big",
            "4G",
            "2",
            "/srv/b",
            "no",
            "none",
            "later",
            "3:30",
            "no",
        ];
        let mut who = Script::new(&typed);
        let answers = ask(&mut who, &machine(), &Config::default(), true, false);
        // `none` is a time, too: then the next question comes.
        let answers = answers.unwrap();
        assert_eq!(answers.stick, Some("/does/not/exist/x.img".into()));
        assert_eq!(answers.size, Some(Size(4 << 30)));
        assert_eq!(answers.drive, Some("/srv/b".into()));
        assert!(!answers.encrypt);
        assert_eq!(answers.time.as_deref(), Some(""));
    }
}
