//! `lifeboat arm`

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context as _, bail};
use layout::model::{Layout, NodeId};
use layout::plan::{Choices, DiskChoice, Mode, can_be_spread, check_shapes};
use rescue_image::rescue::network::{self, Card};
use rescue_image::stick::Stick;
use rescue_image::token::{self, Armed};

use crate::cli::{ArmArgs, Then};
use crate::output::{Outcome, Refused};
use crate::targets::{Kind, reading};
use crate::{Context, disks, values};

/// Version of `armed.json` that this program writes.
const FORMAT: u32 = 1;

/// Lets the next boot of the stick restore without questions.
pub fn run(context: &Context, args: &ArmArgs) -> anyhow::Result<Outcome> {
    if let Kind::Directory(dir) = Kind::of(&args.on)? {
        bail!(
            "{} is a directory: only a stick, or an image of one, boots",
            dir.display()
        );
    }
    let (id, saved, cards) = reading(std::slice::from_ref(&args.on), |sources| {
        let (id, snapshot) = sources.snapshot(&args.snapshot)?;
        let cards = network::cards(&snapshot.facts);
        Ok((id, super::layout::saved(&snapshot)?, cards))
    })?;
    // In place the disk is known by what is on it, and by its serial where nothing is.
    let any_disk = args.any_disk || args.mode.is_in_place();
    let disks = choose(&saved, &args.disk, any_disk)?;
    if !args.nic.is_empty() && !matches!(args.mode, Mode::BareMetal | Mode::SystemOnly) {
        return Err(Refused(format!(
            "--nic: the files of the host, which name its network cards, are not restored in mode {}",
            args.mode
        ))
        .into());
    }
    let stick = Stick::open(&args.on)?;
    if token::read(&stick)?.is_some() && !args.replace {
        return Err(Refused(format!(
            "{} is armed already; `lifeboat disarm` takes that back, --replace replaces it",
            args.on.display()
        ))
        .into());
    }
    let armed = Armed {
        format: FORMAT,
        token: secret()?,
        snapshot: id.to_string(),
        disks,
        then: match args.then {
            Then::Reboot => token::Then::Reboot,
            Then::Poweroff => token::Then::PowerOff,
        },
        expires: Some(values::rfc3339(
            values::now() + args.expires.0 as i64 * 3600,
        )),
        grow: args.grow,
        leave_out: args.leave_out.iter().copied().collect(),
        mode: args.mode,
        nics: nics(&args.nic, &cards)?,
        cluster_member: args.cluster_member,
    };
    token::arm(&stick, &armed).with_context(|| format!("cannot arm {}", args.on.display()))?;
    context.out.summary(&armed, || text(args, &armed, &saved))?;
    Ok(Outcome::Fine)
}

