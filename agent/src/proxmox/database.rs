//! The database of pmxcfs, `/var/lib/pve-cluster/config.db`: everything below `/etc/pve`.
//!
//! pmxcfs keeps it open in WAL mode, so a copy of the file lacks what is still in the log beside it. SQLite's online backup
//! reads both as one transaction sees them, and disturbs no writer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

/// The database.
pub const DATABASE: &str = "/var/lib/pve-cluster/config.db";

/// What SQLite keeps beside it, and a copy does not need.
pub const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// As pmxcfs itself waits (`db_open` in its database.c).
const BUSY: Duration = Duration::from_secs(10);

/// Makes a copy of a database in one transaction, and checks it. Fails when the copy is not whole, or is none of pmxcfs.
pub fn copy(database: &Path, to: &Path) -> anyhow::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = Connection::open_with_flags(database, flags)
        .and_then(|from| from.busy_timeout(BUSY).map(|()| from))
        .with_context(|| format!("cannot open {}", database.display()))?;
    let mut copy =
        Connection::open(to).with_context(|| format!("cannot write {}", to.display()))?;
    let backup = Backup::new(&from, &mut copy)
        .with_context(|| format!("cannot copy {}", database.display()))?;
    // All pages in one step: a writer in between would make it begin again. It waits for a lock as long as `from` does.
    match backup.step(-1) {
        Ok(StepResult::Done) => {}
        Ok(_) => bail!(
            "{} was locked by another program for {} s: make the backup again",
            database.display(),
            BUSY.as_secs()
        ),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot copy {}", database.display()));
        }
    }
    drop(backup);
    check(&copy).with_context(|| format!("the copy of {}", database.display()))?;
    // One file without a log: pmxcfs switches the log on again when it starts.
    copy.pragma_update(None, "journal_mode", "DELETE")
        .context("cannot switch off the copy's log")?;
    copy.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn check(database: &Connection) -> anyhow::Result<()> {
    let mut statement = database.prepare("PRAGMA integrity_check(5)")?;
    let found: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if found != ["ok"] {
        bail!("is damaged: {}", found.join("; "));
    }
    // Its root, whose row has the version of the whole (database.c of pmxcfs).
    let version = "SELECT version FROM tree WHERE inode = 0";
    database
        .query_row(version, [], |row| row.get::<_, i64>(0))
        .context("is no database of pmxcfs")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// As pmxcfs makes it (database.c), with a root of version `version`.
    fn database(path: &Path, version: i64) -> Connection {
        let database = Connection::open(path).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
                 CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL CHECK(typeof(parent)='integer'),
                 version INTEGER NOT NULL CHECK(typeof(version)='integer'), writer INTEGER NOT NULL CHECK(typeof(writer)='integer'),
                 mtime INTEGER NOT NULL CHECK(typeof(mtime)='integer'), type INTEGER NOT NULL CHECK(typeof(type)='integer'),
                 name TEXT NOT NULL, data BLOB);",
            )
            .unwrap();
        database
            .execute(
                "INSERT INTO tree VALUES (0, 0, ?1, 0, 0, 8, '__version__', NULL)",
                [version],
            )
            .unwrap();
        database
    }

    fn ask(path: &Path, query: &str) -> Vec<i64> {
        let database = Connection::open(path).unwrap();
        let mut statement = database.prepare(query).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(|row| row.unwrap()).collect()
    }

    #[test]
    fn what_is_in_the_log_only_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("config.db"), dir.path().join("copy"));
        // Open, as pmxcfs has it: nothing moves from the log into the file.
        let open = database(&from, 7);
        copy(&from, &to).unwrap();
        assert_eq!(ask(&to, "SELECT version FROM tree WHERE inode = 0"), [7]);
        assert!(!dir.path().join("copy-wal").exists());
        // The file alone is no database yet.
        let alone = dir.path().join("alone");
        fs::copy(&from, &alone).unwrap();
        assert!(copy(&alone, &dir.path().join("other")).is_err());
        drop(open);
    }

    /// Every transaction leaves as many files as the version says, all of that version.
    #[test]
    fn beside_a_writer_every_copy_is_a_state_that_existed() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("config.db");
        let mut writer = database(&from, 0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let last = scope.spawn(move || {
                let mut version = 0;
                while !stop.load(Ordering::Relaxed) {
                    version += 1;
                    let change = writer.transaction().unwrap();
                    change
                        .execute("UPDATE tree SET version = ?1", [version])
                        .unwrap();
                    change
                        .execute(
                            "INSERT INTO tree VALUES (?1, 0, ?1, 1, 0, 8, 'file' || ?1, zeroblob(20000))",
                            [version],
                        )
                        .unwrap();
                    if version % 100 == 0 {
                        change
                            .execute("UPDATE tree SET data = zeroblob(100) WHERE inode > 0", [])
                            .unwrap();
                    }
                    change.commit().unwrap();
                }
                version
            });
            let mut seen = Vec::new();
            // A writer that gets no processor meanwhile shows nothing.
            let moved = |seen: &[i64]| seen.len() >= 20 && seen.first() < seen.last();
            for n in 0..5000 {
                if moved(&seen) {
                    break;
                }
                let to = dir.path().join(format!("copy{n}"));
                copy(&from, &to).unwrap();
                let versions = ask(&to, "SELECT DISTINCT version FROM tree");
                assert_eq!(versions.len(), 1, "{versions:?}");
                assert_eq!(
                    ask(&to, "SELECT count(*) FROM tree WHERE inode > 0"),
                    versions
                );
                seen.extend(versions);
                fs::remove_file(to).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            assert!(seen.is_sorted() && seen.last() <= Some(&last.join().unwrap()));
            assert!(seen.first() < seen.last(), "nothing was written meanwhile");
        });
    }

    #[test]
    fn a_damaged_or_foreign_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("config.db"), dir.path().join("copy"));
        assert!(copy(&from, &to).is_err(), "there is none");
        fs::write(&from, b"no database".repeat(1000)).unwrap();
        assert!(copy(&from, &to).is_err());
        fs::remove_file(&from).unwrap();
        let other = Connection::open(&from).unwrap();
        other.execute_batch("CREATE TABLE other (x)").unwrap();
        drop(other);
        let error = format!("{:#}", copy(&from, &to).unwrap_err());
        assert!(error.contains("no database of pmxcfs"), "{error}");
        fs::remove_file(&from).unwrap();
        let open = database(&from, 1);
        open.execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO tree SELECT i, 0, 1, 1, 0, 8, 'file' || i, zeroblob(3000) FROM n;
             PRAGMA wal_checkpoint(TRUNCATE);",
        )
        .unwrap();
        drop(open);
        let mut bytes = fs::read(&from).unwrap();
        // Pages of the tree, not its root.
        for page in 20..40 {
            bytes[page * 4096..page * 4096 + 64].fill(0xff);
        }
        fs::write(&from, bytes).unwrap();
        let error = format!("{:#}", copy(&from, &to).unwrap_err());
        assert!(
            error.contains("damaged") || error.contains("malformed"),
            "{error}"
        );
    }
}
