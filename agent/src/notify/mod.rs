//! Messages to people: by mail and through webhooks. A message that cannot be sent waits in the outbox, and goes with the
//! next run or the daily check.

mod events;
mod mail;
mod message;
mod outbox;
mod settings;
mod webhook;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
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
///
/// Nothing of it hangs on the state: from a host whose disk is full, or was remounted read-only, there is most to tell. It
/// is told again then, as nothing remembers that it was.
pub fn due(context: &Context, status: &Status) -> Vec<String> {
    due_by(&context.config, &context.sys, status)
}

fn due_by(config: &Config, sys: &dyn System, status: &Status) -> Vec<String> {
    let mut troubles: Vec<String> = Vec::new();
    let _lock = lock(&config.state)
        .map_err(|error| troubles.push(format!("{error:#}")))
        .ok();
    let known = read(&config.state).unwrap_or_else(|error| {
        troubles.push(format!("{error:#}"));
        Notified::default()
    });
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
            let entry = outbox.entry(&message.without(&secrets), &ids, number);
            if let Err(error) = outbox.keep(&entry) {
                troubles.push(format!("cannot keep a message in the outbox: {error}"));
            }
            entries.push((entry, true));
        }
    }
    if let Err(error) = write(&config.state, &next) {
        troubles.push(format!("{error:#}"));
    }
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
        if let Err(error) = outbox.keep(entry) {
            troubles.push(format!("cannot keep a message in the outbox: {error}"));
        }
    }
    let unsent = problems.first().cloned();
    if next.unsent != unsent {
        next.unsent = unsent;
        if let Err(error) = write(&config.state, &next) {
            troubles.push(format!("{error:#}"));
        }
    }
    problems.extend(troubles);
    problems
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
        // Whoever can read it can hold it, and have every run wait at its end.
        .mode(0o600)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use layout::system::Host;

    use super::*;
    use crate::evaluation::tests::{failed, good, run};
    use crate::history::{Kind, RunResult};
    use crate::status::tests::status;

    /// A disk that is full or read-only is what there is to tell of.
    #[test]
    fn messages_are_sent_where_nothing_can_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("sendmail");
        let mail = dir.path().join("mail");
        std::fs::write(&program, format!("#!/bin/sh\ncat >>{}\n", mail.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let mut config = Config {
            // No directory can be made there, by root neither.
            state: dir.path().join("file/state"),
            ..Config::default()
        };
        config.notify.sendmail = program;
        let runs = [
            run(0, Kind::Backup, RunResult::Fine, vec![good("a")]),
            run(2, Kind::Backup, RunResult::Failed, vec![failed("a")]),
        ];
        let problems = due_by(&config, &Host, &status(&runs, 3));
        assert!(
            problems.iter().any(|p| p.contains("outbox")),
            "{problems:?}"
        );
        let mail = std::fs::read_to_string(mail).unwrap();
        assert!(mail.contains("backup failed"), "{mail}");
    }
}
