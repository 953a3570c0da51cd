use std::path::Path;

use super::*;
use crate::model::Node;
use crate::system::{BlockDevice, Image, Output, Usage};
use crate::units::Bytes;

const DISK: &str = "6f1c9b2e-7a3d-4e5f-8a9b-0c1d2e3f4a5b";
const PART: &str = "16f0a7d3-52b1-4c8e-9f00-a1b2c3d4e5f6";
const ROOT: &str = "9d2e4c11-0b7a-4f65-8e21-77aa55cc33ee";
const SERIAL: &str = "S5Y2NX0R123456";

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn guid(text: &str) -> [u8; 16] {
    uuid::Uuid::parse_str(text).unwrap().to_bytes_le()
}

/// A disk of 64 MiB with one partition called "alices disk".
fn disk() -> Image {
    let sectors: u64 = 131_072;
    let mut image = Image {
        size: sectors * 512,
        ..Image::default()
    };
    let mut entries = vec![0u8; 128 * 128];
    entries[..16].copy_from_slice(&guid("0fc63daf-8483-4772-8e79-3d69d8477de4"));
    entries[16..32].copy_from_slice(&guid(PART));
    entries[32..40].copy_from_slice(&2048u64.to_le_bytes());
    entries[40..48].copy_from_slice(&131_000u64.to_le_bytes());
    for (n, unit) in "alices disk".encode_utf16().enumerate() {
        entries[56 + 2 * n..58 + 2 * n].copy_from_slice(&unit.to_le_bytes());
    }
    for (at, other, table) in [(1, sectors - 1, 2), (sectors - 1, 1, sectors - 33)] {
        let mut header = [0u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[24..32].copy_from_slice(&u64::to_le_bytes(at));
        header[32..40].copy_from_slice(&u64::to_le_bytes(other));
        header[40..48].copy_from_slice(&34u64.to_le_bytes());
        header[48..56].copy_from_slice(&(sectors - 34).to_le_bytes());
        header[56..72].copy_from_slice(&guid(DISK));
        header[72..80].copy_from_slice(&u64::to_le_bytes(table));
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let sum = crc32(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        image.set(table * 512, &entries);
        image.set(at * 512, &header);
    }
    // Protective MBR.
    image.set(450, &[0xee]);
    image.set(510, &[0x55, 0xaa]);
    image
}

fn block(name: &str, parent: Option<&str>, minor: u32, properties: &[(&str, &str)]) -> BlockDevice {
    let numbers = [("MAJOR", "8".to_owned()), ("MINOR", minor.to_string())];
    BlockDevice {
        name: name.to_owned(),
        node: Path::new("/dev").join(name),
        parent: parent.map(str::to_owned),
        properties: properties
            .iter()
            .map(|(k, v)| (*k, (*v).to_owned()))
            .chain(numbers)
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
    }
}

/// The machine of somebody called Alice, with more on it than anybody needs to know.
fn machine() -> Recorded {
    let dumpe2fs = include_str!("../../tests/recorded/dumpe2fs.txt");
    let mut text = String::new();
    for line in dumpe2fs.lines() {
        let line = match line.split_once(':') {
            Some(("Filesystem UUID", _)) => format!("Filesystem UUID:          {ROOT}"),
            Some(("Filesystem volume name", _)) => "Filesystem volume name:   holiday".to_owned(),
            Some(("Last mounted on", _)) => "Last mounted on:          /home/alice".to_owned(),
            _ => line.to_owned(),
        };
        text.push_str(&format!("{line}\n"));
    }
    let mut machine = Recorded::new()
        .device(block(
            "sda",
            None,
            0,
            &[
                ("ID_SERIAL", "Samsung_SSD_870_S5Y2NX0R123456"),
                ("ID_SERIAL_SHORT", SERIAL),
                ("ID_WWN", "0x5002538f12345678"),
                ("ID_MODEL", "Samsung_SSD_870"),
                ("ID_PART_TABLE_TYPE", "gpt"),
                ("ID_PATH", "ip-10.2.3.4:3260-iscsi-iqn.2005-10.org.example:secret"),
                ("DEVLINKS", "/dev/disk/by-id/ata-Samsung_SSD_870_S5Y2NX0R123456"),
            ],
        ))
        .device(block(
            "sda1",
            Some("sda"),
            1,
            &[
                ("ID_FS_TYPE", "ext4"),
                ("ID_FS_UUID_ENC", ROOT),
                ("ID_FS_LABEL_ENC", "holiday"),
            ],
        ))
        .file("/sys/class/block/sda/size", "131072\n")
        .file("/sys/class/block/sda/wwid", "naa.5002538f12345678\n")
        .file("/sys/class/block/sda1/size", "128953\n")
        .file("/sys/class/block/sda1/partition", "1\n")
        .file("/proc/sys/kernel/hostname", "tonga\n")
        .file("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=9d2e4c11-0b7a-4f65-8e21-77aa55cc33ee ip=10.9.8.7 token=hush\n")
        .file(
            "/proc/self/mountinfo",
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:45 / /mnt/films rw - nfs4 films.example.org:/x rw\n",
        )
        .file(
            "/etc/fstab",
            format!(
                "# of Alice\nUUID={ROOT} / ext4 defaults 0 1\n//nas/x /mnt/nas cifs username=alice,password=geheim 0 0\n\
                 LABEL=holi\\040day /y ext4 noauto 0 0\n/dev/disk/by-id/ata-Samsung_SSD_870_{SERIAL}-part7 /z ext4 noauto 0 0\n"
            ),
        )
        .command("dumpe2fs -h /dev/sda1", &text);
    machine.images.insert("/dev/sda".into(), disk());
    machine.usage.insert(
        "/".into(),
        Usage {
            size: Bytes::mib(60),
            used: Bytes::mib(20),
            inodes_used: 0,
        },
    );
    // No LVM: it is not installed.
    machine
        .commands
        .insert("blkid -p -o udev /dev/sda2".to_owned(), Output::default());
    machine
}

#[test]
fn a_recording_gives_the_same_layout_and_tells_nothing_of_the_owner() {
    let recording = record(&machine());
    assert_eq!(recording.problems, [""; 0]);
    let text = recording.to_json().unwrap();
    let low = text.to_lowercase();
    for secret in [
        DISK,
        PART,
        ROOT,
        SERIAL,
        "5002538f12345678",
        "10.2.3.4",
        "10.9.8.7",
        "hush",
        "tonga",
        "alice",
        "geheim",
        "//nas",
        "films",
        "holiday",
        "holi",
        "iqn.",
        &hex::encode(guid(DISK)),
        &hex::encode(guid(PART)),
        &hex::encode(
            "alices"
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<_>>(),
        ),
    ] {
        assert!(
            !low.contains(&secret.to_lowercase()),
            "{secret} is in {text}"
        );
    }

    let real = capture(&machine()).unwrap();
    let replayed = capture(&replay(&text).unwrap()).unwrap();
    assert_eq!(kinds(&replayed), kinds(&real));
    assert_eq!(replayed.mounts.len(), 1, "{replayed:?}");
    let fstab = replayed.mounts[0].fstab.as_ref().unwrap();
    assert_eq!(fstab.spec.len(), "UUID=".len() + 36);
    let Some((_, disk)) = replayed.disks().next() else {
        panic!("no disk")
    };
    assert_eq!(disk.serial.as_ref().map(String::len), Some(SERIAL.len()));
    assert_eq!(disk.model.as_deref(), Some("Samsung_SSD_870"));
    let partition = replayed.nodes.values().find_map(|node| match node {
        Node::Partition(p) => Some(p),
        _ => None,
    });
    let partition = partition.unwrap();
    assert_eq!((partition.name.len(), partition.start.0), (11, 2048));
    assert_eq!(
        partition.type_guid,
        "0FC63DAF-8483-4772-8E79-3D69D8477DE4".to_lowercase()
    );
    // What was damaged would be said.
    assert_eq!(replayed.warnings, [""; 0]);
}

#[test]
fn a_damaged_table_stays_damaged() {
    let mut machine = machine();
    // A byte of the backup's header.
    let image = machine.images.get_mut(Path::new("/dev/sda")).unwrap();
    image.set((131_072 - 1) * 512 + 60, &[1]);
    let recording = record(&machine);
    assert_eq!(recording.problems, [""; 0]);
    let (real, replayed) = (
        capture(&machine).unwrap(),
        capture(&recording.machine).unwrap(),
    );
    assert!(!real.warnings.is_empty());
    assert_eq!(kinds(&replayed), kinds(&real));
}

#[test]
fn a_host_that_cannot_be_captured_is_recorded_all_the_same() {
    let machine = machine().command(&crate::capture::lvm::line("pv"), "no JSON");
    let recording = record(&machine);
    assert!(
        recording.problems[0].contains("cannot be captured"),
        "{:?}",
        recording.problems
    );
    assert!(recording.to_json().unwrap().contains("no JSON"));
}

#[test]
fn other_documents_are_refused() {
    let text = record(&machine()).to_json().unwrap();
    let newer = text.replace("\"format_version\": 1", "\"format_version\": 2");
    assert!(matches!(replay(&newer), Err(RecordingError::Version(2))));
    assert!(matches!(replay("{}"), Err(RecordingError::Json(_))));
    let damaged = text.replacen("\"blocks\": {\n", "\"blocks\": {\n\"7\": \"zz\",\n", 1);
    assert!(matches!(replay(&damaged), Err(RecordingError::Damaged(_))));
}
