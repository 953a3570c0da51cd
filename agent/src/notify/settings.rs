//! Settings of the table `[notify]`.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Event;
use crate::values::Percent;

/// Who is told of what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// Address; empty: no mail.
    pub mail_to: String,
    /// Sender; empty: the one that the mail system gives.
    pub mail_from: String,
    /// The program that takes mail.
    pub sendmail: PathBuf,
    /// What is told.
    pub when: When,
    /// The share of a target that should be free.
    pub low_space: LowSpace,
    /// Other services that are told.
    pub webhooks: Vec<Webhook>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mail_to: "root".into(),
            mail_from: String::new(),
            sendmail: "/usr/sbin/sendmail".into(),
            when: When::default(),
            low_space: LowSpace(Some(20)),
            webhooks: Vec::new(),
        }
    }
}

/// Setting and explanation, for the example configuration.
pub const SETTINGS: &[(&str, &str)] = &[
    (
        "mail-to",
        "Who gets a mail, through the system's sendmail; on Proxmox VE, mail to root goes to its notification targets.\n\
         Empty: nobody. Where no sendmail is installed, the default sends none. `lifeboat notify test` tries it.",
    ),
    (
        "mail-from",
        "The sender of these mails; empty: as the mail system has it.",
    ),
    (
        "sendmail",
        "The program that takes them: called with -t -oi.",
    ),
    (
        "when",
        "What is told: failure and warning (of a run; the same again after a day), overdue (a newest good restore point is\n\
         older than [objectives] allow), recovery, low-space; or \"always\": all of these, and each run that ends well.",
    ),
    (
        "low-space",
        "How much of a target should be free; below, `lifeboat status` warns. \"off\": it is not looked at.",
    ),
    (
        "webhooks",
        "Services that are told besides, a list: kind (slack, ntfy, gotify, or json: a POST of a JSON document), url or\n\
         url-file, and token or token-file where the service wants one. Secrets are best kept in files for root only;\n\
         those in this file are used only as long as nobody else may read it (chmod 600).\n\
         [{ kind = \"ntfy\", url = \"https://ntfy.sh/my-topic\", token-file = \"/etc/lifeboat/ntfy.token\" }]",
    ),
];

/// What is told.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// All of it, each run that ends well, too.
    Always,
    /// These.
    Of(Vec<Event>),
}

impl Default for When {
    fn default() -> When {
        When::Of(vec![
            Event::Failure,
            Event::Warning,
            Event::Overdue,
            Event::Recovery,
            Event::LowSpace,
        ])
    }
}

impl When {
    /// Whether an event is told.
    pub fn tells(&self, event: Event) -> bool {
        match self {
            When::Always => true,
            When::Of(events) => events.contains(&event),
        }
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            When::Always => s.serialize_str("always"),
            When::Of(events) => events.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Word(String),
            List(Vec<String>),
        }
        let wrong = || {
            let words = "failure, warning, overdue, recovery, low-space";
            serde::de::Error::custom(format!("write \"always\", or a list of: {words}"))
        };
        match Written::deserialize(d).map_err(|_| wrong())? {
            Written::Word(word) if word == "always" => Ok(When::Always),
            Written::Word(_) => Err(wrong()),
            Written::List(list) => {
                let known = |word: &String| Event::CHOICE.iter().find(|e| e.word() == word);
                let events: Option<Vec<Event>> = list.iter().map(|w| known(w).copied()).collect();
                events.map(When::Of).ok_or_else(wrong)
            }
        }
    }
}

/// The share of a target that should be free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowSpace(Option<u32>);

impl FromStr for LowSpace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<Percent>()) {
            ("off", _) => Ok(LowSpace(None)),
            (_, Ok(Percent(n))) => Ok(LowSpace(Some(n))),
            (_, Err(e)) => Err(format!("{e}, or off")),
        }
    }
}

impl fmt::Display for LowSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(n) => write!(f, "{n}%"),
            None => f.write_str("off"),
        }
    }
}

crate::values::as_text!(LowSpace);

/// What nobody is to see: it is not shown with the configuration, nor in any error.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.is_empty() {
            true => "none",
            false => "hidden",
        })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("({self:?})"))
    }
}

