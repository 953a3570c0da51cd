//! `uml-floor`: process 1 of the User Mode Linux machine of the storage floor. Its verdict is a line on the console.

mod boot;
mod btrfs;
mod consistency;
mod content;
mod cuts;
mod dirt;
mod facts;
mod failpoint;
mod luks;
mod machine;
mod mbr;
mod modes;
mod raid;
mod record;
mod restore;
mod stack;
mod volumes;
mod watchdog;
mod zfs;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use restore::Setup;

/// What the kernel's command line asks for; see `Task` in `uml/machine.rs`.
fn run() -> Result<()> {
    machine::start()?;
    watchdog::start();
    match std::env::var("FLOOR_TASK").as_deref() {
        Ok("consistency") => return consistency::first(),
        Ok("consistency-back") => return consistency::second(),
        _ => {}
    }
    let setup = Setup::load()?;
    let stride = match std::env::var("FLOOR_STRIDE") {
        Ok(text) => text.parse().context("FLOOR_STRIDE")?,
        Err(_) => 1,
    };
    match std::env::var("FLOOR_TASK").as_deref() {
        Ok("cuts") if setup.case.in_place.is_some() => modes::cuts(&setup, stride),
        Ok("cuts") => cuts::cuts(&setup, stride),
        Ok("errors") => cuts::errors(&setup, stride),
        Ok("power-cut") => {
            let at = cuts::failpoint()?.context("a power cut needs a place")?;
            setup.make_dirty()?;
            // The past is on the disks; only what comes now may be lost.
            nix::unistd::sync();
            cuts::attempt(&setup, at)
        }
        Ok("power-back") => setup.restore(),
        Ok("record") => record::run(&setup),
        Ok(other) => bail!("{other} is no task"),
        Err(_) if setup.case.in_place.is_some() => modes::run(&setup),
        Err(_) => restore::run(&setup),
    }
}

fn main() -> ExitCode {
    if std::process::id() != 1 {
        if std::env::var_os(record::RECORD).is_some() {
            return record::inside();
        }
        return match cuts::failpoint() {
            // Started by process 1, to be killed.
            Ok(Some(at)) => match machine::speak()
                .and_then(|()| Setup::load())
                .and_then(|setup| cuts::attempt(&setup, at))
            {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    println!("floor: note: {error:#}");
                    ExitCode::FAILURE
                }
            },
            _ => {
                eprintln!("uml-floor is process 1 of a test machine: run `scripts/test --list`");
                ExitCode::from(2)
            }
        };
    }
    // A panic of process 1 would take the kernel down before the text is out.
    let result = std::panic::catch_unwind(run);
    match result {
        Ok(Ok(())) => println!("\nfloor: passed"),
        Ok(Err(error)) => println!(
            "\nfloor: failed: {}",
            format!("{error:#}").replace('\n', " | ")
        ),
        Err(_) => println!("\nfloor: failed: it panicked"),
    }
    machine::stop()
}
