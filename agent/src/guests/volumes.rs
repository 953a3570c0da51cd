//! Volumes of a container on the command line of `pct restore`.
//!
//! With its archive on standard input, `pct restore` makes the volumes that it is told of, and none that the archive's
//! configuration names: all of them have to be repeated, with their storages and sizes. Nor does it take from there whether
//! the container is unprivileged.

use anyhow::{Context as _, bail};

const GIB: f64 = (1u64 << 30) as f64;

/// The options for a container with this `pct.conf`; all volumes go to `storage`, if one is given.
pub fn options(conf: &str, storage: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut options = Vec::new();
    let mut unprivileged = false;
    let mut has_root = false;
    // Snapshots follow in sections.
    for line in conf.lines().take_while(|line| !line.starts_with('[')) {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match key {
            "unprivileged" => unprivileged = value == "1",
            "rootfs" => has_root = true,
            _ => {}
        }
        if key == "rootfs" || is_mount_point(key) {
            options.push(format!("--{key}"));
            options.push(volume(key, value, storage)?);
        }
    }
    if !has_root {
        bail!("the configuration in the dump names no root file system (rootfs)");
    }
    options.push("--unprivileged".to_owned());
    options.push(u8::from(unprivileged).to_string());
    Ok(options)
}

fn is_mount_point(key: &str) -> bool {
    let number = key.strip_prefix("mp");
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// `local-lvm:vm-200-disk-0,mp=/data,size=8G` becomes `local-lvm:8,mp=/data`: a new volume. A directory or device of the
/// host stays what it is.
fn volume(key: &str, value: &str, storage: Option<&str>) -> anyhow::Result<String> {
    let mut place = None;
    let mut gigabytes = None;
    let mut rest = Vec::new();
    for word in value.split(',') {
        match word.split_once('=') {
            None => place = Some(word),
            Some(("volume", word)) => place = Some(word),
            Some(("size", word)) => gigabytes = Some(size(key, word)?),
            Some(_) => rest.push(word),
        }
    }
    let place = place.with_context(|| format!("{key} names no volume: {value:?}"))?;
    let mut out = if place.starts_with('/') {
        place.to_owned()
    } else {
        let (own, _) = place
            .split_once(':')
            .with_context(|| format!("{key} is on no storage: {value:?}"))?;
        let gigabytes = gigabytes.with_context(|| format!("{key} has no size: {value:?}"))?;
        format!("{}:{gigabytes}", storage.unwrap_or(own))
    };
    for word in rest {
        out.push(',');
        out.push_str(word);
    }
    Ok(out)
}

/// Gigabytes, as a number for pct: `8`, `0.5`.
fn size(key: &str, text: &str) -> anyhow::Result<String> {
    let bytes = crate::proxmox::guests::size(text);
    let bytes = bytes.with_context(|| format!("{key} has the size {text:?}, which is none"))?;
    let mut number = format!("{:.9}", bytes.get() as f64 / GIB);
    number.truncate(number.trim_end_matches('0').trim_end_matches('.').len());
    Ok(number)
}

/// The mount points whose files are in no dump, since they are not marked `backup=1`: they are made anew, and empty.
pub fn not_dumped(conf: &str, id: u32) -> Vec<String> {
    let guest = crate::proxmox::guests::parse(id, bundle::document::guest::GuestKind::Lxc, conf);
    let volumes = guest.volumes.into_iter();
    let empty = volumes.filter(|v| !v.dumped && !v.key.starts_with("unused"));
    empty.map(|v| v.key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "arch: amd64\nhostname: db\nmp0: local-lvm:vm-200-disk-1,mp=/data,backup=1,size=512M\nmp1: \
                        /srv/shared,mp=/shared,ro=1\nmp2: local-lvm:vm-200-disk-2,mp=/cache,size=1.5G\nmpx: no\nrootfs: \
                        volume=local-lvm:vm-200-disk-0,size=8G,acl=1\nunprivileged: 1\n\n[before]\nrootfs: \
                        other:x,size=1G\nunprivileged: 0\n";

    #[test]
    fn every_volume_is_told_again() {
        let words = options(CONF, None).unwrap();
        assert_eq!(
            words,
            [
                "--mp0",
                "local-lvm:0.5,mp=/data,backup=1",
                "--mp1",
                "/srv/shared,mp=/shared,ro=1",
                "--mp2",
                "local-lvm:1.5,mp=/cache",
                "--rootfs",
                "local-lvm:8,acl=1",
                "--unprivileged",
                "1",
            ]
        );
        let other = options(CONF, Some("tank")).unwrap();
        assert!(
            other.contains(&"tank:8,acl=1".to_owned())
                && other.contains(&"/srv/shared,mp=/shared,ro=1".to_owned())
        );
        assert_eq!(not_dumped(CONF, 200), ["mp2"]);
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        for (conf, why) in [
            ("hostname: x\n", "no root"),
            ("rootfs: local-lvm:x\n", "no size"),
            ("rootfs: local-lvm:x,size=8Q\n", "is none"),
            ("rootfs: size=8G\n", "no volume"),
            ("rootfs: x,size=8G\n", "no storage"),
        ] {
            let error = options(conf, None).unwrap_err().to_string();
            assert!(error.contains(why), "{conf}: {error}");
        }
        let privileged = options("rootfs: l:x,size=1G\n", None).unwrap();
        assert_eq!(privileged, ["--rootfs", "l:1", "--unprivileged", "0"]);
    }
}
