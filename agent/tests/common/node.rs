//! A Proxmox VE node as `lifeboat` sees it, without Proxmox VE: its own mounts over `/etc` and `/usr/bin`, in which
//! `/etc/pve` is a mount with the guests' configuration, and `vzdump` gives what lies in a directory.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{Bench, Run};

/// Runs what follows in mounts of its own. `$1` is the directory of the test. What is in `bin` there comes before
/// the commands of the machine.
const SETUP: &str = r#"
set -eu
dir=$1; shift
mount --make-rprivate /
mkdir -p "$dir/ns/etc" "$dir/ns/bin"
mount --bind /usr/bin "$dir/ns/bin"
mount -t tmpfs tmpfs /usr/bin
"$dir/ns/bin/ln" -s "$dir"/ns/bin/* /usr/bin/
ln -sf "$dir"/bin/* /usr/bin/
cp -a /etc/. "$dir/ns/etc/" 2>/dev/null || true
mount --bind "$dir/ns/etc" /etc
mkdir -p /etc/pve
mount -t tmpfs tmpfs /etc/pve
cp -r "$dir/pve/." /etc/pve/
mkdir -p "/etc/pve/nodes/$(hostname -s)"
cp -r "$dir/guests/." "/etc/pve/nodes/$(hostname -s)/"
exec "$@"
"#;

/// `vzdump` of these tests: a guest's archive is the file `dumps/<id>`; what is in `dumps/<id>.log` comes on standard
/// error; it fails with the status in `dumps/<id>.status`. The arguments are noted.
const VZDUMP: &str = r#"#!/bin/sh
dir=@DIR@
echo "$*" >> "$dir/calls"
echo "INFO: Starting Backup of VM $1" >&2
[ ! -e "$dir/dumps/$1.log" ] || cat "$dir/dumps/$1.log" >&2
[ ! -e "$dir/dumps/$1" ] || cat "$dir/dumps/$1"
[ ! -e "$dir/dumps/$1.status" ] || exit "$(cat "$dir/dumps/$1.status")"
echo "INFO: Finished Backup of VM $1 (00:00:01)" >&2
"#;

impl Bench {
    /// Whether this user may make mounts: without it, there can be no node here.
    pub fn can_be_node() -> bool {
        let mut probe = assert_cmd::Command::new("unshare");
        let can = probe.args(["--mount", "true"]).output();
        let can = can.is_ok_and(|o| o.status.success());
        if !can {
            eprintln!("IGNORED: this user may not make mounts");
        }
        can
    }

    /// Makes this a node without guests.
    pub fn make_node(&self) {
        for dir in ["bin", "pve", "guests/qemu-server", "guests/lxc", "dumps"] {
            fs::create_dir_all(self.path(dir)).unwrap();
        }
        self.script("vzdump", &VZDUMP.replace("@DIR@", self.str("")));
        self.script("pveversion", "#!/bin/sh\necho pve-manager/9.0.0/x\n");
        fs::write(
            self.path("pve/storage.cfg"),
            format!("dir: local\n\tpath {}\n\tcontent backup\n", self.str("vz")),
        )
        .unwrap();
    }

    /// A command of the node.
    pub fn script(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs `lifeboat` on the node.
    pub fn on_node<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        let mut command = assert_cmd::Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", SETUP, "sh"])
            .arg(self.path(""))
            .arg(env!("CARGO_BIN_EXE_lifeboat"))
            .arg("--config")
            .arg(self.path("lifeboat.toml"))
            .args(args);
        command.output().unwrap().into()
    }
}
