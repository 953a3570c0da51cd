//! Making a medium. Everything is written before the partition table, so that an interrupted run leaves a disk that is
//! plainly no medium, never half of one; then the boot-critical parts are read back.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bundle::events::Events;
use gpt::disk::LogicalBlockSize;
use layout::system::{Cmd, System};
use layout::units::Bytes;
use sha2::{Digest, Sha256};

use super::{
    DATA_LABEL, MEDIUM_FORMAT, MEDIUM_INFO, MediumInfo, PrepareOptions, PrepareReport, Slot, Stick,
    Target, UefiBoot, device, refuse, slots, superblock,
};
use crate::error::{Error, Result};
use crate::esp::{Esp, Slice};
use crate::grub::{self, BootFiles};
use crate::stick::table::Table;

const MIB: u64 = 1 << 20;

/// See [`Stick::prepare`].
pub(super) fn prepare(
    sys: &dyn System,
    target: &Target,
    options: &PrepareOptions,
    events: &dyn Events,
) -> Result<PrepareReport> {
    let needed = smallest(options)?;
    match target {
        Target::Device(path) => {
            // Held from before it is looked at to the end: as long as a disk is open, the kernel gives its name to no other.
            let _held = File::open(path).map_err(Error::io("open", path))?;
            let mut reasons = refuse::refusals(sys, path, needed)?;
            if let Some(confirmed) = &options.confirmed {
                if refuse::identify(sys, path)? != *confirmed {
                    reasons.push(
                        "it is not the disk that was confirmed any more, or what is on it changed: start again"
                            .into(),
                    );
                }
            }
            if !reasons.is_empty() {
                return Err(Error::Refused {
                    device: path.clone(),
                    reasons,
                });
            }
            // Exclusive: fails when anything holds the disk or a partition of it, whatever lsblk said.
            let disk = File::options()
                .read(true)
                .write(true)
                .custom_flags(libc::O_EXCL)
                .open(path)
                .map_err(Error::io("get hold of", path))?;
            let report = write(sys, path, disk, options, events)?;
            let disk = File::options()
                .read(true)
                .write(true)
                .open(path)
                .map_err(Error::io("open", path))?;
            device::reread_table(&disk, path)?;
            drop(disk);
            // The partitions' nodes come from udev; where there is none (containers), from the kernel itself.
            if let Err(error) = sys.run(&Cmd::new("udevadm").args(["settle", "--timeout=15"])) {
                tracing::debug!(%error, "udev was not waited for");
            }
            Ok(report)
        }
        Target::Image { path, size } => {
            if *size < needed {
                let reasons = vec![format!(
                    "an image of {size} is too small, {needed} are needed"
                )];
                return Err(Error::Refused {
                    device: path.clone(),
                    reasons,
                });
            }
            replaceable(path, options.replace_foreign_file)?;
            let temporary = beside(path)?;
            let made = create(sys, &temporary, *size, options, events).and_then(|report| {
                fs::rename(&temporary, path).map_err(Error::io("write", path))?;
                sync_folder(path)?;
                Ok(report)
            });
            if made.is_err() {
                let _ = fs::remove_file(&temporary);
            }
            made
        }
    }
}

/// Bytes that a medium has at least: two slots, and some data.
fn smallest(options: &PrepareOptions) -> Result<Bytes> {
    let mut slot = 0;
    for path in [&options.rescue.kernel, &options.rescue.initrd] {
        slot += fs::metadata(path).map_err(Error::io("read", path))?.len();
    }
    let esp = options.esp_size.get();
    // GRUB, file system tables, and a rescue system that grows by a quarter.
    let boot = 2 * slot + slot / 2 + 24 * MIB;
    if esp < boot {
        let reason = format!(
            "a boot partition of {} does not hold two rescue systems: {} are needed",
            options.esp_size,
            Bytes(boot)
        );
        return Err(Error::Refused {
            device: PathBuf::from("--esp-size"),
            reasons: vec![reason],
        });
    }
    Ok(options.esp_size.plus(Bytes(68 * MIB)))
}

