//! The rescue system of sticks: it is there, it is new enough, and it knows this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use layout::model::Node;
use rescue_image::initramfs;
use rescue_image::kernel::Kernel;

use crate::cli::Modules;
use crate::doctor::finding::quoted;
use crate::doctor::targets::Rescue;
use crate::doctor::{Check, Finding, Kind, Look, Severity};
use crate::{facts, rescue};

const NONE: Kind = Kind {
    id: "stick-without-rescue",
    severity: Severity::Critical,
    about: "a stick has no rescue system that is whole",
    why: "It does not boot on the day that it is needed.",
};
const OLD: Kind = Kind {
    id: "rescue-outdated",
    severity: Severity::Warning,
    about: "a stick's rescue system is made of another kernel or of other tools than this host has, and backups do not renew it",
    why: "It may lack what this host's storage needs by now.",
};
const BEHIND: Kind = Kind {
    id: "rescue-behind",
    severity: Severity::Hint,
    about: "a stick's rescue system is made of another kernel or of other tools than this host has; the next backup renews it",
    why: "It may lack what this host's storage needs by now.",
};
const NO_KERNEL: Kind = Kind {
    id: "no-rescue-kernel",
    severity: Severity::Critical,
    about: "there is a stick, and this host has no kernel of which a rescue system can be made",
    why: "The rescue system cannot be renewed, and a new stick cannot be made.",
};
const DRIVER: Kind = Kind {
    id: "rescue-lacks-driver",
    severity: Severity::Critical,
    about: "the rescue system has no driver for a disk or a network card of this host",
    why: "The stick would boot, and not see what it has to restore.",
};

pub const CHECK: Check = Check {
    kinds: &[NONE, OLD, BEHIND, NO_KERNEL, DRIVER],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut sticks = look.targets.iter().any(|t| t.may_be_unplugged());
    for (target, here) in look.here() {
        let (name, arg) = (target.named.display(), quoted(&target.named));
        match &here.rescue {
            None => continue,
            Some(Rescue::None) => {
                let mend = format!("lifeboat backup --to {arg}");
                found.push(NONE.found(format!("{name} has no rescue system"), mend));
            }
            Some(Rescue::Current) => {}
            Some(Rescue::Old { version, kernel }) => {
                let what = format!("{name} has Lifeboat {version} and the kernel {kernel}");
                found.push(if look.config.update_rescue {
                    BEHIND.found(what, format!("lifeboat backup --to {arg}"))
                } else {
                    OLD.found(
                        what,
                        format!("editor {}  # update-rescue = true", quoted(look.file)),
                    )
                });
            }
        }
        sticks = true;
    }
    if !sticks {
        return found;
    }
    match Kernel::of_host(look.sys) {
        Err(error) => {
            let mend =
                "apt-get install linux-image-amd64  # or: lifeboat prepare --kernel-package DEB";
            found.push(NO_KERNEL.found(error.to_string(), mend));
        }
        Ok(kernel) => found.extend(drivers(look, &kernel)),
    }
    found
}

/// Drivers of this machine that are modules, and not among those of the rescue system.
fn drivers(look: &Look, kernel: &Kernel) -> Vec<Finding> {
    let modules = look.config.rescue_modules;
    let set = rescue::module_set(modules);
    let (Ok(carried), Ok(all)) = (
        initramfs::carried_modules(kernel, set),
        initramfs::all_modules(kernel),
    ) else {
        return Vec::new();
    };
    let missing: Vec<String> = drivers_in_use(look, modules != Modules::Storage)
        .into_iter()
        .filter(|(module, _)| all.contains(module) && !carried.contains(module))
        .map(|(module, what)| format!("{module} ({what})"))
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let what = format!("the rescue system has no {}", missing.join(", "));
    let mend = match modules {
        Modules::Full => "lifeboat prepare --check-kernel".to_owned(),
        _ => format!("editor {}  # rescue-modules = \"full\"", quoted(look.file)),
    };
    vec![DRIVER.found(what, mend)]
}

/// The modules that drive the disks of the system and, where they are wanted, the network cards.
fn drivers_in_use(look: &Look, network: bool) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    if let Ok(layout) = &look.layout {
        for id in layout.system_disks() {
            let Some(Node::Disk(disk)) = layout.nodes.get(&id) else {
                continue;
            };
            let name = disk.device.file_name().unwrap_or_default();
            let device = Path::new("/sys/class/block").join(name);
            let what = disk.device.display().to_string();
            found.extend(above(look, &device).into_iter().map(|m| (m, what.clone())));
        }
    }
    if network {
        for card in facts::network(look.sys) {
            let Some(device) = card.device.filter(|_| !card.virtual_function) else {
                continue;
            };
            found.extend(module_of(look, &device).map(|m| (m, card.name)));
        }
    }
    found
}

/// The modules of a device and of all controllers that it hangs on.
fn above(look: &Look, link: &Path) -> Vec<String> {
    let Ok(device) = look.sys.canonicalize(link) else {
        return Vec::new();
    };
    let inside = device
        .ancestors()
        .take_while(|d| d.starts_with("/sys/devices"));
    inside.filter_map(|d| module_of(look, d)).collect()
}

/// A driver that is built in has no module.
fn module_of(look: &Look, device: &Path) -> Option<String> {
    let module: PathBuf = look.sys.canonicalize(&device.join("driver/module")).ok()?;
    Some(module.file_name()?.to_string_lossy().replace('-', "_"))
}
