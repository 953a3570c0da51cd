//! The stand-ins for Proxmox's programs without a machine: their VMA against the crate `vma`, which shares no line with it,
//! and their command lines. What they do with volumes and containers, the scenario `pve-selftest` shows.
#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;
use vm_tests::artefacts::Artefacts;
use vm_tests::process::{Cmd, Output, installed, output};
use vma::{CLUSTER, Config, Device, Header, Reader, Writer};

const LIMIT: Duration = Duration::from_secs(120);

fn stand_ins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stand-ins")
}

struct Bench {
    dir: tempfile::TempDir,
    log: Artefacts,
}

impl Bench {
    /// `None`: there is no Python here.
    fn new() -> Option<Self> {
        if !installed("python3") {
            eprintln!("ignored: python3 is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let log = Artefacts::new(dir.path().join("log")).unwrap();
        Some(Self { dir, log })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, cmd: Cmd) -> Output {
        let cmd = cmd
            .env("PYTHONPATH", stand_ins().join("lib"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        output(&cmd, &self.log, LIMIT).unwrap()
    }

    fn python(&self, script: &str, args: &[&Path]) -> Output {
        let cmd = Cmd::new("python3").args(["-c", script]);
        self.run(cmd.args(args))
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        output.stderr
    )
}

/// Noise with zeroes between it: whole clusters of them, and single blocks.
fn image(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut image = Vec::with_capacity(size + 8);
    while image.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        image.extend(state.to_le_bytes());
    }
    image.truncate(size);
    for block in image.chunks_mut(4096).skip(2).step_by(5) {
        block.fill(0);
    }
    image[CLUSTER..3 * CLUSTER].fill(0);
    image
}

const DISKS: [(u8, &str, usize); 2] = [
    (1, "drive-scsi0", 200 * CLUSTER),
    (2, "drive-efidisk0", 540_672),
];
const CONF: &[u8] = b"name: written\n#qmdump#map:scsi0:drive-scsi0:local-lvm:raw:\n";

const WRITE: &str = "
import sys, vma
directory = sys.argv[1]
disks = [(1, 'drive-scsi0'), (2, 'drive-efidisk0')]
images = {n: open(f'{directory}/{name}', 'rb').read() for n, name in disks}
conf = open(f'{directory}/conf', 'rb').read()
with open(f'{directory}/archive.vma', 'wb') as out:
    devices = [(n, name, len(images[n])) for n, name in disks]
    writer = vma.Writer(out, [('qemu-server.conf', conf)], devices)
    for n, cluster in vma.order(writer.sizes, 7):
        at = cluster * vma.CLUSTER
        writer.cluster(n, cluster, images[n][at:at + vma.CLUSTER])
    writer.finish()
";

const READ: &str = "
import sys, vma
reader = vma.Reader(open(sys.argv[1], 'rb'))
images = {n: bytearray(size) for n, (_, size) in reader.devices.items()}
for device, offset, data in reader.clusters():
    images[device][offset:offset + len(data)] = data
for n, (name, size) in reader.devices.items():
    assert len(images[n]) == size
    assert bytes(images[n]) == open(f'{sys.argv[2]}/{name}', 'rb').read(), name
assert dict(reader.configs)['qemu-server.conf'] == open(f'{sys.argv[2]}/conf', 'rb').read()
";

#[test]
fn the_product_reads_what_the_stand_in_writes_and_the_other_way_round() {
    let Some(bench) = Bench::new() else { return };
    let images: BTreeMap<&str, Vec<u8>> = DISKS
        .iter()
        .map(|(id, name, size)| (*name, image(*size, u64::from(*id))))
        .collect();
    for (name, data) in &images {
        std::fs::write(bench.path(name), data).unwrap();
    }
    std::fs::write(bench.path("conf"), CONF).unwrap();
    let done = bench.python(WRITE, &[bench.dir.path()]);
    assert!(done.status == 0, "{}", text(&done));

    let archive = std::fs::read(bench.path("archive.vma")).unwrap();
    let mut reader = Reader::new(&archive[..]).unwrap();
    assert_eq!(reader.header().configs[0].data, CONF);
    let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut order = Vec::new();
    while let Some(cluster) = reader.next_cluster().unwrap() {
        let image = found.entry(cluster.device.name.clone()).or_default();
        image.resize(usize::try_from(cluster.device.size).unwrap(), 0);
        let at = usize::try_from(cluster.offset).unwrap();
        image[at..at + cluster.bytes.len()].copy_from_slice(cluster.bytes);
        order.push((cluster.device.id, cluster.offset));
    }
    reader.finish().unwrap();
    for (name, data) in &images {
        assert!(found[*name] == *data, "{name}");
    }
    // As those of a running machine: or the product is never seen to cope with it.
    assert!(!order.is_sorted(), "the clusters come in order");

    let header = Header {
        uuid: Uuid::from_u128(7),
        ctime: 1_700_000_000,
        configs: vec![Config {
            name: "qemu-server.conf".into(),
            data: CONF.to_vec(),
        }],
        devices: DISKS
            .iter()
            .map(|(id, name, size)| Device {
                id: *id,
                name: (*name).into(),
                size: *size as u64,
            })
            .collect(),
    };
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    for (id, name, _) in DISKS {
        for (n, part) in images[name].chunks(CLUSTER).enumerate() {
            writer.data(id, (n * CLUSTER) as u64, part).unwrap();
        }
    }
    let (archive, _) = writer.finish().unwrap();
    let path = bench.path("product.vma");
    std::fs::write(&path, &archive).unwrap();
    let done = bench.python(READ, &[&path, bench.dir.path()]);
    assert!(done.status == 0, "{}", text(&done));

    // What is not whole is refused: qmrestore's stand-in is to notice what Proxmox's notices, and the missing end, too.
    let first = 12_288 + 512;
    let blocks = u16::from_be_bytes([archive[first + 6], archive[first + 7]]);
    let extent = 512 + 4096 * usize::from(blocks);
    let mut doubled = archive.clone();
    doubled.extend_from_slice(&archive[first..first + extent]);
    let mut wrong = archive.clone();
    wrong[first + 60] ^= 1;
    let mut header = archive.clone();
    header[2100] ^= 1;
    for (archive, message) in [
        (archive[..first + extent].to_vec(), "are missing"),
        (archive[..archive.len() - 1].to_vec(), "ends in an extent"),
        (
            archive[..first + 100].to_vec(),
            "ends in an extent's header",
        ),
        (doubled, "is there twice"),
        (wrong, "wrong checksum of an extent"),
        (header, "wrong checksum of the header"),
        (b"VMA\0".to_vec(), "ends in the header"),
    ] {
        std::fs::write(&path, &archive).unwrap();
        let done = bench.python(READ, &[&path, bench.dir.path()]);
        assert!(
            done.status != 0 && text(&done).contains(message),
            "{message}: {}",
            text(&done)
        );
    }
}

#[test]
fn what_is_not_known_is_refused_with_the_status_of_proxmoxs_programs() {
    let Some(bench) = Bench::new() else { return };
    for (program, args, message) in [
        (
            "qmrestore",
            vec!["-", "100", "--frobnicate"],
            "Unknown option: frobnicate",
        ),
        ("qmrestore", vec!["-", "99"], "vmid"),
        ("qmrestore", vec!["-"], "wrong number of arguments"),
        (
            "pct",
            vec!["restore", "200", "-", "--rootfs"],
            "requires an argument",
        ),
        ("pct", vec!["frobnicate"], "unknown command"),
        ("qm", vec!["start", "100"], "Connection refused"),
        (
            "pvesh",
            vec!["get", "/cluster/resources", "--type", "guest"],
            "does not match",
        ),
    ] {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let cmd = Cmd::new("python3").arg(stand_ins().join(program));
        let done = bench.run(cmd.args(args.clone()));
        assert!(
            done.status == 255 && text(&done).contains(message),
            "{program} {args:?}: {} {}",
            done.status,
            text(&done)
        );
    }
}

const DATABASE: &str = "
import shutil, sqlite3, sys, cfs
path = sys.argv[1] + '/config.db'
db = cfs.connect(path)
cfs.create(db)
db.execute('BEGIN IMMEDIATE')
cfs.put(db, 'nodes/golden/qemu-server/100.conf', b'memory: 512')
cfs.put(db, 'storage.cfg', b'dir: local')
cfs.put(db, 'storage.cfg', b'dir: other')
db.execute('COMMIT')
assert [row[:2] for row in cfs.rows(db)] == [
    ('nodes', 4), ('nodes/golden', 4), ('nodes/golden/qemu-server', 4), ('nodes/golden/qemu-server/100.conf', 8),
    ('storage.cfg', 8)]
assert cfs.rows(db)[-1][3] == b'dir: other'
# An inode is the version that made it; the root's row has the newest one.
assert cfs.find(db, 'storage.cfg') == (6, 8)
assert db.execute(\"SELECT inode, name, version FROM tree WHERE inode = 0\").fetchone() == (0, '__version__', 7)
shutil.copy(path, path + '.plain')
try:
    print(sqlite3.connect(path + '.plain').execute('SELECT count(*) FROM tree').fetchone())
except sqlite3.DatabaseError as error:
    assert 'no such table' in str(error), error
else:
    sys.exit('a plain copy has it all: the log is written back')
";

#[test]
fn the_database_is_that_of_pmxcfs() {
    let Some(bench) = Bench::new() else { return };
    let done = bench.python(DATABASE, &[bench.dir.path()]);
    assert!(done.status == 0, "{}", text(&done));
}
