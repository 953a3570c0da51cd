//! The harness and the golden host without the product: it boots, answers on the root channel, runs without failed units,
//! and its manifest is the same when taken twice and notices what changes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::artefacts::Artefacts;
use crate::golden::{Golden, Host, cache_dir};
use crate::qemu::Firmware;
use crate::runner::Scenario;
use crate::verdict::{HostFacts, manifest_differences};

/// The scenario of the first host for each firmware, and of each other host, whose restore shows the same.
pub fn scenarios(artefacts: &Path) -> Vec<Scenario> {
    let both = [Firmware::Bios, Firmware::Uefi];
    let first = both.map(|firmware| scenario(Host::PveExt4, firmware, artefacts));
    let others = Host::ALL.into_iter().filter_map(|host| {
        let firmware = host.only_with()?;
        Some(scenario(host, firmware, artefacts).long())
    });
    first.into_iter().chain(others).collect()
}

fn scenario(host: Host, firmware: Firmware, artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    let needs: fn() -> _ = match firmware {
        Firmware::Bios => super::needs_bios_host,
        Firmware::Uefi => super::needs_uefi_host,
    };
    let name = match host.only_with() {
        Some(_) => host.name(),
        None => firmware.name(),
    };
    let about = "the golden host boots, answers on its root channel, and its manifest notices every kind of change";
    Scenario::new(&format!("golden-boots-{name}"), about, needs, move |log| {
        run(host, firmware, &artefacts, log)
    })
}

/// One change of each kind that a restore could get wrong, and the field that must tell.
const CHANGES: [(&str, &str, &str); 9] = [
    (
        "printf x | dd of=many/00/file-0001 bs=1 seek=3 conv=notrunc status=none; touch -d @1600003601 many/00/file-0001",
        "/srv/files/many/00/file-0001",
        "sha256",
    ),
    (
        "chmod u+x many/00/file-0002",
        "/srv/files/many/00/file-0002",
        "mode",
    ),
    (
        "setfattr -n user.comment -v other xattrs/user",
        "/srv/files/xattrs/user",
        "xattrs",
    ),
    (
        "touch -d '2001-02-03 04:05:06.123456788 UTC' times/ns",
        "/srv/files/times/ns",
        "mtime",
    ),
    (
        "setfacl -m u:1001:r acl/file",
        "/srv/files/acl/file",
        "xattrs",
    ),
    (
        "cp -p links/hard-2 /tmp/h; mv /tmp/h links/hard-2",
        "/srv/files/links/hard-2",
        "hard links",
    ),
    (
        "chattr -i flags/immutable",
        "/srv/files/flags/immutable",
        "flags",
    ),
    (
        "cp -p --sparse=never sparse/nothing /tmp/s; mv /tmp/s sparse/nothing",
        "/srv/files/sparse/nothing",
        "holes",
    ),
    (
        "chown -h 0:0 owners/link",
        "/srv/files/owners/link",
        "owner",
    ),
];

fn run(kind: Host, firmware: Firmware, artefacts: &Path, log: &Artefacts) -> Result<()> {
    let golden = Golden::get(kind, &cache_dir(), artefacts)?;
    let mut host = golden.machine("golden", firmware, log)?.start(log)?;
    kind.unlock(&host)?;
    host.serial
        .expect("golden login:", Duration::from_secs(240))?;
    log.note("login prompt");
    host.channel.ready(Duration::from_secs(120))?;
    log.note("root channel");
    let facts = HostFacts::take(kind, &mut host.channel)?;
    log.note("facts taken");
    std::fs::write(log.path("manifest"), &facts.manifest)?;
    std::fs::write(log.path("storage"), &facts.storage)?;
    ensure!(
        facts.state == "running",
        "the golden host is {}: {}",
        facts.state,
        facts.failed_units
    );
    let uefi = host
        .channel
        .output("test -d /sys/firmware/efi", Duration::from_secs(30))?
        .status
        == 0;
    ensure!(
        uefi == (firmware == Firmware::Uefi),
        "the golden host booted with the other firmware"
    );
    if (kind, firmware) == (Host::PveExt4, Firmware::Bios) {
        let script = format!("set -e; cd /srv/files\n{}", CHANGES.map(|c| c.0).join("\n"));
        host.channel.run(&script, Duration::from_secs(60))?;
        let after = String::from_utf8(
            host.channel
                .run("golden-manifest", Duration::from_secs(600))?,
        )?;
        let differences = manifest_differences(&facts.manifest, &after);
        for (_, path, field) in CHANGES {
            ensure!(
                differences
                    .iter()
                    .any(|d| d.starts_with(&format!("{path}: {field} was"))),
                "the manifest did not notice the change of {field} of {path}: {differences:?}"
            );
        }
        let others: Vec<_> = differences
            .iter()
            .filter(|d| !CHANGES.iter().any(|(_, path, _)| d.starts_with(path)))
            .collect();
        // Changing an entry changes its directory's time, and a broken hard link changes its group.
        ensure!(
            others
                .iter()
                .all(|d| d.contains(": mtime was") || d.starts_with("/srv/files/modes/hard-3")),
            "the manifest shows changes that nobody made: {others:?}"
        );
    }
    host.shut_down()
}
