use layout::system::Recorded;

use super::*;
use crate::proxmox::guests::{Kind, parse};
use crate::proxmox::storages;

#[test]
fn names_of_dumps() {
    let dir = Path::new("/d");
    let dump = Dump::named(dir, "vzdump-lxc-101-2026_11_20-18_00_00.tar.zst").unwrap();
    assert_eq!(
        dump.path,
        dir.join("vzdump-lxc-101-2026_11_20-18_00_00.tar.zst")
    );
    assert_eq!((dump.kind, dump.id), (GuestKind::Lxc, 101));
    assert_eq!(dump.compressed, Compressed::Zstd);
    let plain = Dump::named(dir, "vzdump-qemu-100-2026_11_20-18_00_00.vma").unwrap();
    assert_eq!(plain.compressed, Compressed::No);
    for other in [
        "vzdump-qemu-100-2026_11_20-18_00_00.vma.dat",
        "vzdump-qemu-100-2026_11_20-18_00_00.vma.zst.notes",
        "vzdump-qemu-100-2026_11_20-18_00_00.log",
        "vzdump-qemu-100-2026_11_20-18_00_00.tar",
        "vzdump-lxc-100-2026_11_20-18_00.tar",
        "vzdump-lxc-web-2026_11_20-18_00_00.tar",
        "vzdump-openvz-100-2026_11_20-18_00_00.tar",
        "x",
    ] {
        assert_eq!(Dump::named(dir, other), None, "{other}");
    }
}

#[test]
fn the_newest_dump_of_all_storages() {
    let storages = storages::parse(
        "dir: local\n\tpath /var/lib/vz\n\tcontent backup\n\ndir: usb\n\tpath /mnt/usb\n\tcontent backup\n\n\
         dir: off\n\tpath /mnt/off\n\tcontent backup\n\tdisable\n",
    );
    let sys = Recorded::new()
        .file(
            "/var/lib/vz/dump/vzdump-qemu-100-2026_11_19-18_00_00.vma.zst",
            "",
        )
        .file(
            "/mnt/usb/dump/vzdump-qemu-100-2026_11_20-18_00_00.vma.zst",
            "",
        )
        .file(
            "/mnt/usb/dump/vzdump-qemu-100-2026_11_22-18_00_00.vma.dat",
            "",
        )
        .file("/mnt/off/dump/vzdump-qemu-100-2026_11_21-18_00_00.vma", "")
        .file("/mnt/usb/dump/vzdump-lxc-100-2026_11_21-18_00_00.tar", "");
    let find = |kind| newest(&sys, &parse(100, kind, ""), &storages, "pve1");
    let found = find(Kind::Qemu).unwrap();
    assert!(found.path.starts_with("/mnt/usb") && found.begun.starts_with("2026_11_20"));
    assert!(find(Kind::Lxc).is_ok());
    let none = newest(&sys, &parse(101, Kind::Lxc, ""), &storages, "pve1");
    let none = none.unwrap_err().to_string();
    assert!(none.contains("/var/lib/vz/dump, /mnt/usb/dump"), "{none}");
}

#[test]
fn times_of_names_are_local() {
    let time = local_to_utc("2026_11_20-18_00_00").unwrap();
    // As the system's own tool has it, in whatever time zone this runs.
    let date = Cmd::new("date").args(["-d", "2026-11-20 18:00:00", "+%s"]);
    let date = layout::system::System::run(&layout::system::Host, &date).unwrap();
    let seconds: i64 = date.text().trim().parse().unwrap();
    assert_eq!(time, bundle::time::rfc3339(seconds * 1000));
    assert_eq!(local_to_utc("2026_11_20"), None);
}
