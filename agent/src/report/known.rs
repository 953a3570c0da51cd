//! What the evaluation of history does not say, as it is of the past: each restore point that was made, each read of a
//! target, and how long there was no new restore point. All of it as of the end of the period.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use jiff::Timestamp;

use super::model::Read;
use super::period::Days;
use crate::evaluation::age;
use crate::history::{Kind, Run, TargetRun};

/// A target as history knows it: a store, or a path where none was ever opened. A stick keeps its store wherever it is
/// plugged in, and two sticks may be plugged in at one place.
#[derive(Debug)]
pub struct Place {
    /// As it was named last.
    pub name: PathBuf,
    pub store: Option<String>,
    pub stick: bool,
    /// What was ever read of it again, the oldest first.
    pub reads: Vec<Seen>,
}

/// A read of a target.
#[derive(Debug)]
pub struct Seen {
    pub at: Timestamp,
    pub run: String,
    pub bytes: u64,
    pub good: bool,
    /// Of the whole store.
    pub whole: bool,
    /// `lifeboat verify`, not the end of a backup.
    pub verify: bool,
    pub damage: Vec<String>,
}

/// A restore point that was good when it was made.
#[derive(Debug)]
pub struct Point<'a> {
    /// What it holds is as of then: when its run began, or the time of a dump that was there before.
    pub made: Timestamp,
    /// When its run was over.
    pub complete: Timestamp,
    pub run: &'a Run,
    pub target: &'a TargetRun,
    pub place: usize,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Known<'a> {
    pub places: Vec<Place>,
    /// Of the host, in order of their runs.
    pub host: Vec<Point<'a>>,
    /// Of guests: VM or container, and number.
    pub guests: BTreeMap<(bool, u32), Vec<Point<'a>>>,
    by_store: HashMap<String, usize>,
    by_path: HashMap<PathBuf, usize>,
}

/// When a run was over; one that never ended was over at once.
pub fn end(run: &Run) -> Timestamp {
    run.ended.unwrap_or(run.started)
}

/// The key of a guest.
pub fn key(guest: &crate::history::GuestRun) -> (bool, u32) {
    let is_vm = guest.kind == bundle::document::guest::GuestKind::Qemu;
    (is_vm, guest.id)
}

impl<'a> Known<'a> {
    /// Of runs in their order.
    pub fn new(runs: &'a [Run], saves_host: impl Fn(&Run) -> bool) -> Known<'a> {
        let mut known = Known::default();
        for run in runs {
            let of_host = saves_host(run);
            for target in &run.targets {
                let place = known.place(target);
                known.read(run, target, place);
                if of_host && target.is_good() {
                    known.host.push(Point::new(run, run.started, target, place));
                }
            }
            for guest in &run.guests {
                for target in &guest.targets {
                    let place = known.place(target);
                    known.read(run, target, place);
                    if target.is_good() && run.kind != Kind::Drill {
                        let points = known.guests.entry(key(guest)).or_default();
                        let made = guest.dumped.unwrap_or(run.started);
                        points.push(Point::new(run, made, target, place));
                    }
                }
            }
        }
        known
    }

    fn place(&mut self, target: &TargetRun) -> usize {
        let at_path = self.by_path.get(&target.target).copied();
        let found = match &target.store {
            None => at_path,
            Some(store) => self
                .by_store
                .get(store)
                .copied()
                .or_else(|| at_path.filter(|at| self.places[*at].store.is_none())),
        };
        let index = found.unwrap_or_else(|| {
            self.places.push(Place {
                name: PathBuf::new(),
                store: None,
                stick: false,
                reads: Vec::new(),
            });
            self.places.len() - 1
        });
        let place = &mut self.places[index];
        place.name = target.target.clone();
        place.stick |= target.stick;
        if let Some(store) = &target.store {
            place.store = Some(store.clone());
            self.by_store.insert(store.clone(), index);
        }
        self.by_path.insert(target.target.clone(), index);
        index
    }

    /// Which target that is; nothing for one that is not known as of the end.
    pub fn index(&self, target: &TargetRun) -> Option<usize> {
        let of_store = target.store.as_ref().and_then(|s| self.by_store.get(s));
        of_store
            .or_else(|| self.by_path.get(&target.target))
            .copied()
    }

    fn read(&mut self, run: &Run, target: &TargetRun, place: usize) {
        let Some(good) = target.verified else { return };
        self.places[place].reads.push(Seen {
            at: end(run),
            run: run.id.clone(),
            bytes: target.verified_bytes,
            good,
            whole: target.whole,
            verify: run.kind == Kind::Verify,
            damage: match (good, target.damage.is_empty()) {
                (true, _) => Vec::new(),
                (false, true) => target.problems.clone(),
                (false, false) => target.damage.clone(),
            },
        });
    }
}

impl Place {
    /// What reads found that no read of all of it has taken back since.
    pub fn damage(&self) -> Vec<String> {
        let newest = self.reads.iter().rev();
        let since = newest.take_while(|read| !(read.good && read.whole && read.verify));
        let mut lines: Vec<String> = Vec::new();
        for line in since.flat_map(|read| &read.damage) {
            let line = line.trim().to_owned();
            if !lines.contains(&line) && lines.len() < 20 {
                lines.push(line);
            }
        }
        lines
    }

    /// As people call it. Stores that were plugged in at the same place are told apart by their ids.
    pub fn title(&self, all: &[Place]) -> String {
        let same = |other: &&Place| other.name == self.name;
        let name = self.name.display();
        match &self.store {
            Some(store) if all.iter().filter(same).count() > 1 => {
                format!("{name} ({})", store.chars().take(8).collect::<String>())
            }
            _ => name.to_string(),
        }
    }
}

impl Seen {
    /// For the report.
    pub fn say(&self, days: &Days) -> Read {
        Read {
            at: days.say(self.at),
            age_seconds: age(days.as_of, self.at),
            run: self.run.clone(),
            bytes: self.bytes,
            good: self.good,
        }
    }
}

impl<'a> Point<'a> {
    fn new(run: &'a Run, made: Timestamp, target: &'a TargetRun, place: usize) -> Point<'a> {
        Point {
            made,
            complete: end(run),
            run,
            target,
            place,
        }
    }
}

/// A time without a new good restore point: from the beginning of the run that made one to the end of the run that made
/// the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub from: Timestamp,
    /// Nothing while there is no next one.
    pub to: Option<Timestamp>,
    pub seconds: u64,
}

/// Such times that reach into the period. `first` is the first moment that anything is known of.
pub fn intervals(points: &[Point<'_>], first: Option<Timestamp>, days: &Days) -> Vec<Interval> {
    let mut found = Vec::new();
    let Some(mut from) = first.or_else(|| points.first().map(|p| p.made)) else {
        return found;
    };
    let mut times: Vec<_> = points.iter().map(|p| (p.complete, p.made)).collect();
    times.sort();
    let mut last_complete = None;
    for (complete, made) in times {
        // Several targets of one run.
        if last_complete == Some((complete, made)) {
            continue;
        }
        last_complete = Some((complete, made));
        if complete > days.start {
            found.push(Interval {
                from,
                to: Some(complete),
                seconds: age(complete, from),
            });
        }
        from = from.max(made);
    }
    if from < days.as_of {
        found.push(Interval {
            from,
            to: None,
            seconds: age(days.as_of, from),
        });
    }
    found
}
