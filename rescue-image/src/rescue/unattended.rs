//! A restore that was armed beforehand with `lifeboat arm`.
//!
//! It runs only when the kernel command line repeats the token that is on the boot partition of the stick. The token
//! is used up right before the first write, so that a stick left first in the boot order does not erase the machine
//! again; anything that refuses before leaves it in place.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use layout::model::NodeId;
use layout::plan::DiskChoice;

use super::cluster::Start;
use super::cmdline::CommandLine;
use super::events::{Announce, Line};
use super::init::shutdown::Ending;
use super::network::Choice;
use super::restore::{self, Outcome, Parts, Request, Stop, ui};
use crate::token::{Armed, Then};

/// Where the token is kept.
pub trait Tokens {
    /// The token on the booted stick, if it is armed.
    fn read(&self) -> Result<Option<Armed>>;
    /// Removes it, and makes sure that it is gone.
    fn consume(&self) -> Result<()>;
}

/// Whether the machine may be restored without asking.
#[derive(Debug, PartialEq, Eq)]
pub enum Permission {
    /// Nobody asked for it.
    NotAsked,
    /// It was asked for and is not allowed, with the reason.
    Denied(String),
    /// It is allowed.
    Granted(Box<Armed>),
}

/// Compares the kernel command line with the token on the stick. `now` is RFC 3339 in UTC with whole seconds.
pub fn permission(line: &CommandLine, tokens: &dyn Tokens, now: &str) -> Permission {
    let Some(asked) = &line.unattended else {
        return Permission::NotAsked;
    };
    let armed = match tokens.read() {
        Ok(Some(armed)) => armed,
        Ok(None) => {
            return Permission::Denied(
                "the stick is not armed, or its token is used up".to_owned(),
            );
        }
        Err(error) => {
            return Permission::Denied(format!("the token on the stick cannot be read: {error:#}"));
        }
    };
    // An empty token would match an empty word; nobody arms that on purpose.
    if armed.token.is_empty() || armed.token != *asked {
        return Permission::Denied(
            "the token on the stick is not the one on the kernel command line".to_owned(),
        );
    }
    // Both in the same form, so that they compare as text.
    if let Some(expires) = armed.expires.as_deref().filter(|expires| *expires < now) {
        return Permission::Denied(format!("the token expired at {expires}"));
    }
    Permission::Granted(Box::new(armed))
}

/// The request that a token stands for.
pub fn request(armed: &Armed) -> Request {
    let mut request = Request::new(armed.snapshot.clone());
    request.choices.disks = choices(&armed.disks);
    request.choices.mode = armed.mode;
    request.choices.grow = armed.grow;
    request.choices.leave_out.clone_from(&armed.leave_out);
    request.choices.blank_only = true;
    let nics = armed.nics.iter();
    request.nics = nics
        .map(|(saved, card)| (saved.clone(), Choice::parse(card)))
        .collect();
    if armed.cluster_member {
        request.start = Start::Member;
    }
    request
}

/// Saved disk to present one, as [`DiskChoice::parse`] reads it: a device, a serial number, or what is done instead.
pub fn choices(disks: &BTreeMap<String, String>) -> BTreeMap<NodeId, DiskChoice> {
    disks
        .iter()
        .map(|(saved, present)| (NodeId::new(saved.as_str()), DiskChoice::parse(present)))
        .collect()
}

/// What the machine does after an unattended restore, also after a refusal.
pub fn ending(armed: &Armed) -> Ending {
    match armed.then {
        Then::Reboot => Ending::Reboot,
        Then::PowerOff => Ending::PowerOff,
    }
}

