//! A host on which all is well, and faults in it: real files, real stores, a recorded machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bundle::crypt::{KEPT_KEY, KeyFile, NewSlot};
use bundle::store::{Store, StoreOptions};
use jiff::Timestamp;
use layout::model::GrubBios;
use layout::system::{Output, Recorded};

use super::place::Place;
use super::targets::{Here, Rescue, Seen, Target};
use super::*;
use crate::config::Config;
use crate::guests::{Source, Which};
use crate::history::{Kind as RunKind, Process, Run, RunResult, Space, TargetRun};
use crate::proxmox::guests::{Kind as GuestKind, parse as guest};
use crate::proxmox::{Node, storages};

const TIMER: &str = "systemctl show --property=LoadState,ActiveState lifeboat-backup.timer";
const SMART: &str = "smartctl --json --health /dev/ubda";

/// A host.
struct Bench {
    dir: tempfile::TempDir,
    sys: Recorded,
    config: Config,
    problem: Option<String>,
    runs: Vec<Run>,
}

impl Bench {
    /// Two encrypted targets on another machine's disks, a backup of an hour ago, a drill, a timer, mail.
    fn healthy() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let host = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../layout/tests/hosts/luks2-lvm/host.json"
        );
        let mut sys = layout::record::replay(&fs::read_to_string(host).unwrap()).unwrap();
        for program in [
            "blkid",
            "blockdev",
            "cryptsetup",
            "dumpe2fs",
            "tune2fs",
            "lvm",
            "lvs",
            "mke2fs",
            "mkfs.ext4",
            "mkswap",
            "partx",
            "sendmail",
            "sfdisk",
            "sgdisk",
            "udevadm",
            "vgs",
            "wipefs",
        ] {
            sys.present.insert(Path::new("/usr/sbin").join(program));
        }
        sys.present.insert("/run/systemd/system".into());
        sys.present
            .insert("/usr/lib/udev/rules.d/70-lifeboat.rules".into());
        let mut bench = Bench {
            sys,
            config: Config::default(),
            problem: None,
            runs: Vec::new(),
            dir,
        };
        bench
            .sys
            .present
            .insert("/usr/lib/udev/rules.d/71-lifeboat-plug.rules".into());
        bench.timer("loaded", "active");
        bench.mounted("nfs4");
        bench.config.keys = bench.path("keys");
        bench.config.hooks = bench.path("hooks");
        bench.config.state = bench.path("state");
        bench.config.targets = vec![bench.path("a"), bench.path("b")];
        for name in ["a", "b"] {
            bench.store(name, true);
        }
        fs::write(bench.path("lifeboat.toml"), "").unwrap();
        mode(&bench.path("lifeboat.toml"), 0o600);
        bench.run(RunKind::Drill, 24, |_| {});
        bench.run(RunKind::Backup, 1, |_| {});
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// An encrypted store whose key is kept.
    fn store(&self, name: &str, recovery: bool) {
        let dir = self.path(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let mut store = Store::create(&dir, &StoreOptions::default()).unwrap();
        fs::create_dir_all(self.path("keys")).unwrap();
        mode(&self.path("keys"), 0o700);
        let key = self.path(&format!("{name}.keyfile"));
        let key = if key.exists() {
            KeyFile::read(&key)
        } else {
            KeyFile::create(&key)
        };
        let mut slots = vec![NewSlot::KeyFile(key.unwrap())];
        slots.extend(recovery.then_some(NewSlot::Recovery));
        store.encrypt(&slots).unwrap();
        let kept = self.path("keys").join(format!("{}.key", store.id()));
        fs::write(
            &kept,
            format!("{KEPT_KEY}{}\n", *store.data_key().unwrap().to_hex()),
        )
        .unwrap();
        mode(&kept, 0o600);
    }

    fn timer(&mut self, load: &str, active: &str) {
        let stdout = format!("LoadState={load}\nActiveState={active}\n").into_bytes();
        let output = Output {
            stdout,
            ..Output::default()
        };
        self.sys.commands.insert(TIMER.into(), output);
    }

    /// The directory of the test is a mount of this type on the recorded machine.
    fn mounted(&mut self, fstype: &str) {
        let line = format!(
            "999 1 0:99 / {} rw - {fstype} x rw\n",
            self.path("").display()
        );
        let mounts = self
            .sys
            .files
            .get_mut(Path::new("/proc/self/mountinfo"))
            .unwrap();
        mounts.extend(line.into_bytes());
    }

    fn run(&mut self, kind: RunKind, hours: i64, change: impl FnOnce(&mut Run)) {
        let mut run = crate::history::record::tests::run();
        let now = Timestamp::now().as_second();
        run.kind = kind;
        run.started = Timestamp::from_second(now - hours * 3600 - 60).unwrap();
        run.ended = Some(run.started);
        run.result = Some(RunResult::Fine);
        let target = |path: &PathBuf| {
            let mut target = TargetRun::new(path);
            target.snapshot = Some("0a".repeat(32).parse().unwrap());
            target.verified = Some(true);
            target
        };
        if kind != RunKind::Drill {
            run.targets = self.config.targets.iter().map(target).collect();
        }
        change(&mut run);
        self.runs.push(run);
        self.runs.sort_by_key(|r| r.started);
    }

    fn hook(&self, name: &str, bits: u32) {
        fs::create_dir_all(self.path("hooks").join(name).parent().unwrap()).unwrap();
        let hook = self.path("hooks").join(name);
        fs::write(&hook, "#!/bin/sh\n").unwrap();
        mode(&hook, bits);
    }

    fn lose(&mut self, program: &str) {
        self.sys
            .present
            .remove(&Path::new("/usr/sbin").join(program));
    }

    /// What is found, after `change` to what is known.
    fn found(&self, change: fn(&mut Look)) -> Vec<Finding> {
        let file = self.path("lifeboat.toml");
        let mut look = Look::at(&self.sys, &self.config, &file, self.problem.clone());
        look.root = true;
        look.runs = self.runs.clone();
        // Not the room of the machine that the tests run on.
        for target in &mut look.targets {
            if let Seen::Here(here) = &mut target.seen {
                here.space = Some(Space { free: 1, size: 2 });
            }
        }
        change(&mut look);
        examine(&look)
    }
}

