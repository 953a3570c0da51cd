//! Names of files on a FAT that is not mounted: an EFI system partition in proxmox-boot-tool's care never is.

use std::io::SeekFrom;
use std::path::Path;

use crate::system::{ReadSeek, System};

/// A directory of boot files has a few entries; more than this is not read.
const MOST_ENTRIES: usize = 16_384;

/// Characters of a long name at most, in whole entries (the same specification, "Long File Names").
const MOST_UNITS: usize = 260;

/// Directory attributes (Microsoft: FAT32 file system specification 1.03, section "FAT Directory Structure").
const VOLUME_ID: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;

/// A FAT12, FAT16 or FAT32 on a device.
pub(crate) struct Fat {
    device: Box<dyn ReadSeek>,
    bits: u8,
    /// Bytes of a cluster.
    cluster: u64,
    /// Where the first table starts.
    table: u64,
    /// Where cluster 2 starts.
    data: u64,
    clusters: u64,
    root: Place,
}

/// Where a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The root directory of FAT12 and FAT16: offset and length.
    Area(u64, u64),
    /// A chain of clusters.
    Cluster(u64),
}

struct Entry {
    name: String,
    /// Its first cluster, when it is a directory.
    directory: Option<u64>,
}

impl Fat {
    /// Looks at a device; `None`: it holds no FAT, or cannot be read.
    pub fn open(sys: &dyn System, device: &Path) -> Option<Fat> {
        let mut device = sys.open(device).ok()?;
        let mut sector = [0u8; 512];
        read(&mut *device, 0, &mut sector)?;
        let le16 = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
        let le32 = |at: usize| le16(at) | le16(at + 2) << 16;
        let bytes = le16(11);
        let per_cluster = u64::from(sector[13]);
        let sound = bytes.is_power_of_two() && (512..=4096).contains(&bytes);
        if !sound || !per_cluster.is_power_of_two() {
            return None;
        }
        let first = |a: u64, b: u64| if a == 0 { b } else { a };
        let (reserved, tables, root_entries) = (le16(14), u64::from(sector[16]), le16(17));
        let sectors = first(le16(19), le32(32));
        let table_sectors = first(le16(22), le32(36));
        let root_sectors = (root_entries * 32).div_ceil(bytes);
        let root_start = reserved + tables * table_sectors;
        let data_start = root_start + root_sectors;
        let clusters = sectors.checked_sub(data_start)? / per_cluster;
        // The number of clusters alone tells the kinds apart (the same specification, "FAT Type Determination").
        let bits = match clusters {
            0..4085 => 12,
            4085..65525 => 16,
            _ => 32,
        };
        let root = if root_entries == 0 {
            Place::Cluster(le32(44))
        } else {
            Place::Area(root_start * bytes, root_entries * 32)
        };
        Some(Fat {
            device,
            // mkfs.vfat -F32 makes small ones, too: these have no root area.
            bits: if root_entries == 0 { 32 } else { bits },
            cluster: per_cluster * bytes,
            table: reserved * bytes,
            data: data_start * bytes,
            clusters,
            root,
        })
    }

    /// The names in a directory; `None`: it is not there or cannot be read. Upper and lower case are the same.
    pub fn names(&mut self, path: &[&str]) -> Option<Vec<String>> {
        let mut place = self.root;
        for part in path {
            let entries = self.entries(place)?;
            let found = entries
                .into_iter()
                .find(|e| e.name.eq_ignore_ascii_case(part))?;
            place = Place::Cluster(found.directory?);
        }
        let entries = self.entries(place)?;
        Some(entries.into_iter().map(|e| e.name).collect())
    }

    fn entries(&mut self, place: Place) -> Option<Vec<Entry>> {
        let bytes = match place {
            Place::Area(at, length) => {
                let mut bytes = vec![0; usize::try_from(length).ok()?];
                read(&mut *self.device, at, &mut bytes)?;
                bytes
            }
            Place::Cluster(first) => self.chain(first)?,
        };
        Some(parse(&bytes))
    }

    fn chain(&mut self, first: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut next = first;
        // An end mark is no cluster's number.
        while (2..self.clusters + 2).contains(&next) {
            if bytes.len() / 32 > MOST_ENTRIES {
                return None;
            }
            let mut cluster = vec![0; usize::try_from(self.cluster).ok()?];
            let at = self.data + (next - 2) * self.cluster;
            read(&mut *self.device, at, &mut cluster)?;
            bytes.extend(cluster);
            next = self.after(next)?;
        }
        Some(bytes)
    }

    /// The cluster that follows in the table.
    fn after(&mut self, cluster: u64) -> Option<u64> {
        let (at, length) = match self.bits {
            12 => (cluster + cluster / 2, 2),
            16 => (cluster * 2, 2),
            _ => (cluster * 4, 4),
        };
        let mut entry = [0u8; 4];
        read(&mut *self.device, self.table + at, &mut entry[..length])?;
        let value = u64::from(u32::from_le_bytes(entry));
        Some(match self.bits {
            12 if cluster % 2 == 1 => value >> 4,
            12 => value & 0xfff,
            16 => value,
            _ => value & 0x0fff_ffff,
        })
    }
}

fn read(device: &mut dyn ReadSeek, at: u64, into: &mut [u8]) -> Option<()> {
    device.seek(SeekFrom::Start(at)).ok()?;
    device.read_exact(into).ok()
}

