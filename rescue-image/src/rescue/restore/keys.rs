//! Keys of the LUKS containers that a restore fills: given beforehand, tried before anything is confirmed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use layout::model::NodeId;
use layout::plan::{Plan, Step};

use super::{Parts, Prepared, Stop};

/// Keys by container; what they are is shown nowhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LuksKeys(BTreeMap<String, Vec<u8>>);

impl fmt::Debug for LuksKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl LuksKeys {
    /// Adds a key for a container, which is given by node (`luks:<uuid>`), UUID or name.
    pub fn add(&mut self, container: impl Into<String>, key: Vec<u8>) {
        self.0.insert(container.into(), key);
    }

    /// The key of a container.
    pub fn get(&self, node: &NodeId, name: &str) -> Option<&[u8]> {
        let uuid = node.as_str().trim_start_matches("luks:");
        [node.as_str(), uuid, name]
            .iter()
            .find_map(|known| self.0.get(*known))
            .map(Vec::as_slice)
    }

    /// From `CONTAINER=FILE` as on the command line: the file is the key, to its last byte.
    pub fn from_words(words: &[String]) -> Result<LuksKeys> {
        let mut keys = LuksKeys::default();
        for word in words {
            let (container, file) = word.split_once('=').with_context(|| {
                format!("--luks-key {word}: give the container's UUID or name, an equals sign, and a file")
            })?;
            let key =
                std::fs::read(file).with_context(|| format!("reading the key file {file}"))?;
            keys.add(container, key);
        }
        Ok(keys)
    }
}

/// The containers that a plan fills: node and name.
pub fn wanted(plan: &Plan) -> Vec<(NodeId, String)> {
    let steps = plan.steps.iter();
    steps
        .filter_map(|step| match step {
            Step::LuksKey { node, name, .. } | Step::LuksUse { node, name, .. } => {
                Some((node.clone(), name.clone()))
            }
            _ => None,
        })
        .collect()
}

/// Whether a key opens a container: as it was saved, or as it is where that stays.
pub fn opens(parts: &dyn Parts, prepared: &Prepared, node: &NodeId, key: &[u8]) -> Result<bool> {
    let stays = prepared.plan.steps.iter().find_map(|step| match step {
        Step::LuksUse {
            node: of, device, ..
        } if of == node => Some(device),
        _ => None,
    });
    if let Some(device) = stays {
        // One inside of another is tried when that is open, before the first write.
        return Ok(parts.luks_opens_on(device, key)?.unwrap_or(true));
    }
    let image = prepared
        .snapshot
        .images
        .iter()
        .find(|i| i.node == node.as_str())
        .with_context(|| {
            format!("the restore point holds no header of {node}: it is not complete")
        })?;
    let step = |step: &Step| match step {
        Step::LuksKey {
            node: of,
            data_offset,
            ..
        } if of == node => Some(*data_offset),
        _ => None,
    };
    let offset = prepared.plan.steps.iter().find_map(step);
    parts.luks_opens(image, offset.unwrap_or_default(), key)
}

/// Refuses a restore that would end at a container which nothing opens.
pub(super) fn check(parts: &dyn Parts, prepared: &Prepared) -> Result<(), Stop> {
    for (node, name) in wanted(&prepared.plan) {
        let Some(key) = prepared.request.luks_keys.get(&node, &name) else {
            return Err(Stop::refused(format!(
                "the LUKS container {name} ({node}) needs its passphrase or key file: restore it from the wizard, or give \
                 --luks-key {name}=FILE"
            )));
        };
        match opens(parts, prepared, &node, key) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Stop::refused(format!(
                    "the key does not open the LUKS container {name} ({node}) (a file is used to its last \
                     byte: is there a newline at its end?)"
                )));
            }
            Err(error) => return Err(Stop::refused(format!("{error:#}"))),
        }
    }
    Ok(())
}

/// An empty file in a directory, for us alone.
pub(super) fn scratch(dir: &Path) -> Result<tempfile::NamedTempFile> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    tempfile::NamedTempFile::new_in(dir)
        .with_context(|| format!("making a file in {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_node_uuid_or_name_and_not_shown() {
        let node = NodeId::luks("1-2");
        for known in ["luks:1-2", "1-2", "root_crypt"] {
            let mut keys = LuksKeys::default();
            keys.add(known, b"secret".to_vec());
            assert_eq!(
                keys.get(&node, "root_crypt"),
                Some(&b"secret"[..]),
                "{known}"
            );
            assert!(!format!("{keys:?}").contains("secret"));
            assert_eq!(keys.get(&NodeId::luks("3"), "other"), None);
        }
    }

    #[test]
    fn a_key_file_is_read_to_its_last_byte() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"a=b\n").unwrap();
        let keys = LuksKeys::from_words(&[format!("x={}", file.path().display())]).unwrap();
        assert_eq!(keys.get(&NodeId::luks("1"), "x"), Some(&b"a=b\n"[..]));
        LuksKeys::from_words(&["x".to_owned()]).unwrap_err();
        LuksKeys::from_words(&["x=/nowhere/key".to_owned()]).unwrap_err();
    }
}
