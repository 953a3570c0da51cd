//! What the scenarios with sticks that are plugged in share: sticks made on this machine, the host, and what it did.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::artefacts::Artefacts;
use crate::golden::{Golden, Host, cache_dir};
use crate::installed;
use crate::process::run;
use crate::product::Product;
use crate::qemu::{Firmware, Running, Stick};

const MINUTE: Duration = Duration::from_secs(60);

/// Sticks, and programs of this machine that make and read them.
pub struct Bench<'a> {
    product: Product,
    log: &'a Artefacts,
}

impl<'a> Bench<'a> {
    /// With the product's programs.
    pub fn new(log: &'a Artefacts) -> Result<Self> {
        let product = Product::find().map_err(anyhow::Error::msg)?;
        Ok(Self { product, log })
    }

    /// Runs `lifeboat` on this machine.
    pub fn lifeboat(&self, args: &[&str], on: &Path) -> Result<Vec<u8>> {
        let cmd = self.product.command(self.log)?.args(args.iter().copied());
        run(&cmd.arg(on), self.log, 10 * MINUTE)
    }

    /// Makes a stick. Its rescue system has the kernel of the golden hosts.
    pub fn stick(&self, serial: &str) -> Result<Stick> {
        let image = self.log.path(&format!("{serial}.raw"));
        let kernel = kernel_package()?;
        let kernel = kernel.to_string_lossy();
        self.lifeboat(
            &[
                "prepare",
                "--size",
                "4G",
                "--modules",
                "slim",
                "--kernel-package",
                &kernel,
            ],
            &image,
        )?;
        Ok(Stick::new(image, serial))
    }

    /// Its restore points, out of `lifeboat list`.
    pub fn restore_points(&self, image: &Path) -> Result<Vec<Value>> {
        let json = self.lifeboat(&["--json", "list", "--from"], image)?;
        let list: Value = serde_json::from_slice(&json)?;
        let all = list["targets"][0]["snapshots"].as_array();
        all.cloned().context("no list of restore points")
    }

    /// Reads all of its store.
    pub fn verify(&self, image: &Path) -> Result<()> {
        self.lifeboat(&["verify", "--from"], image)?;
        Ok(())
    }

    /// A golden host with the product, up and running.
    pub fn host(&self, config: &str) -> Result<Plugged> {
        let golden = Golden::get(Host::PveExt4, &cache_dir(), self.log.dir())?;
        let share = self.log.path("share");
        installed::share(&share, &[], self.log)?;
        let mut host = golden
            .machine("host", Firmware::Bios, self.log)?
            .memory(2048)
            .share(&share)
            .start(self.log)?;
        host.channel.ready(Duration::from_secs(600))?;
        // What is there before this is there when the machine starts.
        host.channel
            .run("systemctl is-system-running --wait || true", 4 * MINUTE)?;
        self.log.note("the host is up");
        installed::install(&mut host, config)?;
        self.log.note("the product is installed");
        Ok(Plugged { host, ended: 0 })
    }
}

/// The kernel that golden hosts have, out of the packages that they are made of.
fn kernel_package() -> Result<PathBuf> {
    let debs = cache_dir().join("debs");
    let entries = fs::read_dir(&debs).with_context(|| {
        format!(
            "no packages in {}: remove the cache, so that they are downloaded again",
            debs.display()
        )
    })?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy();
            let version = name.strip_prefix("linux-image-");
            version.is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
                && name.ends_with("_amd64.deb")
        })
        .collect();
    found.sort();
    found
        .pop()
        .with_context(|| format!("no kernel package in {}", debs.display()))
}

/// A host that sticks are plugged into.
pub struct Plugged {
    /// The machine.
    pub host: Running,
    /// How many of the units that sticks start have ended.
    ended: u64,
}

/// Counts the units that have ended, by what systemd says of them.
const ENDED: &str =
    "journalctl -b -o cat -t systemd | grep -cE '^(Finished|Failed to start) lifeboat-plug@'";

