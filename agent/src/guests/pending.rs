//! Works off the list of guests that the rescue system left: one after the other in start order, each attempt noted
//! before it begins, so that a power cut costs an attempt and nothing else.

mod finish;
mod forget;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use bundle::document::Snapshot;
use bundle::document::guest::GuestKind;
use bundle::events::Events;
use layout::system::{Cmd, System};
use nix::fcntl::{Flock, FlockArg};
use rescue_image::guests::{DIR, Guest, PENDING, Pending, STATUS, State};

use super::left::{self, Left};
use super::present::{Present, look};
use super::restore::{As, Existing, command, existing, read_whole, run};
use super::{archive, dumps};
use crate::config::Config;
use crate::progress::Progress;
use crate::proxmox::guests::parse;
use crate::targets::Sources;
use crate::{signals, values};

/// How often the status says how many bytes are back.
const EVERY: Duration = Duration::from_secs(5);

/// Where the list is: in the directory for such things, wherever the configuration has it.
pub fn dir(config: &Config) -> PathBuf {
    let own = config.state.join("guests");
    let usual = PathBuf::from(DIR);
    // A list comes before what became of another one.
    let mut places = [PENDING, STATUS]
        .into_iter()
        .flat_map(|name| [(&own, name), (&usual, name)]);
    let found = places.find(|(dir, name)| dir.join(name).exists());
    found.map_or(&own, |(dir, _)| dir).clone()
}

/// Works the list off.
pub struct Worker<'w> {
    sys: &'w dyn System,
    dir: PathBuf,
    list: Mutex<Pending>,
    /// The node's name.
    node: String,
    machine_id: String,
    progress: &'w Progress,
    /// Given by the operator: disks that are there are replaced, too.
    pub force: bool,
    /// Given by the operator: where the disks go.
    pub storage: Option<String>,
    /// Given by the operator: another dump than the one on the list.
    pub snapshot: Option<String>,
    /// Of the running system.
    root: PathBuf,
    _only_one: Flock<File>,
}

/// Whether guests of the list in a directory are being restored now.
pub fn at_work(dir: &Path) -> bool {
    let lock =
        File::open(dir.join("lock")).map(|file| Flock::lock(file, FlockArg::LockSharedNonblock));
    matches!(lock, Ok(Err((_, nix::Error::EWOULDBLOCK))))
}

