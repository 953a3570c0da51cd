//! What the rescue system leaves in a restored system, so that its guests come back at the first boot, and what takes
//! that away afterwards.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bundle::crypt::DataKey;

use super::{DIR, PENDING, Pending, STATUS};
use crate::inside::Inside;

const UNIT: &str = include_str!("../../../udev-rules/lifeboat-guests.service");
const HELD_BACK: &str = include_str!("../../../udev-rules/lifeboat-guests.conf");

/// The unit's file.
const UNIT_FILE: &str = "/etc/systemd/system/lifeboat-guests.service";
/// What makes the unit start with the system.
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/lifeboat-guests.service";
/// What starts guests: all of them at boot, and those that are watched over by the cluster.
pub const STARTERS: [&str; 3] = ["pve-guests", "pve-ha-crm", "pve-ha-lrm"];
/// Where a host keeps the keys of its stores.
const KEYS: &str = "/etc/lifeboat/keys";
/// The program, where the restore point does not say where it was.
const PROGRAM: [&str; 3] = [
    "/usr/bin/lifeboat",
    "/usr/local/bin/lifeboat",
    "/usr/local/sbin/lifeboat",
];

fn drop_in(unit: &str) -> PathBuf {
    PathBuf::from(format!(
        "/etc/systemd/system/{unit}.service.d/lifeboat-guests.conf"
    ))
}

/// Leaves the list, the unit and the keys of encrypted stores in the system that is mounted at `root`. `program` is where
/// the restore point says that `lifeboat` was. Gives back what has to be done by hand.
pub fn install(
    root: &Path,
    pending: &Pending,
    program: Option<&Path>,
    keys: &[(String, DataKey)],
) -> Result<Vec<String>> {
    let system = Inside::open(root)?;
    let mut by_hand = Vec::new();
    for (store, key) in keys {
        if let Err(error) = keep_key(&system, store, key) {
            by_hand.push(format!("{error:#}"));
        }
    }
    let json = serde_json::to_vec_pretty(pending)?;
    let dir = Path::new(DIR);
    system.put(&dir.join(STATUS), &json, 0o600, 0o700)?;
    let known = program.into_iter().chain(PROGRAM.iter().map(Path::new));
    let mut known = known.filter(|p| usable(p) && system.is_program(p));
    let Some(program) = known.next() else {
        // Without it nothing would ever let the guests start again.
        system.put(&dir.join(PENDING), &json, 0o600, 0o700)?;
        by_hand.push(
            "the restored system has no program lifeboat, so its guests do not come back by themselves: install it there, \
             then run `lifeboat guests restore --pending`"
                .to_owned(),
        );
        return Ok(by_hand);
    };
    let unit = UNIT.replace("@LIFEBOAT@", &program.display().to_string());
    system.put(Path::new(UNIT_FILE), unit.as_bytes(), 0o644, 0o755)?;
    system.link(Path::new(UNIT_FILE), Path::new(WANTED))?;
    for unit in STARTERS {
        system.put(&drop_in(unit), HELD_BACK.as_bytes(), 0o644, 0o755)?;
    }
    // Last: with it, all of the above counts.
    system.put(&dir.join(PENDING), &json, 0o600, 0o700)?;
    Ok(by_hand)
}

/// Takes a list away that the backup caught of an earlier restore: what it says of the guests is no longer so.
pub fn clear(root: &Path) -> Result<()> {
    let system = Inside::open(root)?;
    system.remove(&Path::new(DIR).join(PENDING))?;
    system.remove(&Path::new(DIR).join(STATUS))
}

/// An absolute path that is one word in a unit (systemd.syntax(7), systemd.service(5)).
fn usable(program: &Path) -> bool {
    let text = program.to_str().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+');
    text.starts_with('/') && text.chars().all(plain)
}

/// The host had the key before, if its backups were made by a timer: it is put where it lacks.
fn keep_key(system: &Inside, store: &str, key: &DataKey) -> Result<()> {
    let uuid = store.len() == 36 && store.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if !uuid {
        bail!("the id of the encrypted store {store:?} is no UUID: its key cannot be kept");
    }
    let path = Path::new(KEYS).join(format!("{store}.key"));
    let content = text(key);
    // Whatever else is there is no key, and is replaced.
    let there = system.read(&path, 4096).ok().flatten();
    if there.as_deref() == Some(content.as_bytes()) {
        return Ok(());
    }
    system
        .put(&path, content.as_bytes(), 0o600, 0o700)
        .with_context(|| {
            format!(
                "the key of the encrypted store {store} is not on the restored system: let it keep the key with `lifeboat \
                 key keep`, then run `lifeboat guests restore --pending`"
            )
        })
}

