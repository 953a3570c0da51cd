//! The database of pmxcfs, `/var/lib/pve-cluster/config.db`, of a restored node.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rusqlite::Connection;

use crate::inside::{Inside, Kind};

/// The database.
pub(super) const DATABASE: &str = "/var/lib/pve-cluster/config.db";
/// pmxcfs allows 128 MiB of files; deleted ones may still take space.
const LIMIT: u64 = 1 << 30;
/// `DT_REG`, pmxcfs' type of a file.
const FILE: i64 = 8;

/// What was found in a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The configuration of a cluster, which is removed.
    pub(super) cluster: bool,
    /// Guests with high availability.
    pub(super) ha: bool,
}

/// Removes the configuration of the cluster from a restored database. One without it is not touched.
///
/// SQLite works on a copy outside of the restored system, which replaces the database when it is whole: so no file beside it
/// is followed or left, and a power cut leaves the old one or the new one.
pub(super) fn isolate(inside: &Inside, scratch: &Path) -> Result<Found> {
    let path = Path::new(DATABASE);
    match inside.kind(path)? {
        None => return Ok(Found::default()),
        Some(Kind::File) => {}
        Some(_) => bail!("{DATABASE} is no regular file: it is left as it is"),
    }
    let copy = scratch.join("config.db");
    let log = log_of(path);
    let copies = [(path, copy.clone()), (&log, log_of(&copy))];
    for (from, to) in &copies {
        // A log is there only where the database was saved as it lay on the disk; what is in it counts.
        if let Some(bytes) = inside.read(from, LIMIT)? {
            fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))?;
        }
    }
    let found = remove(&copy).with_context(|| format!("changing {DATABASE}"));
    let result = found.and_then(|found| {
        if found.cluster {
            let bytes = fs::read(&copy).with_context(|| format!("reading {}", copy.display()))?;
            inside.write(path, &bytes)?;
            for beside in ["-wal", "-shm"] {
                inside.remove(Path::new(&format!("{DATABASE}{beside}")))?;
            }
        }
        Ok(found)
    });
    for (_, copy) in copies {
        let _ = fs::remove_file(copy);
    }
    result
}

fn log_of(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Looks for the row of corosync.conf and removes it. The version of the whole stays: with a higher one this node's state
/// would win over the cluster's (dcdb.c takes the highest).
fn remove(path: &Path) -> Result<Found> {
    let mut database = Connection::open(path)?;
    check(&database)?;
    let count =
        |query: &str| -> Result<i64> { Ok(database.query_row(query, [], |row| row.get(0))?) };
    let rows = count(
        "SELECT count(*) FROM tree WHERE parent = 0 AND inode <> 0 AND name = 'corosync.conf'",
    )?;
    let ha = count(
        "SELECT count(*) FROM tree f JOIN tree d ON f.parent = d.inode \
         WHERE d.parent = 0 AND d.name = 'ha' AND f.name = 'resources.cfg' AND length(f.data) > 0",
    )?;
    if rows > 0 {
        let change = database.transaction()?;
        change.execute(
            "DELETE FROM tree WHERE parent = 0 AND inode <> 0 AND name = 'corosync.conf' AND type = ?1",
            [FILE],
        )?;
        change.commit()?;
        check(&database)?;
        // One file without a log: pmxcfs switches the log on again when it starts.
        database.pragma_update(None, "journal_mode", "DELETE")?;
    }
    let left = database.query_row(
        "SELECT count(*) FROM tree WHERE parent = 0 AND name = 'corosync.conf'",
        [],
        |row| row.get::<_, i64>(0),
    )?;
    database.close().map_err(|(_, error)| error)?;
    if left > 0 {
        bail!("it has a corosync.conf that is no file");
    }
    fs::File::open(path)?.sync_all()?;
    Ok(Found {
        cluster: rows > 0,
        ha: ha > 0,
    })
}

fn check(database: &Connection) -> Result<()> {
    let mut statement = database.prepare("PRAGMA integrity_check(5)")?;
    let found: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if found != ["ok"] {
        bail!("it is damaged: {}", found.join("; "));
    }
    Ok(())
}
