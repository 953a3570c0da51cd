//! The storage floor's layout files, listed and run beside the machines that boot.

use anyhow::Result;

use crate::product::profile_dir;
use crate::runner::Scenario;
use crate::uml::case::Case;
use crate::uml::machine::{self, Floor};

/// One scenario for each layout file; none when the directory cannot be read.
pub fn scenarios() -> Vec<Scenario> {
    let files = Case::all().unwrap_or_default();
    files
        .into_iter()
        .map(|file| {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let name = format!("storage-{stem}");
            let about = "User Mode Linux: this layout is applied onto dirty disks, captured again and compared";
            Scenario::new(&name, about, needs, move |log| -> Result<()> {
                let floor = Floor {
                    program: profile_dir().join("uml-floor"),
                };
                machine::run(&file, &floor, log)?;
                Ok(())
            })
        })
        .collect()
}

fn needs() -> Result<(), String> {
    let program = profile_dir().join("uml-floor");
    if !program.is_file() {
        return Err(format!("{} is not built", program.display()));
    }
    machine::missing().map_or(Ok(()), Err)
}
