//! Facts about volumes: LVM's single fields and the kernel's own tables.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use layout::model::Segments;
use layout::plan::{Plan, Step};

use crate::machine::text;

/// An `lvm` command that sees the restored physical volumes only.
pub type Lvm<'a> = &'a dyn Fn(&[&str]) -> Result<String>;

/// One field of a report, of one thing, as words.
fn field(lvm: Lvm<'_>, report: &str, field: &str, of: &str) -> Result<Vec<String>> {
    let out = lvm(&[
        report,
        "--noheadings",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        field,
        of,
    ])?;
    Ok(out.split_whitespace().map(str::to_owned).collect())
}

fn is(lvm: Lvm<'_>, report: &str, name: &str, of: &str, expected: &[&str]) -> Result<()> {
    let found = field(lvm, report, name, of)?;
    ensure!(
        found == expected,
        "{of}: {name} is {found:?} rather than {expected:?}"
    );
    Ok(())
}

/// Words of the kernel's table for a volume: `0 <sectors> <target> <arguments>`.
fn table(vg: &str, name: &str) -> Result<Vec<Vec<String>>> {
    let dm = format!("{}-{}", vg.replace('-', "--"), name.replace('-', "--"));
    let out = text(&["dmsetup", "table", &dm])?;
    let lines = out.lines().filter(|l| !l.trim().is_empty());
    Ok(lines
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect())
}

/// Checks a volume that a step made.
pub fn volume(plan: &Plan, step: &Step, lvm: Lvm<'_>) -> Result<()> {
    let Step::LvCreate {
        vg,
        name,
        size,
        writeable,
        tags,
        pool,
        segments,
        pvs,
        settings,
    } = step
    else {
        return Ok(());
    };
    let of = format!("{vg}/{name}");
    is(lvm, "lvs", "lv_size", &of, &[&size.0.to_string()])?;
    let cache = plan.steps.iter().find_map(|s| match s {
        Step::CacheAttach {
            vg: group,
            volume,
            cache,
        } if group == vg && volume == name => Some(cache),
        _ => None,
    });
    let below = match cache.map(|cache| cache.kind.as_str()) {
        None => name.clone(),
        Some("cache") => format!("{name}_corig"),
        Some(_) => format!("{name}_wcorig"),
    };
    if let Some(cache) = cache {
        let rows = table(vg, name)?;
        ensure!(
            rows.len() == 1 && rows[0].get(2) == Some(&cache.kind),
            "{of}: {rows:?} is no {}",
            cache.kind
        );
        // Nothing may be left in the cache alone when the disk is taken out: mode and state are the kernel's words.
        let status = text(&["dmsetup", "status", &format!("/dev/{of}")])?;
        ensure!(!status.contains("Fail"), "{of}: {status}");
    }
    kernel(vg, &below, &of, segments)?;
    places(vg, name, pvs, lvm)?;
    let pool: Vec<&str> = pool.as_deref().into_iter().collect();
    if cache.is_none() {
        is(lvm, "lvs", "pool_lv", &of, &pool)?;
    }
    let mut sorted = tags.clone();
    sorted.sort();
    let joined = sorted.join(",");
    let expected: Vec<&str> = tags.first().map(|_| joined.as_str()).into_iter().collect();
    is(lvm, "lvs", "lv_tags", &of, &expected)?;
    let attr = field(lvm, "lvs", "lv_attr", &of)?;
    let permission = attr.first().and_then(|a| a.chars().nth(1));
    ensure!(
        permission == Some(if *writeable { 'w' } else { 'r' }),
        "{of}: {attr:?}"
    );
    let policy = settings.allocation.as_deref().unwrap_or("inherit");
    is(lvm, "lvs", "lv_allocation_policy", &of, &[policy])?;
    let ahead = settings
        .read_ahead
        .map_or_else(|| "auto".to_owned(), |bytes| bytes.0.to_string());
    is(lvm, "lvs", "lv_read_ahead", &of, &[&ahead])?;
    let auto: &[&str] = if settings.autoactivation {
        &["enabled"]
    } else {
        &[]
    };
    is(lvm, "lvs", "lv_autoactivation", &of, auto)?;
    let skip: &[&str] = if settings.skip_activation {
        &["skip", "activation"]
    } else {
        &[]
    };
    is(lvm, "lvs", "lv_skip_activation", &of, skip)
}

