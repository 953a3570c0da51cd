//! `lifeboat disarm`

use anyhow::Context as _;
use rescue_image::stick::Stick;
use rescue_image::token;

use crate::Context;
use crate::cli::DisarmArgs;
use crate::output::Outcome;

/// Removes the token. A stick that is not armed is fine.
pub fn run(context: &Context, args: &DisarmArgs) -> anyhow::Result<Outcome> {
    let stick = Stick::open(&args.on)?;
    let was =
        token::consume(&stick).with_context(|| format!("cannot disarm {}", args.on.display()))?;
    context.out.summary(
        &serde_json::json!({ "was_armed": was.is_some() }),
        || match was {
            Some(_) => format!("{} is no longer armed", args.on.display()),
            None => format!("{} was not armed", args.on.display()),
        },
    )?;
    Ok(Outcome::Fine)
}
