//! `lifeboat schedule`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::Context;
use crate::cli::{ScheduleArgs, ScheduleCommand};
use crate::config::DEFAULT_PATH;
use crate::output::{Outcome, Usage, table};
use crate::schedule::apply::{Applied, Machine};
use crate::schedule::timers::{self, Timer};

/// Makes the timers, or shows them.
pub fn run(context: &Context, args: &ScheduleArgs) -> anyhow::Result<Outcome> {
    match args.what {
        ScheduleCommand::Apply => apply(context),
        ScheduleCommand::Show => show(context),
    }
}

/// Makes the timers what the configuration says.
pub fn apply(context: &Context) -> anyhow::Result<Outcome> {
    let named = context.config_file.as_deref();
    if named.is_some_and(|file| file != Path::new(DEFAULT_PATH)) {
        return Err(Usage(format!(
            "timers run with the configuration {DEFAULT_PATH}: put the settings there, and leave --config out"
        ))
        .into());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("only root may change the machine's timers: run this command as root");
    }
    if !Path::new("/run/systemd/system").exists() {
        bail!(
            "systemd does not run on this machine: start `lifeboat backup` by other means, for example cron"
        );
    }
    let program = std::env::current_exe().context("cannot find out where this program is")?;
    let machine = Machine {
        sys: &context.sys,
        root: PathBuf::from("/"),
        program,
    };
    let applied = machine.apply(&context.config.schedule)?;
    for warning in &applied.warnings {
        eprintln!("warning: {warning}");
    }
    let timers = timers::all(&context.sys, &context.config.schedule);
    context
        .out
        .summary(&applied, || format!("{}{}", done(&applied), text(&timers)))?;
    Ok(match applied.warnings.is_empty() {
        true => Outcome::Fine,
        false => Outcome::Warnings,
    })
}

fn done(applied: &Applied) -> String {
    let list = |what: &str, units: &[String]| match units {
        [] => String::new(),
        units => format!("{what}: {}\n", units.join(", ")),
    };
    match applied.written.is_empty() && applied.removed.is_empty() {
        true => "The timers are as configured.\n".to_owned(),
        false => list("Written", &applied.written) + &list("Removed", &applied.removed),
    }
}

fn show(context: &Context) -> anyhow::Result<Outcome> {
    let timers = timers::all(&context.sys, &context.config.schedule);
    context.out.result(&timers, || text(&timers))?;
    Ok(Outcome::Fine)
}

fn text(timers: &[Timer]) -> String {
    let zone = TimeZone::system();
    let time = |time: Option<Timestamp>| match time {
        Some(time) => time
            .to_zoned(zone.clone())
            .strftime("%a %Y-%m-%d %H:%M")
            .to_string(),
        None => "-".to_owned(),
    };
    let rows: Vec<Vec<String>> = timers
        .iter()
        .map(|timer| {
            let schedule = match timer.schedule.as_str() {
                "" => "-".to_owned(),
                schedule => schedule.to_owned(),
            };
            let name = timer.job.setting().to_owned();
            vec![name, schedule, time(timer.next), time(timer.last)]
        })
        .collect();
    let mut out = table(&["what", "schedule", "next", "last"], &rows);
    if timers.iter().any(|t| t.active == t.schedule.is_empty()) {
        out.push_str("The timers are not as configured: run `lifeboat schedule apply`.\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::units::Job;

    fn timer(schedule: &str, active: bool) -> Timer {
        Timer {
            job: Job::Host,
            schedule: schedule.to_owned(),
            timer: Job::Host.timer(),
            active,
            next: None,
            last: None,
        }
    }

    #[test]
    fn a_timer_that_is_not_as_configured_is_noticed() {
        assert!(!text(&[timer("daily 02:00", true), timer("", false)]).contains("apply"));
        assert!(text(&[timer("daily 02:00", false)]).contains("schedule apply"));
        assert!(text(&[timer("", true)]).contains("schedule apply"));
    }
}