impl Plugged {
    /// A script's output in the host.
    pub fn text(&mut self, script: &str) -> Result<String> {
        let output = self.host.channel.run(script, 2 * MINUTE)?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }

    /// Waits until this many more sticks have been dealt with.
    pub fn wait_ended(&mut self, more: u64, seconds: u64) -> Result<()> {
        self.ended += more;
        let script = format!(
            "for n in $(seq {seconds}); do
                [ \"$({ENDED})\" -ge {} ] && exit 0
                sleep 1
            done
            systemctl list-units --all 'lifeboat-plug@*' 'dev-sd*'
            journalctl -b -o cat | tail -n 40
            exit 1",
            self.ended
        );
        self.host
            .channel
            .run(&script, Duration::from_secs(3 * seconds + 60))
            .context("the stick was not dealt with in time")?;
        Ok(())
    }

    /// Waits until no unit of a stick runs any more, however many did.
    pub fn settle(&mut self, seconds: u64) -> Result<()> {
        let script = format!(
            "udevadm settle; sleep 1
            for n in $(seq {seconds}); do
                systemctl list-units --all --no-legend --state=activating,deactivating 'lifeboat-plug@*' | grep -q . || break
                sleep 1
            done
            [ $n -lt {seconds} ] || {{ journalctl -b -o cat | tail -n 40; exit 1; }}
            {ENDED} || true"
        );
        let output = self
            .host
            .channel
            .run(&script, Duration::from_secs(3 * seconds + 60))
            .context("the stick that was pulled was not dealt with in time")?;
        let text = String::from_utf8_lossy(&output);
        let count = text.lines().last().unwrap_or_default().trim();
        self.ended = count.parse().with_context(|| format!("no count: {text}"))?;
        Ok(())
    }

    /// What the units said since the last call.
    pub fn said(&mut self) -> Result<String> {
        // A cursor per unit name would not do: sticks come back under the same name.
        self.text(
            "journalctl -b -o cat -u 'lifeboat-plug@*' --cursor-file=/run/plug-cursor || true",
        )
    }

    /// Plugs a stick in, waits until it was dealt with, and gives what was said.
    pub fn plug(&mut self, stick: &Stick, seconds: u64) -> Result<String> {
        self.host.plug(stick)?;
        self.wait_ended(1, seconds)?;
        self.said()
    }

    /// Makes a stick that is plugged in one of the host's.
    pub fn adopt(&mut self, stick: &Stick) -> Result<()> {
        self.text(&format!("lifeboat plug --adopt {}", by_id(stick)))?;
        Ok(())
    }

    /// How many disks with this serial number there are.
    pub fn disks_of(&mut self, stick: &Stick) -> Result<usize> {
        let serials = self.text("lsblk -dno SERIAL")?;
        Ok(serials.lines().filter(|s| s.trim() == stick.serial).count())
    }

    /// What the host's history says, the oldest first.
    pub fn runs(&mut self) -> Result<Vec<Value>> {
        let text = self.text("cat /var/lib/lifeboat/runs/*.json 2>/dev/null || true")?;
        let runs = serde_json::Deserializer::from_str(&text).into_iter();
        Ok(runs.collect::<Result<_, _>>()?)
    }

    /// That nothing of ours is mounted.
    pub fn ensure_unmounted(&mut self) -> Result<()> {
        let mounts = self.text("grep /run/lifeboat /proc/mounts || true")?;
        ensure!(mounts.is_empty(), "left mounted:\n{mounts}");
        Ok(())
    }
}

/// The name that udev gives QEMU's stick.
pub fn by_id(stick: &Stick) -> String {
    format!(
        "/dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_{}-0:0",
        stick.serial
    )
}

/// That a text says something.
pub fn ensure_says(text: &str, wanted: &str) -> Result<()> {
    ensure!(text.contains(wanted), "it does not say {wanted:?}:\n{text}");
    Ok(())
}
