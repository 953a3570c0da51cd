//! The target with damaged seeds: an ordinary test, the same inputs at every run.

use super::mutate::{Random, damaged, rounds};
use super::*;

#[test]
fn fuzz_archives() {
    damaged(
        VMA_ARCHIVE.name,
        2000,
        &(VMA_ARCHIVE.seeds)(),
        VMA_ARCHIVE.read,
    );
}

/// Most of a header is zeroes: damage where something is.
#[test]
fn fuzz_fields_of_archives() {
    let seeds = (VMA_ARCHIVE.seeds)();
    rounds("fields of archives", 3000, |random| {
        let mut data = random.pick(&seeds).clone();
        for _ in 0..1 + random.below(3) {
            field(random, &mut data[1..]);
        }
        if random.below(8) == 0 {
            data.truncate(12289 + random.below(data.len() - 12288));
        }
        (VMA_ARCHIVE.read)(&data);
    });
}

/// Puts an odd number into a field of the header, of a device, of a blob or of an extent.
fn field(random: &mut Random, archive: &mut [u8]) {
    const HEADER: [(usize, usize); 6] = [(4, 4), (24, 8), (48, 4), (52, 4), (56, 4), (4092, 4)];
    // The seeds' headers have the smallest size.
    let mut extents = vec![12800];
    while let Some(at) = extents
        .last()
        .copied()
        .filter(|at| at + 512 < archive.len())
    {
        let blocks = u16::from_be_bytes([archive[at + 6], archive[at + 7]]);
        extents.push(at + 512 + 4096 * usize::from(blocks));
    }
    extents.retain(|at| at + 512 <= archive.len());
    let (at, width) = match random.below(6) {
        0 => *random.pick(&HEADER),
        1 => (2044 + 1024 * random.below(2) + 4 * random.below(3), 4),
        2 => {
            let device = 4096 + 32 * *random.pick(&[0, 1, 2, 3, 254, 255]);
            *random.pick(&[(device, 4), (device + 8, 8)])
        }
        3 => (12288 + random.below(120), 1 + random.below(2)),
        _ if extents.is_empty() => (0, 1),
        _ => {
            let extent = *random.pick(&extents);
            let entry = extent + 40 + 8 * random.below(6);
            let header = (extent + *random.pick(&[0, 4, 6, 8]), 2);
            *random.pick(&[
                header,
                (entry, 2),
                (entry + 2, 1),
                (entry + 3, 1),
                (entry + 4, 4),
            ])
        }
    };
    // Numbers that are near those that are there do more than those that are far from everything.
    let number = match random.below(3) {
        0 => random.odd_number(),
        1 => random.below(16) as u64,
        _ => {
            let now = archive[at..at + width]
                .iter()
                .fold(0u64, |n, b| n << 8 | u64::from(*b));
            now.wrapping_add(random.below(5) as u64).wrapping_sub(2)
        }
    };
    archive[at..at + width].copy_from_slice(&number.to_be_bytes()[8 - width..]);
}

/// The damage gets past the sums, and some of it is harmless.
#[test]
fn repaired_sums_let_the_reader_go_on() {
    let seeds = (VMA_ARCHIVE.seeds)();
    let (mut through, mut faults) = (0, std::collections::BTreeSet::new());
    let mut random = Random::new(1);
    for _ in 0..2000 {
        let mut data = random.pick(&seeds[..3]).clone();
        field(&mut random, &mut data[1..]);
        archives::repair_sums(&mut data[1..]);
        let mut reader = match crate::Reader::new(&data[1..]) {
            Ok(reader) => reader,
            Err(error) => {
                faults.insert(kind(&error.to_string()));
                continue;
            }
        };
        loop {
            match reader.next_cluster() {
                Ok(Some(_)) => {}
                Ok(None) => {
                    through += 1;
                    break;
                }
                Err(error) => {
                    faults.insert(kind(&error.to_string()));
                    break;
                }
            }
        }
    }
    assert!(through > 100, "{through}");
    assert!(faults.len() > 15, "{faults:#?}");
    assert!(
        !faults.iter().any(|fault| fault.contains("MD5")),
        "{faults:#?}"
    );
}

/// A message without its numbers and names.
fn kind(message: &str) -> String {
    let words = message
        .split_whitespace()
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit() || c == '"'));
    words.collect::<Vec<_>>().join(" ")
}
