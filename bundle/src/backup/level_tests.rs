use std::fs;

use super::*;
use crate::backup::tests::draft;
use crate::backup::{Backup, BackupOptions, TreeSource};
use crate::events::Silent;
use crate::exclude::Exclusions;
use crate::store::{Store, StoreOptions};
use crate::verify::{VerifyOptions, verify};

fn fill(len: usize) -> Fill {
    Fill { len, of: 4 }
}

const FULL: usize = 4;
const HALF: usize = 2;
const EMPTY: usize = 0;

/// The levels after each of so many equal samples.
fn feed(
    controller: &mut Controller,
    samples: usize,
    compressors: usize,
    writer: usize,
) -> Vec<i32> {
    (0..samples)
        .map(|_| controller.observe(fill(compressors), fill(writer)))
        .collect()
}

#[test]
fn the_level_follows_what_is_slow_and_stays_in_bounds() {
    let mut controller = Controller::new();
    // The target: whether or not the compressors have work left.
    assert_eq!(feed(&mut controller, 1000, FULL, FULL)[999], HIGHEST);
    assert_eq!(feed(&mut controller, 1000, EMPTY, FULL)[999], HIGHEST);
    // The processor.
    assert_eq!(feed(&mut controller, 5000, FULL, EMPTY)[4999], LOWEST);
    // Neither: the host is read slowly, or all is in balance.
    for (compressors, writer) in [(EMPTY, EMPTY), (HALF, HALF), (FULL, HALF), (HALF, EMPTY)] {
        let mut controller = Controller::new();
        let levels = feed(&mut controller, 5000, compressors, writer);
        assert!(levels.iter().all(|l| *l == START));
    }
}

#[test]
fn one_step_takes_a_second_of_samples_and_what_is_contrary_counts_against_it() {
    let enough = (ENOUGH / WEIGHT) as usize;
    let mut controller = Controller::new();
    let levels = feed(&mut controller, 2 * enough, FULL, FULL);
    assert_eq!(levels[enough - 2], START);
    assert_eq!(levels[enough - 1], START + 1);
    assert_eq!(levels[2 * enough - 1], START + 2);
    let mut controller = Controller::new();
    for _ in 0..1000 {
        feed(&mut controller, enough - 1, FULL, FULL);
        feed(&mut controller, 2 * (enough - 1), FULL, EMPTY);
    }
    assert_eq!(controller.level, START);
    // What was long ago does not count.
    feed(&mut controller, enough - 1, FULL, FULL);
    feed(&mut controller, 2 * enough, HALF, HALF);
    assert_eq!(feed(&mut controller, enough - 1, FULL, FULL)[0], START);
    assert_eq!(controller.level, START);
}

/// A processor, a target, and the queue between them, in MB and milliseconds. The target takes as much as fits into
/// memory, and then nothing until that is written: as a stick does when a pack is synced.
struct Machine {
    cores: f64,
    target: f64,
    memory: f64,
    dirty: f64,
    waiting: f64,
    syncing: bool,
}

/// MB per second and core of each level, from 1, as measured; and what they leave of a byte.
const SPEED: [f64; 9] = [550.0, 420.0, 310.0, 230.0, 160.0, 130.0, 100.0, 85.0, 70.0];
const LEFT: [f64; 9] = [0.43, 0.41, 0.39, 0.385, 0.375, 0.37, 0.365, 0.36, 0.357];

impl Machine {
    fn new(cores: f64, target: f64, memory: f64) -> Machine {
        Machine {
            cores,
            target,
            memory,
            dirty: 0.0,
            waiting: 0.0,
            syncing: false,
        }
    }

    /// What the processor gives with this level, in MB per second.
    fn gives(&self, level: i32) -> f64 {
        let index = usize::try_from(level).unwrap() - 1;
        SPEED[index] * LEFT[index] * self.cores
    }

    /// The time until the next sample, with this level; gives the fill of the writer's queue. The host is always read
    /// fast enough.
    fn step(&mut self, level: i32) -> Fill {
        for _ in 0..INTERVAL.as_millis() {
            if self.waiting < 4.0 {
                self.waiting += self.gives(level) / 1000.0;
            }
            self.dirty = (self.dirty - self.target / 1000.0).max(0.0);
            self.syncing = self.dirty > if self.syncing { 0.0 } else { self.memory };
            if !self.syncing {
                self.dirty += self.waiting;
                self.waiting = 0.0;
            }
        }
        Fill {
            len: (self.waiting.round() as usize).min(4),
            of: 4,
        }
    }

    /// The levels of ten minutes.
    fn run(&mut self) -> Vec<i32> {
        let mut controller = Controller::new();
        (0..12_000)
            .map(|_| {
                let writer = self.step(controller.level);
                controller.observe(fill(FULL), writer)
            })
            .collect()
    }
}

