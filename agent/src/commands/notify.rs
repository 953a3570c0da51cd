//! `lifeboat notify`

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{NotifyArgs, NotifyCommand};
use crate::notify::{Event, Message, channels};
use crate::output::Outcome;
use crate::{Context, facts};

#[derive(Serialize)]
struct Sent {
    /// `mail to root`
    to: String,
    /// The mail system or the service has taken it.
    ok: bool,
    /// Why not.
    error: Option<String>,
    /// What else to know.
    note: Option<String>,
}

/// Messages.
pub fn run(context: &Context, args: &NotifyArgs) -> anyhow::Result<Outcome> {
    match args.what {
        NotifyCommand::Test => test(context),
    }
}

fn test(context: &Context) -> anyhow::Result<Outcome> {
    let host = facts::identity(&context.sys).hostname;
    let message = Message::new(
        Event::Test,
        &host,
        Timestamp::now(),
        "this is a test",
        "Somebody has run `lifeboat notify test`. Messages about backups come the same way.\n",
    );
    let sent: Vec<Sent> = channels(&context.config, &context.sys)
        .iter()
        .map(|channel| {
            let result = channel.send(&context.config, &context.sys, &message, false);
            Sent {
                to: channel.label.clone(),
                ok: result.is_ok(),
                error: result.err(),
                note: channel.note(),
            }
        })
        .collect();
    context.out.result(&sent, || text(&sent))?;
    Ok(match !sent.is_empty() && sent.iter().all(|s| s.ok) {
        true => Outcome::Fine,
        false => Outcome::Failed,
    })
}

fn text(sent: &[Sent]) -> String {
    if sent.is_empty() {
        return "Nobody is told: there is no sendmail on this host (or notify.mail-to is empty), and notify.webhooks is empty.\n"
            .into();
    }
    let mut out = String::new();
    for one in sent {
        match &one.error {
            None if one.to.starts_with("mail ") => out.push_str(&format!(
                "{}: the mail system has taken it; look whether it arrives\n",
                one.to
            )),
            None => out.push_str(&format!("{}: sent\n", one.to)),
            Some(error) => out.push_str(&format!("FAILED: {error}\n")),
        }
        if let Some(note) = &one.note {
            out.push_str(&format!("  note: {note}\n"));
        }
    }
    out
}
