//! The storage floor: one test per layout file. `cargo test -p vm-tests --test uml [NAME]`.

use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};
use vm_tests::artefacts::Artefacts;
use vm_tests::uml::case::Case;
use vm_tests::uml::machine::{self, Floor};

fn main() -> anyhow::Result<std::process::ExitCode> {
    let arguments = Arguments::from_args();
    let missing = machine::missing();
    if let Some(reason) = &missing {
        eprintln!("the storage floor is ignored: {reason}");
    }
    let root = tempfile::Builder::new()
        .prefix("lifeboat-uml-")
        .tempdir()?
        .keep();
    let mut trials = Vec::new();
    for file in Case::all()? {
        let name = file
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        let dir = root.join(&name);
        let test = move || -> Result<(), Failed> {
            let program = Path::new(env!("CARGO_BIN_EXE_uml-floor"));
            let floor = Floor {
                program: program.to_owned(),
            };
            let log = Artefacts::new(dir)?;
            machine::run(&file, &floor, &log)?;
            Ok(())
        };
        trials.push(Trial::test(name, test).with_ignored_flag(missing.is_some()));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !conclusion.has_failed() {
        let _ = std::fs::remove_dir_all(&root);
    }
    Ok(conclusion.exit_code())
}
