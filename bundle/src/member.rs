//! Members of segments: entries as tar headers with PAX records, and back.

use std::io::Cursor;

use tar::{EntryType, Header};

use crate::list::{Entry, EntryKind, EntryState};
use crate::{Id, bytes, pax};

/// The largest number that 7 octal digits of a ustar header hold.
const MAX_OCTAL_7: u32 = 0o7_777_777;
/// The same for 11 digits (size, mtime).
const MAX_OCTAL_11: u64 = 0o77_777_777_777;
/// The name field of a ustar header.
const NAME_FIELD: usize = 100;

/// Inode flags that are kept, with `lsattr`'s letters (`FS_*_FL` of `linux/fs.h`).
pub(crate) const FLAGS: [(char, u32); 6] = [
    ('S', 0x8),     // FS_SYNC_FL
    ('i', 0x10),    // FS_IMMUTABLE_FL
    ('a', 0x20),    // FS_APPEND_FL
    ('d', 0x40),    // FS_NODUMP_FL
    ('A', 0x80),    // FS_NOATIME_FL
    ('D', 0x10000), // FS_DIRSYNC_FL
];

/// What a tar member carries beside the entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    /// Name and raw value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bits of [`FLAGS`].
    pub flags: u32,
}

/// Appends the header of an entry, PAX records first. `in_tar` is the number of content bytes that follow.
pub(crate) fn push_header(out: &mut Vec<u8>, entry: &Entry, extra: &Extra, in_tar: u64) {
    let mut path = bytes::of(&entry.path).to_vec();
    if entry.kind == EntryKind::Dir {
        path.push(b'/');
    }
    let link = entry.target.as_deref().map(bytes::of).unwrap_or_default();
    let mut records = records(entry, &path, link, in_tar);
    for (name, value) in &extra.xattrs {
        let mut key = b"SCHILY.xattr.".to_vec();
        pax::escape(name, &mut key);
        pax::push(&mut records, &key, value);
    }
    if let Some(content) = entry.content {
        pax::push(
            &mut records,
            b"LIFEBOAT.content",
            content.to_string().as_bytes(),
        );
        pax::push(
            &mut records,
            b"LIFEBOAT.size",
            entry.size.to_string().as_bytes(),
        );
    }
    if extra.flags != 0 {
        let letters: String = FLAGS
            .iter()
            .filter(|(_, bit)| extra.flags & bit != 0)
            .map(|(letter, _)| *letter)
            .collect();
        pax::push(&mut records, b"LIFEBOAT.flags", letters.as_bytes());
    }
    if let Some(state) = entry.state {
        pax::push(&mut records, b"LIFEBOAT.state", state.word().as_bytes());
    }
    push_blocks(out, entry, &path, link, &records, in_tar);
}

