use std::os::unix::fs::symlink;

use super::*;

#[test]
fn links_lead_nowhere_outside() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    for path in [&root, &outside] {
        std::fs::create_dir_all(path.join("etc")).expect("made");
    }
    std::fs::write(outside.join("secret"), "x").expect("written");
    symlink(&outside, root.join("absolute")).expect("link");
    symlink("../../../../../etc", root.join("etc/up")).expect("link");
    symlink(outside.join("secret"), root.join("etc/file")).expect("link");
    let inside = Inside::open(&root).expect("opened");
    assert!(inside.write(Path::new("/absolute/new"), b"y").is_err());
    assert!(
        inside
            .read(Path::new("/absolute/secret"), 10)
            .expect("read")
            .is_none()
    );
    assert!(
        inside
            .read(Path::new("/etc/file"), 10)
            .expect("read")
            .is_none()
    );
    assert!(inside.make_dir(Path::new("/absolute/sub")).is_err());
    // A link that would lead up stays at the root.
    inside
        .write(Path::new("/etc/up/new"), b"y")
        .expect("written");
    assert_eq!(std::fs::read(root.join("etc/new")).expect("there"), b"y");
    let error = inside
        .write(Path::new("/etc/file"), b"y")
        .expect_err("a link");
    assert!(error.to_string().contains("/etc/file is a link"), "{error}");
    assert_eq!(std::fs::read(outside.join("secret")).expect("there"), b"x");
    assert_eq!(std::fs::read_dir(&outside).expect("listed").count(), 2);
}

#[test]
fn a_file_keeps_its_mode_and_only_regular_ones_are_taken() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let inside = Inside::open(dir.path()).expect("opened");
    inside.make_dir(Path::new("/a/b")).expect("made");
    let path = Path::new("/a/b/f");
    inside.write(path, b"1").expect("written");
    let real = dir.path().join("a/b/f");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600)).expect("set");
    inside.write(path, b"22").expect("written");
    let mode = std::fs::metadata(&real).expect("there").mode() & 0o7777;
    assert_eq!(mode, 0o600);
    assert_eq!(inside.names(Path::new("/a/b")), ["f"]);
    assert!(inside.read(path, 1).is_err(), "too long");
    assert_eq!(
        inside.read(path, 2).expect("read").as_deref(),
        Some(&b"22"[..])
    );
    assert!(inside.read(Path::new("/a/b"), 9).is_err(), "a directory");
    assert!(
        inside.write(Path::new("/a/b"), b"x").is_err(),
        "a directory"
    );
    assert_eq!(
        inside.kind(Path::new("/a/b")).expect("looked"),
        Some(Kind::Directory)
    );
    assert_eq!(inside.kind(Path::new("/none/b")).expect("looked"), None);
    inside.rename(path, Path::new("/a/g")).expect("moved");
    inside.remove(Path::new("/a/g")).expect("removed");
    inside.remove(Path::new("/a/g")).expect("gone already");
    assert_eq!(inside.names(Path::new("/a")), ["b"]);
}

#[test]
fn links_of_the_system_lead_into_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    std::fs::create_dir_all(root.join("data/var")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    // As it is on hosts with /var elsewhere, and as nobody would have it.
    symlink("/data/var", root.join("var")).unwrap();
    symlink(&outside, root.join("etc")).unwrap();
    let inside = Inside::open(&root).unwrap();
    let file = Path::new("/var/lib/lifeboat/x");
    inside.put(file, b"1", 0o600, 0o700).unwrap();
    inside.put(file, b"2", 0o600, 0o700).unwrap();
    let there = root.join("data/var/lib/lifeboat/x");
    assert_eq!(std::fs::read(&there).unwrap(), b"2");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&there), mode(there.parent().unwrap())),
        (0o600, 0o700)
    );
    assert_eq!(mode(&root.join("data/var/lib")), 0o755);
    assert_eq!(inside.read(file, 10).unwrap(), Some(b"2".to_vec()));
    // The link leads to a directory that is not in this system.
    inside
        .put(Path::new("/etc/x"), b"", 0o644, 0o755)
        .unwrap_err();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // A file that is a link is replaced, not followed.
    symlink(outside.join("y"), root.join("data/y")).unwrap();
    inside.put(Path::new("/data/y"), b"", 0o644, 0o755).unwrap();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    inside.link(Path::new("/x"), Path::new("/data/l")).unwrap();
    inside.link(Path::new("/y"), Path::new("/data/l")).unwrap();
    assert_eq!(
        std::fs::read_link(root.join("data/l")).unwrap(),
        Path::new("/y")
    );
    assert_eq!(inside.read(Path::new("/nothing/x"), 1).unwrap(), None);
    assert!(inside.read(Path::new("/data"), 1).is_err());
    assert!(!inside.is_program(file));
    inside.remove(file).unwrap();
    inside.remove(file).unwrap();
    inside.remove(Path::new("/nothing/x")).unwrap();
    assert!(!there.exists());
}

#[test]
fn what_is_no_link_is_not_replaced_by_one() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let inside = Inside::open(dir.path()).expect("opened");
    let path = Path::new("/a/unit");
    inside.put(path, b"own", 0o755, 0o700).expect("written");
    inside
        .link(Path::new("/dev/null"), path)
        .expect_err("a file");
    assert_eq!(inside.read(path, 9).expect("read"), Some(b"own".to_vec()));
    assert!(inside.is_program(path));
    // What was there gives nothing to what is put in its place.
    inside.put(path, b"new", 0o644, 0o755).expect("written");
    assert!(!inside.is_program(path));
    let mode = |name: &str| {
        std::fs::metadata(dir.path().join(name))
            .expect("there")
            .mode()
            & 0o7777
    };
    assert_eq!((mode("a"), mode("a/unit")), (0o700, 0o644));
    assert_eq!(inside.names(Path::new("/a")), ["unit"]);
}