impl Secret {
    fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// A service that is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Webhook {
    /// How it is talked to.
    pub kind: WebhookKind,
    /// Its address.
    #[serde(default, skip_serializing_if = "Secret::is_none")]
    pub url: Secret,
    /// A file with its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// What it lets in with.
    #[serde(default, skip_serializing_if = "Secret::is_none")]
    pub token: Secret,
    /// A file with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// How a service is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookKind {
    /// An incoming webhook of Slack, and of what takes the same (Mattermost, Rocket.Chat).
    Slack,
    /// A topic of ntfy.
    Ntfy,
    /// A server of Gotify.
    Gotify,
    /// Anything that takes a JSON document.
    Json,
}

impl WebhookKind {
    /// As in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            WebhookKind::Slack => "slack",
            WebhookKind::Ntfy => "ntfy",
            WebhookKind::Gotify => "gotify",
            WebhookKind::Json => "json",
        }
    }
}

/// A service with its secrets.
pub struct Service {
    /// How it is talked to.
    pub kind: WebhookKind,
    /// Where.
    pub url: String,
    /// What it lets in with.
    pub token: Option<String>,
}

impl Settings {
    /// The share of a target that should be free.
    pub fn low_space(&self) -> Option<Percent> {
        self.low_space.0.map(Percent)
    }

    /// What is wrong with them.
    pub fn check(&self) -> Result<(), String> {
        for (name, address) in [("mail-to", &self.mail_to), ("mail-from", &self.mail_from)] {
            if address.chars().any(char::is_control) {
                return Err(format!("notify.{name}: an address is on one line"));
            }
        }
        if !self.sendmail.is_absolute() {
            return Err("notify.sendmail: give the whole path of the program".into());
        }
        for (number, hook) in self.webhooks.iter().enumerate() {
            hook.check()
                .map_err(|e| format!("notify.webhooks: number {}: {e}", number + 1))?;
        }
        Ok(())
    }
}

impl Webhook {
    fn check(&self) -> Result<(), String> {
        let token = !self.token.is_none() || self.token_file.is_some();
        if self.url.is_none() == self.url_file.is_none() {
            return Err("give url, or url-file".into());
        }
        if !self.token.is_none() && self.token_file.is_some() {
            return Err("give token, or token-file".into());
        }
        match self.kind {
            WebhookKind::Gotify if !token => {
                return Err("gotify wants a token, or a token-file".into());
            }
            WebhookKind::Slack if token => {
                return Err("slack takes no token: its secret is in the url".into());
            }
            _ => {}
        }
        if !self.url.is_none() {
            check_url(&self.url.0)?;
        }
        let files = [&self.url_file, &self.token_file];
        match files.into_iter().flatten().any(|file| !file.is_absolute()) {
            true => Err("give the whole path of a file".into()),
            false => Ok(()),
        }
    }

    /// Whether there are secrets in the configuration itself.
    fn has_secrets(&self) -> bool {
        let in_url = self.url.0.contains(['?', '@']) || self.kind == WebhookKind::Slack;
        !self.token.is_none() || !self.url.is_none() && in_url
    }

    /// With what its files say. `exposed`: others may read the configuration.
    pub fn service(&self, exposed: bool) -> Result<Service, String> {
        if exposed && self.has_secrets() {
            return Err(
                "its secret is in a configuration that others may read: keep it in a file for root only (url-file, \
                 token-file), or `chmod 600` the configuration; then take a new secret"
                    .into(),
            );
        }
        let url = match &self.url_file {
            Some(file) => secret(file)?,
            None => self.url.0.clone(),
        };
        check_url(&url)?;
        let token = match &self.token_file {
            Some(file) => Some(secret(file)?),
            None => Some(self.token.0.clone()).filter(|token| !token.is_empty()),
        };
        Ok(Service {
            kind: self.kind,
            url,
            token,
        })
    }
}

/// Errors leave the address out.
fn check_url(url: &str) -> Result<(), String> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let bad = |c: char| c.is_control() || c.is_whitespace();
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && !url.contains(bad) => Ok(()),
        _ => Err("its url is none: it begins with https:// (or http://)".into()),
    }
}