fn text(key: &DataKey) -> String {
    format!("{}{}\n", bundle::crypt::KEPT_KEY, *key.to_hex())
}

/// Takes the unit and what holds guests back away again, from the running system. Errors are told, and matter little: what
/// is left does nothing without the list.
pub fn uninstall(root: &Path) -> Vec<String> {
    let dirs = STARTERS.map(drop_in);
    let files = [PathBuf::from(WANTED), PathBuf::from(UNIT_FILE)];
    let mut problems = Vec::new();
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for path in files.iter().chain(&dirs).map(|path| inside(path)) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                problems.push(format!("cannot remove {}: {error}", path.display()));
            }
            _ => {}
        }
    }
    for dir in dirs.iter().filter_map(|path| path.parent()) {
        // Somebody else's drop-ins stay.
        let _ = std::fs::remove_dir(inside(dir));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::pending;
    use super::*;

    fn system() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in ["usr/local/bin", "opt/x", "var/lib", "etc/systemd/system"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        dir
    }

    fn program(root: &Path, path: &str) {
        let path = root.join(path);
        fs::write(&path, b"\x7fELF").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn all_is_left_that_the_first_boot_needs_and_taken_away_again() {
        let root = system();
        let root = root.path();
        program(root, "opt/x/lifeboat");
        program(root, "usr/local/bin/lifeboat");
        let store = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let key = DataKey::from_hex(&"0a".repeat(32)).unwrap();
        let named = Path::new("/opt/x/lifeboat");
        let keys = [(store.to_owned(), key)];
        let by_hand = install(root, &pending(), Some(named), &keys).unwrap();
        assert!(by_hand.is_empty(), "{by_hand:?}");
        let unit = fs::read_to_string(root.join(&UNIT_FILE[1..])).unwrap();
        assert!(unit.contains("\nExecStart=/opt/x/lifeboat guests restore --pending\n"));
        assert!(!unit.contains('@'));
        assert_eq!(
            fs::read_link(root.join(&WANTED[1..])).unwrap(),
            Path::new(UNIT_FILE)
        );
        let held = root.join("etc/systemd/system/pve-guests.service.d/lifeboat-guests.conf");
        let flag = format!("ConditionPathExists=!{DIR}/{PENDING}");
        assert!(fs::read_to_string(&held).unwrap().contains(&flag));
        assert!(unit.contains(&flag.replace('!', "")));
        let dir = root.join(&DIR[1..]);
        assert_eq!(Pending::read(&dir).unwrap(), Some(pending()));
        assert_eq!(Pending::read_status(&dir).unwrap(), Some(pending()));
        let kept = root.join("etc/lifeboat/keys").join(format!("{store}.key"));
        let text = fs::read_to_string(&kept).unwrap();
        assert_eq!(text, format!("lifeboat-data-key 1 {}\n", "0a".repeat(32)));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept), mode(kept.parent().unwrap())), (0o600, 0o700));
        // The step is repeated after a failure.
        install(root, &pending(), Some(named), &keys).unwrap();
        clear(root).unwrap();
        assert_eq!(Pending::read(&dir).unwrap(), None);
        assert_eq!(Pending::read_status(&dir).unwrap(), None);
        fs::write(held.parent().unwrap().join("mine.conf"), "").unwrap();
        assert_eq!(uninstall(root), Vec::<String>::new());
        assert!(!held.exists() && held.parent().unwrap().exists());
        assert!(!root.join(&UNIT_FILE[1..]).exists() && !root.join(&WANTED[1..]).is_symlink());
        assert!(
            !root
                .join("etc/systemd/system/pve-ha-crm.service.d")
                .exists()
        );
    }

    #[test]
    fn without_the_program_nothing_is_held_back_and_it_is_said() {
        let root = system();
        let root = root.path();
        fs::write(root.join("opt/x/lifeboat"), b"not executable").unwrap();
        let by_hand = install(root, &pending(), Some(Path::new("/opt/x/lifeboat")), &[]).unwrap();
        assert!(by_hand[0].contains("install it there"), "{by_hand:?}");
        assert!(root.join(&DIR[1..]).join(PENDING).exists());
        assert!(
            !root
                .join("etc/systemd/system/pve-guests.service.d")
                .exists()
        );
        // Where it usually is, whatever the restore point says.
        program(root, "usr/local/bin/lifeboat");
        let odd = Path::new("/opt/x y/lifeboat");
        assert!(
            install(root, &pending(), Some(odd), &[])
                .unwrap()
                .is_empty()
        );
        let unit = fs::read_to_string(root.join(&UNIT_FILE[1..])).unwrap();
        assert!(unit.contains("ExecStart=/usr/local/bin/lifeboat guests"));
    }
}
