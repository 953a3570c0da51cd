//! `lifeboat guests`: the dumps of a node's guests, and what is made of them.

mod export;
mod forget;
mod list;
mod restore;
mod status;

use crate::Context;
use crate::cli::{GuestsArgs, GuestsCommand};
use crate::output::Outcome;

/// Does what was asked for.
pub fn run(context: &Context, args: &GuestsArgs) -> anyhow::Result<Outcome> {
    match &args.what {
        GuestsCommand::List(args) => list::run(context, args),
        GuestsCommand::Restore(args) => restore::run(context, args),
        GuestsCommand::Export(args) => export::run(context, args),
        GuestsCommand::Status => status::run(context),
        GuestsCommand::Forget(args) => forget::run(context, args),
    }
}
