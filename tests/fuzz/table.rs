//! Damages the headers of GUID partition tables, for the fuzz tests of the crates that read them.

use super::mutate::Random;

/// CRC-32 as GPT has it, to make damaged headers count.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

pub fn header(random: &mut Random, disk: &mut [u8], at: usize) {
    let header = &mut disk[at..at + 92];
    for _ in 0..1 + random.below(3) {
        // The fields of numbers: from the size of the header on, but not its sums.
        let field = *random.pick(&[12, 24, 32, 40, 48, 72, 80, 84]);
        let number = random.odd_number().to_le_bytes();
        let width = if field == 12 || field >= 80 { 4 } else { 8 };
        header[field..field + width].copy_from_slice(&number[..width]);
    }
    if random.below(4) > 0 {
        let size = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
        header[16..20].fill(0);
        let sum = crc32(&header[..size.min(92)]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
    }
}
