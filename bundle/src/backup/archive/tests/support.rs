//! Trees of files, GNU tar, and what a tree is in every attribute, read without the code under test.
#![allow(
    clippy::disallowed_methods,
    reason = "GNU tar is what archives are compared with"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use sha2::Digest;

pub(super) use super::dumps::*;

/// As `PVE::VZDump::LXC` calls it.
const VZDUMP: [&str; 12] = [
    "cpf",
    "-",
    "--totals",
    "--one-file-system",
    "-p",
    "--sparse",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.capability",
    "--warning=no-file-ignored",
];
/// As `PVE::LXC::Create` calls it.
const RESTORE: [&str; 10] = [
    "xpf",
    "-",
    "--totals",
    "--sparse",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.capability",
    "--warning=no-xattr-write",
];

/// Bytes that look random, the same for the same seed.
pub(super) fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&(seed >> 16).to_le_bytes()[..6]);
    }
    out.truncate(length);
    out
}

pub(super) fn file(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub(super) fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    let at = nix::fcntl::AT_FDCWD;
    utimensat(at, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
}

pub(super) fn acl(aces: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in aces {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&perm.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

/// A tree with everything that a file system can hold, as far as the user may make it.
pub(super) fn everything(root: &Path) {
    const NOBODY: u32 = u32::MAX;
    let at = |path: &str| root.join(path);
    for (name, size) in [
        ("empty", 0),
        ("small", 700),
        ("mebibyte", 1 << 20),
        ("large", (1 << 20) + 1),
        ("larger", 9_000_000),
    ] {
        file(&at(&format!("data/{name}")), &noise(size as u64, size));
    }
    // Large zeroes that are no hole.
    file(&at("data/zeroes"), &vec![0; 5 << 20]);
    for (name, size, data) in [
        ("begins", 3 << 20, &[(0, 5000)][..]),
        ("ends", 3 << 20, &[((3 << 20) - 5000, 5000)]),
        ("nothing", 10 << 20, &[]),
        ("little", 500_000, &[(100_000, 10)]),
        ("huge", 9 << 30, &[(8 << 30, 100_000)]),
        ("many", 40 << 20, &[]),
    ] {
        fs::create_dir_all(at("sparse")).unwrap();
        let file = File::create(at("sparse").join(name)).unwrap();
        file.set_len(size).unwrap();
        for (place, length) in data {
            file.write_all_at(&noise(*place, *length), *place).unwrap();
        }
        if name == "many" {
            for n in 0..300 {
                file.write_all_at(b"x", n * 131_072 + 5).unwrap();
            }
        }
    }
    file(&at("links/b"), b"one");
    fs::hard_link(at("links/b"), at("links/a")).unwrap();
    fs::hard_link(at("links/b"), at("links/c")).unwrap();
    for n in 0..20 {
        // Their first name is in whichever directory is listed first.
        file(
            &at(&format!("links/d{n}/file")),
            &noise(n, 3000 * n as usize),
        );
        fs::create_dir_all(at(&format!("links/e{n}"))).unwrap();
        let link = at(&format!("links/e{n}/other"));
        fs::hard_link(at(&format!("links/d{n}/file")), link).unwrap();
    }
    symlink("b", at("links/soft")).unwrap();
    symlink("x/".repeat(100), at("links/far")).unwrap();
    fs::hard_link(at("links/soft"), at("links/soft-again")).unwrap();
    let root_only = nix::unistd::geteuid().is_root();
    fs::create_dir_all(at("dev")).unwrap();
    let rw = Mode::from_bits_truncate(0o640);
    if root_only {
        mknod(&at("dev/null"), SFlag::S_IFCHR, rw, makedev(1, 3)).unwrap();
        mknod(&at("dev/disk"), SFlag::S_IFBLK, rw, makedev(259, 70_000)).unwrap();
    }
    mknod(&at("dev/pipe"), SFlag::S_IFIFO, rw, 0).unwrap();
    let long = format!(
        "long/{}/{}/{}",
        "d".repeat(90),
        "e".repeat(200),
        "f".repeat(255)
    );
    file(&at(&long), b"long");
    symlink("t".repeat(300), at("long/link")).unwrap();
    for (n, name) in [
        &b"\xff\xfe"[..],
        b"new\nline",
        b"back\\slash",
        b" ",
        b"-rf",
        b"\x7f\x01",
    ]
    .iter()
    .enumerate()
    {
        let path = at("names").join(std::ffi::OsStr::from_bytes(name));
        file(&path, &[n as u8]);
    }
    file(&at("old/file"), b"old");
    for (path, seconds, nanoseconds) in [
        ("old/file", -315_619_200, 500_000_000),
        ("old/year-1901", -2_147_483_648, 1),
        ("old/epoch", 0, 0),
        ("old/future", 7_000_000_000, 999_999_999),
    ] {
        file(&at(path), b"x");
        set_time(&at(path), seconds, nanoseconds);
    }
    set_time(&at("links/soft"), 1_000_000_000, 5);
    file(&at("modes/setuid"), b"x");
    fs::set_permissions(at("modes/setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::create_dir(at("modes/sticky")).unwrap();
    fs::set_permissions(at("modes/sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    if root_only {
        file(&at("modes/closed/file"), b"x");
        fs::set_permissions(at("modes/closed"), fs::Permissions::from_mode(0o0)).unwrap();
        file(&at("owners/far"), b"x");
        std::os::unix::fs::lchown(at("owners/far"), Some(4_000_000_000), Some(2_097_152)).unwrap();
        std::os::unix::fs::lchown(at("owners"), Some(33), Some(1000)).unwrap();
    }
    file(&at("attributes/acl"), b"x");
    let entries = [
        (1, 6, NOBODY),
        (2, 7, 33),
        (2, 5, 4321),
        (4, 4, NOBODY),
        (8, 5, 77_777),
        (0x10, 7, NOBODY),
        (0x20, 0, NOBODY),
    ];
    xattr::set(
        at("attributes/acl"),
        "system.posix_acl_access",
        &acl(&entries),
    )
    .unwrap();
    fs::create_dir(at("attributes/dir")).unwrap();
    xattr::set(
        at("attributes/dir"),
        "system.posix_acl_default",
        &acl(&entries),
    )
    .unwrap();
    let minimal = [(1, 7, NOBODY), (4, 5, NOBODY), (0x20, 5, NOBODY)];
    fs::create_dir(at("attributes/minimal")).unwrap();
    xattr::set(
        at("attributes/minimal"),
        "system.posix_acl_default",
        &acl(&minimal),
    )
    .unwrap();
    file(&at("attributes/user"), b"x");
    for (name, value) in [
        ("user.a", &b"\0\n=\xff"[..]),
        ("user.b=%25c", b""),
        ("user.z", &[b'z'; 2000]),
    ] {
        xattr::set(at("attributes/user"), name, value).unwrap();
    }
    if root_only {
        file(&at("attributes/ping"), b"x");
        // cap_net_raw=ep, and the same for the root of another user namespace.
        let second = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let third = b"\x01\0\0\x03\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xa0\x86\x01\0";
        xattr::set(at("attributes/ping"), "security.capability", second).unwrap();
        file(&at("attributes/ping3"), b"x");
        xattr::set(at("attributes/ping3"), "security.capability", third).unwrap();
        super::odd::odd(root);
    }
    fs::create_dir_all(at("empty/empty")).unwrap();
    for dir in ["links", "empty", "data", "attributes/dir", ""] {
        set_time(&at(dir), 1_111_111_111, 123_456_789);
    }
}

/// `./etc/vzdump/pct.conf` and `pct.fw`, as they come first.
pub(super) fn configs(dir: &Path) -> PathBuf {
    let dir = dir.join("conf");
    file(
        &dir.join("etc/vzdump/pct.conf"),
        b"arch: amd64\n#caf\xc3\xa9\n",
    );
    file(&dir.join("etc/vzdump/pct.fw"), b"");
    dir
}

/// What `vzdump` would write for a container with these files.
pub(super) fn pack(root: &Path, conf: &Path, more: &[&str], members: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(VZDUMP)
        .args(more)
        .arg("-C")
        .arg(conf)
        .args(["./etc/vzdump/pct.conf", "./etc/vzdump/pct.fw", "-C"])
        .arg(root)
        .args(members)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output.stdout
}

/// In another form, without extended attributes.
pub(super) fn pack_plain(root: &Path, conf: &Path, form: &[&str]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["cpf", "-", "--sparse", "--numeric-owner"])
        .args(form);
    tar.arg("-C")
        .arg(conf)
        .args(["./etc/vzdump/pct.conf", "-C"]);
    let output = tar.arg(root).arg("./").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output.stdout
}

/// What `pct restore` would make of an archive; its exit status.
pub(super) fn unpack(archive: &[u8], dest: &Path) -> (bool, String) {
    unpack_with(archive, dest, &["--skip-old-files"])
}

pub(super) fn unpack_with(archive: &[u8], dest: &Path, more: &[&str]) -> (bool, String) {
    fs::create_dir_all(dest).unwrap();
    let mut tar = Command::new("tar")
        .args(RESTORE)
        .args(more)
        .arg("-C")
        .arg(dest)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tar.stdin.take().unwrap();
    let archive = archive.to_vec();
    let feed = std::thread::spawn(move || stdin.write_all(&archive));
    let output = tar.wait_with_output().unwrap();
    let _ = feed.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

/// Where data is in a file.
fn data(path: &Path, size: u64) -> String {
    use nix::unistd::{Whence, lseek};
    let file = File::open(path).unwrap();
    let (mut at, mut found) = (0, String::new());
    while at < size as i64 {
        let Ok(start) = lseek(&file, at, Whence::SeekData) else {
            break;
        };
        at = lseek(&file, start, Whence::SeekHole).unwrap();
        found.push_str(&format!(" {start}-{at}"));
    }
    found
}

/// Every attribute of every file, by path.
pub(super) fn manifest(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(
        root: &Path,
        path: &Path,
        found: &mut BTreeMap<PathBuf, String>,
        inodes: &mut BTreeMap<u64, Vec<PathBuf>>,
    ) {
        let full = root.join(path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        let mut line = format!(
            "{:o} {}:{} {}.{:09} {:x}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            if kind.is_char_device() || kind.is_block_device() {
                meta.rdev()
            } else {
                0
            },
        );
        let mut names: Vec<_> = xattr::list(&full).unwrap().collect();
        names.sort();
        for name in names {
            let value = xattr::get(&full, &name).unwrap().unwrap();
            line.push_str(&format!(
                " {}={}",
                name.to_string_lossy(),
                hex::encode(value)
            ));
        }
        if kind.is_symlink() {
            line.push_str(&format!(" -> {:?}", fs::read_link(&full).unwrap()));
        }
        if kind.is_file() {
            line.push_str(&format!(" {}", meta.len()));
            // Elsewhere, zeroes may become holes.
            if path.starts_with("sparse") {
                line.push_str(&data(&full, meta.len()));
            }
            if meta.len() < 1 << 30 {
                let sum = sha2::Sha256::digest(fs::read(&full).unwrap());
                line.push_str(&format!(" {}", hex::encode(sum)));
            } else {
                let mut piece = vec![0; 200_000];
                File::open(&full)
                    .unwrap()
                    .read_exact_at(&mut piece, (8 << 30) - 50_000)
                    .unwrap();
                line.push_str(&hex::encode(sha2::Sha256::digest(&piece)));
            }
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            inodes
                .entry(meta.ino())
                .or_default()
                .push(path.to_path_buf());
        }
        found.insert(path.to_path_buf(), line);
        if kind.is_dir() {
            for child in fs::read_dir(&full).unwrap() {
                walk(root, &path.join(child.unwrap().file_name()), found, inodes);
            }
        }
    }
    let (mut found, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    walk(root, Path::new(""), &mut found, &mut inodes);
    for mut names in inodes.into_values() {
        names.sort();
        for name in &names {
            found
                .get_mut(name)
                .unwrap()
                .push_str(&format!(" = {:?}", names[0]));
        }
    }
    found
}

pub(super) fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (manifest(left), manifest(right));
    for (path, line) in &left {
        assert_eq!(Some(line), right.get(path), "{}", path.display());
    }
    let more: Vec<_> = right.keys().filter(|p| !left.contains_key(*p)).collect();
    assert!(more.is_empty(), "{more:?}");
}
