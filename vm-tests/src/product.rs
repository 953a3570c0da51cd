//! The programs under test: where they are, and copies small enough to be carried into a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::artefacts::Artefacts;
use crate::process::{self, Cmd, run};

/// The names of the programs.
const PROGRAMS: [&str; 2] = ["lifeboat", "lifeboat-rescue"];

/// The directory that this program was built into (`target/<profile>`).
pub fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(Path::new("target/debug"));
    // Unit tests live one level deeper.
    if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir).to_owned()
    } else {
        dir.to_owned()
    }
}

/// `lifeboat` and `lifeboat-rescue`, side by side.
#[derive(Debug, Clone)]
pub struct Product {
    dir: PathBuf,
}

impl Product {
    /// Finds the programs in `$LIFEBOAT_BIN_DIR`, else in `target/release`, else in `target/debug`.
    pub fn find() -> Result<Self, String> {
        let dirs = match std::env::var_os("LIFEBOAT_BIN_DIR") {
            Some(dir) if !dir.is_empty() => vec![PathBuf::from(dir)],
            _ => {
                let target = crate::golden::target_dir();
                vec![target.join("release"), target.join("debug")]
            }
        };
        let found = dirs
            .iter()
            .find(|dir| PROGRAMS.iter().all(|p| dir.join(p).is_file()));
        match found {
            Some(dir) => Ok(Self { dir: dir.clone() }),
            None => {
                let dirs: Vec<_> = dirs.iter().map(|d| d.display().to_string()).collect();
                Err(format!(
                    "lifeboat and lifeboat-rescue are not built (looked in {})",
                    dirs.join(" and ")
                ))
            }
        }
    }

    /// The path of `lifeboat`.
    pub fn lifeboat(&self) -> PathBuf {
        self.dir.join("lifeboat")
    }

    /// `lifeboat` on this machine, with neither its configuration nor its memory, and without messages to anybody.
    pub fn command(&self, log: &Artefacts) -> Result<Cmd> {
        let file = log.path("lifeboat.toml");
        let place = |name: &str| format!("{name} = {:?}\n", log.path(name).to_string_lossy());
        let silent = "[notify]\nmail-to = \"\"\n[metrics]\nfile = \"\"\n";
        let settings = ["state", "keys", "hooks"].map(place).concat() + silent;
        fs::write(&file, settings).with_context(|| format!("{}", file.display()))?;
        Ok(Cmd::new(self.lifeboat()).arg("--config").arg(file))
    }

    /// A hash of both programs.
    pub fn key(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for program in PROGRAMS {
            let path = self.dir.join(program);
            hash.update(fs::read(&path).with_context(|| format!("{}", path.display()))?);
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// Copies both programs without debugging information.
    pub fn copy_to(&self, dir: &Path, log: &Artefacts) -> Result<()> {
        fs::create_dir_all(dir)?;
        for program in PROGRAMS {
            let (from, to) = (self.dir.join(program), dir.join(program));
            fs::copy(&from, &to).with_context(|| format!("{}", from.display()))?;
            if process::installed("strip") {
                run(&Cmd::new("strip").arg(&to), log, Duration::from_secs(60))?;
            }
        }
        Ok(())
    }
}
