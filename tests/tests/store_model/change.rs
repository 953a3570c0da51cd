//! Random changes to a tree of files.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use proptest::prelude::*;

use super::tree::names;
use crate::store_support::is_root;

/// Numbers choose among what is there when the change is made, so that a shorter list of changes still means something.
#[derive(Debug, Clone)]
pub enum Change {
    Write {
        dir: u16,
        name: u8,
        size: usize,
        seed: u8,
    },
    Append {
        file: u16,
        size: usize,
    },
    /// Another content; size and time of modification are what they were.
    Poke {
        file: u16,
        at: u32,
    },
    Truncate {
        file: u16,
        size: usize,
    },
    /// Data at some places, holes between them.
    Sparse {
        dir: u16,
        name: u8,
        size: u32,
        data: Vec<u32>,
    },
    /// Makes zeroes in a file a hole, or a hole zeroes: the same content in another shape.
    Reshape {
        file: u16,
    },
    MakeDir {
        dir: u16,
        name: u8,
    },
    Link {
        file: u16,
        dir: u16,
        name: u8,
    },
    Symlink {
        dir: u16,
        name: u8,
        to: u8,
    },
    Fifo {
        dir: u16,
        name: u8,
    },
    Delete {
        any: u16,
    },
    Rename {
        any: u16,
        dir: u16,
        name: u8,
    },
    Touch {
        any: u16,
        time: u32,
    },
    Chmod {
        any: u16,
        mode: u8,
    },
    Chown {
        any: u16,
        owner: u8,
    },
    Xattr {
        any: u16,
        name: u8,
        value: Option<u8>,
    },
}

/// Names that meet again and again, so that files are replaced by others of another kind.
const NAMES: [&[u8]; 22] = [
    b"a",
    b"b",
    b"c",
    b"a!",
    b"a-b",
    b"a.conf",
    b"b.conf",
    b"new\nline",
    b"not-utf8-\xff\xfe",
    b"with space",
    b"-rf",
    b"*?[x",
    b"back\\slash",
    b"\x01control",
    b"...",
    b"'\"",
    b"zz",
    b"z",
    b".hidden",
    b"\xc3\xa9",
    b"%3D=",
    b"LONG",
];
const MODES: [u32; 8] = [0o644, 0o600, 0o755, 0o4755, 0o2711, 0o1777, 0o640, 0o700];

fn name(number: u8) -> Vec<u8> {
    match NAMES[usize::from(number) % NAMES.len()] {
        // As long as a file system allows.
        b"LONG" => vec![b'n'; 255],
        name => name.to_vec(),
    }
}

pub fn strategy() -> impl Strategy<Value = Change> {
    use Change::*;
    let place = || (any::<u16>(), any::<u8>());
    prop_oneof![
        6 => (place(), size(), any::<u8>()).prop_map(|((dir, name), size, seed)| Write { dir, name, size, seed }),
        2 => (any::<u16>(), 1usize..3000).prop_map(|(file, size)| Append { file, size }),
        4 => (any::<u16>(), any::<u32>()).prop_map(|(file, at)| Poke { file, at }),
        1 => (any::<u16>(), size()).prop_map(|(file, size)| Truncate { file, size }),
        1 => (place(), 1u32..6_000_000, proptest::collection::vec(any::<u32>(), 0..4))
            .prop_map(|((dir, name), size, data)| Sparse { dir, name, size, data }),
        1 => any::<u16>().prop_map(|file| Reshape { file }),
        2 => place().prop_map(|(dir, name)| MakeDir { dir, name }),
        2 => (any::<u16>(), place()).prop_map(|(file, (dir, name))| Link { file, dir, name }),
        1 => (place(), any::<u8>()).prop_map(|((dir, name), to)| Symlink { dir, name, to }),
        1 => place().prop_map(|(dir, name)| Fifo { dir, name }),
        3 => any::<u16>().prop_map(|any| Delete { any }),
        3 => (any::<u16>(), place()).prop_map(|(any, (dir, name))| Rename { any, dir, name }),
        2 => (any::<u16>(), any::<u32>()).prop_map(|(any, time)| Touch { any, time }),
        2 => (any::<u16>(), any::<u8>()).prop_map(|(any, mode)| Chmod { any, mode }),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(any, owner)| Chown { any, owner }),
        2 => (any::<u16>(), any::<u8>(), proptest::option::weighted(0.7, any::<u8>()))
            .prop_map(|(any, name, value)| Xattr { any, name, value }),
    ]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => Just(0),
        8 => 1usize..6000,
        3 => 200_000usize..1_000_000,
        // Up to 1 MiB a file is a part of a segment.
        1 => (1usize << 20) - 1..(1 << 20) + 2,
        1 => 1_100_000usize..2_500_000,
    ]
}

