//! Compressing and expanding blobs, with contexts that are made once per thread.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use zstd::zstd_safe::CParameter;

use crate::backup::{Codec, level};

/// The most plain bytes a blob may have. Writers stay far below (segments end at 8 MiB, chunks at 4 MiB); readers
/// refuse more, so that a forged length cannot exhaust memory.
pub(crate) const MAX_BLOB: u64 = 64 << 20;

/// What expanding xz may take: level 9 needs 65 MiB, a forged header asks for 4 GiB.
const XZ_MEMORY: u64 = 128 << 20;

/// How a blob's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    Raw,
    Zstd,
    Xz,
}

/// Compresses one blob after the other.
pub(crate) struct Encoder {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Encoder {
    pub(crate) fn new(codec: Codec) -> io::Result<Encoder> {
        let zstd = match codec {
            Codec::Zstd(level) => Some(zstd::bulk::Compressor::new(level)?),
            Codec::Auto => Some(zstd::bulk::Compressor::new(level::START)?),
            Codec::Xz(_) | Codec::Raw => None,
        };
        Ok(Encoder { codec, zstd })
    }

    /// Compresses the next blobs with this level, where the codec is zstd; gives whether it is. Costs next to nothing:
    /// the context stays.
    pub(crate) fn set_level(&mut self, level: i32) -> io::Result<bool> {
        match &mut self.zstd {
            Some(zstd) => {
                zstd.set_parameter(CParameter::CompressionLevel(level))?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Compresses `plain` into `out` (its old content is lost) and says how; with `Raw`, `out` is left empty and the
    /// caller stores `plain` itself.
    pub(crate) fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<Encoding> {
        out.clear();
        let encoding = match (self.codec, self.zstd.as_mut()) {
            (Codec::Zstd(_) | Codec::Auto, Some(zstd)) => {
                out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
                zstd.compress_to_buffer(plain, out)?;
                Encoding::Zstd
            }
            (Codec::Xz(level), _) => {
                let mut encoder = xz2::write::XzEncoder::new(&mut *out, level);
                encoder.write_all(plain)?;
                encoder.finish()?;
                Encoding::Xz
            }
            _ => Encoding::Raw,
        };
        // Less than 3 % saved does not pay for expanding it at every restore.
        if encoding == Encoding::Raw || out.len() as u64 * 100 >= plain.len() as u64 * 97 {
            out.clear();
            return Ok(Encoding::Raw);
        }
        Ok(encoding)
    }
}

/// Expands one blob after the other.
#[derive(Default)]
pub(crate) struct Decoder {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decoder {
    /// Expands `stored` into `out`; the result has exactly `raw` bytes or it is an error in words.
    pub(crate) fn decode(
        &mut self,
        encoding: Encoding,
        stored: &[u8],
        raw: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        out.clear();
        if raw > MAX_BLOB {
            return Err(format!(
                "a blob of {raw} bytes is larger than any writer makes"
            ));
        }
        match encoding {
            Encoding::Raw => out.extend_from_slice(stored),
            Encoding::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => {
                        none.insert(zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?)
                    }
                };
                out.reserve(raw as usize);
                zstd.decompress_to_buffer(stored, out)
                    .map_err(|e| format!("zstd: {e}"))?;
            }
            Encoding::Xz => {
                let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)
                    .map_err(|e| format!("xz: {e}"))?;
                let mut decoder = xz2::read::XzDecoder::new_stream(stored, stream).take(raw + 1);
                decoder.read_to_end(out).map_err(|e| format!("xz: {e}"))?;
            }
        }
        if out.len() as u64 != raw {
            return Err(format!(
                "it expands to {} bytes instead of {raw}",
                out.len()
            ));
        }
        Ok(())
    }
}

/// Compresses a small metadata file (footer, index).
pub(crate) fn pack_json(json: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(json, 9)
}

/// Expands a metadata file, up to `limit` bytes.
pub(crate) fn unpack_json(stored: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let decoder =
        zstd::stream::read::Decoder::with_buffer(stored).map_err(|e| format!("zstd: {e}"))?;
    decoder
        .take(limit + 1)
        .read_to_end(&mut out)
        .map_err(|e| format!("zstd: {e}"))?;
    if out.len() as u64 > limit {
        return Err(format!("it expands to more than {limit} bytes"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_raw_where_it_does_not_pay() {
        let text = b"lifeboat ".repeat(5000);
        let mut noise = Vec::new();
        let mut state = crate::Id::of(b"seed");
        while noise.len() < 40_000 {
            noise.extend_from_slice(state.as_bytes());
            state = crate::Id::of(state.as_bytes());
        }
        for (codec, expected) in [
            (Codec::Zstd(3), Encoding::Zstd),
            (Codec::Xz(1), Encoding::Xz),
            (Codec::Raw, Encoding::Raw),
        ] {
            let mut encoder = Encoder::new(codec).unwrap();
            let mut stored = Vec::new();
            assert_eq!(encoder.encode(&text, &mut stored).unwrap(), expected);
            let mut plain = Vec::new();
            let bytes = if expected == Encoding::Raw {
                &text
            } else {
                &stored
            };
            Decoder::default()
                .decode(expected, bytes, text.len() as u64, &mut plain)
                .unwrap();
            assert_eq!(plain, text);
            assert_eq!(encoder.encode(&noise, &mut stored).unwrap(), Encoding::Raw);
        }
    }

    #[test]
    fn the_level_changes_between_blobs() {
        let text: String = (0..100_000).map(|i| format!("{} ", i * 7919)).collect();
        let mut encoder = Encoder::new(Codec::Auto).unwrap();
        let mut sizes = Vec::new();
        for level in [1, 3, 9, 1] {
            let mut stored = Vec::new();
            assert!(encoder.set_level(level).unwrap());
            encoder.encode(text.as_bytes(), &mut stored).unwrap();
            let mut fixed = Vec::new();
            let mut of_level = Encoder::new(Codec::Zstd(level)).unwrap();
            of_level.encode(text.as_bytes(), &mut fixed).unwrap();
            assert!(stored == fixed, "level {level}");
            sizes.push(stored.len());
        }
        assert!(sizes[0] > sizes[2] && sizes[0] == sizes[3], "{sizes:?}");
        assert!(!Encoder::new(Codec::Xz(1)).unwrap().set_level(3).unwrap());
    }

    #[test]
    fn forged_lengths_are_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap();
        let mut out = Vec::new();
        assert!(
            Decoder::default()
                .decode(Encoding::Zstd, &bomb, 1000, &mut out)
                .is_err()
        );
        assert!(
            Decoder::default()
                .decode(Encoding::Zstd, &bomb, MAX_BLOB + 1, &mut out)
                .is_err()
        );
        assert!(
            Decoder::default()
                .decode(Encoding::Raw, b"abc", 4, &mut out)
                .is_err()
        );
        assert!(unpack_json(&bomb, 1000).is_err());
        // Five bytes of text, whose header asks for a dictionary of 4 GiB.
        let greedy = b"\xfd\x37\x7a\x58\x5a\x00\x00\x01\x69\x22\xde\x36\x02\x00\x21\x01\x28\x00\x00\x00\xe6\xa0\x11\xb3\x01\x00\x04\x73\x6d\x61\x6c\x6c\x00\x00\x00\x00\x13\xea\x45\x75\x00\x01\x19\x05\xbc\xe8\xec\xcb\x90\x42\x99\x0d\x01\x00\x00\x00\x00\x01\x59\x5a";
        let read = Decoder::default().decode(Encoding::Xz, greedy, 5, &mut out);
        assert!(read.unwrap_err().contains("limit"));
    }
}
