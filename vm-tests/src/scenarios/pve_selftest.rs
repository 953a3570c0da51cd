//! The stand-ins for Proxmox's programs, before anything is judged with them: on the golden node each guest is dumped,
//! destroyed and restored, and holds the same afterwards; containers run; what is broken is refused.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::pve;
use crate::artefacts::Artefacts;
use crate::golden::{Golden, Host, cache_dir};
use crate::qemu::Firmware;
use crate::runner::Scenario;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "pve-selftest",
        "the golden node's guests start with it, and its stand-ins dump and restore them; without the product",
        super::needs_bios_host,
        move |log| run(&artefacts, log),
    )
    .long()
}

const SELFTEST: &str = include_str!("../../golden-pve/selftest");

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let golden = Golden::get(Host::PveNode, &cache_dir(), artefacts)?;
    let nic = pve::nic().reachable()?;
    let mut host = golden
        .machine("node", Firmware::Bios, log)?
        .memory(1536)
        .nic(nic.clone())
        .start(log)?;
    pve::wait_up(&mut host, log)?;
    let failed = pve::ask(
        &mut host,
        "systemctl list-units --failed --plain --no-legend",
        60,
    )?;
    ensure!(failed.trim().is_empty(), "units failed: {failed}");
    nic.wait_ssh(Duration::from_secs(120))?;
    log.note("it answers on the management address");
    let starts = pve::starts(&mut host, log, "boot")?;
    let order: Vec<u32> = starts.iter().filter_map(pve::Start::begun).collect();
    ensure!(
        order == [101, 100, 200, 201],
        "the guests started as {order:?}"
    );
    pve::ask(
        &mut host,
        "pvesh --nooutput create /nodes/localhost/stopall",
        300,
    )?;
    log.note("the guests have started in their order, and are stopped");
    let script = format!(
        "cat >/run/selftest <<'END OF THE SELFTEST'\n{SELFTEST}END OF THE SELFTEST\n\
         bash /run/selftest /mnt/backup/selftest"
    );
    let said = host.channel.output(&script, Duration::from_secs(1800))?;
    std::fs::write(log.path("selftest.log"), &said.output)?;
    let text = String::from_utf8_lossy(&said.output);
    let failed = text.lines().find(|line| line.contains("FAILED"));
    ensure!(
        said.status == 0 && text.lines().any(|line| line == "selftest: all"),
        "the selftest ended with status {}: {} (selftest.log)",
        said.status,
        failed.unwrap_or("no reason")
    );
    host.shut_down().context("after the selftest")
}
