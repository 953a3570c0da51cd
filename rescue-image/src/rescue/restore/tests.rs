use bundle::extract::{ExtractReport, FileProblem};
use layout::model::NodeId;
use layout::plan::{DiskChoice, Step};
use layout::units::Bytes;

use super::fakes::{Fake, disk, saved};
use super::*;
use crate::rescue::events::Kept;
use crate::rescue::unattended;
use crate::token::{Armed, Then};
use ui::Quiet;

/// Logs go to a directory of the test's own, as does the target's root.
pub(super) fn request() -> (Request, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut request = Request::new("latest");
    request.log_dir = dir.path().join("log");
    request.root = dir.path().join("target");
    (request, dir)
}

pub(super) fn all(fake: &Fake, request: &Request, to: &Kept) -> Result<Outcome, Stop> {
    let outcome = prepare(fake, request).and_then(|prepared| {
        check(fake, &prepared, &Quiet, to)?;
        run(fake, &prepared, &Quiet, to, &mut || {
            fake.calls
                .lock()
                .expect("not poisoned")
                .push("token".to_owned());
            Ok(())
        })
    });
    if let Err(stop) = &outcome {
        stop.announce(to);
    }
    outcome
}

#[test]
fn what_a_killed_restore_left_mounted_is_no_obstacle() {
    let (request, _dir) = request();
    let fake = Fake {
        after: Some(saved()),
        ..Fake::good()
    };
    for disk in fake.disks.lock().expect("not poisoned").iter_mut() {
        disk.in_use = true;
    }
    all(&fake, &request, &Kept::default()).expect("restored");
}

#[test]
fn everything_in_the_right_order() {
    let (request, _dir) = request();
    let fake = Fake {
        after: Some(saved()),
        ..Fake::good()
    };
    let to = Kept::default();
    let outcome = all(&fake, &request, &to).expect("restored");
    assert_eq!(
        fake.calls(),
        [
            "check",
            "lock",
            "token",
            "apply",
            "extract /",
            "recapture",
            "keep"
        ]
    );
    assert_eq!(to.of("erasing")[0].get("serial"), Some("NEW-1"));
    assert_eq!(to.of("fenced")[0].get("disk"), Some("/dev/sdc"));
    assert!(!to.of("step").is_empty());
    let restored = &to.of("restored")[0];
    assert_eq!(
        restored.get("differences"),
        Some(outcome.unexplained().count().to_string().as_str())
    );
    for name in [
        "plan.json",
        "plan.txt",
        "saved.json",
        "after.json",
        "differences.json",
        "journal.jsonl",
    ] {
        assert!(request.log_dir.join(name).is_file(), "{name}");
    }
    // The logs went into the restored system while it was mounted.
    let logs = request.root.join("var/log/lifeboat");
    assert_eq!(std::fs::read_dir(logs).expect("copied").count(), 1);
}

#[test]
fn a_disk_that_is_too_small_is_refused_with_the_missing_bytes() {
    let (request, _dir) = request();
    let fake = Fake::good();
    fake.disks.lock().expect("not poisoned")[0].size = Bytes::mib(1000);
    let to = Kept::default();
    let stop = all(&fake, &request, &to).expect_err("too small");
    // The saved partition ends at 1 GiB, after which the backup of the table takes 33 sectors.
    let missing = (1u64 << 30) + 33 * 512 - (1000 << 20);
    assert_eq!(
        to.of("refused")[0].get("missing_bytes"),
        Some(missing.to_string().as_str())
    );
    assert_eq!(stop.exit_code(), 2);
    assert!(!fake.wrote() && !fake.calls().contains(&"token".to_owned()));
}

#[test]
fn damage_is_named_and_refused_before_anything_is_erased() {
    let (request, _dir) = request();
    let fake = Fake {
        damaged: vec![Fake::damage()],
        ..Fake::good()
    };
    let to = Kept::default();
    let stop = all(&fake, &request, &to).expect_err("damaged");
    assert!(matches!(stop, Stop::Damaged(_)));
    let files: Vec<_> = to
        .of("damaged")
        .iter()
        .map(|l| l.get("file").map(str::to_owned))
        .collect();
    assert_eq!(
        files,
        [
            Some("/etc/fstab".to_owned()),
            Some("/etc/passwd".to_owned())
        ]
    );
    assert_eq!(to.of("refused").len(), 1);
    assert!(!fake.wrote() && !fake.calls().contains(&"token".to_owned()));
}

#[test]
fn an_accepted_loss_is_restored_but_never_called_complete() {
    let (mut request, _dir) = request();
    request.accept_loss = true;
    let missing = vec![FileProblem {
        path: "etc/fstab".into(),
        reason: "damaged".to_owned(),
    }];
    let extracted = ExtractReport {
        missing,
        ..ExtractReport::default()
    };
    let fake = Fake {
        damaged: vec![Fake::damage()],
        extracted,
        after: Some(saved()),
        ..Fake::good()
    };
    let outcome = all(&fake, &request, &Kept::default()).expect("restored with losses");
    assert!(!outcome.complete());
    assert_eq!(outcome.exit_code(), 3);
    assert_eq!(outcome.losses.missing[0].path, Path::new("/etc/fstab"));
}

