//! Documents of runs as a host writes them: history for reports and the like.

use std::fs;
use std::path::Path;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

/// The time zone of these hosts: central Europe.
pub const TZ: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

pub const GIB: u64 = 1 << 30;
pub const DRIVE: &str = "/mnt/backup/lifeboat-store";
pub const STICK: &str = "/dev/disk/by-id/usb-SanDisk_Ultra_4C530001";

/// A local time of these hosts.
pub fn local(day: Date, hour: i8, minute: i8) -> Timestamp {
    let zone = TimeZone::posix(TZ).unwrap();
    let time = day.at(hour, minute, 0, 0);
    time.to_zoned(zone).unwrap().timestamp()
}

/// A snapshot's id.
pub fn id(text: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A run that ended well, without targets.
pub fn run(kind: &str, trigger: &str, started: Timestamp, seconds: i64) -> Value {
    let ended = started.checked_add(seconds.seconds()).unwrap();
    json!({
        "format": 1,
        "id": format!("{}-{kind}-4711", started.strftime("%Y%m%dT%H%M%S%.3fZ")),
        "kind": kind,
        "trigger": trigger,
        "user": "root",
        "host": "pve1",
        "machine_id": "0123456789abcdef0123456789abcdef",
        "started": started.to_string(),
        "ended": ended.to_string(),
        "process": {"pid": 4711, "boot": "another", "started": 1},
        "result": "fine",
        "error": null,
    })
}

/// What became of a target that got a new restore point, which was read back.
pub fn good(target: &str, snapshot: &str, bytes: u64) -> Value {
    json!({
        "target": target,
        "stick": target.starts_with("/dev"),
        "store": id(target)[..32],
        "snapshot": id(snapshot),
        "error": null,
        "bytes_written": bytes,
        "verified": true,
        "verified_bytes": bytes,
    })
}

/// A target that could not be written to.
pub fn failed(target: &str, error: &str) -> Value {
    json!({
        "target": target, "stick": target.starts_with("/dev"), "store": null, "snapshot": null,
        "error": error, "bytes_written": 0, "verified": null, "verified_bytes": 0,
    })
}

/// A target that was read again.
pub fn read(target: &str, bytes: u64, whole: bool, damage: &[&str]) -> Value {
    json!({
        "target": target, "stick": target.starts_with("/dev"), "store": id(target)[..32],
        "snapshot": null, "error": null, "bytes_written": 0, "verified": damage.is_empty(),
        "verified_bytes": bytes, "whole": whole, "damage": damage,
    })
}

/// Writes documents.
pub fn write(state: &Path, runs: &[Value]) {
    let dir = state.join("runs");
    fs::create_dir_all(&dir).unwrap();
    for run in runs {
        let name = run["id"].as_str().unwrap();
        let text = serde_json::to_vec_pretty(run).unwrap();
        fs::write(dir.join(format!("{name}.json")), text).unwrap();
    }
}

/// Numbers that look like chance, and are the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A node's third quarter of 2026: a backup every night, a stick every Sunday, guests, and what goes wrong in a quarter.
/// `drills`: whether restores were tried.
pub fn quarter(drills: bool) -> Vec<Value> {
    let mut runs = Vec::new();
    let mut chance = Chance(7);
    let (mut on_drive, mut on_stick) = (12_u64, 3_u64);
    let mut day = date(2026, 6, 20);
    while day <= date(2026, 9, 30) {
        let nth = u64::from(
            day.since(date(2026, 6, 20))
                .unwrap()
                .get_days()
                .unsigned_abs(),
        );
        on_drive = (on_drive + 1).min(24);
        runs.push(night(day, nth, on_drive, &mut chance));
        if day.weekday().to_monday_zero_offset() == 6 && day != date(2026, 8, 16) {
            on_stick += 1;
            runs.push(plugged(day, nth, on_stick, &mut chance));
        }
        if day.weekday().to_monday_zero_offset() == 2 {
            let bytes = (60 + nth / 4) * GIB;
            let (whole, bytes) = if day.day() <= 7 {
                (true, bytes)
            } else {
                (false, bytes / 10)
            };
            let mut run = run(
                "verify",
                "timer",
                local(day, 12, 0),
                600 + (bytes / GIB * 8) as i64,
            );
            run["targets"] = json!([read(DRIVE, bytes, whole, &[])]);
            runs.push(run);
        }
        runs.extend(special(day, drills));
        day = day.tomorrow().unwrap();
    }
    runs
}

fn night(day: Date, nth: u64, points: u64, chance: &mut Chance) -> Value {
    let minutes = chance.below(25) as i8;
    let mut seconds = 540 + chance.below(400) as i64;
    let changed = GIB / 4 + chance.below(3 * GIB);
    if day.weekday().to_monday_zero_offset() == 0 {
        seconds += 900;
    }
    let mut run = run("backup", "timer", local(day, 2, minutes), seconds);
    let bytes = 38 * GIB + nth * GIB / 12 + chance.below(GIB / 8);
    run["files"] = json!(214_000 + nth * 37);
    run["bytes"] = json!(bytes);
    run["bytes_read"] = json!(changed * 2);
    run["phases"] = json!([
        {"name": "read", "seconds": seconds as f64 * 0.55},
        {"name": "guests", "seconds": seconds as f64 * 0.3},
        {"name": "verify", "seconds": seconds as f64 * 0.1},
    ]);
    let mut target = good(DRIVE, &format!("{day} host"), changed);
    let room = 931 * GIB;
    let free = room - 420 * GIB - nth * 3 * GIB - chance.below(4 * GIB);
    target["restore_points"] = json!(points);
    target["space"] = json!({"free": free, "size": room});
    run["targets"] = json!([target]);
    let mut guests = Vec::new();
    for (id, kind, name, gib) in [
        (100, "qemu", "web", 24),
        (101, "qemu", "database", 61),
        (103, "qemu", "old-wiki", 8),
        (105, "lxc", "mail", 12),
    ] {
        if id == 103 && day > date(2026, 8, 2) {
            continue;
        }
        guests.push(json!({
            "id": id, "kind": kind, "name": name, "result": "fine", "error": null,
            "bytes": gib * GIB + chance.below(GIB), "seconds": gib * 3 + chance.below(30), "warnings": [],
            "targets": [good(DRIVE, &format!("{day} {id}"), gib * GIB / 20)],
        }));
    }
    if (date(2026, 9, 1)..=date(2026, 9, 2)).contains(&day) {
        guests[2]["result"] = json!("failed");
        guests[2]["error"] = json!("vzdump: CT 105 is locked (snapshot-delete)");
        guests[2]["targets"] = json!([]);
        run["result"] = json!("warnings");
    }
    run["guests"] = json!(guests);
    if chance.below(12) == 0 {
        run["result"] = json!("warnings");
        run["warnings"] = json!([
            "/var/log/journal/system.journal: changed while it was read",
            "/root/.cache/x: vanished"
        ]);
    }
    broken(day, run)
}

/// The drive was not mounted for three nights, and the power failed in one.
fn broken(day: Date, mut run: Value) -> Value {
    if (date(2026, 8, 11)..=date(2026, 8, 13)).contains(&day) {
        let error = "nothing is mounted at /mnt/backup: plug the drive in, or mount it (`mount /mnt/backup`)";
        run["result"] = json!("failed");
        run["error"] = json!("there is no new restore point on any target");
        run["targets"] = json!([failed(DRIVE, error)]);
        run["guests"] = json!([]);
        run["phases"] = json!([]);
        (run["bytes"], run["bytes_read"], run["files"]) = (json!(0), json!(0), json!(0));
        let ended: Timestamp = run["started"].as_str().unwrap().parse().unwrap();
        run["ended"] = json!(ended.checked_add(4.seconds()).unwrap().to_string());
    }
    if day == date(2026, 7, 22) {
        (run["result"], run["ended"]) = (json!(null), json!(null));
        (run["targets"], run["guests"], run["phases"]) = (json!([]), json!([]), json!([]));
    }
    run
}

fn plugged(day: Date, nth: u64, points: u64, chance: &mut Chance) -> Value {
    let seconds = 1500 + chance.below(900) as i64;
    let mut run = run(
        "backup",
        "plug",
        local(day, 19, chance.below(50) as i8),
        seconds,
    );
    run["bytes"] = json!(38 * GIB + nth * GIB / 12);
    run["files"] = json!(214_000 + nth * 37);
    run["bytes_read"] = json!(2 * GIB);
    let mut target = good(STICK, &format!("{day} stick"), GIB + chance.below(GIB));
    let free = 57 * GIB - (20 + nth / 3).min(50) * GIB;
    target["restore_points"] = json!(points.min(13));
    target["space"] = json!({"free": free, "size": 57 * GIB});
    run["targets"] = json!([target]);
    run
}

fn special(day: Date, drills: bool) -> Vec<Value> {
    let mut runs = Vec::new();
    if day == date(2026, 9, 8) || day == date(2026, 9, 10) {
        let damage = "packs/4f/4f2a9c.pack: blob 17 is not what was written";
        let restore_points = "  restore points: 1a2b3c4d 5e6f7a8b";
        let (found, result) = match day.day() {
            8 => (
                vec![
                    damage,
                    restore_points,
                    "  affects /var/lib/<b>vz</b>/template/iso/a.iso",
                ],
                "failed",
            ),
            _ => (vec![], "warnings"),
        };
        let mut run = run("verify", "command", local(day, 10, 5), 2400);
        run["user"] = json!("anna");
        run["result"] = json!(result);
        run["targets"] = json!([read(STICK, 41 * GIB, true, &found)]);
        if day.day() == 10 {
            run["targets"][0]["problems"] =
                json!(["healed: packs/4f/4f2a9c.pack: from another target"]);
        }
        runs.push(run);
    }
    if drills && day == date(2026, 8, 20) {
        let mut run = run("drill", "command", local(day, 15, 0), 1260);
        run["result"] = json!("failed");
        run["error"] =
            json!("the restored machine did not reach multi-user.target within 10 minutes");
        runs.push(run);
    }
    if drills && day == date(2026, 9, 22) {
        let mut run = run("drill", "command", local(day, 15, 0), 2520);
        run["guests"] = json!([{
            "id": 105, "kind": "lxc", "name": "mail", "result": "fine", "error": null, "bytes": 12 * GIB,
            "seconds": 310, "warnings": [], "targets": [],
        }]);
        runs.push(run);
    }
    runs
}

/// A backup every hour of 2026, to two targets, and a few failures.
pub fn hourly_year() -> Vec<Value> {
    let mut chance = Chance(3);
    let first = local(date(2026, 1, 1), 0, 5);
    let hour = |nth: i64| {
        let started = first.checked_add(nth.hours()).unwrap();
        let mut run = run("backup", "timer", started, 60 + chance.below(120) as i64);
        let bytes = 20 * GIB + nth as u64 * (GIB >> 10);
        (run["bytes"], run["files"]) = (json!(bytes), json!(90_000));
        run["bytes_read"] = json!(chance.below(GIB));
        let mut targets = vec![good(DRIVE, &format!("{nth} a"), chance.below(GIB / 4))];
        targets[0]["space"] =
            json!({"free": 800 * GIB - nth as u64 * (GIB / 16), "size": 931 * GIB});
        targets[0]["restore_points"] = json!(72);
        targets.push(match chance.below(50) {
            0 => failed("/mnt/second", "no space left on device"),
            _ => good("/mnt/second", &format!("{nth} b"), chance.below(GIB / 4)),
        });
        if !targets[1]["error"].is_null() {
            run["result"] = json!("warnings");
        }
        run["targets"] = json!(targets);
        run
    };
    (0..8760).map(hour).collect()
}
