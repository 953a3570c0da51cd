//! A timer out of the configuration fires when the clock comes to its time; a run that was missed while the machine was off
//! is caught up at the next boot, once. The verdict is read from the target's image, with the machine off.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::{Golden, Host, cache_dir};
use crate::installed;
use crate::process::{Cmd, run as run_command};
use crate::product::Product;
use crate::qemu::{Bus, Drive, Firmware, Running};
use crate::runner::Scenario;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "timer",
        "`schedule apply` makes a timer; it fires at its time, and what was missed while off is caught up at boot",
        super::needs_package,
        move |log| run(&artefacts, log),
    )
    .long()
}

const MINUTE: Duration = Duration::from_secs(60);

/// Packages of Debian that every host on hardware has, and the golden hosts lack: systemd-logind answers through dbus.
const DBUS: [&str; 6] = [
    "dbus",
    "dbus-bin",
    "dbus-daemon",
    "dbus-session-bus-common",
    "dbus-system-bus-common",
    "libdbus-1-3",
];

/// A target on a drive of its own, and one that is somewhere else. A directory is enough: what is shown here is when, not
/// what.
const CONFIG: &str = r#"targets = ["/mnt/backup/store", "/dev/disk/by-id/usb-In_The_Drawer-0:0"]
[schedule]
host = "daily 02:00"
verify = "monthly 20 04:00"
window = "01:00-12:00"
longest = "2h""#;

/// Whether the machine may be switched off while it is backed up is asked by a hook, as that runs meanwhile.
const SET_UP: &str = r#"set -e
systemctl restart systemd-logind
mkdir -p /mnt/backup /etc/lifeboat/hooks.d/pre-snapshot
echo 'LABEL=data /mnt/backup ext4 defaults 0 2' >>/etc/fstab
mount /mnt/backup
cat >/etc/lifeboat/hooks.d/pre-snapshot/inhibitors <<'EOF'
#!/bin/sh
systemd-inhibit --list --no-legend --no-pager >>/root/inhibitors
EOF
chmod 755 /etc/lifeboat/hooks.d/pre-snapshot/inhibitors
lifeboat prepare /mnt/backup/store
lifeboat schedule apply
lifeboat schedule apply | grep -q 'as configured'
systemctl is-active lifeboat-backup.timer lifeboat-verify.timer
! systemctl is-enabled lifeboat-guests-backup.timer"#;

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let golden = Golden::get(Host::PveExt4, &cache_dir(), artefacts)?;
    let product = Product::find().map_err(anyhow::Error::msg)?;
    let (drive, share) = (log.path("drive.raw"), log.path("share"));
    disk::data_disk(&drive, GIB, log)?;
    installed::share(&share, &DBUS, log)?;
    let machine = golden
        .machine("host", Firmware::Bios, log)?
        .share(&share)
        .drive(Drive::new(&drive, Bus::Virtio, "DRIVE"));

    let mut host = machine.clone().clock("2026-12-01T12:00:00").start(log)?;
    host.channel.ready(4 * MINUTE)?;
    installed::install(&mut host, CONFIG)?;
    host.channel.run(SET_UP, 2 * MINUTE)?;
    let said = host
        .channel
        .run("systemctl show lifeboat-backup.timer", MINUTE)?;
    fs::write(log.path("timer"), said)?;
    let shown = host.channel.run("lifeboat schedule show --json", MINUTE)?;
    let shown: Value = serde_json::from_slice(&shown)?;
    ensure!(
        shown[0]["next"] == "2026-12-02T02:00:00Z" && shown[0]["active"] == true,
        "the next run is not shown: {shown}"
    );
    let status = text(&mut host, "lifeboat status --json || true")?;
    ensure!(
        status.contains("2026-12-02T02:00:00Z"),
        "the next run is not part of the status: {status}"
    );
    ensure!(
        count(&mut host)? == 0,
        "there is a restore point before the timer's time"
    );
    log.note("the timers are there; now the clock comes to their time");
    host.channel
        .run("date -s '2026-12-02 01:59:45 UTC'", MINUTE)?;
    wait_for(&mut host, 1)?;
    log.note("the timer has fired");
    no_switching_off(&mut host)?;
    layout_drifts(&mut host, log)?;
    // Moved once more, but not to a time of its own: no second run.
    host.channel
        .run("date -s '2026-12-02 20:00:00 UTC'; sleep 20", MINUTE)?;
    ensure!(count(&mut host)? == 1, "it ran outside of its time");
    host.shut_down()?;

    // Two nights go by. One run makes up for both.
    let mut host = machine
        .named("later")
        .clock("2026-12-04T09:00:00")
        .start(log)?;
    host.channel.ready(4 * MINUTE)?;
    wait_for(&mut host, 2)?;
    log.note("the run that was missed is caught up");
    stops_when_the_window_ends(&mut host, log)?;
    let audit = host
        .channel
        .run("lifeboat audit show && lifeboat audit verify", MINUTE)?;
    fs::write(log.path("audit"), &audit)?;
    let audit = String::from_utf8_lossy(&audit).into_owned();
    ensure!(
        audit.matches("trigger timer").count() == 3 && audit.contains("as they were written"),
        "the audit log does not say what the timers did:\n{audit}"
    );
    // Without a schedule, somebody is still told that backups are overdue, unless that is off, too.
    let nothing = "rm /etc/lifeboat/lifeboat.toml && lifeboat schedule apply && \
        ls /etc/systemd/system/lifeboat-check.timer && ! ls /etc/systemd/system/lifeboat-backup* && \
        printf '[schedule]\\ncheck = \"\"\\n' >/etc/lifeboat/lifeboat.toml && lifeboat schedule apply && \
        ! ls /etc/systemd/system/lifeboat-*";
    host.channel.run(nothing, MINUTE)?;
    host.shut_down()?;
    judge(&product, &drive, log)
}

