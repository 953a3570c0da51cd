//! Writes entries: one process at a time, at the end of the file, and onto the disk before the command goes on.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bundle::Id;
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};

use super::chain::{Entry, Event, Head, LONGEST, Torn};
use super::{About, Who};
use crate::state;

/// Where the log is.
pub fn path(state: &Path) -> PathBuf {
    state.join("audit.log")
}

/// Where the last entry is kept besides.
pub fn head_path(state: &Path) -> PathBuf {
    state.join("audit.head")
}

/// The last entry, as it is kept besides.
pub fn head(state: &Path) -> anyhow::Result<Option<Head>> {
    let path = head_path(state);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let head = serde_json::from_slice(&text);
    head.map(Some)
        .with_context(|| format!("{} is damaged", path.display()))
}

/// Adds an entry, and returns it with its hash.
pub fn append(
    state: &Path,
    who: &Who,
    about: &About,
    event: Event,
) -> anyhow::Result<(Entry, Head)> {
    let path = path(state);
    let wrong = || format!("cannot write to the audit log {}", path.display());
    fs::create_dir_all(state).with_context(wrong)?;
    let is_new = !path.exists();
    let file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .with_context(wrong)?;
    let mut file = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(wrong)?;
    let (last, rest) = tail(&mut file).with_context(wrong)?;
    let unfinished = rest.last().is_some_and(|b| *b != b'\n');
    let mut torn = rest;
    if unfinished {
        torn.push(b'\n');
    }
    let mut entry = Entry {
        number: last.map_or(1, |head| head.number + 1),
        time: Timestamp::now(),
        event,
        who: who.clone(),
        command: about.command.clone(),
        about: about.things.clone(),
        torn: Torn::of(&torn),
        previous: last.map(|head| head.hash),
    };
    let mut line = serde_json::to_string(&entry).with_context(wrong)?;
    // Its readers take no longer one. Signs that JSON writes in six letters, and many kinds of things, can make it so.
    while line.len() >= LONGEST && entry.about.values().any(|things| things.len() > 1) {
        for things in entry.about.values_mut() {
            things.truncate(things.len().div_ceil(2));
        }
        line = serde_json::to_string(&entry).with_context(wrong)?;
    }
    let start = if unfinished { "\n" } else { "" };
    // In one call: a reader sees all of it, or a line without its end.
    file.write_all(format!("{start}{line}\n").as_bytes())
        .and_then(|()| file.sync_data())
        .with_context(wrong)?;
    if is_new {
        File::open(state)
            .and_then(|dir| dir.sync_all())
            .with_context(wrong)?;
    }
    let head = Head {
        number: entry.number,
        hash: Id::of(line.as_bytes()),
    };
    let kept = serde_json::to_vec(&head).map_err(std::io::Error::from);
    kept.and_then(|json| state::write(state, &head_path(state), &json))
        .with_context(|| format!("cannot write {}", head_path(state).display()))?;
    Ok((entry, head))
}

/// The last entry, and what stands behind it that is none.
fn tail(file: &mut File) -> anyhow::Result<(Option<Head>, Vec<u8>)> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(2 * LONGEST as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(size - from).read_to_end(&mut text)?;
    let mut end = text.len();
    while let Some(newline) = text[..end].iter().rposition(|b| *b == b'\n') {
        let start = text[..newline]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let line = &text[start..newline];
        if let Ok(entry) = serde_json::from_slice::<Entry>(line) {
            let head = Head {
                number: entry.number,
                hash: Id::of(line),
            };
            return Ok((Some(head), text[newline + 1..].to_vec()));
        }
        end = newline;
    }
    if from > 0 {
        bail!("there is no entry at its end: look at it with `lifeboat audit verify`");
    }
    Ok((None, text))
}

