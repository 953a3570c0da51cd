//! `lifeboat guests forget`

use anyhow::Context as _;

use crate::Context;
use crate::cli::GuestsForgetArgs;
use crate::guests::pending::{Worker, dir};
use crate::output::{Outcome, Usage};
use crate::progress::Progress;

/// Takes guests off the list of those that are to come back.
pub fn run(context: &Context, args: &GuestsForgetArgs) -> anyhow::Result<Outcome> {
    let progress = Progress::new(context.out.quiet);
    let worker = Worker::new(&context.sys, dir(&context.config), &progress)?;
    let worker = worker.context("no guests are to come back: there is no list")?;
    let list = worker.now();
    if let Some(id) = args
        .ids
        .iter()
        .find(|id| list.guests.iter().all(|g| g.id != **id))
    {
        return Err(Usage(format!("guest {id} is not on the list")).into());
    }
    worker.forget(&args.ids)?;
    // The last one that was missing holds the others back no longer.
    worker.finish()?;
    progress.finish();
    Ok(Outcome::Fine)
}
