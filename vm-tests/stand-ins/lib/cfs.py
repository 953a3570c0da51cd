"""/etc/pve: the database of pmxcfs, and the tree that shows it (pve-facts 2). Every change goes to both."""

import os
import socket
import sqlite3
import time

TREE = "/etc/pve"
DATABASE = "/var/lib/pve-cluster/config.db"
DIRECTORY, FILE = 4, 8
# 2.1
MOST = 1 << 20


def node():
    """The host's name up to the first dot (2.5)."""
    return socket.gethostname().split(".")[0]


def connect(path=DATABASE):
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    # The log is never written back: a plain copy of the file alone is without what came last (2.3).
    db.execute("PRAGMA wal_autocheckpoint=0")
    return db


def create(db):
    """An empty database (2.2)."""
    now = int(time.time())
    db.execute("BEGIN IMMEDIATE")
    db.execute(
        "CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL CHECK(typeof(parent)=='integer'),"
        " version INTEGER NOT NULL CHECK(typeof(version)=='integer'),"
        " writer INTEGER NOT NULL CHECK(typeof(writer)=='integer'),"
        " mtime INTEGER NOT NULL CHECK(typeof(mtime)=='integer'),"
        " type INTEGER NOT NULL CHECK(typeof(type)=='integer'), name TEXT NOT NULL, data BLOB)"
    )
    db.execute("INSERT INTO tree VALUES (0, 0, 1, 0, ?, ?, '__version__', NULL)", (now, FILE))
    db.execute("COMMIT")


def find(db, path):
    """(inode, type) of a path, `None`: there is none."""
    found = (0, DIRECTORY)
    for name in filter(None, path.split("/")):
        row = db.execute("SELECT inode, type FROM tree WHERE parent=? AND name=? AND inode<>0", (found[0], name))
        found = row.fetchone()
        if not found:
            return None
    return found


def _next(db, now):
    db.execute("UPDATE tree SET version = version + 1, mtime = ? WHERE inode = 0", (now,))
    return db.execute("SELECT version FROM tree WHERE inode = 0").fetchone()[0]


def put(db, path, data):
    """Writes a file, inside a transaction of the caller's; directories are made."""
    if len(data) > MOST:
        raise OSError(f"{path}: larger than 1 MiB")
    now = int(time.time())
    parent = 0
    *dirs, name = list(filter(None, path.split("/")))
    at = ""
    for part in dirs:
        at += "/" + part
        known = find(db, at)
        if not known:
            # An inode's number is the version that made it (2.2).
            inode = _next(db, now)
            db.execute(
                "INSERT INTO tree VALUES (?, ?, ?, 0, ?, ?, ?, NULL)", (inode, parent, inode, now, DIRECTORY, part)
            )
            known = (inode, DIRECTORY)
        parent = known[0]
    version = _next(db, now)
    known = find(db, path)
    if known:
        db.execute("UPDATE tree SET version=?, mtime=?, data=? WHERE inode=?", (version, now, data, known[0]))
    else:
        db.execute(
            "INSERT INTO tree VALUES (?, ?, ?, 0, ?, ?, ?, ?)", (version, parent, version, now, FILE, name, data)
        )


def mounted():
    with open("/proc/self/mountinfo") as lines:
        return any(line.split()[4] == TREE for line in lines)


class NotReady(Exception):
    """/etc/pve cannot be read, or not be written."""


def member():
    return os.path.exists(f"{TREE}/corosync.conf")


def check_mounted():
    if not mounted():
        raise NotReady("ipcc_send_rec[1] failed: Connection refused")


def check_quorum():
    """A member of a cluster that is alone has no quorum (2.7), as long as nobody says `pvecm expected 1`."""
    check_mounted()
    if member() and not os.path.exists("/run/pve-stand-ins/quorate"):
        raise NotReady("cluster not ready - no quorum?")


def show(path, data, mtime=None):
    """Puts a file into the tree, whole or not at all."""
    full = f"{TREE}/{path}"
    os.makedirs(os.path.dirname(full), exist_ok=True)
    temporary = f"{os.path.dirname(full)}/.{os.path.basename(full)}.tmp"
    with open(temporary, "wb") as out:
        out.write(data)
    # root:www-data; below priv for root alone (2.1).
    os.chmod(temporary, 0o600 if "priv" in path.split("/") else 0o640)
    os.chown(temporary, 0, 33)
    if mtime is not None:
        os.utime(temporary, (mtime, mtime))
    os.rename(temporary, full)


def write(path, data):
    """Writes a file of /etc/pve."""
    check_quorum()
    db = connect()
    db.execute("BEGIN IMMEDIATE")
    put(db, path, data)
    db.execute("COMMIT")
    close(db)
    show(path, data)


def remove(path):
    """Removes a file of /etc/pve."""
    check_quorum()
    db = connect()
    db.execute("BEGIN IMMEDIATE")
    known = find(db, path)
    if known:
        _next(db, int(time.time()))
        db.execute("DELETE FROM tree WHERE inode=?", (known[0],))
    db.execute("COMMIT")
    close(db)
    if os.path.exists(f"{TREE}/{path}"):
        os.unlink(f"{TREE}/{path}")


def close(db):
    # Not the last one: pmxcfs holds the database open, or SQLite would write its log back.
    db.close()


def rows(db):
    """(path, type, mtime, data) of everything, parents first."""
    return db.execute(
        "WITH RECURSIVE p(inode, path, type, mtime, data) AS ("
        " SELECT inode, name, type, mtime, data FROM tree WHERE parent=0 AND inode<>0"
        " UNION ALL SELECT t.inode, p.path||'/'||t.name, t.type, t.mtime, t.data FROM tree t JOIN p ON t.parent=p.inode)"
        " SELECT path, type, mtime, data FROM p ORDER BY path"
    ).fetchall()
