//! `lifeboat guests status`

use rescue_image::guests::{Pending, State, printable};
use serde::Serialize;

use crate::guests::pending::dir;
use crate::output::{Outcome, table};
use crate::{Context, values};

#[derive(Serialize)]
struct Status {
    /// Guests are still to come back.
    pending: bool,
    /// What was restored, and how far it is.
    #[serde(flatten)]
    list: Option<Pending>,
}

/// Shows what became of the guests after a bare-metal restore.
pub fn run(context: &Context) -> anyhow::Result<Outcome> {
    let dir = dir(&context.config);
    let pending = Pending::read(&dir)?;
    // The status has more while a guest is being restored; it may lag behind, and be damaged.
    let status = Pending::read_status(&dir).ok().flatten();
    let list = match (&pending, status) {
        (Some(pending), Some(status)) if same_but_for_progress(pending, &status) => Some(status),
        (None, status) => status,
        _ => pending.clone(),
    };
    let status = Status {
        pending: pending.is_some(),
        list,
    };
    context.out.result(&status, || text(&status))?;
    let failed = |list: &Pending| list.guests.iter().any(|g| g.state == State::Failed);
    Ok(
        match status.pending && status.list.as_ref().is_some_and(failed) {
            true => Outcome::Failed,
            false => Outcome::Fine,
        },
    )
}

fn same_but_for_progress(pending: &Pending, status: &Pending) -> bool {
    let mut status = status.clone();
    status.guests.iter_mut().for_each(|g| g.progress = None);
    let mut pending = pending.clone();
    pending.guests.iter_mut().for_each(|g| g.progress = None);
    status == pending
}

fn text(status: &Status) -> String {
    let Some(list) = &status.list else {
        return "no guests are to come back: this system was not restored, or had none".into();
    };
    let mut rows = Vec::new();
    for guest in &list.guests {
        let progress = guest.progress.map(|(done, total)| {
            let share = u128::from(done) * 100 / u128::from(total.max(1));
            format!(
                "{} of {} ({share} %)",
                values::bytes(done),
                values::bytes(total)
            )
        });
        let said = progress
            .or_else(|| guest.error.clone())
            .or_else(|| guest.note.clone());
        rows.push(vec![
            guest.id.to_string(),
            guest.kind.to_string(),
            printable(guest.name.as_deref().unwrap_or("-")),
            guest.state.to_string(),
            format!("{} of {}", guest.attempts, list.limit),
            guest
                .dumped
                .as_deref()
                .map_or_else(|| "-".into(), bundle::time::shown),
            printable(&said.unwrap_or_default()),
        ]);
    }
    let mut out = format!(
        "restored {} from restore point {}: {}\n",
        bundle::time::shown(&list.restored),
        list.snapshot.short(),
        match status.pending {
            true => "guests are still to come back",
            false => "all guests of the list are there",
        }
    );
    let headings = [">guest", "kind", "name", "state", "attempts", "as of", ""];
    out.push_str(&table(&headings, &rows));
    if status.pending {
        out.push_str(
            "`lifeboat guests restore ID` tries one again, `lifeboat guests forget ID` gives it up\n",
        );
    }
    out
}
