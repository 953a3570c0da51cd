//! Verifying in slices, healing from another target and from parity, and the verdicts that `list` shows.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Bench;

fn verified(bench: &Bench) -> serde_json::Value {
    let list = bench.run(["list", "--from", bench.str("store"), "--json"]);
    list.json()["targets"][0]["snapshots"][0]["verified"].clone()
}

#[test]
fn damage_is_healed_from_the_other_target_and_said() {
    let bench = Bench::with_store();
    bench.make_tree();
    bench.run(["prepare", bench.str("second")]).expect(0);
    let both = ["--to", bench.str("store"), "--to", bench.str("second")];
    bench
        .run(["backup", "--root", bench.str("tree")].iter().chain(&both))
        .expect(0);
    assert_eq!(verified(&bench)["how"], "written");
    bench.damage("store");
    bench
        .run(["verify", "--from", bench.str("store")])
        .expect(1);
    assert_eq!(verified(&bench)["good"], false);
    let list = bench.run(["list", "--from", bench.str("store")]).expect(0);
    assert!(list.out.contains("DAMAGED 2"), "{}", list.out);
    // Alone it cannot be healed, and what is there stays.
    let alone = bench
        .run(["verify", "--heal", "--from", bench.str("store")])
        .expect(1);
    assert!(alone.out.contains("DAMAGED"), "{}", alone.out);
    let heal = ["verify", "--heal", "--from", bench.str("store")];
    let second = ["--from", bench.str("second")];
    let healed = bench.run(heal.iter().chain(&second)).expect(3);
    assert!(
        healed.out.contains("healed: packs/") && healed.out.contains(bench.str("second")),
        "{}",
        healed.out
    );
    let again = bench.run(heal.iter().chain(&second)).expect(0);
    assert!(!again.out.contains("healed"), "{}", again.out);
    bench
        .run(["verify", "--from", bench.str("store")])
        .expect(0);
    let verdict = verified(&bench);
    assert!(
        verdict["good"] == true && verdict["how"] == "whole",
        "{verdict}"
    );
}

#[test]
fn parity_heals_without_another_target() {
    let bench = Bench::default();
    bench.make_tree();
    bench
        .run(["prepare", bench.str("store"), "--parity", "5%"])
        .expect(0);
    bench.backup().expect(0);
    bench.damage("store");
    let healed = bench
        .run(["verify", "--heal", "--from", bench.str("store"), "--json"])
        .expect(3)
        .json();
    assert_eq!(healed[0]["ok"], true);
    let how = healed[0]["healed"].to_string();
    assert!(how.contains("parity"), "{how}");
    assert!(!healed[0]["was_damaged"].as_array().unwrap().is_empty());
    bench
        .run(["verify", "--from", bench.str("store")])
        .expect(0);
    bench
        .run(["prepare", bench.str("other"), "--parity", "99%"])
        .expect(2);
}

#[test]
fn ten_samples_are_the_whole() {
    let bench = Bench::with_store();
    bench.make_tree();
    bench.backup().expect(0);
    for n in 1..=10 {
        let sample = bench
            .run(["verify", "--sample", "10%", "--from", bench.str("store")])
            .expect(0);
        assert!(sample.out.contains(" of 10: "), "{}", sample.out);
        let expected = if n == 10 { "whole" } else { "written" };
        assert_eq!(verified(&bench)["how"], expected);
    }
    bench
        .run(["verify", "--sample", "10", "--from", bench.str("store")])
        .expect(2);
}
