//! Builds and runs a QEMU machine: no KVM, no default devices, the disks a test asks for.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::artefacts::Artefacts;
use crate::channel::{Channel, PORT_NAME};
use crate::process::{self, Cmd};
use crate::qmp::Qmp;
use crate::serial::Serial;

mod hotplug;
mod nic;

pub use hotplug::Stick;
pub use nic::Nic;

/// What starts the boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF without Secure Boot, with fresh variables.
    Uefi,
}

impl Firmware {
    /// In file names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

/// Directory of Debian's `ovmf` package.
const OVMF: &str = "/usr/share/OVMF";

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk: `/dev/vdX`.
    Virtio,
    /// AHCI: `/dev/sdX`.
    Sata,
    /// NVMe: `/dev/nvmeXn1`.
    Nvme,
    /// A stick: usb-storage on xHCI, removable.
    Usb,
}

/// A disk of a machine. Machines boot from the first one that boots.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Image file; `.qcow2` is qcow2, all others are raw.
    pub image: PathBuf,
    /// How it is attached.
    pub bus: Bus,
    /// Serial number; also names it in messages. At most 20 characters.
    pub serial: String,
    /// Logical sector in bytes: 512 or 4096 (virtio and NVMe only).
    pub sector: u32,
    /// Whether the machine can only read it.
    pub read_only: bool,
}

/// A kernel that is started without a boot loader.
#[derive(Debug, Clone)]
pub struct Direct {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Its command line.
    pub append: String,
}

impl Drive {
    /// A disk.
    pub fn new(image: impl Into<PathBuf>, bus: Bus, serial: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            bus,
            serial: serial.into(),
            sector: 512,
            read_only: false,
        }
    }

    /// Makes it a disk that cannot be written to.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Sets the size of its sectors, in bytes.
    #[must_use]
    pub fn sector(mut self, bytes: u32) -> Self {
        self.sector = bytes;
        self
    }
}

/// A machine to be started.
#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    firmware: Firmware,
    memory_mib: u32,
    cpus: u32,
    drives: Vec<Drive>,
    share: Option<PathBuf>,
    direct: Option<Direct>,
    nics: Vec<Nic>,
    clock: Option<String>,
}

/// What the guest did to one disk, by QEMU's count (`query-blockstats`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
    /// Discard operations.
    pub discards: u64,
}

impl Machine {
    /// A machine with 1 GiB and one processor. The name begins the names of its logs.
    pub fn new(name: impl Into<String>, firmware: Firmware) -> Self {
        Self {
            name: name.into(),
            firmware,
            memory_mib: 1024,
            cpus: 1,
            drives: Vec::new(),
            share: None,
            direct: None,
            nics: Vec::new(),
            clock: None,
        }
    }

    /// Sets its clock, in UTC: `2026-12-01T12:00:00`; without this it shows the time of the machine at hand.
    #[must_use]
    pub fn clock(mut self, time: &str) -> Self {
        self.clock = Some(time.to_owned());
        self
    }

    /// Changes the name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Sets the memory, in MiB.
    #[must_use]
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Sets the number of processors.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Adds a disk.
    #[must_use]
    pub fn drive(mut self, drive: Drive) -> Self {
        self.drives.push(drive);
        self
    }

    /// Its disks.
    pub fn drives(&self) -> &[Drive] {
        &self.drives
    }

    /// Adds a disk before the others but for the first one, from which the machine boots.
    #[must_use]
    pub fn second_drive(mut self, drive: Drive) -> Self {
        self.drives.insert(self.drives.len().min(1), drive);
        self
    }

    /// Shares a directory read-only over 9p; its mount tag is `share`.
    #[must_use]
    pub fn share(mut self, dir: impl Into<PathBuf>) -> Self {
        self.share = Some(dir.into());
        self
    }

    /// Adds a network card.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// Starts this kernel rather than what is on the disks.
    #[must_use]
    pub fn direct(mut self, direct: Direct) -> Self {
        self.direct = Some(direct);
        self
    }

    /// Starts the machine. It ends with the value returned, at the latest with the thread that called this.
    pub fn start(self, log: &Artefacts) -> Result<Running> {
        // Paths of unix sockets are limited to 107 bytes: not in the artefacts' directory.
        let sockets = tempfile::Builder::new().prefix("lifeboat-vm-").tempdir()?;
        let qemu_log = log.path(&format!("{}.qemu.log", self.name));
        let cmd = self.command(log, sockets.path())?.output_to(&qemu_log);
        let mut guard = ChildGuard(process::spawn(&cmd, log)?);
        let serial = Serial::new(
            connect(&sockets.path().join("serial"), &mut guard.0, &qemu_log)?,
            &log.path(&format!("{}.serial.log", self.name)),
        )?;
        let channel = Channel::new(connect(
            &sockets.path().join("channel"),
            &mut guard.0,
            &qemu_log,
        )?);
        let qmp = Qmp::new(
            connect(&sockets.path().join("qmp"), &mut guard.0, &qemu_log)?,
            &log.path(&format!("{}.qmp.log", self.name)),
        )?;
        Ok(Running {
            name: self.name,
            drives: self.drives,
            serial,
            channel,
            qmp,
            put_back: 0,
            child: guard,
            _sockets: sockets,
        })
    }

