use bundle::document::{HostIdentity, Summary};

use bundle::verify::How;

use super::*;

fn id(n: u8) -> Id {
    Id::from_bytes([n; 32])
}

fn point(n: u8, time: &str) -> Point {
    Point {
        header: SnapshotHeader {
            id: id(n),
            time: time.to_owned(),
            host: HostIdentity {
                machine_id: "m".to_owned(),
                hostname: "pve1".to_owned(),
            },
            kind: "host".to_owned(),
            guest: None,
            trees: vec!["/".to_owned()],
            files: 1,
            bytes: 1,
            summary: Summary::default(),
        },
        stores: vec![0],
        verified: Verified::Never,
    }
}

#[test]
fn finds_stores_at_the_root_and_one_level_down() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for sub in ["", "backups", "deep/er"] {
        let store = dir.path().join(sub).join("lifeboat");
        fs::create_dir_all(&store).expect("created");
        fs::write(store.join("store.json"), "{}").expect("written");
    }
    // `deep/er` is two levels down; and a link must not lead out of the medium.
    std::os::unix::fs::symlink(dir.path().join("backups"), dir.path().join("link"))
        .expect("linked");
    assert_eq!(
        store_dirs(dir.path()),
        [dir.path().to_owned(), dir.path().join("backups")]
    );
    assert!(store_dirs(Path::new("/nowhere")).is_empty());
}

#[test]
fn a_directory_without_a_bundle_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let error =
        Found::in_directories(&[dir.path().to_owned()], &KeyRing::default()).expect_err("empty");
    assert!(
        error
            .to_string()
            .contains(&dir.path().display().to_string()),
        "{error}"
    );
}

#[test]
fn an_unusable_store_is_a_warning() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("lifeboat")).expect("created");
    fs::write(dir.path().join("lifeboat/store.json"), "not json").expect("written");
    let found =
        Found::in_directories(&[dir.path().to_owned()], &KeyRing::default()).expect("found");
    assert!(found.stores.is_empty());
    assert_eq!(found.warnings.len(), 1);
}

#[test]
fn chooses_by_prefix_or_latest() {
    let points = [
        point(0xab, "2026-11-20T02:00:00Z"),
        point(0xa1, "2026-11-19T02:00:00Z"),
    ];
    assert_eq!(
        choose(&points, "latest").expect("newest").header.id,
        id(0xab)
    );
    assert_eq!(choose(&points, "A1A1").expect("one").header.id, id(0xa1));
    assert!(
        choose(&points, "a")
            .expect_err("two")
            .to_string()
            .contains("more digits")
    );
    assert!(choose(&points, "ff").is_err());
    assert!(choose(&points, "").is_err());
    assert!(choose(&[], "latest").is_err());
}

#[test]
fn a_sample_alone_is_no_proof() {
    let said = |good, how| Verdict {
        time: "2026-11-20T03:00:00Z".to_owned(),
        good,
        how,
        sampled: None,
    };
    assert_eq!(verdict(Some(&said(true, How::Whole))), Verified::Good);
    assert_eq!(verdict(Some(&said(true, How::Sample))), Verified::Never);
    assert_eq!(verdict(Some(&said(false, How::Sample))), Verified::Damaged);
    assert_eq!(verdict(None), Verified::Never);
    assert_eq!(better(Verified::Damaged, Verified::Good), Verified::Good);
    assert_eq!(
        better(Verified::Damaged, Verified::Never),
        Verified::Damaged
    );
}

#[test]
fn a_copy_of_a_store_is_read_too_and_no_bundle_is_a_target() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (one, copy, damaged) = (
        dir.path().join("one"),
        dir.path().join("copy"),
        dir.path().join("damaged"),
    );
    fs::create_dir(&one).expect("created");
    bundle::store::Store::create(&one, &bundle::store::StoreOptions::default()).expect("store");
    for dir in [&copy, &damaged] {
        for sub in ["packs", "index", "snapshots", "reports", "tmp"] {
            fs::create_dir_all(dir.join("lifeboat").join(sub)).expect("created");
        }
        fs::copy(
            one.join("lifeboat/store.json"),
            dir.join("lifeboat/store.json"),
        )
        .expect("copied");
    }
    fs::write(damaged.join("lifeboat/store.json"), "?").expect("written");
    let medium = |dir: &Path, disk: &str| {
        Some(Medium {
            device: format!("{disk}3").into(),
            disks: vec![disk.into()],
            fs_type: "ext4".to_owned(),
            uuid: None,
            partuuid: None,
            mount_point: dir.to_owned(),
        })
    };
    let mut found = Found::default();
    found.add(&one, medium(&one, "/dev/sda"));
    found.add(&one, medium(&one, "/dev/sda"));
    found.add(&copy, medium(&copy, "/dev/sdb"));
    found.add(&damaged, medium(&damaged, "/dev/sdc"));
    assert_eq!(found.stores.len(), 2);
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    let disks = ["/dev/sda", "/dev/sdb", "/dev/sdc"].map(PathBuf::from);
    assert_eq!(found.media_disks(), disks);
}

