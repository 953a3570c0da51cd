//! Out and back again through GNU tar, as `vzdump` and `pct restore` call it.

use std::fs;

use super::support::*;
use crate::events::Silent;
use crate::list::{self, EntryKind};
use crate::store::Store;
use crate::verify::{VerifyOptions, verify};

#[test]
fn a_container_comes_back_with_every_attribute() {
    let dir = tempfile::tempdir().unwrap();
    let (root, store, out) = (
        dir.path().join("root"),
        dir.path().join("store"),
        dir.path().join("out"),
    );
    everything(&root);
    let archive = pack(&root, &configs(dir.path()), &[], &["./"]);
    let saved = save(&store, &archive).unwrap();
    let opened = Store::open_read_only(&store).unwrap();
    assert!(
        verify(&opened, &VerifyOptions::default(), &Silent)
            .unwrap()
            .ok()
    );
    let tree = &saved.snapshot.trees[0];
    assert_eq!(
        (tree.mount_point.as_str(), tree.summary.unreadable),
        ("/", 0),
        "{tree:#?}"
    );
    let entries: Vec<_> = list::entries(&[&opened], tree)
        .map(Result::unwrap)
        .collect();
    assert_eq!(entries.len(), manifest(&root).len());
    assert_eq!(tree.entries, entries.len() as u64);
    let files = entries.iter().filter(|e| e.kind == EntryKind::File);
    assert_eq!(tree.files, files.clone().count() as u64);
    assert_eq!(tree.bytes, files.map(|e| e.size).sum::<u64>());
    let guest = saved.snapshot.guest.as_ref().unwrap();
    assert_eq!(
        guest.config("pct.conf").unwrap(),
        "arch: amd64\n#café\n".as_bytes()
    );
    assert_eq!(guest.config("pct.fw").unwrap(), b"");
    let names: Vec<_> = guest.configs.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["etc/vzdump/pct.conf", "etc/vzdump/pct.fw"]);

    let back = give_back(&store, &saved);
    assert!(back.len() < 64 << 20, "holes stay holes: {}", back.len());
    let (good, said) = unpack(&back, &out);
    assert!(good, "{said}");
    let conf = fs::read(out.join("etc/vzdump/pct.conf")).unwrap();
    assert_eq!(conf, "arch: amd64\n#café\n".as_bytes());
    fs::remove_dir_all(out.join("etc")).unwrap();
    set_time(&out, 1_111_111_111, 123_456_789);
    assert_same(&root, &out);

    // And once more: what was given back is what comes in.
    let again = save(&dir.path().join("again"), &back).unwrap();
    assert_eq!(again.snapshot.trees[0].entries, tree.entries);
    let known = save(&store, &back).unwrap();
    assert!(known.new <= 2, "{known:#?}");
}
