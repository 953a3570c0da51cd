//! A world without disks, for tests of what is done in which order. Planner and comparison are the real ones.

use std::cell::Cell;
use std::sync::Mutex;

use bundle::document::{HostIdentity, Image, SNAPSHOT_FORMAT, Stats, Summary, Tree};
use bundle::extract::ExtractReport;
use layout::apply::{Content, StepError};
use layout::inventory::InventoryDisk;
use layout::model::{Disk, Ext4, Firmware, GptTable, Mount, Node, NodeId, Partition, Table, types};
use layout::plan::Step;
use layout::units::{Bytes, Lba, SectorSize};

use super::*;
use crate::rescue::network::Card;

/// Size of the saved disk's used part: the root partition ends at 1 GiB.
const END: u64 = (1 << 21) - 1;

/// A saved host: one GPT disk with an ext4 root partition.
pub fn saved() -> Layout {
    let disk = NodeId::disk("d0");
    let part = NodeId::partition("p1");
    let fs = NodeId::fs("f1");
    let mut layout = Layout::new(Firmware::Bios);
    layout.nodes.insert(
        disk.clone(),
        Node::Disk(Disk {
            device: "/dev/sda".into(),
            model: Some("OLD".to_owned()),
            serial: Some("OLD-1".to_owned()),
            wwn: None,
            size: Bytes::GIB.plus(Bytes::mib(64)),
            sector_size: SectorSize::S512,
            transport: Some("ata".to_owned()),
            removable: false,
            table: Some(Table::Gpt(GptTable {
                disk_guid: "5e0f5a3c-1111-4000-8000-000000000000".to_owned(),
                first_usable: Lba(34),
                last_usable: Lba(END),
                entries: 128,
            })),
        }),
    );
    layout.nodes.insert(
        part.clone(),
        Node::Partition(Partition {
            on: disk,
            device: "/dev/sda1".into(),
            number: 1,
            type_guid: types::LINUX.to_owned(),
            partuuid: "5e0f5a3c-0000-4000-8000-000000000001".to_owned(),
            name: String::new(),
            attributes: 0,
            start: Lba(2048),
            end: Lba(END),
            sector_size: SectorSize::S512,
        }),
    );
    layout.nodes.insert(
        fs.clone(),
        Node::Ext4(Ext4 {
            on: part,
            fstype: "ext4".to_owned(),
            uuid: "f1".to_owned(),
            label: None,
            block_size: Bytes(4096),
            cluster_size: None,
            inode_size: Bytes(256),
            inodes: 65_536,
            features: Vec::new(),
            default_options: Vec::new(),
            reserved_blocks: 0,
            size: Lba(END + 1 - 2048).offset(SectorSize::S512),
            used: None,
            inodes_used: None,
        }),
    );
    layout.mounts.push(Mount {
        node: fs,
        mount_point: "/".into(),
        fstype: "ext4".to_owned(),
        options: Vec::new(),
        mounted: true,
        fstab: None,
    });
    layout
}

pub fn disk(device: &str, serial: Option<&str>, size: Bytes) -> InventoryDisk {
    InventoryDisk {
        device: device.into(),
        model: Some("NEW".to_owned()),
        serial: serial.map(str::to_owned),
        wwn: None,
        size,
        sector_size: SectorSize::S512,
        removable: false,
        transport: Some("ata".to_owned()),
        media: None,
        read_only: false,
        contents: vec!["ext4 \"old\"".to_owned()],
        vgs: Vec::new(),
        in_use: false,
    }
}

/// What the world does, and what was asked of it, in order.
pub struct Fake {
    pub id: Id,
    /// What the restore point says of the host.
    pub saved: Layout,
    pub disks: Mutex<Vec<InventoryDisk>>,
    pub media: Vec<PathBuf>,
    pub damaged: Vec<Damage>,
    pub extracted: ExtractReport,
    pub guests: Option<guests::Returning>,
    pub missing_of: Vec<(u32, String)>,
    /// Index of the step that fails.
    pub fails_at: Option<usize>,
    /// The layout afterwards; none: the machine cannot be looked at.
    pub after: Option<Layout>,
    pub media_writable: bool,
    pub calls: Mutex<Vec<String>>,
    /// What the restore point says of the host besides its layout.
    pub facts: serde_json::Value,
    /// Files of the restore point, which are restored with its tree.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Whether single files can be read before the restore.
    pub files_readable: bool,
    /// This machine's network cards.
    pub cards: Vec<Card>,
    /// Whether the initramfs was to be made again because of the files.
    pub initramfs: Mutex<Option<bool>>,
}