/// An encrypted store, with the key file that opens it on another medium.
fn locked(dir: &Path) -> (PathBuf, PathBuf) {
    use bundle::crypt::{Cost, NewSlot};
    use bundle::store::StoreOptions;
    let (store, medium) = (dir.join("store"), dir.join("medium"));
    fs::create_dir_all(&store).expect("created");
    fs::create_dir_all(medium.join("lifeboat/keys")).expect("created");
    let key = KeyFile::create(&medium.join("lifeboat/keys/pve1.key")).expect("made");
    let cheap = Cost {
        memory_kib: 64,
        passes: 1,
    };
    let passphrase = NewSlot::Passphrase("correct horse".to_owned().into(), cheap);
    let mut made = Store::create(&store, &StoreOptions::default()).expect("made");
    made.encrypt(&[passphrase, NewSlot::KeyFile(key)])
        .expect("encrypted");
    (store, medium)
}

#[test]
fn an_encrypted_bundle_is_locked_until_a_secret_fits() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, _) = locked(dir.path());
    let mut found =
        Found::in_directories(std::slice::from_ref(&store), &KeyRing::default()).expect("found");
    assert_eq!((found.stores.len(), found.locked.len()), (0, 1));
    let secret = |text: &str| Secret::typed(text).expect("typed");
    let error = found.unlock(secret("wrong horse")).expect_err("wrong");
    assert!(error.to_string().contains("wrong passphrase"), "{error}");
    assert_eq!(found.unlock(secret("correct horse")).expect("right"), 1);
    assert_eq!((found.stores.len(), found.locked.len()), (1, 0));
    // A new search does not ask again.
    let again = Found::in_directories(&[store], &found.keys).expect("found");
    assert_eq!(again.stores.len(), 1);
}

#[test]
fn a_key_file_on_another_medium_opens_it_and_without_one_nothing_passes_for_the_latest() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, medium) = locked(dir.path());
    let mut found = Found::default();
    found.add(&store, None);
    let error = found.snapshot("latest").expect_err("locked").to_string();
    for part in ["locked", "lifeboat/keys/", "lifeboat.key="] {
        assert!(error.contains(part), "{error}");
    }
    // Neither out of the medium, nor what is no key.
    fs::write(medium.join("lifeboat/keys/readme"), "not a key").expect("written");
    fs::rename(
        medium.join("lifeboat/keys/pve1.key"),
        dir.path().join("outside"),
    )
    .expect("moved");
    found.take_keys(&medium, Some("../outside"));
    assert_eq!(found.retry(), 0);
    fs::rename(dir.path().join("outside"), medium.join("my.key")).expect("moved");
    found.take_keys(&medium, Some("/my.key"));
    assert_eq!(found.retry(), 1);
    let mut other = Found::default();
    other.add(&store, None);
    fs::rename(medium.join("my.key"), medium.join("lifeboat/keys/pve1.key")).expect("moved");
    other.take_keys(&medium, None);
    assert_eq!(other.retry(), 1);
    assert!(
        !format!("{other:?}").contains("correct"),
        "no secret in a log"
    );
}

#[test]
fn a_medium_with_a_locked_bundle_is_never_written_to() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, _) = locked(dir.path());
    let medium = Medium {
        device: "/dev/sdb3".into(),
        disks: vec!["/dev/sdb".into()],
        fs_type: "ext4".into(),
        uuid: None,
        partuuid: None,
        mount_point: store.clone(),
    };
    let mut found = Found::default();
    found.add(&store, Some(medium));
    assert_eq!((found.locked.len(), found.media().count()), (1, 1));
    assert_eq!(found.media_disks(), [PathBuf::from("/dev/sdb")]);
}
