//! A host that goes on writing while `lifeboat backup` saves it: what is in the restore point is of one moment, and the
//! snapshots that this took are gone afterwards, also when the program or the machine is stopped in the middle.
//!
//! The host is a root directory on LVM with the programs of the machine outside, in which the command runs by chroot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use layout::system::{Cmd, Host, System};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::{power_off, settle, text, tool};

/// The root directory of the host.
const HOST: &str = "/run/host";
/// Where its restore points go: a disk of its own, which is not saved.
const STORE: &str = "/mnt/store";
/// Its file systems besides `/`, and how each is read when it may have a snapshot.
const TREES: [(&str, &str); 4] = [
    ("/home", "btrfs-snapshot"),
    ("/opt", "lvm-thin-snapshot"),
    ("/srv", "lvm-snapshot"),
    ("/var", "lvm-snapshot"),
];
/// The files that a transaction writes to, in this order.
const LOGS: [&str; 3] = ["log/1/a", "log/5/m", "log/9/z"];
/// What only looks like a snapshot of a backup: the name without the tag, and the tag without the name.
const DECOYS: [&str; 2] = ["lifeboat-snap-mine", "daily"];

/// The first machine: from the making of the host to a power cut in the middle of a backup.
pub fn first() -> Result<()> {
    make_disks()?;
    start_host()?;
    for (dir, _) in TREES {
        fill(&in_host(dir))?;
    }
    lifeboat(&["prepare", STORE], &[])?;
    differs_when_read_live()?;
    is_of_one_moment()?;
    what_did_not_change_is_not_read()?;
    a_full_snapshot_is_not_relied_on()?;
    after_a_kill()?;
    // In the middle of the next one.
    let running = start_backup()?;
    println!("floor: the power is cut while there are {:?}", ours()?);
    nix::unistd::sync();
    power_off();
    drop(running);
    bail!("the machine went on")
}

/// The second machine, on the disks of the first one.
pub fn second() -> Result<()> {
    tool(&["vgchange", "-ay", "vg"])?;
    settle()?;
    start_host()?;
    let left = ours()?;
    println!("floor: left by the power cut: {left:?}");
    ensure!(left.len() >= 4, "the power cut left {left:?} only");
    origins_are_found_by_uuid()?;
    let report = backup(&["--snapshots", "always"])?;
    ensure!(notes(&report).contains("which an earlier run has left"));
    no_snapshots_but_decoys()?;
    states_are(&report, true)
}

