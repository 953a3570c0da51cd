//! Gives a guest back to the node through its own tools: `qmrestore` and `pct restore` with the archive on standard input.

use std::io;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use bundle::Id;
use bundle::document::Snapshot;
use bundle::document::guest::GuestKind;
use bundle::events::Events;
use bundle::store::Store;
use layout::system::{Cmd, System, SystemError};

use super::{archive, volumes};
use crate::output::Refused;
use crate::proxmox::{TREE, guests};

/// What a guest becomes.
#[derive(Debug, Clone)]
pub struct As<'a> {
    /// Its number.
    pub id: u32,
    /// All of its disks go here; `None`: where they were.
    pub storage: Option<&'a str>,
    /// It replaces the guest that has this number.
    pub force: bool,
    /// It gets addresses of its own: another one has those in the dump.
    pub unique: bool,
}

/// The command that takes the archive of a guest's dump.
pub fn command(snapshot: &Snapshot, to: &As<'_>) -> anyhow::Result<Cmd> {
    let dump = archive::dump(snapshot)?;
    let id = to.id.to_string();
    let mut command = match dump.kind {
        GuestKind::Qemu => Cmd::new("qmrestore").args(["-", &id]),
        GuestKind::Lxc => {
            let conf = dump
                .config("pct.conf")
                .context("its dump has no pct.conf")?;
            let options = volumes::options(&String::from_utf8_lossy(conf), to.storage)?;
            Cmd::new("pct").args(["restore", &id, "-"]).args(options)
        }
    };
    if let (GuestKind::Qemu, Some(storage)) = (dump.kind, to.storage) {
        command = command.args(["--storage", storage]);
    }
    if to.force {
        command = command.args(["--force", "1"]);
    }
    if to.unique {
        command = command.args(["--unique", "1"]);
    }
    Ok(command.stop(crate::signals::stopped))
}

/// Runs it. A failure of the dump comes before what the command says about an archive that ends early.
pub fn run(
    sys: &dyn System,
    command: &Cmd,
    stores: &[&Store],
    snapshot: &Snapshot,
    events: &dyn Events,
) -> anyhow::Result<()> {
    tracing::info!("{}", command.display());
    let mut failure = None;
    let ran = sys.run_fed(
        command,
        &mut |out| {
            let Err(error) = archive::write(stores, snapshot, out, events) else {
                return Ok(());
            };
            if archive::nobody_reads(&error) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            failure = Some(error);
            Err(io::Error::other("the dump cannot be read"))
        },
        &|line| tracing::info!("{line}"),
    );
    match (failure, ran) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(()),
        (None, Err(error)) => Err(explained(error)),
    }
}

/// Reads all of a dump, before it takes the place of a guest that is there: `--force` lets the tools remove that one, which
/// must not be lost to a dump that cannot be read.
pub fn read_whole(
    stores: &[&Store],
    snapshot: &Snapshot,
    events: &dyn Events,
) -> anyhow::Result<()> {
    let report = bundle::verify::check_readable(stores, snapshot, events)?;
    let Some(first) = report.damaged.first() else {
        return Ok(());
    };
    let affected: Vec<String> = first.files.iter().take(3).cloned().collect();
    bail!(
        "its dump is damaged, and the guest that is there stays as it is: {} ({}{}); take another dump (`lifeboat guests \
         list`), or read another target beside this one with --from",
        first.reason,
        first.file,
        match affected.as_slice() {
            [] => String::new(),
            files => format!(
                "; affects {}",
                crate::progress::printable(files.join(", ").as_bytes())
            ),
        }
    );
}

/// What to do about it, where that is known.
fn explained(error: SystemError) -> anyhow::Error {
    let text = error.to_string();
    let hint = if text.contains("no quorum") {
        "the node belongs to a cluster that it does not see, so nothing may be changed: connect it, or say that it is alone \
         (`pvecm expected 1`), and try again"
    } else if text.contains("is the program installed") {
        "guests are restored on a Proxmox VE node"
    } else {
        return anyhow!(error);
    };
    anyhow!(error).context(hint)
}

/// A guest that the node, or another one of its cluster, has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Where.
    pub node: String,
    /// As its configuration says.
    pub guest: guests::Guest,
    /// It may not be replaced.
    pub protected: bool,
    /// The hash of its configuration.
    pub digest: Id,
}

/// Who has this number.
pub fn existing(sys: &dyn System, id: u32) -> Option<Existing> {
    let nodes = Path::new(TREE).join("nodes");
    for node in sys.list_dir(&nodes).unwrap_or_default() {
        for (kind, dir) in [(GuestKind::Qemu, "qemu-server"), (GuestKind::Lxc, "lxc")] {
            let file = nodes.join(&node).join(dir).join(format!("{id}.conf"));
            if let Some(text) = sys.text(&file) {
                let guest = guests::parse(id, kind, &text);
                // Of the guest itself, not of its snapshots.
                let mut current = text.lines().take_while(|line| !line.starts_with('['));
                let protected = current.any(|line| line.trim_end() == "protection: 1");
                return Some(Existing {
                    node,
                    guest,
                    protected,
                    digest: Id::of(text.as_bytes()),
                });
            }
        }
    }
    None
}

