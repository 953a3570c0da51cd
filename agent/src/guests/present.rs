//! Which disks of a guest are there. A restore replaces a guest with all its disks, and after a bare-metal restore some of
//! them may never have been lost: those on drives and storages that were left alone, newer than any dump.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use layout::system::{Cmd, System};

use crate::proxmox::Guest;

/// What there is of a guest's disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// Every disk that it uses.
    All,
    /// These only.
    Some(Vec<String>),
}

/// Asks the storages that the guest's configuration names.
pub fn look(sys: &dyn System, guest: &Guest) -> anyhow::Result<Present> {
    let mut storages: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for volume in &guest.volumes {
        let known = storages.contains_key(volume.storage.as_str());
        if !known {
            let held = volumes(sys, &volume.storage, guest.id)?;
            storages.insert(&volume.storage, held);
        }
    }
    let name = |v: &crate::proxmox::guests::Volume| format!("{}:{}", v.storage, v.name);
    let is_there = |v: &&crate::proxmox::guests::Volume| {
        let held = storages.get(v.storage.as_str());
        held.is_some_and(|held| held.contains(&name(v)))
    };
    let there: Vec<String> = guest.volumes.iter().filter(is_there).map(name).collect();
    let mut used = guest
        .volumes
        .iter()
        .filter(|v| !v.key.starts_with("unused"));
    Ok(match there.is_empty() {
        true => Present::Nothing,
        false if used.all(|v| is_there(&v)) => Present::All,
        false => Present::Some(there),
    })
}

/// The volumes of a guest on a storage: the first column of `pvesm list`, below its heading.
fn volumes(sys: &dyn System, storage: &str, id: u32) -> anyhow::Result<BTreeSet<String>> {
    let id = id.to_string();
    let command = Cmd::new("pvesm").args(["list", storage, "--vmid", &id]);
    let output = sys
        .run(&command)
        .with_context(|| format!("the storage {storage} does not say which disks it holds"))?;
    let text = output.text();
    let names = text.lines().skip(1);
    let names = names.filter_map(|line| line.split_ascii_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use bundle::document::guest::GuestKind;
    use layout::system::Recorded;

    use super::*;
    use crate::proxmox::guests::parse;

    #[test]
    fn disks_that_were_never_lost_are_found() {
        let conf = "scsi0: local-lvm:vm-100-disk-0,size=8G\nscsi1: tank:vm-100-disk-1,size=8G\nide2: \
                    local:iso/x.iso,media=cdrom\nunused0: tank:vm-100-disk-9\n";
        let guest = parse(100, GuestKind::Qemu, conf);
        let heading = "Volid Format Type Size VMID\n";
        let asked = |lvm: &str, tank: &str| {
            let sys = Recorded::new()
                .command(
                    "pvesm list local-lvm --vmid 100",
                    &format!("{heading}{lvm}"),
                )
                .command("pvesm list tank --vmid 100", &format!("{heading}{tank}"));
            look(&sys, &guest).unwrap()
        };
        let disk0 = "local-lvm:vm-100-disk-0 raw images 8589934592 100\n";
        let disk1 = "tank:vm-100-disk-1 raw images 8589934592 100\n";
        let other = "tank:vm-100-disk-10 raw images 8589934592 100\n";
        assert_eq!(asked("", other), Present::Nothing);
        assert_eq!(asked(disk0, disk1), Present::All);
        assert_eq!(
            asked("", disk1),
            Present::Some(vec!["tank:vm-100-disk-1".into()])
        );
        let unused = "tank:vm-100-disk-9 raw images 8589934592 100\n";
        assert!(matches!(asked("", unused), Present::Some(_)));
        let error = look(&Recorded::new(), &guest).unwrap_err();
        assert!(format!("{error:#}").contains("local-lvm"), "{error:#}");
    }
}
