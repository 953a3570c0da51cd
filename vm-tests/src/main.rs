//! Runs the scenarios; see `vm-tests --help`.

use std::io::Write;
use std::process::ExitCode;

use vm_tests::runner::{Options, USAGE, run};
use vm_tests::scenarios;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--help" || a == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let result = Options::parse(args).and_then(|options| {
        let scenarios = scenarios::all(&options.artefacts);
        run(&scenarios, &options, &|line| {
            println!("{line}");
            // The lines are watched while scenarios run; a closed pipe is no reason to stop them.
            let _ = std::io::stdout().flush();
        })
    });
    match result {
        Ok(summary) if summary.failed == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm-tests: {error:#}");
            ExitCode::from(2)
        }
    }
}