/// The entries of a directory. Parts of a long name stand before its entry, the last one first.
fn parse(bytes: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut long: Vec<u16> = Vec::new();
    for entry in bytes.chunks_exact(32) {
        let attributes = entry[11];
        match entry[0] {
            0 => break,
            0xe5 => long.clear(),
            _ if attributes & 0x3f == LONG_NAME => {
                let units = [&entry[1..11], &entry[14..26], &entry[28..32]];
                let part = units
                    .iter()
                    .flat_map(|u| u.chunks_exact(2))
                    .map(|u| u16::from_le_bytes([u[0], u[1]]));
                long = part.chain(long.iter().copied()).take(MOST_UNITS).collect();
            }
            _ if attributes & VOLUME_ID != 0 => long.clear(),
            b'.' => long.clear(),
            _ => {
                let end = long.iter().position(|u| matches!(u, 0 | 0xffff));
                let name = String::from_utf16_lossy(&long[..end.unwrap_or(long.len())]);
                long.clear();
                let high = u16::from_le_bytes([entry[20], entry[21]]);
                let low = u16::from_le_bytes([entry[26], entry[27]]);
                found.push(Entry {
                    name: if name.is_empty() {
                        short_name(entry)
                    } else {
                        name
                    },
                    directory: (attributes & DIRECTORY != 0)
                        .then(|| u64::from(high) << 16 | u64::from(low)),
                });
            }
        }
    }
    found
}

/// `GRUBX64 EFI` is `GRUBX64.EFI`.
fn short_name(entry: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (name, extension) = (text(&entry[..8]), text(&entry[8..11]));
    if extension.is_empty() {
        name
    } else {
        format!("{name}.{extension}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Cursor, Write};

    use super::*;
    use crate::system::Recorded;

    /// A FAT with (empty) files at these paths.
    pub(crate) fn image(bits: u8, files: &[&str]) -> Vec<u8> {
        let size = match bits {
            12 => 2 << 20,
            16 => 16 << 20,
            _ => 40 << 20,
        };
        let kind = match bits {
            12 => fatfs::FatType::Fat12,
            16 => fatfs::FatType::Fat16,
            _ => fatfs::FatType::Fat32,
        };
        let mut bytes = vec![0; size];
        let options = fatfs::FormatVolumeOptions::new()
            .fat_type(kind)
            .bytes_per_cluster(512);
        fatfs::format_volume(Cursor::new(&mut bytes), options).unwrap();
        {
            let fs =
                fatfs::FileSystem::new(Cursor::new(&mut bytes), fatfs::FsOptions::new()).unwrap();
            for file in files {
                let mut dir = fs.root_dir();
                let mut parts: Vec<&str> = file.split('/').collect();
                let name = parts.pop().unwrap();
                for part in parts {
                    dir = dir.create_dir(part).unwrap();
                }
                dir.create_file(name).unwrap().write_all(b"x").unwrap();
            }
        }
        bytes
    }

    #[test]
    fn names_are_read_from_every_kind() {
        // More than fits into one cluster, so that the chain is followed.
        let many: Vec<String> = (0..40)
            .map(|n| format!("EFI/proxmox/a-long-name-{n}.efi"))
            .collect();
        let mut files: Vec<&str> = many.iter().map(String::as_str).collect();
        files.extend(["EFI/BOOT/BOOTX64.EFI", "loader/loader.conf"]);
        for bits in [12, 16, 32] {
            let sys = Recorded::new().file("/dev/sda1", image(bits, &files));
            let mut fat = Fat::open(&sys, Path::new("/dev/sda1")).unwrap();
            assert_eq!(fat.bits, bits);
            assert_eq!(fat.names(&[]).unwrap(), ["EFI", "loader"]);
            assert_eq!(fat.names(&["efi", "Boot"]).unwrap(), ["BOOTX64.EFI"]);
            let names = fat.names(&["EFI", "proxmox"]).unwrap();
            assert_eq!(names.len(), 40, "{bits}: {names:?}");
            assert_eq!(names[39], "a-long-name-39.efi");
            assert_eq!(fat.names(&["EFI", "debian"]), None);
            assert_eq!(fat.names(&["loader", "loader.conf"]), None);
        }
    }

    #[test]
    fn a_name_without_end_ends() {
        let mut part = [b'a'; 32];
        part[11] = LONG_NAME;
        let mut bytes = part.repeat(MOST_ENTRIES);
        let mut entry = [b' '; 32];
        (entry[0], entry[11]) = (b'A', 0);
        bytes.extend(entry);
        let found = parse(&bytes);
        assert_eq!(found.len(), 1);
        assert!(found[0].name.chars().count() <= MOST_UNITS);
    }

    #[test]
    fn what_is_no_fat_or_damaged_gives_nothing() {
        let open = |bytes: Vec<u8>| {
            let sys = Recorded::new().file("/dev/sda1", bytes);
            Fat::open(&sys, Path::new("/dev/sda1")).map(|mut fat| fat.names(&["EFI"]))
        };
        assert!(open(vec![0; 4096]).is_none());
        assert!(open(vec![0xff; 4096]).is_none());
        assert!(open(vec![0; 100]).is_none());
        // A chain that runs in a circle ends.
        let mut bytes = image(32, &["EFI/a"]);
        let sys = Recorded::new().file("/dev/sda1", bytes.clone());
        let fat = Fat::open(&sys, Path::new("/dev/sda1")).unwrap();
        let entry = (fat.table + 2 * 4) as usize;
        bytes[entry..entry + 4].copy_from_slice(&2u32.to_le_bytes());
        assert_eq!(open(bytes), Some(None));
    }
}
