//! Who it was, as far as the machine knows.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

use crate::history;

/// Somebody who started a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The user: the one before sudo.
    pub user: String,
    /// As whom the command ran.
    pub uid: u32,
    /// As whom they logged in, whatever they became since: the kernel's `loginuid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Their terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// Where they came from over SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The process.
    pub pid: u32,
}

impl Who {
    /// Of this process.
    pub fn now() -> Who {
        let descriptors = [
            nix::unistd::ttyname(std::io::stdin().as_fd()),
            nix::unistd::ttyname(std::io::stderr().as_fd()),
        ];
        let tty = descriptors.into_iter().find_map(Result::ok);
        Who {
            user: history::user(),
            uid: nix::unistd::getuid().as_raw(),
            login: login(),
            tty: tty.map(|tty| tty.display().to_string()),
            from: ssh(std::process::id()),
            pid: std::process::id(),
        }
    }
}

fn login() -> Option<String> {
    let text = fs::read_to_string("/proc/self/loginuid").ok()?;
    let uid: u32 = text.trim().parse().ok()?;
    // Services have none.
    if uid == u32::MAX {
        return None;
    }
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    Some(user.map_or_else(|| uid.to_string(), |user| user.name))
}

/// sudo takes `SSH_CONNECTION` away; a process above it still has it. Nothing else of an environment is looked at.
fn ssh(own: u32) -> Option<String> {
    let mut pid = own;
    for _ in 0..32 {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if let Some(from) = ssh_of(&environ) {
            return Some(from);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"))?;
        pid = parent.trim().parse().ok().filter(|pid| *pid > 1)?;
    }
    None
}

fn ssh_of(environ: &[u8]) -> Option<String> {
    let mut all = environ.split(|b| *b == 0);
    let value = all.find_map(|v| v.strip_prefix(b"SSH_CONNECTION="))?;
    let first = std::str::from_utf8(value).ok()?.split(' ').next()?;
    // An address, and nothing that somebody made up.
    first.parse::<IpAddr>().ok().map(|ip| ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_is_taken_out_of_an_environment() {
        let environ = b"HOME=/root\0SSH_CONNECTION=192.0.2.7 50000 192.0.2.1 22\0X=y\0";
        assert_eq!(ssh_of(environ).as_deref(), Some("192.0.2.7"));
        assert_eq!(ssh_of(b"SSH_CONNECTION=secret stuff\0"), None);
        assert_eq!(ssh_of(b"A=b\0"), None);
    }

    #[test]
    fn this_process_is_somebody() {
        let who = Who::now();
        assert_eq!(who.pid, std::process::id());
        assert!(!who.user.is_empty());
    }
}