fn make_disks() -> Result<()> {
    for argv in [
        "sgdisk -o -n 1:1M:+1200M -t 1:8e00 -n 2:0:0 -t 2:8300 /dev/ubda",
        "udevadm settle --timeout=30",
        "pvcreate -q /dev/ubda1",
        "vgcreate -q vg /dev/ubda1",
        "lvcreate -q -y -L 128M -n root vg",
        "lvcreate -q -y -L 160M -n var vg",
        "lvcreate -q -y -L 320M -n srv vg",
        "lvcreate -q -y --type thin-pool -L 200M -n pool vg",
        "lvcreate -q -y -V 160M --thinpool pool -n opt vg",
        "mke2fs -q -t ext4 /dev/vg/root",
        "mke2fs -q -t ext4 /dev/vg/var",
        "mkfs.xfs -q /dev/vg/srv",
        "mke2fs -q -t ext4 /dev/vg/opt",
        "mkfs.btrfs -q /dev/ubda2",
        "mke2fs -q -t ext4 /dev/ubdb",
    ] {
        tool(&argv.split(' ').collect::<Vec<_>>())?;
    }
    settle()?;
    mount_on("/dev/ubda2", "/run/look", "btrfs", "")?;
    tool(&["btrfs", "subvolume", "create", "/run/look/@home"])?;
    tool(&["umount", "/run/look"])?;
    fs::create_dir_all(HOST)?;
    mount_on("/dev/vg/root", HOST, "ext4", "")?;
    for dir in [
        "dev",
        "etc/lifeboat/hooks.d",
        "etc/lvm",
        "home",
        "mnt/store",
        "opt",
        "proc",
        "run",
        "srv",
        "sys",
        "tmp",
        "usr",
        "var",
    ] {
        fs::create_dir_all(in_host(dir))?;
    }
    for dir in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{dir}"), in_host(dir))?;
    }
    fs::copy("/etc/lvm/lvm.conf", in_host("etc/lvm/lvm.conf"))?;
    for file in ["etc/ld.so.cache", "etc/passwd", "etc/group"] {
        fs::copy(Path::new("/").join(file), in_host(file))?;
    }
    fs::write(
        in_host("etc/machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )?;
    let program = std::env::var("FLOOR_LIFEBOAT").context("FLOOR_LIFEBOAT")?;
    fs::copy(program, in_host("lifeboat"))?;
    hook("pre-snapshot", "echo before >/var/before")?;
    hook("post-snapshot", "echo after >/var/after")?;
    tool(&["umount", HOST])?;
    Ok(())
}

fn hook(name: &str, script: &str) -> Result<()> {
    let path = in_host("etc/lifeboat/hooks.d").join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Mounts all that the host has.
fn start_host() -> Result<()> {
    fs::create_dir_all(HOST)?;
    mount_on("/dev/vg/root", HOST, "ext4", "")?;
    for (device, dir, fstype, options) in [
        ("/dev/vg/var", "/var", "ext4", ""),
        ("/dev/vg/srv", "/srv", "xfs", ""),
        ("/dev/vg/opt", "/opt", "ext4", ""),
        ("/dev/ubda2", "/home", "btrfs", "subvol=@home"),
        ("/dev/ubdb", STORE, "ext4", ""),
        ("tmpfs", "/tmp", "tmpfs", ""),
    ] {
        mount_on(device, &in_host(dir).to_string_lossy(), fstype, options)?;
    }
    for dir in ["/usr", "/proc", "/sys", "/dev", "/run"] {
        let none = None::<&str>;
        mount(Some(dir), &in_host(dir), none, MsFlags::MS_BIND, none)
            .with_context(|| format!("bind {dir}"))?;
    }
    Ok(())
}

fn mount_on(device: &str, at: &str, fstype: &str, options: &str) -> Result<()> {
    mount(
        Some(device),
        at,
        Some(fstype),
        MsFlags::empty(),
        Some(options),
    )
    .with_context(|| format!("mount {device} on {at}"))
}

fn in_host(path: &str) -> PathBuf {
    Path::new(HOST).join(path.trim_start_matches('/'))
}

/// Files between those of the log, so that it takes time to come from one to the other.
fn fill(dir: &Path) -> Result<()> {
    for (place, count) in [("log/3", 4), ("log/7", 4)] {
        fs::create_dir_all(dir.join(place))?;
        for n in 0..count {
            let name = dir.join(place).join(format!("f{n}"));
            let line = format!("{} {n}\n", name.display());
            fs::write(name, line.repeat((1 << 20) / line.len()))?;
        }
    }
    Ok(())
}

/// A program that writes transactions to all trees until it is dropped.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Writer {
    fn start() -> Result<Writer> {
        let mut logs = Vec::new();
        for (dir, _) in TREES {
            for log in LOGS {
                let path = in_host(dir).join(log);
                fs::create_dir_all(path.parent().context("a directory")?)?;
                logs.push(File::create(path)?);
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut n = 0;
            while !stopped.load(Ordering::Relaxed) {
                n += 1;
                for log in &mut logs {
                    log.write_all(format!("{n}\n").as_bytes())?;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(n)
        });
        let thread = Some(thread);
        let writer = Writer { stop, thread };
        std::thread::sleep(Duration::from_millis(300));
        Ok(writer)
    }

    fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(count)) => count,
            _ => bail!("the writer panicked"),
        }
    }
}

