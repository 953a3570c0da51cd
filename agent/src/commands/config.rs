//! `lifeboat config`

use crate::Context;
use crate::cli::{ConfigArgs, ConfigCommand};
use crate::output::{Outcome, table};
use crate::{config, exclusions};

/// Shows configuration, example, exclusions.
pub fn run(context: &Context, args: &ConfigArgs) -> anyhow::Result<Outcome> {
    match args.what {
        ConfigCommand::Example => context.out.write(&config::example()?)?,
        ConfigCommand::Show => {
            let text = toml::to_string(&context.config)?;
            context.out.result(&context.config, || text)?;
        }
        ConfigCommand::Exclusions => {
            let rules: Vec<exclusions::Rule> = exclusions::DEFAULTS
                .iter()
                .chain(exclusions::SWAP_NAMES)
                .copied()
                .collect();
            context.out.result(&rules, || {
                let rows: Vec<_> = rules
                    .iter()
                    .map(|r| vec![r.pattern.to_owned(), r.why.to_owned()])
                    .collect();
                table(&["pattern", "why"], &rows)
            })?;
        }
    }
    Ok(Outcome::Fine)
}
