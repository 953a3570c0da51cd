//! Reads Debian binary packages: an `ar` archive with `data.tar.{xz,zst,gz,}` in it (deb(5)).

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Size of an `ar` member header (ar.h).
const AR_HEADER: usize = 60;

/// A member of an `ar` archive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    offset: u64,
    size: u64,
}

fn members(file: &mut (impl Read + Seek), path: &Path) -> Result<Vec<Member>> {
    let bad = |reason: &str| {
        Error::format(
            path,
            format!("{reason}; is it a Debian package, downloaded completely?"),
        )
    };
    let end = file
        .seek(SeekFrom::End(0))
        .map_err(Error::io("read", path))?;
    file.seek(SeekFrom::Start(0))
        .map_err(Error::io("read", path))?;
    let mut magic = [0; 8];
    file.read_exact(&mut magic)
        .map_err(|_| bad("too short for an ar archive"))?;
    if &magic != b"!<arch>\n" {
        return Err(bad("not an ar archive"));
    }
    let mut found = Vec::new();
    let mut offset = 8;
    while offset + AR_HEADER as u64 <= end {
        file.seek(SeekFrom::Start(offset))
            .map_err(Error::io("read", path))?;
        let mut header = [0; AR_HEADER];
        file.read_exact(&mut header)
            .map_err(Error::io("read", path))?;
        if &header[58..60] != b"`\n" {
            return Err(bad("an ar member header is damaged"));
        }
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&header[range]).trim().to_owned()
        };
        let size: u64 = text(48..58)
            .parse()
            .map_err(|_| bad("an ar member has no size"))?;
        let offset_of_data = offset + AR_HEADER as u64;
        if size > end - offset_of_data {
            return Err(bad("an ar member is cut off"));
        }
        found.push(Member {
            name: text(0..16).trim_end_matches('/').to_owned(),
            offset: offset_of_data,
            size,
        });
        // Members start at even offsets.
        offset = offset_of_data + size + size % 2;
    }
    Ok(found)
}

/// Unpacks those files of the package below `into` for which `wanted` (given the path without a leading `/`) says yes.
/// Directories are made as needed; owners, and anything but files and symbolic links, are not kept. Returns how many.
pub(crate) fn unpack(deb: &Path, into: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<usize> {
    let mut file = File::open(deb).map_err(Error::io("open", deb))?;
    let members = members(&mut file, deb)?;
    let data = members
        .iter()
        .find(|m| m.name.starts_with("data.tar"))
        .ok_or_else(|| Error::format(deb, "no data.tar in it; is it a Debian package?"))?;
    file.seek(SeekFrom::Start(data.offset))
        .map_err(Error::io("read", deb))?;
    let raw = BufReader::new(file.take(data.size));
    let reader: Box<dyn Read> = match data.name.as_str() {
        "data.tar" => Box::new(raw),
        "data.tar.xz" => Box::new(xz2::bufread::XzDecoder::new_multi_decoder(raw)),
        "data.tar.zst" => {
            Box::new(zstd::stream::read::Decoder::with_buffer(raw).map_err(Error::io("read", deb))?)
        }
        other => {
            return Err(Error::format(
                deb,
                format!("its {other} is compressed in a way that is not supported"),
            ));
        }
    };
    unpack_tar(reader, into, wanted, deb)
}

pub(crate) fn unpack_tar(
    reader: impl Read,
    into: &Path,
    wanted: &dyn Fn(&str) -> bool,
    deb: &Path,
) -> Result<usize> {
    let mut count = 0;
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(Error::io("read", deb))? {
        let mut entry = entry.map_err(Error::io("read", deb))?;
        let path = entry.path().map_err(Error::io("read", deb))?.into_owned();
        let Some(relative) = safe(&path) else {
            return Err(Error::format(
                deb,
                format!("holds the unsafe path {}", path.display()),
            ));
        };
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_symlink()) || !wanted(&relative.to_string_lossy()) {
            continue;
        }
        let to = into.join(&relative);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create directory", parent))?;
        }
        let _ = fs::remove_file(&to);
        if kind.is_symlink() {
            // Only relative links that stay inside are of use, and none can lead a later file outside.
            if let Some(target) = entry.link_name().map_err(Error::io("read", deb))? {
                if safe(&target).is_some() {
                    symlink(&target, &to).map_err(Error::io("create", &to))?;
                }
            }
            continue;
        }
        let mode = entry.header().mode().unwrap_or(0o644) & 0o755;
        let mut out = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&to)
            .map_err(Error::io("create", &to))?;
        io::copy(&mut entry, &mut out).map_err(Error::io("unpack into", &to))?;
        count += 1;
    }
    Ok(count)
}

/// The path without `./`, or `None` when it leads outside.
fn safe(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A package with these files, compressed as the member name says.
    pub(crate) fn make(path: &Path, member: &str, files: &[(&str, &[u8])]) {
        fs::write(path, crate::fuzz::seeds::package(member, files)).unwrap();
    }

    #[test]
    fn reads_all_compressions_and_only_what_is_wanted() {
        for member in ["data.tar", "data.tar.xz", "data.tar.zst"] {
            let dir = tempfile::tempdir().unwrap();
            let deb = dir.path().join("p.deb");
            make(
                &deb,
                member,
                &[("boot/vmlinuz-1", b"kernel"), ("usr/share/doc/x", b"doc")],
            );
            let count = unpack(&deb, dir.path(), &|p| p.starts_with("boot/")).unwrap();
            assert_eq!(count, 1, "{member}");
            assert_eq!(
                fs::read(dir.path().join("boot/vmlinuz-1")).unwrap(),
                b"kernel"
            );
            assert!(!dir.path().join("usr").exists());
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_file_that_is_no_package() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("p.deb");
        fs::write(&deb, b"<html>not found</html>").unwrap();
        let text = unpack(&deb, dir.path(), &|_| true).unwrap_err().to_string();
        assert!(
            text.contains("p.deb") && text.contains("Debian package"),
            "{text}"
        );
        make(&deb, "data.tar.xz", &[("a", &[1; 5000])]);
        let whole = fs::read(&deb).unwrap();
        fs::write(&deb, &whole[..whole.len() - 40]).unwrap();
        assert!(
            unpack(&deb, dir.path(), &|_| true)
                .unwrap_err()
                .to_string()
                .contains("cut off")
        );
    }

    #[test]
    fn paths_that_lead_outside_are_refused() {
        assert_eq!(safe(Path::new("./a/b")), Some("a/b".into()));
        assert_eq!(safe(Path::new("../a")), None);
        assert_eq!(safe(Path::new("/a")), None);
    }
}
