//! LUKS: headers written back as they were, containers opened to be filled.

use std::path::{Path, PathBuf};

use super::build::Builder;
use super::{PlanError, Step};
use crate::model::{Luks, Node, NodeId};

impl Builder<'_> {
    /// Keys are tried before anything is erased.
    pub(super) fn luks_keys(&mut self) {
        for id in &self.relevant {
            if let Some(Node::Luks(luks)) = self.saved.nodes.get(id) {
                if self.is_filled(id) {
                    self.steps.push(Step::LuksKey {
                        node: id.clone(),
                        name: luks.name.clone(),
                        data_offset: luks.data_offset,
                    });
                }
            }
        }
    }

    /// Whether anything is made in the container.
    fn is_filled(&self, id: &NodeId) -> bool {
        self.saved
            .children(id)
            .any(|(_, node)| !matches!(node, Node::Unsupported(_)))
    }

    pub(super) fn luks(&mut self, id: &NodeId, luks: &Luks) -> Result<(), PlanError> {
        let refuse = |reason: &str| PlanError::Unsupported {
            node: id.clone(),
            reason: reason.to_owned(),
        };
        let device = self.device(id, &luks.on)?;
        let space = self.room(&luks.on).unwrap_or_default();
        if luks.header_size > luks.data_offset || luks.data_offset.plus(luks.size) > space {
            return Err(refuse(&format!(
                "it needs {}, and {} has {space}: the saved layout is damaged",
                luks.data_offset.plus(luks.size),
                luks.on
            )));
        }
        if !self.saved.luks_headers().iter().any(|h| h.id == *id) {
            return Err(refuse(
                "it lies on a data disk, whose LUKS headers are not in the backup: leave that disk as it is",
            ));
        }
        // A header without a size of its own takes what there is.
        if self.grows(id) {
            self.accept(id, "size", "the container grows with what it lies on");
        }
        let mapped = mapping(&luks.name);
        self.devices.insert(id.clone(), mapped);
        self.steps.push(Step::LuksHeader {
            node: id.clone(),
            device: device.clone(),
            luks: luks.clone(),
        });
        if self.is_filled(id) {
            self.steps.push(Step::LuksOpen {
                node: id.clone(),
                device,
                name: luks.name.clone(),
            });
            self.steps.push(Step::LuksErase {
                name: luks.name.clone(),
            });
        } else {
            self.notes.push(format!(
                "LUKS container {} gets its header back and stays empty: it was not open when the backup was made, or \
                 held nothing known.",
                luks.name
            ));
        }
        if luks.bound_slots > 0 {
            self.notes.push(format!(
                "LUKS container {} was also opened by {}: on another machine that does not work. Type its passphrase at \
                 the start, then enrol again (systemd-cryptenroll, clevis luks bind).",
                luks.name,
                luks.tokens.join(", ")
            ));
        }
        Ok(())
    }

    /// Second fields of crypttab that name a device by what another disk does not have.
    pub(super) fn crypttab_replacements(&self) -> Vec<(String, String)> {
        let mut replace = Vec::new();
        for node in self.saved.nodes.values() {
            let Node::Luks(luks) = node else {
                continue;
            };
            if let Some(entry) = &luks.crypttab {
                if crate::capture::mounts::is_fragile_name(&entry.source) {
                    replace.push((entry.source.clone(), format!("UUID={}", luks.uuid)));
                }
            }
        }
        replace.sort();
        replace.dedup();
        replace
    }
}

/// Where an open container is.
pub(crate) fn mapping(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}

/// What is wrong with a container that no capture made. The words go to the command lines of cryptsetup.
pub(super) fn unsound(name: &str) -> bool {
    // What libdevmapper does not write with escapes (lvm2: libdm/libdm-common.c, `_is_whitelisted_char`), without the
    // slash-like ones.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c);
    matches!(name, "" | "." | ".." | "control")
        || name.starts_with('-')
        || name.len() > 127
        || !name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mappings_lead_nowhere_else() {
        for name in ["", "..", "../sda", "a/b", "-v", "control", "a b"] {
            assert!(unsound(name), "{name}");
        }
        for name in ["sda3_crypt", "luks-1f2e-3", "pve-root"] {
            assert!(!unsound(name), "{name}");
        }
    }
}
