//! What a restore needs of the world, so that the order of things can be tested without disks.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bundle::Id;
use bundle::document::{Image, Snapshot, Tree};
use bundle::extract::{ExtractOptions, ExtractReport, Selection};
use bundle::verify::VerifyReport;
use layout::apply::{ApplyError, Content};
use layout::inventory::Inventory;
use layout::model::Layout;
use layout::plan::{Choices, Plan};
use layout::system::System;
use layout::units::Bytes;
use nix::fcntl::{Flock, FlockArg};

use super::guests::Returning;
use crate::rescue::RUN_DIR;
use crate::rescue::bundles::{Found, writable};
use crate::rescue::init::shutdown;
use crate::rescue::network::{Card, here};
use crate::rescue::wizard::copy::paths_in_tree;

/// The world, as a restore sees it.
pub trait Parts: Sync {
    /// A restore point by the beginning of its id, or `latest`.
    fn snapshot(&self, wanted: &str) -> Result<(Id, Snapshot)>;
    /// Unmounts what a restore that was killed left mounted below `root`: a disk that is mounted is none to restore onto.
    fn take_down(&self, root: &Path) -> Result<()>;
    /// The disks of this machine, and what is on them where the choices ask for a mode that has to know.
    fn inventory(&self, saved: &Layout, choices: &Choices) -> Result<Inventory>;
    /// Disks that hold bundles.
    fn media_disks(&self) -> Vec<PathBuf>;
    /// Reads everything that a restore of this snapshot needs, cold.
    fn check_readable(
        &self,
        snapshot: &Snapshot,
        events: &dyn bundle::events::Events,
    ) -> Result<VerifyReport>;
    /// The guests of a host's restore point, and where their dumps are.
    fn guests(&self, id: Id, snapshot: &Snapshot) -> Option<Returning>;
    /// What is missing of the dumps of guests, as far as their lists tell: guest by guest.
    fn missing_of(&self, returning: &Returning) -> Vec<(u32, String)>;
    /// Restores the files of a tree.
    fn extract(
        &self,
        snapshot: &Snapshot,
        tree: &Tree,
        into: &Path,
        events: &dyn bundle::events::Events,
    ) -> Result<ExtractReport>;
    /// Restores single files of the host, and what is below directories, below another root. What is not in the restore point
    /// is left out.
    fn files(&self, snapshot: &Snapshot, paths: &[PathBuf], into: &Path) -> Result<()>;
    /// The network cards of this machine.
    fn cards(&self) -> Vec<Card>;
    /// Writes an image to a device.
    fn image_to(
        &self,
        image: &Image,
        device: &Path,
        events: &dyn bundle::events::Events,
    ) -> Result<()>;
    /// Whether a key opens the LUKS container whose header this image is.
    fn luks_opens(&self, image: &Image, data_offset: Bytes, key: &[u8]) -> Result<bool>;
    /// Whether a key opens the LUKS container that is on a device; `None`: the device is not there before something else is
    /// opened.
    fn luks_opens_on(&self, device: &Path, key: &[u8]) -> Result<Option<bool>>;
    /// Makes sure that nobody else restores at the same time; for as long as the result lives.
    fn lock(&self) -> Result<Box<dyn std::any::Any>>;
    /// Carries the plan out.
    fn apply(
        &self,
        plan: &Plan,
        saved: &Layout,
        root: &Path,
        content: &mut dyn Content,
        events: &dyn layout::apply::Events,
        journal: &mut dyn Write,
    ) -> Result<(), ApplyError>;
    /// The layout of the machine after the restore.
    fn recapture(
        &self,
        plan: &Plan,
        saved: &Layout,
        root: &Path,
        content: &mut dyn Content,
    ) -> Result<Layout>;
    /// Lifts the fence of the media that hold bundles, makes them writable, gives each store's directory to `copy`,
    /// and makes them read-only again.
    fn keep_on_media(&self, copy: &dyn Fn(&Path) -> Result<PathBuf>) -> Result<Vec<PathBuf>>;
}

