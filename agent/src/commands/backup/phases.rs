//! What a run spent its time with.

use std::time::Instant;

use crate::history::Phase;

/// What took how long.
pub(super) struct Phases {
    since: Instant,
    pub(super) all: Vec<Phase>,
}

impl Phases {
    pub(super) fn start() -> Phases {
        Phases {
            since: Instant::now(),
            all: Vec::new(),
        }
    }

    /// What was done since the last call has this name.
    pub(super) fn next(&mut self, name: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        match self.all.iter_mut().find(|p| p.name == name) {
            Some(phase) => phase.seconds += seconds,
            None => self.all.push(Phase {
                name: name.to_owned(),
                seconds,
            }),
        }
    }
}
