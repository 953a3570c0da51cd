use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use rusqlite::Connection;
use serde_json::json;

use super::*;

const CONF: &str = "totem {\n  cluster_name: lab\n}\n";

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary directory"))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn corosync(&self) {
        self.file("/etc/corosync/corosync.conf", CONF);
        self.file("/etc/corosync/authkey", "key");
        let mode = fs::Permissions::from_mode(0o400);
        fs::set_permissions(self.path("/etc/corosync/authkey"), mode).expect("set");
    }

    /// As pmxcfs makes it (database.c), in WAL mode. The connection stays open, so that what was written is in the log only.
    fn database(&self, rows: &[(i64, i64, i64, &str, &str)]) -> Connection {
        self.file(database::DATABASE, "");
        let database = Connection::open(self.path(database::DATABASE)).expect("opened");
        database
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
                 CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL CHECK(typeof(parent)='integer'),
                 version INTEGER NOT NULL CHECK(typeof(version)='integer'), writer INTEGER NOT NULL CHECK(typeof(writer)='integer'),
                 mtime INTEGER NOT NULL CHECK(typeof(mtime)='integer'), type INTEGER NOT NULL CHECK(typeof(type)='integer'),
                 name TEXT NOT NULL, data BLOB);
                 INSERT INTO tree VALUES (0, 0, 17, 0, 0, 8, '__version__', NULL);",
            )
            .expect("made");
        for (inode, parent, kind, name, data) in rows {
            database
                .execute(
                    "INSERT INTO tree VALUES (?1, ?2, ?1, 0, 0, ?3, ?4, ?5)",
                    rusqlite::params![inode, parent, kind, name, data.as_bytes()],
                )
                .expect("inserted");
        }
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path(database::DATABASE), mode).expect("set");
        database
    }

    fn isolate(&self) -> Result<Option<Isolated>> {
        self.isolate_with(&Hold::default())
    }

    fn isolate_with(&self, hold: &Hold) -> Result<Option<Isolated>> {
        let scratch = tempfile::tempdir().expect("temporary directory");
        let result = isolate(
            &Inside::open(self.0.path()).expect("opened"),
            scratch.path(),
            hold,
        );
        assert_eq!(
            fs::read_dir(scratch.path()).expect("listed").count(),
            0,
            "copies stay"
        );
        result
    }

    fn names(&self) -> Vec<String> {
        let database = Connection::open(self.path(database::DATABASE)).expect("opened");
        let mut statement = database
            .prepare("SELECT name FROM tree ORDER BY inode")
            .expect("asked");
        let rows = statement.query_map([], |row| row.get(0)).expect("asked");
        rows.map(|row| row.expect("a name")).collect()
    }
}

/// A member with one of everything: files of other directories have the same names.
fn member() -> [(i64, i64, i64, &'static str, &'static str); 6] {
    [
        (2, 0, 4, "nodes", ""),
        (3, 0, 8, "corosync.conf", CONF),
        (4, 2, 8, "corosync.conf", "another"),
        (5, 0, 8, "storage.cfg", "dir: local\n"),
        (6, 0, 4, "ha", ""),
        (7, 6, 8, "resources.cfg", "vm: 100\n"),
    ]
}

#[test]
fn a_member_starts_alone() {
    let root = Root::new();
    root.corosync();
    root.file("/etc/corosync/uidgid.d/x", "x");
    root.file("/usr/lib/systemd/system/pve-ha-lrm.service", "[Unit]\n");
    // All of it in the log: the file alone has no table yet.
    let open = root.database(&member());
    let done = root.isolate().expect("isolated").expect("a member");
    drop(open);
    assert!(done.in_database && done.notes.is_empty(), "{done:?}");
    assert_eq!(done.aside, ["authkey", "corosync.conf"]);
    assert_eq!(done.masked, ["pve-ha-lrm.service"]);
    let aside = |name: &str| root.path(&format!("{ASIDE}/{name}"));
    assert_eq!(
        fs::read_to_string(aside("corosync.conf")).expect("kept"),
        CONF
    );
    let mode = fs::metadata(aside("authkey"))
        .expect("kept")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o400);
    assert!(!root.path("/etc/corosync/authkey").exists());
    assert!(root.path("/etc/corosync/uidgid.d/x").exists());
    let masked = fs::read_link(root.path("/etc/systemd/system/pve-ha-lrm.service"));
    assert_eq!(masked.expect("masked"), Path::new("/dev/null"));
    for text in [
        fs::read_to_string(aside("README")),
        fs::read_to_string(root.path(MOTD)),
    ] {
        assert!(text.expect("a note").contains("ISOLATED"));
    }
    // One whole file, with everything else as it was.
    for beside in ["-wal", "-shm"] {
        assert!(
            !root
                .path(&format!("{}{beside}", database::DATABASE))
                .exists(),
            "{beside}"
        );
    }
    let database = root.path(database::DATABASE);
    assert_eq!(
        fs::metadata(&database).expect("there").permissions().mode() & 0o7777,
        0o600
    );
    assert_eq!(
        root.names(),
        [
            "__version__",
            "nodes",
            "corosync.conf",
            "storage.cfg",
            "ha",
            "resources.cfg"
        ]
    );
    let ask = Connection::open(&database).expect("opened");
    let text = |query: &str| -> String {
        ask.query_row(query, [], |row| row.get(0))
            .expect("answered")
    };
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    assert_eq!(text("PRAGMA journal_mode"), "delete");
    assert_eq!(text("SELECT '' || version FROM tree WHERE inode = 0"), "17");
    // Once more, after a power cut for example.
    let again = root.isolate().expect("isolated").expect("still one");
    assert!(again.aside.is_empty() && !again.in_database);
    assert!(aside("authkey").exists());
}