/// What is wrong with the log below a directory; nothing: every transaction is in all files, but for the last one, which
/// may be in the first of them only.
fn broken(dir: &Path) -> Result<Option<String>> {
    let mut ends = Vec::new();
    for log in LOGS {
        let text = fs::read_to_string(dir.join(log)).with_context(|| dir.display().to_string())?;
        let lines: Vec<u64> = text.lines().map(|l| l.parse().unwrap_or(0)).collect();
        let whole = text.ends_with('\n') && lines.iter().zip(1..).all(|(line, n)| *line == n);
        if !whole {
            return Ok(Some(format!("{log} is cut in the middle of a transaction")));
        }
        ends.push(lines.len());
    }
    let falls = ends.windows(2).all(|pair| pair[0] >= pair[1]);
    let near = ends[0] - ends[2].min(ends[0]) <= 1;
    println!(
        "floor: {}: the files of the log end with {ends:?}",
        dir.display()
    );
    Ok((!falls || !near).then(|| format!("its files end with {ends:?}")))
}

/// Runs the command in the host.
fn lifeboat(args: &[&str], accept: &[i32]) -> Result<String> {
    println!("floor:   $ lifeboat {}", args.join(" "));
    let mut command = Cmd::new("/lifeboat")
        .args(args.iter().copied())
        .in_root(HOST)
        .timeout(Duration::from_secs(250));
    for status in accept {
        command = command.accept(*status);
    }
    let start = Instant::now();
    let output = Host.run(&command)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for line in said.lines().filter(|l| l.starts_with("warning")) {
        println!("floor:   {line}");
    }
    println!(
        "floor:   status {} after {} s",
        output.status,
        start.elapsed().as_secs()
    );
    Ok(output.text())
}

const BACKUP: [&str; 8] = [
    "backup",
    "--to",
    STORE,
    "--json",
    "--exclude",
    "/lifeboat",
    "--exclude",
    "/var/big",
];

/// Makes a backup and returns its report.
fn backup(args: &[&str]) -> Result<Value> {
    let report = lifeboat(&[&BACKUP[..], args].concat(), &[3])?;
    let report: Value = serde_json::from_str(&report).context("the report")?;
    let verified = &report["targets"][0]["verified"];
    ensure!(*verified == Value::Bool(true), "verified: {verified}");
    Ok(report)
}

fn states(report: &Value) -> BTreeMap<String, (String, String)> {
    let states = report["consistency"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |state: &Value, name: &str| state[name].as_str().unwrap_or_default().to_owned();
    let pairs = states
        .iter()
        .map(|s| (text(s, "mount_point"), (text(s, "read"), text(s, "why"))));
    pairs.collect()
}

fn states_are(report: &Value, snapshots: bool) -> Result<()> {
    let states = states(report);
    println!("floor: {states:?}");
    for (dir, word) in TREES.iter().chain(&[("/", "lvm-snapshot")]) {
        let read = states.get(*dir).map(|(read, _)| read.as_str());
        let wanted = if snapshots { *word } else { "live" };
        ensure!(read == Some(wanted), "{dir} was read from {read:?}");
    }
    Ok(())
}

fn notes(report: &Value) -> String {
    report["notes"].to_string()
}

/// What the restore point has of the logs, by tree.
fn extracted() -> Result<BTreeMap<&'static str, Option<String>>> {
    let to = "/tmp/out";
    lifeboat(&["extract", "latest", "--from", STORE, "--to", to], &[3])?;
    let out = in_host(to);
    let found = TREES.iter().map(|(dir, _)| {
        let place = out.join(dir.trim_start_matches('/'));
        Ok((*dir, broken(&place)?))
    });
    let found = found.collect::<Result<_>>()?;
    ensure!(
        out.join("var/before").exists(),
        "the hook before was not in time"
    );
    fs::remove_dir_all(out)?;
    Ok(found)
}

fn differs_when_read_live() -> Result<()> {
    let writer = Writer::start()?;
    let report = backup(&["--snapshots", "never", "--io-limit", "4M"])?;
    println!("floor: {} transactions were written", writer.end()?);
    states_are(&report, false)?;
    let found = extracted()?;
    ensure!(
        found.values().all(Option::is_some),
        "read live, the logs were to be broken: {found:?}"
    );
    Ok(())
}

