//! What an attempt that failed left of a guest. Proxmox VE's tools take away what they made when they fail; where they did not
//! (a storage that does not answer, a process that was killed), it looks like the guest, and is not whole.

use bundle::Id;
use layout::system::System;

use super::present::{Present, look};
use super::restore::{Existing, check_node, existing};

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing: what is there later is somebody's.
    Nothing,
    /// Something, or a storage does not say; with the hash of the guest's configuration.
    This(Id),
    /// That cannot be found out.
    Unknown,
}

/// Looks.
pub fn find(sys: &dyn System, id: u32) -> Left {
    if check_node(sys).is_err() {
        return Left::Unknown;
    }
    match existing(sys, id) {
        None => Left::Nothing,
        Some(there) => match look(sys, &there.guest) {
            Ok(Present::Nothing) => Left::Nothing,
            _ => Left::This(there.digest),
        },
    }
}

/// In place of a hash: what is there is no attempt's for sure, whatever its configuration is.
pub fn nobody_knows() -> Id {
    Id::of(b"")
}

/// Whether what is there is what an attempt left, as far as that was noted: after a power cut in the middle of an attempt
/// there was nobody to note it, nor to change it.
pub fn is_it(noted: Option<Id>, there: &Existing) -> bool {
    noted.is_none_or(|noted| noted == there.digest)
}

#[cfg(test)]
mod tests {
    use layout::system::Recorded;

    use super::*;

    const CONF: &str = "scsi0: local-lvm:vm-100-disk-0,size=8G\n";
    const ASK: &str = "pvesm list local-lvm --vmid 100";
    const HEADING: &str = "Volid Format Type Size VMID\n";

    #[test]
    fn in_doubt_something_is_left() {
        let node = || Recorded::new().file("/etc/pve/nodes/pve1/qemu-server/100.conf", CONF);
        assert_eq!(find(&Recorded::new(), 100), Left::Unknown);
        assert_eq!(find(&node(), 101), Left::Nothing);
        assert_eq!(find(&node().command(ASK, HEADING), 100), Left::Nothing);
        let this = Left::This(Id::of(CONF.trim().as_bytes()));
        let disk = format!("{HEADING}local-lvm:vm-100-disk-0 raw images 1 100\n");
        assert_eq!(find(&node().command(ASK, &disk), 100), this);
        // The storage does not answer.
        assert_eq!(find(&node(), 100), this);
    }

    #[test]
    fn a_changed_configuration_is_somebodys() {
        let sys = Recorded::new().file("/etc/pve/nodes/pve1/qemu-server/100.conf", CONF);
        let there = existing(&sys, 100).unwrap();
        assert!(is_it(None, &there) && is_it(Some(Id::of(CONF.trim().as_bytes())), &there));
        assert!(!is_it(Some(Id::of(b"name: x")), &there) && !is_it(Some(nobody_knows()), &there));
    }
}