impl<'w> Worker<'w> {
    /// Takes the list in a directory; `None` where there is none. Only one may work at a time.
    pub fn new(
        sys: &'w dyn System,
        dir: PathBuf,
        progress: &'w Progress,
    ) -> anyhow::Result<Option<Worker<'w>>> {
        if Pending::read(&dir)?.is_none() {
            return Ok(None);
        }
        let lock = dir.join("lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock);
        let file = file.with_context(|| format!("cannot open {}", lock.display()))?;
        let only_one = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            anyhow!("guests are being restored: `lifeboat guests status` shows how far that is")
        })?;
        // Again, as it may have been worked off meanwhile.
        let Some(list) = Pending::read(&dir)? else {
            return Ok(None);
        };
        let host = crate::facts::identity(sys);
        let worker = Worker {
            sys,
            dir,
            list: Mutex::new(list),
            node: crate::proxmox::node_name(&host.hostname),
            machine_id: host.machine_id,
            progress,
            force: false,
            storage: None,
            snapshot: None,
            root: PathBuf::from("/"),
            _only_one: only_one,
        };
        worker.interrupted()?;
        Ok(Some(worker))
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Pending> {
        // Another thread panicked while it wrote: the list is as it was before or after.
        self.list
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Something to know that stops nothing.
    pub fn warn(&self, text: &str) {
        self.progress.warn(text);
    }

    /// The list as it is now.
    pub fn now(&self) -> Pending {
        self.list().clone()
    }

    /// Changes a guest of the list, and writes that down.
    fn set(&self, id: u32, change: impl FnOnce(&mut Guest)) -> anyhow::Result<()> {
        let mut list = self.list();
        if let Some(guest) = list.guests.iter_mut().find(|g| g.id == id) {
            change(guest);
        }
        list.write(&self.dir)?;
        self.status(&list);
        Ok(())
    }

    /// Nothing hangs on the status.
    fn status(&self, list: &Pending) {
        if let Err(error) = list.write_status(&self.dir) {
            tracing::warn!("{error:#}");
        }
    }

    /// What the last run left in the middle.
    fn interrupted(&self) -> anyhow::Result<()> {
        let mut list = self.list();
        let limit = list.limit;
        for guest in &mut list.guests {
            guest.progress = None;
            if guest.state == State::Running {
                guest.state = State::Waiting;
                if guest.attempts >= limit {
                    guest.state = State::Failed;
                    guest.error = Some(format!(
                        "the machine stopped in the middle of attempt {} of {limit}",
                        guest.attempts
                    ));
                    // Who asks for it again does so at some later time.
                    guest.left = Some(left::nobody_knows());
                }
            }
        }
        list.write(&self.dir)
    }

    /// The guests that are tried without being asked for.
    pub fn due(&self) -> Vec<u32> {
        let list = self.list();
        let due = |g: &&Guest| match g.state {
            State::Waiting => true,
            // One without a dump is looked for again: a drive may have been attached since.
            State::Failed => g.attempts < list.limit,
            _ => false,
        };
        list.guests.iter().filter(due).map(|g| g.id).collect()
    }

    /// Those that were asked for by name: they get all their attempts again.
    pub fn ask_again(&self, ids: &[u32]) -> anyhow::Result<()> {
        for id in ids {
            self.set(*id, |guest| {
                guest.attempts = 0;
                guest.error = None;
                if guest.state.is_there() {
                    guest.was_absent = false;
                    guest.left = None;
                }
                guest.state = State::Waiting;
            })?;
        }
        Ok(())
    }

    /// Notes why nothing could be tried.
    pub fn not_tried(&self, ids: &[u32], reason: &str) -> anyhow::Result<()> {
        for id in ids {
            self.set(*id, |guest| guest.error = Some(reason.to_owned()))?;
        }
        Ok(())
    }

    /// Whether the node is one that can take guests; the error says what to do.
    pub fn check_node(&self) -> anyhow::Result<()> {
        super::restore::check_node(self.sys)
    }

    /// Restores these guests; a failure of one leaves the others going. An error ends it: nothing can be noted any more, or
    /// it was asked to stop.
    pub fn restore(&self, ids: &[u32], sources: &Sources) -> anyhow::Result<()> {
        for id in ids {
            signals::check()?;
            let mut number = 0;
            self.set(*id, |guest| {
                guest.attempts += 1;
                number = guest.attempts;
                guest.state = State::Running;
                guest.error = None;
            })?;
            let list = self.now();
            let Some(guest) = list.guests.iter().find(|g| g.id == *id) else {
                continue;
            };
            let title = guest.title();
            self.progress.say(&format!(
                "{title}: restoring, as of {} (attempt {number} of {})",
                guest.dumped.as_deref().unwrap_or("its newest dump"),
                list.limit
            ));
            let start = Instant::now();
            let ended = match self.ready(guest, sources) {
                Ok(None) => Ok(State::Kept),
                Ok(Some(ready)) => {
                    let ran = self.replace(*id, &ready, sources);
                    if ran.is_err() {
                        self.note_left(*id)?;
                    }
                    ran.map(|()| State::Done)
                }
                Err(error) => Err(error),
            };
            let stopped = ended.is_err() && signals::stopped();
            if stopped && !self.force {
                // Not the guest's fault.
                self.set(*id, |guest| {
                    guest.attempts = guest.attempts.saturating_sub(1);
                    guest.state = State::Waiting;
                    guest.progress = None;
                })?;
                signals::check()?;
            }
            let took = values::duration(start.elapsed());
            self.progress.say(&match &ended {
                Ok(State::Kept) => format!("{title}: its disks are there, and stay as they are"),
                Ok(_) => format!("{title}: back in {took}"),
                Err(error) => format!("{title}: FAILED: {error:#}"),
            });
            self.set(*id, |guest| {
                guest.progress = None;
                match ended {
                    Ok(state) => {
                        guest.state = state;
                        // What is there from now on is somebody's.
                        (guest.was_absent, guest.left) = (false, None);
                    }
                    Err(error) => {
                        guest.state = State::Failed;
                        guest.error = Some(format!("{error:#}"));
                    }
                }
            })?;
            if stopped {
                signals::check()?;
            }
        }
        Ok(())
    }

    /// What is to be restored, when nothing stands against it; `None`: the guest is there.
    fn ready(&self, guest: &Guest, sources: &Sources) -> anyhow::Result<Option<Ready>> {
        let (kind, id) = (guest.kind, guest.id);
        let listed = guest.snapshot.map(|wanted| wanted.to_string());
        let (found, snapshot) = match self.snapshot.as_ref().or(listed.as_ref()) {
            Some(wanted) => sources.snapshot(wanted)?,
            None => dumps::newest(sources, kind, id, &self.machine_id)?
                .context("none of the drives that are attached holds a dump of it")?,
        };
        let dump = archive::dump(&snapshot)?;
        if (dump.kind, dump.id) != (kind, id) {
            bail!("restore point {} is a dump of another guest", found.short());
        }
        if guest.snapshot != Some(found) {
            self.set(id, |guest| {
                guest.snapshot = Some(found);
                guest.dumped = Some(dump.dumped.clone());
                guest.note = None;
            })?;
        }
        let there = existing(self.sys, id);
        if let Some(there) = &there {
            if (there.guest.kind, there.node.as_str()) != (kind, self.node.as_str()) {
                bail!(
                    "the number is taken by {} {id} on the node {}: restore it under another one (`lifeboat guests restore {id} \
                     --as NUMBER`, then `lifeboat guests forget {id}`)",
                    there.guest.kind,
                    there.node
                );
            }
            if self.force {
                read_whole(&sources.readers(), &snapshot, self.progress)?;
            } else if self.stays(guest, there)? {
                self.set(id, |guest| guest.onboot = there.guest.onboot)?;
                return Ok(None);
            }
        }
        // From here on disks of it are what an attempt left.
        self.set(id, |guest| (guest.was_absent, guest.left) = (true, None))?;
        Ok(Some(Ready { snapshot, there }))
    }

    /// Whether a guest that the node has stays as it is; an error where that is not for a program to say.
    fn stays(&self, guest: &Guest, there: &Existing) -> anyhow::Result<bool> {
        let id = guest.id;
        if guest.was_absent {
            if left::is_it(guest.left, there) {
                return Ok(false);
            }
            bail!(
                "it may be what an attempt to restore it left, or somebody's who brought it back since: look at it, then replace \
                 it with `lifeboat guests restore {id} --force`, or keep it with `lifeboat guests forget {id}`"
            );
        }
        match look(self.sys, &there.guest)? {
            Present::Nothing => Ok(false),
            // The lock of a guest that was just being made.
            Present::All if there.guest.lock.as_deref() == Some("create") => bail!(
                "it is locked (create): somebody was making it, and did not end. Replace it with `lifeboat guests restore {id} \
                 --force`, or keep it as it is with `lifeboat guests forget {id}`"
            ),
            Present::All => Ok(true),
            Present::Some(disks) => bail!(
                "of its disks some were never lost ({}), and a restore would replace them: look at them, then replace all with \
                 `lifeboat guests restore {id} --force`",
                disks.join(", ")
            ),
        }
    }

    /// Has the node's own tools restore it.
    fn replace(&self, id: u32, ready: &Ready, sources: &Sources) -> anyhow::Result<()> {
        let Ready { snapshot, there } = ready;
        let dump = archive::dump(snapshot)?;
        if let Some(there) = there {
            self.make_replaceable(there)?;
        }
        let conf = match dump.kind {
            GuestKind::Qemu => dump.config("qemu-server.conf"),
            GuestKind::Lxc => dump.config("pct.conf"),
        };
        let conf = String::from_utf8_lossy(conf.unwrap_or_default());
        let order = As {
            id,
            storage: self.storage.as_deref(),
            force: there.is_some(),
            unique: false,
        };
        let command = command(snapshot, &order)?;
        let watch = Watch {
            worker: self,
            id,
            done: Mutex::new((0, dumps::size(snapshot), Instant::now())),
        };
        run(self.sys, &command, &sources.readers(), snapshot, &watch)?;
        let onboot = parse(id, dump.kind, &conf).onboot;
        self.set(id, |guest| guest.onboot = onboot)
    }

    /// Looks what a failure left.
    fn note_left(&self, id: u32) -> anyhow::Result<()> {
        let found = left::find(self.sys, id);
        self.set(id, |guest| {
            (guest.was_absent, guest.left) = match found {
                Left::Nothing => (false, None),
                // It had disks before, which may be as they were, and be used again: it is asked for once more, or stays.
                _ if self.force => (true, Some(left::nobody_knows())),
                Left::This(digest) => (true, Some(digest)),
                Left::Unknown => (true, None),
            };
        })
    }

    /// A lock that the backup of the configuration caught, or that a cut restore left, and the protection of a guest that has
    /// no disks any more, would make the tools refuse.
    fn make_replaceable(&self, there: &Existing) -> anyhow::Result<()> {
        let id = there.guest.id.to_string();
        let tool = tool(there.guest.kind);
        if there.guest.lock.is_some() {
            self.sys.run(&Cmd::new(tool).args(["unlock", &id]))?;
        }
        if there.protected {
            let set = Cmd::new(tool).args(["set", &id, "--protection", "0"]);
            self.sys.run(&set)?;
        }
        Ok(())
    }
}