/// An existing file is overwritten only when it is a medium, or when that was asked for.
fn replaceable(path: &Path, foreign_too: bool) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("look at", path)(e)),
        Ok(meta) if !meta.is_file() => Err(Error::Refused {
            device: path.to_owned(),
            reasons: vec!["it exists and is no regular file".into()],
        }),
        Ok(meta) if meta.len() == 0 || foreign_too => Ok(()),
        Ok(_) => Stick::open(path).map(|_| ()).map_err(|_| Error::Refused {
            device: path.to_owned(),
            reasons: vec![
                "the file exists and is no Lifeboat image; remove it, or name another file".into(),
            ],
        }),
    }
}

fn beside(path: &Path) -> Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::format(path, "not the name of a file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".lifeboat-new");
    Ok(path.with_file_name(hidden))
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(Error::io("sync", folder))
}

fn create(
    sys: &dyn System,
    path: &Path,
    size: Bytes,
    options: &PrepareOptions,
    events: &dyn Events,
) -> Result<PrepareReport> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("create", path))?;
    // Whole sectors.
    file.set_len(size.get() / 4096 * 4096)
        .map_err(Error::io("set the size of", path))?;
    write(sys, path, file, options, events)
}

fn write(
    sys: &dyn System,
    path: &Path,
    mut disk: File,
    options: &PrepareOptions,
    events: &dyn Events,
) -> Result<PrepareReport> {
    let size = device::size(&disk, path)?;
    let sector = device::sector_size(&disk, path)?;
    let table = Table::new(size, sector, options.esp_size.get()).ok_or_else(|| Error::Refused {
        device: path.to_owned(),
        reasons: vec!["it is too small".into()],
    })?;
    let work =
        tempfile::tempdir().map_err(Error::io("create a directory in", std::env::temp_dir()))?;
    let mut files = grub::boot_files(sys, work.path())?;
    if sector != LogicalBlockSize::Lb512 && files.bios.take().is_some() {
        files
            .notes
            .push("does not boot on BIOS: the disk has sectors of 4096 bytes".into());
    }
    let io = || Error::io("write", path);

    // No old table, and no old file system, remains to be found.
    let zeroes = vec![0; MIB as usize];
    for start in [
        0,
        size - MIB,
        table.bytes(table.esp).0,
        table.bytes(table.data).0,
    ] {
        disk.write_all_at(&zeroes, start).map_err(io())?;
    }
    disk.sync_data().map_err(io())?;

    let medium = table.data.2.to_string();
    let mut esp = esp_of(&disk, path, &table, true)?;
    let boot = boot_partition(files.efi.clone(), &medium, options.menu_timeout);
    for (name, content) in &boot {
        if let Some((folder, _)) = name.rsplit_once('/') {
            esp.make_dir(folder)?;
        }
        esp.write_bytes(name, content)?;
    }
    for slot in [Slot::A, Slot::B] {
        esp.make_dir(&format!("rescue/{}", slot.name()))?;
        esp.write_sector(
            &format!("rescue/{}/state.cfg", slot.name()),
            &format!("set {}_ready=0\n", slot.name()),
        )?;
    }
    slots::fill(&mut esp, path, Slot::A, &options.rescue, events)?;
    slots::make_current(&mut esp, Slot::A)?;

    events.phase("data file system", None);
    let fs_uuid = uuid::Uuid::new_v4().to_string();
    // Given up for mkfs, which insists on having the disk for itself.
    drop(esp);
    drop(disk);
    make_ext4(sys, path, &table, &fs_uuid)?;
    disk = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io("open", path))?;

    if let Some(bios) = &files.bios {
        let (start, len) = table.bytes(table.bios);
        if bios.core.len() as u64 > len {
            return Err(Error::format(
                path,
                "GRUB's core image does not fit into the BIOS boot partition",
            ));
        }
        disk.write_all_at(&bios.core, start).map_err(io())?;
    }
    disk.sync_data().map_err(io())?;
    let finished = table
        .write(&mut disk, files.bios.as_ref().map(|b| &b.boot_code))
        .map_err(io())
        .and_then(|()| {
            events.phase("reading back", None);
            device::drop_cache(&disk, path)?;
            verify(&mut disk, path, &table, &files, &boot, &fs_uuid)
        });
    if let Err(error) = finished {
        // Plainly no medium rather than one that looks right.
        let erased = [0, size - MIB]
            .into_iter()
            .try_for_each(|start| disk.write_all_at(&zeroes, start))
            .and_then(|()| disk.sync_data());
        if let Err(second) = erased {
            tracing::warn!(%second, "{} cannot be erased after a failure", path.display());
        }
        return Err(error);
    }
    Ok(PrepareReport {
        bios: files.bios.is_some(),
        uefi: files.uefi.unwrap_or(UefiBoot::No),
        medium,
        data_fs_uuid: fs_uuid,
        data_size: Bytes(table.bytes(table.data).1),
        notes: files.notes,
    })
}

