//! One stick image, not armed, boots under SeaBIOS and under OVMF as far as the wizard's first question.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::golden::Host;
use crate::qemu::Firmware;
use crate::runner::Scenario;
use crate::saved::Saved;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "stick-boots",
        "the same stick image boots under SeaBIOS and OVMF to the wizard's first question",
        super::needs_uefi,
        move |log| run(&artefacts, log),
    )
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let mut machine = rescue::machine(firmware, &stick)
            .named(&format!("stick-{}", firmware.name()))
            .start(log)?;
        let ready = rescue::wait_event(&machine.serial, &["ready"], Duration::from_secs(240))
            .with_context(|| format!("the stick does not boot on {}", firmware.name()))?;
        ensure!(
            ready.number("bundles")? == 1,
            "not one bundle was found: {}",
            ready.fields
        );
        machine
            .serial
            .expect("Restore point [1]: ", Duration::from_secs(60))?;
        log.note(&format!("the wizard asks on {}", firmware.name()));
        machine.screenshot(&log.path(&format!("{}.ppm", firmware.name())))?;
        machine.quit()?;
    }
    Ok(())
}
