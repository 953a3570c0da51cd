//! Lists and runs scenarios: one line for each with its verdict and duration.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::artefacts::Artefacts;
use crate::golden;

/// What a scenario does; an error is a failure.
pub type Body = Box<dyn Fn(&Artefacts) -> Result<()> + Send + Sync>;

/// What a scenario with a whole machine takes of a lane: all of it, as emulation keeps a processor busy.
const LANE: usize = 3;
/// What a scenario with User Mode Linux takes: a third of the time it waits between host and guest.
const FLOOR: usize = 2;

/// One test with machines or storage.
pub struct Scenario {
    /// Name on the command line and of the directory of its artefacts.
    pub name: String,
    /// One line: what it shows.
    pub about: String,
    /// `Err` says why this machine cannot run it; then it is ignored, never passed.
    pub needs: fn() -> Result<(), String>,
    /// Whether it runs only when it is asked for, by its whole name or with all.
    pub long: bool,
    /// How much of a lane it takes, in parts of [`LANE`].
    share: usize,
    /// Runs it.
    pub run: Body,
}

impl Scenario {
    /// A scenario.
    pub fn new(
        name: &str,
        about: &str,
        needs: fn() -> Result<(), String>,
        run: impl Fn(&Artefacts) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            about: about.to_owned(),
            needs,
            long: false,
            share: LANE,
            run: Box::new(run),
        }
    }

    /// Runs User Mode Linux: three beside each other take what two whole machines take.
    #[must_use]
    pub fn floor(mut self) -> Self {
        self.share = FLOOR;
        self
    }

    /// Takes long: runs only when it is asked for.
    #[must_use]
    pub fn long(mut self) -> Self {
        self.long = true;
        self
    }
}

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only list.
    pub list: bool,
    /// Run those whose name is one of these, or contains one of these when none has it as its whole name; all when empty.
    pub filters: Vec<String>,
    /// Those that take long, too.
    pub all: bool,
    /// How many whole machines at a time.
    pub jobs: usize,
    /// Keep disks of scenarios that passed (those of failed ones are always kept).
    pub keep: bool,
    /// Where the artefacts go.
    pub artefacts: PathBuf,
}

/// How to call the program.
pub const USAGE: &str = "\
usage: vm-tests [--list] [--all] [--keep] [--jobs N] [--artefacts DIR] [NAME ...]
  NAME          run the scenario of this name, or all whose names contain it
  --list        print the names and what they show
  --all         run those that take long, too (else only one that is given by its whole name)
  --keep        keep the disks of scenarios that passed, too
  --jobs N      whole machines at a time (default 2); of User Mode Linux half as many more
  --artefacts D where logs and disks go (default vm-artefacts in cargo's target directory)
environment: LIFEBOAT_BIN_DIR (where lifeboat and lifeboat-rescue are), LIFEBOAT_VM_CACHE, LIFEBOAT_DEBIAN_MIRROR";

impl Options {
    /// Reads the command line, without the program's name.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            list: false,
            filters: Vec::new(),
            all: false,
            jobs: 2,
            keep: false,
            artefacts: golden::target_dir().join("vm-artefacts"),
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = |name: &str| match args.next() {
                Some(value) => Ok(value),
                None => bail!("{name} needs a value\n{USAGE}"),
            };
            match arg.as_str() {
                "--list" => options.list = true,
                "--keep" => options.keep = true,
                "--all" => options.all = true,
                "--jobs" => {
                    options.jobs = value("--jobs")?.parse()?;
                    if options.jobs == 0 {
                        bail!("--jobs 0 runs nothing");
                    }
                }
                "--artefacts" => options.artefacts = value("--artefacts")?.into(),
                _ if arg.starts_with('-') => bail!("unknown option {arg}\n{USAGE}"),
                _ => options.filters.push(arg),
            }
        }
        // QEMU, UML and the images' back references need absolute paths.
        options.artefacts = std::path::absolute(&options.artefacts)?;
        Ok(options)
    }

    fn wants(&self, scenario: &Scenario, all: &[Scenario]) -> bool {
        let name = &scenario.name;
        // A long one is asked for by its whole name, or with all (a list shows everything).
        let short = !scenario.long || self.all || self.list;
        if self.filters.is_empty() {
            return short;
        }
        self.filters
            .iter()
            .any(|filter| match all.iter().any(|s| &s.name == filter) {
                true => name == filter,
                false => short && name.contains(filter.as_str()),
            })
    }
}

