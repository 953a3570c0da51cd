//! Process 1 of the rescue system, and its commands. All of it is in [`rescue_image::rescue`].

use std::process::ExitCode;

fn main() -> ExitCode {
    rescue_image::rescue::cli::main()
}
