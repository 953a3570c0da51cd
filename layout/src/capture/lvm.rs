//! LVM through `pvs`, `vgs` and `lvs`, whose JSON is tolerated with empty and unknown fields.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::CaptureError;
use crate::system::{Cmd, System, SystemError};
use crate::units::Bytes;

/// Everything that LVM reports.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Report {
    pub pvs: Vec<Row>,
    pub vgs: Vec<Row>,
    pub lvs: Vec<Row>,
}

/// A line of a report: field to text.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Row(BTreeMap<String, String>);

impl Row {
    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }
    /// Zero when LVM does not know.
    pub fn bytes(&self, field: &str) -> Bytes {
        Bytes(self.text(field).trim_end_matches('B').parse().unwrap_or(0))
    }
    /// A share of `whole` that is given in percent with two digits after the point, rounded up; none when LVM does not say.
    pub fn percent_of(&self, field: &str, whole: Bytes) -> Option<Bytes> {
        let (units, digits) = self.text(field).split_once('.')?;
        let hundredths = format!("{units}{digits:0<2.2}").parse::<u64>().ok()?;
        let parts = u128::from(hundredths.min(10_000)) + 1;
        let bytes = (u128::from(whole.0) * parts).div_ceil(10_000);
        Some(Bytes(u64::try_from(bytes).unwrap_or(whole.0)).min(whole))
    }
    /// Whether a field that is a word or nothing, or 1 or 0, has the word.
    pub fn is_set(&self, field: &str) -> bool {
        self.is_set_or(field, false)
    }
    /// As [`Row::is_set`], with an answer for when LVM does not know the field.
    pub fn is_set_or(&self, field: &str, unknown: bool) -> bool {
        match self.0.get(field).map(String::as_str) {
            None | Some("unknown") => unknown,
            Some(text) => !matches!(text, "" | "0" | "-1"),
        }
    }
    pub fn tags(&self, field: &str) -> Vec<String> {
        let mut tags: Vec<String> = self
            .text(field)
            .split(',')
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect();
        tags.sort();
        tags
    }
}

const PV_FIELDS: &str = "pv_name,pv_uuid,vg_name,vg_uuid,pe_start,pv_size,pv_free,dev_size,pv_tags,pv_allocatable,pv_in_use,pv_missing";
const VG_FIELDS: &str = "vg_name,vg_uuid,vg_extent_size,vg_free,vg_tags,vg_missing_pv_count,vg_allocation_policy,max_lv,max_pv,\
                         vg_exported,vg_clustered,vg_shared,vg_systemid,vg_profile";
const LV_FIELDS: &str = "vg_name,vg_uuid,lv_name,lv_uuid,lv_size,lv_attr,segtype,lv_tags,pool_lv,chunk_size,lv_metadata_size,zero,\
                         discards,lv_active,lv_permissions,stripes,stripe_size,region_size,data_copies,devices,metadata_devices,\
                         mirror_log,origin,data_lv,metadata_lv,lv_allocation_policy,lv_read_ahead,lv_skip_activation,lv_when_full,\
                         lv_fixed_minor,lv_profile,cache_mode,cache_policy,seg_start,data_percent";
/// Fields that LVM before 2.03.12 does not know; it refuses the whole report for one of them.
const NEWER: [(&str, &str); 2] = [("vg", "vg_autoactivation"), ("lv", "lv_autoactivation")];

/// Guests' volumes may hold LVM of their own: what is inside logical volumes is never looked at.
pub(crate) const NEVER_INSIDE: &str = "devices/scan_lvs=0";

/// Asks LVM. Empty when it is not installed.
pub(crate) fn report(sys: &dyn System) -> Result<Report, CaptureError> {
    report_on(sys, None)
}

/// Asks LVM, which sees these devices only: what groups on others say of the same names and UUIDs does not come in
/// between.
pub(crate) fn report_on(
    sys: &dyn System,
    devices: Option<&[PathBuf]>,
) -> Result<Report, CaptureError> {
    type Asked = Result<Vec<Row>, String>;
    let run = |program: &str, key: &str, fields: &str| -> Result<Asked, CaptureError> {
        let mut command = Cmd::new(program).args([
            "--reportformat",
            "json",
            "--units",
            "b",
            "--nosuffix",
            "--config",
            NEVER_INSIDE,
        ]);
        for device in devices.unwrap_or_default() {
            command = command.arg("--devices").path(device);
        }
        if key == "lv" {
            command = command.arg("-a");
        }
        // Status 5: some group is incomplete and the rest is reported, or the whole command failed.
        match sys.run(&command.args(["-o", fields]).accept(5)) {
            Ok(output) => {
                let text = output.text();
                let rows =
                    parse(&text, key).map_err(|reason| CaptureError::parse(program, reason))?;
                if output.status == 0 || answers(&text, key) {
                    return Ok(Ok(rows));
                }
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
                Ok(Err(last.unwrap_or("it failed and says nothing").to_owned()))
            }
            Err(SystemError::Start { .. }) => Ok(Ok(Vec::new())),
            Err(error) => Err(error.into()),
        }
    };
    let ask = |program: &str, key: &str, fields: &str| -> Result<Vec<Row>, CaptureError> {
        for (_, newer) in NEWER.iter().filter(|(of, _)| *of == key) {
            if let Ok(rows) = run(program, key, &format!("{fields},{newer}"))? {
                return Ok(rows);
            }
        }
        run(program, key, fields)?.map_err(|said| CaptureError::parse(program, said))
    };
    Ok(Report {
        pvs: ask("pvs", "pv", PV_FIELDS)?,
        vgs: ask("vgs", "vg", VG_FIELDS)?,
        lvs: ask("lvs", "lv", LV_FIELDS)?,
    })
}