/// What the kernel was told to do, and for RAID how it does.
fn kernel(vg: &str, name: &str, of: &str, segments: &Segments) -> Result<()> {
    let rows = table(vg, name)?;
    for row in &rows {
        let word = |at: usize| row.get(at).map_or("", String::as_str);
        let sectors = |bytes: u64| (bytes / 512).to_string();
        let good = match segments {
            Segments::Linear | Segments::Mixed { .. } => word(2) == "linear",
            Segments::Thin => word(2) == "thin",
            Segments::Striped {
                stripes,
                stripe_size,
            } => {
                word(2) == "striped"
                    && word(3) == stripes.to_string()
                    && word(4) == sectors(stripe_size.0)
            }
            Segments::Mirror { images, log, .. } => {
                word(2) == "mirror"
                    && word(3) == log
                    && row
                        .windows(2)
                        .any(|pair| pair[0] == images.to_string() && pair[1].contains(':'))
            }
            Segments::Raid {
                level,
                images,
                stripe_size,
                ..
            } => {
                // raid5 is the kernel's raid5_ls, raid6 its raid6_zr, raid0_meta its raid0.
                let kind = level.trim_end_matches("_meta").trim_end_matches("_near");
                let chunk = if stripe_size.0 == 0 {
                    "0".to_owned()
                } else {
                    sectors(stripe_size.0)
                };
                let chunk_at = word(5);
                let images_at = row.windows(2).any(|pair| {
                    pair[0] == images.to_string() && (pair[1].contains(':') || pair[1] == "-")
                });
                word(2) == "raid"
                    && word(3).starts_with(kind)
                    && images_at
                    && (chunk == "0" || chunk_at == chunk)
            }
        };
        ensure!(good, "{of}: the kernel has {row:?}, not {segments}");
    }
    ensure!(!rows.is_empty(), "{of}: the kernel does not have it");
    if matches!(segments, Segments::Raid { .. }) {
        let dm = format!("{}-{}", vg.replace('-', "--"), name.replace('-', "--"));
        let status = text(&["dmsetup", "status", &dm])?;
        let words: Vec<&str> = status.split_whitespace().collect();
        // 0 <sectors> raid <type> <number> <health>: a letter for each image, D is dead (kernel: dm-raid.rst).
        let health = words.get(5).context("no health")?;
        ensure!(
            health.len() as u32 == segments.images() && !health.contains('D'),
            "{of}: {status}"
        );
    }
    Ok(())
}

/// The physical volumes that a volume and its parts lie on are the planned ones.
fn places(vg: &str, name: &str, pvs: &[PathBuf], lvm: Lvm<'_>) -> Result<()> {
    if pvs.is_empty() {
        return Ok(());
    }
    let out = lvm(&[
        "lvs",
        "-a",
        "--noheadings",
        "--separator",
        "|",
        "-o",
        "lv_name,devices,metadata_devices",
        vg,
    ])?;
    let mut found = BTreeSet::new();
    for line in out.lines() {
        let mut columns = line.trim().split('|');
        let row = columns.next().unwrap_or_default();
        let row = row.trim_matches(['[', ']']);
        // Its own row, and those of its hidden parts: name_rimage_0, name_corig...
        let own = row == name || row.strip_prefix(name).is_some_and(|r| r.starts_with('_'));
        let fast = row.ends_with("_cvol") || row.ends_with("_cpool");
        if own && !fast {
            let devices = columns.flat_map(|column| column.split(','));
            found.extend(
                devices
                    .filter_map(|device| device.rsplit_once('(').map(|(path, _)| path))
                    .filter(|path| path.starts_with("/dev/"))
                    .map(PathBuf::from),
            );
        }
    }
    let expected: BTreeSet<PathBuf> = pvs.iter().cloned().collect();
    ensure!(
        found == expected,
        "{vg}/{name} lies on {found:?} rather than on {expected:?}"
    );
    Ok(())
}