/// Tells the system's journal of an entry: from there it can go to another machine, out of reach of this one.
pub fn tell_journal(entry: &Entry, head: &Head) {
    let what = match &entry.event {
        Event::Start => "begins".to_owned(),
        Event::End { exit, .. } => format!("ended with status {exit}"),
    };
    // Facility authpriv, severity info.
    let line = format!(
        "<86>lifeboat-audit[{}]: {head} {} of {} {what}",
        std::process::id(),
        entry.command,
        entry.who.user
    );
    let sent = UnixDatagram::unbound().and_then(|socket| {
        // A journal that does not read must not hold anybody up.
        socket.set_nonblocking(true)?;
        socket.send_to(line.as_bytes(), "/dev/log")
    });
    if let Err(error) = sent {
        tracing::debug!("the journal was not told of entry {head}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::chain::verify;
    use super::*;

    fn about() -> About {
        About::new("backup").with("target", ["/mnt/a"])
    }

    fn add(state: &Path) -> Entry {
        append(state, &Who::default(), &about(), Event::Start)
            .unwrap()
            .0
    }

    fn check(state: &Path) -> super::super::chain::Verdict {
        let log = fs::read(path(state)).unwrap();
        let head = head(state).unwrap().unwrap();
        verify(&log[..], &[(head, "in the head file")]).unwrap()
    }

    /// However much a command is about: a reader that takes no longer lines finds the entry, and the next one follows it.
    #[test]
    fn no_entry_is_longer_than_its_readers_take() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        let many = || (0..1000).map(|_| "\u{1}".repeat(5000));
        let about = ["a", "b", "c", "d"]
            .into_iter()
            .fold(About::new("extract"), |about, kind| {
                about.with(kind, many())
            });
        append(state, &Who::default(), &about, Event::Start).unwrap();
        add(state);
        let log = fs::read(path(state)).unwrap();
        assert!(log.split(|b| *b == b'\n').all(|line| line.len() < LONGEST));
        let verdict = check(state);
        assert!(verdict.ok && verdict.entries == 2, "{verdict:?}");
    }

    #[test]
    fn entries_are_chained() {
        let state = tempfile::tempdir().unwrap();
        for number in 1..=3 {
            assert_eq!(add(state.path()).number, number);
        }
        let verdict = check(state.path());
        assert!(verdict.ok && verdict.entries == 3, "{verdict:?}");
    }

    #[test]
    fn writers_take_turns() {
        let state = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..5).for_each(|_| drop(add(state.path()))));
            }
        });
        let verdict = check(state.path());
        assert!(verdict.ok && verdict.entries == 40, "{verdict:?}");
    }

    #[test]
    fn a_line_that_a_power_cut_tore_is_named_and_continued_from() {
        let state = tempfile::tempdir().unwrap();
        add(state.path());
        add(state.path());
        let file = path(state.path());
        for rubbish in ["{\"number\":3,\"ti", "\0\0\0\0", "half\nof two"] {
            let mut log = File::options().append(true).open(&file).unwrap();
            log.write_all(rubbish.as_bytes()).unwrap();
            let verdict = check(state.path());
            assert!(verdict.ok && !verdict.notes.is_empty(), "{verdict:?}");
            let entry = add(state.path());
            assert_eq!(entry.torn.unwrap().bytes, rubbish.len() as u64 + 1);
            let verdict = check(state.path());
            assert!(verdict.ok && verdict.notes.is_empty(), "{verdict:?}");
        }
        assert_eq!(check(state.path()).torn, [3, 5, 7, 8]);
        // What is put in later is not taken for that.
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("half", "hALF")).unwrap();
        assert!(!check(state.path()).ok);
    }

    #[test]
    fn a_torn_entry_that_was_whole_before_is_missed() {
        let state = tempfile::tempdir().unwrap();
        add(state.path());
        add(state.path());
        let file = path(state.path());
        let text = fs::read(&file).unwrap();
        fs::write(&file, &text[..text.len() - 10]).unwrap();
        let verdict = check(state.path());
        assert!(
            !verdict.ok && verdict.findings[0].what.contains("cut off"),
            "{verdict:?}"
        );
    }
}
