//! Swap files: what fstab and the kernel name, and the header in the file itself.

use std::collections::BTreeSet;
use std::io::{Read, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Capture, mount};
use crate::model::{Node, NodeId, SwapFile};
use crate::system::{ReadSeek, System};
use crate::units::Bytes;

/// What the header says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Header {
    pub uuid: Option<String>,
    pub label: Option<String>,
    pub page_size: Bytes,
    /// Length of the file.
    pub size: Bytes,
}

/// Page sizes that Linux knows.
const PAGES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];

/// Reads `union swap_header` (kernel: include/linux/swap.h): the signature ends the first page, the UUID is at byte 1036,
/// the label at byte 1052. `None`: it is no swap area.
pub(crate) fn header(file: &mut dyn ReadSeek) -> Option<Header> {
    let size = file.seek(SeekFrom::End(0)).ok()?;
    file.rewind().ok()?;
    let mut head = Vec::new();
    file.take(65_536).read_to_end(&mut head).ok()?;
    let page = PAGES
        .into_iter()
        .find(|page| head.get(page - 10..*page) == Some(b"SWAPSPACE2"))?;
    let uuid = uuid::Uuid::from_slice(head.get(1036..1052)?).ok()?;
    let label: Vec<u8> = head
        .get(1052..1068)?
        .iter()
        .copied()
        .take_while(|b| *b != 0)
        .collect();
    Some(Header {
        uuid: (!uuid.is_nil()).then(|| uuid.to_string()),
        label: (!label.is_empty()).then(|| String::from_utf8_lossy(&label).into_owned()),
        page_size: Bytes(page as u64),
        size: Bytes(size),
    })
}

/// The header of the file at a path.
pub(crate) fn header_of(sys: &dyn System, path: &Path) -> Option<Header> {
    header(sys.open(path).ok()?.as_mut())
}

impl Capture<'_> {
    /// Adds the swap files that fstab names, and those in use.
    pub(super) fn swap_files(&mut self) {
        let text = self
            .sys
            .text(&self.root.join("etc/fstab"))
            .unwrap_or_default();
        let fstab = mount::parse_fstab(&text);
        let is_file = |path: &Path| path.is_absolute() && !path.starts_with("/dev");
        let mut paths: BTreeSet<PathBuf> = fstab
            .iter()
            .filter(|entry| entry.fstype == "swap")
            .map(|entry| PathBuf::from(&entry.spec))
            .collect();
        // What the kernel swaps to belongs to the system that is running.
        let active = match self.root == Path::new("/") {
            true => mount::active_swaps(self.sys),
            false => Vec::new(),
        };
        paths.extend(active.iter().cloned());
        for path in paths.into_iter().filter(|path| is_file(path)) {
            let below = path.strip_prefix("/").unwrap_or(&path);
            let Some(header) = header_of(self.sys, &self.root.join(below)) else {
                self.layout.warnings.push(format!(
                    "swap file {}: it is not there or is no swap area: a restore does not make it",
                    path.display()
                ));
                continue;
            };
            let on = self
                .layout
                .mounts
                .iter()
                .filter(|m| m.mounted && path.starts_with(&m.mount_point))
                .max_by_key(|m| m.mount_point.components().count())
                .map(|m| m.node.clone());
            let Some(on) = on else {
                self.layout.warnings.push(format!(
                    "swap file {}: it lies on no filesystem that is known: a restore does not make it",
                    path.display()
                ));
                continue;
            };
            self.layout.nodes.insert(
                NodeId::swap_file(&path),
                Node::SwapFile(SwapFile {
                    on,
                    uuid: header.uuid,
                    label: header.label,
                    page_size: header.page_size,
                    size: header.size,
                    active: active.contains(&path),
                    fstab: fstab
                        .iter()
                        .find(|e| e.fstype == "swap" && Path::new(&e.spec) == path)
                        .cloned(),
                    path,
                }),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Recorded;

    /// As `mkswap -U 5e0f5a3c-0000-4000-8000-000000000001 -L paging` makes it of 64 KiB.
    fn area() -> Vec<u8> {
        let mut file = vec![0; 65_536];
        file[4086..4096].copy_from_slice(b"SWAPSPACE2");
        file[1036..1052].copy_from_slice(&[
            0x5e, 0x0f, 0x5a, 0x3c, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1,
        ]);
        file[1052..1058].copy_from_slice(b"paging");
        file
    }

    #[test]
    fn the_header_of_a_swap_file_is_understood() {
        let sys = Recorded::new()
            .file("/swapfile", area())
            .file("/other", vec![0; 65_536]);
        assert_eq!(
            header_of(&sys, Path::new("/swapfile")),
            Some(Header {
                uuid: Some("5e0f5a3c-0000-4000-8000-000000000001".to_owned()),
                label: Some("paging".to_owned()),
                page_size: Bytes(4096),
                size: Bytes(65_536),
            })
        );
        assert_eq!(header_of(&sys, Path::new("/other")), None);
        assert_eq!(header_of(&sys, Path::new("/gone")), None);
    }
}
