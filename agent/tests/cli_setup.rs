//! `lifeboat setup`: from a file, and from somebody at a terminal.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::Bench;

fn answers(bench: &Bench, text: &str) -> &'static str {
    fs::write(bench.path("answers.toml"), text).unwrap();
    bench.str("answers.toml")
}

#[test]
fn answers_from_a_file() {
    let bench = Bench::default();
    bench.make_tree();
    bench.configure(&format!(
        "# mine\nroots = [{:?}]  # all\n",
        bench.path("tree")
    ));
    let before = fs::read_to_string(bench.path("lifeboat.toml")).unwrap();
    fs::write(bench.path("passphrase"), "correct horse\n").unwrap();
    let file = answers(
        &bench,
        &format!(
            "drive = {:?}\nencrypt = true\nfirst-backup = true\n",
            bench.path("drive/store")
        ),
    );
    let args = [
        "setup",
        "--answers",
        file,
        "--passphrase-file",
        bench.str("passphrase"),
    ];

    let dry = bench.run(args.iter().chain(&["--dry-run"])).expect(0);
    assert!(
        dry.out.contains("becomes a target, encrypted"),
        "{}",
        dry.out
    );
    assert!(dry.out.contains("targets = ["), "{}", dry.out);
    assert!(!bench.path("drive").exists());
    assert_eq!(
        fs::read_to_string(bench.path("lifeboat.toml")).unwrap(),
        before
    );

    let done = bench.run(args.iter().chain(&["--json"])).expect(0).json();
    assert_eq!(done["made"][0]["encrypted"], true);
    assert!(done["made"][0]["recovery_key"].as_str().unwrap().len() > 20);
    let after = fs::read_to_string(bench.path("lifeboat.toml")).unwrap();
    assert!(
        after.contains("# mine\n") && after.contains("# all\n"),
        "{after}"
    );
    let mode = fs::metadata(bench.path("lifeboat.toml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let list = bench.run(["list", "--json"]).expect(0).json();
    assert_eq!(list["targets"][0]["snapshots"].as_array().unwrap().len(), 1);

    // Again: nothing is made, nothing is written.
    let file = answers(
        &bench,
        &format!("drive = {:?}\n", bench.path("drive/store")),
    );
    let again = bench
        .run(["setup", "--answers", file, "--json"])
        .expect(0)
        .json();
    assert_eq!(again["made"].as_array().unwrap().len(), 0);
    assert_eq!(again["changes"].as_array().unwrap().len(), 0);
    assert_eq!(
        fs::read_to_string(bench.path("lifeboat.toml")).unwrap(),
        after
    );
}

#[test]
fn wrong_answers_change_nothing() {
    let bench = Bench::default();
    let before = fs::read_to_string(bench.path("lifeboat.toml")).unwrap();
    fs::write(bench.path("file"), "precious").unwrap();
    let cases = [
        ("", 2, "no target"),
        ("drive = 'here'", 2, "absolute"),
        ("disk = '/dev/sdx'", 2, "disk"),
        ("drive = '/x'\ntime = '25:00'", 2, "25:00"),
        (
            "stick = '/dev/lifeboat-none'\nerase = 'S1'",
            2,
            "plugged in",
        ),
    ];
    for (text, code, says) in cases {
        let file = answers(&bench, text);
        let run = bench.run(["setup", "--answers", file]).expect(code);
        assert!(run.err.contains(says), "{text}: {}", run.err);
    }
    let file = answers(&bench, &format!("stick = {:?}\n", bench.path("file")));
    bench.run(["setup", "--answers", file]).expect(4);
    assert_eq!(fs::read_to_string(bench.path("file")).unwrap(), "precious");
    assert_eq!(
        fs::read_to_string(bench.path("lifeboat.toml")).unwrap(),
        before
    );
    // Nobody is there to be asked.
    let run = bench.run(["setup"]).expect(2);
    assert!(run.err.contains("--answers"), "{}", run.err);
}

/// A configuration that does not exist yet is written where an option says.
#[test]
fn the_first_configuration() {
    let bench = Bench::default();
    let config = bench.path("etc/lifeboat.toml");
    let file = answers(&bench, &format!("drive = {:?}\n", bench.path("store")));
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command
        .arg("--config")
        .arg(&config)
        .args(["setup", "--json", "--answers", file]);
    common::Run::from(command.output().unwrap()).expect(0);
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.starts_with("# Lifeboat's configuration"), "{text}");
    assert!(text.contains(bench.str("store")), "{text}");
}

/// A terminal of 80 columns with somebody at it.
struct Console {
    child: Child,
    master: fs::File,
    /// All that was shown.
    shown: String,
    /// Up to where it was answered.
    at: usize,
}

impl Console {
    fn start(bench: &Bench) -> Console {
        let size = nix::pty::Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = nix::pty::openpty(Some(&size), None).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        // assert_cmd gives no terminal.
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command
            .arg("--config")
            .arg(bench.path("lifeboat.toml"))
            .arg("setup");
        command
            .env("TERM", "vt220")
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .stderr(end(&pty.slave));
        let child = command.spawn().unwrap();
        drop(command);
        drop(pty.slave);
        nix::fcntl::fcntl(
            &pty.master,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .unwrap();
        Console {
            child,
            master: pty.master.into(),
            shown: String::new(),
            at: 0,
        }
    }

    /// Reads what is there; false at the end.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(0) => false,
            Ok(n) => {
                self.shown.push_str(&String::from_utf8_lossy(&bytes[..n]));
                true
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(20));
                true
            }
            Err(_) => false,
        }
    }

    /// Waits for one of the questions; which one it is.
    fn wait(&mut self, questions: &[&str]) -> usize {
        let begun = Instant::now();
        loop {
            let rest = &self.shown[self.at..];
            let found = questions.iter().enumerate();
            let found = found.filter_map(|(n, q)| Some((rest.find(q)?, n))).min();
            if let Some((place, n)) = found {
                self.at += place + questions[n].len();
                return n;
            }
            let more = self.read();
            assert!(
                more && begun.elapsed() < Duration::from_secs(120),
                "no {questions:?} in:\n{}",
                self.shown
            );
        }
    }

    fn say(&mut self, line: &str) {
        // What comes before the terminal is ready for it would be echoed by the kernel.
        std::thread::sleep(Duration::from_millis(500));
        self.master
            .write_all(format!("{line}\r").as_bytes())
            .unwrap();
    }

    /// The number of an item of the menu that is shown.
    fn choose(&mut self, item: &str) {
        self.wait(&["Number"]);
        let line = self.shown.lines().rev().find(|l| l.contains(item)).unwrap();
        let number = line.trim().split(')').next().unwrap().to_owned();
        self.say(&number);
    }

    /// Its exit status, when it has ended.
    fn end(mut self) -> (i32, String) {
        let begun = Instant::now();
        loop {
            let more = self.read();
            if let Some(status) = self.child.try_wait().unwrap() {
                while self.read() && begun.elapsed() < Duration::from_secs(1) {}
                return (status.code().unwrap_or(-1), self.shown);
            }
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "{more}: it does not end:\n{}",
                self.shown
            );
        }
    }
}