fn is_of_one_moment() -> Result<()> {
    fs::remove_file(in_host("/var/after"))?;
    let writer = Writer::start()?;
    let report = backup(&["--snapshots", "always", "--io-limit", "4M"])?;
    println!("floor: {} transactions were written", writer.end()?);
    states_are(&report, true)?;
    let changed = &report["summary"]["changed"];
    ensure!(
        changed.as_u64() == Some(0),
        "{changed} files changed while they were read"
    );
    let found = extracted()?;
    ensure!(
        found.values().all(Option::is_none),
        "from snapshots: {found:?}"
    );
    ensure!(in_host("/var/after").exists(), "the hook after did not run");
    let listed = lifeboat(&["ls", "latest", "/var", "--from", STORE], &[])?;
    ensure!(
        !listed.contains("after"),
        "the hook after ran too early: {listed}"
    );
    let shown = lifeboat(&["show", "latest", "--from", STORE], &[])?;
    ensure!(shown.contains("LVM thin snapshot"), "{shown}");
    no_snapshots()
}

/// Also where one is read from a snapshot and the other is not.
fn what_did_not_change_is_not_read() -> Result<()> {
    for how in ["always", "always", "never"] {
        // A change in the second before a backup is not told from one in it.
        std::thread::sleep(Duration::from_secs(3));
        let report = backup(&["--snapshots", how])?;
        let (read, spared) = (&report["bytes_read"], &report["bytes_referenced"]);
        println!("floor: {how}: {read} bytes were read, {spared} were not");
        ensure!(
            spared.as_u64() > Some(30 << 20),
            "{spared} bytes were spared"
        );
        ensure!(read.as_u64() < Some(2 << 20), "{read} bytes were read");
    }
    no_snapshots()
}

/// A volume of which more is overwritten than its snapshot can keep; a pool and a btrfs that are too full already.
fn a_full_snapshot_is_not_relied_on() -> Result<()> {
    let config = "[consistency]\npool-limit = \"1%\"\n";
    fs::write(in_host("/etc/lifeboat/lifeboat.toml"), config)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let mut big = File::create(in_host("/var/big"))?;
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        let chunk = vec![7; 4 << 20];
        // Not before all of them are there and open: those of the three classic volumes.
        while !stopped.load(Ordering::Relaxed) && ours().is_ok_and(|ours| ours.len() < 3) {
            std::thread::sleep(Duration::from_millis(500));
        }
        std::thread::sleep(Duration::from_secs(4));
        while !stopped.load(Ordering::Relaxed) {
            big.seek(SeekFrom::Start(0))?;
            for _ in 0..15 {
                big.write_all(&chunk)?;
                big.sync_data()?;
            }
        }
        Ok(())
    });
    let report = backup(&["--reread", "--io-limit", "2M"]);
    stop.store(true, Ordering::Relaxed);
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    let report = report?;
    let states = states(&report);
    println!("floor: {states:?}");
    let of = |dir: &str| states.get(dir).cloned().unwrap_or_default();
    ensure!(
        of("/var").0 == "live" && of("/var").1.contains("ran full"),
        "{states:?}"
    );
    ensure!(
        of("/opt").0 == "live" && of("/opt").1.contains("thin pool"),
        "{states:?}"
    );
    ensure!(
        of("/home").0 == "live" && of("/home").1.contains("of the btrfs"),
        "{states:?}"
    );
    ensure!(of("/srv").0 == "lvm-snapshot", "{states:?}");
    ensure!(
        report["warnings"].to_string().contains("ran full"),
        "{}",
        report["warnings"]
    );
    fs::remove_file(in_host("/etc/lifeboat/lifeboat.toml"))?;
    fs::remove_file(in_host("/var/big"))?;
    // What is in it is what is there.
    lifeboat(
        &[
            "extract", "latest", "/var/log", "--from", STORE, "--to", "/tmp/out",
        ],
        &[],
    )?;
    tool(&[
        "diff",
        "-r",
        &in_host("/var/log").to_string_lossy(),
        "/run/host/tmp/out/var/log",
    ])?;
    fs::remove_dir_all(in_host("/tmp/out"))?;
    no_snapshots()
}

