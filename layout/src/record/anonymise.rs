//! Takes out of a recording what tells whose machine it is, and what nobody asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::disk;
use super::names::Names;
use crate::capture::devices::unescape;
use crate::system::{BlockDevice, DiskFacts, Output, Recorded};

/// Properties of udev that tell about storage. Paths of devices may hold names and addresses of servers: they go.
const PROPERTIES: [&str; 15] = [
    "ID_FS_",
    "ID_PART_",
    "ID_BUS",
    "ID_TYPE",
    "ID_MODEL",
    "ID_VENDOR",
    "ID_REVISION",
    "ID_SERIAL",
    "ID_SCSI",
    "ID_WWN",
    "ID_ATA_",
    "DM_",
    "MD_",
    "MAJOR",
    "MINOR",
];

/// Parameters of the kernel that tell about storage.
const PARAMETERS: [&str; 9] = [
    "BOOT_IMAGE",
    "root",
    "rootflags",
    "rootfstype",
    "resume",
    "ro",
    "rw",
    "quiet",
    "boot",
];

/// Takes a machine's answers, and the names that it goes by.
pub(super) fn anonymise(real: Recorded, hosts: impl Iterator<Item = String>) -> Recorded {
    let mut names = Names::new();
    hosts.for_each(|host| names.host(&host));
    for image in real.images.values() {
        disk::known_first(image, &mut names);
    }
    // Serial numbers first: then they are known wherever they are met.
    let devices: Vec<BlockDevice> = real.devices.into_iter().map(wanted).collect();
    for device in &devices {
        identifiers(device, &mut names);
    }
    for (path, content) in &real.files {
        let text = String::from_utf8_lossy(content);
        match file_name(path) {
            "serial" => drop(names.serial(clean(&text))),
            "wwid" => drop(names.wwn(clean(&text))),
            _ => {}
        }
    }
    let facts: Vec<_> = real.facts.into_iter().collect();
    for serial in facts.iter().filter_map(|(_, f)| f.serial.as_deref()) {
        names.serial(serial);
    }

    let mut fake = Recorded {
        devices: devices.into_iter().map(|d| device(d, &mut names)).collect(),
        ..Recorded::default()
    };
    for (path, content) in real.files {
        let content = file(&path, &content, &mut names);
        fake.files.insert(place(&path, &mut names), content);
    }
    for (line, output) in real.commands {
        let output = Output {
            stdout: command(&line, &output.stdout, &mut names),
            stderr: names
                .text(&String::from_utf8_lossy(&output.stderr))
                .into_bytes(),
            ..output
        };
        fake.commands.insert(names.text(&line), output);
    }
    for (path, list) in real.dirs {
        // The directory of kernels, or an EFI system partition, may hold anything else.
        let esp = list.iter().any(|name| name.eq_ignore_ascii_case("EFI"));
        let list = list
            .iter()
            .filter(|name| match esp {
                true => super::esp::is_known(name),
                false => !path.ends_with("boot") || name.starts_with("vmlinuz-"),
            })
            .map(|name| names.text(name))
            .collect();
        fake.dirs.insert(place(&path, &mut names), list);
    }
    for (path, target) in real.links {
        let (path, target) = (place(&path, &mut names), place(&target, &mut names));
        fake.links.insert(path, target);
    }
    fake.present = real.present.iter().map(|p| place(p, &mut names)).collect();
    for (path, usage) in real.usage {
        fake.usage.insert(place(&path, &mut names), usage);
    }
    for (path, uuid) in real.uuids {
        let uuid = names.serial(&uuid);
        fake.uuids.insert(place(&path, &mut names), uuid);
    }
    for (path, facts) in facts {
        let facts = DiskFacts {
            serial: facts.serial.map(|s| names.serial(&s)),
            ..facts
        };
        fake.facts.insert(place(&path, &mut names), facts);
    }
    for (path, image) in real.images {
        let image = disk::anonymous(&image, &mut names);
        fake.images.insert(place(&path, &mut names), image);
    }
    fake
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default()
}

fn clean(text: &str) -> &str {
    text.trim_matches(['\0', ' ', '\n', '\t'])
}