/// How many scenarios ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Could not run.
    pub ignored: usize,
}

/// Runs what the options ask for; each line of the report goes to `print`.
pub fn run(all: &[Scenario], options: &Options, print: &(dyn Fn(&str) + Sync)) -> Result<Summary> {
    let chosen: Vec<&Scenario> = all.iter().filter(|s| options.wants(s, all)).collect();
    if chosen.is_empty() {
        bail!(
            "no scenario is named {}; --list shows them",
            options.filters.join(", ")
        );
    }
    if options.list {
        for scenario in chosen {
            let long = if scenario.long {
                " (long: with --all)"
            } else {
                ""
            };
            print(&format!("{:<24} {}{long}", scenario.name, scenario.about));
        }
        return Ok(Summary::default());
    }
    let lanes = Lanes::new(options.jobs * LANE);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..lanes.most().min(chosen.len()) {
            scope.spawn(|| {
                while let Some(scenario) = lanes.take(&chosen) {
                    let (line, count) = run_one(scenario, options);
                    lanes.give_back(scenario.share);
                    print(&line);
                    let mut summary = summary.lock().unwrap_or_else(|e| e.into_inner());
                    summary.passed += count.passed;
                    summary.failed += count.failed;
                    summary.ignored += count.ignored;
                }
            });
        }
    });
    let summary = summary.into_inner().unwrap_or_else(|e| e.into_inner());
    print(&format!(
        "{} passed, {} failed, {} ignored",
        summary.passed, summary.failed, summary.ignored
    ));
    Ok(summary)
}

/// Hands out scenarios in their order, each when there is room for it.
struct Lanes {
    state: Mutex<LanesState>,
    changed: Condvar,
}

struct LanesState {
    next: usize,
    free: usize,
}

impl Lanes {
    fn new(free: usize) -> Self {
        Self {
            state: Mutex::new(LanesState { next: 0, free }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LanesState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How many can run beside each other.
    fn most(&self) -> usize {
        self.lock().free.div_ceil(FLOOR)
    }

    /// Waits for room for the next one; `None`: there is none left.
    fn take<'a>(&self, all: &[&'a Scenario]) -> Option<&'a Scenario> {
        let full = |state: &mut LanesState| {
            all.get(state.next)
                .is_some_and(|scenario| scenario.share > state.free)
        };
        let mut state = self
            .changed
            .wait_while(self.lock(), full)
            .unwrap_or_else(|e| e.into_inner());
        let scenario = *all.get(state.next)?;
        state.next += 1;
        state.free -= scenario.share;
        // Who waits for the one after it may have room, or nothing left to wait for.
        self.changed.notify_all();
        Some(scenario)
    }

    fn give_back(&self, share: usize) {
        self.lock().free += share;
        self.changed.notify_all();
    }
}

