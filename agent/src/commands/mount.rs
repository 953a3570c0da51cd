//! `lifeboat mount`

use std::time::Duration;

use anyhow::{Context as _, bail};
use bundle::browse::Browser;
use fuser::{BackgroundSession, Config, MountOption, Session};
use nix::mount::MntFlags;

use crate::cli::MountArgs;
use crate::output::{Outcome, Refused};
use crate::targets::{chosen, reading};
use crate::{Context, fuse, signals, values};

/// How often is looked whether a signal came.
const LOOK: Duration = Duration::from_millis(100);
/// How long a busy mount is waited for at a signal, in looks.
const PATIENCE: u32 = 30;

/// Shows restore points as a file system, until it is unmounted or a signal comes.
pub fn run(context: &Context, args: &MountArgs) -> anyhow::Result<Outcome> {
    let targets = chosen(&args.from.from, &context.config, "--from")?;
    let dir = args
        .dir
        .canonicalize()
        .with_context(|| format!("cannot mount on {}", args.dir.display()))?;
    let mut inside =
        std::fs::read_dir(&dir).with_context(|| format!("cannot mount on {}", dir.display()))?;
    if inside.next().is_some() {
        let text = format!("{} is not empty; choose an empty directory", dir.display());
        return Err(Refused(text).into());
    }
    reading(&targets, |sources| {
        let (browser, what) = if args.snapshot == "all" {
            let all = sources.all_snapshots()?;
            let browser = Browser::all(sources.shared(), &all);
            let what = values::plural(all.len() as u64, "restore point", "restore points");
            (browser, what)
        } else {
            let (id, snapshot) = sources.snapshot(&args.snapshot)?;
            let browser = Browser::one(sources.shared(), &snapshot);
            (browser, format!("restore point {}", id.short()))
        };
        let lost = browser.prepare();
        for lost in &lost {
            eprintln!("warning: {lost}");
        }
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoAtime,
            MountOption::DefaultPermissions,
            MountOption::FSName("lifeboat".into()),
            MountOption::Subtype("lifeboat".into()),
        ];
        config.n_threads = Some(std::thread::available_parallelism().map_or(2, |n| n.get().min(4)));
        let session = Session::new(fuse::Files::new(browser), &dir, &config)
            .and_then(Session::spawn)
            .with_context(|| {
                format!(
                    "cannot mount on {} (FUSE is needed: the kernel module fuse, and as another user than root the \
                     package fuse3)",
                    dir.display()
                )
            })?;
        if !context.out.quiet {
            eprintln!(
                "{what} at {}; ends with Ctrl-C, or with: umount {}",
                dir.display(),
                dir.display()
            );
        }
        serve(session, &dir)?;
        Ok(match lost.is_empty() {
            true => Outcome::Fine,
            false => Outcome::Warnings,
        })
    })
}

/// Waits for the end: `umount` by anyone, or a signal.
fn serve(session: BackgroundSession, dir: &std::path::Path) -> anyhow::Result<()> {
    while !session.guard.is_finished() && !signals::stopped() {
        std::thread::sleep(LOOK);
    }
    // Unmounted by hand: there is nothing to undo. At a signal, who still has a file open is waited for a while.
    for look in 0.. {
        if session.guard.is_finished() {
            return session
                .join()
                .context("the file system ended with an error");
        }
        match nix::mount::umount(dir) {
            Ok(()) => {
                return session
                    .join()
                    .context("the file system ended with an error");
            }
            Err(nix::errno::Errno::EBUSY) if look < PATIENCE => {
                if look == 0 {
                    eprintln!("{} is in use; waiting for that to end", dir.display());
                }
                std::thread::sleep(LOOK);
            }
            Err(nix::errno::Errno::EBUSY) => {
                // Without its server the file system would hang whoever uses it. Forced, the kernel ends the
                // connection: they get errors, and the stores are let go.
                let _ = nix::mount::umount2(dir, MntFlags::MNT_FORCE);
                let detached = nix::mount::umount2(dir, MntFlags::MNT_DETACH);
                detached.with_context(|| format!("cannot unmount {}", dir.display()))?;
                let _ = session.join();
                bail!(
                    "{} was still in use and is detached; what was open there can no longer be read",
                    dir.display()
                );
            }
            // Not root: fusermount3 does it.
            Err(_) => break,
        }
    }
    session
        .umount_and_join()
        .with_context(|| format!("cannot unmount {}", dir.display()))
}