fn place(path: &Path, names: &mut Names) -> PathBuf {
    let text = path.to_string_lossy();
    match text.strip_prefix("/dev/disk/by-label/") {
        Some(label) => {
            let label = names.label(&unescape(label));
            PathBuf::from(format!("/dev/disk/by-label/{}", escape(&label)))
        }
        None => PathBuf::from(names.text(&text)),
    }
}

fn is_wanted(property: &str) -> bool {
    PROPERTIES.iter().any(|p| property.starts_with(p))
}

/// Of two spellings of the same the one that keeps all characters, or that has the number alone.
fn spelled_twice(properties: &BTreeMap<String, String>, property: &str) -> bool {
    properties.contains_key(&format!("{property}_ENC"))
        || property == "ID_SERIAL" && properties.contains_key("ID_SERIAL_SHORT")
}

fn wanted(device: BlockDevice) -> BlockDevice {
    let all = device.properties;
    BlockDevice {
        properties: all
            .iter()
            .filter(|(name, _)| is_wanted(name) && !spelled_twice(&all, name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        ..device
    }
}

/// Makes the identifiers of a device known.
fn identifiers(device: &BlockDevice, names: &mut Names) {
    let get = |name: &str| device.properties.get(name).filter(|v| !v.is_empty());
    for name in ["ID_SERIAL_SHORT", "ID_SCSI_SERIAL"] {
        if let Some(value) = get(name) {
            names.serial(value);
        }
    }
    for name in ["ID_WWN", "ID_WWN_WITH_EXTENSION", "ID_WWN_VENDOR_EXTENSION"] {
        if let Some(value) = get(name) {
            names.wwn(value);
        }
    }
    if let Some(value) = get("ID_SERIAL") {
        names.serial(value);
    }
    for name in [
        "ID_FS_UUID",
        "ID_FS_UUID_ENC",
        "ID_FS_UUID_SUB_ENC",
        "ID_PART_TABLE_UUID",
        "ID_PART_ENTRY_UUID",
    ] {
        if let Some(value) = get(name) {
            names.serial(value);
        }
    }
    if let Some(kind) = get("ID_PART_ENTRY_TYPE") {
        names.keep(kind);
    }
}

fn device(device: BlockDevice, names: &mut Names) -> BlockDevice {
    BlockDevice {
        node: place(&device.node, names),
        properties: device
            .properties
            .into_iter()
            .map(|(name, value)| {
                let value = property(&name, &value, names);
                (name, value)
            })
            .collect(),
        ..device
    }
}

fn property(name: &str, value: &str, names: &mut Names) -> String {
    match name {
        "ID_SERIAL" | "ID_SERIAL_SHORT" | "ID_SCSI_SERIAL" => names.serial(value),
        "ID_WWN" | "ID_WWN_WITH_EXTENSION" | "ID_WWN_VENDOR_EXTENSION" => names.wwn(value),
        "ID_FS_LABEL" | "ID_FS_LABEL_ENC" | "ID_PART_ENTRY_NAME" => {
            escape(&names.label(&unescape(value)))
        }
        "ID_PART_ENTRY_TYPE" => value.to_owned(),
        _ => names.text(value),
    }
}

/// As udev writes what is no letter, digit or one of a few signs (libudev: `udev_util_encode_string`).
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || "#+-.:=@_/".contains(c) {
            out.push(c);
        } else {
            let mut buf = [0; 4];
            for byte in c.encode_utf8(&mut buf).bytes() {
                out.push_str(&format!("\\x{byte:02x}"));
            }
        }
    }
    out
}

