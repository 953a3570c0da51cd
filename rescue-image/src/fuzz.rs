//! Every reader of packages, programs and media, fed with damaged input. None may panic, hang or leave its folder.

#[path = "../../tests/fuzz/table.rs"]
mod damage;
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;

use gpt::disk::LogicalBlockSize;

use crate::esp::{Esp, Medium};
use crate::initramfs::{ModuleSet, RescueInfo};
use crate::rescue::cmdline::CommandLine;
use crate::stick::{slots, table::Table};
use crate::{deb, elf, grub, modules, token};
use mutate::{Random, damaged, mutate, rounds};

#[test]
fn fuzz_programs() {
    let mut seeds = vec![fs::read("/bin/true").unwrap()];
    // The notes are at the end of a small file by hand.
    let json = br#"[{"soname":["libkmod.so.2"],"priority":"recommended"}]"#;
    let mut small = seeds[0][..0x400.min(seeds[0].len())].to_vec();
    small.extend_from_slice(json);
    seeds.push(small);
    damaged("programs", 4000, &seeds, |data| {
        let _ = elf::needs(data);
    });
    // Damage in the headers, which are small beside the rest.
    rounds("program headers", 20_000, |random| {
        let mut data = seeds[random.below(2)].clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(0x400);
            let number = random.odd_number().to_le_bytes();
            data[at..at + 8].copy_from_slice(&number);
        }
        let _ = elf::needs(&data);
    });
    let mut note = [4u32, 60, 0x407c_0c0a].map(u32::to_le_bytes).concat();
    note.extend_from_slice(b"FDO\0");
    note.extend_from_slice(json);
    note.resize(80, 0);
    damaged("notes", 20_000, &[note], |data| {
        elf::dlopen_notes(data, &mut Vec::new());
    });
}

/// What is in a folder, with the folder's own time left out.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn fuzz_packages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.deb");
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut seeds = Vec::new();
    for member in ["data.tar", "data.tar.xz", "data.tar.zst"] {
        deb::tests::make(
            &path,
            member,
            &[("boot/vmlinuz-1", b"kernel"), ("usr/x", &[7; 600])],
        );
        seeds.push(fs::read(&path).unwrap());
    }
    damaged("packages", 1500, &seeds, |data| {
        fs::write(&path, data).unwrap();
        let into = tempfile::tempdir_in(dir.path()).unwrap();
        let _ = deb::unpack(&path, into.path(), &|_| true);
    });
    // Whole archives whose names and links lead anywhere.
    rounds("package trees", 600, |random| {
        let paths = [
            "a",
            "a/b",
            "a/b/c",
            "l",
            "l/x",
            "../outside/x",
            "/tmp/lifeboat-fuzz",
            "./l/../x",
            ".",
        ];
        let targets = ["a", "..", "../outside", "/", "a/../../outside", "l", "."];
        let mut tar = tar::Builder::new(Vec::new());
        for _ in 0..1 + random.below(6) {
            let mut header = tar::Header::new_gnu();
            let path = *random.pick(&paths);
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_mode(random.number() as u32 & 0o7777);
            header.set_size(0);
            let kinds = [
                tar::EntryType::Regular,
                tar::EntryType::Symlink,
                tar::EntryType::Link,
                tar::EntryType::Directory,
            ];
            header.set_entry_type(*random.pick(&kinds));
            let target = *random.pick(&targets);
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let into = tempfile::tempdir_in(dir.path()).unwrap();
        let _ = deb::unpack_tar(tar.as_slice(), into.path(), &|_| true, &path);
        assert!(names(&outside).is_empty());
        drop(into);
        assert_eq!(names(dir.path()), ["outside", "p.deb"]);
    });
}

#[test]
fn fuzz_texts() {
    let seeds = [
        b"lifeboat.slot=a lifeboat.medium=12-ab \"a b\" console=ttyS0,115200n8 lifeboat.unattended=f00d\n".to_vec(),
        b"kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko.xz\nkernel/lib/crc16.ko.xz: kernel/fs/ext4/ext4.ko\n".to_vec(),
        b"softdep ext4 pre: crc16\nsoftdep crc16 post: ext4\n".to_vec(),
        br#"{"format":1,"version":"1","host":"h","kernel":"6","fingerprint":"f"}"#.to_vec(),
    ];
    damaged("texts", 10_000, &seeds, |data| {
        let text = String::from_utf8_lossy(data);
        CommandLine::parse(&text);
        modules::closure(&text, &text, ModuleSet::Full);
        modules::plain_path(&text);
        RescueInfo::from_json(data);
        let mut core = data.to_vec();
        core.resize(core.len().next_multiple_of(512), 0);
        grub::embed(&mut core, data);
    });
    assert!(grub::embed(&mut [], &[0; 512]).is_none());
}

/// A medium in memory with changes that every reader has for itself.
struct Overlay {
    base: Rc<Vec<u8>>,
    changed: BTreeMap<u64, u8>,
    at: u64,
    reads: u64,
}

impl Overlay {
    fn new(base: &Rc<Vec<u8>>) -> Self {
        Self {
            base: base.clone(),
            changed: BTreeMap::new(),
            at: 0,
            reads: 0,
        }
    }
    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.changed
            .extend(bytes.iter().enumerate().map(|(n, b)| (at + n as u64, *b)));
    }
}