fn mode(path: &Path, bits: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
}

/// A stick as it is seen when it is plugged in.
fn stick(rescue: Rescue) -> Target {
    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path(), &StoreOptions::default()).unwrap();
    let info = Store::info(dir.path()).unwrap();
    Target {
        named: "/dev/disk/by-id/usb-stick".into(),
        seen: Seen::Here(Box::new(Here {
            kind: crate::targets::Kind::Device("/dev/ubdb".into()),
            store: Ok(info),
            space: None,
            place: Place::Disk("/dev/ubdb".into()),
            rescue: Some(rescue),
        })),
    }
}

fn old() -> Rescue {
    Rescue::Old {
        version: "0.0.1".into(),
        kernel: "5.10".into(),
    }
}

fn node(look: &mut Look, change: impl FnOnce(&mut Node)) {
    let mut node = Node {
        storages: storages::parse(
            "lvmthin: thin\n\tcontent rootdir,images\n\ndir: plain\n\tpath /srv\n\tcontent rootdir\n",
        ),
        guests: vec![
            guest(
                100,
                GuestKind::Qemu,
                "name: web\nscsi0: thin:vm-100-disk-0,size=4G\n",
            ),
            guest(
                101,
                GuestKind::Lxc,
                "hostname: db\nrootfs: thin:vm-101-disk-0,size=4G\n",
            ),
        ],
        ..Node::default()
    };
    change(&mut node);
    for run in look.runs.iter_mut().filter(|r| r.kind == RunKind::Backup) {
        run.guests = node
            .guests
            .iter()
            .map(|g| {
                serde_json::from_value(serde_json::json!({
                    "id": g.id, "kind": g.kind, "name": g.name, "result": "fine", "error": null, "bytes": 1, "seconds": 1
                }))
                .unwrap()
            })
            .collect();
    }
    look.node = Some(node);
}

/// A fault: what is found because of it, how it comes to be in the host, and in what is known of it.
struct Fault {
    ids: &'static [&'static str],
    seed: fn(&mut Bench),
    look: fn(&mut Look),
}

const fn fault(ids: &'static [&'static str], seed: fn(&mut Bench)) -> Fault {
    Fault {
        ids,
        seed,
        look: |_| {},
    }
}

const fn seen(ids: &'static [&'static str], look: fn(&mut Look)) -> Fault {
    Fault {
        ids,
        seed: |_| {},
        look,
    }
}

