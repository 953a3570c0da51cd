//! The audit log as the command writes it, and what it never holds: secrets.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Bench, Run};

fn bench() -> Bench {
    let bench = Bench::with_store();
    fs::create_dir(bench.path("tree")).unwrap();
    fs::write(bench.path("tree/file"), "content").unwrap();
    bench
}

fn shown(bench: &Bench) -> Vec<serde_json::Value> {
    let run = bench.run(["audit", "show", "--json"]).expect(0);
    run.json().as_array().unwrap().clone()
}

#[test]
fn who_did_what_is_noted_at_its_begin_and_its_end() {
    let bench = bench();
    let id = Bench::id(&bench.backup().expect(0));
    bench
        .run([
            "extract",
            "latest",
            "--from",
            bench.str("store"),
            "--to",
            bench.str("out"),
        ])
        .expect(0);
    bench.run(["list", "--from", bench.str("store")]).expect(0);
    let failed = bench.run([
        "extract",
        "ffff",
        "--from",
        bench.str("store"),
        "--to",
        bench.str("x"),
    ]);
    assert_eq!(failed.code, 1);
    let log = shown(&bench);
    let commands: Vec<&str> = log.iter().map(|e| e["command"].as_str().unwrap()).collect();
    let expected = ["prepare", "backup", "extract", "extract"];
    assert_eq!(commands, expected.map(|c| [c, c]).concat());
    let end = &log[3];
    assert_eq!(
        (&end["event"], &end["of"], &end["exit"]),
        (&"end".into(), &3.into(), &0.into())
    );
    assert_eq!(end["about"]["target"][0], bench.str("store"));
    let made = end["about"]["made"][0].as_str().unwrap();
    assert!(id.starts_with(made.split(' ').next().unwrap()), "{made}");
    assert_eq!(log[7]["exit"], 1);
    assert!(log[7]["error"].as_str().unwrap().contains("ffff"));
    let text = bench.run(["audit", "show"]).expect(0).out;
    assert!(text.contains("extract") && text.contains("ffff"), "{text}");
    let since = bench
        .run(["audit", "show", "--since", "2099-01-01", "--json"])
        .expect(0);
    assert_eq!(since.json().as_array().unwrap().len(), 0);
}

#[test]
fn a_log_that_was_changed_is_found_out() {
    let bench = bench();
    for _ in 0..2 {
        bench.backup().expect(0);
    }
    let good = bench.run(["audit", "verify", "--json"]).expect(0).json();
    let head = format!(
        "{}:{}",
        good["head"]["number"],
        good["head"]["hash"].as_str().unwrap()
    );
    let file = bench.path("state/audit.log");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let check = |lines: &[&str]| -> Run {
        fs::write(
            &file,
            lines.iter().map(|l| format!("{l}\n")).collect::<String>(),
        )
        .unwrap();
        bench.run(["audit", "verify"])
    };
    let changed = lines[2].replace("backup", "verify");
    let cases = [
        (
            vec![lines[0], lines[1], &changed, lines[3], lines[4], lines[5]],
            "line 3:",
        ),
        ([&lines[..2], &lines[4..]].concat(), "line 3:"),
        (
            vec![lines[0], lines[2], lines[1], lines[3], lines[4], lines[5]],
            "line 2:",
        ),
        (lines[..4].to_vec(), "cut off"),
    ];
    for (lines, word) in cases {
        let run = check(&lines).expect(1);
        assert!(run.out.contains(word), "{word}: {}", run.out);
    }
    // Without what lies beside the log, only what was kept elsewhere knows.
    fs::remove_file(bench.path("state/audit.head")).unwrap();
    check(&lines[..4]).expect(3);
    bench.run(["audit", "verify", "--expect", &head]).expect(1);
    check(&lines);
    bench.run(["audit", "verify", "--expect", &head]).expect(3);
}

/// A backup is worth more than its entry; what takes backups away is not done unseen.
#[test]
fn a_log_that_cannot_be_written_stops_only_what_is_grave() {
    let bench = bench();
    bench.backup().expect(0);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("ignored: not root");
        return;
    }
    let file = bench.path("state/audit.log");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let run = bench.backup().expect(0);
    assert!(
        run.err.contains("cannot write to the audit log"),
        "{}",
        run.err
    );
    let out = bench.str("out");
    bench
        .run([
            "extract",
            "latest",
            "--from",
            bench.str("store"),
            "--to",
            out,
        ])
        .expect(0);
    let run = bench
        .run(["prune", "--keep-last", "1", bench.str("store")])
        .expect(4);
    assert!(run.err.contains("noted who did it"), "{}", run.err);
    bench
        .run(["prune", "--dry-run", "--keep-last", "1", bench.str("store")])
        .expect(0);
}

