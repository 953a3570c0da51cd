//! What a backup leaves out unless told otherwise. The rule: only what the system makes anew by itself, or what is saved
//! another way. Directories are kept, empty, with owner and mode, so that the restored system finds its mount points.

use serde::Serialize;

/// A default exclusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// An absolute path of the host, or a name at any depth; `*` stays within a name.
    pub pattern: &'static str,
    /// Why nothing is lost by it.
    pub why: &'static str,
}

const fn rule(pattern: &'static str, why: &'static str) -> Rule {
    Rule { pattern, why }
}

/// The default exclusions.
///
/// Not among them, on purpose: ISO images and container templates (a guest whose configuration names a missing ISO does
/// not start), and `/var/lib/docker` and `/var/lib/containers` (the writable layers and volumes there hold data that no
/// image registry has).
pub const DEFAULTS: &[Rule] = &[
    // Other file systems are never entered; these are for when they are plain directories of the root file system.
    rule("/proc/*", "made by the kernel"),
    rule("/sys/*", "made by the kernel"),
    rule("/dev/*", "made by the kernel and udev"),
    rule("/run/*", "emptied at every boot"),
    rule("/tmp/*", "temporary files"),
    rule("/var/tmp/*", "temporary files"),
    rule("/var/lib/lxcfs/*", "a view of the kernel for containers"),
    rule(
        "/var/cache/apt/archives/*.deb",
        "packages that apt downloads again",
    ),
    rule(
        "/var/cache/apt/archives/partial/*",
        "packages that apt downloads again",
    ),
    rule("/var/cache/apt/*.bin", "apt makes them anew"),
    rule("/var/lib/apt/lists/*", "apt update downloads them again"),
    rule("/var/cache/man/*", "man-db makes them anew"),
    rule("/var/cache/fontconfig/*", "fontconfig makes them anew"),
    rule("/root/.cache/*", "caches of programs"),
    rule("/home/*/.cache/*", "caches of programs"),
    rule("/var/lib/systemd/coredump/*", "core dumps"),
    rule("/var/crash/*", "core dumps"),
    rule(
        "/var/lib/vz/images/*",
        "disks of guests: guests are saved by vzdump",
    ),
    rule(
        "/var/lib/vz/private/*",
        "disks of containers: guests are saved by vzdump",
    ),
    rule("/var/lib/vz/dump/*", "dumps of guests: backups themselves"),
    rule(
        "/var/lib/pve/local-btrfs/images/*",
        "disks of guests: guests are saved by vzdump",
    ),
    rule(
        "/var/lib/pve/local-btrfs/dump/*",
        "dumps of guests: backups themselves",
    ),
    rule("/var/lib/libvirt/images/*", "disks of virtual machines"),
    rule("/var/lib/lifeboat/*", "state of this program"),
];

/// Swap files with usual names; those in use are found in `/proc/swaps` as well.
pub const SWAP_NAMES: &[Rule] = &[
    rule("/swapfile", "swap space: its size and place are in fstab"),
    rule("/swap.img", "swap space: its size and place are in fstab"),
    rule(
        "/swap/swapfile",
        "swap space: its size and place are in fstab",
    ),
];

/// Paths of the swap files in use, out of the text of `/proc/swaps`. Octal escapes (`\040`) are decoded.
pub fn swap_files(proc_swaps: &[u8]) -> Vec<std::path::PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    proc_swaps
        .split(|b| *b == b'\n')
        .skip(1)
        .filter_map(|line| {
            let mut fields = line
                .split(|b| b.is_ascii_whitespace())
                .filter(|f| !f.is_empty());
            let (name, kind) = (fields.next()?, fields.next()?);
            (kind == b"file").then(|| std::ffi::OsString::from_vec(unescape(name)).into())
        })
        .collect()
}

/// Decodes the octal escapes of the kernel's tables.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut i = 0;
    while i < text.len() {
        let octal = text
            .get(i + 1..i + 4)
            .filter(|d| text[i] == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match octal {
            Some(d) => {
                out.push(
                    d.iter()
                        .fold(0u8, |n, c| n.wrapping_mul(8).wrapping_add(c - b'0')),
                );
                i += 4;
            }
            None => {
                out.push(text[i]);
                i += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_files_are_found_and_partitions_are_not() {
        let text = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/dm-0                               partition\t8388604\t\t0\t\t-2\n/srv/my\\040swap                         file\t\t1048572\t\t0\t\t-3\n";
        assert_eq!(swap_files(text), [std::path::PathBuf::from("/srv/my swap")]);
        assert!(swap_files(b"").is_empty());
    }

    #[test]
    fn directories_themselves_are_kept() {
        for rule in DEFAULTS {
            assert!(
                rule.pattern.starts_with('/'),
                "{} would match anywhere",
                rule.pattern
            );
            let last = rule.pattern.rsplit('/').next().unwrap();
            assert!(
                last.contains('*'),
                "{} leaves out the directory itself",
                rule.pattern
            );
        }
    }

    #[test]
    fn nothing_that_cannot_be_made_anew() {
        for kept in [
            "docker",
            "containers",
            "template",
            "pve-cluster",
            "/etc",
            "mysql",
        ] {
            assert!(
                !DEFAULTS.iter().any(|r| r.pattern.contains(kept)),
                "{kept} must be saved"
            );
        }
    }
}
