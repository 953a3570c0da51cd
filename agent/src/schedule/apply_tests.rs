//! Timers on a machine in a directory, with recorded answers of systemd.

use layout::system::Recorded;
use tempfile::TempDir;

use super::super::When;
use super::*;

const DAILY: &str =
    "Normalized form: *-*-* 02:00:00\n    Next elapse: Fri 2026-11-27 02:00:00 UTC\n";

fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc/systemd/system")).unwrap();
    root
}

/// A systemd on which everything works, and whose timers run or not.
fn systemd(running: bool) -> Recorded {
    let mut sys = Recorded::new().command("systemd-analyze calendar *-*-* 02:00:00", DAILY);
    let (active, enabled) = match running {
        true => ("active\n", "enabled\n"),
        false => ("inactive\n", "disabled\n"),
    };
    sys = sys.command("systemctl daemon-reload", "");
    for timer in Job::ALL.map(Job::timer) {
        for verb in ["enable", "restart", "disable --now", "clean --what=state"] {
            sys = sys.command(&format!("systemctl {verb} {timer}"), "");
        }
        sys = sys.command(&format!("systemctl is-active {timer}"), active);
        sys = sys.command(&format!("systemctl is-enabled {timer}"), enabled);
    }
    sys
}

fn host() -> Settings {
    Settings {
        host: "daily 02:00".parse().unwrap(),
        check: When::default(),
        ..Settings::default()
    }
}

fn apply(sys: &Recorded, root: &TempDir, settings: &Settings) -> anyhow::Result<Applied> {
    let machine = Machine {
        sys,
        root: root.path().into(),
        program: "/usr/bin/lifeboat".into(),
    };
    machine.apply(settings)
}

fn ran(sys: &Recorded) -> String {
    sys.log.lock().unwrap().join("\n")
}

fn unit(root: &TempDir, name: &str) -> PathBuf {
    root.path().join("etc/systemd/system").join(name)
}

fn package(root: &TempDir) {
    let dir = root.path().join("usr/lib/systemd/system");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(Job::Host.service()), "[Service]").unwrap();
}

