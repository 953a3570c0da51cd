//! Disk images: overlays, blank and dirty disks, data disks that must not change, and what is on them, seen from outside.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::artefacts::Artefacts;
use crate::process::{Cmd, run};

/// One gibibyte, in bytes.
pub const GIB: u64 = 1 << 30;

const MINUTE: Duration = Duration::from_secs(60);

/// Makes a qcow2 overlay; the raw image below stays as it is.
pub fn overlay(base: &Path, path: &Path, log: &Artefacts) -> Result<()> {
    let base = fs::canonicalize(base).with_context(|| format!("{}", base.display()))?;
    let cmd = Cmd::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(base).arg(path);
    run(&cmd, log, MINUTE)?;
    Ok(())
}

/// Makes a disk that reads as zeroes.
pub fn blank(path: &Path, bytes: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("{}", path.display()))?;
    file.set_len(bytes)?;
    Ok(())
}

/// Copies an image; holes stay holes.
pub fn copy(from: &Path, to: &Path, log: &Artefacts) -> Result<()> {
    run(&Cmd::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to), log, 10 * MINUTE)?;
    Ok(())
}

/// Makes a disk as an admin's data drive is: a filesystem on the whole disk, with a few files.
pub fn data_disk(path: &Path, bytes: u64, log: &Artefacts) -> Result<()> {
    blank(path, bytes)?;
    let files = tempfile::tempdir()?;
    for n in 0..20u8 {
        fs::write(files.path().join(format!("photo-{n:02}")), vec![n.wrapping_mul(37); 200_000])?;
    }
    let cmd = Cmd::new("mkfs.ext4").args(["-q", "-F", "-L", "data", "-d"]).arg(files.path()).arg(path);
    run(&cmd, log, MINUTE)?;
    Ok(())
}

/// A hash of what a raw image reads as. Blocks of zeroes count the same whether they are holes or not.
pub fn content_hash(path: &Path) -> Result<String> {
    const BLOCK: usize = 64 << 10;
    let file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let size = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < size {
        // Most of an image is one large hole: skip it without reading.
        match nix::unistd::lseek(&file, i64::try_from(at)?, nix::unistd::Whence::SeekData) {
            Ok(data) => at = u64::try_from(data)? / BLOCK as u64 * BLOCK as u64,
            Err(nix::errno::Errno::ENXIO) => break,
            Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
        }
        let length = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
        file.read_exact_at(&mut block[..length], at)?;
        if block[..length].iter().any(|b| *b != 0) {
            hash.update(at.to_le_bytes());
            hash.update(&block[..length]);
        }
        at += length as u64;
    }
    Ok(hex::encode(hash.finalize()))
}

/// The hash of a part of an image.
pub fn range_hash(path: &Path, start: u64, length: u64) -> Result<String> {
    let file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    let mut at = start;
    while at < start + length {
        let n = usize::try_from(start + length - at).unwrap_or(block.len()).min(block.len());
        file.read_exact_at(&mut block[..n], at)?;
        hash.update(&block[..n]);
        at += n as u64;
    }
    Ok(hex::encode(hash.finalize()))
}

/// Inverts one byte of an image.
pub fn flip_byte(path: &Path, at: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 0xff;
    file.write_all_at(&byte, at)?;
    Ok(())
}

/// A GPT as `sfdisk --json` reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Gpt {
    /// GUID of the disk.
    pub id: String,
    /// Label kind: `gpt`.
    pub label: String,
    /// The partitions in order of their numbers.
    pub partitions: Vec<Partition>,
}

/// A partition of a [`Gpt`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Partition {
    /// Path of the image with the partition's number behind it.
    pub node: String,
    /// First sector (512 bytes).
    pub start: u64,
    /// Length in sectors.
    pub size: u64,
    /// Type GUID.
    #[serde(rename = "type")]
    pub kind: String,
    /// GUID of the partition.
    pub uuid: String,
    /// Name, if not empty.
    #[serde(default)]
    pub name: String,
    /// Attribute flags, if any.
    #[serde(default)]
    pub attrs: String,
}

impl Partition {
    /// The partition's number.
    pub fn number(&self, image: &Path) -> Result<u32> {
        let image = image.to_string_lossy();
        let digits = self.node.strip_prefix(image.as_ref()).unwrap_or(&self.node).trim_start_matches('p');
        digits.parse().with_context(|| format!("sfdisk names a partition {}", self.node))
    }
}

/// Reads the partition table of a raw image.
pub fn gpt(image: &Path, log: &Artefacts) -> Result<Gpt> {
    #[derive(Deserialize)]
    struct Answer {
        partitiontable: Gpt,
    }
    let json = run(&Cmd::new("sfdisk").arg("--json").arg(image), log, MINUTE)?;
    let answer: Answer = serde_json::from_slice(&json).context("what sfdisk --json printed")?;
    if answer.partitiontable.label != "gpt" {
        bail!("{} holds a {} label, not a GPT", image.display(), answer.partitiontable.label);
    }
    Ok(answer.partitiontable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_hash_sees_one_byte_and_not_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        blank(&a, 10 << 20).unwrap();
        fs::write(&b, vec![0; 10 << 20]).unwrap();
        assert_eq!(content_hash(&a).unwrap(), content_hash(&b).unwrap());
        flip_byte(&b, (10 << 20) - 1).unwrap();
        assert_ne!(content_hash(&a).unwrap(), content_hash(&b).unwrap());
        flip_byte(&a, 9 << 20).unwrap();
        assert_ne!(content_hash(&a).unwrap(), content_hash(&b).unwrap());
        flip_byte(&a, 9 << 20).unwrap();
        flip_byte(&a, (10 << 20) - 1).unwrap();
        assert_eq!(content_hash(&a).unwrap(), content_hash(&b).unwrap());
    }
}