    fn command(&self, log: &Artefacts, sockets: &Path) -> Result<Cmd> {
        let mut cmd = Cmd::new("qemu-system-x86_64")
            .args(["-name", &self.name])
            .args([
                "-accel",
                "tcg,thread=multi",
                "-machine",
                "q35",
                "-cpu",
                "qemu64",
            ])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-vga",
                "std",
            ])
            .args([
                "-smp",
                &self.cpus.to_string(),
                "-m",
                &self.memory_mib.to_string(),
            ])
            // After the guest powered off QEMU stays, so that its counters can still be read.
            .arg("-no-shutdown")
            .args([
                "-device",
                "virtio-rng-pci",
                "-device",
                "qemu-xhci,id=xhci",
                "-device",
                "virtio-serial-pci",
            ]);
        if self.firmware == Firmware::Uefi {
            let vars = log.path(&format!("{}.vars.fd", self.name));
            fs::copy(format!("{OVMF}/OVMF_VARS_4M.fd"), &vars)
                .context("OVMF's variables (package ovmf)")?;
            cmd = cmd
                .args([
                    "-drive",
                    &format!("if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd"),
                ])
                .args([
                    "-drive",
                    &format!("if=pflash,format=raw,file={}", option_value(&vars)),
                ]);
        }
        for (name, device) in [
            ("serial", None),
            ("channel", Some("virtserialport")),
            ("qmp", None),
        ] {
            // QEMU waits for the serial line to be connected, so that no byte of it is lost.
            let wait = if name == "serial" { "on" } else { "off" };
            let path = option_value(&sockets.join(name));
            let chardev = format!("socket,id={name},server=on,wait={wait},path={path}");
            cmd = cmd.args(["-chardev", &chardev]);
            if let Some(device) = device {
                cmd = cmd.args([
                    "-device",
                    &format!("{device},chardev={name},name={PORT_NAME}"),
                ]);
            }
        }
        cmd = cmd.args([
            "-serial",
            "chardev:serial",
            "-mon",
            "chardev=qmp,mode=control",
        ]);
        if let Some(dir) = &self.share {
            let share = format!(
                "local,path={},mount_tag=share,security_model=none,readonly=on",
                option_value(dir)
            );
            cmd = cmd.args(["-virtfs", &share]);
        }
        if let Some(direct) = &self.direct {
            cmd = cmd
                .arg("-kernel")
                .arg(&direct.kernel)
                .arg("-initrd")
                .arg(&direct.initrd)
                .args(["-append", &direct.append]);
        }
        if let Some(time) = &self.clock {
            cmd = cmd.args(["-rtc", &format!("base={time}")]);
        }
        for (index, nic) in self.nics.iter().enumerate() {
            cmd = cmd.args(nic.options(index));
        }
        let mut sata = 0;
        for (index, drive) in self.drives.iter().enumerate() {
            if drive.serial.len() > 20 {
                bail!(
                    "the serial number {} is longer than 20 characters",
                    drive.serial
                );
            }
            let format = if drive.image.extension().is_some_and(|e| e == "qcow2") {
                "qcow2"
            } else {
                "raw"
            };
            cmd = cmd.args([
                "-drive",
                &format!(
                    "if=none,id=disk{index},format={format},cache=unsafe,discard=unmap,readonly={},file={}",
                    if drive.read_only { "on" } else { "off" },
                    option_value(&drive.image)
                ),
            ]);
            let device = match drive.bus {
                Bus::Virtio => "virtio-blk-pci".to_owned(),
                Bus::Sata => {
                    sata += 1;
                    format!("ide-hd,bus=ide.{}", sata - 1)
                }
                Bus::Nvme => "nvme".to_owned(),
                Bus::Usb => "usb-storage,bus=xhci.0,removable=on".to_owned(),
            };
            let sector = match drive.sector {
                512 => String::new(),
                n => format!(",logical_block_size={n},physical_block_size={n}"),
            };
            let device = format!(
                "{device},id=device{index},drive=disk{index},serial={},bootindex={}{sector}",
                drive.serial,
                // The first place is that of a kernel that is started directly.
                index + usize::from(self.direct.is_some())
            );
            cmd = cmd.args(["-device", &device]);
        }
        Ok(cmd)
    }
}

