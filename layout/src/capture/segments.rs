//! How volumes lie on physical volumes: LVM's report of the volumes and of the hidden ones below them.

use std::collections::{BTreeMap, BTreeSet};

use super::lvm::Row;
use crate::model::{Cache, NodeId, Segments};
use crate::units::Bytes;

/// How deep hidden volumes are nested at most: pool, cache, RAID, integrity, and room for more.
const DEPTH: u8 = 10;

/// The kinds of RAID that `lvcreate --type` makes (lvmraid(7)).
pub(crate) const RAID_LEVELS: [&str; 21] = [
    "raid0",
    "raid0_meta",
    "raid1",
    "raid10",
    "raid10_near",
    "raid4",
    "raid5",
    "raid5_n",
    "raid5_la",
    "raid5_ls",
    "raid5_ra",
    "raid5_rs",
    "raid6",
    "raid6_n_6",
    "raid6_nc",
    "raid6_nr",
    "raid6_zr",
    "raid6_ls_6",
    "raid6_rs_6",
    "raid6_la_6",
    "raid6_ra_6",
];

/// The volumes of one group.
pub(crate) struct Volumes<'a> {
    /// One row per segment, in order.
    pub rows: &'a [Row],
    /// The physical volumes that are there: device to node.
    pub pvs: &'a BTreeMap<String, NodeId>,
}

/// LVM puts brackets around what is hidden or missing.
pub(crate) fn bare(name: &str) -> &str {
    name.trim_start_matches('[').trim_end_matches(']')
}

/// `[root_rimage_0](0),[root_rimage_1](0)` without brackets and extents.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(|part| bare(part.rsplit_once('(').map_or(part, |(name, _)| name)))
        .filter(|name| !name.is_empty())
}

