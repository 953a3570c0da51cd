//! What the writer writes, the reader reads, and so it does with what an independent maker of archives makes.
#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

mod common;

use std::io::Cursor;

use common::*;
use proptest::prelude::*;
use uuid::Uuid;
use vma::{Config, Device, Error, Header, HeaderFault, Writer};

/// An image of which each block is noise or zeroes, as the bits say.
fn image(size: usize, bits: u64) -> Vec<u8> {
    let mut image = noise(size, bits);
    for (n, block) in image.chunks_mut(4096).enumerate() {
        if bits >> (n % 61) & 1 == 0 {
            block.fill(0);
        }
    }
    image
}

#[derive(Debug, Clone)]
struct Machine {
    header: Header,
    images: Vec<Vec<u8>>,
    order: Vec<(usize, u32)>,
    per_extent: usize,
}

fn machines() -> impl Strategy<Value = Machine> {
    let size = prop_oneof![
        1..5000usize,
        60_000..70_000usize,
        1..300_000usize,
        Just(4 * CLUSTER)
    ];
    let devices = prop::collection::btree_map(1..=254u8, (size, any::<u64>()), 0..4);
    let config = (
        "[a-z][a-z.-]{0,20}",
        prop::collection::vec(any::<u8>(), 0..2000),
    );
    let configs = prop::collection::btree_map(config.0, config.1, 0..4);
    let rest = (any::<[u8; 16]>(), any::<i64>(), 1..=59usize);
    (devices, configs, rest)
        .prop_map(|(devices, configs, (uuid, ctime, per_extent))| {
            let (mut list, mut images, mut order) = (Vec::new(), Vec::new(), Vec::new());
            for (position, (id, (size, bits))) in devices.into_iter().enumerate() {
                let size = size as u64;
                let name = format!("drive-scsi{id}");
                list.push(Device { id, name, size });
                images.push(image(size as usize, bits));
                order.extend((0..size.div_ceil(CLUSTER as u64)).map(|n| (position, n as u32)));
            }
            let config = |(name, data)| Config { name, data };
            let header = Header {
                uuid: Uuid::from_bytes(uuid),
                ctime,
                configs: configs.into_iter().map(config).collect(),
                devices: list,
            };
            (header, images, order, per_extent)
        })
        .prop_flat_map(|(header, images, order, per_extent)| {
            (
                Just((header, images, per_extent)),
                Just(order).prop_shuffle(),
            )
        })
        .prop_map(|((header, images, per_extent), order)| Machine {
            header,
            images,
            order,
            per_extent,
        })
}

