//! What the wizard can do to the machine; tests give it another one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bundle::crypt::{KeyRing, Secret};
use bundle::extract::{ExtractOptions, ExtractReport, Selection, extract};
use layout::system::Host;

use super::terminal::Terminal;
use crate::rescue::RUN_DIR;
use crate::rescue::bundles::{self, Found, Medium, Point, Search};
use crate::rescue::events::{Announce, Broadcast};
use crate::rescue::init::shutdown::{self, Ending};
use crate::rescue::restore::{self, Parts, Real, ui};
use crate::rescue::spawn;

/// The machine, for the wizard.
pub trait World {
    /// Restore points of all bundles, the newest first, and what could not be listed.
    fn points(&self) -> (Vec<Point>, Vec<String>);
    /// Where a bundle is, for people.
    fn place(&self, store: usize) -> String;
    /// Bundles that need a key: where they are.
    fn locked(&self) -> Vec<String>;
    /// Opens them with what was typed, a passphrase or a recovery key; says how many.
    fn unlock(&mut self, typed: &str) -> Result<usize>;
    /// Looks for bundles again.
    fn search_again(&mut self);
    /// What a restore needs.
    fn with_parts(&self, run: &mut dyn FnMut(&dyn Parts));
    /// Where event lines go.
    fn announce(&self) -> &dyn Announce;
    /// Places that files can be copied to.
    fn destinations(&self) -> Vec<Destination>;
    /// Copies paths of the host out of a restore point, and says where to.
    fn copy_out(
        &self,
        point: &Point,
        paths: &[PathBuf],
        to: &Destination,
        ui: &dyn ui::Ui,
    ) -> Result<(PathBuf, ExtractReport)>;
    /// A shell on this console.
    fn shell(&mut self, terminal: &mut dyn Terminal);
    /// Ends the machine.
    fn end(&mut self, power_off: bool) -> Result<()>;
    /// Whether this is the rescue system, rather than a program on a running one.
    fn in_rescue_system(&self) -> bool;
    /// Whether a restore is under way on another console.
    fn busy(&self) -> bool;
    /// Why an unattended restore that was asked for did not start.
    fn denied(&self) -> Option<String>;
}

/// A file system that files can be copied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// For people: device, type, size.
    pub text: String,
    /// The file system.
    pub medium: Medium,
}

/// The machine that this runs on.
pub struct Machine {
    sys: Host,
    found: Found,
    search: Search,
    directories: Vec<PathBuf>,
    announce: Broadcast,
    denied: Option<String>,
    rescue: bool,
}

/// Where `start` leaves the reason for not restoring unattended.
pub(crate) fn denied_file() -> PathBuf {
    Path::new(RUN_DIR).join("unattended-denied")
}

impl Machine {
    /// The rescue system: looks at all media.
    pub fn rescue_system(search: Search) -> Self {
        let denied = std::fs::read_to_string(denied_file()).ok();
        Self {
            sys: Host,
            found: Found::on_media(&search),
            search,
            directories: Vec::new(),
            announce: Broadcast::everywhere(),
            denied,
            rescue: true,
        }
    }

    /// A running system, with bundles in directories.
    pub fn directories(directories: Vec<PathBuf>) -> Result<Self> {
        Ok(Self {
            sys: Host,
            found: Found::in_directories(&directories, &KeyRing::default())?,
            search: Search::default(),
            directories,
            announce: Broadcast::to_stdout(),
            denied: None,
            rescue: false,
        })
    }

    /// A running system: looks at all media.
    pub fn running_system() -> Self {
        Self {
            rescue: false,
            announce: Broadcast::to_stdout(),
            denied: None,
            ..Self::rescue_system(Search::default())
        }
    }
}

impl World for Machine {
    fn points(&self) -> (Vec<Point>, Vec<String>) {
        let (points, mut warnings) = self.found.points();
        self.found.release();
        warnings.extend(self.found.warnings.iter().cloned());
        (points, warnings)
    }

    fn place(&self, store: usize) -> String {
        self.found
            .stores
            .get(store)
            .map(bundles::Attached::place)
            .unwrap_or_default()
    }

