//! The keys of a store. A change rewrites `store.json` and its copy; data are not touched.

use super::Store;
use super::open::{StoreFile, read_store_file};
use crate::crypt::{DataKey, Encryption, NewSlot, RecoveryKey, SlotInfo, SlotKind, StoreCipher};
use crate::{Error, Result, fsutil};

impl Store {
    /// Is a key needed to read it?
    pub fn encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    /// The key that opens the store without any of its slots, for the host to keep.
    pub fn data_key(&self) -> Option<&DataKey> {
        self.cipher.as_ref().map(StoreCipher::key)
    }

    /// Encrypts an empty store: from now on, nothing is written to it in the clear. Returns the recovery keys made.
    pub fn encrypt(&mut self, keys: &[NewSlot]) -> Result<Vec<RecoveryKey>> {
        if self.encrypted() {
            return Err(Error::Keys(format!(
                "the store in {} is encrypted already; `lifeboat key add` gives it another key",
                self.dir.display()
            )));
        }
        for name in ["packs", "index", "snapshots"] {
            if !fsutil::names(&self.root.join(name))?.is_empty() {
                return Err(Error::Keys(format!(
                    "the store in {} holds data in the clear, and only an empty one can be encrypted; make a new one with `lifeboat prepare --encrypt`",
                    self.dir.display()
                )));
            }
        }
        let key = DataKey::random()?;
        let mut encryption = Encryption::new(&key, &self.id);
        let mut recovery = Vec::new();
        for new in keys {
            recovery.extend(encryption.add(&key, &self.id, new)?.1);
        }
        encryption.examine().map_err(Error::Keys)?;
        self.change(|file| {
            file.encryption = Some(encryption);
            Ok(())
        })?;
        self.cipher = Some(StoreCipher::new(key, &self.id));
        Ok(recovery)
    }

    /// The keys.
    pub fn keys(&self) -> Result<Vec<SlotInfo>> {
        Ok(Store::info(&self.dir)?.keys)
    }

    /// What the key of this id (or the beginning of one) is.
    pub fn kind_of_key(&self, id: &str) -> Result<SlotKind> {
        let mut file = read_store_file(&self.dir)?.0;
        self.encryption(&mut file)?.kind_of(id)
    }

    /// Adds a key; returns its id, and the recovery key if one was made.
    pub fn add_key(&mut self, new: &NewSlot) -> Result<(String, Option<RecoveryKey>)> {
        let key = self.own_key()?;
        self.change(|file| self.encryption(file)?.add(&key, &self.id, new))
    }

    /// Takes a key away. The last one stays.
    pub fn remove_key(&mut self, id: &str) -> Result<()> {
        self.change(|file| self.encryption(file)?.remove(id))
    }

    /// Gives a key another secret; what opened it before does not any more.
    pub fn rotate_key(&mut self, id: &str, new: &NewSlot) -> Result<Option<RecoveryKey>> {
        let key = self.own_key()?;
        self.change(|file| self.encryption(file)?.rotate(id, &key, &self.id, new))
    }

    fn own_key(&self) -> Result<DataKey> {
        self.data_key().cloned().ok_or_else(|| self.plain())
    }

    fn encryption<'f>(&self, file: &'f mut StoreFile) -> Result<&'f mut Encryption> {
        file.encryption.as_mut().ok_or_else(|| self.plain())
    }

    fn plain(&self) -> Error {
        Error::Keys(format!(
            "the store in {} is not encrypted; `lifeboat key init` encrypts an empty one",
            self.dir.display()
        ))
    }

    fn change<T>(&self, work: impl FnOnce(&mut StoreFile) -> Result<T>) -> Result<T> {
        if !self.writable() {
            return Err(Error::Internal(
                "keys are changed in a store that is open for reading",
            ));
        }
        let mut file = read_store_file(&self.dir)?.0;
        let result = work(&mut file)?;
        file.write(&self.root)?;
        Ok(result)
    }
}
