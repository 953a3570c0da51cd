//! LVM through `pvs`, `vgs` and `lvs`, whose JSON is tolerated with empty and unknown fields.

use std::collections::BTreeMap;

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

const PV_FIELDS: &str = "pv_name,pv_uuid,vg_name,vg_uuid,pe_start,pv_size,pv_free,dev_size";
const VG_FIELDS: &str = "vg_name,vg_uuid,vg_extent_size,vg_free,vg_tags,vg_missing_pv_count";
const LV_FIELDS: &str = "vg_name,vg_uuid,lv_name,lv_uuid,lv_size,lv_attr,segtype,lv_tags,pool_lv,chunk_size,lv_metadata_size,zero,\
                         discards,lv_active,lv_permissions,data_percent";

/// Guests' volumes may hold LVM of their own: what is inside logical volumes is never looked at.
const NEVER_INSIDE: &str = "devices/scan_lvs=0";

/// Asks LVM. Empty when it is not installed.
pub(crate) fn report(sys: &dyn System) -> Result<Report, CaptureError> {
    let ask =
        |program: &str, key: &str, fields: &str, all: bool| -> Result<Vec<Row>, CaptureError> {
            let mut command = Cmd::new(program).args([
                "--reportformat",
                "json",
                "--units",
                "b",
                "--nosuffix",
                "--config",
                NEVER_INSIDE,
            ]);
            if all {
                command = command.arg("-a");
            }
            // Status 5: some group is incomplete, the rest is reported.
            match sys.run(&command.args(["-o", fields]).accept(5)) {
                Ok(output) => parse(&output.text(), key)
                    .map_err(|reason| CaptureError::parse(program, reason)),
                Err(SystemError::Start { .. }) => Ok(Vec::new()),
                Err(error) => Err(error.into()),
            }
        };
    Ok(Report {
        pvs: ask("pvs", "pv", PV_FIELDS, false)?,
        vgs: ask("vgs", "vg", VG_FIELDS, false)?,
        lvs: ask("lvs", "lv", LV_FIELDS, true)?,
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