/// The questions that come between encryption and the end, whichever this version has.
fn rest(console: &mut Console) {
    loop {
        match console.wait(&["At what time", "Who gets a mail", "Make a backup"]) {
            0 | 1 => console.say("none"),
            _ => return console.say("no"),
        }
    }
}

#[test]
fn somebody_at_a_terminal() {
    let bench = Bench::default();
    let mut console = Console::start(&bench);
    console.wait(&["Which stick"]);
    console.choose("no stick");
    console.wait(&["Which drive"]);
    console.choose("another directory");
    console.wait(&["Directory"]);
    console.say("relative");
    console.wait(&["absolute path"]);
    console.wait(&["Directory"]);
    console.say(bench.str("store"));
    console.wait(&["Encrypt"]);
    console.say("yes");
    rest(&mut console);
    console.wait(&["Do this?"]);
    assert!(!bench.path("store").exists());
    console.say("yes");
    console.wait(&["New passphrase"]);
    console.say("correct horse");
    console.wait(&["The same again"]);
    console.say("correct horse");
    console.wait(&["RECOVERY KEY"]);
    let (code, shown) = console.end();
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("correct horse"), "{shown}");
    assert!(shown.contains("`lifeboat doctor` sees it"), "{shown}");
    let config = fs::read_to_string(bench.path("lifeboat.toml")).unwrap();
    assert!(config.contains(bench.str("store")), "{config}");

    // Again: what is there comes first, and stays.
    let before = config;
    let mut console = Console::start(&bench);
    console.wait(&["stay"]);
    console.choose("no further stick");
    console.wait(&["Which drive"]);
    console.choose("no drive");
    rest(&mut console);
    console.wait(&["stays as it is"]);
    console.wait(&["Do this?"]);
    console.say("no");
    let (code, shown) = console.end();
    assert_eq!(code, 0, "{shown}");
    assert_eq!(
        fs::read_to_string(bench.path("lifeboat.toml")).unwrap(),
        before
    );
}

