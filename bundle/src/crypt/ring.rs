//! What a user or a program has to open stores with.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{DataKey, RecoveryKey, TypingError, random};
use crate::{Error, Result, fsutil};

/// The content of a key file.
#[derive(Clone)]
pub struct KeyFile(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyFile(..)")
    }
}

impl KeyFile {
    /// Reads a key file.
    pub fn read(path: &Path) -> Result<KeyFile> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(64));
        File::open(path)
            .and_then(|file| file.take(33).read_to_end(&mut bytes))
            .map_err(Error::io("read the key file", path))?;
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return Err(Error::malformed(
                path.display(),
                "a key file has exactly 32 bytes, as `lifeboat key add --new-key-file` makes it",
            ));
        }
        key.copy_from_slice(&bytes);
        Ok(KeyFile(key))
    }

    /// Makes a key file of 32 random bytes that only its owner can read; a file that exists is not written over.
    pub fn create(path: &Path) -> Result<KeyFile> {
        let key = random()?;
        let made = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| {
                file.write_all(key.as_slice())?;
                file.sync_all()
            });
        made.map_err(Error::io("make the key file", path))?;
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty());
        fsutil::sync_dir(dir.unwrap_or(Path::new(".")))?;
        Ok(KeyFile(key))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// One thing that may open a store.
#[derive(Clone)]
pub enum Secret {
    /// What a person remembers.
    Passphrase(Zeroizing<String>),
    /// What a person kept on paper.
    Recovery(RecoveryKey),
    /// What lies in a file.
    KeyFile(KeyFile),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Secret::Passphrase(_) => "Passphrase(..)",
            Secret::Recovery(_) => "Recovery(..)",
            Secret::KeyFile(_) => "KeyFile(..)",
        })
    }
}

impl Secret {
    /// What was typed (or is in a file of one line): a recovery key where it has the form of one, else a passphrase.
    pub fn typed(text: &str) -> Result<Secret, TypingError> {
        let text = text.trim_end_matches(['\r', '\n']);
        if RecoveryKey::resembles(text) {
            return RecoveryKey::parse(text).map(Secret::Recovery);
        }
        Ok(Secret::Passphrase(Zeroizing::new(text.to_owned())))
    }
}

/// Everything at hand that may open stores.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    pub(super) secrets: Vec<Secret>,
    pub(super) data_keys: HashMap<String, DataKey>,
}

impl KeyRing {
    /// Adds a secret.
    pub fn add(&mut self, secret: Secret) {
        self.secrets.push(secret);
    }

    /// Adds the data key of the store of this id, as the host keeps it.
    pub fn add_data_key(&mut self, store: &str, key: DataKey) {
        self.data_keys.insert(store.to_owned(), key);
    }

    /// Is there anything in it for this store?
    pub(crate) fn has_data_key(&self, store: &str) -> bool {
        self.data_keys.contains_key(store)
    }
}
