//! The text format of Prometheus (prometheus.io/docs/instrumenting/exposition_formats).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use crate::evaluation::{Level, Protection, age};
use crate::history::RunResult;
use crate::status::Status;

type Labels<'l> = &'l [(&'static str, String)];

/// Families in order of their names, each with its values.
#[derive(Default)]
struct Families(BTreeMap<&'static str, (&'static str, Vec<String>)>);

impl Families {
    fn add(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: f64) {
        let mut line = format!("lifeboat_{name}");
        if !labels.is_empty() {
            let labels: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
                .collect();
            let _ = write!(line, "{{{}}}", labels.join(","));
        }
        let _ = write!(line, " {value}");
        self.0
            .entry(name)
            .or_insert((help, Vec::new()))
            .1
            .push(line);
    }

    fn time(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, at: Timestamp) {
        self.add(name, help, labels, at.as_millisecond() as f64 / 1000.0);
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (name, (help, lines)) in &self.0 {
            let _ = writeln!(out, "# HELP lifeboat_{name} {help}");
            let _ = writeln!(out, "# TYPE lifeboat_{name} gauge");
            for line in lines {
                let _ = writeln!(out, "{line}");
            }
        }
        out
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All of them.
pub fn text(status: &Status) -> String {
    let mut out = Families::default();
    let state = &status.evaluation;
    out.add(
        "build_info",
        "The version that wrote this; always 1.",
        &[("version", env!("CARGO_PKG_VERSION").to_owned())],
        1.0,
    );
    let level = match status.level {
        Level::Fine => 0.0,
        Level::Warning => 1.0,
        Level::Critical => 2.0,
    };
    out.add(
        "status",
        "What lifeboat status said when this was written: 0 fine, 1 warning, 2 critical.",
        &[],
        level,
    );
    protection(&mut out, &[("subject", "host".into())], &state.host);
    for guest in &state.guests {
        let labels = [
            ("subject", "guest".to_owned()),
            ("guest", guest.guest.id.to_string()),
            ("name", guest.guest.name.clone().unwrap_or_default()),
        ];
        protection(&mut out, &labels, &guest.protection);
    }
    runs(&mut out, status);
    targets(&mut out, status);
    if let Some(time) = state.drill.proven {
        out.time(
            "drill_last_success_timestamp_seconds",
            "When a restore was tried last and went well.",
            &[],
            time,
        );
    }
    out.add(
        "guests_to_come",
        "Guests that are still to come back after a bare-metal restore.",
        &[],
        status.guests_to_come.as_ref().map_or(0, |g| g.missing) as f64,
    );
    out.text()
}

fn protection(out: &mut Families, labels: Labels<'_>, protection: &Protection) {
    if let Some(point) = &protection.newest {
        out.time(
            "newest_restore_point_timestamp_seconds",
            "When the newest good restore point was made; absent where there is none.",
            labels,
            point.time,
        );
    }
    if let Some(time) = protection.verified {
        out.time(
            "verified_timestamp_seconds",
            "When a good restore point was read back last.",
            labels,
            time,
        );
    }
    out.add(
        "restore_point_max_age_seconds",
        "How old the newest good restore point may become.",
        labels,
        protection.rpo_seconds as f64,
    );
    out.add(
        "overdue",
        "Whether it was older than that, or missing, when this was written.",
        labels,
        f64::from(u8::from(protection.overdue)),
    );
}

fn runs(out: &mut Families, status: &Status) {
    for last in &status.evaluation.last_runs {
        let run = &last.run;
        let kind = [("kind", run.kind.word().to_owned())];
        out.time(
            "last_run_timestamp_seconds",
            "When the last run of this kind began.",
            &kind,
            run.started,
        );
        out.add(
            "last_run_success",
            "Whether the last run ended well, warnings included.",
            &kind,
            f64::from(u8::from(run.result != Some(RunResult::Failed))),
        );
        out.add(
            "last_run_warnings",
            "Whether the last run ended with warnings.",
            &kind,
            f64::from(u8::from(run.result == Some(RunResult::Warnings))),
        );
        if let Some(ended) = run.ended {
            out.add(
                "last_run_duration_seconds",
                "How long the last run took.",
                &kind,
                ended.duration_since(run.started).as_secs_f64().max(0.0),
            );
        }
        out.add(
            "last_run_read_bytes",
            "What the last run read of the host.",
            &kind,
            last.bytes_read as f64,
        );
        out.add(
            "last_run_written_bytes",
            "What the last run wrote to all targets.",
            &kind,
            last.bytes_written as f64,
        );
        if let Some(time) = last.success {
            out.time(
                "last_success_timestamp_seconds",
                "When the last run of this kind that ended well began, warnings included.",
                &kind,
                time,
            );
        }
    }
    for run in &status.evaluation.running {
        out.add(
            "running_seconds",
            "How long a run that is not over had been going on when this was written.",
            &[("kind", run.kind.word().to_owned())],
            age(status.evaluation.at, run.started) as f64,
        );
    }
}

fn targets(out: &mut Families, status: &Status) {
    for target in &status.evaluation.targets {
        let labels = [
            ("target", target.target.display().to_string()),
            ("store", target.store.clone().unwrap_or_default()),
        ];
        if let Some(space) = target.space {
            out.add(
                "target_free_bytes",
                "Room on a target, as it was last.",
                &labels,
                space.free as f64,
            );
            out.add(
                "target_size_bytes",
                "Size of a target's file system.",
                &labels,
                space.size as f64,
            );
        }
        if let Some(points) = target.restore_points {
            out.add(
                "target_restore_points",
                "Restore points of this host on a target, as it was last.",
                &labels,
                points as f64,
            );
        }
        if let Some(time) = target.newest {
            out.time(
                "target_newest_restore_point_timestamp_seconds",
                "When the newest good restore point on a target was made.",
                &labels,
                time,
            );
        }
        if let Some(time) = target.verified {
            out.time(
                "target_verified_timestamp_seconds",
                "When a target was read again last and found good.",
                &labels,
                time,
            );
        }
        out.add(
            "target_damaged",
            "Whether damage is known on a target.",
            &labels,
            f64::from(u8::from(target.damaged.is_some())),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut out = Families::default();
        out.add("x", "Help.", &[("name", "a\"b\\c\nd".into())], 1.5);
        assert_eq!(
            out.text(),
            "# HELP lifeboat_x Help.\n# TYPE lifeboat_x gauge\nlifeboat_x{name=\"a\\\"b\\\\c\\nd\"} 1.5\n"
        );
    }

    #[test]
    fn large_numbers_are_written_out() {
        let mut out = Families::default();
        out.add("x", "Help.", &[], 4e12);
        assert!(out.text().ends_with("lifeboat_x 4000000000000\n"));
    }
}
