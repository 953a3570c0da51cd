//! What all files of a store have in common. `docs/bundle-format.md` is the specification.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::Encoding;
use crate::{Error, Id, Result};

/// The version of `store.json`, packs, indexes, catalogues and content lists.
pub(crate) const FORMAT: u32 = 1;

/// What a blob holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A tar archive of a part of a tree.
    Segment,
    /// A piece of a large file or of a block image.
    Chunk,
    /// The list of the pieces of a large file or of a block image.
    Content,
    /// JSON lines: the segments of a tree and their entries.
    Catalogue,
}

/// A blob in a pack, as footers and indexes list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlobEntry {
    pub id: Id,
    pub kind: Kind,
    pub codec: Encoding,
    /// From the start of the file.
    pub offset: u64,
    /// Bytes in the pack.
    pub stored: u64,
    /// Bytes of plain content.
    pub raw: u64,
}

/// Something that carries a format version.
pub(crate) trait Versioned: DeserializeOwned {
    fn format(&self) -> u32;
}

/// Parses a JSON document of `known` format; `path` is for the error.
pub(crate) fn parse<T: Versioned>(path: &Path, json: &[u8], known: u32) -> Result<T> {
    match serde_json::from_slice::<T>(json) {
        Ok(document) if document.format() == known => Ok(document),
        Ok(document) => Err(unknown(path, document.format().to_string(), known)),
        Err(error) => {
            // A newer format has other fields: then the version is the reason to give, not the first such field.
            #[derive(Deserialize)]
            struct FormatOnly {
                format: serde_json::Value,
            }
            match serde_json::from_slice::<FormatOnly>(json) {
                Ok(only) if only.format != serde_json::json!(known) => {
                    Err(unknown(path, only.format.to_string(), known))
                }
                _ => Err(Error::malformed(path.display(), error)),
            }
        }
    }
}

fn unknown(path: &Path, found: String, known: u32) -> Error {
    Error::UnknownFormat {
        path: path.to_path_buf(),
        found,
        known,
    }
}
