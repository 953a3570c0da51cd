//! The document: JSON that a person can read before passing it on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::system::{BLOCK, BlockDevice, DiskFacts, Image, Output, Recorded, Usage};

/// The version of the document that this program writes and reads.
const FORMAT_VERSION: u32 = 1;

/// Why a recording could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Not JSON, or not a recording.
    #[error("the recording cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by another version.
    #[error(
        "the recording has format version {0}, and this program reads version {FORMAT_VERSION} only"
    )]
    Version(u32),
    /// Bytes that are none.
    #[error("the recording is damaged: {0}")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format_version: u32,
    devices: Vec<BlockDevice>,
    facts: BTreeMap<PathBuf, DiskFacts>,
    commands: BTreeMap<String, Said>,
    files: BTreeMap<PathBuf, Content>,
    dirs: BTreeMap<PathBuf, Vec<String>>,
    links: BTreeMap<PathBuf, PathBuf>,
    present: BTreeSet<PathBuf>,
    usage: BTreeMap<PathBuf, Usage>,
    uuids: BTreeMap<PathBuf, String>,
    images: BTreeMap<PathBuf, Blocks>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    status: i32,
    stdout: Content,
    #[serde(default, skip_serializing_if = "Content::is_empty")]
    stderr: Content,
}

/// Bytes: text, its lines where there are several, or hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Lines(Vec<String>),
    Hex { hex: String },
}

impl Default for Content {
    fn default() -> Content {
        Content::Text(String::new())
    }
}

impl Content {
    fn is_empty(&self) -> bool {
        matches!(self, Content::Text(text) if text.is_empty())
    }

    fn of(bytes: &[u8]) -> Content {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.trim_end_matches('\n').contains('\n') => {
                Content::Lines(text.split('\n').map(str::to_owned).collect())
            }
            Ok(text) => Content::Text(text.to_owned()),
            Err(_) => Content::Hex {
                hex: hex::encode(bytes),
            },
        }
    }

    fn bytes(self) -> Result<Vec<u8>, RecordingError> {
        match self {
            Content::Text(text) => Ok(text.into_bytes()),
            Content::Lines(lines) => Ok(lines.join("\n").into_bytes()),
            Content::Hex { hex } => decode(&hex),
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, RecordingError> {
    hex::decode(text).map_err(|e| RecordingError::Damaged(format!("\"{text}\": {e}")))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Blocks {
    size: u64,
    /// Hexadecimal, without the zeroes at the end.
    blocks: BTreeMap<u64, String>,
}

pub(super) fn write(machine: &Recorded) -> Result<String, RecordingError> {
    let document = Document {
        format_version: FORMAT_VERSION,
        devices: machine.devices.clone(),
        facts: machine.facts.clone(),
        commands: machine
            .commands
            .iter()
            .map(|(line, output)| {
                let said = Said {
                    status: output.status,
                    stdout: Content::of(&output.stdout),
                    stderr: Content::of(&output.stderr),
                };
                (line.clone(), said)
            })
            .collect(),
        files: machine
            .files
            .iter()
            .map(|(path, content)| (path.clone(), Content::of(content)))
            .collect(),
        dirs: machine.dirs.clone(),
        links: machine.links.clone(),
        present: machine.present.clone(),
        usage: machine.usage.clone(),
        uuids: machine.uuids.clone(),
        images: machine
            .images
            .iter()
            .map(|(path, image)| {
                let short = |bytes: &[u8]| {
                    let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
                    hex::encode(&bytes[..end])
                };
                let blocks = image.blocks.iter().map(|(n, bytes)| (*n, short(bytes)));
                let blocks = Blocks {
                    size: image.size,
                    blocks: blocks.filter(|(_, hex)| !hex.is_empty()).collect(),
                };
                (path.clone(), blocks)
            })
            .collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

pub(super) fn read(text: &str) -> Result<Recorded, RecordingError> {
    let document: Document = serde_json::from_str(text)?;
    if document.format_version != FORMAT_VERSION {
        return Err(RecordingError::Version(document.format_version));
    }
    let mut machine = Recorded {
        devices: document.devices,
        facts: document.facts,
        dirs: document.dirs,
        links: document.links,
        present: document.present,
        usage: document.usage,
        uuids: document.uuids,
        ..Recorded::default()
    };
    for (line, said) in document.commands {
        let output = Output {
            stdout: said.stdout.bytes()?,
            stderr: said.stderr.bytes()?,
            status: said.status,
            duration: Duration::ZERO,
        };
        machine.commands.insert(line, output);
    }
    for (path, content) in document.files {
        machine.files.insert(path, content.bytes()?);
    }
    for (path, image) in document.images {
        let mut blocks = BTreeMap::new();
        for (n, hex) in image.blocks {
            let bytes = decode(&hex)?;
            if bytes.len() as u64 > BLOCK {
                return Err(RecordingError::Damaged(format!(
                    "block {n} of {} is too long",
                    path.display()
                )));
            }
            blocks.insert(n, bytes);
        }
        let size = image.size;
        machine.images.insert(path, Image { size, blocks });
    }
    Ok(machine)
}
