//! Members as GNU tar writes and reads them: ACLs as text, holes as holes.

use std::ops::Range;

use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra};
use crate::{acl, bytes, pax};

/// What precedes the data of a sparse file: numbers of its map, each on a line, in whole blocks.
pub(super) fn map(extents: &[Range<u64>], size: u64) -> Vec<u8> {
    // Where nothing follows the last data, GNU tar does not make the file longer unless told so.
    let end = extents.last().map_or(0, |e| e.end);
    let last = (end < size).then_some(size..size);
    let all = || extents.iter().chain(&last);
    let mut map = format!("{}\n", all().count()).into_bytes();
    for extent in all() {
        let text = format!("{}\n{}\n", extent.start, extent.end - extent.start);
        map.extend_from_slice(text.as_bytes());
    }
    let length = map.len() as u64;
    member::pad(&mut map, length);
    map
}

/// Appends the header of a member of an archive that begins with `./`. `in_tar` bytes follow, which are of a sparse file of
/// `sparse` bytes. Gives what GNU tar has no form for.
pub(super) fn push_header(
    out: &mut Vec<u8>,
    entry: &Entry,
    extra: &Extra,
    in_tar: u64,
    sparse: Option<u64>,
) -> Vec<String> {
    let full = named(bytes::of(&entry.path), entry.kind);
    let name = match sparse {
        // For those who do not understand the form, which would take the map for content.
        Some(_) => {
            let (parent, own) = bytes::split(&full);
            [parent, b"/GNUSparseFile.0/", own].concat()
        }
        None => full.clone(),
    };
    let link = match (&entry.target, entry.kind) {
        (Some(target), EntryKind::Hardlink) => named(bytes::of(target), EntryKind::File),
        (Some(target), _) => bytes::of(target).to_vec(),
        (None, _) => Vec::new(),
    };
    let mut records = member::records(entry, &name, &link, in_tar);
    if let Some(size) = sparse {
        pax::push(&mut records, b"GNU.sparse.major", b"1");
        pax::push(&mut records, b"GNU.sparse.minor", b"0");
        pax::push(&mut records, b"GNU.sparse.name", &full);
        let size = size.to_string();
        pax::push(&mut records, b"GNU.sparse.realsize", size.as_bytes());
    }
    let mut lost = Vec::new();
    for (name, value) in &extra.xattrs {
        let text = match name.as_slice() {
            acl::ACCESS => b"SCHILY.acl.access",
            acl::DEFAULT => &b"SCHILY.acl.default"[..],
            b"security.selinux" => {
                let context = value.strip_suffix(b"\0").unwrap_or(value);
                pax::push(&mut records, b"RHT.security.selinux", context);
                continue;
            }
            name => {
                let mut key = b"SCHILY.xattr.".to_vec();
                pax::escape(name, &mut key);
                pax::push(&mut records, &key, value);
                continue;
            }
        };
        match acl::to_text(value) {
            Some(acl) => pax::push(&mut records, text, acl.as_bytes()),
            None => lost.push(format!(
                "{} is no ACL",
                String::from_utf8_lossy(name.as_slice())
            )),
        }
    }
    member::push_blocks(out, entry, &name, &link, &records, in_tar);
    lost
}

fn named(path: &[u8], kind: EntryKind) -> Vec<u8> {
    let mut name = b"./".to_vec();
    if path != b"." {
        name.extend_from_slice(path);
        if kind == EntryKind::Dir {
            name.push(b'/');
        }
    }
    name
}