/// A comma in a value is doubled in QEMU's options.
fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn connect(path: &Path, child: &mut Child, qemu_log: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < deadline && child.try_wait()?.is_none() => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => {
                let said = fs::read_to_string(qemu_log).unwrap_or_default();
                return Err(error).with_context(|| {
                    format!("QEMU did not start: {}", process::tail(&said, 2000))
                });
            }
        }
    }
}

#[derive(Debug)]
struct ChildGuard(Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A machine that runs. It is switched off when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    drives: Vec<Drive>,
    /// The serial console.
    pub serial: Serial,
    /// The root channel; only the golden host answers on it.
    pub channel: Channel,
    /// The machine protocol.
    pub qmp: Qmp,
    /// How many sticks were put back in: each has a name of its own in QEMU.
    put_back: usize,
    child: ChildGuard,
    _sockets: tempfile::TempDir,
}

impl Running {
    /// The name of its logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the guest has powered itself off.
    pub fn wait_powered_off(&mut self, timeout: Duration) -> Result<()> {
        if self.qmp.wait_event("SHUTDOWN", timeout)? {
            return Ok(());
        }
        bail!(
            "{} did not power off within {} s; the last lines on its serial line:\n{}",
            self.name,
            timeout.as_secs(),
            process::tail(&self.serial.text(), 2500)
        )
    }

    /// Powers the golden host off in an orderly way.
    pub fn shut_down(mut self) -> Result<()> {
        self.channel
            .run("systemctl poweroff --no-block", Duration::from_secs(60))?;
        // A node with guests, beside other machines: this is for one that hangs.
        self.wait_powered_off(Duration::from_secs(400))?;
        self.quit()
    }

    fn index(&self, serial: &str) -> Result<usize> {
        let mut drives = self.drives.iter();
        drives
            .position(|d| d.serial == serial)
            .with_context(|| format!("{} has no disk {serial}", self.name))
    }

    /// What the guest did so far to the disk with this serial number.
    pub fn counters(&mut self, serial: &str) -> Result<Counters> {
        let index = self.index(serial)?;
        let stats = self.qmp.command("query-blockstats", json!({}))?;
        let device = format!("disk{index}");
        let disk = stats
            .as_array()
            .and_then(|all| {
                all.iter()
                    .find(|d| d["device"] == device.as_str() || d["node-name"] == device.as_str())
            })
            .with_context(|| format!("QEMU has no counters of {device}"))?;
        let count = |name: &str| {
            disk["stats"][name]
                .as_u64()
                .with_context(|| format!("QEMU has no counter {name} of {device}"))
        };
        Ok(Counters {
            reads: count("rd_operations")?,
            writes: count("wr_operations")?,
            discards: count("unmap_operations")?,
        })
    }

    /// Pulls the stick out, as a hand does: the machine is not asked.
    pub fn pull_out(&mut self, serial: &str) -> Result<()> {
        let index = self.index(serial)?;
        self.qmp
            .command("device_del", json!({ "id": format!("device{index}") }))?;
        Ok(())
    }

    /// Puts a stick that was pulled out back in.
    pub fn put_back(&mut self, serial: &str) -> Result<()> {
        let index = self.index(serial)?;
        self.put_back += 1;
        let node = format!("back{index}-{}", self.put_back);
        let file = json!({ "driver": "file", "filename": self.drives[index].image });
        self.qmp.command(
            "blockdev-add",
            json!({ "node-name": node, "driver": "raw", "file": file }),
        )?;
        self.qmp.command(
            "device_add",
            json!({
                "driver": "usb-storage", "bus": "xhci.0", "removable": true,
                "id": format!("device{index}"), "drive": node, "serial": serial,
            }),
        )?;
        Ok(())
    }

    /// Keeps a picture of the screen (PPM).
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        self.qmp
            .command("screendump", json!({ "filename": file.to_string_lossy() }))?;
        Ok(())
    }

    /// Ends QEMU and waits for it, so that all it wrote is in the image files.
    pub fn quit(mut self) -> Result<()> {
        // QEMU may close the socket before its answer is read.
        let _ = self.qmp.command("quit", json!({}));
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.child.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("QEMU of {} did not end when asked to", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// What is missing for machines with this firmware; scenarios are ignored for this reason.
pub fn missing(firmware: Firmware) -> Option<String> {
    for program in ["qemu-system-x86_64", "qemu-img", "setpriv"] {
        if !process::installed(program) {
            return Some(format!("{program} is not installed"));
        }
    }
    let ovmf = format!("{OVMF}/OVMF_CODE_4M.fd");
    (firmware == Firmware::Uefi && !Path::new(&ovmf).exists())
        .then(|| format!("{ovmf} is missing (package ovmf)"))
}