/// Checks a thin pool that a step made.
pub fn pool(step: &Step, lvm: Lvm<'_>) -> Result<()> {
    let Step::ThinPoolCreate {
        vg,
        name,
        size,
        chunk_size,
        metadata_size,
        zero,
        discards,
        spare,
        error_when_full,
        segments,
        metadata_segments,
        pvs,
        metadata_pvs,
        ..
    } = step
    else {
        return Ok(());
    };
    let of = format!("{vg}/{name}");
    for (what, expected) in [
        ("lv_size", size.0.to_string()),
        ("chunk_size", chunk_size.0.to_string()),
        ("lv_metadata_size", metadata_size.0.to_string()),
        ("discards", discards.clone()),
        ("segtype", "thin-pool".to_owned()),
        (
            "lv_when_full",
            if *error_when_full { "error" } else { "queue" }.to_owned(),
        ),
    ] {
        is(lvm, "lvs", what, &of, &[&expected])?;
    }
    let zeroed: &[&str] = if *zero { &["zero"] } else { &[] };
    is(lvm, "lvs", "zero", &of, zeroed)?;
    let all = lvm(&["lvs", "-a", "--noheadings", "-o", "lv_name", vg])?;
    ensure!(
        all.contains("_pmspare") == *spare,
        "{of}: spare should be {spare}: {all}"
    );
    kernel(vg, &format!("{name}_tdata"), &of, segments)?;
    kernel(vg, &format!("{name}_tmeta"), &of, metadata_segments)?;
    places(vg, &format!("{name}_tdata"), pvs, lvm)?;
    places(vg, &format!("{name}_tmeta"), metadata_pvs, lvm)?;
    let status = text(&["dmsetup", "status", "--target", "thin-pool"])?;
    ensure!(status.contains("rw"), "{of}: the kernel says {status}");
    let sectors = (chunk_size.0 / 512).to_string();
    let tables = text(&["dmsetup", "table", "--target", "thin-pool"])?;
    ensure!(
        tables.split_whitespace().any(|word| word == sectors),
        "{of}: no chunk of {sectors} sectors in {tables}"
    );
    Ok(())
}

/// Checks a group's settings and those of its physical volumes.
pub fn group(step: &Step, lvm: Lvm<'_>) -> Result<()> {
    let Step::VgSettings {
        name,
        settings,
        pvs,
    } = step
    else {
        return Ok(());
    };
    let policy = settings.allocation.as_deref().unwrap_or("normal");
    is(lvm, "vgs", "vg_allocation_policy", name, &[policy])?;
    let number = |n: u32| n.to_string();
    is(lvm, "vgs", "max_lv", name, &[&number(settings.max_volumes)])?;
    let most = number(settings.max_physical_volumes);
    is(lvm, "vgs", "max_pv", name, &[&most])?;
    let auto: &[&str] = if settings.autoactivation {
        &["enabled"]
    } else {
        &[]
    };
    is(lvm, "vgs", "vg_autoactivation", name, auto)?;
    for pv in pvs {
        let device = pv.device.to_string_lossy();
        let joined = pv.tags.join(",");
        let expected: Vec<&str> = pv
            .tags
            .first()
            .map(|_| joined.as_str())
            .into_iter()
            .collect();
        is(lvm, "pvs", "pv_tags", &device, &expected)?;
        let allocatable: &[&str] = if pv.allocatable {
            &["allocatable"]
        } else {
            &[]
        };
        is(lvm, "pvs", "pv_allocatable", &device, allocatable)?;
    }
    Ok(())
}
