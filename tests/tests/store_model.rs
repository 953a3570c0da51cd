//! Random backups, prunes, crashes and damage, judged by plain maps.
//!
//! A case is a list of operations on a host and its two targets; the model says what has to hold after each of them.
//! An ordinary run tries a number of new cases. `LIFEBOAT_FUZZ_SECONDS=600 cargo test --test store_model` goes on for
//! that long; `LIFEBOAT_FUZZ_SEED` repeats a case. A case that fails is made smaller, and printed with its seed; once
//! understood it becomes a test of its own below, so that there is no file of seeds to keep.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

mod store_model {
    pub mod change;
    pub mod damage;
    pub mod look;
    pub mod op;
    pub mod policy;
    pub mod pool;
    pub mod retention;
    pub mod tree;
    pub mod world;
}

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bundle::events::Silent;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use store_model::op::{self, Op};
use store_model::pool::Pool;
use store_model::world::World;

/// Cases of an ordinary run: less than a minute of two CPUs without optimisation.
const CASES: u64 = 16;
/// Cases that run at once: they wait for the disk, and some of them for a clock.
const THREADS: u64 = 8;

/// What was done in all.
#[derive(Default)]
struct Run {
    cases: AtomicU64,
    operations: AtomicU64,
    /// The seed of the case that failed first, and how many had been tried by then.
    failed: OnceLock<(u64, u64)>,
}

impl Run {
    fn try_one(
        &self,
        pool: &Pool,
        seed: u64,
        (encrypted, ops): &(u8, Vec<Op>),
    ) -> Result<(), String> {
        // While one is made smaller, the others are let go.
        if self.failed.get().is_some_and(|(failed, _)| *failed != seed) {
            return Ok(());
        }
        let mut world = World::new(pool.take().map_err(|e| format!("{e:#}"))?, *encrypted)
            .map_err(|e| format!("{e:#}"))?;
        let result = world.run(ops).map_err(|e| format!("{e:#}"));
        self.operations.fetch_add(world.done, Ordering::Relaxed);
        if let Err(error) = &result {
            let tried = self.cases.load(Ordering::Relaxed) + 1;
            if self.failed.set((seed, tried)).is_ok() {
                println!("LIFEBOAT_FUZZ_SEED={seed} repeats it, after {tried} cases: {error}");
            }
        }
        result
    }

    /// A case from its seed; where it fails, the smallest one that does.
    fn case(&self, pool: &Pool, seed: u64) -> Result<(), String> {
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_time: 60_000,
            max_shrink_iters: 1000,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let result = runner.run(&op::case(), |case| {
            self.try_one(pool, seed, &case).map_err(TestCaseError::fail)
        });
        self.cases.fetch_add(1, Ordering::Relaxed);
        result.map_err(|error| match error {
            TestError::Fail(reason, case) => {
                format!("LIFEBOAT_FUZZ_SEED={seed} repeats it.\n{case:#?}\n{reason}")
            }
            TestError::Abort(reason) => format!("LIFEBOAT_FUZZ_SEED={seed}: {reason}"),
        })
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn stores_are_what_the_model_says() {
    let pool = Pool::new(2 * THREADS as usize);
    let run = Run::default();
    if let Some(seed) = number("LIFEBOAT_FUZZ_SEED") {
        run.case(&pool, seed).unwrap_or_else(|e| panic!("{e}"));
        return;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let start = since.as_nanos() as u64 / 1000 * 1000;
    let seconds = number("LIFEBOAT_FUZZ_SECONDS");
    let until = seconds.map(|s| Instant::now() + Duration::from_secs(s));
    let next = AtomicU64::new(0);
    let errors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let over = until.map_or(n >= CASES, |until| Instant::now() >= until);
                    if over || run.failed.get().is_some() {
                        return;
                    }
                    if let Err(error) = run.case(&pool, start + n) {
                        errors.lock().unwrap().push(error);
                    }
                }
            });
        }
    });
    let (cases, operations) = (run.cases.into_inner(), run.operations.into_inner());
    println!("{cases} cases, {operations} operations");
    let errors = errors.into_inner().unwrap();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// Backups of two different trees to the first target, which makes parity. With the packs of the first of them.
fn two_with_parity() -> (World, Vec<PathBuf>) {
    let mut world = World::new(Pool::new(1).take().unwrap(), 0).unwrap();
    let backup = op::Backup {
        to: 1,
        host: 0,
        reread: true,
        kind: 0,
        pack_size: 1 << 20,
        end: op::End::Commit,
    };
    let change = store_model::change::Change::Write {
        dir: 0,
        name: 0,
        size: 100_000,
        seed: 5,
    };
    let parity = Op::Parity {
        target: 0,
        percent: 5,
    };
    world.run(&[parity, Op::Backup(backup.clone())]).unwrap();
    let first = world.targets[0].files("packs").unwrap();
    world
        .run(&[Op::Change(vec![change]), Op::Backup(backup)])
        .unwrap();
    (world, first)
}

/// A document whose parity is still there was not removed on purpose: what only it needs must not be, either.
#[test]
fn a_prune_keeps_what_a_lost_document_needs() {
    for keep_last in [0, 1] {
        let mut world = two_with_parity().0;
        let hit = op::Hit {
            which: op::Which::Document,
            number: 1,
            how: op::How::Remove,
        };
        let prune = op::Prune {
            target: 0,
            keep: [keep_last, 0, 0, 0, 0, 0],
            whose: 0,
            cut: None,
        };
        world
            .damage(0, &[hit], true, &op::Meanwhile::Prune(prune), None)
            .unwrap();
        assert_eq!(world.targets[0].shots.len(), 2);
    }
}

/// What is in a damaged pack is not dispensable because the document that needs it is lost for the moment.
#[test]
fn healing_keeps_a_damaged_pack_that_a_lost_document_needs() {
    let (world, first) = two_with_parity();
    let target = &world.targets[0];
    let newest = target.in_order().pop().unwrap();
    fs::remove_file(target.document(&target.shots[&newest]).unwrap()).unwrap();
    // Of the packs of its backup, a bit in the first blob; it cannot be repaired from its parity.
    let old = |p: &PathBuf| first.contains(p) || first.contains(&p.with_extension(""));
    for pack in target
        .files("packs")
        .unwrap()
        .into_iter()
        .filter(|p| !old(p))
    {
        let mut content = fs::read(&pack).unwrap();
        if pack.extension().is_some_and(|e| e == "par") {
            fs::remove_file(&pack).unwrap();
        } else {
            content[20] ^= 1;
            fs::write(&pack, content).unwrap();
        }
    }
    let packs = || {
        let packs = target.files("packs").unwrap().into_iter();
        packs
            .filter(|f| f.extension().is_some_and(|e| e == "pack"))
            .collect::<Vec<_>>()
    };
    let before = packs();
    let healed = bundle::heal::heal(target.write().unwrap(), &[], 2, &Silent).unwrap();
    assert!(!healed.after.ok(), "{healed:#?}");
    let after = packs();
    assert!(
        before.iter().all(|p| after.contains(p)),
        "{before:?} {after:?}"
    );
}