/// The first line of a file that nobody else may read.
fn secret(file: &Path) -> Result<String, String> {
    let name = file.display();
    let wrong = |e: std::io::Error| format!("cannot read {name}: {e}");
    let open = fs::File::open(file).map_err(wrong)?;
    let meta = open.metadata().map_err(wrong)?;
    let own = nix::unistd::geteuid().as_raw();
    if meta.mode() & 0o077 != 0 || (meta.uid() != 0 && meta.uid() != own) {
        return Err(format!(
            "{name} is not used, as others may read or change it: `chown root {name}; chmod 600 {name}`"
        ));
    }
    let mut text = String::new();
    open.take(10_000).read_to_string(&mut text).map_err(wrong)?;
    let line = text.lines().next().unwrap_or_default().trim();
    match line.is_empty() || line.contains(char::is_control) {
        true => Err(format!("{name} has no secret on its first line")),
        false => Ok(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn parse(text: &str) -> Result<Settings, String> {
        let settings: Settings = toml::from_str(text).map_err(|e| e.to_string())?;
        settings.check().map(|()| settings)
    }

    #[test]
    fn defaults_and_choices() {
        assert_eq!(parse("").unwrap(), Settings::default());
        assert_eq!(parse("when = 'always'").unwrap().when, When::Always);
        let some = parse("when = ['failure', 'low-space']").unwrap().when;
        assert!(some.tells(Event::LowSpace) && !some.tells(Event::Recovery));
        assert!(!some.tells(Event::Fine) && When::Always.tells(Event::Fine));
        assert!(parse("when = ['bad']").unwrap_err().contains("low-space"));
        assert!(parse("when = 'never'").is_err());
        assert_eq!(parse("low-space = 'off'").unwrap().low_space(), None);
        assert!(parse("low-space = '0%'").is_err());
        assert!(parse("mail-to = \"a@b\\nBcc: c@d\"").is_err());
        assert!(parse("sendmail = 'sendmail'").is_err());
        for settings in [
            Settings::default(),
            parse("when = 'always'\nlow-space = 'off'").unwrap(),
        ] {
            let text = toml::to_string(&settings).unwrap();
            assert_eq!(parse(&text).unwrap(), settings);
        }
    }

    #[test]
    fn webhooks_are_complete() {
        let hook = |text: &str| parse(&format!("webhooks = [{{ {text} }}]"));
        hook("kind = 'slack', url = 'https://hooks.example/x'").unwrap();
        hook("kind = 'gotify', url = 'https://g.example', token = 'x'").unwrap();
        hook("kind = 'json', url-file = '/etc/x'").unwrap();
        for wrong in [
            "kind = 'slack'",
            "kind = 'slack', url = 'ftp://x'",
            "kind = 'slack', url = 'https://x', token = 'y'",
            "kind = 'slack', url = 'https://x', url-file = '/y'",
            "kind = 'gotify', url = 'https://x'",
            "kind = 'ntfy', url = 'https://x', token-file = 'y'",
            "kind = 'ntfy', url = 'https:// x'",
            "kind = 'pager', url = 'https://x'",
        ] {
            assert!(hook(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings = parse(
            "webhooks = [{ kind = 'gotify', url = 'https://g.example/s3cret', token = 't0ken' }]",
        )
        .unwrap();
        let shown = [
            format!("{settings:?}"),
            toml::to_string(&settings).unwrap(),
            serde_json::to_string(&settings).unwrap(),
        ];
        for text in shown {
            assert!(
                !text.contains("s3cret") && !text.contains("t0ken"),
                "{text}"
            );
            assert!(text.contains("hidden"), "{text}");
        }
        // Nor in what the parser says of it.
        let error = parse("webhooks = [{ kind = 'slack', url = 'ftp://s3cret' }]").unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn secrets_that_others_may_read_are_refused() {
        let slack = parse("webhooks = [{ kind = 'slack', url = 'https://hooks.example/x' }]");
        let hook = &slack.unwrap().webhooks[0];
        assert!(hook.service(true).is_err());
        assert!(hook.service(false).is_ok());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "t0ken\n").unwrap();
        let text = format!(
            "webhooks = [{{ kind = 'ntfy', url = 'https://ntfy.example/t', token-file = {file:?} }}]"
        );
        let hook = &parse(&text).unwrap().webhooks[0];
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let error = hook.service(true).err().unwrap();
        assert!(error.contains("chmod 600"), "{error}");
        mode(0o600);
        let service = hook.service(true).ok().unwrap();
        assert_eq!(service.token.as_deref(), Some("t0ken"));
        fs::write(&file, "").unwrap();
        assert!(hook.service(true).is_err());
    }
}