/// The PAX records of a member for what has no room in its header, and its time.
pub(crate) fn records(entry: &Entry, name: &[u8], link: &[u8], in_tar: u64) -> Vec<u8> {
    let mut records = Vec::new();
    if name.len() > NAME_FIELD {
        pax::push(&mut records, b"path", name);
    }
    if link.len() > NAME_FIELD {
        pax::push(&mut records, b"linkpath", link);
    }
    if entry.uid > MAX_OCTAL_7 {
        pax::push(&mut records, b"uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > MAX_OCTAL_7 {
        pax::push(&mut records, b"gid", entry.gid.to_string().as_bytes());
    }
    if in_tar > MAX_OCTAL_11 {
        pax::push(&mut records, b"size", in_tar.to_string().as_bytes());
    }
    pax::push(
        &mut records,
        b"mtime",
        pax::time(entry.mtime.0, entry.mtime.1).as_bytes(),
    );
    records
}

/// Appends a PAX header with these records, and the header of a member.
pub(crate) fn push_blocks(
    out: &mut Vec<u8>,
    entry: &Entry,
    name: &[u8],
    link: &[u8],
    records: &[u8],
    in_tar: u64,
) {
    let mut pax_header = Header::new_ustar();
    pax_header.set_entry_type(EntryType::XHeader);
    set_bytes(&mut pax_header.as_old_mut().name, b"././@PaxHeader");
    pax_header.set_mode(0o644);
    pax_header.set_size(records.len() as u64);
    pax_header.set_cksum();
    out.extend_from_slice(pax_header.as_bytes());
    out.extend_from_slice(records);
    pad(out, records.len() as u64);

    let mut header = Header::new_ustar();
    header.set_entry_type(match entry.kind {
        EntryKind::File => EntryType::Regular,
        EntryKind::Dir => EntryType::Directory,
        EntryKind::Symlink => EntryType::Symlink,
        EntryKind::Hardlink => EntryType::Link,
        EntryKind::Char => EntryType::Char,
        EntryKind::Block => EntryType::Block,
        EntryKind::Fifo => EntryType::Fifo,
    });
    set_bytes(&mut header.as_old_mut().name, name);
    set_bytes(&mut header.as_old_mut().linkname, link);
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(u64::from(entry.uid.min(MAX_OCTAL_7)));
    header.set_gid(u64::from(entry.gid.min(MAX_OCTAL_7)));
    header.set_size(in_tar.min(MAX_OCTAL_11));
    // GNU tar refuses negative times in headers; the true time is in the PAX record.
    header.set_mtime(u64::try_from(entry.mtime.0).unwrap_or(0).min(MAX_OCTAL_11));
    if let Some((major, minor)) = entry.rdev {
        // Only GNU and ustar headers have device fields; this is a ustar header, so neither call fails.
        let _ = header.set_device_major(major);
        let _ = header.set_device_minor(minor);
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
}

fn set_bytes(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Fills up to a full block of 512 bytes after `size` bytes of content.
pub(crate) fn pad(out: &mut Vec<u8>, size: u64) {
    let missing = (512 - size % 512) % 512;
    out.resize(out.len() + missing as usize, 0);
}

/// The end of an archive: two empty blocks.
pub(crate) fn push_end(out: &mut Vec<u8>) {
    out.resize(out.len() + 1024, 0);
}

/// A member read from a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// `ctime` and `ino` are not in a tar archive and are 0.
    pub entry: Entry,
    pub extra: Extra,
    pub data: &'a [u8],
}

/// Calls `each` for every member of a segment; an error says what is wrong with the archive.
pub(crate) fn read(segment: &[u8], each: &mut dyn FnMut(Member<'_>)) -> Result<(), String> {
    let mut archive = tar::Archive::new(Cursor::new(segment));
    let mut records = Vec::new();
    for member in archive.entries().map_err(|e| e.to_string())?.raw(true) {
        let member = member.map_err(|e| e.to_string())?;
        let start = usize::try_from(member.raw_file_position()).map_err(|e| e.to_string())?;
        let size = usize::try_from(member.header().entry_size().map_err(|e| e.to_string())?)
            .map_err(|e| e.to_string())?;
        let data = start
            .checked_add(size)
            .and_then(|end| segment.get(start..end))
            .ok_or("a member is longer than the segment")?;
        match member.header().entry_type() {
            EntryType::XHeader => records = pax::parse(data)?,
            _ => each(decode(
                member.header(),
                &std::mem::take(&mut records),
                data,
            )?),
        }
    }
    Ok(())
}

fn decode<'a>(
    header: &Header,
    records: &[pax::Record<'_>],
    data: &'a [u8],
) -> Result<Member<'a>, String> {
    let kind = match header.entry_type() {
        EntryType::Regular => EntryKind::File,
        EntryType::Directory => EntryKind::Dir,
        EntryType::Symlink => EntryKind::Symlink,
        EntryType::Link => EntryKind::Hardlink,
        EntryType::Char => EntryKind::Char,
        EntryType::Block => EntryKind::Block,
        EntryType::Fifo => EntryKind::Fifo,
        other => return Err(format!("a member of type {other:?}, which no writer makes")),
    };
    let number =
        |value: u64| u32::try_from(value).map_err(|_| "an owner beyond 32 bits".to_string());
    let text = |e: std::io::Error| e.to_string();
    let mut path = header.path_bytes().to_vec();
    let mut target = header.link_name_bytes().map(|l| l.to_vec());
    let (mut uid, mut gid) = (
        number(header.uid().map_err(text)?)?,
        number(header.gid().map_err(text)?)?,
    );
    let mut mtime = (
        i64::try_from(header.mtime().map_err(text)?).unwrap_or(i64::MAX),
        0,
    );
    let (mut size, mut content, mut state) = (data.len() as u64, None, None);
    let mut extra = Extra::default();
    for (key, value) in records {
        let bad = || {
            format!(
                "a PAX record {} that is not one",
                String::from_utf8_lossy(key)
            )
        };
        let digits = || {
            std::str::from_utf8(value)
                .ok()
                .and_then(|t| t.parse::<u64>().ok())
                .ok_or_else(bad)
        };
        match *key {
            b"path" => path = value.to_vec(),
            b"linkpath" => target = Some(value.to_vec()),
            b"uid" => uid = number(digits()?)?,
            b"gid" => gid = number(digits()?)?,
            b"mtime" => mtime = pax::parse_time(value).ok_or_else(bad)?,
            b"LIFEBOAT.size" => size = digits()?,
            b"LIFEBOAT.content" => {
                content = Some(
                    std::str::from_utf8(value)
                        .ok()
                        .and_then(|t| t.parse::<Id>().ok())
                        .ok_or_else(bad)?,
                );
            }
            b"LIFEBOAT.flags" => {
                for letter in value.iter() {
                    let flag = FLAGS.iter().find(|(l, _)| *l == char::from(*letter));
                    extra.flags |= flag.ok_or_else(bad)?.1;
                }
            }
            b"LIFEBOAT.state" => state = Some(EntryState::from_word(value).ok_or_else(bad)?),
            _ => match key.strip_prefix(b"SCHILY.xattr.") {
                Some(name) => extra.xattrs.push((pax::unescape(name), value.to_vec())),
                // Unknown records would be metadata that is silently not restored.
                None => {
                    return Err(format!(
                        "an unknown PAX record {}",
                        String::from_utf8_lossy(key)
                    ));
                }
            },
        }
    }
    if kind == EntryKind::Dir && path.len() > 1 && path.last() == Some(&b'/') {
        path.pop();
    }
    if !bytes::is_inside(&path) {
        return Err(format!(
            "a path that leads out of the tree: {:?}",
            String::from_utf8_lossy(&path)
        ));
    }
    if kind != EntryKind::File && (content.is_some() || !data.is_empty()) {
        return Err(format!(
            "content of something that is no file: {:?}",
            String::from_utf8_lossy(&path)
        ));
    }
    let linked = matches!(kind, EntryKind::Symlink | EntryKind::Hardlink);
    if kind == EntryKind::Hardlink && !target.as_deref().is_some_and(bytes::is_inside) {
        return Err(format!(
            "a hard link that leads out of the tree: {:?}",
            String::from_utf8_lossy(&path)
        ));
    }
    let rdev = match kind {
        EntryKind::Char | EntryKind::Block => {
            let part = |n: std::io::Result<Option<u32>>| match n.map_err(text)? {
                Some(n) if n > MAX_OCTAL_7 => Err(format!("a device number {n}")),
                n => Ok(n.unwrap_or_default()),
            };
            Some((part(header.device_major())?, part(header.device_minor())?))
        }
        _ => None,
    };
    let entry = Entry {
        path: bytes::path(&path),
        kind,
        size,
        mode: header.mode().map_err(text)? & 0o7777,
        uid,
        gid,
        mtime,
        ctime: (0, 0),
        ino: 0,
        rdev,
        target: target.filter(|_| linked).map(|t| bytes::path(&t)),
        content,
        state,
    };
    Ok(Member { entry, extra, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let part = proptest::collection::vec(
            any::<u8>().prop_filter("in names", |b| *b != 0 && *b != b'/'),
            1..60,
        )
        .prop_filter("not a dot name", |n| n != b"." && n != b"..");
        proptest::collection::vec(part, 1..6).prop_map(|parts| parts.join(&b'/'))
    }

    fn entry() -> impl Strategy<Value = (Entry, Extra, Vec<u8>)> {
        let xattr = (
            proptest::collection::vec(1u8.., 1..30),
            proptest::collection::vec(any::<u8>(), 0..60),
        );
        let kinds = prop_oneof![
            Just(EntryKind::File),
            Just(EntryKind::Dir),
            Just(EntryKind::Symlink),
            Just(EntryKind::Hardlink),
            Just(EntryKind::Char),
            Just(EntryKind::Block),
            Just(EntryKind::Fifo)
        ];
        let numbers = (
            0u32..0o10000,
            any::<u32>(),
            any::<u32>(),
            -1i64 << 33..1i64 << 36,
            0u32..1_000_000_000,
        );
        (
            (
                name(),
                name(),
                kinds,
                numbers,
                proptest::option::of(any::<[u8; 32]>()),
            ),
            (
                proptest::collection::vec(xattr, 0..4),
                0usize..64,
                0u32..1000,
                0u32..100_000,
            ),
            proptest::collection::vec(any::<u8>(), 0..2000),
        )
            .prop_map(
                |((path, link, kind, n, content), (xattrs, flags, major, minor), data)| {
                    let file = kind == EntryKind::File;
                    let content = content.map(Id::from_bytes).filter(|_| file);
                    let linked = matches!(kind, EntryKind::Symlink | EntryKind::Hardlink);
                    let device = matches!(kind, EntryKind::Char | EntryKind::Block);
                    let data = if file && content.is_none() {
                        data
                    } else {
                        Vec::new()
                    };
                    let flags = FLAGS
                        .iter()
                        .enumerate()
                        .filter(|(i, _)| flags >> i & 1 == 1)
                        .map(|(_, (_, bit))| bit)
                        .sum();
                    let entry = Entry {
                        path: bytes::path(&path),
                        kind,
                        size: if content.is_some() {
                            1 << 40
                        } else {
                            data.len() as u64
                        },
                        mode: n.0,
                        uid: n.1,
                        gid: n.2,
                        mtime: (n.3, n.4),
                        ctime: (0, 0),
                        ino: 0,
                        rdev: device.then_some((major, minor)),
                        target: linked.then(|| bytes::path(&link)),
                        content,
                        state: (n.0 % 2 == 1).then_some(EntryState::Changed),
                    };
                    (entry, Extra { xattrs, flags }, data)
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn segments_round_trip(entries in proptest::collection::vec(entry(), 0..6)) {
            let mut segment = Vec::new();
            for (entry, extra, data) in &entries {
                push_header(&mut segment, entry, extra, data.len() as u64);
                segment.extend_from_slice(data);
                pad(&mut segment, data.len() as u64);
            }
            push_end(&mut segment);
            let mut found = Vec::new();
            read(&segment, &mut |m| found.push((m.entry, m.extra, m.data.to_vec()))).unwrap();
            prop_assert_eq!(found, entries);
        }

        #[test]
        fn damaged_segments_do_not_panic(entries in proptest::collection::vec(entry(), 1..3),
                                         flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
            let mut segment = Vec::new();
            for (entry, extra, data) in &entries {
                push_header(&mut segment, entry, extra, data.len() as u64);
                segment.extend_from_slice(data);
                pad(&mut segment, data.len() as u64);
            }
            for (at, value) in flips {
                let at = at.index(segment.len());
                segment[at] = value;
            }
            let _ = read(&segment, &mut |_| ());
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../../x", "a//b"] {
            let mut segment = Vec::new();
            let entry = Entry {
                path: path.into(),
                kind: EntryKind::File,
                size: 0,
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: (0, 0),
                ctime: (0, 0),
                ino: 0,
                rdev: None,
                target: None,
                content: None,
                state: None,
            };
            push_header(&mut segment, &entry, &Extra::default(), 0);
            push_end(&mut segment);
            assert!(
                read(&segment, &mut |_| ())
                    .unwrap_err()
                    .contains("out of the tree"),
                "{path}"
            );
        }
    }
}
