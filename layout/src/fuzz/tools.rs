//! What tools and the kernel print.

use std::path::Path;

use crate::capture::{boot, devices, fs, luks, lvm, mount, raid};
use crate::model::NodeId;
use crate::system::Recorded;

pub(super) fn outputs() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../tests/recorded/dumpe2fs.txt").to_vec(),
        br#"{"report":[{"lv":[{"lv_name":"data","lv_size":"53","lv_tags":["a",1],"zero":null}]}],"log":[]}"#.to_vec(),
        b"ID_FS_LABEL_ENC=a\\x20b\nID_FS_TYPE=ext4\nID_FS_UUID_ENC=x-y\n".to_vec(),
        b"BootOrder: 0004,0000\nBoot0004* proxmox\tHD(2,GPT,5E0F,0x800,0x100)/File(\\EFI\\shimx64.efi)\n\
          Boot0005  \xc3\xa4\tHD(2,GPT,5e0f,0x8)/\\EFI\\debian\\grubx64.efi0000\n".to_vec(),
        b"/dev/pve/root / ext4 errors=remount-ro 0 1\nUUID=AB-CD /boot/a\\040b vfat\n".to_vec(),
        include_bytes!("../../tests/recorded/mdadm-detail-export.txt").to_vec(),
        b"31 30 8:3 /sub /target/a\\040b ro shared:1 - xfs /dev/sda3 rw\n".to_vec(),
    ]
}

pub(super) fn output(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let _ = fs::parse_dumpe2fs(&text, NodeId::new("x"), "ext4");
    for row in lvm::parse(&text, "lv").unwrap_or_default() {
        let _ = (row.bytes("lv_size"), row.tags("lv_tags"), row.text("zero"));
    }
    devices::parse_blkid(&text);
    boot::parse_efibootmgr(&text);
    raid::parse_export(&text);
    let _ = luks::parse_luks1(&text);
    let _ = luks::parse_luks2(&text);
    luks::parse_crypttab(&text);
    for level in ["raid0", "raid5", "raid10"] {
        let _ = raid::layout_name(level, text.parse().unwrap_or(text.len() as i64));
    }
    mount::parse_fstab(&text);
    let sys = Recorded::new()
        .file("/proc/self/mountinfo", data)
        .file("/proc/swaps", data);
    let _ = mount::mounted(&sys, Path::new("/target"));
    mount::active_swaps(&sys);
    lvm::is_guest_volume(&text);
}