/// The machine that this runs on, and the bundles attached to it.
pub struct Real<'a> {
    /// The machine.
    pub sys: &'a dyn System,
    /// The bundles.
    pub found: &'a Found,
}

impl Parts for Real<'_> {
    fn snapshot(&self, wanted: &str) -> Result<(Id, Snapshot)> {
        self.found.snapshot(wanted)
    }

    fn take_down(&self, root: &Path) -> Result<()> {
        let dir = Path::new(RUN_DIR);
        // Without the lock's file none was started; with the lock taken one is running, and these are its mounts.
        if !dir.join(LOCK).exists() || is_locked(dir) {
            return Ok(());
        }
        let _none_starts = lock(dir)?;
        layout::apply::unmount_below(self.sys, root)?;
        Ok(())
    }

    fn inventory(&self, saved: &Layout, choices: &Choices) -> Result<Inventory> {
        Ok(layout::inventory::inventory_for(self.sys, saved, choices)?)
    }

    fn media_disks(&self) -> Vec<PathBuf> {
        self.found.media_disks()
    }

    fn check_readable(
        &self,
        snapshot: &Snapshot,
        events: &dyn bundle::events::Events,
    ) -> Result<VerifyReport> {
        Ok(bundle::verify::check_readable(
            &self.found.readers(),
            snapshot,
            events,
        )?)
    }

    fn guests(&self, id: Id, snapshot: &Snapshot) -> Option<Returning> {
        super::guests::returning(self.found, id, snapshot)
    }

    fn missing_of(&self, returning: &Returning) -> Vec<(u32, String)> {
        super::guests::missing(self.found, returning)
    }

    fn extract(
        &self,
        snapshot: &Snapshot,
        tree: &Tree,
        into: &Path,
        events: &dyn bundle::events::Events,
    ) -> Result<ExtractReport> {
        let options = ExtractOptions::default();
        Ok(bundle::extract::extract(
            &self.found.readers(),
            snapshot,
            tree,
            &Selection::All,
            into,
            &options,
            events,
        )?)
    }

    fn files(&self, snapshot: &Snapshot, paths: &[PathBuf], into: &Path) -> Result<()> {
        let readers = self.found.readers();
        for tree in &snapshot.trees {
            let at = Path::new(&tree.mount_point);
            let inside = paths_in_tree(paths, at, &snapshot.trees);
            if inside.is_empty() {
                continue;
            }
            let into = into.join(at.strip_prefix("/").unwrap_or(at));
            fs::create_dir_all(&into).with_context(|| format!("creating {}", into.display()))?;
            let report = bundle::extract::extract(
                &readers,
                snapshot,
                tree,
                &Selection::Paths(inside),
                &into,
                &ExtractOptions::default(),
                &bundle::events::Silent,
            )?;
            if let Some(missing) = report.missing.first() {
                bail!("{}: {}", at.join(&missing.path).display(), missing.reason);
            }
        }
        Ok(())
    }

    fn cards(&self) -> Vec<Card> {
        if shutdown::is_rescue_system() {
            here::switch_on(self.sys);
        }
        here::look(self.sys)
    }

    fn image_to(
        &self,
        image: &Image,
        device: &Path,
        events: &dyn bundle::events::Events,
    ) -> Result<()> {
        let out = OpenOptions::new()
            .write(true)
            .open(device)
            .with_context(|| format!("opening {}", device.display()))?;
        bundle::extract::image_to(&self.found.readers(), image, &out, events)?;
        out.sync_all()
            .with_context(|| format!("writing {} out", device.display()))
    }

    fn luks_opens(&self, image: &Image, data_offset: Bytes, key: &[u8]) -> Result<bool> {
        let file = super::keys::scratch(Path::new(RUN_DIR))?;
        self.image_to(image, file.path(), &bundle::events::Silent)?;
        // A header without room for data behind it is refused.
        let size = data_offset.plus(Bytes::MIB).get().max(image.size);
        file.as_file().set_len(size)?;
        layout::apply::luks::opens(self.sys, file.path(), key)
            .with_context(|| format!("trying the key of {}", image.node))
    }

    fn luks_opens_on(&self, device: &Path, key: &[u8]) -> Result<Option<bool>> {
        if !self.sys.exists(device) {
            return Ok(None);
        }
        layout::apply::luks::opens(self.sys, device, key)
            .map(Some)
            .with_context(|| format!("trying the key of {}", device.display()))
    }

    fn lock(&self) -> Result<Box<dyn std::any::Any>> {
        Ok(Box::new(lock(Path::new(RUN_DIR))?))
    }

    fn apply(
        &self,
        plan: &Plan,
        saved: &Layout,
        root: &Path,
        content: &mut dyn Content,
        events: &dyn layout::apply::Events,
        journal: &mut dyn Write,
    ) -> Result<(), ApplyError> {
        layout::apply::apply(self.sys, plan, saved, root, content, events, journal)
    }

    fn recapture(
        &self,
        plan: &Plan,
        saved: &Layout,
        root: &Path,
        content: &mut dyn Content,
    ) -> Result<Layout> {
        Ok(layout::apply::recapture(
            self.sys, plan, saved, root, content,
        )?)
    }

    fn keep_on_media(&self, copy: &dyn Fn(&Path) -> Result<PathBuf>) -> Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        let mut failed = Vec::new();
        for attached in &self.found.stores {
            // A directory that the operator named is written to by nobody but the operator.
            let Some(medium) = &attached.medium else {
                continue;
            };
            // The logs name what the encryption hides; they are on the restored system.
            if attached.store.encrypted() {
                continue;
            }
            let lifted = medium
                .disks
                .iter()
                .try_for_each(|disk| layout::apply::lift_fence(self.sys, disk));
            // Several stores may lie on one medium; a file open on it would keep it from being mounted anew.
            self.found.release();
            let outcome = lifted.context("lifting its fence").and_then(|()| {
                writable(medium, |_| {
                    kept.push(copy(attached.store.dir())?);
                    Ok(())
                })
            });
            if let Err(error) = outcome {
                failed.push(format!("{}: {error:#}", attached.place()));
            }
        }
        if failed.is_empty() {
            Ok(kept)
        } else {
            bail!(failed.join("; "))
        }
    }
}

