//! The moment that the files of a host are of: snapshots of its file systems, and the hooks around them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bundle::backup::TreeSource;
use bundle::document::Tree;
use bundle::events::Events;
use layout::snapshot::{Choice, LOCK, Limits, Live, Lock, Snapshot, choose, examine, take};
use layout::system::System;

use super::work::Work;
use crate::consistency::{LIVE, Mode, Settings, TreeState, UNCHANGING};
use crate::hooks::Hooks;
use crate::progress::Progress;

/// How often snapshots are looked at that can run full.
const WATCH: Duration = Duration::from_secs(5);

/// Programs keep no data there.
const BOOT: [&str; 3] = ["/boot", "/boot/efi", "/efi"];

/// The snapshots of a backup. Whatever happens, they are removed, and the hook after them runs.
pub struct Frozen<'c> {
    sys: &'c dyn System,
    hooks: &'c Hooks<'c>,
    progress: &'c Progress,
    limits: Limits,
    always: bool,
    state: Mutex<State<'c>>,
    /// The snapshot that is read just now is of no use any more.
    lost: AtomicBool,
    /// Milliseconds since 1970, right before the first snapshot was made.
    pub began: Option<i64>,
    /// Left by earlier runs, and removed.
    pub removed: Vec<String>,
    /// Goes last: while there are snapshots, no other program makes or removes any.
    _lock: Option<Lock>,
}

#[derive(Default)]
struct State<'c> {
    held: BTreeMap<PathBuf, Held<'c>>,
    /// What is read just now from its snapshot.
    current: Option<PathBuf>,
    /// Why the snapshot of `current` is of no use any more.
    why: Option<String>,
    /// The hook after the snapshots is still to run.
    post_due: bool,
    hook_failed: bool,
}

struct Held<'c> {
    snapshot: Option<Snapshot<'c>>,
    report: TreeState,
    /// Programs may keep data there.
    counts: bool,
    /// All was read from its snapshot, which was whole then.
    done: bool,
    /// Why its snapshot went after that.
    dropped: Option<String>,
}

impl Held<'_> {
    fn is_live(&self) -> bool {
        self.report.read == LIVE
    }
}

