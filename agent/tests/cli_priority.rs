//! A backup lowers its priority, for the processor and for disks, and runs as well where that is forbidden.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use common::{Bench, EQUAL, Run};

/// `/proc/self/stat`, field 19: the nice value.
fn own_nice() -> i32 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    after_name.split(' ').nth(16).unwrap().parse().unwrap()
}

/// A small tree, a store, and a hook that notes the priorities it has from the command.
fn bench() -> Bench {
    let bench = Bench::with_store();
    let config = bench.path("lifeboat.toml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(config, settings.replace(EQUAL, "")).unwrap();
    fs::create_dir(bench.path("tree")).unwrap();
    fs::write(bench.path("tree/file"), "text").unwrap();
    let hooks = bench.path("hooks");
    fs::create_dir(&hooks).unwrap();
    let script = format!(
        "#!/bin/sh\n{{ cut -d' ' -f19 /proc/$$/stat; ionice -p $$; }} >{}\n",
        bench.str("seen")
    );
    let hook = hooks.join("pre-backup");
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    bench
}

/// The command's priorities, started with others through a shell. `lifeboat` is `"$@"`.
fn seen(bench: &Bench, how: &str, options: &[&str]) -> (i32, String) {
    let mut command = assert_cmd::Command::new("sh");
    command
        .args(["-c", how, "sh", env!("CARGO_BIN_EXE_lifeboat"), "--config"])
        .arg(bench.path("lifeboat.toml"))
        .args(["backup", "--root", bench.str("tree"), "--to"])
        .arg(bench.path("store"))
        .args(options);
    let run = Run::from(command.output().unwrap()).expect(0);
    assert!(
        run.err.is_empty() || !run.err.contains("warning"),
        "{}",
        run.err
    );
    let seen = fs::read_to_string(bench.path("seen")).unwrap();
    let (nice, io) = seen.split_once('\n').unwrap();
    (nice.parse().unwrap(), io.trim().to_owned())
}

#[test]
fn priorities_are_those_of_the_configuration_and_of_the_options() {
    let bench = bench();
    // Whoever runs the tests may be gentle already.
    let own = own_nice();
    let plain = "exec ionice -c 0 \"$@\"";
    let expected = (own.max(10), "best-effort: prio 7".to_owned());
    assert_eq!(seen(&bench, plain, &[]), expected);
    bench.configure("nice = 12\nionice = \"idle\"\n");
    assert_eq!(seen(&bench, plain, &[]), (own.max(12), "idle".to_owned()));
    let options = ["--nice", "17", "--ionice", "best-effort:5"];
    let expected = (own.max(17), "best-effort: prio 5".to_owned());
    assert_eq!(seen(&bench, plain, &options), expected);
    // As it was started.
    let options = ["--nice", "0", "--ionice", "none"];
    let expected = (own, "best-effort: prio 2".to_owned());
    let started = "exec ionice -c 2 -n 2 \"$@\"";
    assert_eq!(seen(&bench, started, &options), expected);
}

#[test]
fn what_was_started_gentler_stays_so() {
    let bench = bench();
    let own = own_nice();
    let started = "exec nice -n 15 ionice -c 3 \"$@\"";
    let expected = ((own + 15).min(19), "idle".to_owned());
    assert_eq!(seen(&bench, started, &[]), expected);
}

/// Lets the calls that set priorities fail with EPERM in this process, as a container may.
fn forbid() -> std::io::Result<()> {
    // The codes of linux/bpf_common.h: load a word, jump if equal, return; the number of the call comes first in
    // linux/seccomp.h's `struct seccomp_data`.
    let step = |code: u32, jt, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    let (load, equal, ret) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let mut filter = [
        step(load, 0, 0),
        step(equal, 2, libc::SYS_setpriority as u32),
        step(equal, 1, libc::SYS_ioprio_set as u32),
        step(ret, 0, libc::SECCOMP_RET_ALLOW),
        step(ret, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: `program` and what it points to live until the calls return; the kernel copies them.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    if done {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[test]
fn where_it_is_forbidden_the_backup_is_made_all_the_same() {
    let bench = bench();
    if own_nice() >= 10 {
        println!("ignored: the tests run with nice 10 or more, nothing would be set");
        return;
    }
    // The filter has to be set in the process between fork and exec: assert_cmd has no door for that.
    #[allow(clippy::disallowed_methods)]
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command
        .arg("--config")
        .arg(bench.path("lifeboat.toml"))
        .args(["backup", "--json", "--root", bench.str("tree"), "--to"])
        .arg(bench.path("store"));
    // SAFETY: only system calls are made in the new process.
    unsafe { command.pre_exec(forbid) };
    let run = match command.output() {
        Ok(output) => Run::from(output).expect(0),
        Err(error) => {
            println!("ignored: no seccomp filter can be set here: {error}");
            return;
        }
    };
    for what in ["nice 10", "best-effort:7", "not permitted"] {
        assert!(run.err.contains(what), "{}", run.err);
    }
    let report = run.json();
    assert_eq!(report["notes"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["targets"][0]["verified"], true);
}