/// The same for the same numbers: what is written twice is to be stored once.
fn content(seed: u8, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    if seed % 3 == 0 {
        let line = format!("all work and no play {seed}\n");
        return line.bytes().cycle().take(size).collect();
    }
    let words = (0..size.div_ceil(8)).flat_map(|_| next().to_le_bytes());
    words.take(size).collect()
}

/// Everything below a root, without the root.
fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for name in names(&dir)? {
            let path = dir.join(name);
            if fs::symlink_metadata(&path)?.is_dir() {
                waiting.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

struct Place<'r> {
    root: &'r Path,
    all: Vec<PathBuf>,
}

impl Place<'_> {
    fn any(&self, number: u16) -> Option<&PathBuf> {
        self.all.get(usize::from(number) % self.all.len().max(1))
    }

    fn file(&self, number: u16) -> Option<&PathBuf> {
        let is_file = |p: &&PathBuf| fs::symlink_metadata(p).is_ok_and(|m| m.is_file());
        let files: Vec<_> = self.all.iter().filter(is_file).collect();
        files.get(usize::from(number) % files.len().max(1)).copied()
    }

    /// A path in one of the directories; something may be there.
    fn free(&self, dir: u16, number: u8) -> PathBuf {
        let is_dir = |p: &&PathBuf| fs::symlink_metadata(p).is_ok_and(|m| m.is_dir());
        let shallow = |p: &&PathBuf| {
            p.strip_prefix(self.root)
                .is_ok_and(|p| p.components().count() < 5)
        };
        let dirs: Vec<_> = self.all.iter().filter(is_dir).filter(shallow).collect();
        let dir = match usize::from(dir) % (dirs.len() + 1) {
            0 => self.root,
            n => dirs[n - 1],
        };
        dir.join(OsStr::from_bytes(&name(number)))
    }
}

/// What was in the way is gone; a directory only when it is empty.
fn clear(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Err(_) => true,
        Ok(meta) if meta.is_dir() => fs::remove_dir(path).is_ok(),
        Ok(_) => fs::remove_file(path).is_ok(),
    }
}

fn writable(path: &Path) -> Result<File> {
    Ok(File::options().read(true).write(true).open(path)?)
}

