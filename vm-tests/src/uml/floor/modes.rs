//! Restores in place: what is not made anew has the same bytes afterwards.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use layout::model::Node;
use layout::plan::{Mode, Plan};
use sha2::{Digest, Sha256};
use vm_tests::uml::case::{Damage, Expect, InPlace};

use crate::cuts::{self, Points};
use crate::facts;
use crate::failpoint::Trap;
use crate::machine::{settle, text, tool};
use crate::restore::{Setup, Watch};

/// What is said of a table that needs no repair.
const WHOLE: &str = "as it was saved";

/// A host that was restored as bare metal, before anything happens to it.
struct Before {
    watch: Watch,
    bare: Plan,
    targets: Vec<PathBuf>,
    groups: Vec<String>,
    bytes: BTreeMap<String, String>,
}

impl Before {
    fn make(setup: &Setup) -> Result<Before> {
        setup.make_dirty()?;
        let watch = setup.watch()?;
        let bare = setup.plan()?.context("the plan of bare metal")?;
        setup.attempt(&bare, &Trap::default())??;
        let targets: Vec<PathBuf> = setup.case.map.values().map(PathBuf::from).collect();
        let groups = groups(setup);
        guests(setup, &groups)?;
        boot_code(&targets)?;
        let bytes = bytes(setup, &targets, &groups)?;
        Ok(Before {
            watch,
            bare,
            targets,
            groups,
            bytes,
        })
    }

    fn damage(&self, setup: &Setup, case: &InPlace) -> Result<()> {
        for damage in &case.damage {
            happen(setup, damage, &self.groups).with_context(|| format!("{damage:?}"))?;
        }
        Ok(())
    }

    /// Restores in place.
    fn restore(&self, setup: &Setup, case: &InPlace) -> Result<()> {
        let plan = setup.plan_as(case.mode)?.context("the plan")?;
        print!("{}", plan.render());
        setup.attempt(&plan, &Trap::default())??;
        setup.ensure_same_layout(&plan)?;
        ensure!(plan.in_place.is_some(), "it is a plan of bare metal");
        self.compare(setup, case)
    }

    /// Everything is as bare metal left it, and what stays has its bytes.
    fn compare(&self, setup: &Setup, case: &InPlace) -> Result<()> {
        facts::check(&setup.saved, &self.bare)?;
        let after = bytes(setup, &self.targets, &self.groups)?;
        for (name, hash) in &self.bytes {
            let same = after.get(name) == Some(hash);
            let may = case.remade.contains(name);
            println!("floor: {name}: {}", if same { "same" } else { "changed" });
            ensure!(same || may, "{name} has other bytes than before");
        }
        ensure!(
            self.bytes.keys().eq(after.keys()),
            "{:?} became {:?}",
            self.bytes.keys(),
            after.keys()
        );
        Ok(())
    }

    /// As [`Before::restore`], after a cut: when the table was written already, there is nothing left to repair.
    fn restore_again(&self, setup: &Setup, case: &InPlace) -> Result<()> {
        match setup.plan_as(case.mode)? {
            Err(error) if case.mode == Mode::TableRepair && error.to_string().contains(WHOLE) => {
                println!("floor: it says: {error}");
                self.compare(setup, case)
            }
            _ => self.restore(setup, case),
        }
    }

    /// The case is to be refused, and nothing written.
    fn ensure_refused(&self, setup: &Setup, case: &InPlace, words: &str) -> Result<()> {
        let damaged = disks(&self.targets)?;
        match setup.plan_as(case.mode)? {
            Err(error) => ensure!(error.to_string().contains(words), "it says: {error}"),
            Ok(plan) => match setup.attempt(&plan, &Trap::default())? {
                Err(error) => ensure!(error.to_string().contains(words), "it says: {error}"),
                Ok(()) => bail!("it was restored, and a refusal was expected"),
            },
        }
        ensure!(
            disks(&self.targets)? == damaged,
            "the refusal wrote to a disk"
        );
        Ok(())
    }
}

/// Runs the case.
pub fn run(setup: &Setup) -> Result<()> {
    let case = setup.case.in_place.as_ref().context("no mode")?;
    let before = Before::make(setup)?;
    before.damage(setup, case)?;
    if let Expect::Refused { words } = &setup.case.expect {
        before.ensure_refused(setup, case, words)?;
        return before.watch.ensure_same();
    }
    before.restore(setup, case).context("the first time")?;
    if case.mode == Mode::TableRepair {
        // A table that is there is not repaired.
        before.ensure_refused(setup, case, WHOLE)?;
    } else {
        before.restore(setup, case).context("the second time")?;
    }
    before.watch.ensure_same()
}

