use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;

use anyhow::Result as Anyhow;
use bundle::document::{HostIdentity, SnapshotHeader, Summary};
use bundle::extract::ExtractReport;
use layout::model::Layout;

use super::world::Destination;
use super::*;
use crate::rescue::bundles::Verified;
use crate::rescue::events::{Announce, Kept};
use crate::rescue::restore::Parts;
use crate::rescue::restore::fakes::{Fake, saved};
use crate::rescue::restore::ui::{Quiet, Ui};

mod host;

/// An operator whose answers are written down: question and answer, in order.
struct Script {
    answers: VecDeque<(&'static str, &'static str)>,
    shown: String,
}

impl Script {
    fn new(answers: &[(&'static str, &'static str)]) -> Self {
        Self {
            answers: answers.iter().copied().collect(),
            shown: String::new(),
        }
    }
}

impl Terminal for Script {
    fn say(&mut self, text: &str) {
        self.shown.push_str(text);
        self.shown.push('\n');
    }
    fn ask(&mut self, question: &str, default: Option<&str>) -> Result<String, Gone> {
        let prompt = match default.filter(|d| !d.is_empty()) {
            Some(default) => format!("{question} [{default}]: "),
            None => format!("{question}: "),
        };
        let Some((expected, answer)) = self.answers.pop_front() else {
            return Err(Gone("no answers left".to_owned()));
        };
        assert_eq!(prompt, expected, "shown so far:\n{}", self.shown);
        Ok(if answer.is_empty() {
            default.unwrap_or("").to_owned()
        } else {
            answer.to_owned()
        })
    }
    fn secret(&mut self, question: &str) -> Result<String, Gone> {
        self.ask(question, None)
    }
    fn ui(&self) -> Box<dyn Ui> {
        Box::new(Quiet)
    }
    fn lend(&mut self, run: &mut dyn FnMut()) {
        run();
    }
}

struct Test {
    fake: Fake,
    kept: Kept,
    ended: Cell<Option<bool>>,
    shells: Cell<u32>,
    copied: RefCell<Vec<PathBuf>>,
    searched: Cell<u32>,
    empty: bool,
    locked: Cell<bool>,
}

impl Test {
    fn new(fake: Fake) -> Self {
        Self {
            fake,
            kept: Kept::default(),
            ended: Cell::new(None),
            shells: Cell::new(0),
            copied: RefCell::default(),
            searched: Cell::new(0),
            empty: false,
            locked: Cell::new(false),
        }
    }
}

impl World for Test {
    fn locked(&self) -> Vec<String> {
        let places = self.locked.get().then(|| "/dev/sdb3 (ext4)".to_owned());
        places.into_iter().collect()
    }
    fn unlock(&mut self, typed: &str) -> Anyhow<usize> {
        bundle::crypt::Secret::typed(typed)?;
        anyhow::ensure!(typed == "correct horse", "wrong passphrase");
        self.locked.set(false);
        Ok(1)
    }
    fn points(&self) -> (Vec<Point>, Vec<String>) {
        if self.locked.get() {
            return (Vec::new(), Vec::new());
        }
        if self.empty {
            return (Vec::new(), vec!["a stick cannot be read".to_owned()]);
        }
        let header = SnapshotHeader {
            id: self.fake.id,
            time: "2026-11-20T02:00:00Z".to_owned(),
            host: HostIdentity {
                machine_id: "m".to_owned(),
                hostname: "pve1".to_owned(),
            },
            kind: "host".to_owned(),
            guest: None,
            trees: vec!["/".to_owned()],
            files: 2,
            bytes: 1 << 30,
            summary: Summary::default(),
        };
        (
            vec![Point {
                header,
                stores: vec![0],
                verified: Verified::Good,
            }],
            Vec::new(),
        )
    }
    fn place(&self, _: usize) -> String {
        "/dev/sdc3 (ext4)".to_owned()
    }
    fn search_again(&mut self) {
        self.searched.set(self.searched.get() + 1);
    }
    fn with_parts(&self, run: &mut dyn FnMut(&dyn Parts)) {
        run(&self.fake);
    }
    fn announce(&self) -> &dyn Announce {
        &self.kept
    }
    fn destinations(&self) -> Vec<Destination> {
        Vec::new()
    }
    fn copy_out(
        &self,
        _: &Point,
        paths: &[PathBuf],
        _: &Destination,
        _: &dyn Ui,
    ) -> Anyhow<(PathBuf, ExtractReport)> {
        self.copied.borrow_mut().extend(paths.iter().cloned());
        Ok((PathBuf::from("x"), ExtractReport::default()))
    }
    fn shell(&mut self, _: &mut dyn Terminal) {
        self.shells.set(self.shells.get() + 1);
    }
    fn end(&mut self, power_off: bool) -> Anyhow<()> {
        self.ended.set(Some(power_off));
        Ok(())
    }
    fn in_rescue_system(&self) -> bool {
        false
    }
    fn busy(&self) -> bool {
        false
    }
    fn denied(&self) -> Option<String> {
        Some("the stick is not armed".to_owned())
    }
}

