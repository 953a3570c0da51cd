//! The pseudo file systems of the rescue system.

use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

struct Pseudo {
    kind: &'static str,
    at: &'static str,
    flags: MsFlags,
    data: Option<&'static str>,
    required: bool,
}

fn wanted() -> Vec<Pseudo> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let nosuid = MsFlags::MS_NOSUID;
    vec![
        Pseudo {
            kind: "proc",
            at: "/proc",
            flags: safe,
            data: None,
            required: true,
        },
        Pseudo {
            kind: "sysfs",
            at: "/sys",
            flags: safe,
            data: None,
            required: true,
        },
        Pseudo {
            kind: "devtmpfs",
            at: "/dev",
            flags: nosuid,
            data: Some("mode=0755"),
            required: true,
        },
        Pseudo {
            kind: "devpts",
            at: "/dev/pts",
            flags: nosuid,
            data: Some("mode=0620,gid=5"),
            required: false,
        },
        Pseudo {
            kind: "tmpfs",
            at: "/dev/shm",
            flags: nosuid,
            data: Some("mode=1777"),
            required: false,
        },
        Pseudo {
            kind: "tmpfs",
            at: "/run",
            flags: nosuid,
            data: Some("mode=0755"),
            required: true,
        },
        Pseudo {
            kind: "tmpfs",
            at: "/tmp",
            flags: nosuid,
            data: Some("mode=1777"),
            required: true,
        },
    ]
}

/// Mounts `/proc` if it is not there, so that process 1 finds its own binary.
pub fn proc_only() -> Result<()> {
    let proc = &wanted()[0];
    if Path::new("/proc/self").exists() {
        Ok(())
    } else {
        one(proc)
    }
}

/// Mounts all of them; what is mounted already is left. Returns what failed and can be done without.
pub fn all() -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for pseudo in wanted() {
        if is_mount_point(Path::new(pseudo.at)) {
            continue;
        }
        match one(&pseudo) {
            Ok(()) => {}
            Err(error) if pseudo.required => return Err(error),
            Err(error) => warnings.push(format!("{error:#}")),
        }
    }
    Ok(warnings)
}

/// Mounts the EFI variables when the machine was started by UEFI; `modprobe efivarfs` comes before.
pub fn efi_variables() -> Result<()> {
    let at = "/sys/firmware/efi/efivars";
    if !Path::new("/sys/firmware/efi").is_dir() || is_mount_point(Path::new(at)) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("efivarfs"), at, Some("efivarfs"), flags, None::<&str>).with_context(|| {
        format!("mounting efivarfs on {at} (EFI boot entries cannot be written without it)")
    })
}

fn one(pseudo: &Pseudo) -> Result<()> {
    std::fs::create_dir_all(pseudo.at).with_context(|| format!("creating {}", pseudo.at))?;
    mount(
        Some(pseudo.kind),
        pseudo.at,
        Some(pseudo.kind),
        pseudo.flags,
        pseudo.data,
    )
    .with_context(|| format!("mounting {} on {}", pseudo.kind, pseudo.at))
}

/// Whether something is mounted exactly there: another device number than the directory above has.
pub fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Some(parent) = path.parent() else {
        return true;
    };
    match (std::fs::metadata(path), std::fs::metadata(parent)) {
        (Ok(here), Ok(above)) => here.dev() != above.dev(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_mount_point() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/proc/self")));
        assert!(!is_mount_point(Path::new("/nowhere/at/all")));
    }
}