impl Volumes<'_> {
    fn rows_of<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Row> {
        self.rows
            .iter()
            .filter(move |row| bare(row.text("lv_name")) == name)
    }

    /// How a volume lies on physical volumes, or the type of LVM's that is none of the known ones.
    pub fn segments(&self, name: &str) -> Result<Segments, String> {
        let mut all = Vec::new();
        for row in self.rows_of(name) {
            all.push(segment(row)?);
        }
        let Some(first) = all.first() else {
            return Err("unknown".to_owned());
        };
        if all.iter().all(|other| other == first) {
            return Ok(first.clone());
        }
        let pieces = all.iter().map(|segment| match segment {
            Segments::Linear => Ok("linear".to_owned()),
            Segments::Striped { stripes, .. } => Ok(format!("striped({stripes})")),
            other => Err(format!("several pieces, one of them {other}")),
        });
        Ok(Segments::Mixed {
            pieces: pieces.collect::<Result<_, _>>()?,
        })
    }

    /// The volume that holds the data of this one, and the cache in between.
    pub fn below_cache(&self, name: &str) -> (String, Option<Cache>) {
        let Some(row) = self.rows_of(name).next() else {
            return (name.to_owned(), None);
        };
        let kind = row.text("segtype");
        let origin = names(row.text("devices")).next();
        let (Some(origin), "cache" | "writecache") = (origin, kind) else {
            return (name.to_owned(), None);
        };
        let fast = bare(row.text("pool_lv"));
        let pool = self
            .rows_of(fast)
            .next()
            .filter(|row| row.text("segtype") == "cache-pool");
        let first = |field: &str| {
            let of_pool = pool.map_or("", |pool| pool.text(field));
            let text = if of_pool.is_empty() {
                row.text(field)
            } else {
                of_pool
            };
            text.to_owned()
        };
        let cached = kind == "cache";
        let pvs: Vec<NodeId> = self.pvs_of(fast).unwrap_or_default().into_iter().collect();
        let cache = Cache {
            kind: kind.to_owned(),
            name: fast
                .strip_suffix("_cvol")
                .or_else(|| fast.strip_suffix("_cpool"))
                .unwrap_or(fast)
                .to_owned(),
            pool: pool.is_some(),
            size: self
                .rows_of(fast)
                .next()
                .map_or(Bytes(0), |row| row.bytes("lv_size")),
            metadata_size: pool.map_or(Bytes(0), |row| row.bytes("lv_metadata_size")),
            chunk_size: Bytes(if cached {
                first("chunk_size").parse().unwrap_or(0)
            } else {
                0
            }),
            mode: if cached {
                first("cache_mode")
            } else {
                String::new()
            },
            policy: if cached {
                first("cache_policy")
            } else {
                String::new()
            },
            pvs: if self.pvs.len() > 1 && pvs.len() == 1 {
                pvs
            } else {
                Vec::new()
            },
        };
        (origin.to_owned(), Some(cache))
    }

    /// Whether the cache in front of a volume has all of its physical volumes.
    pub fn cache_is_there(&self, name: &str) -> bool {
        self.rows_of(name)
            .next()
            .is_some_and(|row| self.pvs_of(bare(row.text("pool_lv"))).is_some())
    }

    /// The physical volumes that a volume lies on, or `None` when one of them is missing.
    pub fn pvs_of(&self, name: &str) -> Option<BTreeSet<NodeId>> {
        self.collect(name, DEPTH)
    }

    fn collect(&self, name: &str, depth: u8) -> Option<BTreeSet<NodeId>> {
        if let Some(pv) = self.pvs.get(name) {
            return Some([pv.clone()].into());
        }
        let mut found = BTreeSet::new();
        let mut known = false;
        for row in self.rows_of(name) {
            known = true;
            for field in ["devices", "metadata_devices", "mirror_log", "metadata_lv"] {
                for below in names(row.text(field)) {
                    found.extend(self.collect(below, depth.checked_sub(1)?)?);
                }
            }
        }
        known.then_some(found)
    }

    /// The physical volumes to give to `lvcreate`: when the group has several, and each image lies on one of its own.
    /// Else none, and LVM chooses.
    pub fn pinned(&self, name: &str, segments: &Segments) -> Vec<NodeId> {
        if self.pvs.len() < 2 {
            return Vec::new();
        }
        let mut images: BTreeMap<usize, BTreeSet<NodeId>> = BTreeMap::new();
        let mut all = BTreeSet::new();
        for row in self.rows_of(name) {
            for field in ["devices", "metadata_devices"] {
                for (index, below) in names(row.text(field)).enumerate() {
                    let Some(pvs) = self.pvs_of(below) else {
                        return Vec::new();
                    };
                    images.entry(index).or_default().extend(pvs);
                }
            }
            // The log of an old mirror lies where there is room.
            for log in names(row.text("mirror_log")) {
                all.extend(self.pvs_of(log).unwrap_or_default());
            }
        }
        let each_on_one = images.values().all(|pvs| pvs.len() == 1);
        let distinct: BTreeSet<NodeId> = images.values().flatten().cloned().collect();
        if !each_on_one
            || distinct.len() != images.len()
            || images.len() as u32 != segments.images()
        {
            return Vec::new();
        }
        all.extend(distinct);
        all.into_iter().collect()
    }

    /// Whether the images of a RAID volume have checksums.
    pub fn has_integrity(&self, name: &str) -> bool {
        self.has(name, "integrity", DEPTH)
    }

    fn has(&self, name: &str, kind: &str, depth: u8) -> bool {
        self.rows_of(name).any(|row| {
            row.text("segtype") == kind
                || (depth > 0
                    && names(row.text("devices")).any(|below| self.has(below, kind, depth - 1)))
        })
    }
}

/// How the data lies in one segment, or LVM's type when it is none of the known ones.
pub(crate) fn segment(row: &Row) -> Result<Segments, String> {
    let number = |field: &str| row.text(field).parse::<u32>().unwrap_or(0);
    let images = number("stripes");
    Ok(match row.text("segtype") {
        "linear" => Segments::Linear,
        "thin" => Segments::Thin,
        "striped" => Segments::Striped {
            stripes: images,
            stripe_size: row.bytes("stripe_size"),
        },
        "mirror" => Segments::Mirror {
            images,
            region_size: row.bytes("region_size"),
            log: if row.text("mirror_log").is_empty() {
                "core"
            } else {
                "disk"
            }
            .to_owned(),
        },
        level if RAID_LEVELS.contains(&level) => Segments::Raid {
            level: level.to_owned(),
            images,
            copies: match level {
                "raid1" => images,
                // The number of LVM's counts parity, too, for the others.
                "raid10" | "raid10_near" => number("data_copies").max(2),
                _ => 1,
            },
            stripe_size: row.bytes("stripe_size"),
            region_size: row.bytes("region_size"),
        },
        other => return Err(other.to_owned()),
    })
}

#[cfg(test)]
mod tests;