fn esp_of(disk: &File, path: &Path, table: &Table, format: bool) -> Result<Esp<Slice>> {
    let (start, len) = table.bytes(table.esp);
    let slice = Slice::new(
        disk.try_clone().map_err(Error::io("open", path))?,
        start,
        len,
    );
    if !format {
        return Ok(Esp::new(slice, path));
    }
    // The first four bytes of the partition's GUID serve as the volume's number.
    let id = table.esp.2.as_fields().0;
    Esp::format(slice, path, len, table.sector.as_usize() as u16, id)
}

/// The files of the boot partition apart from the slots.
fn boot_partition(
    mut files: Vec<(String, Vec<u8>)>,
    medium: &str,
    timeout: u32,
) -> Vec<(String, Vec<u8>)> {
    let info = MediumInfo {
        format: MEDIUM_FORMAT,
        medium: medium.to_owned(),
        prepared_by: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // Strings and numbers only: this cannot fail.
    let info = serde_json::to_vec_pretty(&info).unwrap_or_default();
    files.push((
        "grub/grub.cfg".into(),
        grub::config(medium, timeout).into_bytes(),
    ));
    files.push((MEDIUM_INFO.into(), info));
    files
}

fn make_ext4(sys: &dyn System, path: &Path, table: &Table, uuid: &str) -> Result<()> {
    let (offset, len) = table.bytes(table.data);
    // Few and large files: fewer inodes than usual. No discard: it would forget what lies before the offset on some disks.
    let extended = format!("offset={offset},nodiscard,lazy_itable_init=1,lazy_journal_init=1");
    sys.run(
        &Cmd::new("mkfs.ext4")
            .args([
                "-q", "-F", "-b", "4096", "-m", "0", "-i", "65536", "-L", DATA_LABEL, "-U", uuid,
                "-E", &extended,
            ])
            .path(path)
            .arg(format!("{}k", len / 1024)),
    )?;
    Ok(())
}

fn verify(
    disk: &mut File,
    path: &Path,
    table: &Table,
    files: &BootFiles,
    boot: &[(String, Vec<u8>)],
    fs_uuid: &str,
) -> Result<()> {
    let wrong = |what: &str| Error::ReadBack {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    if Table::read(&mut *disk, table.sector, true).as_ref() != Ok(table) {
        return Err(wrong("the partition table"));
    }
    if let Some(bios) = &files.bios {
        let mut code = vec![0; grub::BOOT_CODE];
        disk.read_exact_at(&mut code, 0)
            .map_err(Error::io("read back", path))?;
        let mut core = vec![0; bios.core.len()];
        disk.read_exact_at(&mut core, table.bytes(table.bios).0)
            .map_err(Error::io("read back", path))?;
        if code != bios.boot_code || core != bios.core {
            return Err(wrong("the boot code"));
        }
    }
    let mut esp = esp_of(disk, path, table, false)?;
    for (name, content) in boot {
        if esp.hash(name)? != <[u8; 32]>::from(Sha256::digest(content)) {
            return Err(wrong(name));
        }
    }
    let found = slots::read(&mut esp)?;
    if found.current != Slot::A || found.a.is_none() {
        return Err(wrong("the rescue slot"));
    }
    let data = superblock(disk, table.bytes(table.data).0);
    if data.is_none_or(|d| d.label != DATA_LABEL || d.uuid != fs_uuid) {
        return Err(wrong("the data file system"));
    }
    Ok(())
}
