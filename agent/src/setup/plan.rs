//! What will be done, before it is.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use bundle::store::{Store, StoreInfo};
use layout::system::System;
use layout::units::Bytes;
use rescue_image::stick::{Identity, Stick, identify, refusals};
use serde::Serialize;

use super::Answers;
use super::file::{Edited, Wanted, edit};
use crate::commands::prepare::SMALLEST;
use crate::config::Config;
use crate::output::{Refused, Usage};
use crate::targets::{Access, Opened, close_all};
use crate::values::{self, Size};

/// How a target comes to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Make {
    /// It is one already, and stays as it is.
    Keep {
        /// Whether it is encrypted, as far as that can be seen.
        encrypted: Option<bool>,
    },
    /// A disk is erased.
    Disk(Box<Identity>),
    /// A new image file.
    Image(#[serde(serialize_with = "bytes")] Size),
    /// A directory.
    Directory,
}

fn bytes<S: serde::Serializer>(size: &Size, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(size.0)
}

/// All that is to be done, in its order.
#[derive(Debug)]
pub struct Plan {
    /// Targets, and how they come to be.
    pub targets: Vec<(PathBuf, Make)>,
    /// Whether new ones are encrypted.
    pub encrypt: bool,
    /// The configuration.
    pub edited: Edited,
    /// Whether timers follow it.
    pub schedule: bool,
    /// Whether a backup follows.
    pub first_backup: bool,
}

impl Plan {
    /// Works it out; nothing is changed.
    pub fn of(
        sys: &dyn System,
        answers: &Answers,
        config: &Config,
        text: &str,
    ) -> anyhow::Result<Plan> {
        let mut targets = Vec::new();
        if let Some(stick) = &answers.stick {
            targets.push((stick.clone(), make_stick(sys, stick, answers)?));
        }
        if let Some(drive) = &answers.drive {
            targets.push((drive.clone(), make_directory(drive)?));
        }
        let mut all = config.targets.clone();
        for (path, _) in &targets {
            if !all.contains(path) {
                all.push(path.clone());
            }
        }
        if all.is_empty() {
            return Err(Usage("there is no target: give a stick or a drive".into()).into());
        }
        let wanted = Wanted {
            targets: all,
            schedule: answers.schedule().map_err(Usage)?,
            mail_to: answers.mail_to.clone(),
        };
        let edited = edit(text, &wanted)?;
        // Also where only the timers are missing.
        let schedule = edited.changes.iter().any(|c| c.starts_with("schedule."))
            || (wanted.schedule.as_ref().is_some_and(|s| !s.is_empty())
                && !edited.unknown.contains(&"schedule.host".to_owned()));
        Ok(Plan {
            targets,
            encrypt: answers.encrypt,
            edited,
            schedule,
            first_backup: answers.first_backup,
        })
    }

    /// Whether a passphrase is needed.
    pub fn needs_keys(&self) -> bool {
        self.encrypt && self.targets.iter().any(|(_, make)| make.is_new())
    }

    /// Disks that are erased.
    pub fn erased(&self) -> impl Iterator<Item = &Identity> {
        self.targets.iter().filter_map(|(_, make)| match make {
            Make::Disk(identity) => Some(&**identity),
            _ => None,
        })
    }

    /// What will be done, for people.
    pub fn text(&self, file: &Path) -> String {
        let mut out = String::from("This will be done:\n");
        let how = if self.encrypt {
            "encrypted"
        } else {
            "not encrypted"
        };
        for (path, make) in &self.targets {
            let path = path.display();
            out.push_str(&match make {
                Make::Keep { encrypted } => {
                    let plain = *encrypted == Some(false) && self.encrypt;
                    let note = if plain { " (not encrypted)" } else { "" };
                    format!("  - {path} is a target already and stays as it is{note}\n")
                }
                Make::Disk(disk) => format!(
                    "  - {path}\n    becomes a stick, {how}. ALL THAT IS ON THE DISK IS LOST:\n    {}  {}  serial {}  {}\n",
                    disk.device.display(),
                    disk.model,
                    if disk.serial.is_empty() { "(none)" } else { &disk.serial },
                    disk.size,
                ),
                Make::Image(size) => format!(
                    "  - {path}\n    is made, an image of a stick of {}, {how}\n",
                    values::bytes(size.0)
                ),
                Make::Directory => format!("  - the directory {path}\n    becomes a target, {how}\n"),
            });
        }
        if self.edited.changes.is_empty() {
            out.push_str(&format!(
                "  - the configuration {} stays as it is\n",
                file.display()
            ));
        } else {
            out.push_str(&format!("  - the configuration {} gets\n", file.display()));
            for change in &self.edited.changes {
                out.push_str(&format!("      {change}\n"));
            }
        }
        for unknown in &self.edited.unknown {
            out.push_str(&format!(
                "    (this version has no setting {unknown}: that answer is not used)\n"
            ));
        }
        if self.schedule {
            out.push_str("  - timers are made as the configuration says\n");
        }
        if self.first_backup {
            out.push_str("  - a backup is made\n");
        }
        out
    }
}

impl Make {
    /// Whether there is something to be made.
    pub fn is_new(&self) -> bool {
        !matches!(self, Make::Keep { .. })
    }
}