impl<'c> Frozen<'c> {
    /// Removes what earlier runs have left, runs the hook before snapshots, and makes them.
    pub fn take(
        sys: &'c dyn System,
        hooks: &'c Hooks<'c>,
        settings: &Settings,
        mode: Mode,
        work: &Work,
        progress: &'c Progress,
    ) -> anyhow::Result<Frozen<'c>> {
        let mut frozen = Frozen {
            sys,
            hooks,
            progress,
            limits: settings.limits(),
            always: mode == Mode::Always && work.layout.is_some(),
            state: Mutex::default(),
            lost: AtomicBool::new(false),
            began: None,
            removed: Vec::new(),
            _lock: None,
        };
        let choices = frozen.choices(mode, work);
        for choice in &choices {
            let counts = counts(work, &choice.mount_point);
            frozen.lock().held.insert(
                choice.mount_point.clone(),
                Held {
                    snapshot: None,
                    report: report(choice),
                    counts,
                    done: false,
                    dropped: None,
                },
            );
        }
        frozen.refuse_live()?;
        // Even if it fails half way, there is something to undo.
        frozen.lock().post_due = true;
        frozen
            .hooks
            .run("pre-snapshot", &[("LIFEBOAT_LIVE", &frozen.live_list())])
            .context("no restore point of the host was made")?;
        if choices.iter().any(|c| c.way.is_ok()) {
            progress.say("making snapshots of the file systems");
            frozen.began = Some(bundle::time::now());
            frozen.hold(take(sys, choices));
        }
        frozen.refuse_live()?;
        if !frozen.reads_programs_live() {
            frozen.post();
        }
        Ok(frozen)
    }

    fn choices(&mut self, mode: Mode, work: &Work) -> Vec<Choice> {
        let all = |reason: &str| {
            let choice = |tree: &TreeSource| Choice {
                mount_point: tree.mount_point.clone(),
                way: Err(Live {
                    reason: reason.to_owned(),
                    unchanging: false,
                }),
            };
            work.trees.iter().map(choice).collect()
        };
        let Some(layout) = &work.layout else {
            return all("only a backup of the whole host makes snapshots");
        };
        match Lock::take(Path::new(LOCK)) {
            Ok(Some(lock)) => self._lock = Some(lock),
            Ok(None) => return all("another program makes snapshots on this host"),
            Err(error) => return all(&format!("{LOCK}: {error}")),
        }
        for done in layout::snapshot::remove_leftovers(self.sys, layout) {
            match done {
                Ok(name) => self.removed.push(name),
                Err(error) => self.progress.warn(&error),
            }
        }
        if mode == Mode::Never {
            return all("snapshots are switched off");
        }
        let points: Vec<PathBuf> = work.trees.iter().map(|t| t.mount_point.clone()).collect();
        choose(self.sys, layout, &points, &self.limits)
    }

    fn hold(&self, views: Vec<layout::snapshot::View<'c>>) {
        let taken = self.began.map(bundle::time::rfc3339);
        let mut state = self.lock();
        for view in views {
            let Some(held) = state.held.get_mut(&view.mount_point) else {
                continue;
            };
            match view.snapshot {
                Ok(snapshot) => {
                    held.report.taken.clone_from(&taken);
                    held.snapshot = Some(snapshot);
                }
                Err(live) => held.report = live_report(&view.mount_point, &live),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'c>> {
        // A poisoned lock only means that another thread panicked: what is in it is still right.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Where snapshots were asked for in any case, what is read live is an error.
    fn refuse_live(&self) -> anyhow::Result<()> {
        if !self.always {
            return Ok(());
        }
        let state = self.lock();
        let live = state.held.values().filter(|h| h.counts && h.is_live());
        let live: Vec<String> = live
            .map(|h| {
                let why = h.report.why.as_deref().unwrap_or_default();
                format!("{}: {why}", h.report.mount_point.display())
            })
            .collect();
        if !live.is_empty() {
            bail!(
                "snapshots are asked for in any case, and there is none of {}",
                live.join("; ")
            );
        }
        Ok(())
    }

    fn reads_programs_live(&self) -> bool {
        let state = self.lock();
        state.held.values().any(|h| h.counts && h.is_live())
    }

    /// Mount points that are read live, one a line.
    fn live_list(&self) -> String {
        let state = self.lock();
        let live = state.held.values().filter(|h| h.is_live());
        let live = live.map(|h| h.report.mount_point.to_string_lossy().into_owned());
        live.collect::<Vec<_>>().join("\n")
    }

    /// Runs the hook after the snapshots, if that is still to be done.
    fn post(&self) {
        if !std::mem::take(&mut self.lock().post_due) {
            return;
        }
        let live = self.live_list();
        if let Err(error) = self
            .hooks
            .run_all("post-snapshot", &[("LIFEBOAT_LIVE", &live)])
        {
            self.progress.warn(&format!("{error:#}"));
            self.lock().hook_failed = true;
        }
    }

    /// In which order trees are read: first those that are read live and hold what programs write, so that these have to be
    /// quiet for a short time only.
    pub fn order(&self, trees: &[TreeSource]) -> Vec<usize> {
        let state = self.lock();
        let first = |index: &usize| {
            let held = state.held.get(&trees[*index].mount_point);
            !held.is_some_and(|h| h.counts && h.is_live())
        };
        let mut order: Vec<usize> = (0..trees.len()).collect();
        order.sort_by_key(first);
        order
    }

    /// Whether this tree is the last one that the hook after the snapshots waits for.
    fn is_waited_for(&self, mount_point: &Path) -> bool {
        let state = self.lock();
        let held = state.held.get(mount_point);
        held.is_some_and(|h| h.counts && h.is_live())
    }

    /// Has trees read in [order](Frozen::order).
    pub fn read_all(
        &self,
        trees: &[TreeSource],
        read: &mut dyn FnMut(&TreeSource) -> bundle::Result<Tree>,
    ) -> anyhow::Result<Vec<Tree>> {
        let mut done = Vec::new();
        for index in self.order(trees) {
            let source = &trees[index];
            if !self.is_waited_for(&source.mount_point) {
                self.post();
            }
            let tree = self
                .read(source, read)
                .with_context(|| format!("cannot save {}", source.mount_point.display()))?;
            done.push((index, tree));
        }
        self.post();
        // As a restore point has them: `/` first.
        done.sort_by_key(|(index, _)| *index);
        Ok(done.into_iter().map(|(_, tree)| tree).collect())
    }

    /// Reads a tree from its snapshot, if there is one; if that turns out to be of no use, from the file system itself.
    fn read(
        &self,
        source: &TreeSource,
        read: &mut dyn FnMut(&TreeSource) -> bundle::Result<Tree>,
    ) -> anyhow::Result<Tree> {
        let point = &source.mount_point;
        // One that was lost since.
        self.refuse_live()?;
        let Some(root) = self.begin(point) else {
            self.not_again(point);
            self.refuse_live()?;
            return Ok(read(source)?);
        };
        let from_snapshot = TreeSource {
            root,
            ..source.clone()
        };
        let result = read(&from_snapshot);
        let Some(why) = self.end(point) else {
            return Ok(result?);
        };
        // What was read of it counts for nothing, even if nothing seemed wrong.
        self.give_up(point, &why);
        self.refuse_live()?;
        Ok(read(source)?)
    }

    fn begin(&self, point: &Path) -> Option<PathBuf> {
        let mut state = self.lock();
        let root = state.held.get(point)?.snapshot.as_ref()?.root();
        state.current = Some(point.to_owned());
        Some(root)
    }

    /// Why what was read from the snapshot is not to be relied on.
    fn end(&self, point: &Path) -> Option<String> {
        let mut state = self.lock();
        state.current = None;
        self.lost.store(false, Ordering::Release);
        if let Some(why) = state.why.take() {
            return Some(why);
        }
        let snapshot = state.held.get(point)?.snapshot.as_ref()?;
        let mut troubles = examine(self.sys, &[snapshot], &self.limits);
        let why = troubles.pop().map(|(_, why)| why);
        if let (None, Some(held)) = (&why, state.held.get_mut(point)) {
            held.done = true;
        }
        why
    }

    /// A tree that was read from its snapshot is to be read a second time, for a target that had run full, and the snapshot
    /// is gone: this time it is read live.
    fn not_again(&self, point: &Path) {
        let mut state = self.lock();
        let held = state.held.get_mut(point);
        if let Some((held, why)) = held.and_then(|h| h.dropped.take().map(|why| (h, why))) {
            held.report = live_because(point, &why);
            drop(state);
            self.say_live(point, &why);
        }
    }

    fn say_live(&self, point: &Path, why: &str) {
        let shown = point.display();
        self.progress
            .warn(&format!("{shown} is read while it is in use: {why}"));
    }

    /// Removes a snapshot before its time, unless it is read just now: then it is noted for the one who reads.
    fn give_up(&self, point: &Path, why: &str) {
        let mut state = self.lock();
        if state.current.as_deref() == Some(point) {
            state.why = Some(why.to_owned());
            self.lost.store(true, Ordering::Release);
            return;
        }
        let Some(held) = state.held.get_mut(point) else {
            return;
        };
        let snapshot = held.snapshot.take();
        let done = held.done;
        if done {
            // What was stored of it is from the snapshot, whatever comes now.
            held.dropped = Some(why.to_owned());
        } else {
            held.report = live_because(point, why);
        }
        let removed = snapshot.map_or(Ok(()), Snapshot::remove);
        drop(state);
        if !done {
            self.say_live(point, why);
        }
        if let Err(error) = removed {
            self.progress.warn(&error);
        }
    }

    /// Looks at the snapshots until there is nothing more to come: one that is of no use any more, or fills its pool, goes
    /// at once, or as soon as it is not read any more.
    pub fn watch(&self, over: &Receiver<()>) {
        while over.recv_timeout(WATCH) == Err(RecvTimeoutError::Timeout) {
            let troubles = {
                let state = self.lock();
                let held = state.held.values();
                let snapshots: Vec<&Snapshot<'_>> =
                    held.filter_map(|h| h.snapshot.as_ref()).collect();
                examine(self.sys, &snapshots, &self.limits)
            };
            for (point, why) in troubles {
                self.give_up(&point, &why);
            }
        }
    }

    /// Removes the snapshots, and says whether the hook after them went well.
    pub fn finish(&self) -> bool {
        self.post();
        let held: Vec<Snapshot<'c>> = {
            let mut state = self.lock();
            let held = state.held.values_mut();
            held.filter_map(|h| h.snapshot.take()).collect()
        };
        for snapshot in held {
            if let Err(error) = snapshot.remove() {
                self.progress.warn(&error);
            }
        }
        !self.lock().hook_failed
    }

    /// How each tree is read.
    pub fn states(&self) -> Vec<TreeState> {
        let state = self.lock();
        state.held.values().map(|h| h.report.clone()).collect()
    }

    /// Where is said what happens.
    pub fn progress(&self) -> &'c Progress {
        self.progress
    }

    /// The events of a backup, which stops when the snapshot that it reads is lost.
    pub fn events(&self) -> Watched<'_> {
        Watched {
            progress: self.progress,
            lost: &self.lost,
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Whether programs may keep data in a tree: else it is no matter that it is read live.
fn counts(work: &Work, point: &Path) -> bool {
    let Some(layout) = &work.layout else {
        return true;
    };
    // Of what is no file system of the layout, a copy is read.
    let mounts = layout.mounts.iter();
    let mut mounts = mounts.filter(|m| m.mounted && m.mount_point == point);
    mounts.any(|m| m.fstype != "vfat") && !BOOT.iter().any(|boot| point == Path::new(boot))
}

fn report(choice: &Choice) -> TreeState {
    match &choice.way {
        Ok(way) => TreeState {
            mount_point: choice.mount_point.clone(),
            read: way.word().to_owned(),
            taken: None,
            why: None,
        },
        Err(live) => live_report(&choice.mount_point, live),
    }
}

fn live_because(point: &Path, why: &str) -> TreeState {
    let live = Live {
        reason: why.to_owned(),
        unchanging: false,
    };
    live_report(point, &live)
}

fn live_report(point: &Path, live: &Live) -> TreeState {
    TreeState {
        mount_point: point.to_owned(),
        read: if live.unchanging { UNCHANGING } else { LIVE }.to_owned(),
        taken: None,
        why: Some(live.reason.clone()),
    }
}

/// See [`Frozen::events`].
pub struct Watched<'f> {
    progress: &'f Progress,
    lost: &'f AtomicBool,
}

impl Events for Watched<'_> {
    fn phase(&self, name: &str, total: Option<u64>) {
        self.progress.phase(name, total);
    }
    fn bytes(&self, n: u64) {
        self.progress.bytes(n);
    }
    fn item(&self, path: &[u8]) {
        self.progress.item(path);
    }
    fn warn(&self, text: &str) {
        self.progress.warn(text);
    }
    fn cancelled(&self) -> bool {
        self.progress.cancelled() || self.lost.load(Ordering::Acquire)
    }
}

#[cfg(test)]
#[path = "frozen_tests.rs"]
mod tests;
