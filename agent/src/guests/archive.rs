//! The archive of a guest's dump, as `qmrestore` and `pct restore` take it: out of the stores, to a pipe or a file.

use std::io::{self, BufWriter, Write};

use anyhow::{Context as _, bail};
use bundle::document::Snapshot;
use bundle::document::guest::{self, GuestDump, GuestKind};
use bundle::events::Events;
use bundle::extract::Block;
use bundle::store::Store;

/// Bytes of the unit in which a VMA archive holds disks.
const CLUSTER: u64 = vma::CLUSTER as u64;
/// A device's number in the header has no more room.
const MAX_DEVICES: usize = 254;
/// What no archive goes on with: a reader cannot take what came before for all of it.
const CUT_OFF: &[u8] = b"\n--- lifeboat: the archive ends here, and is not complete ---\n";

/// Which guest a snapshot is a dump of.
pub fn dump(snapshot: &Snapshot) -> anyhow::Result<&GuestDump> {
    let dump = snapshot.guest.as_ref();
    dump.context("this restore point is no dump of a guest")
}

/// Writes the whole archive: VMA of a VM, tar of a container. When it fails, what was written ends with something that no
/// program takes for the end of an archive.
pub fn write(
    stores: &[&Store],
    snapshot: &Snapshot,
    out: &mut dyn Write,
    events: &dyn Events,
) -> anyhow::Result<()> {
    let written = match dump(snapshot)?.kind {
        GuestKind::Qemu => vm(stores, snapshot, out, events),
        GuestKind::Lxc => container(stores, snapshot, out, events),
    };
    if written.is_err() {
        // Nobody may be there any more to read it.
        let _ = out.write_all(CUT_OFF).and_then(|()| out.flush());
    }
    written
}

/// Whether it failed because nobody reads the archive any more.
pub fn nobody_reads(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// An archive equal in content to the one that was dumped; its clusters come as they lie in the packs.
fn vm(
    stores: &[&Store],
    snapshot: &Snapshot,
    out: &mut dyn Write,
    events: &dyn Events,
) -> anyhow::Result<()> {
    let header = header(snapshot)?;
    // The header first: qmrestore waits for it no longer than a minute.
    let mut archive = vma::Writer::new(out, &header)?;
    let mut failure = None;
    let read = bundle::extract::blocks(
        stores,
        &snapshot.images,
        CLUSTER,
        events,
        &mut |image, offset, block| {
            // Numbers begin with 1.
            let device = image as u8 + 1;
            let put = match block {
                Block::Data(data) => archive.data(device, offset, data),
                Block::Zeroes(length) => archive.zeros(device, offset, length),
            };
            put.map_err(|error| {
                failure = Some(error);
                bundle::Error::Cancelled
            })
        },
    );
    match (failure, read) {
        (Some(error), _) => Err(error.into()),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => {
            archive.finish()?;
            Ok(())
        }
    }
}

fn header(snapshot: &Snapshot) -> anyhow::Result<vma::Header> {
    let dump = dump(snapshot)?;
    if snapshot.images.len() > MAX_DEVICES {
        bail!(
            "{} has {} disks, and an archive holds {MAX_DEVICES}",
            title(snapshot),
            snapshot.images.len()
        );
    }
    let (uuid, ctime) = match &dump.vma {
        Some(identity) => {
            let uuid = uuid::Uuid::parse_str(&identity.uuid);
            (
                uuid.context("the UUID of its archive is none")?,
                identity.ctime,
            )
        }
        None => (uuid::Uuid::new_v4(), crate::values::now()),
    };
    let config = |c: &bundle::document::guest::GuestConfig| vma::Config {
        name: c.name.clone(),
        data: c.data.clone(),
    };
    let device = |(n, image): (usize, &bundle::document::Image)| vma::Device {
        id: n as u8 + 1,
        name: image.node.clone(),
        size: image.size,
    };
    Ok(vma::Header {
        uuid,
        ctime,
        configs: dump.configs.iter().map(config).collect(),
        devices: snapshot.images.iter().enumerate().map(device).collect(),
    })
}

fn container(
    stores: &[&Store],
    snapshot: &Snapshot,
    out: &mut dyn Write,
    events: &dyn Events,
) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, out);
    let written = bundle::extract::guest_tar(stores, snapshot, &mut out, events);
    // With its damaged end, if it has one.
    let flushed = out.flush();
    written?;
    flushed.context("cannot write the archive")
}

/// `VM 100 (web)`
pub fn title(snapshot: &Snapshot) -> String {
    match &snapshot.guest {
        Some(dump) => guest::title(dump.kind, dump.id, dump.name.as_deref()),
        None => "no guest".to_owned(),
    }
}