/// What an attempt begins with.
struct Ready {
    snapshot: Snapshot,
    /// What is replaced.
    there: Option<Existing>,
}

fn tool(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Qemu => "qm",
        GuestKind::Lxc => "pct",
    }
}

/// Progress on the console, and in the status.
struct Watch<'w> {
    worker: &'w Worker<'w>,
    id: u32,
    /// Bytes so far, of how many, and when they were last written down.
    done: Mutex<(u64, u64, Instant)>,
}

impl Events for Watch<'_> {
    fn phase(&self, name: &str, total: Option<u64>) {
        self.worker.progress.phase(name, total);
    }

    fn bytes(&self, n: u64) {
        self.worker.progress.bytes(n);
        let Ok(mut done) = self.done.try_lock() else {
            return;
        };
        done.0 = done.0.saturating_add(n);
        if done.2.elapsed() < EVERY {
            return;
        }
        done.2 = Instant::now();
        let mut list = self.worker.now();
        if let Some(guest) = list.guests.iter_mut().find(|g| g.id == self.id) {
            guest.progress = Some((done.0.min(done.1), done.1));
        }
        self.worker.status(&list);
    }

    fn item(&self, path: &[u8]) {
        self.worker.progress.item(path);
    }

    fn warn(&self, text: &str) {
        self.worker.progress.warn(text);
    }

    fn cancelled(&self) -> bool {
        signals::stopped()
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
