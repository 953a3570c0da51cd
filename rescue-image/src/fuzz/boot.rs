//! What decides whether a restore begins by itself.

use std::path::{Component, Path};

use crate::grub;
use crate::guests::Pending;
use crate::initramfs::RescueInfo;
use crate::rescue::cmdline::CommandLine;
use crate::token::{Armed, FORMAT, parse};

/// The permission on the medium, and the words of the kernel's command line that must repeat it.
pub(super) fn token(data: &[u8]) {
    if let Ok(armed) = parse(data) {
        assert_eq!(armed.format, FORMAT);
        let again: Armed = parse(&serde_json::to_vec(&armed).unwrap()).unwrap();
        assert_eq!(again, armed);
    }
    let text = String::from_utf8_lossy(data);
    CommandLine::parse(&text);
    RescueInfo::from_json(data);
    let mut core = data.to_vec();
    core.resize(core.len().next_multiple_of(512), 0);
    grub::embed(&mut core, data);
}

/// The list of the guests that the first boot after a restore works off, as root.
pub(super) fn guest_list(data: &[u8]) {
    let Ok(list) = Pending::parse(data) else {
        return;
    };
    for place in &list.stores {
        let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::RootDir);
        assert!(Path::new(&place.path).components().all(inside));
        let names = place.filesystem.iter().chain(&place.fs_type);
        assert!(
            names
                .into_iter()
                .all(|name| !name.contains(['/', ',', '\0']))
        );
    }
    let again = Pending::parse(&serde_json::to_vec(&list).unwrap()).unwrap();
    assert_eq!(again, list);
}