/// Makes a change; one that cannot be made there is passed over.
pub fn apply(root: &Path, change: &Change) -> Result<()> {
    let place = Place {
        root,
        all: walk(root)?,
    };
    match change {
        Change::Write {
            dir,
            name,
            size,
            seed,
        } => {
            let path = place.free(*dir, *name);
            let exists = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file());
            if exists || clear(&path) {
                fs::write(path, content(*seed, *size))?;
            }
        }
        Change::Append { file, size } => {
            if let Some(path) = place.file(*file) {
                let file = writable(path)?;
                let end = file.metadata()?.len();
                if end < 8 << 20 {
                    file.write_all_at(&content(7, *size), end)?;
                }
            }
        }
        Change::Poke { file, at } => {
            if let Some(path) = place.file(*file) {
                let file = writable(path)?;
                let meta = file.metadata()?;
                if meta.len() > 0 {
                    let at = u64::from(*at) % meta.len();
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, at)?;
                    file.write_all_at(&[byte[0] ^ 0x55], at)?;
                    file.set_times(FileTimes::new().set_modified(meta.modified()?))?;
                }
            }
        }
        Change::Truncate { file, size } => {
            if let Some(path) = place.file(*file) {
                writable(path)?.set_len(*size as u64)?;
            }
        }
        Change::Sparse {
            dir,
            name,
            size,
            data,
        } => {
            let path = place.free(*dir, *name);
            if clear(&path) {
                let file = File::create_new(path)?;
                file.set_len(u64::from(*size))?;
                for (n, at) in data.iter().enumerate() {
                    let at = at % size;
                    let length = (size - at).min(5000) as usize;
                    file.write_all_at(&content(n as u8 + 1, length), u64::from(at))?;
                }
            }
        }
        Change::Reshape { file } => {
            if let Some(path) = place.file(*file) {
                let file = writable(path)?;
                let size = file.metadata()?.len();
                let mut block = vec![0; 4096.min(size as usize)];
                file.read_exact_at(&mut block, 0)?;
                if block.iter().all(|b| *b == 0) {
                    file.write_all_at(&block, 0)?;
                }
            }
        }
        Change::MakeDir { dir, name } => {
            let path = place.free(*dir, *name);
            if clear(&path) {
                fs::create_dir(path)?;
            }
        }
        Change::Link { file, dir, name } => {
            let path = place.free(*dir, *name);
            if let Some(from) = place.file(*file).filter(|f| **f != path) {
                if clear(&path) {
                    fs::hard_link(from, path)?;
                }
            }
        }
        Change::Symlink { dir, name: at, to } => {
            let path = place.free(*dir, *at);
            if clear(&path) {
                symlink(OsStr::from_bytes(&name(*to)), path)?;
            }
        }
        Change::Fifo { dir, name } => {
            let path = place.free(*dir, *name);
            if clear(&path) {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR)?;
            }
        }
        Change::Delete { any } => {
            if let Some(path) = place.any(*any) {
                if fs::symlink_metadata(path)?.is_dir() {
                    fs::remove_dir_all(path)?;
                } else {
                    fs::remove_file(path)?;
                }
            }
        }
        Change::Rename { any, dir, name } => {
            let to = place.free(*dir, *name);
            if let Some(from) = place.any(*any).filter(|f| !to.starts_with(f)) {
                if !from.starts_with(&to) && clear(&to) {
                    fs::rename(from, to)?;
                }
            }
        }
        Change::Touch { any, time } => {
            if let Some(path) = place.any(*any) {
                let meta = fs::symlink_metadata(path)?;
                if meta.is_file() || meta.is_dir() {
                    let time = Duration::new(u64::from(*time), time % 1_000_000_000);
                    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + time);
                    File::open(path)?.set_times(times)?;
                }
            }
        }
        Change::Chmod { any, mode } => {
            if let Some(path) = place.any(*any) {
                let meta = fs::symlink_metadata(path)?;
                let mode = MODES[usize::from(*mode) % MODES.len()];
                if !meta.is_symlink() {
                    let mode = if meta.is_dir() { mode | 0o700 } else { mode };
                    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
                }
            }
        }
        Change::Chown { any, owner } => {
            if let Some(path) = place.any(*any).filter(|_| is_root()) {
                let (uid, gid) = (u32::from(*owner), u32::from(*owner / 2));
                std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
            }
        }
        Change::Xattr { any, name, value } => {
            if let Some(path) = place.any(*any) {
                let meta = fs::symlink_metadata(path)?;
                if meta.is_file() || meta.is_dir() {
                    let name = ["user.a", "user.b%=", "user.binary"][usize::from(*name) % 3];
                    match value {
                        Some(value) => {
                            xattr::set(path, name, &content(*value, usize::from(*value) * 2))?
                        }
                        None if xattr::get(path, name)?.is_some() => xattr::remove(path, name)?,
                        None => {}
                    }
                }
            }
        }
    }
    Ok(())
}

/// The tree that every case begins with: several segments, so that some of them stay as they are.
pub fn make_first(root: &Path) -> Result<()> {
    use Change::*;
    for dir in ["etc", "etc/net", "srv", "var", "var/lib"] {
        fs::create_dir(root.join(dir))?;
    }
    for n in 0..14u8 {
        fs::write(
            root.join(format!("etc/{n:02}.conf")),
            content(n, 300 + usize::from(n) * 400),
        )?;
    }
    for n in 0..3u8 {
        fs::write(
            root.join(format!("var/lib/{n}")),
            content(n + 40, 500_000 + usize::from(n) * 90_000),
        )?;
    }
    fs::write(root.join("srv/large"), content(71, 1_500_000))?;
    fs::write(root.join("srv/text"), content(72, 1_100_000))?;
    fs::hard_link(root.join("etc/03.conf"), root.join("var/linked"))?;
    fs::hard_link(root.join("srv/large"), root.join("var/lib/large"))?;
    let more = [
        Sparse {
            dir: 3,
            name: 0,
            size: 3_000_000,
            data: vec![1_000_000, 2_000_001],
        },
        Symlink {
            dir: 1,
            name: 0,
            to: 5,
        },
        Fifo { dir: 2, name: 1 },
        Write {
            dir: 0,
            name: 7,
            size: 100,
            seed: 1,
        },
        Write {
            dir: 0,
            name: 8,
            size: 100,
            seed: 2,
        },
        Write {
            dir: 3,
            name: 21,
            size: 100,
            seed: 3,
        },
    ];
    more.iter().try_for_each(|change| apply(root, change))
}
