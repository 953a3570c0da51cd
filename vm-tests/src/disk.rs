//! Disk images: overlays, blank and dirty disks, data disks that must not change, and what is on them, seen from outside.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::artefacts::Artefacts;
use crate::process::{Cmd, run};

/// One gibibyte, in bytes.
pub const GIB: u64 = 1 << 30;

const MINUTE: Duration = Duration::from_secs(60);

/// Makes a qcow2 overlay; the raw image below stays as it is.
pub fn overlay(base: &Path, path: &Path, log: &Artefacts) -> Result<()> {
    let base = fs::canonicalize(base).with_context(|| format!("{}", base.display()))?;
    let cmd = Cmd::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(base)
        .arg(path);
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
    run(
        &Cmd::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .arg(from)
            .arg(to),
        log,
        10 * MINUTE,
    )?;
    Ok(())
}

/// Makes a disk as an admin's data drive is: a filesystem on the whole disk, with a few files.
pub fn data_disk(path: &Path, bytes: u64, log: &Artefacts) -> Result<()> {
    blank(path, bytes)?;
    let files = tempfile::tempdir()?;
    for n in 0..20u8 {
        fs::write(
            files.path().join(format!("photo-{n:02}")),
            vec![n.wrapping_mul(37); 200_000],
        )?;
    }
    let cmd = Cmd::new("mkfs.ext4")
        .args(["-q", "-F", "-L", "data", "-d"])
        .arg(files.path())
        .arg(path);
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
        let n = usize::try_from(start + length - at)
            .unwrap_or(block.len())
            .min(block.len());
        file.read_exact_at(&mut block[..n], at)?;
        hash.update(&block[..n]);
        at += n as u64;
    }
    Ok(hex::encode(hash.finalize()))
}

/// The hash of all bytes of an image outside of some parts of it (start and length).
pub fn hash_without(path: &Path, parts: &[(u64, u64)]) -> Result<String> {
    let size = fs::metadata(path)?.len();
    let mut parts = parts.to_vec();
    parts.sort_unstable();
    parts.push((size, 0));
    let (mut at, mut hash) = (0, Sha256::new());
    for (start, length) in parts {
        if start > at {
            hash.update(range_hash(path, at, start - at)?);
        }
        at = at.max(start + length);
    }
    Ok(hex::encode(hash.finalize()))
}

/// Overwrites a part of an image with zeroes.
pub fn zero(path: &Path, start: u64, length: u64) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let zeroes = vec![0; 1 << 20];
    let mut at = start;
    while at < start + length {
        let n = usize::try_from(start + length - at)
            .unwrap_or(zeroes.len())
            .min(zeroes.len());
        file.write_all_at(&zeroes[..n], at)?;
        at += n as u64;
    }
    Ok(())
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

/// A partition table, read by the few lines below and not by a library that the product may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    /// GUID of the disk, as it lies on the disk, hexadecimal.
    pub id: String,
    /// The partitions in order of their numbers.
    pub partitions: Vec<Partition>,
}

/// A partition of a [`Gpt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number, from 1.
    pub number: u32,
    /// Type GUID, as it lies on the disk, hexadecimal.
    pub kind: String,
    /// GUID of the partition, as it lies on the disk, hexadecimal.
    pub uuid: String,
    /// First sector (512 bytes).
    pub start: u64,
    /// Length in sectors.
    pub size: u64,
    /// Attribute flags.
    pub flags: u64,
    /// The name's UTF-16 bytes, hexadecimal.
    pub name: String,
}

/// Reads the primary partition table of a raw image with sectors of 512 bytes (UEFI specification 2.10, 5.3.2 and 5.3.3).
pub fn gpt(image: &Path) -> Result<Gpt> {
    let file = File::open(image).with_context(|| format!("{}", image.display()))?;
    let mut header = [0; 512];
    file.read_exact_at(&mut header, 512)?;
    if &header[..8] != b"EFI PART" {
        bail!("{} holds no GPT", image.display());
    }
    let (entries, count, entry_size) = (
        number(&header, 72, 8),
        number(&header, 80, 4),
        number(&header, 84, 4),
    );
    if !(128..=4096).contains(&entry_size) || count > 1024 {
        bail!(
            "{} holds a strange GPT: {count} entries of {entry_size} bytes",
            image.display()
        );
    }
    let mut partitions = Vec::new();
    for index in 0..count {
        let mut entry = [0; 128];
        file.read_exact_at(&mut entry, entries * 512 + index * entry_size)?;
        if entry[..16] == [0; 16] {
            continue;
        }
        let (first, last) = (number(&entry, 32, 8), number(&entry, 40, 8));
        partitions.push(Partition {
            number: u32::try_from(index + 1)?,
            kind: hex::encode(&entry[..16]),
            uuid: hex::encode(&entry[16..32]),
            start: first,
            size: (last + 1).saturating_sub(first),
            flags: number(&entry, 48, 8),
            name: hex::encode(&entry[56..]),
        });
    }
    Ok(Gpt {
        id: hex::encode(&header[56..72]),
        partitions,
    })
}

/// A GUID as it is written (`c12a7328-f81f-...`), from the hexadecimal bytes that lie on a disk: the first three fields are
/// little-endian there.
pub fn guid_text(on_disk: &str) -> Result<String> {
    let mut bytes = hex::decode(on_disk)?;
    if bytes.len() != 16 {
        bail!("{on_disk} is no GUID");
    }
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    let text = hex::encode(bytes);
    Ok(format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    ))
}

/// A little-endian number.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
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

    #[test]
    fn parts_that_may_differ_are_left_out_of_the_hash_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("d");
        fs::write(&image, vec![7; 100_000]).unwrap();
        let parts = [(50_000, 1000), (0, 440)];
        let before = hash_without(&image, &parts).unwrap();
        zero(&image, 50_000, 1000).unwrap();
        zero(&image, 0, 440).unwrap();
        assert_eq!(hash_without(&image, &parts).unwrap(), before);
        for at in [440, 49_999, 51_000, 99_999] {
            flip_byte(&image, at).unwrap();
            assert_ne!(hash_without(&image, &parts).unwrap(), before, "{at}");
            flip_byte(&image, at).unwrap();
        }
    }

    #[test]
    fn reads_what_sgdisk_writes() {
        if !crate::process::installed("sgdisk") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let log = Artefacts::new(dir.path().join("t")).unwrap();
        let image = dir.path().join("d");
        blank(&image, 64 << 20).unwrap();
        let guid = "01020304-0506-0708-090A-0B0C0D0E0F10";
        let cmd = Cmd::new("sgdisk").args([
            "-n",
            "3:2048:4095",
            "-t",
            "3:EF00",
            "-u",
            &format!("3:{guid}"),
            "-c",
            "3:A",
        ]);
        run(&cmd.arg(&image), &log, MINUTE).unwrap();
        let gpt = gpt(&image).unwrap();
        assert_eq!(gpt.partitions.len(), 1);
        let p = &gpt.partitions[0];
        assert_eq!((p.number, p.start, p.size, p.flags), (3, 2048, 2048, 0));
        // The first three fields of a GUID lie on the disk in little-endian order.
        assert_eq!(p.uuid, "0403020106050807090a0b0c0d0e0f10");
        assert_eq!(p.kind, "28732ac11ff8d211ba4b00a0c93ec93b");
        assert_eq!(guid_text(&p.uuid).unwrap(), guid.to_lowercase());
        assert!(p.name.starts_with("41000000"));
    }
}
