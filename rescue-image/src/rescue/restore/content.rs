//! Files and images for `layout::apply`, out of all attached stores read as one.

use std::path::{Path, PathBuf};

use bundle::document::Snapshot;
use bundle::extract::{ExtractReport, FileProblem};
use layout::apply::{Content, ContentError};
use layout::model::NodeId;

use super::keys::LuksKeys;
use super::parts::Parts;
use super::ui::{Reading, Ui};
use super::{Finish, Prepared};

/// What is not as it was saved. Paths are those of the restored host.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Losses {
    /// Files that are missing.
    pub missing: Vec<FileProblem>,
    /// Files that are there without some of their metadata.
    pub incomplete_metadata: Vec<FileProblem>,
}

impl Losses {
    /// Nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.incomplete_metadata.is_empty()
    }
}

pub(super) struct StoreContent<'a> {
    parts: &'a dyn Parts,
    snapshot: &'a Snapshot,
    accept_loss: bool,
    keys: &'a LuksKeys,
    ui: &'a dyn Ui,
    finish: &'a Finish,
    log_dir: &'a Path,
    notes: Vec<String>,
    // By mount point, since a step that is repeated replaces what it reported before.
    trees: Vec<(PathBuf, Losses)>,
}

impl<'a> StoreContent<'a> {
    pub(super) fn new(parts: &'a dyn Parts, prepared: &'a Prepared, ui: &'a dyn Ui) -> Self {
        let request = &prepared.request;
        Self {
            parts,
            snapshot: &prepared.snapshot,
            accept_loss: request.accept_loss,
            keys: &request.luks_keys,
            ui,
            finish: &prepared.finish,
            log_dir: &request.log_dir,
            notes: Vec::new(),
            trees: Vec::new(),
        }
    }

    /// What is lost, and what a person should know.
    pub(super) fn outcome(self) -> (Losses, Vec<String>) {
        let mut all = Losses::default();
        for (_, losses) in self.trees {
            all.missing.extend(losses.missing);
            all.incomplete_metadata.extend(losses.incomplete_metadata);
        }
        (all, self.notes)
    }

    fn judge(&mut self, mount_point: &Path, report: ExtractReport) -> Result<(), ContentError> {
        let host_path = |p: FileProblem| FileProblem {
            path: mount_point.join(p.path),
            reason: p.reason,
        };
        let losses = Losses {
            missing: report.missing.into_iter().map(host_path).collect(),
            incomplete_metadata: report
                .incomplete_metadata
                .into_iter()
                .map(host_path)
                .collect(),
        };
        if report.healed > 0 {
            self.ui.warn(&format!(
                "{} damaged parts were taken from another bundle",
                report.healed
            ));
        }
        for problem in losses.missing.iter().chain(&losses.incomplete_metadata) {
            self.ui
                .warn(&format!("{}: {}", problem.path.display(), problem.reason));
        }
        let first = losses
            .missing
            .first()
            .map(|p| format!("{}: {}", p.path.display(), p.reason));
        let count = losses.missing.len();
        self.trees.retain(|(at, _)| at != mount_point);
        self.trees.push((mount_point.to_owned(), losses));
        match first {
            Some(first) if !self.accept_loss => Err(ContentError::new(format!(
                "{count} files of {} could not be restored, the first: {first}",
                mount_point.display()
            ))),
            _ => Ok(()),
        }
    }
}

impl Content for StoreContent<'_> {
    fn restore_tree(&mut self, mount_point: &Path, into: &Path) -> Result<(), ContentError> {
        let tree = self
            .snapshot
            .trees
            .iter()
            .find(|t| Path::new(&t.mount_point) == mount_point);
        let tree = tree.ok_or_else(|| {
            ContentError::new(format!(
                "the restore point holds no files of {}: it is not complete",
                mount_point.display()
            ))
        })?;
        let report = self
            .parts
            .extract(self.snapshot, tree, into, &Reading(self.ui))
            .map_err(|e| {
                ContentError::new(format!(
                    "restoring the files of {}: {e:#}",
                    mount_point.display()
                ))
            })?;
        self.judge(mount_point, report)
    }

    fn restore_image(&mut self, node: &NodeId, device: &Path) -> Result<(), ContentError> {
        let image = self
            .snapshot
            .images
            .iter()
            .find(|i| i.node == node.as_str());
        let image = image.ok_or_else(|| {
            ContentError::new(format!(
                "the restore point holds no image of {node}: it is not complete"
            ))
        })?;
        self.parts
            .image_to(image, device, &Reading(self.ui))
            .map_err(|e| {
                ContentError::new(format!(
                    "writing the image of {node} to {}: {e:#}",
                    device.display()
                ))
            })
    }

    fn files_complete(&mut self, root: &Path, note: &dyn Fn(&str)) -> Result<bool, ContentError> {
        let (changed, notes) = self
            .finish
            .files(root, self.log_dir)
            .map_err(|e| ContentError::new(format!("{e:#}")))?;
        notes.iter().for_each(|text| note(text));
        self.notes = notes;
        Ok(changed)
    }

    fn luks_key(&mut self, node: &NodeId, name: &str) -> Result<Vec<u8>, ContentError> {
        let key = self.keys.get(node, name).map(<[u8]>::to_vec);
        key.ok_or_else(|| {
            ContentError::new(format!(
                "the LUKS container {name} ({node}) needs its passphrase or key file: give --luks-key {name}=FILE"
            ))
        })
    }
}
