//! What opens encrypted stores: the key that the host keeps, files that were named, a person at a terminal.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use bundle::crypt::{Cost, DataKey, KEPT_KEY, KeyFile, KeyRing, NewSlot, Secret};
use bundle::store::Store;

use crate::output::Usage;

/// Names a file with a passphrase, where no option does.
const VARIABLE: &str = "LIFEBOAT_PASSPHRASE_FILE";
/// How often a passphrase may be mistyped.
const ATTEMPTS: usize = 3;

/// Where keys come from in this run.
#[derive(Debug, Default)]
pub struct Sources {
    /// Files with a passphrase or a recovery key.
    pub passphrase_files: Vec<PathBuf>,
    /// Files with 32 bytes.
    pub key_files: Vec<PathBuf>,
    /// Where the host keeps the keys of its stores.
    pub dir: PathBuf,
}

static SOURCES: OnceLock<Sources> = OnceLock::new();
/// Keys of stores that were opened already: nobody is asked twice.
static OPENED: Mutex<Option<HashMap<String, DataKey>>> = Mutex::new(None);

/// Says once where keys come from.
pub fn install(mut sources: Sources) {
    if let Some(file) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        if sources.passphrase_files.is_empty() {
            sources.passphrase_files.push(file.into());
        }
    }
    let _ = SOURCES.set(sources);
}

/// Opens the store in `dir` with whatever is at hand; asks only where a person sits.
pub fn open(
    dir: &Path,
    named: &Path,
    how: impl Fn(&Path, &KeyRing) -> bundle::Result<Store>,
) -> anyhow::Result<Store> {
    let empty = Sources::default();
    let sources = SOURCES.get().unwrap_or(&empty);
    let mut ring = KeyRing::default();
    // What is wrong with a store is said when it is opened.
    let Ok(info) = Store::info(dir) else {
        return Ok(how(dir, &ring)?);
    };
    let known = OPENED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .and_then(|opened| opened.get(&info.id).cloned());
    let key = match known {
        Some(key) => Some(key),
        None => kept(&sources.dir, &info.id)?,
    };
    if let Some(key) = key {
        ring.add_data_key(&info.id, key);
    }
    if !info.encrypted {
        return Ok(how(dir, &ring)?);
    }
    let mut given = false;
    for file in &sources.key_files {
        ring.add(Secret::KeyFile(KeyFile::read(file)?));
        given = true;
    }
    for file in &sources.passphrase_files {
        ring.add(read_passphrase(file)?);
        given = true;
    }
    let store = match how(dir, &ring) {
        Err(e @ (bundle::Error::KeyNeeded { .. } | bundle::Error::WrongKey { .. })) if !given => {
            if !somebody_there() {
                return Err(anyhow!(e).context(format!(
                    "nobody can be asked (no terminal): name a file with --passphrase-file or --key-file, or let this host keep the key with `lifeboat key keep --on {}`",
                    named.display()
                )));
            }
            ask_and_open(dir, named, &how)?
        }
        other => other?,
    };
    if let Some(key) = store.data_key() {
        OPENED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_default()
            .insert(info.id, key.clone());
    }
    Ok(store)
}

fn ask_and_open(
    dir: &Path,
    named: &Path,
    how: impl Fn(&Path, &KeyRing) -> bundle::Result<Store>,
) -> anyhow::Result<Store> {
    for attempt in 1.. {
        let text = ask(&format!(
            "Passphrase or recovery key of {}",
            named.display()
        ))?;
        let mut ring = KeyRing::default();
        let error = match Secret::typed(&text) {
            Err(slip) => anyhow!(slip),
            Ok(secret) => {
                ring.add(secret);
                match how(dir, &ring) {
                    Err(e @ bundle::Error::WrongKey { .. }) => anyhow!(e),
                    other => return Ok(other?),
                }
            }
        };
        if attempt >= ATTEMPTS {
            return Err(error);
        }
        eprintln!("{error:#}");
    }
    bail!("no passphrase was given")
}

fn somebody_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn ask(question: &str) -> anyhow::Result<String> {
    let text = dialoguer::Password::new()
        .with_prompt(question)
        .interact()
        .context("nothing was typed")?;
    crate::signals::check()?;
    Ok(text)
}

/// A new passphrase, typed twice.
fn ask_new() -> anyhow::Result<String> {
    if !somebody_there() {
        return Err(Usage(
            "nobody can be asked for a passphrase (no terminal): name a file that holds it with --passphrase-file, or a key file with --key-file".into(),
        )
        .into());
    }
    loop {
        let text = ask("New passphrase")?;
        if ask("The same again")? == text {
            return Ok(text);
        }
        eprintln!("These were two different ones.");
    }
}

