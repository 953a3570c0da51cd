//! The small files of the rescue system that are written, not copied.

/// `/etc/passwd`
pub(crate) const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n";

/// `/etc/group`: the groups (Debian's static numbers) that the rules of the device manager name.
pub(crate) const GROUP: &str = "root:x:0:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\nkmem:x:15:\ndialout:x:20:\ncdrom:x:24:\n\
    floppy:x:25:\ntape:x:26:\naudio:x:29:\nvideo:x:44:\nplugdev:x:46:\ninput:x:104:\nsgx:x:105:\nkvm:x:106:\n\
    render:x:107:\nnogroup:x:65534:\n";

/// `/etc/nsswitch.conf`
pub(crate) const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";

/// `/etc/ld.so.conf`
pub(crate) const LD_SO_CONF: &str = "/usr/lib/x86_64-linux-gnu\n/usr/lib\n/usr/local/lib\n";

/// `/etc/lvm/lvm.conf`: no archives in memory, no devices file of another machine, no monitoring daemon, and the filter
/// that Proxmox VE sets, so that volume groups inside guests' disks are never touched.
pub(crate) const LVM_CONF: &str = r#"devices {
	use_devicesfile = 0
	global_filter = [ "r|/dev/zd.*|", "r|/dev/rbd.*|", "r|/dev/nbd.*|" ]
	scan_lvs = 0
}
backup {
	backup = 0
	archive = 0
}
global {
	locking_dir = "/run/lock/lvm"
	event_activation = 0
	use_lvmpolld = 0
	use_lvmlockd = 0
}
activation {
	monitoring = 0
	udev_sync = 1
	udev_rules = 1
}
"#;

/// `/etc/udev/udev.conf`
pub(crate) const UDEV_CONF: &str = "udev_log=warning\n";

/// `/etc/profile` for the rescue shell.
pub(crate) const PROFILE: &str = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\nexport PS1='rescue:\\w# '\nexport TERM=${TERM:-linux}\n";

/// The rule that recognises our own media, the same as on the host.
pub(crate) const LIFEBOAT_RULES: &str = include_str!("../../../udev-rules/70-lifeboat.rules");

/// What udev knows of network cards: where they are plugged, and what systemd would call them. They keep the kernel's names
/// here.
pub(crate) const NETWORK_RULES: &str = "ACTION!=\"remove\", SUBSYSTEM==\"net\", IMPORT{builtin}=\"net_id\"\n\
    ACTION!=\"remove\", SUBSYSTEM==\"net\", IMPORT{builtin}=\"path_id\"\n";
