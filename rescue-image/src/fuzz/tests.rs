//! The targets with damaged seeds: an ordinary test, the same inputs at every run.

use std::path::Path;

use super::media::{Edit, Overlay};
use super::mutate::{damaged, mutate, rounds};
use super::*;
use crate::esp::Esp;
use crate::esp::recorder::{Recorder, SMALL};
use crate::{grub, token};

fn fuzz(target: &Target, count: u64) {
    damaged(target.name, count, &(target.seeds)(), target.read);
}

#[test]
fn fuzz_programs() {
    let seeds = (PROGRAM.seeds)();
    fuzz(&PROGRAM, 4000);
    damaged("notes", 20_000, &seeds[2..], PROGRAM.read);
    // Damage in the headers, which are small beside the rest.
    rounds("program headers", 20_000, |random| {
        let mut data = seeds[random.below(2)].clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(0x400);
            let number = random.odd_number().to_le_bytes();
            data[at..at + 8].copy_from_slice(&number);
        }
        (PROGRAM.read)(&data);
    });
}

#[test]
fn fuzz_packages() {
    fuzz(&PACKAGE, 1500);
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
        let kinds = [
            tar::EntryType::Regular,
            tar::EntryType::Symlink,
            tar::EntryType::Link,
            tar::EntryType::Directory,
        ];
        let members: Vec<_> = (0..1 + random.below(6))
            .map(|_| {
                (
                    *random.pick(&paths),
                    *random.pick(&kinds),
                    *random.pick(&targets),
                )
            })
            .collect();
        (PACKAGE.read)(&seeds::tree(&members));
    });
}

#[test]
fn fuzz_modules() {
    fuzz(&MODULES, 5000);
}

#[test]
fn fuzz_tokens() {
    fuzz(&TOKEN, 10_000);
    assert!(grub::embed(&mut [], &[0; 512]).is_none());
}

#[test]
fn fuzz_guest_lists() {
    let seeds = (GUEST_LIST.seeds)();
    crate::guests::Pending::parse(&seeds[0]).unwrap();
    fuzz(&GUEST_LIST, 10_000);
}

#[test]
fn fuzz_boot_partitions() {
    let whole = Overlay::new(&media::WHOLE.bytes);
    let found = token::find(&mut Esp::new(whole, Path::new("test")));
    assert_eq!(found.unwrap(), Some(seeds::armed()));
    rounds("boot partitions", 1500, |random| {
        let mut input = Vec::new();
        for _ in 0..1 + random.below(4) {
            let (place, offset) = match random.below(3) {
                // A field of the boot sector.
                0 => (0, random.below(90)),
                _ => (random.below(media::places()), random.below(64)),
            };
            let number = random.odd_number().to_le_bytes();
            let width = 1 << random.below(3);
            let edit = Edit {
                place: place as u16,
                offset: offset as u8,
                bytes: number[..width].to_vec(),
            };
            edit.push_to(&mut input);
        }
        (BOOT_PARTITION.read)(&input);
    });
}

#[test]
fn a_directory_without_end_is_not_read_for_ever() {
    let mut disk = Recorder::new(SMALL);
    Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
    let base: &'static [u8] = disk.bytes.leak();
    let le32 = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| base[at + n]));
    let reserved = u64::from(base[14]) | u64::from(base[15]) << 8;
    let (tables, table) = (u64::from(base[16]), u64::from(le32(36)));
    let mut medium = Overlay::new(base);
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
    let seeds = (MEDIUM_TABLE.seeds)();
    rounds("tables of media", 1200, |random| {
        let mut data = random.pick(&seeds).clone();
        match random.below(3) {
            0 => data = mutate(random, &seeds),
            _ => {
                mutate::fields(random, &mut data[1..][..table::HEADER]);
                mutate::fields(random, &mut data[1 + table::HEADER..][..table::HEADER]);
            }
        }
        (MEDIUM_TABLE.read)(&data);
    });
}