/// Every kind has one.
const FAULTS: &[Fault] = &[
    fault(&["no-target"], |b| b.config.targets.clear()),
    fault(&["target-missing"], |b| {
        fs::remove_dir_all(b.path("b")).unwrap()
    }),
    fault(&["target-unprepared"], |b| {
        fs::remove_dir_all(b.path("b/lifeboat")).unwrap();
    }),
    fault(&["target-broken"], |b| {
        let loop_to_itself = b.path("c");
        std::os::unix::fs::symlink(&loop_to_itself, &loop_to_itself).unwrap();
        b.config.targets.push(loop_to_itself);
    }),
    fault(&["target-away", "udev-rule-missing"], |b| {
        b.config
            .targets
            .push("/dev/disk/by-id/usb-lifeboat-none".into());
        b.sys
            .present
            .remove(Path::new("/usr/lib/udev/rules.d/70-lifeboat.rules"));
    }),
    fault(&["targets-twins"], |b| {
        fs::copy(
            b.path("a/lifeboat/store.json"),
            b.path("b/lifeboat/store.json"),
        )
        .unwrap();
    }),
    fault(&["target-in-memory", "target-in-memory"], |b| {
        b.mounted("tmpfs")
    }),
    fault(&["target-on-host-disk", "target-on-host-disk"], |b| {
        let lines = b
            .sys
            .files
            .get_mut(Path::new("/proc/self/mountinfo"))
            .unwrap();
        let text = String::from_utf8(lines.clone()).unwrap();
        let kept = text.lines().filter(|l| !l.starts_with("999 "));
        *lines = kept
            .map(|l| format!("{l}\n"))
            .collect::<String>()
            .into_bytes();
    }),
    fault(&["one-target"], |b| {
        b.config.targets.pop();
    }),
    seen(&["target-busy"], |l| {
        l.targets[0].seen = Seen::Passed("process 1 is using it".into());
    }),
    seen(&["target-full"], |l| {
        if let Seen::Here(here) = &mut l.targets[0].seen {
            here.space = Some(Space {
                free: 19,
                size: 100,
            });
        }
    }),
    fault(&["host-disk-failing"], |b| {
        b.sys.present.insert("/usr/sbin/smartctl".into());
        let stdout = br#"{"smart_status":{"passed":false}}"#.to_vec();
        let output = Output {
            stdout,
            status: 8,
            ..Output::default()
        };
        b.sys.commands.insert(SMART.into(), output);
    }),
    Fault {
        ids: &["target-not-encrypted", "target-disk-failing"],
        seed: |b| {
            b.sys.present.insert("/usr/sbin/smartctl".into());
            let stdout = br#"{"smart_status":{"passed":false}}"#.to_vec();
            let output = Output {
                stdout,
                ..Output::default()
            };
            b.sys.commands.insert(SMART.replace("ubda", "ubdb"), output);
        },
        look: |l| {
            l.targets.push(stick(Rescue::Current));
        },
    },
    fault(&["target-not-encrypted"], |b| {
        fs::remove_dir_all(b.path("b/lifeboat")).unwrap();
        Store::create(&b.path("b"), &StoreOptions::default()).unwrap();
    }),
    fault(&["no-recovery-key"], |b| b.store("b", false)),
    fault(&["key-not-kept"], |b| {
        let id = Store::info(&b.path("b")).unwrap().id;
        fs::remove_file(b.path("keys").join(format!("{id}.key"))).unwrap();
    }),
    fault(&["keys-readable"], |b| mode(&b.path("keys"), 0o755)),
    seen(&["target-not-encrypted", "stick-without-rescue"], |l| {
        l.targets.push(stick(Rescue::None));
    }),
    seen(&["target-not-encrypted", "rescue-behind"], |l| {
        l.targets.push(stick(old()));
    }),
    Fault {
        ids: &["target-not-encrypted", "rescue-outdated"],
        seed: |b| b.config.update_rescue = false,
        look: |l| {
            l.targets.push(stick(old()));
        },
    },
    seen(&["layout-not-remade"], |l| {
        l.layout
            .as_mut()
            .unwrap()
            .warnings
            .push("bcache0 is not remade".into());
    }),
    seen(&["layout-unreadable"], |l| {
        l.layout = Err("lvs failed".into())
    }),
    fault(&["tool-missing"], |b| b.lose("cryptsetup")),
    seen(&["boot-tool-missing"], |l| {
        let layout = l.layout.as_mut().unwrap();
        let disk = layout.system_disks().into_iter().next().unwrap();
        layout.boot.grub_bios.push(GrubBios { disk });
    }),
    fault(&["never-backed-up"], |b| b.runs.clear()),
    fault(&["backup-overdue"], |b| {
        b.runs.clear();
        b.run(RunKind::Drill, 24, |_| {});
        b.run(RunKind::Backup, 30, |_| {});
    }),
    fault(&["last-backup-failed"], |b| {
        b.run(RunKind::Backup, 0, |run| {
            run.result = Some(RunResult::Failed);
            run.error = Some("no room".into());
            run.targets.clear();
        });
    }),
    fault(&["last-backup-failed"], |b| {
        b.run(RunKind::Backup, 0, |run| {
            run.result = None;
            run.process = Process {
                started: 0,
                ..Process::own()
            };
            run.targets.clear();
        });
    }),
    fault(&["target-damaged"], |b| {
        b.run(RunKind::Verify, 0, |run| {
            run.targets[1].verified = Some(false)
        });
    }),
    fault(&["not-verified", "not-verified"], |b| {
        b.runs.retain(|r| r.kind == RunKind::Drill);
        let unread = |run: &mut Run| run.targets.iter_mut().for_each(|t| t.verified = None);
        b.run(RunKind::Backup, 1, unread);
    }),
    fault(&["not-proven"], |b| {
        b.runs.retain(|r| r.kind != RunKind::Drill)
    }),
    fault(&["not-scheduled"], |b| b.timer("not-found", "inactive")),
    fault(&["timer-masked"], |b| b.timer("masked", "inactive")),
    fault(&["timer-inactive"], |b| b.timer("loaded", "inactive")),
    fault(&["no-mail"], |b| b.lose("sendmail")),
    fault(&["hook-refused"], |b| b.hook("pre-backup", 0o644)),
    fault(&["hook-refused"], |b| b.hook("post-backup", 0o777)),
    fault(&["hook-refused"], |b| {
        fs::create_dir(b.path("hooks")).unwrap();
        std::os::unix::fs::symlink("/nowhere", b.path("hooks/pre-backup")).unwrap();
    }),
    fault(&["hook-skipped"], |b| b.hook("pre-backup/10-db", 0o644)),
    fault(&["state-unwritable"], |b| {
        fs::write(b.path("state"), "").unwrap()
    }),
    seen(&["clock-wrong"], |l| {
        l.now = "2020-01-01T00:00:00Z".parse().unwrap()
    }),
    fault(&["configuration-wrong"], |b| {
        b.problem = Some("line 3: unknown".into())
    }),
    fault(&["configuration-changeable"], |b| {
        mode(&b.path("lifeboat.toml"), 0o666)
    }),
    fault(&["configuration-readable"], |b| {
        let file = b.path("lifeboat.toml");
        fs::write(&file, "[notify]\ntoken = 'x'\n").unwrap();
        mode(&file, 0o644);
    }),
    seen(&["not-root"], |l| l.root = false),
    Fault {
        ids: &["guests-off"],
        seed: |b| b.config.guests.source = Source::None,
        look: of_node,
    },
    Fault {
        ids: &["guests-unknown"],
        seed: |b| b.config.guests.which = vec![Which::Id(999)],
        look: of_node,
    },
    Fault {
        ids: &["guests-left-out"],
        seed: |b| b.config.guests.exclude = vec![Which::Id(101)],
        look: of_node,
    },
    seen(&["vzdump-missing"], |l| node(l, |_| {})),
    Fault {
        ids: &["guest-overdue"],
        seed: vzdump,
        look: |l| {
            node(l, |_| {});
            l.runs.iter_mut().for_each(|run| run.guests.truncate(1));
        },
    },
    Fault {
        ids: &["containers-pause"],
        seed: vzdump,
        look: |l| node(l, |n| n.guests[1].volumes[0].storage = "plain".into()),
    },
    Fault {
        ids: &["guest-disks-left-out"],
        seed: vzdump,
        look: |l| node(l, |n| n.guests[0].volumes[0].dumped = false),
    },
    Fault {
        ids: &["guests-without-target", "target-away", "one-target"],
        seed: |b| {
            vzdump(b);
            b.config.targets = vec!["/dev/disk/by-id/usb-lifeboat-none".into()];
        },
        look: |l| {
            node(l, |_| {});
        },
    },
];