/// While it was backed up, and no longer, the machine was kept from being switched off.
fn no_switching_off(host: &mut Running) -> Result<()> {
    let meanwhile = text(host, "cat /root/inhibitors")?;
    ensure!(
        meanwhile.lines().any(|line| line.starts_with("Lifeboat ")
            && line.contains("shutdown:sleep")
            && line.contains("a backup is being written")),
        "nothing kept the machine from being switched off:\n{meanwhile}"
    );
    let now = text(host, "systemd-inhibit --list --no-legend --no-pager")?;
    ensure!(
        !now.contains("Lifeboat"),
        "something still keeps the machine from being switched off:\n{now}"
    );
    Ok(())
}

/// The layout is that of the restore point, until a volume is made.
fn layout_drifts(host: &mut Running, log: &Artefacts) -> Result<()> {
    let check = |host: &mut Running| {
        let script = "lifeboat check-layout; echo \"exit $?\"";
        text(host, script)
    };
    let same = check(host)?;
    ensure!(
        same.ends_with("exit 0"),
        "the layout has not changed:\n{same}"
    );
    text(host, "lvcreate -V 64M -T pve/data -n drift")?;
    let drifted = check(host)?;
    log.note(&drifted);
    ensure!(
        drifted.ends_with("exit 1") && drifted.contains("pve/drift"),
        "there is a volume more:\n{drifted}"
    );
    text(host, "lvremove -f pve/drift")?;
    let same = check(host)?;
    ensure!(
        same.ends_with("exit 0"),
        "the volume is gone again:\n{same}"
    );
    Ok(())
}

/// A run that has begun stops when its window ends, and what is there stays as it was.
fn stops_when_the_window_ends(host: &mut Running, log: &Artefacts) -> Result<()> {
    let points = count(host)?;
    // Longer to read than what is left of the window.
    let script = "head -c 600M /dev/urandom >/srv/much; sync; date -s '2026-12-04 11:59:50 UTC'
        systemctl start lifeboat-backup.service
        cat \"$(ls /var/lib/lifeboat/runs/*.json | tail -n 1)\"; date";
    let said = host.channel.run(script, 5 * MINUTE)?;
    fs::write(log.path("stopped"), &said)?;
    let said = String::from_utf8_lossy(&said);
    ensure!(
        said.contains("stopped at the end of the window of scheduled runs, 01:00-12:00"),
        "it did not stop at the end of its window:\n{said}"
    );
    ensure!(count(host)? == points, "half a restore point is there");
    log.note("a run is stopped at the end of the window");
    Ok(())
}

fn text(host: &mut Running, script: &str) -> Result<String> {
    let output = host.channel.run(script, 2 * MINUTE)?;
    Ok(String::from_utf8_lossy(&output).trim().to_owned())
}

fn count(host: &mut Running) -> Result<usize> {
    let script = "ls /mnt/backup/store/lifeboat/snapshots | grep -c json$ || true";
    let text = text(host, script)?;
    text.parse()
        .with_context(|| format!("\"{text}\" is no number"))
}

/// Waits until there are so many restore points, and until the run that made the last one is over.
fn wait_for(host: &mut Running, wanted: usize) -> Result<()> {
    let deadline = Instant::now() + 5 * MINUTE;
    loop {
        let state = host.channel.run(
            "systemctl show -P ActiveState lifeboat-backup.service",
            MINUTE,
        )?;
        let state = String::from_utf8_lossy(&state).trim().to_owned();
        if state == "failed" || Instant::now() > deadline {
            let said = host.channel.run(
                "date; systemctl list-timers --all; journalctl --no-pager -u 'lifeboat-*' | tail -50",
                MINUTE,
            )?;
            bail!(
                "restore point {wanted} was not made; the service is {state}:\n{}",
                String::from_utf8_lossy(&said)
            );
        }
        if state == "inactive" && count(host)? >= wanted {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// What is on the drive, and what the host's history says of it.
fn judge(product: &Product, drive: &Path, log: &Artefacts) -> Result<()> {
    // The history of the machine at hand is none of this.
    let config = log.path("lifeboat.toml");
    fs::write(&config, format!("state = {:?}\n", log.path("state")))?;
    let mount = tempfile::tempdir()?;
    let cmd = Cmd::new("mount").args(["-t", "ext4", "-o", "loop"]);
    run_command(&cmd.arg(drive).arg(mount.path()), log, MINUTE)?;
    let result = judge_store(product, &mount.path().join("store"), &config, log);
    run_command(&Cmd::new("umount").arg(mount.path()), log, MINUTE)?;
    result
}

fn judge_store(product: &Product, store: &Path, config: &Path, log: &Artefacts) -> Result<()> {
    let lifeboat = |command: &str| {
        let cmd = Cmd::new(product.lifeboat())
            .args([command, "--json", "--config"])
            .arg(config)
            .arg("--from")
            .arg(store);
        let said = run_command(&cmd, log, 5 * MINUTE)?;
        serde_json::from_slice::<Value>(&said).context("not JSON")
    };
    let listing = lifeboat("list")?;
    let times: Vec<&str> = listing["targets"][0]["snapshots"]
        .as_array()
        .context("no list of restore points")?
        .iter()
        .filter_map(|s| s["time"].as_str())
        .collect();
    ensure!(
        times.len() == 2
            && times[0].starts_with("2026-12-02T02:0")
            && times[1].starts_with("2026-12-04T09:"),
        "the restore points are of other times: {times:?}"
    );
    let verdict = lifeboat("verify")?;
    ensure!(verdict[0]["ok"] == true, "the store is damaged: {verdict}");
    Ok(())
}
