//! What is known of a host before the checks look at it.

use std::path::Path;

use jiff::Timestamp;
use layout::model::{Layout, NodeId};
use layout::system::System;
use std::collections::BTreeSet;

use super::place::Place;
use super::targets::{Here, Target};
use crate::config::Config;
use crate::history::{self, Run, State};
use crate::rescue::Wish;
use crate::targets::Kind;
use crate::{facts, proxmox};

/// All that checks go by. They may ask the host for more.
pub struct Look<'a> {
    /// The host.
    pub sys: &'a dyn System,
    /// The settings; the defaults, where they cannot be read.
    pub config: &'a Config,
    /// The file that they come from.
    pub file: &'a Path,
    /// Why it cannot be read.
    pub problem: Option<String>,
    /// Now.
    pub now: Timestamp,
    /// What was done, the oldest first.
    pub runs: Vec<Run>,
    /// The configured targets.
    pub targets: Vec<Target>,
    /// The host's storage.
    pub layout: Result<Layout, String>,
    /// If it is a node of Proxmox VE.
    pub node: Option<proxmox::Node>,
    /// Whether root looks: others see less.
    pub root: bool,
}

impl<'a> Look<'a> {
    /// Looks at this host. No disk is written to.
    pub fn at(
        sys: &'a dyn System,
        config: &'a Config,
        file: &'a Path,
        problem: Option<String>,
    ) -> Look<'a> {
        let host = facts::identity(sys);
        let runs = history::all(&config.state).unwrap_or_default();
        let wish = Wish {
            package: None,
            version: None,
            modules: config.rescue_modules,
        };
        let running = runs.iter().rev().find(|r| r.state() == State::Running);
        let busy = running.map(|run| format!("process {} is using it", run.process.pid));
        let targets = config
            .targets
            .iter()
            .map(|named| Target::look(sys, named, &wish, busy.as_deref()))
            .collect();
        Look {
            layout: layout::capture::capture(sys).map_err(|e| e.to_string()),
            node: proxmox::collect(sys, &host.hostname),
            now: Timestamp::now(),
            root: nix::unistd::geteuid().is_root(),
            sys,
            config,
            file,
            problem,
            runs,
            targets,
        }
    }

    /// The targets that are at hand.
    pub fn here(&self) -> impl Iterator<Item = (&Target, &Here)> {
        self.targets.iter().filter_map(|t| Some((t, t.here()?)))
    }

    /// The disks that a target lies on, as far as the layout knows them.
    pub fn disks_of(&self, here: &Here) -> BTreeSet<NodeId> {
        let Ok(layout) = &self.layout else {
            return BTreeSet::new();
        };
        match &here.place {
            Place::Disk(device) => layout
                .disks()
                .filter(|(_, disk)| disk.device == *device)
                .map(|(id, _)| id.clone())
                .collect(),
            Place::Mount { point, .. } => match layout.mount_at(point) {
                Some(mount) => layout.disks_below(&mount.node),
                None => BTreeSet::new(),
            },
            Place::Unknown => BTreeSet::new(),
        }
    }

    /// Whether a target boots.
    pub fn is_stick(here: &Here) -> bool {
        !matches!(here.kind, Kind::Directory(_))
    }

    /// How long ago something was, in hours.
    pub fn hours_since(&self, time: Timestamp) -> u64 {
        let hours = self.now.duration_since(time).as_hours();
        u64::try_from(hours).unwrap_or(0)
    }

    /// Whether a program is where root's commands are looked for.
    pub fn has(&self, program: &str) -> bool {
        const PATH: [&str; 6] = [
            "/usr/local/sbin",
            "/usr/local/bin",
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
        ];
        PATH.iter()
            .any(|dir| self.sys.exists(&Path::new(dir).join(program)))
    }
}
