//! Boot partitions and partition tables of media.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use gpt::disk::LogicalBlockSize;

use super::{seeds, table as input};
use crate::esp::recorder::{Recorder, SMALL};
use crate::esp::{Esp, Medium};
use crate::stick::{slots, table::Table};
use crate::token;

/// A medium in memory with changes that every reader has for itself.
pub(super) struct Overlay {
    base: &'static [u8],
    changed: BTreeMap<u64, u8>,
    at: u64,
    reads: u64,
}

impl Overlay {
    pub(super) fn new(base: &'static [u8]) -> Self {
        Self {
            base,
            changed: BTreeMap::new(),
            at: 0,
            reads: 0,
        }
    }
    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
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

/// A boot partition, and where something is on it: tables and directories.
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    places: Vec<u64>,
}

pub(super) static WHOLE: LazyLock<Whole> = LazyLock::new(|| {
    let mut disk = Recorder::new(SMALL);
    disk.recording = true;
    let mut esp = Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
    token::write(&mut esp, &seeds::armed()).unwrap();
    esp.make_dir("rescue/a").unwrap();
    esp.write_sector("grub/slot.cfg", "set slot=a\n")
        .unwrap_or_default();
    let mut places: Vec<u64> = disk.writes.iter().map(|(at, _)| *at / 32 * 32).collect();
    places.sort_unstable();
    places.dedup();
    Whole {
        bytes: disk.bytes,
        places,
    }
});

/// An input changes the boot partition in places: the number of a place, an offset from it, a width, and so many bytes.
pub(super) struct Edit {
    pub(super) place: u16,
    pub(super) offset: u8,
    pub(super) bytes: Vec<u8>,
}

impl Edit {
    pub(super) fn push_to(&self, input: &mut Vec<u8>) {
        input.extend(self.place.to_le_bytes());
        input.extend([self.offset, self.bytes.len() as u8]);
        input.extend(&self.bytes);
    }
}

pub(super) fn places() -> usize {
    WHOLE.places.len()
}

pub(super) fn edits() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    for place in 0..places().min(200) as u16 {
        let mut input = Vec::new();
        let bytes = vec![0xe5, 0, 0xff, 1];
        Edit {
            place,
            offset: 11,
            bytes,
        }
        .push_to(&mut input);
        all.push(input);
    }
    all
}

pub(super) fn boot_partition(mut data: &[u8]) {
    let mut medium = Overlay::new(&WHOLE.bytes);
    // More would only take long.
    for _ in 0..64 {
        let Some((head, rest)) = data.split_at_checked(4) else {
            break;
        };
        let place = usize::from(u16::from_le_bytes([head[0], head[1]])) % places();
        let width = usize::from(head[3]).min(8).min(rest.len());
        medium.put(WHOLE.places[place] + u64::from(head[2]), &rest[..width]);
        data = &rest[width..];
    }
    let mut esp = Esp::new(medium, Path::new("test"));
    let _ = token::find(&mut esp);
    let _ = slots::read(&mut esp);
    let _ = esp.free();
    let _ = token::remove(&mut esp);
    let _ = esp.write_bytes("lifeboat/new", b"new");
}

/// Of a disk of 200 MiB: for each size of sectors, a file with nothing but a table.
const SIZE: u64 = 200 << 20;
static DISKS: LazyLock<[Mutex<File>; 2]> = LazyLock::new(|| {
    [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096].map(|sector| {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let table = Table::new(SIZE, sector, 64 << 20).unwrap();
        table.write(&mut file, None).unwrap();
        Mutex::new(file)
    })
});

pub(super) fn tables() -> Vec<Vec<u8>> {
    static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let seed = |flags: u8| {
            let sector = input::sector(&[flags]);
            let disk = DISKS[usize::from(sector == 4096)].lock().unwrap();
            input::seed(flags, SIZE / sector, &mut |at, length| {
                let mut piece = vec![0; length];
                disk.read_exact_at(&mut piece, at).unwrap();
                piece
            })
        };
        (0..=input::FLAGS).map(seed).collect()
    });
    SEEDS.clone()
}

pub(super) fn table(data: &[u8]) {
    let sector = input::sector(data);
    let size = match sector {
        512 => LogicalBlockSize::Lb512,
        _ => LogicalBlockSize::Lb4096,
    };
    // Before the first damage.
    tables();
    let disk = DISKS[usize::from(sector == 4096)].lock().unwrap();
    input::put(data, SIZE / sector, &mut |at, piece| {
        disk.write_all_at(piece, at).unwrap();
    });
    for both in [false, true] {
        if let Ok(table) = Table::read(disk.try_clone().unwrap(), size, both) {
            for range in [table.bios, table.esp, table.data] {
                let (start, length) = table.bytes(range);
                assert!(start.checked_add(length).is_some() && length > 0);
            }
        }
    }
}