const POINT: (&str, &str) = ("Restore point [1]: ", "");
const ACTION: (&str, &str) = ("What to do [1]: ", "");
const HOW: (&str, &str) = ("How much: ", "4");
const DISKS: (&str, &str) = ("Use these disks (yes, change, back) [yes]: ", "");
const PLAN: (&str, &str) = ("Go on with this plan (yes, space, back) [yes]: ", "");
const SERIAL: &str = "Serial number of /dev/sdb, to erase it: ";

#[test]
fn up_to_the_confirmation_and_back_writes_nothing() {
    let mut world = Test::new(Fake {
        after: Some(saved()),
        ..Fake::good()
    });
    let mut script = Script::new(&[
        POINT,
        ACTION,
        HOW,
        DISKS,
        PLAN,
        (SERIAL, "WRONG"),
        (SERIAL, "new-1"),
        (SERIAL, "back"),
        ("Go on with this plan (yes, space, back) [yes]: ", "back"),
        ("Use these disks (yes, change, back) [yes]: ", "b"),
        ("What to do [1]: ", "6"),
    ]);
    run(&mut world, &mut script).expect("powered off");
    assert_eq!(world.ended.get(), Some(true));
    assert!(!world.fake.wrote());
    let shown = &script.shown;
    for text in [
        "pve1 2026-11-20 02:00:00 UTC",
        "verified",
        "serial NEW-1",
        "THIS ERASES",
        "ext4 \"old\"",
        "not armed",
    ] {
        assert!(shown.contains(text), "{text} is not shown:\n{shown}");
    }
    assert!(
        shown.contains("holds the bundle: will not be touched"),
        "{shown}"
    );
}

#[test]
fn the_least_destructive_mode_comes_first_and_none_is_taken_unasked() {
    let mut world = Test::new(Fake::good());
    let mut script = Script::new(&[
        POINT,
        ACTION,
        ("How much: ", ""),
        ("How much: ", "b"),
        ACTION,
        ("How much: ", "3"),
        ("Assign disks by hand (change, back) [back]: ", ""),
        ("What to do [1]: ", "6"),
    ]);
    run(&mut world, &mut script).expect("powered off");
    assert!(!world.fake.wrote());
    let shown = &script.shown;
    let place = |text: &str| {
        shown
            .find(text)
            .unwrap_or_else(|| panic!("{text}: {shown}"))
    };
    assert!(place("The partition table only") < place("The boot loader only"));
    assert!(place("The system only") < place("bare metal"));
    assert!(shown.contains("system only is not possible"), "{shown}");
}

#[test]
fn the_answers_become_the_request() {
    let mut world = Test::new(Fake::good());
    let mut answers = Answers::default();
    assert!(answers.request().is_none());
    let mut script = Script::new(&[POINT]);
    assert_eq!(
        points::show(&mut answers, &mut world, &mut script).expect("shown"),
        Screen::Action
    );
    let mut script = Script::new(&[
        ("Use these disks (yes, change, back) [yes]: ", "change"),
        ("Number of the disk to erase for it: ", "2"),
        ("Number of the disk to erase for it: ", "9"),
        ("Number of the disk to erase for it: ", "1"),
    ]);
    assert_eq!(
        disks::show(&mut answers, &mut world, &mut script).expect("shown"),
        Screen::Disks
    );
    assert!(
        script
            .shown
            .contains("/dev/sdc holds the bundle and must not be erased"),
        "{}",
        script.shown
    );
    let request = answers.request().expect("a point was chosen");
    assert_eq!(request.snapshot, world.fake.id.to_string());
    assert_eq!(
        request.choices.disks[&NodeId::disk("d0")],
        DiskChoice::Serial("NEW-1".to_owned())
    );
}

