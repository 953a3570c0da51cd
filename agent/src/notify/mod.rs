//! Messages to people: by mail and through webhooks. A message that cannot be sent waits in the outbox, and goes with the
//! next run or the daily check.

mod events;
mod mail;
mod message;
mod outbox;
mod settings;
mod webhook;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use layout::system::System;
use nix::fcntl::{Flock, FlockArg};

use crate::config::Config;
use crate::status::Status;
use crate::{Context, state};

pub use events::Notified;
pub use message::{Event, Message};
pub use settings::{SETTINGS, Settings};

/// A way to tell somebody.
pub struct Channel {
    /// What it is called in the outbox: has no secrets, and stays as long as the configuration does.
    id: String,
    /// For people: `mail to root`, `ntfy at ntfy.example`.
    pub label: String,
    to: To,
}

enum To {
    Mail,
    Service(settings::Service),
    /// Its settings or its secrets cannot be used.
    Nowhere(String),
}

/// All that is configured.
pub fn channels(config: &Config, sys: &dyn System) -> Vec<Channel> {
    let settings = &config.notify;
    let mut channels = Vec::new();
    // The default must not be a complaint on a host without mail.
    let usual = Settings::default();
    let default = (&settings.mail_to, &settings.sendmail) == (&usual.mail_to, &usual.sendmail);
    let mail = !settings.mail_to.is_empty() && (!default || sys.exists(&settings.sendmail));
    if mail {
        channels.push(Channel {
            id: "mail".into(),
            label: format!("mail to {}", settings.mail_to),
            to: To::Mail,
        });
    }
    for (number, hook) in settings.webhooks.iter().enumerate() {
        let id = format!("{} {}", hook.kind.word(), number + 1);
        let (label, to) = match hook.service(config.exposed) {
            Ok(service) => {
                let label = format!("{} at {}", hook.kind.word(), webhook::host(&service.url));
                (label, To::Service(service))
            }
            Err(reason) => (format!("webhook {id}"), To::Nowhere(reason)),
        };
        channels.push(Channel { id, label, to });
    }
    channels
}

impl Channel {
    /// Sends a message; `again`: with more than one attempt.
    pub fn send(
        &self,
        config: &Config,
        sys: &dyn System,
        message: &Message,
        again: bool,
    ) -> Result<(), String> {
        let sent = match &self.to {
            To::Mail => mail::send(sys, &config.notify, message),
            To::Service(service) => webhook::send(service, message, again),
            To::Nowhere(reason) => Err(reason.clone()),
        };
        sent.map_err(|reason| format!("{}: {}", self.label, self.hide(&reason)))
    }

    /// What else to know of it.
    pub fn note(&self) -> Option<String> {
        match &self.to {
            To::Service(service) if webhook::in_the_clear(service) => Some(format!(
                "{}: its secret goes over the network in the clear: use https://",
                self.label
            )),
            _ => None,
        }
    }

    fn secrets(&self) -> Vec<String> {
        match &self.to {
            To::Service(service) => {
                let token = service.token.iter().cloned();
                token.chain([service.url.clone()]).collect()
            }
            _ => Vec::new(),
        }
    }

    fn hide(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret.as_str(), "(hidden)");
        self.secrets().iter().fold(text.to_owned(), hide)
    }
}

/// Sends what is worth a message now, and what waits. What goes wrong is returned in words.
pub fn due(context: &Context, status: &Status) -> Vec<String> {
    due_by(&context.config, &context.sys, status).unwrap_or_else(|error| vec![format!("{error:#}")])
}

fn due_by(config: &Config, sys: &dyn System, status: &Status) -> anyhow::Result<Vec<String>> {
    let _lock = lock(&config.state)?;
    let known = read(&config.state)?;
    let (messages, mut next) = events::decide(&known, status, &config.notify.when);
    let channels = channels(config, sys);
    let outbox = outbox::Outbox::new(&config.state);
    let waiting = outbox.entries(status.evaluation.at);
    let secrets: Vec<String> = channels.iter().flat_map(Channel::secrets).collect();
    let ids: Vec<String> = channels.iter().map(|c| c.id.clone()).collect();
    let mut entries: Vec<(outbox::Entry, bool)> = waiting.into_iter().map(|e| (e, false)).collect();
    // First to where it is safe: whoever stops this process must not stop the message.
    if !ids.is_empty() {
        for (number, message) in messages.into_iter().enumerate() {
            let entry = outbox
                .add(&message.without(&secrets), &ids, number)
                .context("cannot keep a message in the outbox")?;
            entries.push((entry, true));
        }
    }
    write(&config.state, &next)?;
    let mut problems: Vec<String> = Vec::new();
    let mut failed: Vec<String> = Vec::new();
    for (entry, new) in &mut entries {
        let message = entry.message.clone();
        entry.to.retain(|id| {
            // One that is not configured any more.
            let Some(channel) = channels.iter().find(|c| c.id == *id) else {
                return false;
            };
            // One that does not answer is not waited for again.
            if failed.contains(id) {
                return true;
            }
            match channel.send(config, sys, &message, *new) {
                Ok(()) => false,
                Err(reason) => {
                    failed.push(id.clone());
                    problems.push(format!("a message could not be sent: {reason}"));
                    true
                }
            }
        });
        outbox
            .keep(entry)
            .context("cannot keep a message in the outbox")?;
    }
    let unsent = problems.first().cloned();
    if next.unsent != unsent {
        next.unsent = unsent;
        write(&config.state, &next)?;
    }
    Ok(problems)
}

/// Why the last messages could not be sent, where they could not.
pub fn unsent(state: &Path) -> Option<String> {
    let reason = read(state).ok()?.unsent?;
    let prefix = "a message could not be sent: ";
    Some(reason.strip_prefix(prefix).unwrap_or(&reason).to_owned())
}

fn file(state: &Path) -> PathBuf {
    state.join("notified.json")
}

/// Two runs that end at once tell things once.
fn lock(state: &Path) -> anyhow::Result<Flock<File>> {
    let path = state.join("notified.lock");
    let wrong = || format!("cannot take the lock {}", path.display());
    std::fs::create_dir_all(state).with_context(wrong)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(wrong)?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(wrong)
}

/// What was told. A damaged file is as good as none: things are told once more.
fn read(state: &Path) -> anyhow::Result<Notified> {
    match std::fs::read(file(state)) {
        Ok(json) => Ok(serde_json::from_slice(&json).unwrap_or_default()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Notified::default()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", file(state).display())),
    }
}

fn write(state: &Path, notified: &Notified) -> anyhow::Result<()> {
    let path = file(state);
    let wrong = || format!("cannot write {}", path.display());
    let json = serde_json::to_vec_pretty(notified).with_context(wrong)?;
    state::write(state, &path, &json).with_context(wrong)
}
