//! The members of an archive as GNU tar writes it: a header, what extended headers before it say, and content.
//!
//! Headers are those of the `tar` crate. Going from one to the next is not left to it: a member's length may be in a PAX
//! record (from 8 GiB on), and the map of a sparse file between a header and its content, of which its raw iterator knows
//! neither; and it takes an archive that was cut off for a whole one.

use std::collections::BTreeMap;

use tar::Header;

use super::blocks::{BLOCK, Blocks, bad};
use super::numbers::{decimal, narrow, within};
use super::sparse::{self, Map};
use crate::list::{Entry, EntryKind};
use crate::member::Extra;
use crate::{Error, Result, acl, bytes, pax};

/// An extended header may have so many bytes.
const MAX_RECORDS: u64 = 16 << 20;
/// All global ones together: they are read again for each member.
const MAX_GLOBAL: usize = 64 << 10;
/// And a path so many: longer ones no system takes in one call, but directories in directories can.
const MAX_PATH: u64 = 32 << 10;
/// The most that one file's extended attributes may hold together, as of files on disk.
const MAX_XATTRS: usize = 4 << 20;

/// So many characters of a name are shown.
const MAX_SHOWN: usize = 300;

/// A member, up to its content.
pub(super) struct Member {
    pub entry: Entry,
    pub extra: Extra,
    /// Of a regular file.
    pub map: Map,
    /// What is in the archive, and not in `extra`, and why.
    pub lost: Vec<String>,
}

/// What stands before a member's own header.
#[derive(Default)]
struct Before {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: Option<Vec<u8>>,
}

impl Before {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.records.is_none()
    }
}

/// Reads one member after the other.
pub(super) struct Members {
    /// Records of global headers, for all that follows.
    global: Vec<u8>,
    /// Where the member at hand begins, and its name as far as it is known.
    pub at: u64,
    pub name: Vec<u8>,
}

impl Members {
    pub(super) fn new() -> Members {
        Members {
            global: Vec::new(),
            at: 0,
            name: Vec::new(),
        }
    }

