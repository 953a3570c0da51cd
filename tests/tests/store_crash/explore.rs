//! Cutting work short at every point, and looking at what is left.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bundle::Error;
use nix::mount::{MsFlags, mount, umount};

use super::disk::{Data, Disk, Found, Op, Which};
use super::judge::{Holds, judge};
use super::mounted::{Fault, Mounted};
use super::store_support::{is_root, scratch};

/// Set to look at every point of the second runs, too: the square of the work.
const DEEP: &str = "LIFEBOAT_CRASH_DEEP";

/// Work that may be cut short. `dir` is what the store is in.
pub trait Work {
    fn name(&self) -> &'static str;

    /// Fewer operations than this were not recorded well.
    fn floor(&self) -> usize;

    /// What is done to a new disk before; says what holds while the work is going on.
    fn before(&self, dir: &Path) -> Holds;

    /// The work; says what holds when it has succeeded.
    fn work(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds>;

    /// What comes after the work was cut short: it must succeed.
    fn next(&self, dir: &Path, holds: &Holds) -> bundle::Result<Holds>;
}

type Log = Vec<(Op, SystemTime)>;

/// Where all of it takes place: in memory, so that syncs of what is only looked at cost nothing.
pub struct Bench {
    scratch: tempfile::TempDir,
}

impl Bench {
    /// `None`, with the reason printed, where it cannot be made.
    pub fn new() -> Option<Bench> {
        if !is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("ignored: needs root and /dev/fuse");
            return None;
        }
        let bench = Bench { scratch: scratch() };
        let dir = bench.scratch.path();
        let nothing: Option<&str> = None;
        let mounted = mount(nothing, dir, Some("tmpfs"), MsFlags::empty(), nothing);
        mounted.unwrap();
        fs::create_dir(bench.medium()).unwrap();
        Some(bench)
    }

    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    fn medium(&self) -> PathBuf {
        self.dir().join("medium")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // After a failure something may still be open in it.
        let _ = umount(&self.medium());
        if umount(self.dir()).is_err() {
            let _ = nix::mount::umount2(self.dir(), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// What was looked at.
#[derive(Debug, Default)]
struct Counts {
    points: usize,
    states: usize,
    different: usize,
    resumed: usize,
    failed: usize,
    survived: usize,
}

pub struct Explorer<'b> {
    bench: &'b Bench,
    work: &'b dyn Work,
    counts: Counts,
    deep: bool,
}

/// Cuts the work short at every operation, in every way, and prints how many those were.
pub fn explore(bench: &Bench, work: &dyn Work) {
    let mut explorer = Explorer {
        bench,
        work,
        counts: Counts::default(),
        deep: std::env::var_os(DEEP).is_some(),
    };
    let mounted = Mounted::new(Disk::new(), &bench.medium());
    let during = work.before(&bench.medium());
    let (mut start, _) = mounted.end();
    start.settle();
    let mounted = Mounted::new(start.clone(), &bench.medium());
    let after = work.work(&bench.medium(), &during).unwrap();
    let (_, log) = mounted.end();
    let count = |wanted: fn(&Op) -> bool| log.iter().filter(|(op, _)| wanted(op)).count();
    let writes = count(|op| matches!(op, Op::Write(..)));
    let syncs = count(|op| matches!(op, Op::Sync(..)));
    let renames = count(|op| matches!(op, Op::Rename(..)));
    assert!(
        log.len() >= work.floor() && writes > 0 && syncs > 2 && renames > 0,
        "recorded only:\n{}",
        shown(&log)
    );
    explorer.points(start.clone(), &log, &during, &after, true);
    for fault in [Fault::Error, Fault::Full, Fault::Gone] {
        explorer.faults(&start, &log, &during, fault);
    }
    let Counts {
        points,
        states,
        different,
        resumed,
        failed,
        survived,
    } = explorer.counts;
    // Not through the test harness, which would keep it to itself.
    let _ = writeln!(
        std::io::stderr(),
        "{}: {} operations ({writes} writes, {syncs} syncs, {renames} renames); {points} points of a crash, {states} \
         states ({different} different); {resumed} runs after a kill; {failed} errors injected, {survived} of them \
         survived",
        work.name(),
        log.len()
    );
}

impl Explorer<'_> {
    /// A crash after each number of operations, from none to all.
    fn points(&mut self, mut disk: Disk, log: &Log, during: &Holds, after: &Holds, first: bool) {
        let mut seen = HashSet::new();
        let all = first || self.deep;
        for at in 0..=log.len() {
            let (holds, last) = match at == log.len() {
                true => (after, true),
                false => (during, false),
            };
            if all || last {
                self.counts.points += usize::from(first);
                for (how, found) in states(&disk, log.get(at)) {
                    self.counts.states += 1;
                    if seen.insert((found.fingerprint(), last)) {
                        self.counts.different += 1;
                        if let Err(why) = self.look(&found, holds, first) {
                            fail(self.work, log, at, &how, &found, &why);
                        }
                    }
                }
            }
            if first {
                self.resume(&disk, log, at, holds);
            }
            if let Some((op, time)) = log.get(at) {
                disk.apply(op, *time).unwrap();
            }
        }
    }

    /// Killed after so many operations, run again, and the power cut then: it must not rely on names that the killed
    /// process did not sync.
    fn resume(&mut self, disk: &Disk, log: &Log, at: usize, holds: &Holds) {
        self.counts.resumed += 1;
        let medium = self.bench.medium();
        let mounted = Mounted::new(disk.clone(), &medium);
        let next = self.work.next(&medium, holds);
        let (_, again) = mounted.end();
        match next {
            Ok(after) => self.points(disk.clone(), &again, holds, &after, false),
            Err(error) => {
                let found = disk.crash(Which::All, Data::All);
                let why = format!("the next run fails: {error}");
                fail(self.work, log, at, "killed", &found, &why);
            }
        }
    }

    /// Everything goes on after an operation has failed, for each operation.
    fn faults(&mut self, start: &Disk, log: &Log, during: &Holds, fault: Fault) {
        let medium = self.bench.medium();
        let possible = |op: &Op| fault != Fault::Full || op.allocates();
        let expected = log.iter().filter(|(op, _)| possible(op)).count();
        for at in 0.. {
            let mounted = Mounted::new(start.clone(), &medium);
            mounted.state().fault = Some((fault, at));
            let result = self.work.work(&medium, during);
            let (disk, hit, done) = {
                let mut state = mounted.state();
                state.fault = None;
                (state.disk.clone(), state.hit, state.log.clone())
            };
            if !hit {
                // Names that chance decides make a run a little longer or shorter than the one that was recorded.
                mounted.end();
                if at >= expected {
                    break;
                }
                continue;
            }
            self.counts.failed += 1;
            let how = format!(
                "{fault:?} at operation {at}, which ended with {:?}",
                result.as_ref().map(|_| ())
            );
            let (holds, mut ends) = match &result {
                Ok(after) => {
                    self.counts.survived += 1;
                    (after, states(&disk, None))
                }
                Err(Error::Internal(_)) => panic!("{}: {how}", self.work.name()),
                Err(_) => (during, Vec::new()),
            };
            ends.push(("as it is".into(), disk.crash(Which::All, Data::All)));
            for (state, found) in ends {
                if let Err(why) = self.look(&found, holds, false) {
                    let how = format!("{how}, {state}");
                    fail(self.work, &done, done.len(), &how, &found, &why);
                }
            }
            let next = self.work.next(&medium, holds);
            let (disk, again) = mounted.end();
            let after = match next {
                Ok(after) => after,
                Err(error) => {
                    let found = disk.crash(Which::All, Data::All);
                    let why = format!("the next run fails: {error}");
                    return fail(self.work, &again, again.len(), &how, &found, &why);
                }
            };
            for (state, found) in states(&disk, None) {
                if let Err(why) = self.look(&found, &after, false) {
                    let how = format!("{how}, then the next run, {state}");
                    fail(self.work, &again, again.len(), &how, &found, &why);
                }
            }
        }
    }

    /// Is it what it must be, and does the next run succeed?
    fn look(&self, found: &Found, holds: &Holds, next: bool) -> Result<(), String> {
        let (dir, out) = (self.bench.dir().join("found"), self.bench.dir().join("out"));
        fs::create_dir(&dir).unwrap();
        found.write_to(&dir);
        judge(&dir, holds, &out)?;
        if next {
            let after = self.work.next(&dir, holds);
            let after = after.map_err(|e| format!("the next run fails: {e}"))?;
            judge(&dir, &after, &out).map_err(|e| format!("after the next run: {e}"))?;
            let left = fs::read_dir(dir.join("lifeboat/tmp")).unwrap().count();
            if left > 0 {
                return Err(format!("the next run leaves {left} unfinished files"));
            }
        }
        fs::remove_dir_all(&dir).unwrap();
        Ok(())
    }
}

/// What a crash at this point may leave, with words for it; `next` is the operation that was about to be made.
fn states(disk: &Disk, next: Option<&(Op, SystemTime)>) -> Vec<(String, Found)> {
    let mut states = Vec::new();
    let mut add = |how: &str, which, data| states.push((how.to_string(), disk.crash(which, data)));
    add("killed", Which::All, Data::All);
    add("power cut, only what was synced", Which::None, Data::None);
    add("power cut, also unsynced data", Which::None, Data::All);
    add("power cut, also unsynced names", Which::All, Data::None);
    add(
        "power cut, also names and lengths",
        Which::All,
        Data::Zeroes,
    );
    for op in disk.unsynced() {
        let how = format!("power cut, also the name of operation {op}");
        add(&how, Which::Only(op), Data::None);
        let how = format!("power cut, all names but that of operation {op}");
        add(&how, Which::AllBut(op), Data::None);
    }
    if let Some((Op::Write(ino, at, bytes), time)) = next {
        let mut torn = disk.clone();
        let half = Op::Write(*ino, *at, bytes[..bytes.len() / 2].to_vec());
        torn.apply(&half, *time).unwrap();
        let found = torn.crash(Which::All, Data::All);
        states.push(("killed in the middle of the write".into(), found));
    }
    states
}

fn fail(work: &dyn Work, log: &Log, at: usize, how: &str, found: &Found, why: &str) {
    let found = found.0.iter().map(|(path, content)| match content {
        Some((bytes, _)) => format!("{} ({} bytes)", path.display(), bytes.len()),
        None => path.display().to_string(),
    });
    let found: Vec<_> = found.collect();
    panic!(
        "{}, after {at} operations, {how}:\n{why}\n\noperations:\n{}\n\nfound:\n{}",
        work.name(),
        shown(&log[..at]),
        found.join("\n")
    );
}

fn shown(log: &[(Op, SystemTime)]) -> String {
    let lines = log.iter().enumerate().map(|(n, (op, _))| match op {
        Op::Write(ino, at, bytes) => format!("{n:3} Write({ino}, {at}, {} bytes)", bytes.len()),
        op => format!("{n:3} {op:?}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}
