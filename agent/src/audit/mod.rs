//! Who did what: a log to which entries are only added, each chained to the one before it.

mod about;
pub mod chain;
pub mod log;
mod who;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bundle::Id;

pub use about::About;
pub use who::Who;

use crate::output::{Outcome, Refused, error_code};
use chain::{Entry, Event, Head};

/// What a command made or removed, for the entry at its end.
static DONE: Mutex<Vec<(&'static str, String)>> = Mutex::new(Vec::new());

/// Notes a restore point that a command made, for the entry at its end.
pub fn made(id: Id, target: &Path) {
    note("made", id, target);
}

/// Notes a restore point that a command removed.
pub fn removed(id: Id, target: &Path) {
    note("removed", id, target);
}

fn note(what: &'static str, id: Id, target: &Path) {
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    done.push((what, format!("{} on {}", id.short(), target.display())));
}

/// A command in the log whose end is still to be noted.
pub struct Running {
    state: PathBuf,
    who: Who,
    about: About,
    number: u64,
}

/// Notes that a command begins, if it changes or reveals something. One that could take away what the log is there to
/// prove, or what backups are made of, is refused where that cannot be noted; all others go on.
pub fn begin(state: &Path, about: Option<About>) -> anyhow::Result<Option<Running>> {
    let Some(about) = about else { return Ok(None) };
    let who = Who::now();
    match log::append(state, &who, &about, Event::Start) {
        Ok((entry, head)) => {
            tell(state, &entry, &head);
            Ok(Some(Running {
                state: state.into(),
                number: entry.number,
                who,
                about,
            }))
        }
        // Users who work on what is their own have no log.
        Err(error) if !nix::unistd::geteuid().is_root() => {
            tracing::info!("{error:#}");
            Ok(None)
        }
        Err(error) if about.grave => Err(Refused(format!(
            "{error:#}; `lifeboat {}` is done only where it is noted who did it: make room, or make {} writable",
            about.command,
            state.display()
        ))
        .into()),
        Err(error) => {
            eprintln!("warning: {error:#}");
            Ok(None)
        }
    }
}

impl Running {
    /// Notes how it ended.
    pub fn end(mut self, result: &anyhow::Result<Outcome>) {
        let done = std::mem::take(&mut *DONE.lock().unwrap_or_else(PoisonError::into_inner));
        for (what, which) in done {
            self.about.add(what, which);
        }
        let event = Event::End {
            of: self.number,
            exit: match result {
                Ok(outcome) => outcome.number(),
                Err(error) => error_code(error),
            },
            error: result
                .as_ref()
                .err()
                .map(|e| about::short(&format!("{e:#}"))),
        };
        match log::append(&self.state, &self.who, &self.about, event) {
            Ok((entry, head)) => tell(&self.state, &entry, &head),
            Err(error) => eprintln!("warning: {error:#}"),
        }
    }
}

fn tell(state: &Path, entry: &Entry, head: &Head) {
    // Of logs elsewhere, as tests have them, the journal knows nothing.
    if state == crate::config::Config::default().state {
        log::tell_journal(entry, head);
    }
}