fn vzdump(bench: &mut Bench) {
    bench.sys.present.insert("/usr/sbin/vzdump".into());
}

fn of_node(look: &mut Look) {
    node(look, |_| {});
}

/// Findings that depend on the machine that runs the tests: whether it has a kernel.
const ITS_OWN: [&str; 2] = ["no-rescue-kernel", "rescue-lacks-driver"];

fn ids(found: &[Finding]) -> Vec<&'static str> {
    let mut ids: Vec<_> = found.iter().map(|f| f.id).collect();
    ids.retain(|id| !ITS_OWN.contains(id));
    ids.sort_unstable();
    ids
}

#[track_caller]
fn expect(found: &[Finding], expected: &[&'static str]) {
    let wrong = differs(found, expected);
    assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
}

/// What is not as expected.
fn differs(found: &[Finding], expected: &[&'static str]) -> Option<String> {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    // Each names a command.
    let bad = |f: &&Finding| {
        let first = f.mend.split(' ').next().unwrap_or_default();
        let command = first.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        first.is_empty() || !command || f.what.is_empty()
    };
    let bad = found.iter().find(bad);
    (ids(found) != expected || bad.is_some())
        .then(|| format!("expected {expected:?}; wrong: {bad:?}; found {found:#?}"))
}

#[test]
fn a_healthy_host_has_nothing() {
    expect(&Bench::healthy().found(|_| {}), &[]);
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    let wrong = FAULTS.iter().filter_map(|fault| {
        let mut bench = Bench::healthy();
        (fault.seed)(&mut bench);
        let mut expected = fault.ids.to_vec();
        // Of a node without vzdump, the other faults are not seeded.
        if ["guests-off", "guests-unknown", "guests-left-out"].contains(&expected[0]) {
            expected.push("vzdump-missing");
        }
        differs(&bench.found(fault.look), &expected)
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_kind_has_a_fault() {
    let seeded: Vec<&str> = FAULTS.iter().flat_map(|f| f.ids).copied().collect();
    // Made by what no test can make here, or by a message that this version may not have.
    let not = [
        "no-plan",
        "state-full",
        "nobody-is-told",
        "no-rescue-kernel",
        "rescue-lacks-driver",
    ];
    for kind in kinds() {
        let known = seeded.contains(&kind.id) || not.contains(&kind.id);
        assert!(known, "no fault is seeded for {}", kind.id);
    }
}

/// Ten at once, each with the command that mends it; what is worst comes first.
#[test]
fn ten_faults_at_once() {
    let together = [
        "target-broken",
        "keys-readable",
        "tool-missing",
        "last-backup-failed",
        "not-proven",
        "timer-masked",
        "no-mail",
        "hook-refused",
        "configuration-changeable",
        "key-not-kept",
        "target-damaged",
    ];
    let mut bench = Bench::healthy();
    let seed = |bench: &mut Bench, id: &str| {
        let fault = FAULTS.iter().find(|f| f.ids == [id]).unwrap();
        (fault.seed)(bench);
    };
    for id in together.iter().rev() {
        seed(&mut bench, id);
    }
    let found = bench.found(|_| {});
    expect(&found, &together);
    let severities: Vec<_> = found.iter().map(|f| f.severity).collect();
    assert!(severities.is_sorted());
    let mends = |id: &str| &found.iter().find(|f| f.id == id).unwrap().mend;
    assert_eq!(mends("tool-missing"), "apt-get install cryptsetup-bin");
    assert!(mends("key-not-kept").starts_with("lifeboat key keep --on /"));
    assert!(mends("keys-readable").contains("chmod -R go= /"));
    assert!(mends("timer-masked").starts_with("systemctl unmask lifeboat-backup.timer"));
}

#[test]
fn ids_are_told_apart_and_sentences_are_sentences() {
    let mut ids: Vec<_> = kinds().map(|k| k.id).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
    for kind in kinds() {
        assert!(
            kind.why.ends_with('.') && !kind.about.ends_with('.'),
            "{kind:?}"
        );
        assert!(!kind.about.contains('|') && !kind.why.contains('|'));
    }
}

#[test]
fn the_documentation_lists_them_all() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/doctor.md");
    let text = fs::read_to_string(path).unwrap();
    assert!(
        text.contains(&table_of_kinds()),
        "docs/doctor.md differs from the code: put in what `lifeboat doctor --list` writes:\n{}",
        table_of_kinds()
    );
}
