//! Real identifiers to others of the same length and form, the same for the same.

use std::collections::{BTreeMap, BTreeSet};

/// Names that many machines have, and that mean something else as well.
const COMMON_HOSTS: [&str; 12] = [
    "localhost",
    "debian",
    "proxmox",
    "pve",
    "linux",
    "root",
    "data",
    "swap",
    "boot",
    "home",
    "host",
    "server",
];

/// Labels and names of partitions that tell nothing of their owner.
const COMMON_LABELS: [&str; 18] = [
    "LIFEBOAT",
    "LB-BOOT",
    "EFI",
    "ESP",
    "boot",
    "root",
    "home",
    "swap",
    "data",
    "primary",
    "BIOS boot partition",
    "EFI System Partition",
    "EFI system partition",
    "Linux LVM",
    "Linux filesystem",
    "Linux swap",
    "Basic data partition",
    "Microsoft reserved partition",
];

/// A literal that is at least so long is searched for in all texts; a shorter one might be a word.
const LEAST: usize = 6;

/// The mapping.
#[derive(Debug, Default)]
pub(super) struct Names {
    fakes: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    /// Searched for in texts, the longest first.
    literals: Vec<(String, String)>,
    /// UUIDs that mean the same on every machine.
    kept: BTreeSet<String>,
    numbers: u64,
    random: u64,
}

impl Names {
    pub fn new() -> Names {
        Names {
            // Any odd number will do: the same machine gives the same recording.
            random: 0x9e37_79b9_7f4a_7c15,
            // The firmware's variables (UEFI specification 2.10, 3.3).
            kept: ["8be4df61-93ca-11d2-aa0d-00e098032b8c".to_owned()].into(),
            ..Names::default()
        }
    }