#[test]
fn whichever_says_so() {
    let root = Root::new();
    root.corosync();
    let done = root
        .isolate()
        .expect("isolated")
        .expect("a member by its files");
    assert!(!done.in_database && done.masked.is_empty());
    let root = Root::new();
    drop(root.database(&member()[..2]));
    let done = root
        .isolate()
        .expect("isolated")
        .expect("a member by its database");
    assert!(done.in_database && done.aside.is_empty(), "{done:?}");
    assert_eq!(root.names(), ["__version__", "nodes"]);
}

#[test]
fn a_node_that_stands_alone_is_not_touched() {
    let root = Root::new();
    // Written out, as a saved copy is.
    let database = root.database(&member()[2..4]);
    database
        .pragma_update(None, "journal_mode", "DELETE")
        .expect("set");
    drop(database);
    root.file("/etc/corosync/uidgid.d/x", "x");
    let before = fs::read(root.path(database::DATABASE)).expect("read");
    let changed = fs::metadata(root.path(database::DATABASE))
        .expect("there")
        .modified()
        .expect("a time");
    assert_eq!(root.isolate().expect("looked"), None);
    assert_eq!(
        fs::read(root.path(database::DATABASE)).expect("read"),
        before
    );
    let after = fs::metadata(root.path(database::DATABASE))
        .expect("there")
        .modified()
        .expect("a time");
    assert_eq!(after, changed);
    for none in [ASIDE, "/etc/motd.d", "/etc/systemd"] {
        assert!(!root.path(none).exists(), "{none}");
    }
    // Also with its log, which is left to pmxcfs.
    let root = Root::new();
    let open = root.database(&member()[3..4]);
    let log = root.path(&format!("{}-wal", database::DATABASE));
    let before = fs::read(&log).expect("a log");
    assert_eq!(root.isolate().expect("looked"), None);
    assert_eq!(fs::read(&log).expect("a log"), before);
    drop(open);
    // Nor a host without Proxmox VE.
    assert_eq!(Root::new().isolate().expect("looked"), None);
}

#[test]
fn a_damaged_database_keeps_nobody_from_being_alone() {
    let root = Root::new();
    root.corosync();
    root.file(database::DATABASE, &"no database".repeat(1000));
    let done = root.isolate().expect("isolated").expect("a member");
    assert_eq!(done.aside.len(), 2);
    assert!(done.notes[0].contains("config.db"), "{:?}", done.notes);
    assert!(!root.path("/etc/corosync/authkey").exists());
    // And where nothing else says that it is a member, it is only said.
    let root = Root::new();
    root.file(database::DATABASE, &"no database".repeat(1000));
    let done = root.isolate().expect("looked").expect("something to say");
    assert!(done.aside.is_empty() && done.notes.len() == 1);
    assert!(!root.path(ASIDE).exists());
}

#[test]
fn hostile_trees_lead_nowhere_outside() {
    let outside = tempfile::tempdir().expect("temporary directory");
    let file = |name: &str| outside.path().join(name);
    for name in ["corosync.conf", "authkey", "config.db"] {
        fs::write(file(name), "outside").expect("written");
    }
    // The directory itself leads away: there is nothing in it, seen from inside.
    let root = Root::new();
    fs::create_dir_all(root.path("/etc")).expect("made");
    symlink(outside.path(), root.path("/etc/corosync")).expect("link");
    fs::create_dir_all(root.path("/var/lib/pve-cluster")).expect("made");
    symlink(file("config.db"), root.path(database::DATABASE)).expect("link");
    let done = root.isolate().expect("looked").expect("something to say");
    assert!(
        done.aside.is_empty() && done.notes[0].contains("no regular file"),
        "{done:?}"
    );
    // The place for the files leads away.
    let root = Root::new();
    root.corosync();
    symlink(outside.path(), root.path(ASIDE)).expect("link");
    assert!(root.isolate().is_err());
    // A link as a file is moved as what it is.
    let root = Root::new();
    fs::create_dir_all(root.path("/etc/corosync")).expect("made");
    symlink(
        file("corosync.conf"),
        root.path("/etc/corosync/corosync.conf"),
    )
    .expect("link");
    let done = root.isolate().expect("isolated").expect("a member");
    assert_eq!(done.aside, ["corosync.conf"]);
    // Beside the database.
    let root = Root::new();
    drop(root.database(&member()));
    let log = root.path(&format!("{}-wal", database::DATABASE));
    let _ = fs::remove_file(&log);
    symlink(file("config.db"), &log).expect("link");
    assert!(
        root.isolate()
            .expect("isolated")
            .expect("a member")
            .in_database
    );
    assert!(!log.exists());
    for name in ["corosync.conf", "authkey", "config.db"] {
        assert_eq!(
            fs::read_to_string(file(name)).expect("there"),
            "outside",
            "{name}"
        );
    }
    assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 3);
}

