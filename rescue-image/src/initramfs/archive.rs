//! The archive: newc cpio as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst), in a fixed
//! order and without times, so that equal inputs give equal bytes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cpio::newc::Builder;

use super::Compression;
use crate::error::{Error, Result};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// Nodes that exist before anything is mounted: path, major, minor, permissions.
const NODES: &[(&str, u32, u32, u32)] = &[("dev/console", 5, 1, 0o600), ("dev/null", 1, 3, 0o666)];

/// A compressor that must be finished.
enum Packer<W: Write> {
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Xz(xz2::write::XzEncoder<W>),
    Plain(W),
}

impl<W: Write> Packer<W> {
    fn new(out: W, how: Compression, quick: bool) -> io::Result<Self> {
        Ok(match how {
            // Level 15 takes thirty times as long as 9 and saves 3 %; the kernel's decompressor allows windows of up to
            // 128 MiB (ZSTD_WINDOWSIZE_MAX in lib/decompress_unzstd.c), of which 8 are plenty.
            Compression::Zstd => {
                let mut encoder =
                    zstd::stream::write::Encoder::new(out, if quick { 6 } else { 9 })?;
                encoder.window_log(23)?;
                Self::Zstd(encoder)
            }
            // The kernel knows CRC32 only (Documentation/staging/xz.rst).
            Compression::Xz => {
                let stream = xz2::stream::Stream::new_easy_encoder(
                    if quick { 1 } else { 6 },
                    xz2::stream::Check::Crc32,
                )
                .map_err(|e| io::Error::other(e.to_string()))?;
                Self::Xz(xz2::write::XzEncoder::new_stream(out, stream))
            }
            Compression::Plain => Self::Plain(out),
        })
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Zstd(e) => e.finish(),
            Self::Xz(e) => e.finish(),
            Self::Plain(out) => Ok(out),
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(e) => e.write(buf),
            Self::Xz(e) => e.write(buf),
            Self::Plain(e) => e.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(e) => e.flush(),
            Self::Xz(e) => e.flush(),
            Self::Plain(e) => e.flush(),
        }
    }
}

/// What was packed.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Packed {
    /// Bytes of the compressed archive.
    pub size: u64,
    /// Bytes of the files in it.
    pub unpacked: u64,
}

/// Packs everything below `root` into `out`.
/// `quick` is for images that are thrown away soon.
pub(crate) fn pack(root: &Path, out: &Path, how: Compression, quick: bool) -> Result<Packed> {
    let file = File::create(out).map_err(Error::io("create", out))?;
    let io = || Error::io("write", out);
    let mut packer =
        Packer::new(BufWriter::with_capacity(1 << 20, file), how, quick).map_err(io())?;
    let mut packed = Packed::default();
    let mut ino = 1;
    entries(root, Path::new(""), &mut |path, meta| {
        let name = path
            .to_str()
            .ok_or_else(|| Error::format(path, "a name that is not UTF-8"))?;
        let builder = Builder::new(name).ino(ino).nlink(1).mtime(0);
        ino += 1;
        let full = root.join(path);
        let kind = meta.file_type();
        let content = if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(Error::io("read", &full))?;
            let target = target
                .to_str()
                .ok_or_else(|| Error::format(&full, "a link that is not UTF-8"))?;
            (LINK | 0o777, target.as_bytes().to_vec())
        } else if kind.is_dir() {
            (DIRECTORY | meta.permissions().mode() & 0o1777, Vec::new())
        } else {
            (
                REGULAR | meta.permissions().mode() & 0o777,
                fs::read(&full).map_err(Error::io("read", &full))?,
            )
        };
        packed.unpacked += content.1.len() as u64;
        write(&mut packer, builder.mode(content.0), &content.1).map_err(io())
    })?;
    for (path, major, minor, mode) in NODES {
        let builder = Builder::new(path)
            .ino(ino)
            .nlink(1)
            .mtime(0)
            .mode(CHARACTER | mode);
        ino += 1;
        write(
            &mut packer,
            builder.rdev_major(*major).rdev_minor(*minor),
            &[],
        )
        .map_err(io())?;
    }
    cpio::newc::trailer(&mut packer).map_err(io())?;
    let buffer = packer.finish().map_err(io())?;
    let file = buffer.into_inner().map_err(|e| io()(e.into_error()))?;
    file.sync_all().map_err(io())?;
    packed.size = file.metadata().map_err(io())?.len();
    Ok(packed)
}