impl Read for Overlay {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        assert!(self.reads < 2_000_000, "it goes round in circles");
        let from = self.base.get(self.at as usize..).unwrap_or_default();
        let n = (&*from).read(buf)?;
        for (at, byte) in self.changed.range(self.at..self.at + n as u64) {
            buf[(at - self.at) as usize] = *byte;
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Overlay {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf
            .len()
            .min(self.base.len().saturating_sub(self.at as usize));
        self.put(self.at, &buf[..n]);
        self.at += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Overlay {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let length = self.base.len() as u64;
        let to = match pos {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
            SeekFrom::End(n) => length.checked_add_signed(n),
        };
        if matches!(pos, SeekFrom::Start(0)) {
            self.reads = 0;
        }
        self.at = to
            .filter(|n| *n <= length)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl Medium for Overlay {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn forget(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn damage_boot_partition(random: &mut Random, medium: &mut Overlay, places: &[u64]) {
    for _ in 0..1 + random.below(4) {
        let at = match random.below(3) {
            // A field of the boot sector.
            0 => random.below(90) as u64,
            _ => *random.pick(places) + random.below(64) as u64,
        };
        let number = random.odd_number().to_le_bytes();
        let width = 1 << random.below(3);
        medium.put(at, &number[..width]);
    }
}

#[test]
fn fuzz_boot_partitions() {
    use crate::esp::tests::{Recorder, SMALL};
    let mut disk = Recorder::new(SMALL);
    disk.recording = true;
    let mut esp = Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
    let armed = token::tests::armed();
    token::write(&mut esp, &armed).unwrap();
    esp.make_dir("rescue/a").unwrap();
    esp.write_sector("grub/slot.cfg", "set slot=a\n")
        .unwrap_or_default();
    // Where something is: tables and directories.
    let mut places: Vec<u64> = disk.writes.iter().map(|(at, _)| *at / 32 * 32).collect();
    places.sort_unstable();
    places.dedup();
    let base = Rc::new(disk.bytes);
    let whole = token::find(&mut Esp::new(Overlay::new(&base), Path::new("test")));
    assert_eq!(whole.unwrap(), Some(armed));
    rounds("boot partitions", 1500, |random| {
        let mut medium = Overlay::new(&base);
        damage_boot_partition(random, &mut medium, &places);
        let mut esp = Esp::new(medium, Path::new("test"));
        let _ = token::find(&mut esp);
        let _ = slots::read(&mut esp);
        let _ = esp.free();
        let _ = token::remove(&mut esp);
        let _ = esp.write_bytes("lifeboat/new", b"new");
    });
}

#[test]
fn a_directory_without_end_is_not_read_for_ever() {
    use crate::esp::tests::{Recorder, SMALL};
    let mut disk = Recorder::new(SMALL);
    Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
    let base = Rc::new(disk.bytes);
    let le32 = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| base[at + n]));
    let reserved = u64::from(base[14]) | u64::from(base[15]) << 8;
    let (tables, table) = (u64::from(base[16]), u64::from(le32(36)));
    let mut medium = Overlay::new(&base);
    for n in 0..tables {
        // The root's only cluster is followed by itself.
        medium.put((reserved + n * table) * 512 + 8, &2u32.to_le_bytes());
    }
    let root = (reserved + tables * table) * 512;
    for entry in (root..root + u64::from(base[13]) * 512).step_by(32) {
        medium.put(entry, b"\xe5");
    }
    let error = token::find(&mut Esp::new(medium, Path::new("test"))).unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("circles"), "{error}: {text}");
}

#[test]
fn fuzz_tables_of_media() {
    for sector in [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = || {
            let mut options = fs::File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(&path).unwrap()
        };
        let size = 200 << 20;
        file().set_len(size).unwrap();
        let table = Table::new(size, sector, 64 << 20).unwrap();
        table.write(&mut file(), None).unwrap();
        let step = sector.as_u64();
        let read = |at: u64, length: u64| {
            let mut piece = vec![0; length as usize];
            std::os::unix::fs::FileExt::read_exact_at(&file(), &mut piece, at).unwrap();
            piece
        };
        let ends = [(0, 36 * step), (size - 34 * step, 34 * step)];
        let good = ends.map(|(at, length)| read(at, length));
        rounds("tables of media", 600, |random| {
            for (n, (at, _)) in ends.iter().enumerate() {
                let mut piece = good[n].clone();
                if random.below(3) == 0 {
                    let length = piece.len();
                    piece = mutate(random, &[piece]);
                    piece.resize(length, 0);
                } else {
                    let header = if n == 0 {
                        step as usize
                    } else {
                        piece.len() - step as usize
                    };
                    damage::header(random, &mut piece, header);
                }
                std::os::unix::fs::FileExt::write_all_at(&file(), &piece, *at).unwrap();
            }
            for both in [false, true] {
                if let Ok(table) = Table::read(file(), sector, both) {
                    for range in [table.bios, table.esp, table.data] {
                        table.bytes(range);
                    }
                }
            }
        });
    }
}
