//! Entries of restore points in lines.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bundle::list::{Entry, EntryKind, EntryState};

use crate::progress::printable;
use crate::values;

/// `rwsr-xr-x`
pub fn bits(mode: u32) -> String {
    let mut bits: Vec<char> = (0..9)
        .map(|i| match mode >> (8 - i) & 1 {
            1 => ['r', 'w', 'x'][i % 3],
            _ => '-',
        })
        .collect();
    for (bit, at, with, without) in [
        (0o4000, 2, 's', 'S'),
        (0o2000, 5, 's', 'S'),
        (0o1000, 8, 't', 'T'),
    ] {
        if mode & bit != 0 {
            bits[at] = if bits[at] == 'x' { with } else { without };
        }
    }
    bits.into_iter().collect()
}

/// One entry as JSON on one line: as the catalogue has it, with its path on the host.
pub fn json(path: &Path, entry: &Entry) -> anyhow::Result<String> {
    let mut entry = entry.clone();
    entry.path = path.to_path_buf();
    Ok(serde_json::to_string(&entry)?)
}

/// One line, as `ls -l` writes it, with the whole path.
pub fn line(path: &Path, entry: &Entry) -> String {
    let kind = match entry.kind {
        EntryKind::File | EntryKind::Hardlink => '-',
        EntryKind::Dir => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Char => 'c',
        EntryKind::Block => 'b',
        EntryKind::Fifo => 'p',
    };
    let bits = bits(entry.mode);
    let owner = format!("{}:{}", entry.uid, entry.gid);
    let size = match entry.rdev {
        Some((major, minor)) => format!("{major}, {minor}"),
        None => entry.size.to_string(),
    };
    let show = |p: &Path| printable(p.as_os_str().as_bytes());
    let target = match (&entry.target, entry.kind) {
        (Some(t), EntryKind::Symlink) => format!(" -> {}", show(t)),
        (Some(t), _) => format!(" same as {}", show(t)),
        (None, _) => String::new(),
    };
    let state = match entry.state {
        Some(EntryState::Changed) => "  (changed while it was read)",
        Some(EntryState::Vanished) => "  (vanished before it was read)",
        Some(EntryState::Unreadable) => "  (could not be read; not in the restore point)",
        Some(EntryState::Partial) => "  (could not be read completely)",
        None => "",
    };
    let time = values::rfc3339(entry.mtime.0);
    format!(
        "{kind}{bits} {owner:>11} {size:>12} {time} {}{target}{state}",
        show(path)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_like_ls() {
        let entry = Entry {
            path: "bin/su".into(),
            kind: EntryKind::File,
            size: 72_000,
            mode: 0o4755,
            uid: 0,
            gid: 0,
            mtime: (951_782_400, 5),
            ctime: (0, 0),
            ino: 1,
            rdev: None,
            target: None,
            content: None,
            state: None,
        };
        let text = line(Path::new("/bin/su"), &entry);
        assert_eq!(
            text,
            "-rwsr-xr-x         0:0        72000 2000-02-29T00:00:00Z /bin/su"
        );
        let device = Entry {
            kind: EntryKind::Char,
            rdev: Some((1, 3)),
            ..entry
        };
        assert!(line(Path::new("/x"), &device).starts_with("crwsr-xr-x"));
        assert!(line(Path::new("/x"), &device).contains(" 1, 3 "));
    }

    #[test]
    fn special_bits() {
        for (mode, text) in [
            (0o4755, "rwsr-xr-x"),
            (0o2640, "rw-r-S---"),
            (0o1777, "rwxrwxrwt"),
            (0o1770, "rwxrwx--T"),
        ] {
            assert_eq!(bits(mode), text);
        }
    }
}