    /// The next member; its content must have been read. `None` at the end, which is complete.
    pub(super) fn next(&mut self, blocks: &mut Blocks<'_>) -> Result<Option<Member>> {
        let mut before = Before::default();
        self.at = blocks.at;
        self.name.clear();
        loop {
            let block = blocks.block()?;
            if block == [0; BLOCK] {
                if !before.is_empty() {
                    return Err(bad("an extended header without a member"));
                }
                blocks.end()?;
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            check_sum(header)?;
            self.name = header.path_bytes().into_owned();
            let size = || within::<u64>(&header.as_old().size, "a size");
            let twice = |known: bool, what: &str| match known {
                true => Err(bad(format!("{what} twice for one member"))),
                false => Ok(()),
            };
            match header.as_old().linkflag[0] {
                b'L' => {
                    twice(before.long_name.is_some(), "a long name")?;
                    before.long_name = Some(long(blocks, size()?)?);
                }
                b'K' => {
                    twice(before.long_link.is_some(), "a long link")?;
                    before.long_link = Some(long(blocks, size()?)?);
                }
                b'x' => {
                    twice(before.records.is_some(), "a PAX header")?;
                    before.records = Some(records(blocks, size()?)?);
                }
                b'g' => {
                    let more = records(blocks, size()?)?;
                    if self.global.len() + more.len() > MAX_GLOBAL {
                        return Err(bad("global PAX headers that are too large"));
                    }
                    self.global.extend(more);
                }
                _ => return self.member(header, before, blocks).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        before: Before,
        blocks: &mut Blocks<'_>,
    ) -> Result<Member> {
        let old = header.as_old();
        let mut name = before.long_name.unwrap_or_else(|| self.name.clone());
        let mut target = before
            .long_link
            .or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        let mut uid = owned(within(&old.uid, "an owner")?, "an owner")?;
        let mut gid = owned(within(&old.gid, "a group")?, "a group")?;
        let mut mtime = (within::<i64>(&old.mtime, "a time")?, 0);
        let mut ctime = (0, 0);
        let mut stored = within::<u64>(&old.size, "a size")?;
        let mut attributes = Attributes::default();
        let mut holes = sparse::Records::default();
        let own = before.records.unwrap_or_default();
        for record in [&self.global, &own] {
            for (key, value) in pax::parse(record).map_err(bad)? {
                let time = || {
                    pax::parse_time(value)
                        .ok_or_else(|| bad(format!("a time {:?}", String::from_utf8_lossy(value))))
                };
                let owner = |what| owned(narrow(i128::from(decimal(value, what)?), what)?, what);
                match key {
                    b"path" => name = value.to_vec(),
                    b"linkpath" => target = Some(value.to_vec()),
                    b"size" => stored = decimal(value, "a size")?,
                    b"uid" => uid = owner("an owner")?,
                    b"gid" => gid = owner("a group")?,
                    b"mtime" => mtime = time()?,
                    b"ctime" => ctime = time()?,
                    _ if is_nothing(key) || holes.take((key, value))? => {}
                    _ if attributes.take((key, value))? => {}
                    _ => {
                        return Err(bad(format!(
                            "a PAX record {:?}, of which it is not known what it means",
                            String::from_utf8_lossy(key)
                        )));
                    }
                }
            }
        }
        if let Some(real) = holes.name.take() {
            name = real;
        }
        self.name.clone_from(&name);
        let flag = old.linkflag[0];
        let kind = kind(flag, name.ends_with(b"/"))?;
        if name.is_empty() {
            return Err(bad("it has no name"));
        }
        let path = inside(&name).ok_or_else(|| bad("its name leads out of the tree"))?;
        let target = match kind {
            EntryKind::Hardlink => Some(
                target
                    .as_deref()
                    .and_then(inside)
                    .ok_or_else(|| bad("it is a link to something outside the tree"))?,
            ),
            EntryKind::Symlink => Some(
                target
                    .filter(|t| !t.is_empty() && !t.contains(&0) && t.len() as u64 <= MAX_PATH)
                    .ok_or_else(|| bad("it is a symbolic link to no path"))?,
            ),
            _ => None,
        };
        let map = match header.as_gnu().filter(|_| flag == b'S') {
            Some(gnu) => Some(sparse::old(gnu, blocks)?),
            None if flag == b'S' => return Err(bad("a sparse file without its map")),
            None => holes.map(blocks, &mut stored)?,
        };
        let map = map.unwrap_or_else(|| Map::whole(stored));
        if kind == EntryKind::File && map.stored() != stored {
            return Err(bad("its length is not that of its data"));
        }
        if kind != EntryKind::File && (stored != 0 || map.size != 0) {
            return Err(bad("content of something that is no file"));
        }
        let rdev = match kind {
            EntryKind::Char | EntryKind::Block => Some(device(header)?),
            _ => None,
        };
        let (extra, lost) = attributes.extra(kind)?;
        let entry = Entry {
            path: bytes::path(&path),
            kind,
            size: map.size,
            mode: within::<u32>(&old.mode, "a mode")? & 0o7777,
            uid,
            gid,
            mtime,
            ctime,
            ino: 0,
            rdev,
            target: target.map(|t| bytes::path(&t)),
            content: None,
            state: None,
        };
        Ok(Member {
            entry,
            extra,
            map,
            lost,
        })
    }
}

/// Nobody has the last number: to the kernel it means that an owner stays as it is.
fn owned(number: u32, what: &str) -> Result<u32> {
    match number {
        u32::MAX => Err(bad(format!("{what} of {number}"))),
        number => Ok(number),
    }
}

/// Records that say nothing that is kept.
fn is_nothing(key: &[u8]) -> bool {
    matches!(
        key,
        b"atime" | b"uname" | b"gname" | b"comment" | b"charset" | b"hdrcharset"
    )
}

fn kind(flag: u8, slash: bool) -> Result<EntryKind> {
    Ok(match flag {
        // Before there were directories in archives, they were files with a slash.
        b'0' | 0 | b'7' if slash => EntryKind::Dir,
        b'0' | 0 | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::Hardlink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::Char,
        b'4' => EntryKind::Block,
        b'5' => EntryKind::Dir,
        b'6' => EntryKind::Fifo,
        other => {
            return Err(bad(format!(
                "a member of type {:?}, of which it is not known what it is",
                char::from(other)
            )));
        }
    })
}

/// A path in the tree: `./etc/` is `etc`, and `./` the root.
fn inside(name: &[u8]) -> Option<Vec<u8>> {
    let mut name = Some(name).filter(|name| !name.is_empty())?;
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    if name.starts_with(b"/") {
        return None;
    }
    while let Some(rest) = name.strip_suffix(b"/") {
        name = rest;
    }
    let name = if name.is_empty() { b"." } else { name };
    (bytes::is_inside(name) && name.len() as u64 <= MAX_PATH).then(|| name.to_vec())
}

fn device(header: &Header) -> Result<(u32, u32)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(h), _) => (&h.dev_major, &h.dev_minor),
        (None, Some(h)) => (&h.dev_major, &h.dev_minor),
        (None, None) => return Err(bad("a device without its number")),
    };
    let part = |field: &[u8]| match within::<u32>(field, "a device number")? {
        // What a header of a segment has room for; Linux has 12 and 20 bits.
        number if number <= 0o7_777_777 => Ok(number),
        number => Err(bad(format!("a device number of {number}"))),
    };
    Ok((part(major)?, part(minor)?))
}

