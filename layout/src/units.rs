//! Newtypes for sizes and addresses. Mixing 512-byte and 4Kn sectors destroys disks, so that bytes, block addresses
//! and sector sizes are types of their own and are converted in one place only: here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A size or an offset in bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A logical block address, in units of the disk's logical sector.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lba(pub u64);

/// The size of a logical sector in bytes: 512, or 4096 on 4Kn disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SectorSize(pub u32);

impl Bytes {
    /// One mebibyte.
    pub const MIB: Bytes = Bytes(1 << 20);
    /// One gibibyte.
    pub const GIB: Bytes = Bytes(1 << 30);

    /// `n` mebibytes.
    pub const fn mib(n: u64) -> Bytes {
        Bytes(n << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The difference, zero when `other` is bigger.
    pub const fn minus(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }

    /// The sum, saturating.
    pub const fn plus(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }

    /// Rounded down to a multiple of `unit` (unchanged when `unit` is zero).
    pub const fn round_down(self, unit: Bytes) -> Bytes {
        if unit.0 == 0 {
            self
        } else {
            Bytes(self.0 - self.0 % unit.0)
        }
    }

    /// Rounded up to a multiple of `unit`, saturating (unchanged when `unit` is zero).
    pub const fn round_up(self, unit: Bytes) -> Bytes {
        if unit.0 == 0 {
            return self;
        }
        match self.0.checked_next_multiple_of(unit.0) {
            Some(bytes) => Bytes(bytes),
            None => Bytes(u64::MAX),
        }
    }

    /// How many whole sectors fit.
    pub const fn sectors(self, sector: SectorSize) -> u64 {
        if sector.0 == 0 {
            0
        } else {
            self.0 / sector.0 as u64
        }
    }
}

impl Lba {
    /// The byte offset of this block.
    pub const fn offset(self, sector: SectorSize) -> Bytes {
        Bytes(self.0.saturating_mul(sector.0 as u64))
    }
}

impl SectorSize {
    /// The classic 512 bytes.
    pub const S512: SectorSize = SectorSize(512);
    /// 4Kn.
    pub const S4096: SectorSize = SectorSize(4096);
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // 1023.95 would print as "1024.0", so the step to the next unit comes just before it.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let number = format!("{value:.1}");
        let number = number.strip_suffix(".0").unwrap_or(&number);
        f.pad(&format!("{number} {}", UNITS[unit]))
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} B", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_like_a_person_writes_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536 << 20, "1.5 GiB"),
            ((1 << 30) - 1, "1 GiB"),
            (500_107_862_016, "465.8 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn addresses_depend_on_the_sector_size() {
        assert_eq!(Lba(2048).offset(SectorSize::S512), Bytes::MIB);
        assert_eq!(Lba(256).offset(SectorSize::S4096), Bytes::MIB);
        assert_eq!(Bytes::MIB.sectors(SectorSize::S4096), 256);
    }
}