#[test]
fn a_disk_without_a_serial_is_confirmed_by_name() {
    let fake = Fake {
        after: Some(saved()),
        ..Fake::good()
    };
    fake.disks.lock().expect("not poisoned")[0].serial = None;
    let mut world = Test::new(fake);
    let question = "ERASE and the device name, to erase /dev/sdb: ";
    let mut script = Script::new(&[
        POINT,
        ACTION,
        HOW,
        DISKS,
        PLAN,
        (question, "/dev/sdb"),
        (question, "ERASE /dev/sdc"),
        (question, ""),
        // Three wrong answers lead back to the plan.
        ("Go on with this plan (yes, space, back) [yes]: ", "back"),
    ]);
    assert!(run(&mut world, &mut script).is_err(), "no answers left");
    assert!(!world.fake.wrote());
    let prepared = {
        let mut prepared = None;
        let request = Request::new("latest");
        world.with_parts(&mut |parts| {
            prepared = crate::rescue::restore::prepare(parts, &request).ok()
        });
        prepared
    };
    let answers = Answers {
        prepared,
        ..Answers::default()
    };
    let mut script = Script::new(&[(question, "ERASE sdb")]);
    assert_eq!(
        confirm::show(&answers, &mut script).expect("shown"),
        Screen::Work
    );
}

#[test]
fn damage_needs_the_word_accept() {
    let mut world = Test::new(Fake {
        damaged: vec![Fake::damage()],
        ..Fake::good()
    });
    let question = "Restore without these files (accept, back) [back]: ";
    let mut script = Script::new(&[
        POINT,
        ACTION,
        HOW,
        DISKS,
        PLAN,
        (question, ""),
        ("What to do [1]: ", "5"),
    ]);
    run(&mut world, &mut script).expect("rebooted");
    assert_eq!(world.ended.get(), Some(false));
    assert!(script.shown.contains("/etc/passwd"), "{}", script.shown);
    assert_eq!(world.kept.of("damaged").len(), 2);
    assert!(!world.fake.wrote());

    let mut script = Script::new(&[
        POINT,
        ACTION,
        HOW,
        DISKS,
        PLAN,
        (question, "accept"),
        (SERIAL, "back"),
    ]);
    assert!(run(&mut world, &mut script).is_err(), "no answers left");
    assert!(script.shown.contains("THIS ERASES"));
}

#[test]
fn the_space_of_a_bigger_disk_goes_where_it_is_said() {
    let mut world = Test::new(Fake::good());
    let space = "Space of the bigger disk goes to (root, thin-pool, vg-free, untouched) [root]: ";
    let mut script = Script::new(&[
        POINT,
        ACTION,
        HOW,
        DISKS,
        (PLAN.0, "space"),
        (space, "untouched"),
        DISKS,
        (PLAN.0, "back"),
        (DISKS.0, "back"),
        ("What to do [1]: ", "6"),
    ]);
    run(&mut world, &mut script).expect("powered off");
    let plans: Vec<&str> = script.shown.split("WILL BE ERASED").collect();
    assert_eq!(plans.len(), 3, "{}", script.shown);
    assert!(plans[1].contains("partition 1: "), "{}", plans[1]);
    assert!(!plans[2].contains("partition 1: "), "{}", plans[2]);
}

#[test]
fn too_small_is_said_and_assigning_by_hand_is_offered() {
    let fake = Fake::good();
    fake.disks.lock().expect("not poisoned")[0].size = layout::units::Bytes::mib(100);
    let mut world = Test::new(fake);
    let hand = "Assign disks by hand (change, back) [back]: ";
    let mut script = Script::new(&[
        POINT,
        ACTION,
        HOW,
        (hand, ""),
        ("What to do [1]: ", "3"),
        ("What to do [1]: ", "4"),
        ("What to do [1]: ", "6"),
    ]);
    run(&mut world, &mut script).expect("powered off");
    assert!(world.kept.of("refused")[0].get("missing_bytes").is_some());
    // Verifying and the shell work without a plan.
    assert!(world.fake.calls().contains(&"check".to_owned()));
    assert_eq!(world.shells.get(), 1);
}