#[test]
fn it_settles_on_machines_of_every_speed() {
    // A slow stick, whether it writes evenly or in bursts; and a target that is faster than the processor.
    for (target, memory, settled) in [(10.0, 4.0, 9), (10.0, 128.0, 9), (2000.0, 4.0, 1)] {
        let levels = Machine::new(2.0, target, memory).run();
        assert!(levels[6000..].iter().all(|l| *l == settled), "{target}");
    }
    // In between it moves ever more rarely, and about where both are as fast.
    for (target, memory) in [(100.0, 4.0), (100.0, 128.0), (150.0, 32.0), (150.0, 128.0)] {
        let mut machine = Machine::new(2.0, target, memory);
        let levels = machine.run();
        let last = &levels[6000..];
        let moves = last.windows(2).filter(|w| w[0] != w[1]).count();
        assert!(moves <= 20, "{target}, {memory}: {moves}");
        let share = |l: &i32| machine.gives(*l) / target;
        let mean = last.iter().map(share).sum::<f64>() / last.len() as f64;
        assert!((0.6..1.7).contains(&mean), "{target}, {memory}: {mean}");
    }
}

#[test]
fn the_slowest_writer_that_has_not_failed_counts() {
    let of = |fills: &[(usize, bool)]| slowest(fills.iter().map(|(len, f)| (fill(*len), *f)));
    assert_eq!(of(&[(EMPTY, false), (3, false), (1, false)]), fill(3));
    assert_eq!(of(&[(EMPTY, false), (FULL, true)]), fill(EMPTY));
    let none = of(&[(FULL, true)]);
    assert!(!none.is_full() && none.is_empty());
}

/// A target that takes no blob until the level has risen to its bound gets the next ones compressed with it; the other
/// target, which waits for nothing, gets the same.
#[test]
fn a_target_that_waits_gets_smaller_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    for n in 0..30u32 {
        let text: String = (n * 200_000..)
            .map(|i| format!("{i} "))
            .take(200_000)
            .collect();
        fs::write(root.join(n.to_string()), text).unwrap();
    }
    let stores: Vec<_> = ["slow", "fast"].map(|name| dir.path().join(name)).into();
    let opened = stores.iter().map(|dir| {
        fs::create_dir(dir).unwrap();
        Store::create(dir, &StoreOptions::default()).unwrap()
    });
    let (permit, permits) = crossbeam_channel::unbounded();
    let options = BackupOptions {
        compression: Codec::Auto,
        workers: 2,
        permits: Some(permits),
        ..BackupOptions::default()
    };
    let mut backup = Backup::start(opened.collect(), options, &Silent).unwrap();
    let levels = backup.levels();
    let source = TreeSource {
        root: root.clone(),
        mount_point: "/".into(),
        filesystem: None,
        exclude: Exclusions::none(),
        instead: Default::default(),
    };
    let tree = std::thread::scope(|scope| {
        let levels = levels.clone();
        scope.spawn(move || {
            // Only against hanging; nothing is judged by time.
            for _ in 0..60_000 {
                if levels.used().iter().any(|u| u.level == HIGHEST) {
                    break;
                }
                // One blob: its place in the queue is filled with the next one, which is compressed now.
                if levels.now() == HIGHEST && permit.is_empty() {
                    permit.send(()).unwrap();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        backup.tree(&source).unwrap()
    });
    let results = backup.commit(draft(vec![tree]));
    let used = levels.used();
    assert!(used.first().unwrap().level <= START, "{used:?}");
    assert_eq!(used.last().unwrap().level, HIGHEST, "{used:?}");
    for (result, dir) in results.iter().zip(&stores) {
        assert!(result.snapshot.is_ok(), "{result:?}");
        let store = Store::open_read_only(dir).unwrap();
        let report = verify(&store, &VerifyOptions::default(), &Silent).unwrap();
        assert!(report.ok(), "{report:?}");
    }
}

#[test]
fn a_fixed_level_stays_and_other_codecs_have_none() {
    for (codec, expected) in [
        (Codec::Zstd(5), Some(5)),
        (Codec::Auto, Some(START)),
        (Codec::Xz(0), None),
        (Codec::Raw, None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &StoreOptions::default()).unwrap();
        let options = BackupOptions {
            compression: codec,
            workers: 1,
            ..BackupOptions::default()
        };
        let mut backup = Backup::start(vec![store], options, &Silent).unwrap();
        let levels = backup.levels();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "text ".repeat(1000)).unwrap();
        let tree = backup
            .tree(&TreeSource {
                root,
                mount_point: "/".into(),
                filesystem: None,
                exclude: Exclusions::none(),
                instead: Default::default(),
            })
            .unwrap();
        assert!(backup.commit(draft(vec![tree]))[0].snapshot.is_ok());
        let used: Vec<_> = levels.used().iter().map(|u| u.level).collect();
        assert_eq!(used, Vec::from_iter(expected), "{codec:?}");
        assert!(levels.used().iter().all(|u| u.bytes > 5000));
    }
}
