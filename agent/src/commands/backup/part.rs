//! A target of a backup while it is open.

use std::path::Path;

use bundle::document::HostIdentity;
use bundle::store::Store;

use super::report::TargetReport;
use super::room;
use super::work::Work;
use crate::history::Space;
use crate::progress::Progress;
use crate::targets::{Access, Opened};
use crate::{Context, seen};

/// A target that was opened, and what has become of it so far.
pub(super) struct Part {
    pub(super) opened: Option<Opened>,
    pub(super) report: TargetReport,
    /// It failed for lack of room.
    pub(super) full: bool,
}

impl Part {
    /// Opens a target, or says in its report why it cannot be.
    pub(super) fn open(target: &Path) -> Part {
        let mut report = TargetReport::new(target);
        let opened = Opened::open(target, Access::Write)
            .map_err(|error| report.fail(format!("{error:#}")))
            .ok();
        report.stick = opened.as_ref().is_some_and(|o| o.stick.is_some());
        Part {
            opened,
            report,
            full: false,
        }
    }

    /// Notes what it holds and how much room it has, for people and programs that look after targets.
    pub(super) fn look(&mut self, host: &HostIdentity) {
        let Some(opened) = &self.opened else { return };
        self.report.space = Space::of(&opened.dir);
        let snapshots = opened.reader().and_then(|store| Ok(store.snapshots()?));
        self.report.restore_points = snapshots.ok().map(|all| {
            let own = all.iter().filter(|s| s.host.machine_id == host.machine_id);
            own.filter(|s| s.kind == "host").count() as u64
        });
    }

    /// Its store, opened for writing, unless it is hopeless.
    pub(super) fn store(
        &mut self,
        context: &Context,
        work: &Work,
        host: &HostIdentity,
        progress: &Progress,
    ) -> Option<Store> {
        let opened = self.opened.as_ref()?;
        let writer = opened.writer().and_then(|store| {
            context.config.parity.apply(&store)?;
            Ok(store)
        });
        let store = match writer {
            Ok(store) => store,
            Err(error) => {
                self.report.fail(format!("{error:#}"));
                return None;
            }
        };
        if let Some(text) = seen::rolled_back(&context.config.state, &opened.named, &store) {
            eprintln!("warning: {text}");
            self.report.problems.push(text);
        }
        self.report.store = Some(store.id().to_owned());
        self.report.encrypted = store.encrypted();
        room::before(&context.config, work, host, store, self, progress)
    }
}

/// How the user named the target of a store.
pub(super) fn named<'p>(parts: &'p [Part], dir: &'p Path) -> &'p Path {
    let opened = parts.iter().filter_map(|p| p.opened.as_ref());
    let mut of = opened.filter(|o| o.dir == dir);
    of.next().map_or(dir, |o| &o.named)
}

pub(super) fn part_of<'p>(parts: &'p mut [Part], dir: &Path) -> Option<&'p mut Part> {
    parts
        .iter_mut()
        .find(|p| p.opened.as_ref().is_some_and(|o| o.dir == dir))
}

impl Part {
    pub(super) fn fail(&mut self, error: &bundle::Error) {
        self.full = error.is_full();
        self.report.fail(error.to_string());
    }
}
