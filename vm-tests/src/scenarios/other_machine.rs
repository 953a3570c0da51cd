//! A host comes back on a machine that is not like its own: the other firmware, another bus, sectors of another size, a
//! smaller disk. It boots there, its files are the same, and nothing names a disk that is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::{DISK_BYTES, Golden, Host, cache_dir};
use crate::process::run;
use crate::product::Product;
use crate::qemu::{Bus, Drive, Firmware, Machine};
use crate::runner::Scenario;
use crate::saved::{self, HOST_SERIAL, STICK_SERIAL};
use crate::verdict::manifest_differences;

/// What one of these scenarios does.
struct Story {
    name: &'static str,
    about: &'static str,
    /// How the host was started before, and what its disk was attached to.
    before: (Firmware, Bus),
    /// What is done to the golden host first.
    change: &'static str,
    /// How the machine starts that it comes back on, and what its disk is attached to.
    after: (Firmware, Bus),
    /// Size of the disk there.
    bytes: u64,
    /// Its sectors.
    sector: u32,
    /// Files that are not to be as they were.
    rewritten: &'static [&'static str],
    /// What has to succeed on the restored host.
    check: &'static str,
}

/// As the Proxmox VE installer leaves a host that it was started through BIOS on: the EFI system partition is there, has a
/// filesystem without files, and is not mounted.
const BIOS_ONLY: &str = "set -e
    esp=$(findmnt -no SOURCE /boot/efi)
    rm -rf /boot/efi/*
    umount /boot/efi
    sed -i '\\|/boot/efi|d' /etc/fstab
    rm -rf /boot/grub/x86_64-efi
    systemctl daemon-reload
    test ! -d /sys/firmware/efi";

/// No boot code in the MBR, nothing in the BIOS boot partition.
const UEFI_ONLY: &str = "set -e
    test -d /sys/firmware/efi
    disk=$(lsblk -dnpo NAME,SERIAL | awk '$2 == \"GOLDEN\" {print $1}')
    dd if=/dev/zero of=$disk bs=440 count=1 conv=notrunc,fsync status=none
    first=$(lsblk -nrpo NAME,PARTTYPE $disk | awk 'tolower($2) ~ /^21686148/ {print $1}')
    dd if=/dev/zero of=$first bs=1024 count=1007 conv=notrunc,fsync status=none
    rm -rf /boot/grub/i386-pc";

/// Names that lead to nothing on another bus, wherever a host may have them.
const KERNEL_NAMES: &str = "set -e
    test \"$(findmnt -no SOURCE /boot/efi)\" = /dev/sda2
    sed -i 's|^UUID=[^ ]* /boot/efi|/dev/sda2 /boot/efi|' /etc/fstab
    printf '/dev/disk/by-id/ata-QEMU_HARDDISK_GOLDEN-part2 /mnt/esp vfat noauto,ro 0 0\\n' >>/etc/fstab
    sed -i 's|quiet|quiet resume=/dev/disk/by-id/ata-QEMU_HARDDISK_GOLDEN-part2 noresume|' /etc/default/grub
    mkdir -p /etc/mdadm /etc/kernel /mnt/esp
    printf 'DEVICE /dev/sda3\\nMAILADDR root\\n' >/etc/mdadm/mdadm.conf
    printf 'root=/dev/mapper/pve-root bootdev=/dev/sda2\\n' >/etc/kernel/cmdline
    printf '(hd0)\\t/dev/disk/by-id/ata-QEMU_HARDDISK_GOLDEN\\n' >/boot/grub/device.map
    mkdir -p /etc/lvm/devices
    printf 'IDTYPE=sys_serial IDNAME=GOLDEN DEVNAME=/dev/sda3 PVID=x PART=3\\n' >/etc/lvm/devices/system.devices";

const NOTHING_STALE: &str = "set -e
    test -b /dev/nvme0n1p3
    ! grep -HE '^[^#]*(/dev/sd[a-z]|GOLDEN)' /etc/fstab /etc/default/grub /etc/kernel/cmdline /etc/mdadm/mdadm.conf \\
        /boot/grub/grub.cfg /proc/cmdline
    test ! -e /boot/grub/device.map && test ! -e /etc/lvm/devices/system.devices
    grep -q '^DEVICE partitions$' /etc/mdadm/mdadm.conf
    test \"$(findmnt -no SOURCE /boot/efi)\" = /dev/nvme0n1p2
    umount /boot/efi && mount /mnt/esp && umount /mnt/esp && mount /boot/efi";

const STORIES: [Story; 5] = [
    Story {
        name: "bios-to-uefi",
        about: "a host that boots through BIOS only comes back on a machine with UEFI only, and boots there",
        before: (Firmware::Bios, Bus::Virtio),
        change: BIOS_ONLY,
        after: (Firmware::Uefi, Bus::Virtio),
        bytes: DISK_BYTES,
        sector: 512,
        rewritten: &["/etc/fstab"],
        check: "test -d /sys/firmware/efi && findmnt -no FSTYPE /boot/efi | grep -qx vfat \
                && grep -q '^UUID=.* /boot/efi vfat ' /etc/fstab && test -e /boot/efi/EFI/debian/grubx64.efi \
                && test -e /boot/efi/EFI/BOOT/BOOTX64.EFI",
    },
    Story {
        name: "uefi-to-bios",
        about: "a host that boots through UEFI only comes back on a machine with BIOS, and boots there",
        before: (Firmware::Uefi, Bus::Virtio),
        change: UEFI_ONLY,
        after: (Firmware::Bios, Bus::Virtio),
        bytes: DISK_BYTES,
        sector: 512,
        rewritten: &[],
        check: "test ! -d /sys/firmware/efi",
    },
    Story {
        name: "nvme-from-sda",
        about: "a host on SATA whose files name its disk comes back on NVMe, boots, and names no disk that is gone",
        before: (Firmware::Bios, Bus::Sata),
        change: KERNEL_NAMES,
        after: (Firmware::Uefi, Bus::Nvme),
        bytes: DISK_BYTES,
        sector: 512,
        rewritten: &[
            "/etc/fstab",
            "/etc/default/grub",
            "/etc/kernel/cmdline",
            "/etc/mdadm/mdadm.conf",
            "/etc/default",
            "/etc/kernel",
            "/etc/mdadm",
        ],
        check: NOTHING_STALE,
    },
    Story {
        name: "smaller-disk",
        about: "a host comes back on a disk that is 40 % smaller, boots, and has all its files",
        before: (Firmware::Bios, Bus::Virtio),
        change: "true",
        after: (Firmware::Bios, Bus::Virtio),
        bytes: DISK_BYTES / 10 * 6 / (1 << 20) * (1 << 20),
        sector: 512,
        rewritten: &[],
        check: "lvs pve/data pve/root pve/swap",
    },
    Story {
        name: "4kn",
        about: "a host on sectors of 512 bytes comes back on a disk with sectors of 4096, and boots through UEFI",
        before: (Firmware::Uefi, Bus::Virtio),
        change: "true",
        after: (Firmware::Uefi, Bus::Nvme),
        bytes: DISK_BYTES,
        sector: 4096,
        rewritten: &[],
        check: "test \"$(blockdev --getss /dev/nvme0n1)\" = 4096",
    },
];

/// The scenarios.
pub fn scenarios(artefacts: &Path) -> Vec<Scenario> {
    let all = STORIES.iter().map(|story| {
        let artefacts = artefacts.to_owned();
        Scenario::new(story.name, story.about, needs, move |log| {
            tell(story, &artefacts, log)
        })
        .long()
    });
    all.collect()
}

fn needs() -> Result<(), String> {
    super::needs_bios()?;
    super::needs_uefi()
}

const MANIFEST: &str = "golden-manifest";

fn tell(story: &Story, artefacts: &Path, log: &Artefacts) -> Result<()> {
    let golden = Golden::get(Host::PveExt4, &cache_dir(), artefacts)?;
    let product = Product::find().map_err(anyhow::Error::msg)?;
    let stick = log.path("stick.raw");
    let before = save(story, &golden, &product, &stick, log)?;

    let disk = format!("disk:{}", disk::guid_text(&disk::gpt(&golden.disk())?.id)?);
    let arm = product
        .command(log)?
        .args(["arm", "--on"])
        .arg(&stick)
        .args(["--then", "poweroff", "--disk"])
        .arg(format!("{disk}={}", rescue::TARGET_SERIAL));
    run(&arm, log, Duration::from_secs(120))?;

    let (firmware, bus) = story.after;
    let target = log.path("target.raw");
    disk::blank(&target, story.bytes)?;
    let drive = |image: PathBuf| Drive::new(image, bus, rescue::TARGET_SERIAL).sector(story.sector);
    let mut machine = rescue::machine(firmware, &stick)
        .drive(drive(target.clone()))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    machine.quit()?;

    let boot = log.path("boot.qcow2");
    disk::overlay(&target, &boot, log)?;
    let mut host = Machine::new("restored", firmware)
        .drive(drive(boot))
        .start(log)?;
    host.serial
        .expect("golden login:", Duration::from_secs(400))
        .context("the restored disk does not boot alone")?;
    log.note("the restored host shows its login prompt");
    host.channel.ready(Duration::from_secs(120))?;
    let mut ask = |script: &str, seconds| -> Result<String> {
        let output = host.channel.run(script, Duration::from_secs(seconds))?;
        Ok(String::from_utf8(output)?)
    };
    ask("systemctl is-system-running --wait || true", 240)?;
    ask(story.check, 120).context("the restored host is not as it should be")?;
    let failed = ask("systemctl list-units --failed --plain --no-legend", 60)?;
    ensure!(failed.trim().is_empty(), "units failed: {failed}");
    let after = ask(MANIFEST, 600)?;
    std::fs::write(log.path("manifest.before"), &before)?;
    std::fs::write(log.path("manifest.after"), &after)?;
    let mut other = manifest_differences(&before, &after);
    other.retain(|line| {
        let path = line.split(": ").next().unwrap_or_default();
        !story.rewritten.contains(&path)
    });
    ensure!(other.is_empty(), "files differ:\n{}", other.join("\n"));
    host.shut_down()
}

/// Changes the golden host and has it save itself. Returns the manifest of its files.
fn save(
    story: &Story,
    golden: &Golden,
    product: &Product,
    stick: &Path,
    log: &Artefacts,
) -> Result<String> {
    let (firmware, bus) = story.before;
    let (root, share) = (log.path("root.qcow2"), log.path("share"));
    disk::overlay(&golden.disk(), &root, log)?;
    disk::blank(stick, 4 * GIB)?;
    product.copy_to(&share, log)?;
    let mut host = Machine::new("host", firmware)
        .memory(2048)
        .share(&share)
        .drive(Drive::new(&root, bus, HOST_SERIAL))
        .drive(Drive::new(stick, Bus::Usb, STICK_SERIAL))
        .start(log)?;
    host.channel.ready(Duration::from_secs(240))?;
    host.channel.run(story.change, Duration::from_secs(120))?;
    let manifest = host.channel.run(MANIFEST, Duration::from_secs(600))?;
    log.note("changed, and its files listed");
    saved::save(&mut host, log)?;
    host.shut_down()?;
    Ok(String::from_utf8(manifest)?)
}
