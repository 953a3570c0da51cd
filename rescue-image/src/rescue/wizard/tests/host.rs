//! The screens about what the restored host needs on another machine.

use super::*;
use crate::rescue::network::mapping::tests::card;
use crate::rescue::restore::finish_tests::node;

const NETWORK: &str = "Use these network cards (yes, change, skip, back) [yes]: ";
const START: &str = "Start it (isolated, member, back) [isolated]: ";

fn begin() -> Vec<(&'static str, &'static str)> {
    vec![POINT, ACTION, HOW, DISKS, PLAN]
}

fn shown(world: &mut Test, answers: &[(&'static str, &'static str)]) -> String {
    let mut script = Script::new(&[begin(), answers.to_vec()].concat());
    let _ = run(world, &mut script);
    assert!(
        script.answers.is_empty(),
        "not asked: {:?}\n{}",
        script.answers,
        script.shown
    );
    script.shown
}

#[test]
fn cards_that_are_all_here_are_not_asked_about() {
    let cards = vec![card("eth0", 1, 3, "igb"), card("eth1", 2, 4, "igb")];
    let mut world = Test::new(node(cards, serde_json::Value::Null));
    let text = shown(&mut world, &[(SERIAL, "back")]);
    assert!(!text.contains("Network cards"), "{text}");
}

#[test]
fn other_cards_are_shown_and_can_be_changed() {
    let cards = || {
        let mut guessed = card("eth1", 9, 8, "r8169");
        guessed.link = true;
        vec![card("eth0", 2, 4, "igb"), guessed]
    };
    let mut world = Test::new(node(cards(), serde_json::Value::Null));
    let mut answers = Answers::default();
    let mut script = Script::new(&[POINT, DISKS]);
    points::show(&mut answers, &mut world, &mut script).expect("shown");
    disks::show(&mut answers, &mut world, &mut script).expect("shown");
    // The other way round: a card that is taken from a saved one leaves none there.
    let mut script = Script::new(&[
        (NETWORK, "change"),
        ("Number of the saved network card [1]: ", "7"),
        ("Number of the saved network card [1]: ", ""),
        ("Number of the card that is enp3s0 from now on: ", "x"),
        ("Number of the card that is enp3s0 from now on: ", "2"),
        (NETWORK, "change"),
        ("Number of the saved network card [1]: ", "2"),
        ("Number of the card that is enp4s0 from now on: ", "2"),
        (NETWORK, "yes"),
    ]);
    let mut screen = Screen::Network;
    while screen == Screen::Network {
        screen = network::show(&mut answers, &mut script).expect("shown");
    }
    assert_eq!(screen, Screen::Cluster);
    let text = &script.shown;
    assert!(
        text.contains("A GUESS") && text.contains("because: chosen"),
        "{text}"
    );
    for line in text.lines() {
        assert!(line.len() <= 80 && line.is_ascii(), "{line}");
    }
    let request = answers.request().expect("a point");
    let prepared = answers.prepared.expect("a plan");
    assert_eq!(prepared.request.nics, request.nics);
    let macs: Vec<String> = prepared
        .finish
        .network
        .mapping
        .pairs
        .iter()
        .map(|p| {
            p.card
                .as_ref()
                .map_or_else(String::new, |c| c.mac.to_string())
        })
        .collect();
    assert_eq!(macs, ["bc:24:11:00:00:02", "bc:24:11:00:00:09"]);
}

#[test]
fn cards_can_be_left_as_they_are() {
    let mut world = Test::new(node(
        vec![card("eth0", 9, 8, "r8169")],
        serde_json::Value::Null,
    ));
    let text = shown(
        &mut world,
        &[(NETWORK, "skip"), (NETWORK, "back"), (DISKS.0, "back")],
    );
    assert!(
        text.contains("The restored host will not be reachable"),
        "{text}"
    );
    // No card: nothing to ask.
    let mut world = Test::new(node(Vec::new(), serde_json::Value::Null));
    let text = shown(&mut world, &[(SERIAL, "back")]);
    assert!(
        text.contains("no network card that the rescue system knows"),
        "{text}"
    );
}

#[test]
fn a_member_of_a_cluster_is_asked_about() {
    let cluster = serde_json::json!({ "name": "lab", "nodes": ["pve1", "pve2"] });
    let mut world = Test::new(node(Vec::new(), cluster));
    let mut answers = Answers::default();
    let mut script = Script::new(&[POINT, DISKS]);
    points::show(&mut answers, &mut world, &mut script).expect("shown");
    disks::show(&mut answers, &mut world, &mut script).expect("shown");
    assert_eq!(answers.request().expect("a point").start, Start::Isolated);
    let mut script = Script::new(&[(START, "")]);
    assert_eq!(
        cluster::show(&mut answers, &mut script).expect("shown"),
        Screen::Check
    );
    assert!(
        script.shown.contains("cluster lab (with pve2)"),
        "{}",
        script.shown
    );
    for line in script.shown.lines() {
        assert!(line.len() <= 80 && line.is_ascii(), "{line}");
    }
    let mut script = Script::new(&[(START, "member")]);
    cluster::show(&mut answers, &mut script).expect("shown");
    assert_eq!(answers.request().expect("a point").start, Start::Member);
    assert_eq!(
        answers.prepared.expect("a plan").finish.start,
        Start::Member
    );
}

#[test]
fn guests_whose_disks_other_nodes_reach_are_named() {
    let mut fake = node(Vec::new(), serde_json::json!({ "name": "lab" }));
    fake.facts["proxmox"] = crate::guests::shared::tests::facts()["proxmox"].clone();
    let on_shared = "  VM 100 (web) on nas\n";
    let mut world = Test::new(fake);
    let mut answers = Answers::default();
    let mut script = Script::new(&[POINT, DISKS]);
    points::show(&mut answers, &mut world, &mut script).expect("shown");
    disks::show(&mut answers, &mut world, &mut script).expect("shown");
    let mut script = Script::new(&[PLAN, (START, ""), (START, "member"), PLAN]);
    plan::show(&mut answers, &mut script).expect("shown");
    let first = std::mem::take(&mut script.shown);
    assert!(
        first.contains(on_shared) && first.contains("starts NO guests by itself"),
        "{first}"
    );
    cluster::show(&mut answers, &mut script).expect("shown");
    let asked = std::mem::take(&mut script.shown);
    assert!(asked.contains(on_shared), "{asked}");
    for line in first.lines().chain(asked.lines()) {
        assert!(line.len() <= 80 && line.is_ascii(), "{line}");
    }
    // As a member it holds nothing back.
    cluster::show(&mut answers, &mut script).expect("shown");
    script.shown.clear();
    plan::show(&mut answers, &mut script).expect("shown");
    assert!(!script.shown.contains(on_shared), "{}", script.shown);
}