#[test]
fn timers_come_stay_and_go() {
    let root = root();
    let sys = systemd(false);
    let applied = apply(&sys, &root, &host()).unwrap();
    assert_eq!(
        applied.written,
        ["lifeboat-backup.service", "lifeboat-backup.timer"]
    );
    assert!(
        ran(&sys).ends_with("systemctl restart lifeboat-backup.timer"),
        "{}",
        ran(&sys)
    );
    assert!(ran(&sys).contains("daemon-reload"));
    let mode = std::fs::metadata(unit(&root, "lifeboat-backup.timer"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o644);
    // A second time there is nothing to do.
    let sys = systemd(true);
    let applied = apply(&sys, &root, &host()).unwrap();
    assert!(applied.written.is_empty() && applied.removed.is_empty());
    for done in ["daemon-reload", "restart", "enable lifeboat"] {
        assert!(!ran(&sys).contains(done), "{}", ran(&sys));
    }
    let never = Settings {
        host: When::default(),
        ..host()
    };
    let applied = apply(&sys, &root, &never).unwrap();
    assert_eq!(
        applied.removed,
        ["lifeboat-backup.timer", "lifeboat-backup.service"]
    );
    assert!(ran(&sys).contains("disable --now lifeboat-backup.timer"));
    assert!(!unit(&root, "lifeboat-backup.timer").exists());
}

/// Whoever backs up by plugging in a stick only is told, too, when that is overdue.
#[test]
fn somebody_looks_whether_backups_are_overdue() {
    let root = root();
    let daily = DAILY.replace("02:00", "08:00");
    let sys = systemd(false).command("systemd-analyze calendar *-*-* 08:00:00", &daily);
    let settings = Settings {
        window: "22:00-06:00".parse().unwrap(),
        ..Settings::default()
    };
    let applied = apply(&sys, &root, &settings).unwrap();
    assert_eq!(
        applied.written,
        ["lifeboat-check.service", "lifeboat-check.timer"]
    );
    assert!(applied.warnings.is_empty(), "{:?}", applied.warnings);
    assert!(ran(&sys).contains("enable lifeboat-check.timer"));
}

#[test]
fn a_change_restarts_its_timer() {
    let root = root();
    apply(&systemd(false), &root, &host()).unwrap();
    let sys = systemd(true);
    let mut settings = host();
    settings.random_delay = "5min".parse().unwrap();
    let applied = apply(&sys, &root, &settings).unwrap();
    assert_eq!(applied.written, ["lifeboat-backup.timer"]);
    assert!(ran(&sys).contains("restart lifeboat-backup.timer"));
}

#[test]
fn the_service_of_the_package_is_taken() {
    let root = root();
    apply(&systemd(false), &root, &host()).unwrap();
    assert!(unit(&root, "lifeboat-backup.service").exists());
    package(&root);
    let applied = apply(&systemd(true), &root, &host()).unwrap();
    assert_eq!(applied.removed, ["lifeboat-backup.service"]);
    let again = apply(&systemd(true), &root, &host()).unwrap();
    assert!(again.written.is_empty());
}

#[test]
fn what_an_admin_made_stays() {
    let root = root();
    let timer = unit(&root, "lifeboat-backup.timer");
    std::fs::write(&timer, "[Timer]\nOnCalendar=daily\n").unwrap();
    let sys = systemd(false);
    let text = apply(&sys, &root, &host()).unwrap_err().to_string();
    assert!(text.contains("was not made by"), "{text}");
    assert!(!ran(&sys).contains("systemctl"));
    std::fs::remove_file(&timer).unwrap();
    // A service of their own is theirs.
    let service = unit(&root, "lifeboat-backup.service");
    std::fs::write(&service, "[Service]\n").unwrap();
    apply(&systemd(false), &root, &host()).unwrap();
    assert_eq!(std::fs::read_to_string(service).unwrap(), "[Service]\n");
}

#[test]
fn nothing_is_changed_for_what_systemd_does_not_know_or_what_never_comes() {
    let root = root();
    let mut settings = host();
    settings.verify = "whenever".parse().unwrap();
    let sys = systemd(false);
    let error = apply(&sys, &root, &settings).unwrap_err();
    assert_eq!(crate::output::error_code(&error), 2);
    assert!(
        error.to_string().contains("verify = \"whenever\""),
        "{error}"
    );
    let sys = systemd(false).command("systemd-analyze calendar whenever", "Next elapse: never\n");
    let error = apply(&sys, &root, &settings).unwrap_err();
    assert!(error.to_string().contains("never comes"), "{error}");
    assert!(!unit(&root, "lifeboat-backup.timer").exists());
}

#[test]
fn a_time_outside_of_the_window_is_warned_of() {
    let root = root();
    let mut settings = host();
    settings.window = "22:00-06:00".parse().unwrap();
    assert!(
        apply(&systemd(false), &root, &settings)
            .unwrap()
            .warnings
            .is_empty()
    );
    settings.window = "08:00-18:00".parse().unwrap();
    let warnings = apply(&systemd(true), &root, &settings).unwrap().warnings;
    assert!(warnings[0].contains("will not start"), "{warnings:?}");
}

/// The real thing knows the expressions that words become.
#[test]
fn systemd_understands_the_words() {
    let known = Cmd::new("systemd-analyze").args(["calendar", "daily"]);
    if layout::system::System::run(&layout::system::Host, &known).is_err() {
        eprintln!("ignored: systemd-analyze is not installed");
        return;
    }
    let root = root();
    let machine = Machine {
        sys: &layout::system::Host,
        root: root.path().into(),
        program: "/usr/bin/lifeboat".into(),
    };
    for words in [
        "hourly :15",
        "daily 02:00",
        "weekly Sun 03:00",
        "monthly 1 04:00",
        "*-*~01 04:00",
    ] {
        let settings = Settings {
            host: words.parse().unwrap(),
            window: "10:00-10:01".parse().unwrap(),
            ..Settings::default()
        };
        let warning = machine.check(Job::Host, &settings).unwrap();
        assert!(
            warning.is_some(),
            "{words}: the next time was not understood"
        );
    }
}