    fn locked(&self) -> Vec<String> {
        self.found
            .locked
            .iter()
            .map(bundles::Locked::place)
            .collect()
    }

    fn unlock(&mut self, typed: &str) -> Result<usize> {
        self.found.unlock(Secret::typed(typed)?)
    }

    fn search_again(&mut self) {
        // What was typed once is not asked for again.
        self.search.keys = self.found.keys.clone();
        let found = if self.directories.is_empty() {
            Ok(Found::on_media(&self.search))
        } else {
            Found::in_directories(&self.directories, &self.search.keys)
        };
        match found {
            Ok(found) => self.found = found,
            Err(error) => self.found.warnings.push(format!("{error:#}")),
        }
    }

    fn with_parts(&self, run: &mut dyn FnMut(&dyn Parts)) {
        run(&Real {
            sys: &self.sys,
            found: &self.found,
        });
        self.found.release();
    }

    fn announce(&self) -> &dyn Announce {
        &self.announce
    }

    fn destinations(&self) -> Vec<Destination> {
        bundles::destinations(&self.sys)
            .into_iter()
            .map(|(text, medium)| Destination { text, medium })
            .collect()
    }

    fn copy_out(
        &self,
        point: &Point,
        paths: &[PathBuf],
        to: &Destination,
        ui: &dyn ui::Ui,
    ) -> Result<(PathBuf, ExtractReport)> {
        let (_, snapshot) = self.found.snapshot(&point.header.id.to_string())?;
        let name = format!("lifeboat-files-{}", restore::timestamp());
        let mut report = ExtractReport::default();
        let readers = self.found.readers();
        let done = bundles::writable(&to.medium, |mounted| {
            let dir = mounted.join(&name);
            let known = |path: &&PathBuf| {
                snapshot.trees.iter().any(|t| {
                    path.starts_with(&t.mount_point) || Path::new(&t.mount_point).starts_with(path)
                })
            };
            report
                .not_found
                .extend(paths.iter().filter(|path| !known(path)).cloned());
            for tree in &snapshot.trees {
                let at = Path::new(&tree.mount_point);
                let inside = super::copy::paths_in_tree(paths, at, &snapshot.trees);
                if inside.is_empty() {
                    continue;
                }
                let into = dir.join(at.strip_prefix("/").unwrap_or(at));
                std::fs::create_dir_all(&into)
                    .with_context(|| format!("creating {}", into.display()))?;
                // A path above the mount point takes the whole tree.
                let all = inside.iter().any(|p| p == Path::new("."));
                let some = if all {
                    Selection::All
                } else {
                    Selection::Paths(inside)
                };
                let events = ui::Reading(ui);
                let part = extract(
                    &readers,
                    &snapshot,
                    tree,
                    &some,
                    &into,
                    &ExtractOptions::default(),
                    &events,
                )?;
                report.entries += part.entries;
                report.bytes += part.bytes;
                report.missing.extend(part.missing);
                report.incomplete_metadata.extend(part.incomplete_metadata);
                report.doubtful.extend(part.doubtful);
                report
                    .not_found
                    .extend(part.not_found.into_iter().map(|p| at.join(p)));
            }
            Ok(())
        });
        self.found.release();
        done?;
        Ok((PathBuf::from(name), report))
    }

    fn shell(&mut self, terminal: &mut dyn Terminal) {
        let mut outcome = Ok(());
        terminal.lend(&mut || {
            outcome = spawn::shell("Bundles are mounted read-only below /run/lifeboat/media.")
        });
        if let Err(error) = outcome {
            terminal.say(&format!("{error:#}"));
        }
    }

    fn end(&mut self, power_off: bool) -> Result<()> {
        shutdown::request(if power_off {
            Ending::PowerOff
        } else {
            Ending::Reboot
        })
    }

    fn in_rescue_system(&self) -> bool {
        self.rescue
    }

    fn busy(&self) -> bool {
        restore::is_locked(Path::new(RUN_DIR))
    }

    fn denied(&self) -> Option<String> {
        self.denied.clone()
    }
}