fn run_one(scenario: &Scenario, options: &Options) -> (String, Summary) {
    let name = &scenario.name;
    if let Err(reason) = (scenario.needs)() {
        return (
            format!("IGNORED {name}: {reason}"),
            Summary {
                ignored: 1,
                ..Summary::default()
            },
        );
    }
    let started = Instant::now();
    let dir = options.artefacts.join(name);
    let result = Artefacts::new(&dir).and_then(|log| {
        // A panic in one scenario must not take the others' verdicts with it.
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (scenario.run)(&log)))
                .unwrap_or_else(|_| bail!("the scenario's code panicked"))
                .and_then(|()| match log.owed().as_slice() {
                    [] => Ok(()),
                    owed => bail!("the scenario ended without this check: {}", owed.join("; ")),
                });
        match &result {
            Ok(()) if !options.keep => log.drop_disks()?,
            Ok(()) => {}
            Err(error) => log.note(&format!("FAILED: {error:#}")),
        }
        result
    });
    let seconds = started.elapsed().as_secs_f64();
    let kept = dir.display();
    match result {
        Ok(()) => {
            let kept = if options.keep {
                format!("  ({kept})")
            } else {
                String::new()
            };
            (
                format!("PASS    {name} {seconds:.1} s{kept}"),
                Summary {
                    passed: 1,
                    ..Summary::default()
                },
            )
        }
        Err(error) => {
            let error = format!("{error:#}").replace('\n', "\n        ");
            let line = format!(
                "FAIL    {name} {seconds:.1} s\n        {error}\n        all is kept in {kept}"
            );
            (
                line,
                Summary {
                    failed: 1,
                    ..Summary::default()
                },
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &std::path::Path, args: &[&str]) -> Options {
        let args = args.iter().map(|s| (*s).to_owned());
        Options {
            artefacts: dir.to_owned(),
            ..Options::parse(args).unwrap()
        }
    }

    fn all() -> Vec<Scenario> {
        vec![
            Scenario::new(
                "good",
                "passes",
                || Ok(()),
                |log| Ok(std::fs::write(log.path("x.raw"), "disk")?),
            ),
            Scenario::new("good-too", "panics", || Ok(()), |_| panic!("on purpose")),
            Scenario::new(
                "bad",
                "fails",
                || Ok(()),
                |log| {
                    std::fs::write(log.path("x.raw"), "disk")?;
                    bail!("the reason")
                },
            ),
            Scenario::new(
                "forgetful",
                "looks at nothing",
                || Ok(()),
                |log| {
                    log.owe("the disk of the neighbour");
                    Ok(())
                },
            ),
            Scenario::new("good-long", "takes long", || Ok(()), |_| Ok(())).long(),
            Scenario::new(
                "unable",
                "is ignored",
                || Err("no such program".to_owned()),
                |_| Ok(()),
            ),
        ]
    }

    #[test]
    fn verdicts_and_artefacts() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Mutex::new(Vec::new());
        let print = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let summary = run(&all(), &options(dir.path(), &["--jobs", "1"]), &print).unwrap();
        assert_eq!(
            summary,
            Summary {
                passed: 1,
                failed: 3,
                ignored: 1
            }
        );
        let text = lines.lock().unwrap().join("\n");
        assert!(text.contains("PASS    good "), "{text}");
        assert!(text.contains("FAIL    good-too"), "{text}");
        assert!(
            text.contains("without this check: the disk of the neighbour"),
            "{text}"
        );
        assert!(text.contains("the reason"), "{text}");
        assert!(text.contains("IGNORED unable: no such program"), "{text}");
        assert!(
            dir.path().join("bad/x.raw").exists(),
            "the disk of a failed scenario is kept"
        );
        assert!(
            !dir.path().join("good/x.raw").exists(),
            "the disk of a passed scenario is dropped"
        );
    }

    #[test]
    fn two_whole_machines_or_three_of_user_mode_linux_run_at_a_time() {
        let machines = [(); 4].map(|()| Scenario::new("m", "", || Ok(()), |_| Ok(())));
        let floors = [(); 4].map(|()| Scenario::new("f", "", || Ok(()), |_| Ok(())).floor());
        let beside = |all: &[&Scenario]| {
            let lanes = Lanes::new(2 * LANE);
            let fits = |n: &usize| {
                let state = lanes.lock();
                all.get(*n).is_some_and(|s| s.share <= state.free)
            };
            (0..all.len())
                .take_while(fits)
                .filter(|_| lanes.take(all).is_some())
                .count()
        };
        assert_eq!(beside(&machines.iter().collect::<Vec<_>>()), 2);
        assert_eq!(beside(&floors.iter().collect::<Vec<_>>()), 3);
        let mixed: Vec<&Scenario> = machines.iter().take(1).chain(&floors).collect();
        assert_eq!(beside(&mixed), 2);
    }

    #[test]
    fn whole_name_selects_one_and_a_part_selects_all_that_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let names = |args: &[&str]| {
            let options = options(dir.path(), args);
            let all = all();
            all.iter()
                .filter(|s| options.wants(s, &all))
                .map(|s| s.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&["good"]), ["good"]);
        assert_eq!(names(&["goo"]), ["good", "good-too"]);
        assert_eq!(names(&[]).len(), 5);
        assert_eq!(names(&["good-long"]), ["good-long"]);
        assert_eq!(names(&["--all", "goo"]), ["good", "good-too", "good-long"]);
        assert_eq!(names(&["--all"]).len(), 6);
    }
}