#[test]
fn membership_is_told_by_facts_or_files() {
    let root = Root::new();
    let inside = Inside::open(root.0.path()).expect("opened");
    let alone = json!({ "proxmox": { "name": "pve1", "cluster": null } });
    assert_eq!(Cluster::of(&alone, Some(&inside)), None);
    let member = json!({ "proxmox": { "name": "pve1", "cluster": { "name": "lab", "nodes": ["pve1", "pve2"] } } });
    let cluster = Cluster::of(&member, None).expect("a member");
    assert_eq!(cluster.describe(), "cluster lab (with pve2)");
    root.corosync();
    let cluster = Cluster::of(&alone, Some(&inside)).expect("a member by its files");
    assert_eq!(cluster.describe(), "cluster");
}

#[test]
fn what_is_said_fits_a_console() {
    let done = Isolated {
        aside: FILES.map(str::to_owned).to_vec(),
        in_database: true,
        masked: HA.map(str::to_owned).to_vec(),
        held: Hold::of(&crate::guests::shared::tests::facts()),
        notes: Vec::new(),
    };
    let text = how_to_go_on(&done);
    for line in text.lines() {
        assert!(line.is_ascii() && line.len() <= 85, "{line}");
    }
    assert!(text.contains("systemctl unmask pve-ha-lrm.service pve-ha-crm.service"));
    assert!(text.contains("    VM 100 (web) on nas\n") && !text.contains("200"));
    for command in shared::lift() {
        assert!(text.contains(&format!("\n    {command}\n")), "{text}");
    }
    let motd = motd(&done.held);
    assert!(motd.contains("NO guests"), "{motd}");
    for line in motd.lines() {
        assert!(line.is_ascii() && line.len() <= 85, "{line}");
    }
    let nothing_held = Isolated::default();
    assert!(!how_to_go_on(&nothing_held).contains("HELD BACK"));
}

#[test]
fn guests_on_storages_of_other_nodes_are_held_back_where_it_starts_alone() {
    let hold = Hold::of(&crate::guests::shared::tests::facts());
    let member = |hold: &Hold| {
        let root = Root::new();
        root.corosync();
        root.file("/usr/lib/systemd/system/pve-guests.service", "[Unit]\n");
        let done = root
            .isolate_with(hold)
            .expect("isolated")
            .expect("a member");
        assert!(done.notes.is_empty(), "{done:?}");
        (root, done)
    };
    let (root, done) = member(&hold);
    assert_eq!(done.held, hold);
    let text = fs::read_to_string(root.path(shared::HELD)).expect("held back");
    assert!(shared::Held::parse(&text).holds(100));
    for file in [README, MOTD] {
        let text = fs::read_to_string(root.path(file)).expect("there");
        assert!(text.contains("by itself"), "{file}: {text}");
    }
    // Once more, after a power cut for example.
    let again = root.isolate_with(&hold).expect("isolated");
    assert_eq!(again.expect("still one").held, hold);
    assert_eq!(
        fs::read_to_string(root.path(shared::HELD)).expect("there"),
        text
    );
    // With disks of its own only.
    let (root, done) = member(&Hold::default());
    assert!(done.held.is_empty());
    assert!(
        !root
            .path("/etc/systemd/system/pve-guests.service.d")
            .exists()
    );
    // A node that stands alone.
    let root = Root::new();
    root.file("/usr/lib/systemd/system/pve-guests.service", "[Unit]\n");
    assert_eq!(root.isolate_with(&hold).expect("looked"), None);
    assert!(!root.path("/etc").exists());
    // Where they cannot be held back, it is no success.
    let root = Root::new();
    root.corosync();
    root.file("/usr/lib/systemd/system/pve-guests.service", "[Unit]\n");
    root.file("/etc/systemd/system/pve-guests.service.d", "a file");
    let error = root.isolate_with(&hold).expect_err("not held back");
    assert!(
        format!("{error:#}").contains("cannot be held back"),
        "{error:#}"
    );
}
