//! What follows when a restore point is written: it is read back, older ones go, sticks get a new rescue system.

use bundle::document::HostIdentity;
use bundle::verify::{VerifyOptions, verify, write_report};

use super::guests::GuestReport;
use super::part::Part;
use super::report::TargetReport;
use crate::cli::BackupArgs;
use crate::progress::Progress;
use crate::rescue::{Builder, Update, Wish};
use crate::retention::{self, Automatic};
use crate::targets::Opened;
use crate::{Context, signals};

/// What follows where there is a new restore point: it is checked, older ones go, and the rescue system is renewed.
pub(super) fn follow_up(
    context: &Context,
    args: &BackupArgs,
    parts: &mut [Part],
    guests: &[GuestReport],
    host: &HostIdentity,
    progress: &Progress,
) {
    for part in parts.iter_mut() {
        let Part {
            opened: Some(opened),
            report: target,
            ..
        } = part
        else {
            continue;
        };
        let of_guests = guests.iter().flat_map(|g| &g.targets);
        let mut of_guests = of_guests.filter(|t| t.target == opened.named);
        let has_guest = of_guests.any(|t| t.snapshot.is_some() && t.verified != Some(false));
        match target.snapshot {
            Some(id) if context.config.verify && !args.no_verify => {
                check(context, opened, &id.to_string(), target, progress);
            }
            None if !has_guest => continue,
            _ => {}
        }
        if context.config.retention.automatic == Automatic::Always
            && target.verified != Some(false)
            && !signals::stopped()
        {
            match retention::automatic(&context.config, opened, host, progress) {
                Ok(pruned) => target.pruned(pruned),
                Err(error) => target.problems.push(format!("not pruned: {error:#}")),
            }
        }
    }
    if context.config.update_rescue && !args.no_update_rescue {
        update_rescue(context, args, parts, progress);
    }
}

/// Reads what was written again, past the page cache, and stores the verdict beside it.
pub(super) fn check(
    context: &Context,
    opened: &Opened,
    id: &str,
    target: &mut TargetReport,
    progress: &Progress,
) {
    if signals::stopped() {
        target.problems.push("not verified: stopped before".into());
        return;
    }
    let options = VerifyOptions {
        snapshot: Some(id.to_owned()),
        cold: true,
        workers: context.config.max_workers,
        packs: Some(target.packs.clone()),
        ..VerifyOptions::default()
    };
    let verdict = opened.reader().and_then(|store| {
        let report = verify(&store, &options, progress)?;
        if let Err(error) = write_report(&store, &report) {
            target.problems.push(format!(
                "the verdict of the verification could not be stored: {error}"
            ));
        }
        Ok(report)
    });
    match verdict {
        Ok(report) => {
            target.verified = Some(report.ok());
            target.verified_bytes = report.bytes;
            target.damage = crate::commands::verify::damages(&report);
            target.notes = report.notes;
        }
        Err(error) => target.problems.push(format!("not verified: {error:#}")),
    }
}

/// Sticks get a new rescue system when what it is made of has changed. A failure leaves the one that is there.
pub(super) fn update_rescue(
    context: &Context,
    args: &BackupArgs,
    parts: &mut [Part],
    progress: &Progress,
) {
    let mut sticks = parts
        .iter_mut()
        .filter(|p| p.report.snapshot.is_some())
        .filter_map(|p| Some((p.opened.as_ref()?.stick.as_ref()?, &mut p.report)))
        .peekable();
    if sticks.peek().is_none() || signals::stopped() {
        return;
    }
    let modules = context.config.rescue_modules;
    let builder = Builder::new(
        &context.sys,
        &Wish {
            package: args.kernel_package.as_deref(),
            version: None,
            modules,
        },
    );
    for (stick, report) in sticks {
        let builder = match &builder {
            Ok(builder) => builder,
            Err(error) => {
                // A container or a cloud machine has no kernel; its stick was prepared with one from a package.
                report.rescue = Some(Update::Kept(format!("{error:#}")));
                continue;
            }
        };
        match builder.update(&context.sys, stick, progress) {
            Ok(update) => report.rescue = Some(update),
            Err(error) => {
                report.rescue = Some(Update::Kept(format!("{error:#}")));
                report.problems.push(format!(
                    "the rescue system could not be updated, the old one stays: {error:#}"
                ));
            }
        }
    }
}