/// Which saved disk goes where. Without `--disk` each goes onto the very disk that it was saved from: at an unattended
/// boot nobody looks at the choice, so it must not be a guess.
fn choose(
    saved: &Layout,
    args: &[String],
    any_disk: bool,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut chosen = BTreeMap::new();
    for arg in args {
        let (id, disk) = disks::split(saved, arg)?;
        chosen.insert(id.to_string(), disk);
    }
    for id in saved.system_disks() {
        if any_disk || chosen.contains_key(id.as_str()) {
            continue;
        }
        let serial = saved
            .disks()
            .find(|(d, _)| **d == id)
            .and_then(|(_, d)| d.serial.clone());
        let Some(serial) = serial.filter(|s| !s.is_empty()) else {
            return Err(Refused(format!(
                "the saved disk {id} has no serial, so that it cannot be told from others: say where it goes with \
                 --disk {id}=SERIAL, or let the rescue system choose with --any-disk"
            ))
            .into());
        };
        chosen.insert(id.to_string(), serial);
    }
    let choices = choices(&chosen, saved);
    // What cannot come of it is to be known now, not at a boot that nobody watches.
    check_shapes(saved, &choices).map_err(|error| Refused(error.to_string()))?;
    let serials = choices.disks.iter().flat_map(|(id, choice)| {
        let all = match choice {
            DiskChoice::Spread(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        all.iter().map(move |one| (id, one.to_string()))
    });
    for (id, serial) in serials {
        let of = |d: &layout::model::Disk| d.serial.as_deref() == Some(serial.as_str());
        if saved.disks().filter(|(_, d)| of(d)).count() > 1 {
            return Err(Refused(format!(
                "several disks of the host have the serial {serial}, so that it does not tell which one is erased: say \
                 where {id} goes with --disk {id}=/dev/... or another serial"
            ))
            .into());
        }
    }
    Ok(chosen)
}

fn choices(chosen: &BTreeMap<String, String>, saved: &Layout) -> Choices {
    let disks = chosen
        .iter()
        .map(|(id, disk)| (NodeId::new(id.as_str()), DiskChoice::parse(disk)))
        .collect();
    let choices = Choices {
        disks,
        ..Choices::default()
    };
    choices.settled(saved, None)
}

/// Which network card takes the place of which saved one.
fn nics(args: &[String], cards: &[Card]) -> anyhow::Result<BTreeMap<String, String>> {
    args.iter()
        .map(|arg| {
            let (saved, card) = arg.split_once('=').with_context(|| {
                format!("--nic {arg}: give the saved network card, an equals sign, and the address of the one that takes its place, or none")
            })?;
            // At a boot that nobody watches it would only be refused.
            if !cards.iter().any(|c| c.name == saved) {
                let names: Vec<&str> = cards.iter().map(|c| c.name.as_str()).collect();
                return Err(Refused(format!(
                    "the saved host has no network card {saved}; it has {}",
                    names.join(", ")
                ))
                .into());
            }
            Ok((saved.to_owned(), card.to_owned()))
        })
        .collect()
}

/// 128 random bits in hexadecimal.
fn secret() -> anyhow::Result<String> {
    let mut bytes = [0u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn text(args: &ArmArgs, armed: &Armed, saved: &Layout) -> String {
    let mut out = format!(
        "{} is armed until {}: a machine that boots from it ONCE RESTORES WITHOUT ASKING and then {}.\n",
        args.on.display(),
        armed.expires.as_deref().unwrap_or("it is used"),
        match args.then {
            Then::Reboot => "starts the restored system",
            Then::Poweroff => "switches off",
        }
    );
    out.push_str(&format!(
        "restore point {}\n",
        &armed.snapshot[..armed.snapshot.len().min(8)]
    ));
    if armed.mode.is_in_place() {
        out.push_str(&format!("{}: {}\n", armed.mode, armed.mode.about()));
    }
    for (saved, card) in &armed.nics {
        out.push_str(&format!("network card {saved}: {card}\n"));
    }
    if armed.cluster_member {
        out.push_str("a member of a Proxmox VE cluster starts as one\n");
    }
    let shapes = choices(&armed.disks, saved);
    for (id, disk) in &shapes.disks {
        let was = saved.disks().find(|(d, _)| *d == id);
        let was = was
            .map(|(_, d)| format!("{} {}", d.model.clone().unwrap_or_default(), d.size))
            .unwrap_or_default();
        let what = if armed.mode.is_in_place() {
            "works on"
        } else {
            "erases"
        };
        let was = was.trim();
        out.push_str(&match disk {
            DiskChoice::Onto(other) => format!(
                "puts {id} ({was}) onto the disk for {other}
"
            ),
            DiskChoice::Missing => format!(
                "does without {id} ({was})
"
            ),
            DiskChoice::Spread(all) => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                let group = can_be_spread(saved, id).unwrap_or_default();
                format!(
                    "{what} the disks {} for {id} ({was}), with volume group {group} on all of them: when one fails, the whole \
                     group is lost
",
                    all.join(" and ")
                )
            }
            _ => format!(
                "{what} the disk {disk} for {id} ({was})
"
            ),
        });
    }
    for note in check_shapes(saved, &shapes).unwrap_or_default() {
        out.push_str(&format!(
            "note: {note}
"
        ));
    }
    if armed.disks.is_empty() && armed.mode.is_in_place() {
        out.push_str("works on the disks that hold what was saved; without them nothing is done\n");
    } else if armed.disks.is_empty() {
        out.push_str("erases the disk that fits; with none or several that fit, nothing is done\n");
    }
    for what in &armed.leave_out {
        out.push_str(&format!("leaves out {what}\n"));
    }
    out.push_str(&format!(
        "`lifeboat disarm --on {}` takes it back.\n",
        args.on.display()
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_that_two_saved_disks_share_is_refused() {
        use layout::model::{Disk, Firmware, Node, NodeId};
        let mut saved = Layout::new(Firmware::Bios);
        for name in ["system", "data"] {
            let disk: Disk = serde_json::from_value(serde_json::json!({
                "device": "/dev/sda", "model": null, "serial": "0123456789", "wwn": null, "size": 1 << 30,
                "sector_size": 512, "transport": null, "removable": false, "table": null
            }))
            .unwrap();
            saved.nodes.insert(NodeId::disk(name), Node::Disk(disk));
        }
        for arg in ["system=0123456789", "data=0123456789"] {
            let error = choose(&saved, &[arg.into()], true).unwrap_err();
            assert_eq!(crate::output::error_code(&error), 4, "{error}");
        }
        assert!(choose(&saved, &["system=NEW".into()], true).is_ok());
        assert!(choose(&saved, &["system=/dev/sdb".into()], true).is_ok());
    }

    #[test]
    fn a_disk_that_cannot_be_done_without_is_refused_now() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../vm-tests/layouts/md1-lvm.json"
        );
        let case: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let saved = Layout::from_value(case["layout"].clone()).unwrap();
        let chosen = choose(&saved, &["OLD-DISK-2=missing".into()], false).unwrap();
        assert_eq!(chosen.len(), 2);
        assert!(chosen.values().any(|disk| disk == "missing"));
        let both = ["OLD-DISK-1=missing".into(), "OLD-DISK-2=missing".into()];
        let error = choose(&saved, &both, false).unwrap_err();
        assert_eq!(crate::output::error_code(&error), 4, "{error}");
    }

    #[test]
    fn several_disks_for_one_are_checked_now() {
        let layout = |name: &str| {
            let path = format!(
                "{}/../vm-tests/layouts/{name}.json",
                env!("CARGO_MANIFEST_DIR")
            );
            let case: serde_json::Value =
                serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            Layout::from_value(case["layout"].clone()).unwrap()
        };
        let pve = layout("pve-ext4-lvm");
        let chosen = choose(&pve, &["OLD-DISK-1=NEW-1+NEW-2".into()], false).unwrap();
        assert!(chosen.values().eq(["NEW-1+NEW-2"]));
        let luks = layout("luks2-lvm");
        let error = choose(&luks, &["OLD-DISK-1=NEW-1+NEW-2".into()], false).unwrap_err();
        assert!(error.to_string().contains("not encrypted"), "{error}");
        assert_eq!(crate::output::error_code(&error), 4);
    }

    #[test]
    fn only_network_cards_of_the_saved_host_are_assigned() {
        let facts = serde_json::json!({ "network": [
            { "name": "enp3s0", "mac": "bc:24:11:00:00:01", "driver": "igb", "device": "/sys/devices/pci0000:00/0000:03:00.0" },
        ] });
        let cards = network::cards(&facts);
        let chosen = nics(&["enp3s0=bc:24:11:00:00:09".into()], &cards).unwrap();
        assert_eq!(chosen["enp3s0"], "bc:24:11:00:00:09");
        let error = nics(&["enp4s0=none".into()], &cards).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("no network card enp4s0; it has enp3s0"),
            "{error}"
        );
        assert!(nics(&["enp3s0".into()], &cards).is_err());
    }

    #[test]
    fn secrets_differ() {
        let (a, b) = (secret().unwrap(), secret().unwrap());
        assert!(a.len() == 32 && a != b);
    }
}