/// A host with a mirror of two disks, of which this machine has room for one.
fn mirrored() -> Layout {
    layout_of("md1-lvm")
}

fn layout_of(name: &str) -> Layout {
    let file = format!(
        "{}/../vm-tests/layouts/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read(file).expect("the layout file");
    let case: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    Layout::from_value(case["layout"].clone()).expect("a layout")
}

#[test]
fn a_saved_disk_without_a_place_is_done_without_or_shares_one() {
    let fake = Fake {
        saved: mirrored(),
        ..Fake::good()
    };
    let mut world = Test::new(fake);
    let disks: Vec<NodeId> = mirrored().disks().map(|(id, _)| id.clone()).collect();
    let offered = "Assign disks by hand (change, missing, onto, back) [back]: ";
    let mut show = |script: &[(&'static str, &'static str)]| {
        let mut answers = Answers::default();
        let mut script = Script::new(script);
        points::show(&mut answers, &mut world, &mut script).expect("shown");
        let mut screen = Screen::Disks;
        while screen == Screen::Disks && !script.answers.is_empty() {
            screen = disks::show(&mut answers, &mut world, &mut script).expect("shown");
        }
        (answers, screen, script.shown)
    };
    let (answers, screen, shown) = show(&[POINT, (offered, "missing"), DISKS]);
    assert_eq!(screen, Screen::Plan, "{shown}");
    let chosen: Vec<&DiskChoice> = answers.disks.values().collect();
    assert_eq!(chosen, [&DiskChoice::Missing]);
    assert!(shown.contains("nothing for the saved"), "{shown}");
    let (answers, screen, shown) = show(&[POINT, (offered, "onto"), DISKS]);
    assert_eq!(screen, Screen::Plan, "{shown}");
    assert!(
        matches!(answers.disks.values().next(), Some(DiskChoice::Onto(_))),
        "{shown}"
    );
    assert!(shown.contains("and for the saved"), "{shown}");
    // By hand: the first one has no place, and the second one takes the disk.
    let (answers, screen, shown) = show(&[
        POINT,
        (offered, "change"),
        ("Saved disk to assign [1]: ", "1"),
        ("Number of the disk to erase for it: ", "m"),
        DISKS,
    ]);
    assert_eq!(screen, Screen::Plan, "{shown}");
    assert_eq!(answers.disks[&disks[0]], DiskChoice::Missing);
    for line in shown.lines() {
        assert!(line.is_ascii(), "{line}");
    }
}

#[test]
fn a_second_disk_takes_a_part_of_the_volume_group() {
    let fake = Fake {
        saved: layout_of("pve-ext4-lvm-smaller"),
        ..Fake::good()
    };
    {
        let mut disks = fake.disks.lock().expect("not poisoned");
        disks[0].size = layout::units::Bytes::mib(1000);
        let mut second = disks[0].clone();
        second.device = "/dev/sdd".into();
        second.serial = Some("NEW-2".to_owned());
        disks.push(second);
    }
    let mut world = Test::new(fake);
    let number = "Number of the disk to erase for it: ";
    let mut answers = Answers::default();
    let mut script = Script::new(&[
        POINT,
        (
            "Assign disks by hand (change, leave-out, back) [back]: ",
            "change",
        ),
        // Neither the medium nor what is no number.
        (number, "1+2"),
        (number, "1+x"),
        (number, "1+3"),
        DISKS,
    ]);
    points::show(&mut answers, &mut world, &mut script).expect("shown");
    let mut screen = Screen::Disks;
    while screen == Screen::Disks && !script.answers.is_empty() {
        screen = disks::show(&mut answers, &mut world, &mut script).expect("shown");
    }
    let shown = script.shown;
    assert_eq!(screen, Screen::Plan, "{shown}");
    let both = ["NEW-1", "NEW-2"].map(|serial| DiskChoice::Serial(serial.to_owned()));
    let chosen: Vec<&DiskChoice> = answers.disks.values().collect();
    assert_eq!(chosen, [&DiskChoice::Spread(both.to_vec())]);
    for words in [
        "or a further one for a part of volume group pve",
        "/dev/sdc holds the bundle and must not be erased.",
        "for a part of volume group pve of the saved /dev/sda",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let prepared = answers.prepared.expect("a plan");
    let disks = prepared.plan.disks.iter();
    let serials: Vec<_> = disks.map(|d| d.identity.serial.as_deref()).collect();
    assert_eq!(serials, [Some("NEW-1"), Some("NEW-2")]);
}

#[test]
fn without_a_bundle_it_searches_again() {
    let mut world = Test {
        empty: true,
        ..Test::new(Fake::good())
    };
    let question = "No bundle found. Choose [s]: ";
    let mut script = Script::new(&[
        (question, ""),
        (question, "nonsense"),
        (question, "x"),
        (question, "p"),
    ]);
    run(&mut world, &mut script).expect("powered off");
    assert_eq!(
        (world.searched.get(), world.shells.get(), world.ended.get()),
        (1, 1, Some(true))
    );
    assert!(script.shown.contains("Warning: a stick cannot be read"));
}

#[test]
fn the_result_says_failure_and_does_not_offer_to_boot_it() {
    let stop = Stop::Failed {
        step: Some("Erase /dev/sdb".to_owned()),
        reason: "I/O error".to_owned(),
    };
    let answers = Answers {
        result: Some(Err(stop)),
        ..Answers::default()
    };
    let mut script = Script::new(&[("What now [4]: ", "")]);
    assert_eq!(
        result::show(&answers, &mut script).expect("shown"),
        Screen::Points
    );
    assert!(
        script.shown.contains("THE RESTORE FAILED") && script.shown.contains("incomplete"),
        "{}",
        script.shown
    );
}

#[test]
fn what_was_written_but_not_compared_is_not_called_incomplete() {
    let answers = Answers {
        result: Some(Err(Stop::NotCompared("I/O error".to_owned()))),
        ..Answers::default()
    };
    let mut script = Script::new(&[("What now [4]: ", "")]);
    result::show(&answers, &mut script).expect("shown");
    let shown = &script.shown;
    assert!(
        shown.contains("NOT COMPARED") && shown.contains("everything was written"),
        "{shown}"
    );
    assert!(
        !shown.contains("incomplete") && !shown.contains("nothing was written"),
        "{shown}"
    );
}

#[test]
fn texts_are_plain_and_fit_the_screen() {
    let mut world = Test::new(Fake {
        after: Some(saved()),
        ..Fake::good()
    });
    let mut script = Script::new(&[
        POINT,
        ACTION,
        HOW,
        DISKS,
        PLAN,
        (SERIAL, "back"),
        ("Go on with this plan (yes, space, back) [yes]: ", "b"),
    ]);
    assert!(run(&mut world, &mut script).is_err(), "no answers left");
    assert!(script.shown.is_ascii());
    for line in script.shown.lines() {
        assert!(line.len() <= 80, "{line}");
    }
}

#[test]
fn a_locked_bundle_is_unlocked_by_what_is_typed() {
    let mut world = Test::new(Fake::good());
    world.locked.set(true);
    let question = "Passphrase or recovery key (not shown; Enter alone goes back): ";
    let slip = "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF-GGGGG-HHHHH-JJJJJ-KKKKK-MMMMM-NNNNN-PPPPP";
    let mut script = Script::new(&[
        ("Choose [k]: ", ""),
        (question, ""),
        ("Choose [k]: ", ""),
        (question, "wrong horse"),
        ("Choose [k]: ", ""),
        (question, slip),
        ("Choose [k]: ", "k"),
        (question, "correct horse"),
        ("Restore point [1]: ", "p"),
    ]);
    run(&mut world, &mut script).expect("powered off");
    let shown = script.shown;
    for part in [
        "The bundle on /dev/sdb3 (ext4) is encrypted and LOCKED.",
        "Not unlocked: wrong passphrase",
        "Not unlocked: group 1 (AAAAA) has a typing error",
        "Unlocked.",
    ] {
        assert!(shown.contains(part), "{part} in:\n{shown}");
    }
    assert!(!shown.contains("correct horse"));
}
