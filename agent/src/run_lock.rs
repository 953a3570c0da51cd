//! One run at a time: two backups that read the same host, or write to the same stick, are of no use to anybody.

use std::fs::{File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};

use crate::output::Refused;
use crate::signals;

/// Held as long as the run lasts; a process that is killed lets go of it.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "its end unlocks")] Option<Flock<File>>);

/// Where root takes the lock when nothing can be written to the state.
const INSTEAD: &str = "/run/lifeboat.lock";

fn open(path: &Path) -> std::io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Takes the lock of this host. While another run has it, this waits for `patience`, and then says who has it.
/// A user who cannot write to the state of the host, and saves directories of their own, needs none.
pub fn take(state: &Path, what: &str, patience: Duration) -> anyhow::Result<RunLock> {
    let mut path = state.join("lock");
    let mut opened = std::fs::create_dir_all(state).and_then(|()| open(&path));
    if let Err(error) = &opened {
        if !nix::unistd::geteuid().is_root() {
            return Ok(RunLock(None));
        }
        // On a dying disk the state is read-only: that is when a backup is needed most.
        tracing::warn!("no lock in {}: {error}", path.display());
        path = INSTEAD.into();
        opened = open(&path);
    }
    let wrong = || format!("cannot take the lock {}", path.display());
    let mut file = opened.with_context(wrong)?;
    let begun = Instant::now();
    let mut said = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let holder = format!("process {} ({what})\n", std::process::id());
                // Anybody who could read it could lock it. And that a full disk does not take the name keeps nobody
                // from being saved.
                let _ = lock.set_permissions(Permissions::from_mode(0o600));
                let named = lock
                    .set_len(0)
                    .and_then(|()| lock.rewind())
                    .and_then(|()| lock.write_all(holder.as_bytes()));
                if let Err(error) = named {
                    tracing::warn!("who holds {} is not noted: {error}", path.display());
                }
                return Ok(RunLock(Some(lock)));
            }
            Err((back, nix::Error::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(errno).with_context(wrong),
        }
        let mut holder = String::new();
        file.rewind()
            .and_then(|()| (&file).take(1000).read_to_string(&mut holder))
            .with_context(wrong)?;
        let holder = match holder.trim() {
            "" => "another process",
            holder => holder,
        };
        if begun.elapsed() >= patience {
            return Err(Refused(format!(
                "another run is not over yet: {holder}; wait for it to end and try again"
            ))
            .into());
        }
        if !said {
            eprintln!("waiting for another run to end: {holder}");
            said = true;
        }
        signals::check()?;
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_run_learns_who_holds_the_lock() {
        let state = tempfile::tempdir().unwrap();
        let first = take(state.path(), "lifeboat backup", Duration::ZERO).unwrap();
        let error = take(state.path(), "lifeboat verify", Duration::ZERO).unwrap_err();
        assert_eq!(crate::output::error_code(&error), 4);
        let text = error.to_string();
        let pid = std::process::id();
        assert!(
            text.contains(&format!("process {pid} (lifeboat backup)")),
            "{text}"
        );
        drop(first);
        take(state.path(), "lifeboat verify", Duration::ZERO).unwrap();
    }

    #[test]
    fn patience_is_rewarded() {
        let state = tempfile::tempdir().unwrap();
        let first = take(state.path(), "first", Duration::ZERO).unwrap();
        let path = state.path().to_path_buf();
        let second = std::thread::spawn(move || take(&path, "second", Duration::from_secs(600)));
        std::thread::sleep(Duration::from_millis(50));
        drop(first);
        second.join().unwrap().unwrap();
    }
}