/// Cuts the case as [`cuts::cuts`] does one of bare metal.
pub fn cuts(setup: &Setup, stride: usize) -> Result<()> {
    let case = setup.case.in_place.as_ref().context("no mode")?;
    let before = Before::make(setup)?;
    before.damage(setup, case)?;
    let plan = setup.plan_as(case.mode)?.context("the plan")?;
    let points = Points::of(&plan, stride);
    for (n, at) in points.all.iter().enumerate() {
        if n > 0 {
            before.damage(setup, case)?;
        }
        println!("floor: cut {} of {}: {at}", n + 1, points.all.len());
        cuts::cut(setup, *at)
            .and_then(|()| before.restore_again(setup, case))
            .with_context(|| format!("after a cut at {at}"))?;
    }
    before.watch.ensure_same()?;
    println!("floor: {points}");
    Ok(())
}

/// The groups on plain partitions: what is in containers and arrays is judged by those.
fn groups(setup: &Setup) -> Vec<String> {
    let plain = |pv: &layout::model::NodeId| match setup.saved.nodes.get(pv) {
        Some(Node::PhysicalVolume(pv)) => {
            matches!(setup.saved.nodes.get(&pv.on), Some(Node::Partition(_)))
        }
        _ => false,
    };
    let nodes = setup.saved.nodes.values();
    nodes
        .filter_map(|node| match node {
            Node::VolumeGroup(vg) if vg.on.iter().all(plain) => Some(vg.name.clone()),
            _ => None,
        })
        .collect()
}

/// Volumes of guests that are not in the backup, with a pattern in them.
fn guests(setup: &Setup, groups: &[String]) -> Result<()> {
    for group in groups {
        let pool = setup.saved.nodes.values().find_map(|node| match node {
            Node::ThinPool(pool) if pool.on.as_str() == format!("vg:{group}") => Some(&pool.name),
            _ => None,
        });
        let run = |args: &[&str]| lvm(setup, group, args);
        run(&[
            "lvcreate",
            "-y",
            "-Wy",
            "-L",
            "32m",
            "-n",
            "vm-101-disk-0",
            group,
        ])?;
        let mut names = vec!["vm-101-disk-0"];
        if let Some(pool) = pool {
            run(&[
                "lvcreate",
                "-y",
                "-V",
                "64m",
                "--thinpool",
                pool,
                "-n",
                "vm-100-disk-0",
                group,
            ])?;
            names.push("vm-100-disk-0");
        }
        settle()?;
        for name in names {
            let mut file = OpenOptions::new()
                .write(true)
                .open(Path::new("/dev").join(group).join(name))?;
            let line = format!("bytes of guest {name}\n");
            file.write_all(&line.repeat(300_000).as_bytes()[..4 << 20])?;
            file.sync_all()?;
        }
        run(&["vgchange", "-an", group])?;
        settle()?;
    }
    Ok(())
}

/// Options that have LVM look at the targets only: another disk may have a group of the same name.
fn only(setup: &Setup, group: &str) -> Vec<String> {
    let mut options = Vec::new();
    let wanted = setup.saved.nodes.get(&layout::model::NodeId::vg(group));
    for pv in wanted.map(Node::on).unwrap_or_default() {
        if let Some(Node::PhysicalVolume(pv)) = setup.saved.nodes.get(&pv) {
            let number = match setup.saved.nodes.get(&pv.on) {
                Some(Node::Partition(part)) => part.number.to_string(),
                _ => String::new(),
            };
            for disk in setup.saved.disks_below(&pv.on) {
                if let Some(target) = setup.case.map.get(disk.as_str()) {
                    options.push("--devices".to_owned());
                    options.push(format!("{target}{number}"));
                }
            }
        }
    }
    options
}

/// Something in the first sector that is no table.
fn boot_code(targets: &[PathBuf]) -> Result<()> {
    for disk in targets {
        let mut file = OpenOptions::new().write(true).open(disk)?;
        file.write_all(&[0xEB; 440])?;
        file.sync_all()?;
    }
    // udev has the table read again when a disk that was written to is closed, and the partitions are gone meanwhile.
    settle()
}

/// An LVM command that sees the group on the targets only.
fn lvm(setup: &Setup, group: &str, args: &[&str]) -> Result<String> {
    let devices = only(setup, group);
    let mut argv = vec!["lvm", args[0]];
    argv.extend(devices.iter().map(String::as_str));
    argv.extend(&args[1..]);
    text(&argv)
}

