//! Files at the ends of what there can be.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::support::*;

/// What lies at the ends of what headers have room for, and links to what is no plain file.
pub(super) fn odd(root: &Path) {
    let at = |path: &str| root.join("odd").join(path);
    for length in 98..=101 {
        // With the `./` before it and the slash after a directory.
        let rest = length - "./odd/n/".len();
        file(&at(&format!("n/{}", "f".repeat(rest))), b"x");
        fs::create_dir_all(at(&format!("n/{}", "d".repeat(rest)))).unwrap();
        symlink("t".repeat(length), at(&format!("n/t{length}"))).unwrap();
        let first = at(&format!("n/{}", "f".repeat(rest)));
        fs::hard_link(first, at(&format!("n/h{length}"))).unwrap();
    }
    for (n, size) in [511u64, 512, 513, 1024].into_iter().enumerate() {
        file(&at(&format!("blocks/{size}")), &noise(size, size as usize));
        let owner = 2_097_150 + n as u32;
        let path = at(&format!("blocks/{size}"));
        std::os::unix::fs::lchown(&path, Some(owner), Some(owner)).unwrap();
        set_time(&path, -1 - n as i64, 0);
    }
    let deep = format!("sparse-{}/{}", "x".repeat(60), "y".repeat(200));
    fs::create_dir_all(at(&deep)).unwrap();
    for (name, length) in [("short", 3), ("long", 255)] {
        let path = at(&deep).join(name.chars().cycle().take(length).collect::<String>());
        let sparse = File::create(&path).unwrap();
        sparse.set_len(2_000_001).unwrap();
        sparse.write_all_at(b"data", 1_000_000).unwrap();
        for n in 0..3 {
            fs::hard_link(&path, at(&format!("{name}-{n}"))).unwrap();
        }
        xattr::set(&path, "user.sparse", name.as_bytes()).unwrap();
    }
    let rw = Mode::from_bits_truncate(0o600);
    fs::create_dir_all(at("special/z")).unwrap();
    mknod(&at("special/z/null"), SFlag::S_IFCHR, rw, makedev(1, 3)).unwrap();
    mknod(&at("special/z/pipe"), SFlag::S_IFIFO, rw, 0).unwrap();
    symlink("nowhere", at("special/z/soft")).unwrap();
    // Of devices and pipes, GNU tar makes separate ones.
    fs::hard_link(at("special/z/soft"), at("special/soft")).unwrap();
    for name in ["null", "pipe", "soft"] {
        set_time(&at("special/z").join(name), -7, 0);
    }
    file(&at("names"), b"");
    for name in [
        &b"user. "[..],
        b"user.new\nline",
        b"user.\xff\xfe",
        b"user.=",
        b"user.%3D%",
        &[b"user.", &[b'n'; 250][..]].concat(),
    ] {
        let name = std::ffi::OsStr::from_bytes(name);
        xattr::set(at("names"), name, b"5 a=b\n\0").unwrap();
    }
    fs::create_dir(at("dir")).unwrap();
    xattr::set(at("dir"), "user.of-a-directory", b"x").unwrap();
    const NOBODY: u32 = u32::MAX;
    // A mask of nothing, and one where nobody is named.
    let entries = [
        (1, 7, NOBODY),
        (2, 0, 0),
        (2, 7, 4_294_967_294),
        (4, 7, NOBODY),
        (0x10, 0, NOBODY),
        (0x20, 1, NOBODY),
    ];
    let masked = [
        (1, 6, NOBODY),
        (4, 6, NOBODY),
        (0x10, 4, NOBODY),
        (0x20, 0, NOBODY),
    ];
    for kind in ["access", "default"] {
        let name = format!("system.posix_acl_{kind}");
        xattr::set(at("dir"), &name, &acl(&entries)).unwrap();
    }
    file(&at("masked"), b"x");
    xattr::set(at("masked"), "system.posix_acl_access", &acl(&masked)).unwrap();
    fs::set_permissions(at("dir"), fs::Permissions::from_mode(0o2751)).unwrap();
    set_time(&at("dir"), -1, 999_999_999);
}
