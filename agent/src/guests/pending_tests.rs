//! The list, without stores.

use layout::system::Recorded;

use std::path::Path;

use super::*;

const ID: u32 = 100;

fn worker<'w>(sys: &'w Recorded, dir: &Path, progress: &'w Progress) -> Worker<'w> {
    let list = serde_json::json!({
        "format": 1, "snapshot": "ab".repeat(32), "restored": "2026-11-20T03:00:00Z", "limit": 3, "stores": [],
        "guests": [{ "id": ID, "kind": "qemu", "state": "waiting", "snapshot": "cd".repeat(32) }],
    });
    std::fs::write(dir.join("pending.json"), list.to_string()).unwrap();
    Worker::new(sys, dir.to_owned(), progress).unwrap().unwrap()
}

#[test]
fn locks_and_protection_of_a_guest_without_disks_go() {
    let dir = tempfile::tempdir().unwrap();
    let sys = Recorded::new()
        .command("qm unlock 100", "")
        .command("qm set 100 --protection 0", "")
        .file(
            "/etc/pve/nodes/pve1/qemu-server/100.conf",
            "lock: backup\nname: web\nprotection: 1\n\n[old]\nprotection: 1\n",
        )
        .file(
            "/etc/pve/nodes/pve1/lxc/101.conf",
            "hostname: x\n\n[old]\nprotection: 1\n",
        );
    let progress = Progress::new(true);
    let worker = worker(&sys, dir.path(), &progress);
    worker
        .make_replaceable(&existing(&sys, 100).unwrap())
        .unwrap();
    let asked = sys.log.lock().unwrap().clone();
    assert_eq!(asked, ["qm unlock 100", "qm set 100 --protection 0"]);
    worker
        .make_replaceable(&existing(&sys, 101).unwrap())
        .unwrap();
    assert_eq!(sys.log.lock().unwrap().len(), 2);
}

#[test]
fn only_one_works_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let sys = Recorded::new();
    let progress = Progress::new(true);
    let first = worker(&sys, dir.path(), &progress);
    let second = Worker::new(&sys, dir.path().to_owned(), &progress);
    assert!(second.err().unwrap().to_string().contains("guests status"));
    drop(first);
    assert!(
        Worker::new(&sys, dir.path().to_owned(), &progress)
            .unwrap()
            .is_some()
    );
}

#[test]
fn what_is_done_may_be_replaced_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let sys = Recorded::new();
    let progress = Progress::new(true);
    let worker = worker(&sys, dir.path(), &progress);
    worker
        .set(ID, |g| {
            (g.was_absent, g.attempts, g.state) = (true, 3, State::Done)
        })
        .unwrap();
    assert_eq!(worker.due(), Vec::<u32>::new());
    worker.ask_again(&[ID]).unwrap();
    let guest = worker.now().guests.remove(0);
    assert_eq!((guest.was_absent, guest.attempts), (false, 0));
    assert_eq!(worker.due(), [ID]);
    // All of it is on the disk already.
    assert_eq!(Pending::read(dir.path()).unwrap(), Some(worker.now()));
}