fn write<W: Write>(out: &mut W, builder: Builder, content: &[u8]) -> io::Result<()> {
    let size =
        u32::try_from(content.len()).map_err(|_| io::Error::other("a file of more than 4 GiB"))?;
    let mut writer = builder.write(out, size);
    writer.write_all(content)?;
    writer.finish().map(|_| ())
}

/// Calls `each` for everything below `root`, folders before what is in them, names sorted.
fn entries(
    root: &Path,
    below: &Path,
    each: &mut dyn FnMut(&Path, &fs::Metadata) -> Result<()>,
) -> Result<()> {
    let folder = root.join(below);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
        names.push(entry.map_err(Error::io("read", &folder))?.file_name());
    }
    names.sort();
    for name in names {
        let path = below.join(name);
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).map_err(Error::io("read", &full))?;
        each(&path, &meta)?;
        if meta.is_dir() {
            entries(root, &path, each)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/usr/bin")).unwrap();
        fs::create_dir_all(dir.path().join("root/dev")).unwrap();
        fs::write(dir.path().join("root/usr/bin/tool"), b"tool").unwrap();
        std::os::unix::fs::symlink("usr/bin", dir.path().join("root/bin")).unwrap();
        dir
    }

    fn unpack(path: &Path, how: Compression) -> Vec<u8> {
        let raw = fs::read(path).unwrap();
        let mut plain = Vec::new();
        match how {
            Compression::Zstd => zstd::stream::copy_decode(raw.as_slice(), &mut plain).unwrap(),
            Compression::Xz => {
                xz2::read::XzDecoder::new(raw.as_slice())
                    .read_to_end(&mut plain)
                    .unwrap();
            }
            Compression::Plain => plain = raw,
        }
        plain
    }

    #[test]
    fn every_compression_holds_the_same_archive_and_equal_inputs_give_equal_bytes() {
        let (one, two) = (tree(), tree());
        let mut plain = Vec::new();
        for how in [Compression::Zstd, Compression::Xz, Compression::Plain] {
            let out = one.path().join("out");
            pack(&one.path().join("root"), &out, how, true).unwrap();
            let other = two.path().join("out");
            pack(&two.path().join("root"), &other, how, true).unwrap();
            assert_eq!(
                fs::read(&out).unwrap(),
                fs::read(&other).unwrap(),
                "{how:?}"
            );
            plain.push(unpack(&out, how));
        }
        assert!(plain.windows(2).all(|w| w[0] == w[1]));
        let mut names = Vec::new();
        let mut rest = plain[0].as_slice();
        loop {
            let reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().mode()));
            rest = reader.finish().unwrap();
        }
        let only: Vec<_> = names.iter().map(|n| n.0.as_str()).collect();
        assert_eq!(
            only,
            [
                "bin",
                "dev",
                "usr",
                "usr/bin",
                "usr/bin/tool",
                "dev/console",
                "dev/null"
            ]
        );
        assert_eq!(names[0].1 & 0o170_000, LINK);
        assert_eq!(names[5].1, CHARACTER | 0o600);
    }

    #[test]
    fn xz_is_made_with_the_one_check_that_the_kernel_knows() {
        let dir = tree();
        let out = dir.path().join("out");
        pack(&dir.path().join("root"), &out, Compression::Xz, true).unwrap();
        // Stream flags in the header: byte 7, 1 is CRC32 (xz file format, 2.1.1.2).
        assert_eq!(fs::read(&out).unwrap()[7], 1);
    }
}