fn make_stick(sys: &dyn System, path: &Path, answers: &Answers) -> anyhow::Result<Make> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(_) if path.starts_with("/dev") => {
            let text = format!(
                "there is no device {}: is the stick plugged in?",
                path.display()
            );
            return Err(Usage(text).into());
        }
        Err(_) => {
            let size = answers.size.ok_or_else(|| {
                Usage(format!(
                    "{} does not exist: a new image file needs a size, for example 32G",
                    path.display()
                ))
            })?;
            return Ok(Make::Image(size));
        }
    };
    if meta.is_dir() {
        let text = format!(
            "{} is a directory, no stick: name it as the drive",
            path.display()
        );
        return Err(Usage(text).into());
    }
    // A serial that was named for the first time must not erase the finished stick the second time: `lifeboat prepare` does
    // that, if it is wanted.
    let stick = Stick::open(path).is_ok();
    if stick {
        // One without a store was not finished, and is made again.
        if let Some(info) = store_on(path)? {
            let encrypted = Some(info.encrypted);
            return Ok(Make::Keep { encrypted });
        }
    }
    if !meta.file_type().is_block_device() {
        if stick {
            return Ok(Make::Image(answers.size.unwrap_or(Size(meta.len()))));
        }
        return Err(Refused(format!(
            "{} exists, and is no image of a stick: choose another name",
            path.display()
        ))
        .into());
    }
    let device = path.canonicalize()?;
    let reasons = refusals(sys, &device, Bytes(SMALLEST))?;
    if !reasons.is_empty() {
        return Err(Refused(format!(
            "{} must not be erased: {}",
            device.display(),
            reasons.join("; ")
        ))
        .into());
    }
    Ok(Make::Disk(Box::new(identify(sys, &device)?)))
}

/// The store on a stick, if there is one.
fn store_on(path: &Path) -> anyhow::Result<Option<StoreInfo>> {
    let opened = Opened::open(path, Access::Read)?;
    let info = match Store::info(&opened.dir) {
        Ok(info) => Ok(Some(info)),
        Err(bundle::Error::NoStore { .. }) if opened.dir.join("lifeboat/packs").exists() => {
            Err(Refused(format!(
                "{} holds data of a store, but its store.json is gone: it is not made anew; copy what is in `lifeboat` before you prepare it",
                path.display()
            ))
            .into())
        }
        Err(bundle::Error::NoStore { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    };
    close_all(vec![opened], info)
}

fn make_directory(path: &Path) -> anyhow::Result<Make> {
    if path.exists() && !path.is_dir() {
        let text = format!("{} is no directory: name it as the stick", path.display());
        return Err(Usage(text).into());
    }
    match Store::info(path) {
        Ok(info) => Ok(Make::Keep {
            encrypted: Some(info.encrypted),
        }),
        Err(bundle::Error::NoStore { .. }) => Ok(Make::Directory),
        // What is damaged, or of a newer version, is not made anew.
        Err(error) if path.exists() => Err(error.into()),
        Err(_) => Ok(Make::Directory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundle::store::StoreOptions;
    use layout::system::Recorded;

    fn plan(answers: &Answers, config: &Config, text: &str) -> anyhow::Result<Plan> {
        Plan::of(&Recorded::new(), answers, config, text)
    }

    #[test]
    fn a_target_that_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let answers = Answers {
            drive: Some(store.clone()),
            encrypt: true,
            ..Answers::default()
        };
        let new = plan(&answers, &Config::default(), "").unwrap();
        assert_eq!(new.targets, [(store.clone(), Make::Directory)]);
        assert!(new.needs_keys());
        std::fs::create_dir(&store).unwrap();
        Store::create(&store, &StoreOptions::default()).unwrap();
        let there = plan(&answers, &Config::default(), "").unwrap();
        let keep = Make::Keep {
            encrypted: Some(false),
        };
        assert_eq!(there.targets, [(store.clone(), keep)]);
        assert!(!there.needs_keys());
        assert!(there.text(Path::new("/x")).contains("(not encrypted)"));
        // Once it is configured, nothing is left to do.
        let text = there.edited.text;
        let config = Config::parse(&text).unwrap();
        let again = plan(&answers, &config, &text).unwrap();
        assert!(again.edited.changes.is_empty());
        assert!(again.text(Path::new("/x")).contains("/x stays as it is"));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("precious");
        std::fs::write(&file, "precious").unwrap();
        let code = |stick: Option<&Path>, drive: Option<&Path>| {
            let answers = Answers {
                stick: stick.map(Path::to_owned),
                drive: drive.map(Path::to_owned),
                ..Answers::default()
            };
            let error = plan(&answers, &Config::default(), "").unwrap_err();
            crate::output::error_code(&error)
        };
        assert_eq!(code(None, None), 2);
        assert_eq!(code(Some(&file), None), 4);
        assert_eq!(code(Some(dir.path()), None), 2);
        assert_eq!(code(None, Some(&file)), 2);
        assert_eq!(code(Some(Path::new("/dev/lifeboat-none")), None), 2);
        // Without a size there is no image.
        assert_eq!(code(Some(&dir.path().join("new.img")), None), 2);
    }
}