/// The command line of a report, as recordings have it.
#[cfg(test)]
pub(crate) fn line(key: &str) -> String {
    let (all, fields) = match key {
        "pv" => ("", PV_FIELDS),
        "vg" => ("", VG_FIELDS),
        _ => (" -a", LV_FIELDS),
    };
    let newer = NEWER.iter().find(|(of, _)| *of == key);
    let newer = newer
        .map(|(_, field)| format!(",{field}"))
        .unwrap_or_default();
    format!(
        "{key}s --reportformat json --units b --nosuffix --config {NEVER_INSIDE}{all} -o {fields}{newer}"
    )
}

/// Whether a report has a list of what was asked for, be it empty.
fn answers(text: &str, key: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| {
        value
            .get("report")
            .and_then(Value::as_array)
            .is_some_and(|reports| reports.iter().any(|r| r.get(key).is_some()))
    })
}

/// Parses `{"report": [{"<key>": [{field: value, ...}, ...]}]}`.
pub(crate) fn parse(text: &str, key: &str) -> Result<Vec<Row>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let reports = value
        .get("report")
        .and_then(Value::as_array)
        .ok_or("no \"report\"")?;
    let rows = reports
        .iter()
        .filter_map(|r| r.get(key))
        .filter_map(Value::as_array)
        .flatten();
    Ok(rows
        .filter_map(Value::as_object)
        .map(|row| {
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                // Later versions (json_std) have lists for tags and bare numbers.
                Value::Array(list) => list
                    .iter()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(","),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            Row(row
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect())
        })
        .collect())
}

/// An allocation policy (lvm(8)); `None` when it is the usual one.
pub(crate) fn policy(row: &Row, field: &str, usual: &str) -> Option<String> {
    let policy = row.text(field);
    (policy != usual && POLICIES.contains(&policy)).then(|| policy.to_owned())
}

/// The allocation policies of lvm(8).
pub(crate) const POLICIES: [&str; 6] = [
    "contiguous",
    "cling",
    "cling_by_tags",
    "normal",
    "anywhere",
    "inherit",
];

/// Whether a volume belongs to a guest: Proxmox's names `vm-<id>-...`, `base-<id>-...`, `snap_vm-<id>-...`
/// (pve-storage: src/PVE/Storage/LVMPlugin.pm).
pub(crate) fn is_guest_volume(name: &str) -> bool {
    ["vm-", "base-", "snap_vm-", "snap_base-"]
        .iter()
        .any(|prefix| {
            name.strip_prefix(prefix)
                .and_then(|rest| rest.split_once('-'))
                .is_some_and(|(id, _)| !id.is_empty() && id.chars().all(|c| c.is_ascii_digit()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_up() {
        let row = |text: &str| Row([("data_percent".to_owned(), text.to_owned())].into());
        let of = |text: &str| row(text).percent_of("data_percent", Bytes(1_000_000));
        assert_eq!(of("12.50"), Some(Bytes(125_100)));
        assert_eq!(of("0.00"), Some(Bytes(100)));
        assert_eq!(of("100.00"), Some(Bytes(1_000_000)));
        assert_eq!(of("7.5"), Some(Bytes(75_100)));
        assert_eq!((of(""), of("x.y"), of("-1.00")), (None, None, None));
    }

    #[test]
    fn empty_and_unknown_fields_are_tolerated() {
        let rows = parse(
            r#"{"report":[{"lv":[{"lv_name":"data","lv_size":"5368709120","zero":"unknown","chunk_size":"","lv_tags":"b,a"}]}],"log":[]}"#,
            "lv",
        )
        .unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].bytes("lv_size"), Bytes(5 << 30));
        assert_eq!(rows[0].bytes("chunk_size"), Bytes(0));
        assert_eq!(rows[0].tags("lv_tags"), ["a", "b"]);
        assert!(parse("", "lv").unwrap().is_empty());
        assert!(parse("[]", "lv").is_err());
    }

    #[test]
    fn guests_are_known_by_name() {
        assert!(is_guest_volume("vm-100-disk-0"));
        assert!(is_guest_volume("base-9000-disk-1"));
        assert!(is_guest_volume("snap_vm-100-disk-0_before"));
        for name in ["root", "vm-data", "vm-x-y", "data"] {
            assert!(!is_guest_volume(name), "{name}");
        }
    }
}