fn check(read: &Read, machine: &Machine) {
    for (device, image) in machine.header.devices.iter().zip(&machine.images) {
        assert!(read.images[&device.name] == *image, "{device:?}");
    }
    let place = |(position, cluster): &(usize, u32)| {
        let id = machine.header.devices[*position].id;
        (id, u64::from(*cluster) * CLUSTER as u64)
    };
    assert_eq!(
        read.order,
        machine.order.iter().map(place).collect::<Vec<_>>()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn clusters_in_any_order(machine in machines()) {
        let mut writer = Writer::new(Vec::new(), &machine.header).unwrap();
        for (position, cluster) in &machine.order {
            let (image, at) = (&machine.images[*position], *cluster as usize * CLUSTER);
            let data = &image[at..image.len().min(at + CLUSTER)];
            let id = machine.header.devices[*position].id;
            if data.iter().all(|b| *b == 0) && cluster % 2 == 0 {
                writer.zeros(id, at as u64, data.len() as u64).unwrap();
            } else {
                writer.data(id, at as u64, data).unwrap();
            }
        }
        let (bytes, totals) = writer.finish().unwrap();
        let read = read(&bytes[..]).unwrap();
        check(&read, &machine);
        prop_assert_eq!(&read.header, &machine.header);
        prop_assert_eq!(read.totals, totals);
        // As few extents as there can be.
        prop_assert_eq!(totals.extents, (machine.order.len() as u64).div_ceil(59).max(1));
    }

    #[test]
    fn another_maker_of_archives(machine in machines()) {
        let mut raw = RawHeader::new();
        for config in &machine.header.configs {
            raw = raw.config(format!("{}\0", config.name).as_bytes(), &config.data);
        }
        for device in &machine.header.devices {
            raw = raw.device(device.id.into(), format!("{}\0", device.name).as_bytes(), device.size);
        }
        let pairs = machine.header.devices.iter().zip(&machine.images);
        let images: Vec<(u8, &[u8])> = pairs.map(|(d, image)| (d.id, &image[..])).collect();
        let bytes = archive(&raw, &images, &machine.order, machine.per_extent);
        let read = read(&bytes[..]).unwrap();
        check(&read, &machine);
        prop_assert_eq!(&read.header.configs, &machine.header.configs);
        prop_assert_eq!(&read.header.devices, &machine.header.devices);
        // Both make the same bytes of the same clusters.
        if machine.per_extent == 59 {
            prop_assert!(write(&read) == bytes);
        }
    }
}

#[test]
fn full_extents_are_the_same_bytes_from_both_makers() {
    let size = 130 * CLUSTER - 4000;
    let image = image(size, 0x5555_1234_9999_7777);
    let raw = RawHeader::new()
        .config(b"a\0", b"b")
        .device(1, b"drive-ide0\0", size as u64);
    let order: Vec<_> = (0..130).map(|n| (0, n * 7 % 130)).collect();
    let bytes = archive(&raw, &[(1, &image)], &order, 59);
    let read = read(&bytes[..]).unwrap();
    assert!(read.images["drive-ide0"] == image);
    assert_eq!(read.totals.extents, 3);
    assert!(write(&read) == bytes);
    // In order, from a stream and in larger parts.
    let mut writer = Writer::new(Vec::new(), &read.header).unwrap();
    writer.image(1, &image[..]).unwrap();
    let (streamed, _) = writer.finish().unwrap();
    let mut writer = Writer::new(Vec::new(), &read.header).unwrap();
    for (n, part) in image.chunks(16 * CLUSTER).enumerate() {
        writer.data(1, (n * 16 * CLUSTER) as u64, part).unwrap();
    }
    let (parts, _) = writer.finish().unwrap();
    assert!(streamed == parts);
    assert!(common::read(&streamed[..]).unwrap().images["drive-ide0"] == image);
}

fn two_clusters() -> Header {
    Header {
        uuid: Uuid::nil(),
        ctime: 0,
        configs: Vec::new(),
        devices: vec![Device {
            id: 5,
            name: "drive-sata0".into(),
            size: CLUSTER as u64 + 100,
        }],
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut writer = Writer::new(Vec::new(), &two_clusters()).unwrap();
    let c = CLUSTER as u64;
    let data = vec![1; CLUSTER + 100];
    let mut refused = |id, at, length: usize, expected: &str| {
        let error = writer
            .data(id, at, &data[..length])
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        let error = writer.zeros(id, at, length as u64).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(1, 0, 100, "no such device");
    refused(0, 0, 100, "no such device");
    refused(5, 0, 100, "no part of whole clusters");
    refused(5, 4096, 4096, "no part of whole clusters");
    refused(5, c, 101, "the device ends before that");
    refused(5, 2 * c, 1, "the device ends before that");
    refused(5, u64::MAX, 1, "the device ends before that");
    writer.data(5, c, &data[..100]).unwrap();
    let error = writer.zeros(5, c, 100).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot write byte 65536 of device 5: that cluster was written before"
    );
    // The first one was not written.
    let error = writer.finish().unwrap_err().to_string();
    assert!(
        error.contains("1 of the 2 clusters of \"drive-sata0\" are missing, the first at byte 0"),
        "{error}"
    );
}

#[test]
fn an_image_must_have_the_size_of_its_device() {
    for (length, expected) in [
        (
            CLUSTER + 99,
            Some("cannot read the image of \"drive-sata0\" at byte 65536"),
        ),
        (CLUSTER + 101, Some("the image is longer than the device")),
        (CLUSTER + 100, None),
    ] {
        let mut writer = Writer::new(Vec::new(), &two_clusters()).unwrap();
        let written = writer.image(5, Cursor::new(vec![3; length]));
        match expected {
            Some(expected) => assert!(written.unwrap_err().to_string().contains(expected)),
            None => assert!(read(&writer.finish().unwrap().0[..]).is_ok()),
        }
    }
}

#[test]
fn a_header_that_no_reader_takes_is_not_written() {
    let with = |change: fn(&mut Header)| {
        let mut header = two_clusters();
        change(&mut header);
        match Writer::new(Vec::new(), &header).err() {
            Some(Error::Header(fault)) => fault,
            other => panic!("{other:?}"),
        }
    };
    let config = |name: &str, size| Config {
        name: name.into(),
        data: vec![1; size],
    };
    assert_eq!(with(|h| h.devices[0].id = 0), HeaderFault::DeviceId(0));
    assert_eq!(with(|h| h.devices[0].id = 255), HeaderFault::DeviceId(255));
    assert_eq!(
        with(|h| h.devices.push(h.devices[0].clone())),
        HeaderFault::DeviceId(5)
    );
    assert!(matches!(
        with(|h| h.devices[0].size = 0),
        HeaderFault::DeviceSize { .. }
    ));
    assert!(matches!(
        with(|h| h.devices[0].name = "a\0b".into()),
        HeaderFault::Name { .. }
    ));
    let large = config("large", 65536);
    let mut header = two_clusters();
    header.configs.push(large);
    let error = Writer::new(Vec::new(), &header).err().unwrap().to_string();
    assert!(error.contains("\"large\" has 65536 bytes"), "{error}");
    // Each of them is not too large, and all together are.
    header.configs = (0..9).map(|n| config(&format!("c{n}"), 65535)).collect();
    let error = Writer::new(Vec::new(), &header).err().unwrap().to_string();
    assert!(error.contains("size is given as"), "{error}");
    header.configs.truncate(7);
    assert!(Writer::new(Vec::new(), &header).is_ok());
    header.configs = (0..257).map(|n| config(&format!("c{n}"), 1)).collect();
    let error = Writer::new(Vec::new(), &header).err().unwrap().to_string();
    assert!(error.contains("257 configurations"), "{error}");
}

#[test]
fn a_pipe_that_breaks_leaves_the_writer_unusable() {
    struct Breaks(usize);
    impl std::io::Write for Breaks {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            let n = self.0.min(buffer.len());
            self.0 -= n;
            match n {
                0 => Err(std::io::ErrorKind::BrokenPipe.into()),
                n => Ok(n),
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(
        Writer::new(Breaks(100), &two_clusters()),
        Err(Error::Write { .. })
    ));
    let mut header = two_clusters();
    header.devices[0].size = 100 * CLUSTER as u64;
    let mut writer = Writer::new(Breaks(20_000), &header).unwrap();
    let image = noise(100 * CLUSTER, 1);
    let error = writer.image(5, &image[..]).unwrap_err();
    assert!(
        matches!(error, Error::Write { offset: 12800, .. }),
        "{error}"
    );
    let error = writer
        .data(5, 99 * CLUSTER as u64, &image[..CLUSTER])
        .unwrap_err();
    assert!(matches!(error, Error::Unusable(12800)), "{error}");
    assert!(matches!(writer.finish(), Err(Error::Unusable(12800))));
}
