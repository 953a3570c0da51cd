use bundle::exclude::Exclusions;
use layout::model::Layout;
use layout::system::Recorded;

use super::*;
use crate::proxmox::Saved;

fn source(mount_point: &str) -> TreeSource {
    TreeSource {
        root: mount_point.into(),
        mount_point: mount_point.into(),
        filesystem: None,
        exclude: Exclusions::none(),
        instead: Default::default(),
    }
}

fn work(trees: &[&str]) -> Work {
    let case = include_str!("../../../../vm-tests/layouts/pve-ext4-lvm.json");
    let mut case: serde_json::Value = serde_json::from_str(case).unwrap();
    Work {
        kind: "host",
        layout: Some(Layout::from_value(case["layout"].take()).unwrap()),
        trees: trees.iter().copied().map(source).collect(),
        images: Vec::new(),
        _headers: None,
        node: Saved::default(),
        reasons: Vec::new(),
    }
}

/// As [`Frozen::take`] leaves it, without the lock of this machine.
fn frozen<'c>(
    sys: &'c Recorded,
    hooks: &'c Hooks<'c>,
    progress: &'c Progress,
    work: &Work,
    always: bool,
) -> Frozen<'c> {
    let frozen = Frozen {
        sys,
        hooks,
        progress,
        limits: Limits::default(),
        always,
        state: Mutex::default(),
        lost: AtomicBool::new(false),
        began: None,
        removed: Vec::new(),
        _lock: None,
    };
    for tree in &work.trees {
        let choice = Choice {
            mount_point: tree.mount_point.clone(),
            way: Err(Live {
                reason: "of a test".to_owned(),
                unchanging: false,
            }),
        };
        let held = Held {
            snapshot: None,
            report: report(&choice),
            counts: counts(work, &choice.mount_point),
            done: false,
            dropped: None,
        };
        frozen.lock().held.insert(choice.mount_point, held);
    }
    frozen
}

fn snapshot_of(frozen: &Frozen<'_>, mount_point: &str) {
    let mut state = frozen.lock();
    let held = state.held.get_mut(Path::new(mount_point)).unwrap();
    held.report.read = "lvm-snapshot".to_owned();
}

#[test]
fn boot_file_systems_and_copies_do_not_count() {
    let work = work(&["/", "/boot/efi", "/etc/pve"]);
    let counts: Vec<bool> = work
        .trees
        .iter()
        .map(|t| counts(&work, &t.mount_point))
        .collect();
    assert_eq!(counts, [true, false, false]);
}

#[test]
fn what_programs_write_to_live_is_read_first() {
    let (sys, progress) = (Recorded::new(), Progress::new(true));
    let hooks = Hooks::new(&sys, Path::new("/nonexistent"), Duration::from_secs(1));
    let mut work = work(&["/", "/boot/efi", "/srv", "/etc/pve"]);
    let layout = work.layout.as_mut().unwrap();
    let mut srv = layout
        .mounts
        .iter()
        .find(|m| m.mount_point == Path::new("/"))
        .unwrap()
        .clone();
    srv.mount_point = "/srv".into();
    layout.mounts.push(srv);
    let frozen = frozen(&sys, &hooks, &progress, &work, false);
    assert!(frozen.reads_programs_live());
    snapshot_of(&frozen, "/");
    assert_eq!(frozen.order(&work.trees), [2, 0, 1, 3]);
    assert_eq!(frozen.live_list(), "/boot/efi\n/etc/pve\n/srv");
    snapshot_of(&frozen, "/srv");
    assert!(!frozen.reads_programs_live());
    assert_eq!(frozen.order(&work.trees), [0, 1, 2, 3]);
}

#[test]
fn asked_for_in_any_case_it_is_an_error_to_read_live() {
    let (sys, progress) = (Recorded::new(), Progress::new(true));
    let hooks = Hooks::new(&sys, Path::new("/nonexistent"), Duration::from_secs(1));
    let work = work(&["/", "/boot/efi"]);
    let frozen = frozen(&sys, &hooks, &progress, &work, true);
    let text = format!("{:#}", frozen.refuse_live().unwrap_err());
    assert!(
        text.contains("/: of a test") && !text.contains("efi"),
        "{text}"
    );
    snapshot_of(&frozen, "/");
    frozen.refuse_live().unwrap();
    // It is lost before it is read.
    frozen.give_up(Path::new("/"), "its snapshot ran full");
    let mut read = |_: &TreeSource| -> bundle::Result<Tree> { panic!("it is read all the same") };
    let error = frozen.read_all(&work.trees, &mut read).unwrap_err();
    assert!(format!("{error:#}").contains("ran full"), "{error:#}");
}

#[test]
fn what_is_read_just_now_is_stopped_first() {
    let (sys, progress) = (Recorded::new(), Progress::new(true));
    let hooks = Hooks::new(&sys, Path::new("/nonexistent"), Duration::from_secs(1));
    let work = work(&["/"]);
    let frozen = frozen(&sys, &hooks, &progress, &work, false);
    snapshot_of(&frozen, "/");
    let root = Path::new("/");
    frozen.lock().current = Some(root.into());
    frozen.give_up(root, "the pool fills up");
    assert!(frozen.events().cancelled());
    assert_eq!(frozen.states()[0].read, "lvm-snapshot");
    assert_eq!(frozen.end(root).as_deref(), Some("the pool fills up"));
    assert!(!frozen.events().cancelled());
    frozen.give_up(root, "the pool fills up");
    assert_eq!(frozen.states()[0].read, LIVE);
}

/// What was stored from a snapshot is what it is, even if the snapshot has to go before the backup is over.
#[test]
fn what_was_read_from_a_snapshot_stays_so() {
    let (sys, progress) = (Recorded::new(), Progress::new(true));
    let hooks = Hooks::new(&sys, Path::new("/nonexistent"), Duration::from_secs(1));
    let work = work(&["/"]);
    let frozen = frozen(&sys, &hooks, &progress, &work, true);
    snapshot_of(&frozen, "/");
    let root = Path::new("/");
    frozen.lock().held.get_mut(root).unwrap().done = true;
    frozen.give_up(root, "the pool fills up");
    assert_eq!(frozen.states()[0].read, "lvm-snapshot");
    frozen.refuse_live().unwrap();
    // A second time, for another target, it cannot be read from it.
    let mut read = |_: &TreeSource| -> bundle::Result<Tree> { panic!("it is read all the same") };
    let error = frozen.read_all(&work.trees, &mut read).unwrap_err();
    assert!(
        format!("{error:#}").contains("the pool fills up"),
        "{error:#}"
    );
    assert_eq!(frozen.states()[0].read, LIVE);
}
