//! MBR disks, as sfdisk, blkid and the kernel see them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use layout::model::{ACTIVE, MbrTable};
use layout::plan::PlannedPartition;

use crate::machine::text;

/// Compares the table on a disk with the planned one.
pub fn check(device: &Path, table: &MbrTable, partitions: &[PlannedPartition]) -> Result<()> {
    let disk = device.to_string_lossy();
    let dump = text(&["sfdisk", "--dump", &disk])?;
    let id = format!("label-id: 0x{}", table.signature);
    ensure!(
        dump.contains("label: dos") && dump.contains(&id),
        "{disk}: {dump}"
    );
    let count = dump.lines().filter(|l| l.starts_with(&*disk)).count();
    ensure!(
        count == partitions.len(),
        "{disk} has {count} partitions: {dump}"
    );
    for part in partitions {
        let node = part.device.to_string_lossy();
        let line = dump
            .lines()
            .find_map(|l| l.strip_prefix(&*node)?.strip_prefix(" :"))
            .with_context(|| format!("{node} is not in {dump}"))?;
        let fields: Vec<String> = line.split(',').map(|f| f.replace(' ', "")).collect();
        let has = |field: String| fields.contains(&field);
        ensure!(
            has(format!("start={}", part.start.0))
                && has(format!("size={}", part.end.0 - part.start.0 + 1))
                && has(format!(
                    "type={}",
                    part.type_guid
                        .trim_start_matches("0x")
                        .trim_start_matches('0')
                ))
                && has("bootable".to_owned()) == (part.attributes == ACTIVE),
            "{node} is{line}, not {part:?}"
        );
        let probe = text(&["blkid", "-p", "-o", "export", &node])?;
        let uuid = format!("PART_ENTRY_UUID={}", part.partuuid);
        ensure!(probe.contains(&uuid), "{node}: no {uuid} in {probe}");
    }
    // Tools that check call overlapping or misplaced records out.
    let verify = text(&["sfdisk", "--verify", &disk])?;
    ensure!(verify.contains("No errors detected"), "{disk}: {verify}");
    Ok(())
}
