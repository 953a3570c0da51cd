//! Archives of containers.

use std::collections::HashMap;

use super::seeds::repair_sums;
use crate::content::{self, Piece};
use crate::document::Tree;
use crate::list::{Entry, EntryKind};
use crate::{Id, backup, bytes, catalogue, member, pax};

/// An archive that is made by hand.
#[derive(Default, Clone)]
pub(crate) struct Tar(pub Vec<u8>);

impl Tar {
    /// Appends a header that can be changed, and content. The size in the header is that of the content.
    pub(crate) fn raw(
        mut self,
        flag: u8,
        name: &[u8],
        content: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Tar {
        let mut header = match flag {
            b'S' | b'L' | b'K' => tar::Header::new_gnu(),
            _ => tar::Header::new_ustar(),
        };
        let length = name.len().min(100);
        header.as_old_mut().name[..length].copy_from_slice(&name[..length]);
        header.as_old_mut().linkflag[0] = flag;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        if matches!(flag, b'3' | b'4') {
            header.set_device_major(8).unwrap();
            header.set_device_minor(1).unwrap();
        }
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        member::pad(&mut self.0, content.len() as u64);
        self
    }

    pub(crate) fn add(self, flag: u8, name: &str, content: &[u8]) -> Tar {
        self.raw(flag, name.as_bytes(), content, |_| ())
    }

    pub(crate) fn link(self, flag: u8, name: &str, target: &str) -> Tar {
        self.raw(flag, name.as_bytes(), b"", |header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    /// A PAX header.
    pub(crate) fn pax(self, flag: u8, records: &[(&[u8], &[u8])]) -> Tar {
        let mut content = Vec::new();
        for (key, value) in records {
            pax::push(&mut content, key, value);
        }
        self.raw(flag, b"././@PaxHeader", &content, |_| ())
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        member::push_end(&mut self.0);
        self.0
    }
}

/// What comes first.
pub(crate) fn begin() -> Tar {
    Tar::default()
        .add(b'0', "./etc/vzdump/pct.conf", b"arch: amd64\n")
        .add(b'5', "./", b"")
}

fn octal(field: &mut [u8], number: u64) {
    let text = format!("{number:0width$o}", width = field.len() - 1);
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// The old form of a sparse file, of which the map goes on in a block of its own.
pub(crate) fn old_sparse(tar: Tar, name: &str, extents: &[(u64, u64)], size: u64) -> Tar {
    let stored: u64 = extents.iter().map(|(_, length)| length).sum();
    let mut rest = [0; 512];
    for ((at, length), pair) in extents.iter().skip(4).zip(rest.chunks_exact_mut(24)) {
        octal(&mut pair[..12], *at);
        octal(&mut pair[12..], *length);
    }
    let more = extents.len() > 4;
    let mut tar = tar.raw(b'S', name.as_bytes(), b"", |header| {
        header.set_size(stored);
        let gnu = header.as_gnu_mut().unwrap();
        for ((at, length), pair) in extents.iter().zip(&mut gnu.sparse) {
            octal(&mut pair.offset, *at);
            octal(&mut pair.numbytes, *length);
        }
        gnu.isextended[0] = u8::from(more);
        octal(&mut gnu.realsize, size);
    });
    if more {
        tar.0.extend_from_slice(&rest);
    }
    tar.0.extend(vec![b'x'; stored as usize]);
    member::pad(&mut tar.0, stored);
    tar
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let attributes: [(&[u8], &[u8]); 6] = [
        (b"mtime", b"-5.25"),
        (b"ctime", b"1700000000.5"),
        (b"SCHILY.xattr.user.a%3Db", b"\n\0="),
        (
            b"SCHILY.acl.access",
            b"user::rw-\nuser:5:r--\ngroup::r--\nmask::r--\nother::---\n",
        ),
        (b"SCHILY.acl.default", b"u::rwx,g::rx,o::-"),
        (b"RHT.security.selinux", b"system_u:object_r:etc_t:s0"),
    ];
    let all = begin()
        .pax(b'x', &attributes)
        .add(b'5', "./dir/", b"")
        .add(b'0', "./dir/b", &[7; 700])
        .link(b'1', "./dir/a", "./dir/b")
        .add(b'5', "./other/", b"")
        .link(b'1', "./other/x", "./dir/b")
        .link(b'2', "./soft", "dir/b")
        .add(b'3', "./null", b"")
        .add(b'6', "./pipe", b"")
        .add(b'L', "././@LongLink", &[&[b'n'; 150][..], b"\0"].concat())
        .add(b'0', "./n", b"long")
        .pax(
            b'x',
            &[
                (b"path", b"./dir/late"),
                (b"uid", b"4000000000"),
                (b"size", b"3"),
            ],
        )
        .add(b'0', "./dir/cut", b"abc");
    let sparse = old_sparse(
        begin(),
        "./old",
        &[
            (0, 5),
            (512, 5),
            (1024, 5),
            (2048, 5),
            (4096, 700),
            (9000, 0),
        ],
        9000,
    )
    .pax(
        b'x',
        &[
            (b"GNU.sparse.size", b"5000"),
            (b"GNU.sparse.numblocks", b"1"),
            (b"GNU.sparse.offset", b"7"),
            (b"GNU.sparse.numbytes", b"3"),
        ],
    )
    .add(b'0', "./0.0", b"abc")
    .pax(
        b'x',
        &[
            (b"GNU.sparse.size", b"5000"),
            (b"GNU.sparse.name", b"./0.1"),
            (b"GNU.sparse.map", b"7,3,4000,0"),
        ],
    )
    .add(b'0', "./GNUSparseFile.1/0.1", b"abc")
    .pax(
        b'x',
        &[
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", b"./1.0"),
            (b"GNU.sparse.realsize", b"5000"),
        ],
    )
    .add(b'0', "./GNUSparseFile.1/1.0", &{
        let mut map = b"2\n7\n3\n5000\n0\n".to_vec();
        map.resize(512, 0);
        [map, b"abc".to_vec()].concat()
    });
    vec![all.end(), sparse.end(), begin().end()]
}

/// A tree that is let through is one: and it is the same however little of it is held.
pub(super) fn read(data: &[u8]) {
    let mut data = data.to_vec();
    repair_sums(&mut data);
    let Ok((tree, configs, blobs)) = backup::in_memory(&data, usize::MAX) else {
        assert!(backup::in_memory(&data, 0).is_err());
        return;
    };
    assert!(configs.iter().all(|c| c.data.len() <= 1 << 20));
    let entries = check(&tree, &blobs);
    let (tree, _, blobs) = backup::in_memory(&data, 0).unwrap();
    assert!(resolved(check(&tree, &blobs)) == resolved(entries));
}

/// A path, what is kept of it with its content, and all names of that.
type Name = (Vec<u8>, Entry, Vec<u8>, Vec<Vec<u8>>);

/// Every name with what is kept of it, under which ever name that is, and all names of that.
pub(crate) fn resolved(entries: Vec<(Entry, Vec<u8>)>) -> Vec<Name> {
    let own = |entry: &Entry| bytes::of(&entry.path).to_vec();
    let home = |entry: &Entry| match (entry.kind, &entry.target) {
        (EntryKind::Hardlink, Some(target)) => bytes::of(target).to_vec(),
        _ => own(entry),
    };
    let mut names: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    for (entry, _) in &entries {
        names.entry(home(entry)).or_default().push(own(entry));
    }
    let kept: HashMap<_, _> = entries
        .iter()
        .map(|(e, rest)| (own(e), (e, rest)))
        .collect();
    let resolve = |(entry, _): &(Entry, Vec<u8>)| {
        let (file, rest) = kept[&home(entry)];
        let file = Entry {
            path: "x".into(),
            ..file.clone()
        };
        (own(entry), file, rest.clone(), names[&home(entry)].clone())
    };
    entries.iter().map(resolve).collect()
}

/// Is it a tree, and is all of it there? Gives its entries, as the segments have them.
pub(crate) fn check(tree: &Tree, blobs: &HashMap<Id, Vec<u8>>) -> Vec<(Entry, Vec<u8>)> {
    let mut found: Vec<(Entry, Vec<u8>)> = Vec::new();
    let mut kinds: HashMap<Vec<u8>, EntryKind> = HashMap::new();
    for id in &tree.catalogue {
        for line in catalogue::parse(id, &blobs[id]).unwrap() {
            let segment = &blobs[&line.segment];
            assert_eq!(segment.len() as u64, line.raw);
            let mut members = HashMap::new();
            member::read(segment, &mut |m| {
                let rest = (m.entry.clone(), (m.extra, m.data.to_vec()));
                assert!(members.insert(m.entry.path.clone(), rest).is_none());
            })
            .unwrap();
            assert!(line.part || members.len() == line.entries.len());
            for entry in line.entries {
                let (own, (extra, data)) = &members[&entry.path];
                let listed = Entry {
                    ctime: own.ctime,
                    size: if entry.kind == EntryKind::File {
                        entry.size
                    } else {
                        own.size
                    },
                    ..entry.clone()
                };
                assert_eq!(&listed, own);
                let path = bytes::of(&entry.path).to_vec();
                match kinds.get(bytes::split(&path).0) {
                    _ if path == b"." => assert!(found.is_empty() && entry.kind == EntryKind::Dir),
                    None => assert!(!path.contains(&b'/')),
                    Some(kind) => assert_eq!(*kind, EntryKind::Dir),
                }
                if let Some((last, _)) = found.last() {
                    assert!(bytes::tree_order(bytes::of(&last.path), &path).is_lt());
                }
                if let Some(content) = &entry.content {
                    let pieces = content::decode(content, &blobs[content], entry.size).unwrap();
                    for piece in pieces {
                        if let Piece::Blob { id, size } = piece {
                            assert_eq!(blobs[&id].len() as u64, size);
                        }
                    }
                }
                kinds.insert(path, entry.kind);
                found.push((entry, {
                    let mut rest = format!("{extra:?}").into_bytes();
                    rest.extend_from_slice(data);
                    rest
                }));
            }
        }
    }
    assert_eq!(found.len() as u64, tree.entries);
    for (entry, _) in &found {
        if entry.kind == EntryKind::Hardlink {
            let target = entry.target.as_deref().map(bytes::of).unwrap();
            let kind = kinds[target];
            assert!(!matches!(kind, EntryKind::Dir | EntryKind::Hardlink));
        }
    }
    found
}