fn hash(device: &Path) -> Result<String> {
    nix::unistd::sync();
    tool(&["blockdev", "--flushbufs", &device.to_string_lossy()])?;
    let mut file = File::open(device).with_context(|| device.display().to_string())?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

fn disks(targets: &[PathBuf]) -> Result<Vec<String>> {
    targets.iter().map(|disk| hash(disk)).collect()
}

/// The hash of each partition and volume, of what is in front of and behind the partitions, and what LVM counts.
fn bytes(
    setup: &Setup,
    targets: &[PathBuf],
    groups: &[String],
) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for disk in targets {
        let name = disk.file_name().unwrap_or_default().to_string_lossy();
        for entry in std::fs::read_dir(format!("/sys/class/block/{name}"))? {
            let part = entry?.file_name().to_string_lossy().into_owned();
            let path = Path::new("/dev").join(&part);
            let size = std::fs::read_to_string(format!("/sys/class/block/{part}/size"));
            // An extended partition has two sectors.
            if part.starts_with(&*name) && size.is_ok_and(|s| s.trim() != "2") {
                found.insert(path.display().to_string(), hash(&path)?);
            }
        }
        let mut file = File::open(disk)?;
        let mut ends = vec![0u8; 2 * 34 * 512];
        file.read_exact(&mut ends[..34 * 512])?;
        file.seek(SeekFrom::End(-(34 * 512)))?;
        file.read_exact(&mut ends[34 * 512..])?;
        let ends = hex::encode(Sha256::digest(&ends));
        found.insert(format!("ends of {}", disk.display()), ends);
    }
    for group in groups {
        let lvm = |args: &[&str]| lvm(setup, group, args);
        let changes = lvm(&["vgs", "--noheadings", "-o", "vg_seqno", group])?;
        found.insert(format!("changes of {group}"), changes.trim().to_owned());
        lvm(&["vgchange", "-ay", "--ignoreactivationskip", group])?;
        settle()?;
        for line in lvm(&["lvs", "--noheadings", "-o", "lv_name,segtype", group])?.lines() {
            let mut words = line.split_whitespace();
            let (Some(lv), Some(kind)) = (words.next(), words.next()) else {
                continue;
            };
            if kind != "thin-pool" {
                let path = Path::new("/dev").join(group).join(lv);
                found.insert(format!("{group}/{lv}"), hash(&path)?);
            }
        }
        lvm(&["vgchange", "-an", group])?;
        settle()?;
    }
    Ok(found)
}

fn happen(setup: &Setup, damage: &Damage, groups: &[String]) -> Result<()> {
    let of_group = |device: &str, group: &str| device.starts_with(&format!("/dev/{group}/"));
    let active = |device: &str, yes: &str| -> Result<()> {
        for group in groups.iter().filter(|group| of_group(device, group)) {
            lvm(
                setup,
                group,
                &["vgchange", yes, "--ignoreactivationskip", group],
            )?;
        }
        settle()
    };
    match damage {
        Damage::Rubbish(device) => {
            active(device, "-ay")?;
            let mut file = OpenOptions::new().write(true).open(device)?;
            let mut noise = vec![0u8; 1 << 20];
            File::open("/dev/urandom")?.read_exact(&mut noise)?;
            file.write_all(&noise)?;
            file.sync_all()?;
            drop(file);
            active(device, "-an")
        }
        Damage::Xfs(device) => {
            active(device, "-ay")?;
            tool(&["mkfs.xfs", "-f", "-q", device])?;
            active(device, "-an")
        }
        Damage::GptZeroed(disk) => {
            let mut file = OpenOptions::new().write(true).open(disk)?;
            file.seek(SeekFrom::Start(440))?;
            file.write_all(&vec![0u8; 34 * 512 - 440])?;
            file.seek(SeekFrom::End(-(33 * 512)))?;
            file.write_all(&vec![0u8; 33 * 512])?;
            file.sync_all()?;
            drop(file);
            tool(&["blockdev", "--rereadpt", disk])?;
            settle()
        }
        Damage::MbrZeroed(disk) => {
            let mut file = OpenOptions::new().write(true).open(disk)?;
            file.seek(SeekFrom::Start(440))?;
            file.write_all(&[0u8; 72])?;
            file.sync_all()?;
            drop(file);
            tool(&["blockdev", "--rereadpt", disk])?;
            settle()
        }
        Damage::Lvremove(volume) => {
            let group = volume.split('/').next().unwrap_or_default();
            lvm(setup, group, &["lvremove", "-y", volume])?;
            settle()
        }
        Damage::PartitionRemoved(disk, number) => {
            tool(&["sgdisk", "-d", &number.to_string(), disk])?;
            settle()
        }
    }
}