/// Starts a backup that takes long, and waits until its snapshots are there and it reads.
fn start_backup() -> Result<JoinHandle<()>> {
    let args = ["--snapshots", "always", "--reread", "--io-limit", "256K"];
    let command = Cmd::new("/lifeboat")
        .args(BACKUP)
        .args(args)
        .in_root(HOST)
        .timeout(Duration::from_secs(250));
    let backup = std::thread::spawn(move || {
        let _ = Host.run(&command);
    });
    let start = Instant::now();
    while ours()?.len() < 5 {
        ensure!(
            start.elapsed() < Duration::from_secs(120),
            "no snapshots were made"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(Duration::from_secs(2));
    Ok(backup)
}

fn after_a_kill() -> Result<()> {
    let running = start_backup()?;
    // Meanwhile the host is what it was, and another backup does without snapshots.
    let layout = lifeboat(&["layout", "--json"], &[])?;
    ensure!(!layout.contains("lifeboat-snap"), "{layout}");
    origins_are_found_by_uuid()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains("lifeboat"), "{mounts}");
    for entry in fs::read_dir("/proc")?.flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let pid = entry.file_name().to_string_lossy().parse::<i32>();
        if let (Ok(pid), "lifeboat") = (pid, comm.trim()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
    }
    running
        .join()
        .map_err(|_| anyhow::anyhow!("the backup's thread panicked"))?;
    let left = ours()?;
    println!("floor: left by the killed program: {left:?}");
    ensure!(left.len() == 5, "{left:?}");
    let [name, tag] = DECOYS;
    tool(&[
        "lvcreate", "-q", "-y", "-s", "-L", "16M", "-n", name, "vg/root",
    ])?;
    let tagged = ["--addtag", "lifeboat-snapshot", "-n", tag];
    tool(
        &[
            &["lvcreate", "-q", "-y", "-s", "-L", "16M"],
            &tagged[..],
            &["vg/root"],
        ]
        .concat(),
    )?;
    let report = backup(&["--snapshots", "always"])?;
    states_are(&report, true)?;
    ensure!(
        notes(&report).contains("which an earlier run has left"),
        "{}",
        notes(&report)
    );
    no_snapshots_but_decoys()
}

/// The snapshots that are there, of LVM and of btrfs.
fn ours() -> Result<Vec<String>> {
    let lvs = text(&["lvs", "--noheadings", "-o", "lv_name", "vg"])?;
    let home = in_host("/home");
    let list = text(&["btrfs", "subvolume", "list", &home.to_string_lossy()])?;
    let paths = list.lines().filter_map(|line| line.rsplit_once(" path "));
    let names = lvs
        .lines()
        .map(str::trim)
        .chain(paths.map(|(_, path)| path));
    let ours = names.filter(|name| name.contains("lifeboat-snap-") && !DECOYS.contains(name));
    Ok(ours.map(str::to_owned).collect())
}

fn no_snapshots() -> Result<()> {
    let left = ours()?;
    ensure!(left.is_empty(), "snapshots are left: {left:?}");
    Ok(())
}

fn no_snapshots_but_decoys() -> Result<()> {
    no_snapshots()?;
    let lvs = text(&["lvs", "--noheadings", "-o", "lv_name", "vg"])?;
    for decoy in DECOYS {
        ensure!(
            lvs.lines().any(|line| line.trim() == decoy),
            "{decoy} is gone: {lvs}"
        );
    }
    Ok(())
}

/// Whoever looks for a file system by its UUID finds the volume and not its snapshot.
fn origins_are_found_by_uuid() -> Result<()> {
    settle()?;
    for volume in ["root", "var", "srv", "opt"] {
        let device = format!("/dev/vg/{volume}");
        let uuid = text(&["blkid", "-p", "-s", "UUID", "-o", "value", &device])?;
        let link = Path::new("/dev/disk/by-uuid").join(uuid.trim());
        let (found, wanted) = (fs::canonicalize(&link)?, fs::canonicalize(&device)?);
        ensure!(
            found == wanted,
            "{} leads to {}",
            link.display(),
            found.display()
        );
    }
    Ok(())
}
