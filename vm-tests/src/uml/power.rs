//! Power cuts: a machine is switched off in the middle of a restore, and another one starts on the same disks.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::case::Case;
use super::machine::{ATTEMPTS, Floor, disk_path, drop_disks, new_disks, silent, start, verdict};
use crate::artefacts::Artefacts;
use crate::process;

/// Cuts the power before every `stride`-th step of a restore and within every tree and image, each time on new disks; a
/// machine that is started after it on the same disks restores them.
pub fn power_cuts(file: &Path, stride: usize, floor: &Floor, log: &Artefacts) -> Result<()> {
    let (case, _) = Case::load(file)?;
    let (mut done, mut steps, mut step) = (0, usize::MAX, 1);
    while step < steps {
        let text = power_cut(file, &case, &format!("step:{step}"), floor, log)?;
        let text = text.with_context(|| format!("step {step} was not reached"))?;
        // "floor: step:3:power-off: before step 4 of 17"
        steps = text
            .rsplit_once(" of ")
            .and_then(|(_, n)| n.trim().parse().ok())
            .with_context(|| format!("no number of steps in \"{text}\""))?;
        done += 1;
        step += stride.max(1);
    }
    let boundaries = done;
    let mut content = 0;
    while power_cut(file, &case, &format!("content:{content}"), floor, log)?.is_some() {
        content += 1;
        ensure!(content < 1000, "the content does not come to its end");
    }
    ensure!(content > 0, "nothing was cut within the content");
    log.note(&format!(
        "the power was cut at {boundaries} of {} boundaries between steps, and {content} times within the content",
        steps - 1
    ));
    Ok(())
}

/// One power cut and what comes after it. Returns the machine's last words; `None`: the place was not reached.
fn power_cut(
    file: &Path,
    case: &Case,
    place: &str,
    floor: &Floor,
    log: &Artefacts,
) -> Result<Option<String>> {
    let name = place.replace(':', "-");
    for attempt in 1..=ATTEMPTS {
        new_disks(case, log)?;
        let at = format!("{place}:power-off");
        let environment = [
            ("FLOOR_TASK", "power-cut".to_owned()),
            ("FLOOR_FAILPOINT", at.clone()),
        ];
        let (ended, text) = start(file, case, floor, log, &format!("{name}-cut"), &environment)?;
        if !ended {
            silent(attempt, &text, log)?;
            continue;
        }
        if text.contains("instead of a cut at") || text.contains("floor: failed: it panicked") {
            verdict(&text, log).with_context(|| format!("before the power cut at {place}"))?;
        }
        let Some(last) = text
            .lines()
            .find(|l| l.starts_with(&format!("floor: {at}: ")))
        else {
            ensure!(
                text.contains("the restore came to its end"),
                "no power cut at {place}: {}",
                process::tail(&text, 2000)
            );
            return Ok(None);
        };
        ensure!(
            !text.contains("floor: failed"),
            "the machine went on after the power cut at {place}: {}",
            process::tail(&text, 2000)
        );
        let fenced = fenced(case, log)?;
        let environment = [("FLOOR_TASK", "power-back".to_owned())];
        let (ended, text) = start(
            file,
            case,
            floor,
            log,
            &format!("{name}-back"),
            &environment,
        )?;
        let unchanged = fenced == self::fenced(case, log)?;
        drop_disks(case, log);
        if !ended {
            silent(attempt, &text, log)?;
            continue;
        }
        verdict(&text, log).with_context(|| format!("after the power cut at {place}"))?;
        ensure!(
            unchanged,
            "a fenced disk changed after the power cut at {place}"
        );
        return Ok(Some(last.to_owned()));
    }
    bail!("no attempt was made")
}

/// The content of the disks that are not restored onto.
fn fenced(case: &Case, log: &Artefacts) -> Result<Vec<String>> {
    let is_target = |index: usize| {
        let name = format!("/dev/ubd{}", (b'a' + index as u8) as char);
        case.is_target(Path::new(&name))
    };
    (0..case.disks.len())
        .filter(|index| !is_target(*index))
        .map(|index| crate::disk::content_hash(&disk_path(index, log)))
        .collect()
}