/// Whether pmxcfs shows the node's configuration: without it nobody knows which guests there are.
pub fn check_node(sys: &dyn System) -> anyhow::Result<()> {
    if sys.exists(&Path::new(TREE).join("nodes")) {
        return Ok(());
    }
    if sys.exists(Path::new(TREE)) {
        bail!("{TREE} is not mounted: look at `systemctl status pve-cluster`, then try again");
    }
    anyhow::bail!("this is no Proxmox VE node (there is no {TREE}): guests are restored on one")
}

/// Refuses what Proxmox VE's tools would refuse after a while, or what nobody means.
pub fn check(
    sys: &dyn System,
    snapshot: &Snapshot,
    to: &As<'_>,
    own_node: &str,
) -> anyhow::Result<()> {
    check_node(sys)?;
    let Some(found) = existing(sys, to.id) else {
        return Ok(());
    };
    let kind = archive::dump(snapshot)?.kind;
    let title = format!("{} {}", found.guest.kind, found.guest.id);
    let other = "give it another number with --as";
    if found.node != own_node {
        let text = format!("{title} is on the node {}: {other}", found.node);
        return Err(Refused(text).into());
    }
    if found.guest.kind != kind {
        let text = format!("{title} is none to be replaced by a {kind}: {other}");
        return Err(Refused(text).into());
    }
    if !to.force {
        let text = format!("{title} is there: {other}, or replace it and its disks with --force");
        return Err(Refused(text).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bundle::document::guest::{GuestConfig, GuestDump};
    use layout::system::Recorded;

    use super::*;

    fn snapshot(kind: GuestKind) -> Snapshot {
        Snapshot {
            format: 1,
            host: bundle::document::HostIdentity {
                machine_id: String::new(),
                hostname: String::new(),
            },
            time: String::new(),
            tool_version: String::new(),
            kind: "guest".into(),
            layout: serde_json::Value::Null,
            trees: Vec::new(),
            images: Vec::new(),
            guest: Some(GuestDump {
                id: 100,
                kind,
                name: None,
                dumped: String::new(),
                source: String::new(),
                configs: vec![GuestConfig {
                    name: "etc/vzdump/pct.conf".into(),
                    data: b"rootfs: local-lvm:vm-100-disk-0,size=8G\nunprivileged: 1\n".to_vec(),
                }],
                vma: None,
            }),
            guests: Vec::new(),
            summary: Default::default(),
            stats: Default::default(),
            facts: serde_json::Value::Null,
        }
    }

    const PLAIN: As<'static> = As {
        id: 100,
        storage: None,
        force: false,
        unique: false,
    };

    #[test]
    fn the_tools_are_called_as_they_want_it() {
        let line = |kind, to: &As<'_>| command(&snapshot(kind), to).unwrap().display();
        assert_eq!(line(GuestKind::Qemu, &PLAIN), "qmrestore - 100");
        assert_eq!(
            line(GuestKind::Lxc, &PLAIN),
            "pct restore 100 - --rootfs local-lvm:8 --unprivileged 1"
        );
        let other = As {
            id: 900,
            storage: Some("tank"),
            force: true,
            unique: true,
        };
        assert_eq!(
            line(GuestKind::Qemu, &other),
            "qmrestore - 900 --storage tank --force 1 --unique 1"
        );
        assert_eq!(
            line(GuestKind::Lxc, &other),
            "pct restore 900 - --rootfs tank:8 --unprivileged 1 --force 1 --unique 1"
        );
    }

    #[test]
    fn a_number_that_is_taken_is_refused() {
        let sys = Recorded::new()
            .file("/etc/pve/nodes/pve1/qemu-server/100.conf", "name: web\n")
            .file("/etc/pve/nodes/pve2/lxc/101.conf", "hostname: far\n");
        let vm = snapshot(GuestKind::Qemu);
        let refused = |snapshot: &Snapshot, id, force| {
            let to = As { id, force, ..PLAIN };
            let error = check(&sys, snapshot, &to, "pve1").err()?;
            assert!(error.downcast_ref::<Refused>().is_some(), "{error}");
            Some(error.to_string())
        };
        assert!(refused(&vm, 100, false).unwrap().contains("--force"));
        assert_eq!(refused(&vm, 100, true), None);
        assert_eq!(refused(&vm, 102, false), None);
        let container = snapshot(GuestKind::Lxc);
        assert!(
            refused(&container, 100, true)
                .unwrap()
                .contains("replaced by a CT")
        );
        assert!(refused(&vm, 101, true).unwrap().contains("node pve2"));
    }

    #[test]
    fn elsewhere_it_is_said_what_is_missing() {
        let error = |sys: &Recorded| check_node(sys).unwrap_err().to_string();
        assert!(error(&Recorded::new()).contains("no Proxmox VE node"));
        let mut unmounted = Recorded::new();
        unmounted.present.insert("/etc/pve".into());
        assert!(error(&unmounted).contains("pve-cluster"));
    }

    #[test]
    fn without_quorum_it_is_said_what_to_do() {
        let error = explained(SystemError::Failed {
            command: "qmrestore - 100".into(),
            status: 255,
            stderr: "cluster not ready - no quorum?".into(),
        });
        let text = format!("{error:#}");
        assert!(
            text.contains("pvecm expected 1") && text.contains("status 255"),
            "{text}"
        );
    }
}