#[test]
fn a_file_that_gets_lost_on_the_way_fails_the_restore() {
    let (request, _dir) = request();
    let missing = vec![FileProblem {
        path: "etc/fstab".into(),
        reason: "damaged".to_owned(),
    }];
    let extracted = ExtractReport {
        missing,
        ..ExtractReport::default()
    };
    let fake = Fake {
        extracted,
        after: Some(saved()),
        ..Fake::good()
    };
    let to = Kept::default();
    let stop = all(&fake, &request, &to).expect_err("partial data");
    assert!(
        matches!(&stop, Stop::Failed { reason, .. } if reason.contains("/etc/fstab")),
        "{stop}"
    );
    assert!(to.of("restored").is_empty());
    assert_eq!(stop.exit_code(), 1);
    // The logs are kept all the same.
    assert!(fake.calls().contains(&"keep".to_owned()));
}

#[test]
fn a_refused_fence_wrote_nothing_and_a_later_step_did() {
    for (index, code) in [(0, 2), (2, 1)] {
        let (request, _dir) = request();
        let fake = Fake {
            fails_at: Some(index),
            ..Fake::good()
        };
        let stop = all(&fake, &request, &Kept::default()).expect_err("fails");
        assert_eq!(stop.exit_code(), code, "{stop}");
    }
}

#[test]
fn differences_make_the_status() {
    let (request, _dir) = request();
    let mut after = saved();
    after.nodes.remove(&NodeId::fs("f1"));
    after.mounts.clear();
    let fake = Fake {
        after: Some(after),
        ..Fake::good()
    };
    let to = Kept::default();
    let outcome = all(&fake, &request, &to).expect("ran to its end");
    assert_eq!(outcome.exit_code(), 3);
    assert_ne!(to.of("restored")[0].get("differences"), Some("0"));
    assert!(
        to.of("difference")
            .iter()
            .any(|l| l.get("node") == Some("fs:f1"))
    );
}

#[test]
fn a_result_that_cannot_be_looked_at_is_no_success() {
    let (request, _dir) = request();
    let to = Kept::default();
    let stop = all(&Fake::good(), &request, &to).expect_err("not seen");
    let text = stop.to_string();
    assert!(text.starts_with("everything was written, but"), "{text}");
    assert!(text.contains("nothing to see"), "{text}");
    assert!(!text.contains("incomplete"), "{text}");
    assert_eq!((stop.exit_code(), stop.written()), (1, true));
    assert_eq!(to.of("failed")[0].get("step"), Some("compare"));
}

#[test]
fn logs_that_cannot_be_kept_are_a_warning() {
    let (request, _dir) = request();
    let fake = Fake {
        after: Some(saved()),
        media_writable: false,
        ..Fake::good()
    };
    let outcome = all(&fake, &request, &Kept::default()).expect("restored");
    assert!(
        outcome
            .warnings
            .iter()
            .any(|w| w.contains("write-protected")),
        "{:?}",
        outcome.warnings
    );
}

#[test]
fn the_bundle_is_never_erased_even_if_asked_for() {
    let (mut request, _dir) = request();
    request
        .choices
        .disks
        .insert(NodeId::disk("d0"), DiskChoice::Serial("STICK".to_owned()));
    assert!(matches!(
        prepare(&Fake::good(), &request),
        Err(Stop::Refused { .. })
    ));
}

#[test]
fn disks_that_change_after_the_plan_was_shown_stop_it() {
    let (request, _dir) = request();
    let fake = Fake {
        after: Some(saved()),
        ..Fake::good()
    };
    let prepared = prepare(&fake, &request).expect("planned");
    fake.disks
        .lock()
        .expect("not poisoned")
        .push(disk("/dev/sdd", Some("LATE"), Bytes::mib(10)));
    let outcome = run(&fake, &prepared, &Quiet, &Kept::default(), &mut || Ok(()));
    assert!(matches!(outcome, Err(Stop::Refused { .. })));
    assert!(!fake.wrote());
}

#[test]
fn a_token_that_cannot_be_used_up_stops_it() {
    let (request, _dir) = request();
    let fake = Fake {
        after: Some(saved()),
        ..Fake::good()
    };
    let prepared = prepare(&fake, &request).expect("planned");
    let outcome = run(&fake, &prepared, &Quiet, &Kept::default(), &mut || {
        anyhow::bail!("the stick is write-protected")
    });
    assert!(matches!(outcome, Err(Stop::Refused { .. })));
    assert!(!fake.wrote());
}

