//! A host that is saved while a program writes to it, and whose power is cut in the middle of that.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::case::{Case, DiskSpec};
use super::machine::{ATTEMPTS, Floor, drop_disks, new_disks, silent, start, verdict};
use crate::artefacts::Artefacts;
use crate::process;

/// Sizes of the disks: the host's, and that of its restore points.
const MIB: [u64; 2] = [1600, 1024];

/// Runs both machines.
pub fn run(program: &Path, floor: &Floor, log: &Artefacts) -> Result<()> {
    let program = program
        .canonicalize()
        .with_context(|| format!("{} is not built", program.display()))?;
    let disk = |mib: u64| DiskSpec {
        mib,
        dirt: None,
        sector_size: None,
    };
    let case = Case {
        disks: MIB.map(disk).into(),
        ..serde_json::from_str(r#"{"description": "", "disks": [], "map": {}}"#)?
    };
    for attempt in 1..=ATTEMPTS {
        new_disks(&case, log)?;
        let on = |name: &str, task: &str| {
            let environment = [
                ("FLOOR_TASK", task.to_owned()),
                ("FLOOR_LIFEBOAT", program.display().to_string()),
            ];
            // There is no layout file: any will do.
            start(&floor.program, &case, floor, log, name, &environment)
        };
        let (ended, text) = on("console", "consistency")?;
        if !ended {
            silent(attempt, &text, log)?;
            continue;
        }
        if text.contains("floor: failed") {
            verdict(&text, log)?;
        }
        ensure!(
            text.contains("floor: the power is cut"),
            "the machine ended without a power cut: {}",
            process::tail(&text, 2000)
        );
        let (ended, text) = on("console-back", "consistency-back")?;
        if !ended {
            silent(attempt, &text, log)?;
            continue;
        }
        drop_disks(&case, log);
        return verdict(&text, log).context("after the power cut");
    }
    Ok(())
}
