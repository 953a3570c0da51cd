//! Guests: what a dump of one says about it, and how a host's restore point names the dumps of its guests.
//!
//! The dump of a guest is a snapshot of its own, with the kind [`KIND`]: guests are kept longer than the host's restore
//! points, lie on other targets, and one that fails takes no other along.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Id, bytes};

/// [`super::Snapshot::kind`] of the dump of a guest.
pub const KIND: &str = "guest";

/// What a guest is, in the words of Proxmox VE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A virtual machine: its dump has block images, and no tree.
    Qemu,
    /// A container: its dump has one tree, `/`, with what is mounted in it.
    Lxc,
}

impl fmt::Display for GuestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GuestKind::Qemu => "VM",
            GuestKind::Lxc => "CT",
        })
    }
}

/// `VM 100 (web)`, for people: names come from others, and must not steer a terminal.
pub fn title(kind: GuestKind, id: u32, name: Option<&str>) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    match name {
        Some(name) if !name.is_empty() => {
            let name: String = name.chars().map(printable).collect();
            format!("{kind} {id} ({name})")
        }
        _ => format!("{kind} {id}"),
    }
}

/// The dump of one guest, beside its images and trees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestDump {
    /// Its number on the node.
    pub id: u32,
    /// What it is.
    pub kind: GuestKind,
    /// Its name; not every guest has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When its state is of, RFC 3339 in UTC: the snapshot's own time, or that of the file that was imported.
    pub dumped: String,
    /// Where it came from: `vzdump`, or the path of the file that was imported.
    pub source: String,
    /// The archive's small files, in its order: `qemu-server.conf`, `etc/vzdump/pct.conf`, the firewall's rules.
    pub configs: Vec<GuestConfig>,
    /// `uuid` and `ctime` of a VMA archive, to make the same again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vma: Option<VmaIdentity>,
}

impl GuestDump {
    /// A small file of the archive, by the end of its path: `pct.conf`.
    pub fn config(&self, name: &str) -> Option<&[u8]> {
        let named = |c: &&GuestConfig| c.name.rsplit('/').next() == Some(name);
        Some(self.configs.iter().find(named)?.data.as_slice())
    }
}

/// What tells one VMA archive from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmaIdentity {
    /// 16 bytes in hexadecimal digits.
    pub uuid: String,
    /// Seconds since 1970.
    pub ctime: i64,
}

/// A small file beside the guest's disks or files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// As the archive names it.
    pub name: String,
    /// Its content.
    pub data: Vec<u8>,
}

/// Text where it is, so that people can read it in the document.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireConfig {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
}

impl Serialize for GuestConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = String::from_utf8(self.data.clone()).ok();
        WireConfig {
            name: self.name.clone(),
            data_b64: text.is_none().then(|| bytes::to_base64(&self.data)),
            text,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for GuestConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let wire = WireConfig::deserialize(deserializer)?;
        let data = match (wire.text, wire.data_b64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => bytes::from_base64(&text)
                .ok_or_else(|| D::Error::custom("data_b64 is not base64"))?,
            _ => {
                return Err(D::Error::custom(
                    "it has neither or both of text and data_b64",
                ));
            }
        };
        Ok(GuestConfig {
            name: wire.name,
            data,
        })
    }
}

/// A guest of the host, and its newest dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestRef {
    /// Its number.
    pub id: u32,
    /// What it is.
    pub kind: GuestKind,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The snapshot that holds its dump.
    pub snapshot: Id,
    /// [`GuestDump::dumped`] of it.
    pub dumped: String,
    /// The stores that it was written to.
    pub stores: Vec<StoreRef>,
}

/// A store, and where it was when it was written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreRef {
    /// [`crate::store::Store::id`].
    pub id: String,
    /// The target as it was named, for people: `/mnt/backup/lifeboat`.
    pub place: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_cannot_steer_a_terminal() {
        assert_eq!(title(GuestKind::Qemu, 100, None), "VM 100");
        assert_eq!(title(GuestKind::Qemu, 100, Some("")), "VM 100");
        let odd = title(GuestKind::Lxc, 200, Some("a\u{1b}[2J\nb"));
        assert_eq!(odd, "CT 200 (a?[2J?b)");
    }

    #[test]
    fn configurations_stay_as_they_are() {
        for data in [&b"cores: 2\n"[..], b"", b"\xff\0\n"] {
            let config = GuestConfig {
                name: "qemu-server.conf".into(),
                data: data.to_vec(),
            };
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<GuestConfig>(&json).unwrap(), config);
        }
        for wrong in [
            r#"{"name":"a"}"#,
            r#"{"name":"a","text":"","data_b64":""}"#,
            r#"{"name":"a","data_b64":"?"}"#,
            r#"{"name":"a","text":"","more":1}"#,
        ] {
            assert!(
                serde_json::from_str::<GuestConfig>(wrong).is_err(),
                "{wrong}"
            );
        }
    }
}