#[test]
fn the_fence_is_the_first_step() {
    let (request, _dir) = request();
    let prepared = prepare(&Fake::good(), &request).expect("planned");
    assert!(matches!(
        prepared.plan.steps.first(),
        Some(Step::Fence { .. })
    ));
}

/// The saved host with its root filesystem in a LUKS container.
fn encrypted() -> Layout {
    let mut layout = saved();
    let (part, root) = (NodeId::partition("p1"), NodeId::fs("f1"));
    let luks = NodeId::luks("1f2e");
    let offset = Bytes::mib(16);
    if let Some(layout::model::Node::Ext4(fs)) = layout.nodes.get_mut(&root) {
        fs.on = luks.clone();
        fs.size = fs.size.minus(offset);
        let container: layout::model::Luks = serde_json::from_value(serde_json::json!({
            "on": part, "device": "/dev/mapper/root_crypt", "uuid": "1f2e", "version": 2, "label": null,
            "name": "root_crypt", "cipher": "aes-xts-plain64", "key_bits": 512, "sector_size": 512, "flags": [], "data_offset": offset,
            "header_size": offset, "size": fs.size, "key_slots": 1, "bound_slots": 0, "tokens": [], "open": true,
            "crypttab": null
        }))
        .expect("a container");
        layout
            .nodes
            .insert(luks, layout::model::Node::Luks(container));
    }
    layout
}

struct Armed1(std::cell::Cell<bool>);

impl unattended::Tokens for Armed1 {
    fn read(&self) -> anyhow::Result<Option<Armed>> {
        Ok(None)
    }
    fn consume(&self) -> anyhow::Result<()> {
        self.0.set(true);
        Ok(())
    }
}

#[test]
fn an_encrypted_host_is_not_restored_unattended() {
    let fake = Fake {
        saved: encrypted(),
        after: Some(encrypted()),
        ..Fake::good()
    };
    for disk in fake.disks.lock().expect("not poisoned").iter_mut() {
        disk.contents.clear();
    }
    let armed = Armed {
        format: 1,
        token: "f00d".to_owned(),
        snapshot: "latest".to_owned(),
        disks: [("disk:d0".to_owned(), "NEW-1".to_owned())].into(),
        then: Then::PowerOff,
        expires: None,
        grow: layout::plan::Grow::Root,
        leave_out: Default::default(),
        mode: Mode::BareMetal,
        nics: Default::default(),
        cluster_member: false,
    };
    let (own, _dir) = request();
    let mut request = unattended::request(&armed);
    (request.root, request.log_dir) = (own.root, own.log_dir);
    let tokens = Armed1(std::cell::Cell::new(false));
    let to = Kept::default();
    let stop = unattended::run(&fake, &armed, &request, &tokens, &to).expect_err("no key");
    assert!(
        matches!(&stop, Stop::Refused { reason, .. } if reason.contains("the LUKS container root_crypt")),
        "{stop}"
    );
    assert_eq!((stop.exit_code(), tokens.0.get()), (2, false));
    assert!(!fake.wrote() && to.of("erasing").is_empty());
    assert_eq!(to.of("refused").len(), 1);
}

fn with_guests() -> Fake {
    let list = crate::guests::tests::pending();
    Fake {
        after: Some(saved()),
        guests: Some(guests::Returning {
            list,
            keys: Vec::new(),
            without: Vec::new(),
        }),
        ..Fake::good()
    }
}

#[test]
fn the_list_of_guests_is_left_in_the_restored_system() {
    let (request, dir) = request();
    std::fs::create_dir_all(&request.root).expect("a root");
    let to = Kept::default();
    let outcome = all(&with_guests(), &request, &to).expect("restored");
    let left = request.root.join("var/lib/lifeboat/guests");
    let list = crate::guests::Pending::read(&left).expect("readable");
    assert_eq!(list, Some(crate::guests::tests::pending()));
    let told = to.of("guests");
    assert_eq!(told[0].get("return"), Some("2"));
    assert!(
        outcome
            .guests
            .is_some_and(|text| text.contains("2 guests come back"))
    );
    // The tree of the test has no program.
    let by_hand = outcome.warnings.iter();
    assert_eq!(
        by_hand
            .filter(|w| w.contains("no program lifeboat"))
            .count(),
        1
    );
    drop(dir);
}

#[test]
fn a_dump_of_which_parts_are_missing_is_told_before_anything_is_erased() {
    let (request, _dir) = request();
    let fake = Fake {
        missing_of: vec![(200, "3 blobs cannot be read".to_owned())],
        ..with_guests()
    };
    let to = Kept::default();
    let prepared = prepare(&fake, &request).expect("planned");
    check(&fake, &prepared, &Quiet, &to).expect("the host can be read");
    let told = to.of("warning");
    let text = told[0].get("text").expect("a text");
    assert!(
        text.contains("guest 200") && text.contains("3 blobs"),
        "{text}"
    );
    assert!(!fake.wrote());
}