impl Fake {
    /// All is well: a blank disk of 2 GiB, and the stick.
    pub fn good() -> Self {
        let disks = vec![
            disk("/dev/sdb", Some("NEW-1"), Bytes(2 << 30)),
            disk("/dev/sdc", Some("STICK"), Bytes(8 << 30)),
        ];
        Self {
            id: Id::from_bytes([0xab; 32]),
            saved: saved(),
            disks: Mutex::new(disks),
            media: vec!["/dev/sdc".into()],
            damaged: Vec::new(),
            extracted: ExtractReport::default(),
            guests: None,
            missing_of: Vec::new(),
            fails_at: None,
            after: None,
            media_writable: true,
            calls: Mutex::new(Vec::new()),
            facts: serde_json::Value::Null,
            files: Vec::new(),
            files_readable: true,
            cards: Vec::new(),
            initramfs: Mutex::new(None),
        }
    }

    pub fn damage() -> Damage {
        Damage {
            file: "packs/ab/x.pack".to_owned(),
            pack: Some(Id::from_bytes([1; 32])),
            blob: Some(Id::from_bytes([2; 32])),
            lost: Vec::new(),
            reason: "its content is not what its id says".to_owned(),
            files: vec!["/etc/fstab".to_owned(), "/etc/passwd".to_owned()],
            snapshots: Vec::new(),
        }
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("not poisoned").clone()
    }

    /// Whether anything that writes to disks was asked for.
    pub fn wrote(&self) -> bool {
        self.calls().iter().any(|c| c == "apply")
    }

    fn put(&self, root: &Path, wanted: impl Fn(&Path) -> bool) -> anyhow::Result<()> {
        for (name, content) in self
            .files
            .iter()
            .filter(|(name, _)| wanted(Path::new(name)))
        {
            let path = root.join(name.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().expect("a directory"))?;
            std::fs::write(path, content)?;
        }
        Ok(())
    }

    fn call(&self, what: &str) {
        self.calls
            .lock()
            .expect("not poisoned")
            .push(what.to_owned());
    }
}

impl Parts for Fake {
    fn snapshot(&self, wanted: &str) -> anyhow::Result<(Id, Snapshot)> {
        anyhow::ensure!(
            wanted == "latest" || self.id.to_string().starts_with(wanted),
            "no restore point {wanted}"
        );
        let layout = serde_json::to_value(&self.saved)?;
        let tree = Tree {
            mount_point: "/".to_owned(),
            filesystem: None,
            catalogue: Vec::new(),
            entries: 3,
            files: 2,
            bytes: 10,
            segments: 1,
            summary: Summary::default(),
        };
        let snapshot = Snapshot {
            format: SNAPSHOT_FORMAT,
            host: HostIdentity {
                machine_id: "m".to_owned(),
                hostname: "pve1".to_owned(),
            },
            time: "2026-11-20T02:00:00Z".to_owned(),
            tool_version: "test".to_owned(),
            kind: "host".to_owned(),
            layout,
            trees: vec![tree],
            images: Vec::new(),
            guest: None,
            guests: Vec::new(),
            summary: Summary::default(),
            stats: Stats::default(),
            facts: self.facts.clone(),
        };
        Ok((self.id, snapshot))
    }

    /// All disks in use are so because of an earlier attempt.
    fn take_down(&self, _: &Path) -> anyhow::Result<()> {
        for disk in self.disks.lock().expect("not poisoned").iter_mut() {
            disk.in_use = false;
        }
        Ok(())
    }

    fn inventory(&self, _: &Layout, _: &Choices) -> anyhow::Result<Inventory> {
        let disks = self.disks.lock().expect("not poisoned").clone();
        Ok(Inventory {
            firmware: Firmware::Bios,
            disks,
            memory: Bytes::GIB,
            present: None,
        })
    }

    fn media_disks(&self) -> Vec<PathBuf> {
        self.media.clone()
    }