/// The file whose lock only one restore can hold.
const LOCK: &str = "restore.lock";

/// Takes the lock that only one restore can hold.
pub(in crate::rescue) fn lock(dir: &Path) -> Result<Flock<File>> {
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    // Wizards on other consoles take the lock for a moment to see whether it is free: so try more than once.
    for attempt in 0.. {
        match try_lock(dir, FlockArg::LockExclusiveNonblock)? {
            Some(lock) => return Ok(lock),
            None if attempt < 10 => std::thread::sleep(std::time::Duration::from_millis(20)),
            None => break,
        }
    }
    bail!("a restore is under way on another console")
}

/// Whether somebody holds the lock.
pub(in crate::rescue) fn is_locked(dir: &Path) -> bool {
    dir.join(LOCK).exists() && matches!(try_lock(dir, FlockArg::LockSharedNonblock), Ok(None))
}

/// Waits for a lock of another name; nothing when it cannot be made, such as for a user who is not root.
pub(in crate::rescue) fn wait_for_lock(dir: &Path, name: &str) -> Option<Flock<File>> {
    fs::create_dir_all(dir).ok()?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(name))
        .ok()?;
    Flock::lock(file, FlockArg::LockExclusive).ok()
}

fn try_lock(dir: &Path, how: FlockArg) -> Result<Option<Flock<File>>> {
    let path = dir.join(LOCK);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => bail!("locking {}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_can_restore() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = lock(dir.path()).expect("free");
        let error = lock(dir.path()).expect_err("taken");
        assert!(
            error.to_string().contains("under way on another console"),
            "{error}"
        );
        assert!(is_locked(dir.path()));
        drop(first);
        assert!(!is_locked(dir.path()));
        assert!(lock(dir.path()).is_ok());
    }
}
