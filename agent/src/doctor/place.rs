//! On which file system a path lies.

use std::path::{Path, PathBuf};

use layout::system::System;

/// Where bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A whole disk.
    Disk(PathBuf),
    /// A mounted file system.
    Mount {
        /// Where it is mounted.
        point: PathBuf,
        /// Its type, as the kernel says it.
        fstype: String,
    },
    /// Not known.
    Unknown,
}

/// The file system that holds a path.
pub fn of(sys: &dyn System, path: &Path) -> Place {
    let text = sys
        .text(Path::new("/proc/self/mountinfo"))
        .unwrap_or_default();
    let path = sys.canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match innermost(&mounts(&text), &path) {
        Some(mount) => Place::Mount {
            point: mount.point.clone(),
            fstype: mount.fstype.clone(),
        },
        None => Place::Unknown,
    }
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub point: PathBuf,
    /// Type.
    pub fstype: String,
    /// Device, or whatever the file system calls its source.
    pub source: String,
    /// Whether it can be written to.
    pub writable: bool,
}

/// proc_pid_mountinfo(5).
pub fn mounts(text: &str) -> Vec<Mounted> {
    text.lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let front: Vec<&str> = front.split(' ').collect();
            let back: Vec<&str> = back.split(' ').collect();
            let read_only = |options: &str| options.split(',').any(|o| o == "ro");
            Some(Mounted {
                point: unescaped(front.get(4)?).into(),
                fstype: (*back.first()?).to_owned(),
                source: unescaped(back.get(1)?),
                writable: !read_only(front.get(5)?) && !read_only(back.get(2)?),
            })
        })
        .collect()
}

/// The last one of the deepest: later mounts hide earlier ones.
pub fn innermost<'m>(mounts: &'m [Mounted], path: &Path) -> Option<&'m Mounted> {
    let above = mounts.iter().filter(|m| path.starts_with(&m.point));
    above.max_by_key(|m| m.point.components().count())
}

/// Spaces and such are `\040` there.
fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| *byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(*byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Recorded;

    const TABLE: &str = "22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n\
        30 22 8:17 / /mnt/my\\040drive rw,relatime shared:2 - xfs /dev/sdb1 rw\n\
        31 22 0:30 / /mnt/old ro - tmpfs tmpfs rw\n\
        32 22 8:33 / /mnt/old rw - btrfs /dev/sdc1 rw,space_cache\n";

    #[test]
    fn the_innermost_and_newest_mount_counts() {
        let sys = Recorded::new().file("/proc/self/mountinfo", TABLE);
        let point = |path: &str| match of(&sys, Path::new(path)) {
            Place::Mount { point, fstype } => (point.display().to_string(), fstype),
            other => panic!("{other:?}"),
        };
        assert_eq!(point("/srv"), ("/".into(), "ext4".into()));
        assert_eq!(
            point("/mnt/my drive/x"),
            ("/mnt/my drive".into(), "xfs".into())
        );
        assert_eq!(point("/mnt/old"), ("/mnt/old".into(), "btrfs".into()));
        assert_eq!(point("/mnt/older"), ("/".into(), "ext4".into()));
        assert!(!mounts(TABLE)[2].writable && mounts(TABLE)[1].writable);
        assert_eq!(of(&Recorded::new(), Path::new("/")), Place::Unknown);
    }
}