fn check_sum(header: &Header) -> Result<()> {
    let all = header.as_bytes();
    let rest = all[..148].iter().chain(&all[156..]);
    let (unsigned, signed) = rest.fold((256, 256), |(u, s), b| {
        (u + i128::from(*b), s + i128::from(*b as i8))
    });
    let sum = super::numbers::field(&header.as_old().cksum, "a check sum");
    match sum {
        // Old writers counted with signs.
        Ok(sum) if sum == unsigned || sum == signed => Ok(()),
        _ => Err(bad(
            "there is no header, or a damaged one, where one must be",
        )),
    }
}

/// The content of a header of type `L` or `K`: a name, with a NUL behind it.
fn long(blocks: &mut Blocks<'_>, size: u64) -> Result<Vec<u8>> {
    let mut name = blocks.small(size, MAX_PATH + 1, "a long name")?;
    blocks.padding(size)?;
    name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
    Ok(name)
}

fn records(blocks: &mut Blocks<'_>, size: u64) -> Result<Vec<u8>> {
    let records = blocks.small(size, MAX_RECORDS, "a PAX header")?;
    blocks.padding(size)?;
    Ok(records)
}

/// A stranger's name as a problem gives it: all of them go into the document.
fn short(mut name: String) -> String {
    if let Some((end, _)) = name.char_indices().nth(MAX_SHOWN) {
        name.truncate(end);
        name.push_str("...");
    }
    name
}

/// Extended attributes and ACLs.
#[derive(Default)]
struct Attributes {
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
}

impl Attributes {
    fn take(&mut self, (key, value): pax::Record<'_>) -> Result<bool> {
        match key {
            b"SCHILY.acl.access" => self.access = Some(value.to_vec()),
            b"SCHILY.acl.default" => self.default = Some(value.to_vec()),
            b"RHT.security.selinux" => {
                // The kernel's value ends with a NUL.
                let mut context = value.strip_suffix(b"\0").unwrap_or(value).to_vec();
                context.push(0);
                self.xattrs.insert(b"security.selinux".to_vec(), context);
            }
            _ => match key.strip_prefix(b"SCHILY.xattr.") {
                Some(name) if name.is_empty() || name.contains(&0) => {
                    return Err(bad("an extended attribute without a name"));
                }
                // The last one counts.
                Some(name) => {
                    self.xattrs.insert(pax::unescape(name), value.to_vec());
                }
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// The attributes as the kernel has them, in a fixed order, and what is not among them.
    fn extra(mut self, kind: EntryKind) -> Result<(Extra, Vec<String>)> {
        let mut lost = Vec::new();
        // Those of a link are its target's.
        if kind == EntryKind::Hardlink {
            return Ok((Extra::default(), lost));
        }
        for (text, name, access) in [
            (self.access.take(), acl::ACCESS, true),
            (self.default.take(), acl::DEFAULT, false),
        ] {
            let Some(text) = text else { continue };
            match acl::from_text(&text, access, &acl::number_of) {
                Ok(Some(value)) => {
                    self.xattrs.insert(name.to_vec(), value);
                }
                Ok(None) => {}
                Err(acl::Problem::Malformed(text)) => {
                    return Err(bad(format!("an ACL that is none: {:?}", short(text))));
                }
                Err(acl::Problem::Unknown(name)) => lost.push(format!(
                    "its ACL names {:?}, who is not known on this machine",
                    short(name)
                )),
            }
        }
        let (mut total, mut first, mut more) = (0, None, 0u64);
        self.xattrs.retain(|name, value| {
            total += value.len();
            let fits = total <= MAX_XATTRS;
            match &first {
                _ if fits => {}
                None => first = Some(short(String::from_utf8_lossy(name).into_owned())),
                Some(_) => more += 1,
            }
            fits
        });
        if let Some(first) = first {
            let others = match more {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            lost.push(format!(
                "extended attributes: {first}{others}: they are too large together"
            ));
        }
        let extra = Extra {
            xattrs: self.xattrs.into_iter().collect(),
            flags: 0,
        };
        Ok((extra, lost))
    }
}

/// The same error, with the member that it is about.
pub(super) fn about(error: Error, members: &Members) -> Error {
    match error {
        Error::Archive { place, reason } if place.is_empty() => {
            let name = String::from_utf8_lossy(&members.name);
            // Names of a stranger's archive go to terminals.
            let mut name: String = name.chars().take(MAX_SHOWN).collect();
            name.retain(|c| !c.is_control());
            let place = match name.is_empty() {
                true => format!("at byte {}", members.at),
                false => format!("at {name} (byte {})", members.at),
            };
            let reason = short(reason);
            Error::Archive { place, reason }
        }
        other => other,
    }
}