fn read_passphrase(file: &Path) -> anyhow::Result<Secret> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the passphrase file {}", file.display()))?;
    let secret = Secret::typed(&text).with_context(|| format!("in {}", file.display()))?;
    if matches!(&secret, Secret::Passphrase(text) if text.is_empty()) {
        bail!("the passphrase file {} is empty", file.display());
    }
    Ok(secret)
}

/// A passphrase for a new key: out of a file, or asked for.
pub fn new_passphrase(file: Option<&Path>) -> anyhow::Result<NewSlot> {
    let text = match file {
        Some(file) => match read_passphrase(file)? {
            Secret::Passphrase(text) => text,
            _ => bail!(
                "{} holds a recovery key, and a passphrase is wanted",
                file.display()
            ),
        },
        None => ask_new()?.into(),
    };
    Ok(NewSlot::Passphrase(text, Cost::default()))
}

/// A key file for a new key: the one that is there, else a new one.
pub fn new_key_file(file: &Path) -> anyhow::Result<NewSlot> {
    let key = if file.exists() {
        KeyFile::read(file)?
    } else {
        KeyFile::create(file)?
    };
    Ok(NewSlot::KeyFile(key))
}

/// The keys of a new encrypted store: what the options name, else a passphrase that is typed; always a recovery key.
pub fn for_new_store(
    passphrase: Option<&Path>,
    key_file: Option<&Path>,
) -> anyhow::Result<Vec<NewSlot>> {
    let mut slots = Vec::new();
    if passphrase.is_some() || key_file.is_none() {
        slots.push(new_passphrase(passphrase)?);
    }
    if let Some(file) = key_file {
        slots.push(new_key_file(file)?);
    }
    slots.push(NewSlot::Recovery);
    Ok(slots)
}

fn path_of(dir: &Path, store: &str) -> Option<PathBuf> {
    // The id comes from the medium and must not lead anywhere else.
    let uuid = store.len() == 36 && store.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    (uuid && !dir.as_os_str().is_empty()).then(|| dir.join(format!("{store}.key")))
}

/// Whether this host keeps the key of a store.
pub fn is_kept(dir: &Path, store: &str) -> bool {
    kept(dir, store).is_ok_and(|key| key.is_some())
}

/// The key that this host keeps of a store.
fn kept(dir: &Path, store: &str) -> anyhow::Result<Option<DataKey>> {
    let Some(path) = path_of(dir, store) else {
        return Ok(None);
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // Whoever is not root does not see what root keeps, and is asked like anybody else.
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let key = text.strip_prefix(KEPT_KEY).and_then(DataKey::from_hex);
    key.map(Some).with_context(|| {
        format!(
            "{} is not a key of a store; remove it, and let the host keep the key anew with `lifeboat key keep`",
            path.display()
        )
    })
}

/// Keeps the key of an open store on this host, for root only, so that scheduled backups do not ask.
pub fn keep(store: &Store) -> anyhow::Result<PathBuf> {
    let dir = &SOURCES.get().context("no place for keys is set")?.dir;
    let path = path_of(dir, store.id()).context("the store's id is not a UUID")?;
    let key = store.data_key().context("the store is not encrypted")?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    let unfinished = path.with_extension("new");
    let written = (|| {
        let _ = fs::remove_file(&unfinished);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        writeln!(file, "{KEPT_KEY}{}", *key.to_hex())?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(dir)?.sync_all()
    })();
    written.with_context(|| format!("cannot keep the key of the store in {}", path.display()))?;
    Ok(path)
}

/// Keeps the key where that is possible; a note says where, or why not.
pub fn keep_if_possible(store: &Store) -> String {
    match keep(store) {
        Ok(path) => format!(
            "this host keeps the key in {} and does not ask; it is not enough to read the target elsewhere: keep the recovery key on paper",
            path.display()
        ),
        Err(error) => format!("this host does not keep the key, so backups will ask: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_nowhere_else() {
        let dir = Path::new("/etc/lifeboat/keys");
        let good = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert_eq!(path_of(dir, good), Some(dir.join(format!("{good}.key"))));
        for bad in ["", "../../../../../../../../etc/shadow/..", "a/b"] {
            assert_eq!(path_of(dir, bad), None);
        }
    }

    #[test]
    fn what_is_no_key_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert!(kept(dir.path(), id).unwrap().is_none());
        fs::write(dir.path().join(format!("{id}.key")), "rubbish").unwrap();
        assert!(
            kept(dir.path(), id)
                .unwrap_err()
                .to_string()
                .contains("key keep")
        );
        let text = format!("{KEPT_KEY}{}\n", "0a".repeat(32));
        fs::write(dir.path().join(format!("{id}.key")), text).unwrap();
        assert!(kept(dir.path(), id).unwrap().is_some());
    }
}
