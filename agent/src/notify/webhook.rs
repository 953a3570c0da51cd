//! Services that are told over HTTP.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::json;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Error};

use super::settings::{Service, WebhookKind};
use super::{Event, Message};

/// How long a service may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Pauses between attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    // The certificates that the system trusts.
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(PATIENCE))
        // Another place is not to get what is meant for this one.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
});

/// Why a message did not arrive.
struct Failure {
    reason: String,
    /// It may do so a moment later.
    passing: bool,
}

/// Tells a service; `again`: with another attempt or two, where it may help.
pub fn send(service: &Service, message: &Message, again: bool) -> Result<(), String> {
    let request = Request::new(service, message);
    let mut pauses = PAUSES.iter().filter(|_| again);
    loop {
        let failure = match request.post() {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        match pauses.next() {
            Some(pause) if failure.passing => std::thread::sleep(*pause),
            _ => return Err(failure.reason),
        }
    }
}

/// The host of an address, without the secrets around it.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// Whether a secret goes over the network as it is.
pub fn in_the_clear(service: &Service) -> bool {
    let secret = service.token.is_some() || service.kind == WebhookKind::Slack;
    let name = host(&service.url);
    let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
    let here = ["localhost", "127.0.0.1", "[::1]"].contains(&name);
    secret && !here && service.url.starts_with("http://")
}

struct Request {
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Request {
    fn new(service: &Service, message: &Message) -> Request {
        let mut headers = Vec::new();
        let mut url = service.url.clone();
        let json_type = ("Content-Type", "application/json".to_owned());
        let priority = |levels: [u8; 3]| match message.event {
            Event::Failure | Event::Overdue => levels[2],
            Event::Warning | Event::LowSpace => levels[1],
            Event::Recovery | Event::Fine | Event::Test => levels[0],
        };
        if let (Some(token), WebhookKind::Ntfy | WebhookKind::Json) = (&service.token, service.kind)
        {
            headers.push(("Authorization", format!("Bearer {token}")));
        }
        let body = match service.kind {
            WebhookKind::Slack => {
                headers.push(json_type);
                let text = format!("*{}*\n{}", slack(&message.title), slack(&message.text));
                json!({ "text": text }).to_string()
            }
            WebhookKind::Ntfy => {
                headers.push(("Title", ascii(&message.title)));
                headers.push(("Priority", priority([2, 3, 4]).to_string()));
                let tag = match message.event {
                    Event::Failure | Event::Overdue => "rotating_light",
                    Event::Warning | Event::LowSpace => "warning",
                    Event::Recovery | Event::Fine | Event::Test => "white_check_mark",
                };
                headers.push(("Tags", tag.to_owned()));
                headers.push(("Content-Type", "text/plain; charset=utf-8".into()));
                // ntfy makes an attachment of what is longer than 4096 bytes.
                let mut end = message.text.len().min(4000);
                while !message.text.is_char_boundary(end) {
                    end -= 1;
                }
                message.text[..end].to_owned()
            }
            WebhookKind::Gotify => {
                url = format!("{}/message", url.trim_end_matches('/'));
                if let Some(token) = &service.token {
                    headers.push(("X-Gotify-Key", token.clone()));
                }
                headers.push(json_type);
                let value = json!({
                    "title": message.title,
                    "message": message.text,
                    "priority": priority([2, 5, 8]),
                });
                value.to_string()
            }
            WebhookKind::Json => {
                headers.push(json_type);
                json!(message).to_string()
            }
        };
        Request {
            url,
            headers,
            body: body.into_bytes(),
        }
    }

    fn post(&self) -> Result<(), Failure> {
        let mut request = AGENT.post(&self.url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        match request.send(&self.body[..]) {
            Ok(response) => judge(response.status().as_u16()),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn judge(status: u16) -> Result<(), Failure> {
    let what = match status {
        200..=299 => return Ok(()),
        300..=399 => "it is elsewhere now, and the address has to be changed",
        401 | 403 => "the token or the address is not (or no longer) valid",
        404 | 410 => "there is nothing at this address (any more)",
        429 => "it gets too many messages",
        500.. => "the service has a problem",
        _ => "it does not take the message",
    };
    Err(Failure {
        reason: format!("HTTP status {status}: {what}"),
        passing: status == 429 || status >= 500,
    })
}

/// In words that have nothing of the address in them.
fn failure(error: &Error) -> Failure {
    let mut passing = true;
    let reason = match error {
        Error::Timeout(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        Error::HostNotFound => "the name of its host is not known".to_owned(),
        Error::Io(e) => {
            let text = e.to_string();
            match text.contains("ertificate") {
                true => {
                    passing = false;
                    format!("{CERTIFICATE} ({text})")
                }
                false => text,
            }
        }
        Error::Rustls(e) => {
            passing = false;
            format!("{CERTIFICATE} ({e})")
        }
        Error::Tls(text) => format!("TLS: {text}"),
        Error::ConnectionFailed => "no connection".into(),
        Error::ConnectProxyFailed(_) => "the proxy makes no connection".into(),
        Error::Protocol(_) => "what answers is no HTTP server".into(),
        _ => {
            passing = false;
            "the address cannot be used".into()
        }
    };
    Failure { reason, passing }
}

const CERTIFICATE: &str = "its certificate is not trusted, nothing was sent: where it is signed by an authority of your own, put \
                           that into /usr/local/share/ca-certificates and run update-ca-certificates";

/// Slack's mark-up.
fn slack(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A header has ASCII only.
fn ascii(text: &str) -> String {
    let safe = |c: char| match c.is_ascii_graphic() || c == ' ' {
        true => c,
        false => '?',
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn service(kind: WebhookKind, token: Option<&str>) -> Service {
        Service {
            kind,
            url: "https://user:pw@host.example:8443/s3cret?x=1".into(),
            token: token.map(str::to_owned),
        }
    }

    fn message() -> Message {
        Message::new(
            Event::Failure,
            "pve1",
            Timestamp::UNIX_EPOCH,
            "backup failed: <ä & b>",
            "text",
        )
    }

    #[test]
    fn the_host_of_an_address() {
        assert_eq!(
            host(&service(WebhookKind::Json, None).url),
            "host.example:8443"
        );
        assert_eq!(host("https://a?b"), "a");
        assert_eq!(host(""), "");
    }

    #[test]
    fn each_service_gets_what_it_takes() {
        let slack = Request::new(&service(WebhookKind::Slack, None), &message());
        let text = String::from_utf8(slack.body).unwrap();
        assert!(text.contains("&lt;ä &amp; b&gt;"), "{text}");

        let ntfy = Request::new(&service(WebhookKind::Ntfy, Some("t")), &message());
        assert_eq!(ntfy.body, b"text");
        let header = |name| {
            ntfy.headers
                .iter()
                .find(|h| h.0 == name)
                .map(|h| h.1.as_str())
        };
        assert_eq!(header("Title"), Some("pve1: backup failed: <? & b>"));
        assert_eq!(header("Priority"), Some("4"));
        assert_eq!(header("Authorization"), Some("Bearer t"));

        let mut to = service(WebhookKind::Gotify, Some("t"));
        to.url = "https://g.example/".into();
        let gotify = Request::new(&to, &message());
        assert_eq!(gotify.url, "https://g.example/message");
        assert!(gotify.headers.contains(&("X-Gotify-Key", "t".into())));
        assert!(!String::from_utf8(gotify.body).unwrap().contains("\"t\""));

        let json = Request::new(&service(WebhookKind::Json, None), &message());
        let value: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(value["event"], "failure");
        assert_eq!(value["host"], "pve1");
    }

    #[test]
    fn errors_have_nothing_of_the_address() {
        for error in [
            Error::BadUri("https://s3cret".into()),
            Error::RequireHttpsOnly("https://s3cret".into()),
            Error::ConnectProxyFailed("s3cret".into()),
            Error::Other("s3cret".into()),
        ] {
            assert!(!failure(&error).reason.contains("s3cret"));
        }
        assert!(failure(&Error::HostNotFound).passing);
        assert!(judge(204).is_ok());
        assert!(judge(302).is_err_and(|f| !f.passing));
        assert!(judge(503).is_err_and(|f| f.passing));
    }

    #[test]
    fn secrets_in_the_clear_are_noticed() {
        let mut to = service(WebhookKind::Gotify, Some("t"));
        assert!(!in_the_clear(&to));
        to.url = "http://g.example:80/".into();
        assert!(in_the_clear(&to));
        to.url = "http://127.0.0.1:80/".into();
        assert!(!in_the_clear(&to));
        to.url = "http://ntfy.example/".into();
        to.token = None;
        assert!(!in_the_clear(&to));
    }
}