    /// This UUID is the same on all machines: a type.
    pub fn keep(&mut self, uuid: &str) {
        self.kept.insert(uuid.to_lowercase());
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn random(&mut self, below: u8) -> u8 {
        // xorshift64 (Marsaglia 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 32) % u64::from(below.max(1))) as u8
    }

    /// Letters become letters, digits digits; all else stays.
    fn alike(&mut self, real: &str) -> String {
        let is_hex = real
            .chars()
            .all(|c| c.is_ascii_hexdigit() || "-.:_".contains(c));
        let letters = if is_hex { 6 } else { 26 };
        let mut fake = String::new();
        // Short ones may meet another's: then another is tried.
        for _ in 0..100 {
            fake = real
                .chars()
                .map(|c| match c {
                    '0'..='9' => (b'0' + self.random(10)) as char,
                    'a'..='z' => (b'a' + self.random(letters)) as char,
                    'A'..='Z' => (b'A' + self.random(letters)) as char,
                    c if c.is_alphabetic() => 'x',
                    other => other,
                })
                .collect();
            if !self.taken.contains(&fake) {
                break;
            }
        }
        fake
    }

    fn fake(&mut self, real: &str, make: impl FnOnce(&mut Names) -> String) -> String {
        if let Some(known) = self.fakes.get(real) {
            return known.clone();
        }
        let fake = make(self);
        self.taken.insert(fake.clone());
        self.fakes.insert(real.to_owned(), fake.clone());
        fake
    }

    fn literal(&mut self, real: &str, fake: &str) {
        if real.len() < LEAST || self.literals.iter().any(|(known, _)| known == real) {
            return;
        }
        self.literals.push((real.to_owned(), fake.to_owned()));
        self.literals
            .sort_by_key(|(real, _)| std::cmp::Reverse(real.len()));
    }

    /// A serial number, a FAT's id or the like: replaced wherever it is met.
    pub fn serial(&mut self, real: &str) -> String {
        let real = real.trim();
        match self.form(real.as_bytes()) {
            Some((length, fake)) if length == real.len() => return fake,
            _ => {}
        }
        let fake = self.fake(real, |names| names.alike(real));
        let is_fat = real.len() == 9 && is_form(real.as_bytes(), "hhhh-hhhh");
        if is_fat || real.bytes().any(|b| b.is_ascii_digit()) {
            self.literal(real, &fake);
        }
        fake
    }

    /// The signature of a disk with an MBR: replaced wherever it is met, with letters only as well.
    pub fn disk_signature(&mut self, real: &str) -> String {
        let fake = self.fake(real, |names| names.alike(real));
        self.literal(real, &fake);
        fake
    }

    /// A world wide name; `0x5000c500...` and `naa.5000c500...` are the same one.
    pub fn wwn(&mut self, real: &str) -> String {
        let real = real.trim();
        for prefix in ["0x", "naa.", "eui.", "nvme.", "t10.", "uuid."] {
            if let Some(core) = real.strip_prefix(prefix) {
                return format!("{prefix}{}", self.serial(core));
            }
        }
        self.serial(real)
    }

    /// A label of a filesystem or a partition's name: replaced only where labels are.
    pub fn label(&mut self, real: &str) -> String {
        if real.is_empty() || COMMON_LABELS.contains(&real) {
            return real.to_owned();
        }
        self.fake(&format!("label {real}"), |names| names.alike(real))
    }

    /// A machine's name, with or without its domain.
    pub fn host(&mut self, real: &str) {
        for name in [real, real.split('.').next().unwrap_or(real)] {
            let name = name.trim();
            if name.len() < 3 || COMMON_HOSTS.contains(&name) {
                continue;
            }
            let fake = self.fake(name, |names| names.alike(name));
            if !self.literals.iter().any(|(known, _)| known == name) {
                self.literals.push((name.to_owned(), fake));
                self.literals
                    .sort_by_key(|(real, _)| std::cmp::Reverse(real.len()));
            }
        }
    }

    /// A UUID as it is written, in the same case.
    pub fn uuid(&mut self, real: &str) -> String {
        let low = real.to_lowercase();
        let zero = low.bytes().all(|b| matches!(b, b'0' | b'-'));
        if zero || self.kept.contains(&low) {
            return real.to_owned();
        }
        let fake = self.fake(&low, |names| {
            let n = names.number();
            format!("{n:08x}-0000-4000-8000-{n:012x}")
        });
        if real == low {
            fake
        } else {
            fake.to_uppercase()
        }
    }

    fn lvm(&mut self, real: &str) -> String {
        self.fake(real, |names| {
            let n = names.number() % 1_000_000;
            format!("Rec{:03}-0000-0000-0000-0000-0000-{n:06}", n % 1000)
        })
    }

    /// Replaces everything in a text that is known or has the form of an identifier.
    pub fn text(&mut self, real: &str) -> String {
        let bytes = real.as_bytes();
        let mut out = String::with_capacity(real.len());
        let mut at = 0;
        while at < bytes.len() {
            let starts = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
            match starts.then(|| self.here(bytes, at)).flatten() {
                Some((length, fake)) => {
                    out.push_str(&fake);
                    at += length;
                }
                None => {
                    // The next character, which may have several bytes.
                    let next = (at + 1..=bytes.len())
                        .find(|end| real.is_char_boundary(*end))
                        .unwrap_or(bytes.len());
                    out.push_str(&real[at..next]);
                    at = next;
                }
            }
        }
        out
    }

    /// What begins here: its length, and what takes its place.
    fn here(&mut self, bytes: &[u8], at: usize) -> Option<(usize, String)> {
        let rest = &bytes[at..];
        let ends = |length: usize| !rest.get(length).is_some_and(u8::is_ascii_alphanumeric);
        let known = self
            .literals
            .iter()
            .find(|(real, _)| rest.starts_with(real.as_bytes()) && ends(real.len()));
        if let Some((real, fake)) = known {
            return Some((real.len(), fake.clone()));
        }
        if bytes[..at].ends_with(b"LVM-") && is_form(rest, DM_LVM) && ends(64) {
            // device-mapper has the group's and the volume's UUID without their hyphens.
            let mut both = String::new();
            for half in [&rest[..32], &rest[32..64]] {
                let half = std::str::from_utf8(half).ok()?;
                let groups = [0..6, 6..10, 10..14, 14..18, 18..22, 22..26, 26..32];
                let real = groups.map(|g| &half[g]).join("-");
                both.push_str(&self.lvm(&real).replace('-', ""));
            }
            return Some((64, both));
        }
        self.form(rest).or_else(|| self.address(rest))
    }

    /// An identifier that is known by its form.
    fn form(&mut self, rest: &[u8]) -> Option<(usize, String)> {
        let ends = |length: usize| !rest.get(length).is_some_and(u8::is_ascii_alphanumeric);
        for (form, length) in [(UUID, 36), (LVM, 38), (MD, 35), (MAC, 17), (PLAIN, 32)] {
            if !is_form(rest, form) || !ends(length) {
                continue;
            }
            let real = std::str::from_utf8(&rest[..length]).ok()?;
            let fake = match form {
                UUID => self.uuid(real),
                LVM => self.lvm(real),
                MD => self.fake(real, |names| {
                    let n = names.number();
                    format!("{n:08x}:00000000:00000000:{n:08x}")
                }),
                MAC => self.fake(real, |names| {
                    let n = names.number();
                    format!("02:00:00:00:{:02x}:{:02x}", n >> 8 & 0xff, n & 0xff)
                }),
                // A UUID without hyphens, as device-mapper has those of LUKS.
                _ => {
                    let cut = [0..8, 8..12, 12..16, 16..20, 20..32].map(|g| &real[g]);
                    self.uuid(&cut.join("-")).replace('-', "")
                }
            };
            return Some((length, fake));
        }
        None
    }

    /// An IPv4 address.
    fn address(&mut self, rest: &[u8]) -> Option<(usize, String)> {
        let length = rest
            .iter()
            .position(|b| !b.is_ascii_digit() && *b != b'.')
            .unwrap_or(rest.len());
        if rest.get(length).is_some_and(u8::is_ascii_alphanumeric) {
            return None;
        }
        let text = std::str::from_utf8(&rest[..length]).ok()?;
        let address: std::net::Ipv4Addr = text.parse().ok()?;
        if address.is_loopback() || address.is_unspecified() {
            return None;
        }
        // Addresses for documentation (RFC 5737).
        let fake = self.fake(text, |names| format!("192.0.2.{}", names.number() % 255));
        Some((length, fake))
    }
}

const UUID: &str = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
const LVM: &str = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa";
const MD: &str = "hhhhhhhh:hhhhhhhh:hhhhhhhh:hhhhhhhh";
const MAC: &str = "hh:hh:hh:hh:hh:hh";
const PLAIN: &str = "hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh";
const DM_LVM: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Whether it begins with this form: `h` is a hexadecimal digit, `a` a letter or digit, all else itself.
fn is_form(text: &[u8], form: &str) -> bool {
    text.len() >= form.len()
        && form.bytes().zip(text).all(|(form, byte)| match form {
            b'h' => byte.is_ascii_hexdigit(),
            b'a' => byte.is_ascii_alphanumeric(),
            other => other == *byte,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_becomes_the_same_and_keeps_its_form() {
        let mut names = Names::new();
        let real = "6f1c9b2e-7a3d-4e5f-8a9b-0c1d2e3f4a5b";
        let fake = names.text(&format!("UUID={real} {}", real.to_uppercase()));
        assert_eq!(
            fake,
            "UUID=00000001-0000-4000-8000-000000000001 00000001-0000-4000-8000-000000000001"
        );
        let serial = names.serial("S5Y2NX0R123456");
        assert_eq!(serial.len(), 14);
        assert_ne!(serial, "S5Y2NX0R123456");
        assert_eq!(
            names.text("ata-Samsung_SSD_870_S5Y2NX0R123456-part1 S5Y2NX0R1234567"),
            format!("ata-Samsung_SSD_870_{serial}-part1 S5Y2NX0R1234567")
        );
        let wwn = names.wwn("0x5002538f12345678");
        assert_eq!(names.wwn("naa.5002538f12345678")[4..], wwn[2..]);
        assert!(wwn[2..].bytes().all(|b| b.is_ascii_hexdigit()), "{wwn}");
    }

    #[test]
    fn lvm_md_and_addresses_are_known_by_their_form() {
        let mut names = Names::new();
        let (vg, lv) = (
            "abCdef-gHij-klMn-opqr-stUv-wxyz-012345",
            "ABCDEF-GHIJ-KLMN-OPQR-STUV-WXYZ-678901",
        );
        let (a, b) = (names.text(vg), names.text(lv));
        assert!(a != vg && a != b && a.len() == vg.len());
        let dm = format!("LVM-{}{}-tpool", vg.replace('-', ""), lv.replace('-', ""));
        let expected = format!("LVM-{}{}-tpool", a.replace('-', ""), b.replace('-', ""));
        assert_eq!(names.text(&dm), expected);
        let text = names.text(
            "MD_UUID=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9 ip=10.1.2.3:: aa:bb:cc:dd:ee:ff 6.8.12-1",
        );
        for real in ["0a1b2c3d", "10.1.2.3", "aa:bb"] {
            assert!(!text.contains(real), "{text}");
        }
        assert!(
            text.ends_with(" 6.8.12-1") && text.contains("ip=192.0.2."),
            "{text}"
        );
        let crypt = "CRYPT-LUKS2-6f1c9b2e7a3d4e5f8a9b0c1d2e3f4a5b-luks-6f1c9b2e-7a3d-4e5f-8a9b-0c1d2e3f4a5b";
        let fake = names.text(crypt);
        let (plain, dashed) = fake[12..].split_once("-luks-").unwrap();
        assert_eq!(plain, dashed.replace('-', ""));
        assert!(!fake.contains("6f1c9b2e"), "{fake}");
    }

    #[test]
    fn host_names_go_and_common_words_stay() {
        let mut names = Names::new();
        names.host("tonga.example.org");
        names.host("pve");
        let text = names.text("/dev/mapper/tonga--vg-root /dev/pve/root tonga.example.org tongan");
        assert!(
            text.ends_with(" tongan") && text.contains("/dev/pve/root"),
            "{text}"
        );
        assert_eq!(text.matches("tonga").count(), 1, "{text}");
        let label = names.label("holiday photos");
        assert!(label != "holiday photos" && label.len() == 14 && label.contains(' '));
        assert_eq!(names.label("EFI"), "EFI");
        assert_eq!(names.text("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").len(), 36);
        names.keep("C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
        // Known already by another name, but a type all the same.
        assert_eq!(
            names.uuid("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
        );
    }
}
