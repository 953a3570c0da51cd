//! Archives that somebody else's writer made, with the hashes of what is in them.
//!
//! `LIFEBOAT_VMA_SAMPLES` names a further folder of them, with an `expected.json` like the one here.
#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{read, sha256, write};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    sha256: String,
    configs: BTreeMap<String, String>,
    devices: Vec<ExpectedDevice>,
}

#[derive(Deserialize)]
struct ExpectedDevice {
    name: String,
    size: u64,
    sha256: String,
}

/// Plain, or compressed beside its name.
fn load(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|_| {
        let compressed = fs::read(path.with_extension("vma.zst")).unwrap();
        zstd::decode_all(&compressed[..]).unwrap()
    })
}

fn samples() -> Vec<(String, Vec<u8>, Expected)> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let further = std::env::var_os("LIFEBOAT_VMA_SAMPLES").map(PathBuf::from);
    let mut samples = Vec::new();
    for dir in [Some(ours), further].into_iter().flatten() {
        let expected = fs::read(dir.join("expected.json")).unwrap();
        let expected: BTreeMap<String, Expected> = serde_json::from_slice(&expected).unwrap();
        for (name, expected) in expected {
            samples.push((name.clone(), load(&dir.join(name)), expected));
        }
    }
    samples
}

#[test]
fn they_are_read_written_and_read_again() {
    for (name, archive, expected) in samples() {
        assert_eq!(sha256(&archive), expected.sha256, "{name}");
        let first = read(&archive[..]).unwrap();
        let written = write(&first);
        let second = read(&written[..]).unwrap();
        for read in [&first, &second] {
            let configs = read.header.configs.iter();
            let configs: BTreeMap<_, _> =
                configs.map(|c| (c.name.clone(), sha256(&c.data))).collect();
            assert_eq!(configs, expected.configs, "{name}");
            assert_eq!(read.header.devices.len(), expected.devices.len(), "{name}");
            for device in &expected.devices {
                let image = &read.images[&device.name];
                assert_eq!(image.len() as u64, device.size, "{name}");
                assert_eq!(sha256(image), device.sha256, "{name}: {}", device.name);
            }
        }
        assert_eq!(second.header, first.header);
        assert_eq!(second.order, first.order);
        assert_eq!(second.totals.blocks, first.totals.blocks);
        assert_eq!(first.totals.bytes, archive.len() as u64);
        let header = 12288 + 512;
        assert!(written[..header] == archive[..header], "{name}: the header");
    }
}

#[test]
fn they_are_refused_at_every_extents_end_but_the_last() {
    for (name, archive, _) in samples() {
        let mut ends = vec![12800];
        while let Some(end) = ends.last().copied().filter(|end| *end < archive.len()) {
            let blocks = u16::from_be_bytes([archive[end + 6], archive[end + 7]]);
            ends.push(end + 512 + 4096 * usize::from(blocks));
        }
        assert_eq!(ends.pop(), Some(archive.len()));
        for end in ends {
            let error = read(&archive[..end]).unwrap_err().to_string();
            let expected = match end {
                12800 => "before the first extent",
                _ => "is incomplete",
            };
            assert!(error.contains(expected), "{name}, {end}: {error}");
        }
    }
}
