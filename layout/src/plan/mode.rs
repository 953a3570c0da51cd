//! How much of the machine a restore touches.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much of the machine a restore touches.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The saved partition table is written where it was, and nothing else.
    TableRepair,
    /// The EFI system partition and the boot code are made anew.
    BootRepair,
    /// The filesystems of the host's system are made anew where they are.
    SystemOnly,
    /// The disks that were mapped are partitioned from scratch.
    #[default]
    BareMetal,
}

impl Mode {
    /// All of them, the least destructive first.
    pub const ALL: [Mode; 4] = [
        Mode::TableRepair,
        Mode::BootRepair,
        Mode::SystemOnly,
        Mode::BareMetal,
    ];

    /// The word for it on command lines and in questions.
    pub fn word(self) -> &'static str {
        match self {
            Mode::TableRepair => "table-repair",
            Mode::BootRepair => "boot-repair",
            Mode::SystemOnly => "system-only",
            Mode::BareMetal => "bare-metal",
        }
    }

    /// What it does, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Mode::TableRepair => {
                "writes the saved partition table back where it is lost and the contents are still there"
            }
            Mode::BootRepair => "puts the boot loader back, and touches nothing else",
            Mode::SystemOnly => {
                "makes the filesystems of the host's system anew where they are, and keeps guests and data"
            }
            Mode::BareMetal => "erases the disks that you confirm, and makes everything anew",
        }
    }

    /// Whether partitions and volumes stay where they are.
    pub fn is_in_place(self) -> bool {
        self != Mode::BareMetal
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Mode::TableRepair => "partition table repair",
            Mode::BootRepair => "boot repair",
            Mode::SystemOnly => "system only",
            Mode::BareMetal => "bare metal",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Mode, String> {
        super::choices::one_of(word, &Mode::ALL, |mode| mode.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood() {
        for mode in Mode::ALL {
            assert_eq!(mode.word().parse(), Ok(mode));
        }
        let error = "system".parse::<Mode>().unwrap_err();
        assert!(error.contains("system-only, bare-metal"), "{error}");
    }
}