#[test]
fn stopped_at_a_question_it_leaves_nothing() {
    let bench = Bench::default();
    let before = fs::read_to_string(bench.path("lifeboat.toml")).unwrap();
    let mut console = Console::start(&bench);
    console.wait(&["Which stick"]);
    console.choose("no stick");
    console.wait(&["Number"]);
    // One that comes before the terminal is ready for it is lost.
    while console.child.try_wait().unwrap().is_none() {
        let _ = console.master.write_all(b"\x03");
        std::thread::sleep(Duration::from_millis(300));
        console.read();
    }
    let (code, shown) = console.end();
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("SIGINT"), "{shown}");
    assert_eq!(
        fs::read_to_string(bench.path("lifeboat.toml")).unwrap(),
        before
    );
}

/// Half a minute: builds a rescue system. The kernel is this host's, or out of the package that the variable names.
#[test]
#[ignore = "needs root, loop devices, lifeboat-rescue beside lifeboat, and a kernel (or LIFEBOAT_TEST_KERNEL_PACKAGE=linux-image-....deb)"]
fn an_image_and_a_drive() {
    let bench = Bench::default();
    bench.make_tree();
    bench.configure(&format!("roots = [{:?}]\n", bench.path("tree")));
    let kernel = std::env::var("LIFEBOAT_TEST_KERNEL_PACKAGE")
        .map(|deb| format!("kernel-package = {deb:?}\n"))
        .unwrap_or_default();
    let text = format!(
        "stick = {:?}\nsize = '4G'\nesp-size = '300M'\nmodules = 'slim'\ndrive = {:?}\nfirst-backup = false\n{kernel}",
        bench.path("stick.img"),
        bench.path("store")
    );
    let file = answers(&bench, &text);
    let done = bench
        .run(["setup", "--answers", file, "--json"])
        .expect(0)
        .json();
    assert_eq!(done["made"].as_array().unwrap().len(), 2, "{done}");
    bench.run(["backup", "--no-update-rescue"]).expect(0);
    // The image is a target by now: it is kept, and so is what it holds.
    let again = bench
        .run(["setup", "--answers", file, "--json"])
        .expect(0)
        .json();
    assert_eq!(again["made"].as_array().unwrap().len(), 0, "{again}");
    let list = bench.run(["list", "--json"]).expect(0).json();
    for target in list["targets"].as_array().unwrap() {
        assert_eq!(target["snapshots"].as_array().unwrap().len(), 1);
    }
    // It holds a rescue system that is made of something else than the host's kernel and tools, or it is current.
    let doctor = bench.run(["doctor", "--json"]).json();
    let ids: Vec<&str> = doctor["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["id"].as_str().unwrap())
        .collect();
    assert!(!ids.contains(&"stick-without-rescue"), "{ids:?}");
    assert!(!ids.contains(&"target-broken"), "{ids:?}");
}
