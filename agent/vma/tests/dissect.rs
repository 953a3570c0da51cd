//! A reader of somebody else's takes what the writer writes: `pip install dissect.archive`, for this test only.
#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

mod common;

use std::fmt::Write as _;

use common::{CLUSTER, noise, sha256};
use uuid::Uuid;
use vma::{Config, Device, Header, Writer};

const READ: &str = "
import hashlib, sys
from dissect.archive.vma import VMA
vma = VMA(open(sys.argv[1], 'rb'))
print('created', int(vma.creation_time.timestamp()))
for name in vma.configs():
    print('config', name, hashlib.sha256(vma.config(name)).hexdigest())
for device in vma.devices():
    data = device.open().read()
    print('device', device.id, device.name, device.size, len(data), hashlib.sha256(data).hexdigest())
";

#[test]
#[ignore = "needs dissect.archive in the python3 of PATH, or of LIFEBOAT_TEST_PYTHON"]
fn dissect_reads_what_the_writer_writes() {
    let devices = [
        (1, "drive-scsi0", 100 * CLUSTER + 12_288),
        (2, "drive-efidisk0", 540_672),
    ];
    let data = b"memory: 512\nname: written\n".to_vec();
    let name = "qemu-server.conf".into();
    let mut header = Header {
        uuid: Uuid::from_bytes(common::UUID),
        ctime: 1_700_000_000,
        configs: vec![Config { name, data }],
        devices: Vec::new(),
    };
    let mut expected = format!(
        "created 1700000000\nconfig qemu-server.conf {}\n",
        sha256(&header.configs[0].data)
    );
    let mut clusters = Vec::new();
    for (id, name, size) in devices {
        let mut image = noise(size, id.into());
        for block in image.chunks_mut(4096).skip(1).step_by(3) {
            block.fill(0);
        }
        image[3 * CLUSTER..5 * CLUSTER].fill(0);
        let hash = sha256(&image);
        writeln!(expected, "device {id} {name} {size} {size} {hash}").unwrap();
        let part = |(n, part): (usize, &[u8])| (id, (n * CLUSTER) as u64, part.to_vec());
        clusters.extend(image.chunks(CLUSTER).enumerate().map(part));
        let (name, size) = (name.into(), size as u64);
        header.devices.push(Device { id, name, size });
    }
    // Interleaved, out of order.
    clusters.sort_by_key(|(id, offset, _)| sha256(format!("{id} {offset}").as_bytes()));
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = Writer::new(file.as_file(), &header).unwrap();
    for (id, offset, data) in &clusters {
        writer.data(*id, *offset, data).unwrap();
    }
    writer.finish().unwrap();
    let python = std::env::var_os("LIFEBOAT_TEST_PYTHON").unwrap_or("python3".into());
    #[allow(
        clippy::disallowed_methods,
        reason = "a judge that is not this project's code"
    )]
    let mut command = std::process::Command::new(python);
    let output = command
        .args(["-c", READ])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}
