//! mountinfo, fstab and swaps.

use std::path::{Path, PathBuf};

use procfs::FromBufRead;
use procfs::process::MountInfos;

use super::CaptureError;
use crate::model::FstabEntry;
use crate::system::System;

/// A mounted filesystem, seen from `root`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mounted {
    pub major_minor: String,
    pub source: String,
    /// Which directory of the filesystem is mounted.
    pub subtree: String,
    pub mount_point: PathBuf,
    pub fstype: String,
    pub options: Vec<String>,
}

/// Reads `/proc/self/mountinfo`: what is at or below `root`, as the host in `root` sees it.
pub(crate) fn mounted(sys: &dyn System, root: &Path) -> Result<Vec<Mounted>, CaptureError> {
    let text = sys.read(Path::new("/proc/self/mountinfo"))?;
    let infos = MountInfos::from_buf_read(text.as_slice())
        .map_err(|e| CaptureError::parse("/proc/self/mountinfo", e))?;
    let mut found = Vec::new();
    for info in infos.0 {
        let place = PathBuf::from(unescape(&info.mount_point.to_string_lossy()));
        let Ok(below) = place.strip_prefix(root) else {
            continue;
        };
        let mut options: Vec<String> = info
            .mount_options
            .iter()
            .chain(&info.super_options)
            .map(|(name, value)| match value {
                Some(value) => unescape(&format!("{name}={value}")),
                None => name.clone(),
            })
            .collect();
        options.sort();
        options.dedup();
        found.push(Mounted {
            major_minor: info.majmin.clone(),
            source: unescape(info.mount_source.as_deref().unwrap_or("")),
            subtree: unescape(&info.root),
            mount_point: Path::new("/").join(below),
            fstype: info.fs_type.clone(),
            options,
        });
    }
    Ok(found)
}

/// Devices that the kernel swaps to.
pub(crate) fn active_swaps(sys: &dyn System) -> Vec<PathBuf> {
    let text = sys.text(Path::new("/proc/swaps")).unwrap_or_default();
    text.lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(|p| PathBuf::from(unescape(p)))
        .collect()
}

/// Parses fstab(5).
pub(crate) fn parse_fstab(text: &str) -> Vec<FstabEntry> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(unescape);
            Some(FstabEntry {
                spec: fields.next()?,
                file: fields.next()?,
                fstype: fields.next()?,
                options: fields
                    .next()
                    .unwrap_or_else(|| "defaults".to_owned())
                    .split(',')
                    .map(str::to_owned)
                    .collect(),
                freq: fields.next().and_then(|f| f.parse().ok()).unwrap_or(0),
                passno: fields.next().and_then(|f| f.parse().ok()).unwrap_or(0),
            })
        })
        .collect()
}

/// Decodes `\040` as mountinfo, swaps and fstab write it.
pub(crate) fn unescape(text: &str) -> String {
    let raw = text.as_bytes();
    let mut bytes = Vec::with_capacity(raw.len());
    let mut i = 0;
    while i < raw.len() {
        let code = (raw[i] == b'\\')
            .then(|| raw.get(i + 1..i + 4))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                i += 4;
            }
            None => {
                bytes.push(raw[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Recorded;

    #[test]
    fn mounts_below_a_root_are_seen_as_from_inside() {
        let text = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 8:2 / /target rw - ext4 /dev/sda2 rw,discard\n\
                    31 30 8:3 /sub /target/a\\040b ro - xfs /dev/sda3 rw\n";
        let sys = Recorded::new().file("/proc/self/mountinfo", text);
        let found = mounted(&sys, Path::new("/target")).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].mount_point, Path::new("/"));
        assert_eq!(found[0].options, ["discard", "rw"]);
        assert_eq!(found[1].mount_point, Path::new("/a b"));
        assert_eq!(found[1].subtree, "/sub");
    }

    #[test]
    fn fstab_lines_are_understood() {
        let entries = parse_fstab(
            "# a\n\n/dev/pve/root / ext4 errors=remount-ro 0 1\nUUID=AB-CD /boot/efi vfat\n",
        );
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].passno, 1);
        assert_eq!(entries[0].options, ["errors=remount-ro"]);
        assert_eq!(entries[1].options, ["defaults"]);
    }
}
