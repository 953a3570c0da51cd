//! What the inputs begin with.

use std::collections::BTreeMap;
use std::io::Write;

use crate::token::{Armed, FORMAT, Then};

/// A package with these files, compressed as the member name says.
pub(crate) fn package(member: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("./{name}"), *content)
            .unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let data = match member {
        "data.tar.xz" => {
            let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
            xz.write_all(&tar).unwrap();
            xz.finish().unwrap()
        }
        "data.tar.zst" => zstd::encode_all(tar.as_slice(), 1).unwrap(),
        _ => tar,
    };
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", b"2.0\n".as_slice()),
        ("control.tar", b"odd"),
        (member, &data),
    ] {
        let size = content.len();
        writeln!(
            out,
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`",
            0, 0, 0, 100644
        )
        .unwrap();
        out.extend_from_slice(content);
        if content.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

pub(super) fn packages() -> Vec<Vec<u8>> {
    let files: &[(&str, &[u8])] = &[("boot/vmlinuz-1", b"kernel"), ("usr/x", &[7; 600])];
    let members = ["data.tar", "data.tar.xz", "data.tar.zst"];
    let mut seeds: Vec<_> = members.iter().map(|m| package(m, files)).collect();
    seeds.push(tree(&[
        ("a", tar::EntryType::Directory, ""),
        ("l", tar::EntryType::Symlink, "../outside"),
        ("a/b", tar::EntryType::Regular, ""),
        ("a/c", tar::EntryType::Link, "a/b"),
    ]));
    seeds
}

/// An archive of empty members with these names, kinds and targets, however they lead.
pub(super) fn tree(members: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind, target) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_mode(0o4755);
        header.set_size(0);
        header.set_entry_type(*kind);
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
    }
    tar.into_inner().unwrap()
}

const NOTE: &[u8] = br#"[{"soname":["libkmod.so.2"],"priority":"recommended"}]"#;

/// A note about libraries that are opened at run time, as it is in a program.
pub(super) fn note() -> Vec<u8> {
    let mut note = [4u32, 60, 0x407c_0c0a].map(u32::to_le_bytes).concat();
    note.extend_from_slice(b"FDO\0");
    note.extend_from_slice(NOTE);
    note.resize(80, 0);
    note
}

pub(super) fn programs() -> Vec<Vec<u8>> {
    let program = std::fs::read("/bin/true").unwrap();
    // The notes are at the end of a small file by hand.
    let mut small = program[..0x400.min(program.len())].to_vec();
    small.extend_from_slice(NOTE);
    vec![program, small, note()]
}

pub(super) fn modules() -> Vec<Vec<u8>> {
    vec![
        b"kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko.xz\nkernel/lib/crc16.ko.xz: kernel/fs/ext4/ext4.ko\n".to_vec(),
        b"softdep ext4 pre: crc16\nsoftdep crc16 post: ext4\n".to_vec(),
    ]
}

/// A permission for an unattended restore.
pub(crate) fn armed() -> Armed {
    Armed {
        format: FORMAT,
        token: "0123456789abcdef".into(),
        snapshot: "latest".into(),
        disks: BTreeMap::from([("disk:1".into(), "SERIAL".into())]),
        then: Then::PowerOff,
        expires: None,
        grow: layout::plan::Grow::Root,
        leave_out: Default::default(),
        mode: layout::plan::Mode::SystemOnly,
        nics: BTreeMap::from([("enp3s0".into(), "bc:24:11:00:00:01".into())]),
        cluster_member: true,
    }
}

pub(super) fn tokens() -> Vec<Vec<u8>> {
    let expires = Armed {
        expires: Some("2026-11-20T20:31:36Z".into()),
        then: Then::Reboot,
        ..armed()
    };
    vec![
        serde_json::to_vec_pretty(&armed()).unwrap(),
        serde_json::to_vec(&expires).unwrap(),
        b"lifeboat.slot=a lifeboat.medium=12-ab \"a b\" console=ttyS0,115200n8 lifeboat.unattended=f00d\n".to_vec(),
        br#"{"format":1,"version":"1","host":"h","kernel":"6","fingerprint":"f"}"#.to_vec(),
    ]
}

/// A list with every field, and a short one.
pub(super) fn guest_lists() -> Vec<Vec<u8>> {
    let full = serde_json::json!({
        "format": 1, "snapshot": "ab".repeat(32), "restored": "2026-11-20T03:00:00Z", "limit": 3,
        "guests": [{
            "id": 100, "kind": "qemu", "name": "web", "snapshot": "cd".repeat(32), "dumped": "2026-11-20T02:00:00Z",
            "note": "older", "state": "running", "attempts": 1, "error": "no space", "was_absent": true, "onboot": true,
            "progress": [1, 2],
        }, { "id": 200, "kind": "lxc", "state": "waiting" }],
        "stores": [
            { "id": "0f8fad5b-d9cb-469f-a165-70867728950e", "filesystem": "1234-ABCD", "fs_type": "ext4", "path": "a/b", "shown": "x" },
            { "id": "s", "path": "/mnt/backup", "shown": "y" },
        ],
    });
    let short = "{\"format\":1,\"snapshot\":\"../../x\",\"guests\":[],\"stores\":[]}";
    vec![full.to_string().into_bytes(), short.into()]
}