    fn check_readable(
        &self,
        _: &Snapshot,
        events: &dyn bundle::events::Events,
    ) -> anyhow::Result<VerifyReport> {
        self.call("check");
        events.phase("reading", Some(10));
        events.bytes(10);
        Ok(VerifyReport {
            damaged: self.damaged.clone(),
            ..VerifyReport::default()
        })
    }

    fn guests(&self, _: Id, _: &Snapshot) -> Option<guests::Returning> {
        self.guests.clone()
    }

    fn missing_of(&self, _: &guests::Returning) -> Vec<(u32, String)> {
        self.missing_of.clone()
    }

    fn extract(
        &self,
        _: &Snapshot,
        tree: &Tree,
        into: &Path,
        _: &dyn bundle::events::Events,
    ) -> anyhow::Result<ExtractReport> {
        self.call(&format!("extract {}", tree.mount_point));
        self.put(into, |_| true)?;
        Ok(self.extracted.clone())
    }

    fn files(&self, _: &Snapshot, paths: &[PathBuf], into: &Path) -> anyhow::Result<()> {
        anyhow::ensure!(self.files_readable, "a damaged pack");
        self.put(into, |path| {
            paths.iter().any(|wanted| path.starts_with(wanted))
        })
    }

    fn cards(&self) -> Vec<Card> {
        self.cards.clone()
    }

    fn image_to(
        &self,
        image: &Image,
        _: &Path,
        _: &dyn bundle::events::Events,
    ) -> anyhow::Result<()> {
        self.call(&format!("image {}", image.node));
        Ok(())
    }

    fn luks_opens(&self, image: &Image, _: Bytes, key: &[u8]) -> anyhow::Result<bool> {
        self.call(&format!("luks {}", image.node));
        Ok(key == b"right")
    }

    fn luks_opens_on(&self, device: &Path, key: &[u8]) -> anyhow::Result<Option<bool>> {
        self.call(&format!("luks on {}", device.display()));
        Ok(Some(key == b"right"))
    }

    fn lock(&self) -> anyhow::Result<Box<dyn std::any::Any>> {
        self.call("lock");
        Ok(Box::new(Cell::new(())))
    }

    fn apply(
        &self,
        plan: &Plan,
        _: &Layout,
        root: &Path,
        content: &mut dyn Content,
        events: &dyn layout::apply::Events,
        _: &mut dyn std::io::Write,
    ) -> Result<(), ApplyError> {
        self.call("apply");
        let total = plan.steps.len();
        for (index, step) in plan.steps.iter().enumerate() {
            events.step_started(index, total, step);
            let fail = |source| ApplyError::Step {
                index,
                total,
                step: Box::new(step.clone()),
                source,
            };
            if self.fails_at == Some(index) {
                return Err(fail(StepError::Refused("broken on purpose".to_owned())));
            }
            if let Step::RestoreTree { mount_point } = step {
                content
                    .restore_tree(mount_point, root)
                    .map_err(|e| fail(e.into()))?;
            }
            if let Step::UpdateFstab { .. } = step {
                std::fs::create_dir_all(root).expect("made");
                let changed = content.files_complete(root, &|text| events.note(text));
                *self.initramfs.lock().expect("not poisoned") =
                    Some(changed.map_err(|e| fail(e.into()))?);
            }
        }
        Ok(())
    }

    fn recapture(
        &self,
        plan: &Plan,
        _: &Layout,
        _: &Path,
        _: &mut dyn Content,
    ) -> anyhow::Result<Layout> {
        self.call("recapture");
        let mut now = self
            .after
            .clone()
            .ok_or_else(|| anyhow::anyhow!("nothing to see"))?;
        // The restored machine's disk is the assigned one.
        for node in now.nodes.values_mut() {
            if let Node::Disk(disk) = node {
                disk.device = plan.disks[0].device.clone();
                disk.serial = plan.disks[0].identity.serial.clone();
            }
        }
        Ok(now)
    }

    fn keep_on_media(
        &self,
        copy: &dyn Fn(&Path) -> anyhow::Result<PathBuf>,
    ) -> anyhow::Result<Vec<PathBuf>> {
        self.call("keep");
        anyhow::ensure!(self.media_writable, "the stick is write-protected");
        let dir = tempfile::tempdir()?;
        Ok(vec![copy(dir.path())?])
    }
}