/// Restores. Every refusal comes before the token is used up, and that before the first write.
pub fn run(
    parts: &dyn Parts,
    armed: &Armed,
    request: &Request,
    tokens: &dyn Tokens,
    to: &dyn Announce,
) -> Result<Outcome, Stop> {
    let then = match armed.then {
        Then::Reboot => "reboot",
        Then::PowerOff => "power-off",
    };
    to.line(
        &Line::new("unattended")
            .with("snapshot", &armed.snapshot)
            .with("mode", armed.mode.word())
            .with("then", then),
    );
    let ui = ui::Lines::new(to, Duration::from_secs(10));
    let outcome = restore::prepare(parts, request).and_then(|prepared| {
        restore::check(parts, &prepared, &ui, to)?;
        restore::run(parts, &prepared, &ui, to, &mut || tokens.consume())
    });
    if let Err(stop) = &outcome {
        stop.announce(to);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use layout::plan::{Grow, LeaveOut, Mode};

    use super::*;

    struct Esp(Option<Armed>, Cell<bool>);

    impl Tokens for Esp {
        fn read(&self) -> Result<Option<Armed>> {
            Ok(self.0.clone())
        }
        fn consume(&self) -> Result<()> {
            self.1.set(true);
            Ok(())
        }
    }

    fn armed(token: &str, expires: Option<&str>) -> Armed {
        Armed {
            format: 1,
            token: token.to_owned(),
            snapshot: "latest".to_owned(),
            disks: BTreeMap::new(),
            then: Then::PowerOff,
            expires: expires.map(str::to_owned),
            grow: Grow::ThinPool,
            leave_out: [LeaveOut::Swap].into(),
            mode: Mode::SystemOnly,
            nics: BTreeMap::from([("enp3s0".to_owned(), "none".to_owned())]),
            cluster_member: true,
        }
    }

    #[test]
    fn the_token_decides_where_space_goes() {
        let request = request(&armed("f00d", None));
        assert_eq!(request.choices.mode, Mode::SystemOnly);
        assert_eq!(request.choices.grow, Grow::ThinPool);
        assert_eq!(request.choices.leave_out, [LeaveOut::Swap].into());
        assert!(request.choices.blank_only);
        assert_eq!(request.nics["enp3s0"], Choice::Nothing);
        assert_eq!(request.start, Start::Member);
    }

    fn ask(line: &str, on_stick: Option<Armed>) -> Permission {
        permission(
            &CommandLine::parse(line),
            &Esp(on_stick, Cell::new(false)),
            "2026-11-20T12:00:00Z",
        )
    }

    #[test]
    fn only_the_right_token_is_good() {
        assert_eq!(
            ask("quiet", Some(armed("f00d", None))),
            Permission::NotAsked
        );
        assert!(matches!(
            ask("lifeboat.unattended=f00d", None),
            Permission::Denied(_)
        ));
        assert!(matches!(
            ask("lifeboat.unattended=beef", Some(armed("f00d", None))),
            Permission::Denied(_)
        ));
        assert!(matches!(
            ask("lifeboat.unattended=f00d", Some(armed("", None))),
            Permission::Denied(_)
        ));
        assert_eq!(
            ask("lifeboat.unattended=f00d", Some(armed("f00d", None))),
            Permission::Granted(Box::new(armed("f00d", None)))
        );
    }

    #[test]
    fn a_token_expires() {
        let asked = "lifeboat.unattended=f00d";
        let late = ask(asked, Some(armed("f00d", Some("2026-11-20T11:59:59Z"))));
        assert!(
            matches!(&late, Permission::Denied(reason) if reason.contains("2026-11-20T11:59:59Z")),
            "{late:?}"
        );
        assert!(matches!(
            ask(asked, Some(armed("f00d", Some("2026-11-21T00:00:00Z")))),
            Permission::Granted(_)
        ));
    }

    #[test]
    fn disks_by_serial_or_device() {
        let disks = BTreeMap::from([
            ("disk:a".to_owned(), "SER-1".to_owned()),
            ("disk:b".to_owned(), "/dev/vdb".to_owned()),
            ("disk:c".to_owned(), "onto:disk:a".to_owned()),
            ("disk:e".to_owned(), "SER-2+/dev/vdc".to_owned()),
            ("disk:d".to_owned(), "missing".to_owned()),
        ]);
        let choices = choices(&disks);
        assert_eq!(
            choices[&NodeId::new("disk:a")],
            DiskChoice::Serial("SER-1".to_owned())
        );
        assert_eq!(
            choices[&NodeId::new("disk:b")],
            DiskChoice::Device("/dev/vdb".into())
        );
        assert_eq!(
            choices[&NodeId::new("disk:c")],
            DiskChoice::Onto(NodeId::new("disk:a"))
        );
        assert_eq!(choices[&NodeId::new("disk:d")], DiskChoice::Missing);
        let both = vec![
            DiskChoice::Serial("SER-2".to_owned()),
            DiskChoice::Device("/dev/vdc".into()),
        ];
        assert_eq!(choices[&NodeId::new("disk:e")], DiskChoice::Spread(both));
    }
}
