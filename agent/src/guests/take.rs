//! Takes the stream of a dump apart: a VMA archive into disks, a container's tar archive into files.

use std::io::Read;

use anyhow::Context as _;
use bundle::backup::Backup;
use bundle::document::guest::{GuestConfig, GuestKind, VmaIdentity};
use bundle::document::{Image, Tree};

/// What was in a dump.
#[derive(Debug, Default)]
pub struct Taken {
    /// A VM's disks.
    pub images: Vec<Image>,
    /// A container's files.
    pub trees: Vec<Tree>,
    /// Its small files.
    pub configs: Vec<GuestConfig>,
    /// Of a VMA archive.
    pub vma: Option<VmaIdentity>,
    /// Sizes of disks and files.
    pub bytes: u64,
}

/// Reads a dump to its end, and stores it. What it returns is complete: an archive of which anything is missing is an
/// error.
pub fn take(
    kind: GuestKind,
    from: &mut dyn Read,
    backup: &mut Backup<'_>,
) -> anyhow::Result<Taken> {
    match kind {
        GuestKind::Qemu => vma(from, backup),
        GuestKind::Lxc => tar(from, backup),
    }
}

fn vma(from: &mut dyn Read, backup: &mut Backup<'_>) -> anyhow::Result<Taken> {
    let mut archive = vma::Reader::new(from).context("the dump is no VMA archive")?;
    let header = archive.header();
    let mut taken = Taken {
        configs: header
            .configs
            .iter()
            .map(|config| GuestConfig {
                name: config.name.clone(),
                data: config.data.clone(),
            })
            .collect(),
        vma: Some(VmaIdentity {
            uuid: header.uuid.simple().to_string(),
            ctime: header.ctime,
        }),
        ..Taken::default()
    };
    let names: Vec<(String, u64)> = header
        .devices
        .iter()
        .map(|device| (device.name.clone(), device.size))
        .collect();
    // By the number that the archive gives a device.
    let mut places = [None; 256];
    for (place, device) in header.devices.iter().enumerate() {
        places[usize::from(device.id)] = Some(place);
    }
    let mut devices = backup.devices(&names)?;
    while let Some(cluster) = archive.next_cluster()? {
        let place = places[usize::from(cluster.device.id)];
        let place = place.context("a cluster of a device that the archive does not list")?;
        devices.cluster(place, cluster.offset, cluster.bytes)?;
    }
    archive.finish()?;
    taken.images = devices.finish()?;
    taken.bytes = taken.images.iter().map(|i| i.size).sum();
    Ok(taken)
}

fn tar(from: &mut dyn Read, backup: &mut Backup<'_>) -> anyhow::Result<Taken> {
    let (tree, configs) = backup.archive(from)?;
    Ok(Taken {
        bytes: tree.bytes,
        trees: vec![tree],
        configs,
        ..Taken::default()
    })
}
