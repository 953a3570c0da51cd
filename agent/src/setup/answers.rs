//! What setting up needs to be told.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Deserializer};

use crate::cli::Modules;
use crate::output::Usage;
use crate::values::Size;

/// The answers. What is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Answers {
    /// The stick: a whole disk, or an image file that stands for one.
    pub stick: Option<PathBuf>,
    /// Size of a new image file.
    #[serde(deserialize_with = "size")]
    pub size: Option<Size>,
    /// The serial of the disk that may be erased (its device name, if it has none).
    pub erase: Option<String>,
    /// A directory on another drive, for the host and its guests.
    pub drive: Option<PathBuf>,
    /// Whether new targets are encrypted.
    pub encrypt: bool,
    /// When the host is backed up: a time of the day (`02:00`), or whatever `[schedule]` takes; empty: not by itself.
    pub time: Option<String>,
    /// To whom messages go; empty: to nobody.
    pub mail_to: Option<String>,
    /// Whether a backup is made at once.
    pub first_backup: bool,
    /// Kernel modules of the rescue system.
    pub modules: Option<Modules>,
    /// Size of the stick's EFI partition.
    #[serde(deserialize_with = "size")]
    pub esp_size: Option<Size>,
    /// A Debian package to take the kernel of the rescue system from.
    pub kernel_package: Option<PathBuf>,
}

fn size<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Size>, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

impl Answers {
    /// Reads them.
    pub fn load(file: &Path) -> anyhow::Result<Answers> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the answers {}", file.display()))?;
        let wrong = |e: String| Usage(format!("the answers {} are wrong:\n{e}", file.display()));
        let answers: Answers = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        answers.check().map_err(wrong)?;
        Ok(answers)
    }

    fn check(&self) -> Result<(), String> {
        for (name, path) in [("stick", &self.stick), ("drive", &self.drive)] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                return Err(format!(
                    "{name}: '{}' is not an absolute path; a timer would look for it in the wrong place",
                    path.display()
                ));
            }
        }
        if let (None, Some(_)) = (&self.stick, &self.erase) {
            return Err("erase: there is no stick that it could be about".into());
        }
        self.schedule().map(|_| ())
    }

    /// The time as `[schedule]` takes it.
    pub fn schedule(&self) -> Result<Option<String>, String> {
        let Some(time) = self.time.as_deref().map(str::trim) else {
            return Ok(None);
        };
        if time.is_empty() || !time.starts_with(|c: char| c.is_ascii_digit()) || time.contains(' ')
        {
            return Ok(Some(time.to_owned()));
        }
        match clock(time) {
            Some((hour, minute)) => Ok(Some(format!("daily {hour:02}:{minute:02}"))),
            None => Err(format!(
                "time: '{time}' is no time of the day; write it like 02:00"
            )),
        }
    }
}

/// `2:30`, `02:30`.
pub fn clock(text: &str) -> Option<(u8, u8)> {
    let (hour, minute) = text.trim().split_once(':')?;
    let number = |text: &str, below: u8| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let n: u8 = text.parse().ok()?;
        (digits && n < below).then_some(n)
    };
    Some((
        number(hour, 24)?,
        number(minute, 60).filter(|_| minute.len() == 2)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_schedules() {
        let schedule = |time: &str| {
            let time = Some(time.to_owned());
            Answers {
                time,
                ..Answers::default()
            }
            .schedule()
        };
        assert_eq!(schedule("2:00").unwrap().unwrap(), "daily 02:00");
        assert_eq!(schedule("23:59").unwrap().unwrap(), "daily 23:59");
        assert_eq!(
            schedule("weekly Sun 03:00").unwrap().unwrap(),
            "weekly Sun 03:00"
        );
        assert_eq!(schedule("").unwrap().unwrap(), "");
        for wrong in ["24:00", "12:60", "1:2", "123:00", "2"] {
            assert!(schedule(wrong).unwrap_err().contains("02:00"), "{wrong}");
        }
        assert_eq!(Answers::default().schedule(), Ok(None));
    }

    #[test]
    fn wrong_answers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answers.toml");
        let load = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Answers::load(&file).map_err(|e| e.to_string())
        };
        assert!(load("drive = 'here'").unwrap_err().contains("absolute"));
        assert!(load("sticks = '/dev/sdx'").unwrap_err().contains("sticks"));
        assert!(load("erase = 'S1'").unwrap_err().contains("stick"));
        let good =
            load("drive = '/mnt/d'\ntime = '02:00'\nsize = '4G'\nmodules = 'slim'\n").unwrap();
        assert_eq!(good.size, Some(Size(4 << 30)));
        assert!(!good.encrypt);
    }
}