#[test]
fn a_torn_line_does_not_break_the_chain() {
    let bench = bench();
    let file = bench.path("state/audit.log");
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("{\"number\":3,\"time\":\"2026-11-2");
    fs::write(&file, text).unwrap();
    let run = bench.run(["audit", "verify"]).expect(3);
    assert!(run.out.contains("line 3: unfinished"), "{}", run.out);
    bench.backup().expect(0);
    let run = bench.run(["audit", "verify"]).expect(0);
    assert!(run.out.contains("line 3: unfinished"), "{}", run.out);
}

/// Everything below a directory, as bytes.
fn files_below(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, found),
            false => found.push((
                path.display().to_string(),
                fs::read(&path).unwrap_or_default(),
            )),
        }
    }
}

#[test]
fn secrets_are_in_no_log_no_argument_and_no_environment() {
    const WORDS: &str = "correct horse 4711 battery";
    const OTHER: &str = "another staple 0815 horse";
    let bench = Bench::default();
    fs::create_dir(bench.path("tree")).unwrap();
    fs::write(bench.path("tree/file"), "content").unwrap();
    fs::write(bench.path("words"), format!("{WORDS}\n")).unwrap();
    fs::write(bench.path("other"), format!("{OTHER}\n")).unwrap();
    // What a hook can see of itself and of the processes above it.
    fs::create_dir(bench.path("hooks")).unwrap();
    let seen = bench.path("seen");
    let hook = format!(
        "#!/bin/sh\nenv >>{0}; tr '\\0' '\\n' </proc/$PPID/environ >>{0}; tr '\\0' '\\n' </proc/$PPID/cmdline >>{0}\n",
        seen.display()
    );
    for when in ["pre-backup", "post-backup"] {
        let path = bench.path("hooks").join(when);
        fs::write(&path, &hook).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (store, words) = (bench.str("store"), bench.str("words"));
    let with = ["--passphrase-file", words, "-vv"];
    let lines: [&[&str]; 7] = [
        &["prepare", store, "--encrypt"],
        &[
            "key",
            "add",
            "--on",
            store,
            "--new-passphrase-file",
            bench.str("other"),
        ],
        &[
            "key",
            "add",
            "--on",
            store,
            "--new-key-file",
            bench.str("keyfile"),
        ],
        &["backup", "--root", bench.str("tree"), "--to", store],
        &[
            "extract",
            "latest",
            "--from",
            store,
            "--to",
            bench.str("out"),
        ],
        &["verify", "--from", store],
        &["verify", "--heal", "--from", store],
    ];
    let mut said = Vec::new();
    for line in lines {
        let run = bench.run(line.iter().copied().chain(with)).expect(0);
        said.push((line.join(" "), [run.stdout, run.err.into_bytes()].concat()));
    }
    let wrong = bench.run([
        "list",
        "--from",
        store,
        "--passphrase-file",
        bench.str("tree/file"),
        "-vv",
    ]);
    said.push(("a wrong passphrase".into(), wrong.err.into_bytes()));
    // The host keeps keys, on purpose, in a directory of its own.
    let mut keys = Vec::new();
    files_below(&bench.path("keys"), &mut keys);
    assert!(!keys.is_empty());
    files_below(&bench.path("state"), &mut said);
    let seen = fs::read(seen).unwrap();
    // It did look.
    assert!(String::from_utf8_lossy(&seen).contains("--passphrase-file"));
    said.push(("what a hook sees".into(), seen));
    assert!(said.iter().any(|(name, _)| name.ends_with("audit.log")));
    assert!(said.iter().any(|(name, _)| name.contains("/runs/")));
    let mut secrets: Vec<Vec<u8>> = [WORDS, OTHER].map(|s| s.as_bytes().to_vec()).into();
    for (_, key) in keys
        .iter()
        .chain([(String::new(), fs::read(bench.path("keyfile")).unwrap())].iter())
    {
        let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
        secrets.extend([key.clone(), hex.into_bytes()]);
    }
    for secret in &secrets {
        let secret = secret.trim_ascii();
        assert!(secret.len() >= 16);
        for (name, text) in &said {
            let found = text.windows(secret.len()).any(|w| w == secret);
            assert!(!found, "a secret is in: {name}");
        }
    }
}