/// A file as far as it is about storage.
fn file(path: &Path, content: &[u8], names: &mut Names) -> Vec<u8> {
    if path.ends_with("etc/hostid") {
        return super::zfs::HOSTID.to_vec();
    }
    let Ok(text) = std::str::from_utf8(content) else {
        // The variable Secure Boot, and nothing else that is not text.
        return match file_name(path).starts_with("SecureBoot-") {
            true => content.to_vec(),
            false => Vec::new(),
        };
    };
    let lines = |keep: &dyn Fn(&str) -> bool| -> String {
        let kept = text.lines().filter(|l| keep(l));
        kept.map(|l| format!("{l}\n")).collect()
    };
    let name = path.to_string_lossy();
    let kept = match &*name {
        "/proc/meminfo" => lines(&|l| l.starts_with("MemTotal:")),
        "/proc/cmdline" => {
            let of_storage = |word: &&str| {
                let name = word.split('=').next().unwrap_or_default();
                PARAMETERS.contains(&name)
            };
            text.split_whitespace()
                .filter(of_storage)
                .collect::<Vec<_>>()
                .join(" ")
        }
        "/proc/self/mountinfo" => lines(&of_a_device),
        p if p.ends_with("/etc/fstab") => {
            return fstab(text, names).into_bytes();
        }
        p if p.contains("/etc/initramfs-tools/") => lines(&|l| l.trim().starts_with("MODULES=")),
        _ => match file_name(path) {
            "serial" if !clean(text).is_empty() => names.serial(clean(text)),
            "wwid" if !clean(text).is_empty() => names.wwn(clean(text)),
            _ => text.to_owned(),
        },
    };
    names.text(&kept).into_bytes()
}

/// Whether a line of mountinfo is of a filesystem on a disk, or the root: numbers of the kernel's own begin with 0.
fn of_a_device(line: &str) -> bool {
    let mut fields = line.split_whitespace();
    let number = fields.nth(2).unwrap_or_default();
    let at = fields.nth(1).unwrap_or_default();
    let kind = line
        .split_once(" - ")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .unwrap_or_default();
    !number.starts_with("0:") || at == "/" || matches!(kind, "btrfs" | "zfs" | "bcachefs")
}

/// Lines that name a device. Those of servers, with names and passwords, and remarks go.
fn fstab(text: &str, names: &mut Names) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = line.trim();
        let spec = line.split_whitespace().next().unwrap_or_default();
        let by_tag = ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID="];
        let kind = line.split_whitespace().nth(2).unwrap_or_default();
        if !spec.starts_with("/dev/")
            && !by_tag.iter().any(|t| spec.starts_with(t))
            && kind != "zfs"
        {
            continue;
        }
        let rest = names.text(&line[spec.len()..]);
        let spec = match spec.split_once("LABEL=") {
            Some((kind @ ("" | "PART"), label)) => {
                let label = names.label(&crate::capture::mount::unescape(label.trim_matches('"')));
                // fstab(5): a space is \040.
                format!("{kind}LABEL={}", label.replace(' ', "\\040"))
            }
            _ => place(Path::new(spec), names).display().to_string(),
        };
        out.push_str(&format!("{spec}{rest}\n"));
    }
    out
}

/// What a program printed, as far as it is about storage.
fn command(line: &str, stdout: &[u8], names: &mut Names) -> Vec<u8> {
    let text = String::from_utf8_lossy(stdout);
    let program = line.split_whitespace().next().unwrap_or_default();
    let each = |names: &mut Names, change: &dyn Fn(&mut Names, &str) -> Option<String>| {
        let mut out = String::new();
        for line in text.lines() {
            if let Some(line) = change(names, line) {
                out.push_str(&line);
                out.push('\n');
            }
        }
        out
    };
    match program {
        "dumpe2fs" => each(names, &|names, line| {
            Some(match line.split_once(':') {
                Some(("Filesystem volume name", label)) if label.trim() != "<none>" => {
                    format!("Filesystem volume name:   {}", names.label(label.trim()))
                }
                Some(("Last mounted on", _)) => {
                    "Last mounted on:          <not available>".to_owned()
                }
                _ => names.text(line),
            })
        }),
        "blkid" => each(names, &|names, line| {
            let (name, value) = line.trim().split_once('=')?;
            let value = match name {
                "ID_FS_UUID" | "ID_FS_UUID_ENC" => names.serial(value),
                _ => property(name, value, names),
            };
            is_wanted(name).then(|| format!("{name}={value}"))
        }),
        // Other entries hold network cards' addresses and more: of them the name stays.
        "efibootmgr" => each(names, &|names, line| {
            Some(match line.split_once('\t') {
                Some((name, path)) if !path.starts_with("HD(") => names.text(name),
                _ => names.text(line),
            })
        }),
        "zpool" | "zfs" | "zdb" => {
            each(names, &|names, line| super::zfs::line(program, line, names))
        }
        _ => names.text(&text),
    }
    .into_bytes()
}
