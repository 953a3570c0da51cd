//! Logical volumes and thin pools, with what is on them.

use super::lvm::{Row, is_guest_volume, policy};
use super::segments::{Volumes, bare};
use super::volumes::lv_path;
use super::{Capture, CaptureError};
use crate::model::{LogicalVolume, Node, NodeId, Segments, ThinPool, VolumeSettings};

pub(super) fn is_active(row: &Row) -> bool {
    row.text("lv_active") == "active" || row.text("lv_attr").chars().nth(4) == Some('a')
}

fn settings(row: &Row) -> VolumeSettings {
    let read_ahead = row.text("lv_read_ahead");
    VolumeSettings {
        allocation: policy(row, "lv_allocation_policy", "inherit"),
        read_ahead: read_ahead
            .parse::<u64>()
            .is_ok()
            .then(|| row.bytes("lv_read_ahead")),
        // Not known before LVM 2.03.12, which activates all.
        autoactivation: row.is_set_or("lv_autoactivation", true),
        skip_activation: row.is_set("lv_skip_activation"),
    }
}

impl Capture<'_> {
    /// Adds a volume of a kind that a restore can make, with what is on it; else names what is lost.
    pub(super) fn volume(
        &mut self,
        vg: &str,
        name: &str,
        row: &Row,
        volumes: &Volumes<'_>,
    ) -> Result<(), CaptureError> {
        let (below, mut cache) = volumes.below_cache(name);
        if cache.is_some() && !volumes.cache_is_there(name) {
            cache = None;
            self.layout.warnings.push(format!(
                "{vg}/{name}: a physical volume of its cache is missing: it is made again without a cache"
            ));
        }
        let segments = match volumes.segments(&below) {
            Ok(segments) => segments,
            Err(kind) => {
                let meaning = match kind.as_str() {
                    "cache-pool" => {
                        "a cache that is attached to nothing holds no data: it is not made again"
                    }
                    "vdo" | "vdo-pool" => {
                        "VDO is not supported: the volume and what is on it are not restored"
                    }
                    _ => {
                        "this kind of volume is not supported: the volume and what is on it are not restored"
                    }
                };
                self.unsupported_volume(vg, row, &format!("LVM volume of type {kind}"), meaning);
                return Ok(());
            }
        };
        let redundant = matches!(&segments, Segments::Mirror { .. })
            || matches!(&segments, Segments::Raid { level, .. } if !level.starts_with("raid0"));
        if volumes.pvs_of(&below).is_none() && !redundant {
            self.unsupported_volume(
                vg,
                row,
                &format!("LVM volume, {segments}"),
                "a physical volume that it lies on is missing or not supported: the volume and what is on it are not restored",
            );
            return Ok(());
        }
        self.volume_warnings(vg, name, row, &segments, volumes.has_integrity(&below));
        let id = NodeId::lv(vg, name);
        let device = lv_path(vg, name);
        let pvs = volumes.pinned(&below, &segments);
        self.layout.nodes.insert(
            id.clone(),
            Node::LogicalVolume(LogicalVolume {
                on: if segments == Segments::Thin {
                    NodeId::lv(vg, row.text("pool_lv"))
                } else {
                    NodeId::vg(vg)
                },
                device: device.clone(),
                name: name.to_owned(),
                uuid: row.text("lv_uuid").to_owned(),
                size: row.bytes("lv_size"),
                active: is_active(row),
                writeable: row.text("lv_attr").chars().nth(1) != Some('r'),
                tags: row.tags("lv_tags"),
                segments,
                pvs,
                settings: settings(row),
                cache,
            }),
        );
        if is_guest_volume(name) {
            return Ok(());
        }
        match self.devices.by_node(&device).cloned() {
            Some(block) => {
                if !self.content(&block, &id)? {
                    self.layout.warnings.push(format!(
                        "{}: no filesystem that is known: the volume is made again, its contents are not restored",
                        device.display()
                    ));
                }
            }
            None => self.layout.warnings.push(format!(
                "{} is not active: what is on it is not known and not restored",
                device.display()
            )),
        }
        Ok(())
    }

    /// What of a volume a restore does not bring back as it was.
    fn volume_warnings(
        &mut self,
        vg: &str,
        name: &str,
        row: &Row,
        segments: &Segments,
        integrity: bool,
    ) {
        let lost = [
            (
                matches!(segments, Segments::Mixed { .. }),
                format!("it consists of {segments}: a restore makes it linear"),
            ),
            (
                integrity,
                "the checksums of its RAID images (raidintegrity) are not made again".to_owned(),
            ),
            (
                row.is_set("lv_fixed_minor"),
                "its fixed device number is not kept".to_owned(),
            ),
            (
                !row.text("lv_profile").is_empty(),
                format!("its profile {} is not kept", row.text("lv_profile")),
            ),
        ];
        for (_, words) in lost.iter().filter(|(so, _)| *so) {
            self.layout.warnings.push(format!("{vg}/{name}: {words}"));
        }
    }

    /// Adds a thin pool.
    pub(super) fn thin_pool(&mut self, vg: &str, name: &str, row: &Row, volumes: &Volumes<'_>) {
        let (data, cache) = volumes.below_cache(bare(row.text("data_lv")));
        let metadata = bare(row.text("metadata_lv"));
        let (segments, metadata_segments) =
            match (volumes.segments(&data), volumes.segments(metadata)) {
                (Ok(data), Ok(metadata)) => (data, metadata),
                (Err(kind), _) | (_, Err(kind)) => {
                    let what = format!("thin pool on a volume of type {kind}");
                    let meaning =
                        "this kind of pool is not supported: it and its volumes are not restored";
                    self.unsupported_volume(vg, row, &what, meaning);
                    return;
                }
            };
        if let Some(cache) = cache {
            self.layout.warnings.push(format!(
                "{vg}/{name}: the pool is made again without its cache {}: attach one with lvconvert",
                cache.name
            ));
        }
        let integrity = volumes.has_integrity(&data) || volumes.has_integrity(metadata);
        self.volume_warnings(vg, name, row, &segments, integrity);
        // Guests' data may be on it all the same, from their own backups.
        if volumes.pvs_of(name).is_none() {
            self.layout.warnings.push(format!(
                "{vg}/{name}: a physical volume that the pool lies on is missing"
            ));
        }
        let pool = ThinPool {
            on: NodeId::vg(vg),
            name: name.to_owned(),
            uuid: row.text("lv_uuid").to_owned(),
            used: row.percent_of("data_percent", row.bytes("lv_size")),
            size: row.bytes("lv_size"),
            chunk_size: row.bytes("chunk_size"),
            metadata_size: row.bytes("lv_metadata_size"),
            zero: matches!(row.text("zero"), "zero" | "1"),
            discards: match row.text("discards") {
                known @ ("ignore" | "nopassdown" | "passdown") => known,
                // LVM's default, also while the pool is not active and the field is empty.
                _ => "passdown",
            }
            .to_owned(),
            spare: volumes
                .rows
                .iter()
                .any(|row| row.text("lv_name").contains("_pmspare")),
            active: is_active(row),
            tags: row.tags("lv_tags"),
            error_when_full: row.text("lv_when_full") == "error",
            pvs: volumes.pinned(&data, &segments),
            metadata_pvs: volumes.pinned(metadata, &metadata_segments),
            segments,
            metadata_segments,
            settings: settings(row),
        };
        self.layout
            .nodes
            .insert(NodeId::lv(vg, name), Node::ThinPool(pool));
    }
}

#[cfg(test)]
mod tests;
