//! `uml-floor`: process 1 of the User Mode Linux machine of the storage floor. Its verdict is a line on the console.

mod content;
mod dirt;
mod facts;
mod luks;
mod machine;
mod raid;
mod restore;
mod stack;
mod volumes;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("uml-floor is process 1 of a test machine: run `scripts/test --list`");
        return ExitCode::from(2);
    }
    // A panic of process 1 would take the kernel down before the text is out.
    let result = std::panic::catch_unwind(|| machine::start().and_then(|()| restore::run()));
    match result {
        Ok(Ok(())) => println!("\nfloor: passed"),
        Ok(Err(error)) => println!(
            "\nfloor: failed: {}",
            format!("{error:#}").replace('\n', " | ")
        ),
        Err(_) => println!("\nfloor: failed: it panicked"),
    }
    machine::stop()
}
