//! LUKS through `cryptsetup luksDump`, and crypttab.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::devices::Probe;
use super::{Capture, CaptureError};
use crate::model::{CrypttabEntry, Luks, Node, NodeId};
use crate::system::{BlockDevice, Cmd, System, SystemError};
use crate::units::{Bytes, SectorSize};

/// Tokens that only the machine, or what is plugged into it, can use. `systemd-recovery` is a passphrase.
const BOUND: [&str; 5] = [
    "systemd-tpm2",
    "systemd-fido2",
    "systemd-pkcs11",
    "clevis",
    "tpm2",
];

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Header {
    pub cipher: String,
    pub key_bits: u32,
    pub sector_size: u32,
    pub data_offset: Bytes,
    pub header_size: Bytes,
    pub flags: Vec<String>,
    pub key_slots: u32,
    pub bound_slots: u32,
    pub tokens: Vec<String>,
    /// Room, where it is not all that is left of the device.
    pub size: Option<Bytes>,
}

impl Capture<'_> {
    /// Adds a container, and what is in it when it is open.
    pub(super) fn luks(
        &mut self,
        device: &BlockDevice,
        on: &NodeId,
        probe: &Probe,
    ) -> Result<(), CaptureError> {
        let header = match read_header(self.sys, &device.node, probe)? {
            Ok(header) => header,
            Err(reason) => {
                let meaning = format!("{reason}: the container and what is in it are not restored");
                self.unsupported(device, vec![on.clone()], "crypto_LUKS", &meaning);
                return Ok(());
            }
        };
        let uuid = probe.uuid.clone().unwrap_or_default();
        let id = NodeId::luks(&uuid);
        let path = device.node.display();
        if self.layout.nodes.contains_key(&id) {
            let meaning = "it is a copy of a container that is known already, with the same UUID: it is not restored";
            self.unsupported(device, vec![on.clone()], "crypto_LUKS", meaning);
            return Ok(());
        }
        if header.key_slots == header.bound_slots {
            self.layout.warnings.push(format!(
                "{path}: nothing but this machine opens the container ({}): on another one its contents cannot be \
                 restored in place. Add a passphrase or a recovery key (systemd-cryptenroll --recovery-key)",
                header.tokens.join(", ")
            ));
        }
        let mapped = self.opened(device, &uuid);
        let name = mapped
            .as_ref()
            .and_then(|m| self.devices.sysfs(m, "dm/name"))
            .unwrap_or_else(|| format!("luks-{uuid}"));
        let room = match header.size {
            Some(size) => size,
            None => self
                .devices
                .size(device)
                .minus(header.data_offset)
                .round_down(Bytes(header.sector_size.into())),
        };
        self.layout.nodes.insert(
            id.clone(),
            Node::Luks(Luks {
                on: on.clone(),
                device: Path::new("/dev/mapper").join(&name),
                name,
                uuid,
                version: if probe.version.as_deref() == Some("1") {
                    1
                } else {
                    2
                },
                label: probe.label.clone(),
                cipher: header.cipher,
                key_bits: header.key_bits,
                sector_size: SectorSize(header.sector_size),
                data_offset: header.data_offset,
                header_size: header.header_size,
                flags: header.flags,
                key_slots: header.key_slots,
                bound_slots: header.bound_slots,
                tokens: header.tokens,
                open: mapped.is_some(),
                size: room,
                crypttab: None,
            }),
        );
        match mapped {
            None => self.layout.warnings.push(format!(
                "{path}: the LUKS container is not open: its header is kept, what is in it is not known and not restored"
            )),
            Some(mapped) => {
                if !self.content(&mapped, &id)? {
                    self.layout.warnings.push(format!(
                        "{path}: no filesystem that is known in the LUKS container: its contents are not restored"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The mapping of an open container. device-mapper's UUID begins with `CRYPT-LUKS2-` and the container's without
    /// hyphens (cryptsetup: lib/libdevmapper.c).
    fn opened(&self, device: &BlockDevice, uuid: &str) -> Option<BlockDevice> {
        let plain = uuid.replace('-', "");
        self.devices
            .holders(device)
            .iter()
            .filter_map(|name| self.devices.list.iter().find(|d| d.name == *name))
            .find(|d| {
                let dm = self.devices.sysfs(d, "dm/uuid").unwrap_or_default();
                dm.starts_with("CRYPT-LUKS") && dm.contains(&plain)
            })
            .cloned()
    }

    /// Adds the lines of crypttab, and the names of containers that were not open.
    pub(super) fn crypttab(&mut self) {
        let text = self
            .sys
            .text(&self.root.join("etc/crypttab"))
            .unwrap_or_default();
        for entry in parse_crypttab(&text) {
            let Some(id) = self.container(&entry.source) else {
                continue;
            };
            if let Some(Node::Luks(luks)) = self.layout.nodes.get_mut(&id) {
                if !luks.open {
                    luks.name.clone_from(&entry.name);
                    luks.device = Path::new("/dev/mapper").join(&entry.name);
                }
                luks.crypttab = Some(entry);
            }
        }
    }

    /// The container that the second field of a crypttab line names.
    fn container(&self, source: &str) -> Option<NodeId> {
        if let Some(uuid) = source.strip_prefix("UUID=") {
            let id = NodeId::luks(&uuid.trim_matches('"').to_lowercase());
            return self.layout.nodes.contains_key(&id).then_some(id);
        }
        let partition = |test: &dyn Fn(&crate::model::Partition) -> bool| {
            self.layout.nodes.values().find_map(|node| match node {
                Node::Partition(part) if test(part) => Some(part.device.clone()),
                _ => None,
            })
        };
        let device: PathBuf = match source.split_once('=') {
            Some(("PARTUUID", uuid)) => partition(&|p| p.partuuid.eq_ignore_ascii_case(uuid))?,
            Some(("PARTLABEL", label)) => partition(&|p| p.name == label)?,
            Some(_) => return None,
            None => PathBuf::from(source),
        };
        let name = self.devices.by_node(&device)?.name.clone();
        let found = self.layout.nodes.iter().find(|(_, node)| {
            matches!(node, Node::Luks(luks) if self.layout.nodes.get(&luks.on).and_then(Node::device)
                .and_then(|d| self.devices.by_node(d)).is_some_and(|d| d.name == name))
        });
        found.map(|(id, _)| id.clone())
    }
}

/// Reads a header. The inner error is why the container cannot be restored.
pub(crate) fn read_header(
    sys: &dyn System,
    device: &Path,
    probe: &Probe,
) -> Result<Result<Header, String>, CaptureError> {
    let dump = Cmd::new("cryptsetup").arg("luksDump");
    let first = probe.version.as_deref() == Some("1");
    let command = if first {
        dump
    } else {
        dump.arg("--dump-json-metadata")
    };
    let text = match sys.run(&command.path(device)) {
        Ok(output) => output.text(),
        Err(SystemError::Start { .. }) => {
            return Ok(Err("cryptsetup is not installed".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(if first {
        parse_luks1(&text)
    } else {
        parse_luks2(&text)
    })
}

/// Parses `cryptsetup luksDump` of a version 1 header.
pub(crate) fn parse_luks1(text: &str) -> Result<Header, String> {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
            .ok_or_else(|| format!("cryptsetup tells no \"{name}\""))
    };
    let number = |name: &str| -> Result<u64, String> {
        field(name)?
            .parse()
            .map_err(|_| format!("cryptsetup's \"{name}\" is not a number"))
    };
    // In sectors of 512 bytes (LUKS1 on-disk format 1.2.3, "payload-offset").
    let offset = Bytes(number("Payload offset")?.saturating_mul(512));
    if offset == Bytes(0) {
        return Err("its header is not on the device (detached)".to_owned());
    }
    let slots = text
        .lines()
        .filter(|l| l.starts_with("Key Slot ") && l.trim_end().ends_with(": ENABLED"));
    Ok(Header {
        cipher: format!("{}-{}", field("Cipher name")?, field("Cipher mode")?),
        key_bits: u32::try_from(number("MK bits")?).unwrap_or(0),
        sector_size: 512,
        data_offset: offset,
        header_size: offset,
        key_slots: slots.count() as u32,
        ..Header::default()
    })
}

/// Parses `cryptsetup luksDump --dump-json-metadata` (LUKS2 on-disk format 1.1.1, chapter 3).
pub(crate) fn parse_luks2(text: &str) -> Result<Header, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let section = |name: &str| json.get(name).and_then(Value::as_object);
    // 64-bit numbers are texts in this format.
    let number = |value: Option<&Value>| -> Option<u64> {
        let value = value?;
        value
            .as_u64()
            .or_else(|| value.as_str().and_then(|s| s.parse().ok()))
    };
    let config = section("config").ok_or("its metadata have no \"config\"")?;
    if let Some(needs) = config
        .get("requirements")
        .and_then(|r| r.get("mandatory"))
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty())
    {
        let words: Vec<&str> = needs.iter().filter_map(Value::as_str).collect();
        return Err(format!(
            "its header asks for {} (if it is being re-encrypted: make a backup when that is over)",
            words.join(", ")
        ));
    }
    let segments = section("segments").ok_or("its metadata have no \"segments\"")?;
    let mut segments = segments.values();
    let (Some(segment), None) = (segments.next(), segments.next()) else {
        return Err("its data are not one segment (is it being re-encrypted?)".to_owned());
    };
    let word = |name: &str| segment.get(name).and_then(Value::as_str);
    if word("type") != Some("crypt") {
        return Err(format!(
            "a segment of type {:?} is not supported",
            word("type")
        ));
    }
    if segment.get("integrity").is_some() {
        return Err("authenticated encryption (with dm-integrity) is not supported".to_owned());
    }
    let offset = number(segment.get("offset")).ok_or("its segment has no offset")?;
    // Two headers, each a binary one of 4 KiB and the JSON area, then the key slots.
    let json_size = number(config.get("json_size")).unwrap_or(0);
    let slots_size = number(config.get("keyslots_size")).unwrap_or(0);
    let header_size = json_size
        .saturating_add(4096)
        .saturating_mul(2)
        .saturating_add(slots_size);
    if offset < header_size || json_size == 0 {
        return Err("its header is not on the device (detached)".to_owned());
    }
    let keyslots = section("keyslots");
    let mut bound = std::collections::BTreeSet::new();
    let mut tokens = Vec::new();
    for token in section("tokens").into_iter().flat_map(|t| t.values()) {
        let kind = token
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or("unknown");
        tokens.push(kind.to_owned());
        if BOUND.contains(&kind) {
            let slots = token.get("keyslots").and_then(Value::as_array);
            bound.extend(slots.into_iter().flatten().filter_map(Value::as_str));
        }
    }
    tokens.sort();
    let mut flags: Vec<String> = config
        .get("flags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    flags.sort();
    let in_use = |slot: &&str| keyslots.is_some_and(|k| k.contains_key(*slot));
    let key_bytes = keyslots
        .into_iter()
        .flat_map(|k| k.values())
        .filter_map(|slot| number(slot.get("key_size")))
        .max();
    Ok(Header {
        cipher: word("encryption").unwrap_or_default().to_owned(),
        key_bits: key_bytes
            .and_then(|bytes| u32::try_from(bytes.saturating_mul(8)).ok())
            .unwrap_or(0),
        sector_size: number(segment.get("sector_size"))
            .and_then(|s| u32::try_from(s).ok())
            .unwrap_or(512),
        data_offset: Bytes(offset),
        header_size: Bytes(header_size),
        flags,
        key_slots: keyslots.map_or(0, |k| k.len() as u32),
        bound_slots: bound.iter().filter(|slot| in_use(slot)).count() as u32,
        tokens,
        size: number(segment.get("size")).map(Bytes),
    })
}

/// Parses crypttab(5).
pub(crate) fn parse_crypttab(text: &str) -> Vec<CrypttabEntry> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some(CrypttabEntry {
                name: fields.next()?.to_owned(),
                source: fields.next()?.to_owned(),
                key: fields.next().unwrap_or("none").to_owned(),
                options: fields
                    .next()
                    .unwrap_or_default()
                    .split(',')
                    .filter(|o| !o.is_empty())
                    .map(str::to_owned)
                    .collect(),
            })
        })
        .collect()
}

/// Writes a container's header to a new file, which nobody else may read.
pub fn backup_header(sys: &dyn System, device: &Path, file: &Path) -> Result<(), SystemError> {
    sys.run(
        &Cmd::new("cryptsetup")
            .args(["luksHeaderBackup", "--batch-mode", "--header-backup-file"])
            .path(file)
            .path(device),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LUKS1: &str = include_str!("../../tests/recorded/luksdump-1.txt");
    const LUKS2: &str = include_str!("../../tests/recorded/luksdump-2.json");

    #[test]
    fn a_header_of_version_1_is_understood() {
        let header = parse_luks1(LUKS1).unwrap();
        assert_eq!(
            (header.cipher.as_str(), header.key_bits),
            ("aes-xts-plain64", 512)
        );
        assert_eq!(header.data_offset, Bytes::mib(2));
        assert_eq!((header.key_slots, header.bound_slots), (1, 0));
        let detached = LUKS1.replace("4096", "0");
        assert!(parse_luks1(&detached).unwrap_err().contains("detached"));
        assert!(parse_luks1("").unwrap_err().contains("Payload offset"));
    }

    #[test]
    fn a_header_of_version_2_is_understood() {
        let header = parse_luks2(LUKS2).unwrap();
        assert_eq!(
            (header.cipher.as_str(), header.key_bits),
            ("aes-xts-plain64", 512)
        );
        assert_eq!(
            (header.data_offset, header.header_size),
            (Bytes::mib(16), Bytes::mib(16))
        );
        assert_eq!(header.flags, ["allow-discards"]);
        assert_eq!(header.sector_size, 4096);
        assert_eq!((header.key_slots, header.bound_slots), (1, 0));
        assert_eq!(header.size, None, "all of the device");
    }

    fn with(change: impl FnOnce(&mut Value)) -> Result<Header, String> {
        let mut json: Value = serde_json::from_str(LUKS2).unwrap();
        change(&mut json);
        parse_luks2(&json.to_string())
    }

    #[test]
    fn slots_of_a_tpm_are_told_from_passphrases() {
        let header = with(|json| {
            json["tokens"]["0"] = serde_json::json!({"type": "systemd-tpm2", "keyslots": ["0"]});
            json["tokens"]["1"] =
                serde_json::json!({"type": "systemd-recovery", "keyslots": ["1"]});
        })
        .unwrap();
        assert_eq!((header.key_slots, header.bound_slots), (1, 1));
        assert_eq!(header.tokens, ["systemd-recovery", "systemd-tpm2"]);
    }

    #[test]
    fn what_cannot_be_restored_is_refused() {
        for (error, words) in [
            (
                with(|j| {
                    j["config"]["requirements"] =
                        serde_json::json!({"mandatory": ["online-reencrypt-v2"]})
                }),
                "re-encrypted",
            ),
            (
                with(|j| j["segments"]["1"] = j["segments"]["0"].clone()),
                "one segment",
            ),
            (
                with(|j| j["segments"]["0"]["offset"] = "0".into()),
                "detached",
            ),
            (
                with(|j| j["segments"]["0"]["integrity"] = serde_json::json!({})),
                "dm-integrity",
            ),
            (parse_luks2("{"), "EOF"),
        ] {
            let error = error.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn crypttab_lines_are_understood() {
        let entries =
            parse_crypttab("# x\nroot UUID=1-2 none luks,discard\n\ndata /dev/sdb1 /etc/key\n");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].options, ["luks", "discard"]);
        assert_eq!(
            (entries[1].key.as_str(), entries[1].options.len()),
            ("/etc/key", 0)
        );
    }
}
