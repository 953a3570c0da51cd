//! Key slots: each wraps the store's data key with a secret of its own, so that secrets change without the data.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{DataKey, FileCipher, KeyFile, KeyRing, Part, RecoveryKey, Secret, derive, random};
use crate::{Error, Result, time};

const CIPHER: &str = "aes-256-gcm";
/// Bounds on what a store may ask for, so that a forged one cannot exhaust memory or time.
const MAX_SLOTS: usize = 32;
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_WORK: u64 = 16 << 20;
const MAX_LANES: u32 = 16;

/// What it costs to try a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for Cost {
    /// RFC 9106's second recommendation, for one processor.
    fn default() -> Self {
        Cost {
            memory_kib: 64 << 10,
            passes: 3,
        }
    }
}

/// What a slot is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotKind {
    /// A passphrase.
    Passphrase,
    /// A recovery key.
    Recovery,
    /// A key file.
    KeyFile,
}

impl SlotKind {
    /// As the format writes it.
    fn word(self) -> &'static str {
        match self {
            SlotKind::Passphrase => "passphrase",
            SlotKind::Recovery => "recovery",
            SlotKind::KeyFile => "key-file",
        }
    }
}

impl std::fmt::Display for SlotKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SlotKind::Passphrase => "passphrase",
            SlotKind::Recovery => "recovery key",
            SlotKind::KeyFile => "key file",
        })
    }
}

/// The secret of a slot that is to be made.
#[derive(Debug, Clone)]
pub enum NewSlot {
    /// Opened with this passphrase.
    Passphrase(Zeroizing<String>, Cost),
    /// Opened with a new recovery key, which the caller shows once.
    Recovery,
    /// Opened with this key file.
    KeyFile(KeyFile),
}

/// A slot, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotInfo {
    /// To name it by.
    pub id: String,
    /// What opens it.
    pub kind: SlotKind,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
}

/// How a passphrase becomes a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argon2id {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    id: String,
    kind: SlotKind,
    created: String,
    /// 32 bytes, in hexadecimal digits.
    salt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argon2id: Option<Argon2id>,
    /// The wrapped data key and its tag, in hexadecimal digits.
    key: String,
}

/// The field `encryption` of `store.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Encryption {
    cipher: String,
    /// Fits the data key alone, and says nothing about it: a wrong key is told apart from damage.
    check: String,
    slots: Vec<Slot>,
}

impl Slot {
    /// The key that wraps the data key; what is wrong with the slot in words.
    fn wrapping(&self, secret: &[u8], store: &str) -> Result<FileCipher, String> {
        let mut salt = [0; 32];
        hex::decode_to_slice(&self.salt, &mut salt).map_err(|e| format!("its salt: {e}"))?;
        let stretched = match &self.argon2id {
            Some(cost) => Some(cost.stretch(secret, &salt)?),
            None => None,
        };
        let secret = stretched.as_ref().map_or(secret, |s| s.as_slice());
        // The salt is new with every secret, so that no key wraps twice.
        let info = format!("lifeboat 1 slot {} {} {store}", self.kind.word(), self.id);
        Ok(FileCipher::new(&derive(secret, &salt, &info)))
    }

    fn unwrap(&self, secret: &[u8], store: &str) -> Result<Option<DataKey>, String> {
        let cipher = self.wrapping(secret, store)?;
        let mut key = Zeroizing::new(hex::decode(&self.key).map_err(|e| format!("its key: {e}"))?);
        if cipher.open(Part::Whole, &mut key).is_err() {
            return Ok(None);
        }
        Ok(DataKey::from_hex(&Zeroizing::new(hex::encode(&*key))))
    }
}

impl Argon2id {
    fn stretch(&self, secret: &[u8], salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, String> {
        let work = u64::from(self.memory_kib) * u64::from(self.passes);
        if self.memory_kib > MAX_MEMORY_KIB || work > MAX_WORK || self.lanes > MAX_LANES {
            return Err(format!(
                "it asks for {} MiB of memory and {} passes, more than any writer does",
                self.memory_kib >> 10,
                self.passes
            ));
        }
        let mut key = Zeroizing::new([0; 32]);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32));
        params
            .and_then(|params| {
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                    secret,
                    salt,
                    key.as_mut_slice(),
                )
            })
            .map_err(|e| format!("its Argon2id parameters: {e}"))?;
        Ok(key)
    }
}

fn check_of(key: &DataKey, store: &str) -> String {
    hex::encode(derive(key.bytes(), b"", &format!("lifeboat 1 check {store}")).as_slice())
}

/// What came of trying a key ring.
pub(crate) enum Tried {
    Opened(DataKey),
    /// Nothing in the ring could be tried.
    Nothing,
    /// These were tried and do not fit.
    Wrong(Vec<SlotKind>),
}

impl Encryption {
    /// Without slots yet.
    pub(crate) fn new(key: &DataKey, store: &str) -> Encryption {
        Encryption {
            cipher: CIPHER.to_string(),
            check: check_of(key, store),
            slots: Vec::new(),
        }
    }

    /// Is it of a kind that this version understands?
    pub(crate) fn examine(&self) -> Result<(), String> {
        if self.cipher != CIPHER {
            return Err(format!(
                "the cipher {:?} is not known; use a newer lifeboat",
                self.cipher
            ));
        }
        if self.slots.is_empty() || self.slots.len() > MAX_SLOTS {
            return Err(format!("it has {} key slots", self.slots.len()));
        }
        Ok(())
    }

    pub(crate) fn slots(&self) -> Vec<SlotInfo> {
        let slots = self.slots.iter().map(|slot| SlotInfo {
            id: slot.id.clone(),
            kind: slot.kind,
            created: slot.created.clone(),
        });
        slots.collect()
    }

    pub(crate) fn fits(&self, key: &DataKey, store: &str) -> bool {
        self.check == check_of(key, store)
    }

    /// Tries everything that is at hand. Cheap secrets first: a passphrase takes a second.
    pub(crate) fn open(&self, ring: &KeyRing, store: &str) -> Result<Tried, String> {
        let mut wrong = Vec::new();
        if let Some(key) = ring.data_keys.get(store) {
            if self.fits(key, store) {
                return Ok(Tried::Opened(key.clone()));
            }
            wrong.push(SlotKind::KeyFile);
        }
        let mut unusable = None;
        for kind in [SlotKind::KeyFile, SlotKind::Recovery, SlotKind::Passphrase] {
            for secret in ring.secrets.iter().filter(|s| s.kind() == kind) {
                for slot in self.slots.iter().filter(|s| s.kind == kind) {
                    match slot.unwrap(secret.bytes(), store) {
                        Ok(Some(key)) if self.fits(&key, store) => return Ok(Tried::Opened(key)),
                        Ok(_) => {}
                        Err(reason) => unusable = Some(format!("key slot {}: {reason}", slot.id)),
                    }
                }
                if !wrong.contains(&kind) {
                    wrong.push(kind);
                }
            }
        }
        match (unusable, wrong.is_empty()) {
            (Some(reason), _) => Err(reason),
            (None, true) => Ok(Tried::Nothing),
            (None, false) => Ok(Tried::Wrong(wrong)),
        }
    }

    /// Adds a slot; returns its id, and the recovery key if one was made.
    pub(crate) fn add(
        &mut self,
        key: &DataKey,
        store: &str,
        new: &NewSlot,
    ) -> Result<(String, Option<RecoveryKey>)> {
        if self.slots.len() >= MAX_SLOTS {
            return Err(Error::Keys(format!(
                "a store has at most {MAX_SLOTS} keys: remove one first"
            )));
        }
        let id = loop {
            let id = hex::encode(random::<4>()?.as_slice());
            if self.slots.iter().all(|s| s.id != id) {
                break id;
            }
        };
        let (slot, recovery) = make(id.clone(), key, store, new)?;
        self.slots.push(slot);
        Ok((id, recovery))
    }

    /// Takes a slot away, by its id or the beginning of it. The last one stays.
    pub(crate) fn remove(&mut self, id: &str) -> Result<()> {
        let at = self.find(id)?;
        if self.slots.len() == 1 {
            return Err(Error::Keys(
                "the last key of a store cannot be removed: nobody could read it any more; add another one first".into(),
            ));
        }
        self.slots.remove(at);
        Ok(())
    }

    /// Gives a slot another secret of the same kind. Its id stays.
    pub(crate) fn rotate(
        &mut self,
        id: &str,
        key: &DataKey,
        store: &str,
        new: &NewSlot,
    ) -> Result<Option<RecoveryKey>> {
        let at = self.find(id)?;
        let (slot, recovery) = make(self.slots[at].id.clone(), key, store, new)?;
        self.slots[at] = slot;
        Ok(recovery)
    }

    pub(crate) fn kind_of(&self, id: &str) -> Result<SlotKind> {
        Ok(self.slots[self.find(id)?].kind)
    }

    fn find(&self, id: &str) -> Result<usize> {
        let mut fitting = (0..self.slots.len()).filter(|at| self.slots[*at].id.starts_with(id));
        match (fitting.next(), fitting.next()) {
            (Some(at), None) if !id.is_empty() => Ok(at),
            (Some(_), _) => Err(Error::Keys(format!(
                "{id:?} fits several keys; give more digits"
            ))),
            (None, _) => Err(Error::Keys(format!(
                "the store has no key {id:?}; `lifeboat key list` shows those it has"
            ))),
        }
    }
}

impl Secret {
    fn kind(&self) -> SlotKind {
        match self {
            Secret::Passphrase(_) => SlotKind::Passphrase,
            Secret::Recovery(_) => SlotKind::Recovery,
            Secret::KeyFile(_) => SlotKind::KeyFile,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Secret::Passphrase(text) => text.as_bytes(),
            Secret::Recovery(key) => key.bytes(),
            Secret::KeyFile(key) => key.bytes(),
        }
    }
}

fn make(
    id: String,
    key: &DataKey,
    store: &str,
    new: &NewSlot,
) -> Result<(Slot, Option<RecoveryKey>)> {
    let recovery = match new {
        NewSlot::Recovery => Some(RecoveryKey::random()?),
        _ => None,
    };
    let (secret, argon2id) = match (new, &recovery) {
        (NewSlot::Passphrase(text, cost), _) => {
            if text.is_empty() || RecoveryKey::resembles(text) {
                return Err(Error::Keys(
                    "a passphrase must not be empty, nor look like a recovery key".into(),
                ));
            }
            let argon2id = Argon2id {
                memory_kib: cost.memory_kib,
                passes: cost.passes,
                lanes: 1,
            };
            (Secret::Passphrase(text.clone()), Some(argon2id))
        }
        (NewSlot::KeyFile(file), _) => (Secret::KeyFile(file.clone()), None),
        (NewSlot::Recovery, Some(made)) => (Secret::Recovery(made.clone()), None),
        (NewSlot::Recovery, None) => return Err(Error::Internal("no recovery key was made")),
    };
    let mut slot = Slot {
        id,
        kind: secret.kind(),
        created: time::rfc3339(time::now()),
        salt: hex::encode(random::<32>()?.as_slice()),
        argon2id,
        key: String::new(),
    };
    let mut wrapped = key.bytes().to_vec();
    slot.wrapping(secret.bytes(), store)
        .map_err(Error::Keys)?
        .seal(Part::Whole, &mut wrapped)?;
    slot.key = hex::encode(wrapped);
    Ok((slot, recovery))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost {
        memory_kib: 64,
        passes: 1,
    };

    fn passphrase(text: &str) -> NewSlot {
        NewSlot::Passphrase(Zeroizing::new(text.into()), CHEAP)
    }

    fn tried(encryption: &Encryption, secret: Secret) -> bool {
        let mut ring = KeyRing::default();
        ring.add(secret);
        matches!(encryption.open(&ring, "s").unwrap(), Tried::Opened(_))
    }

    fn typed(text: &str) -> Secret {
        Secret::typed(text).unwrap()
    }

    #[test]
    fn slots_open_rotate_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::create(&dir.path().join("key")).unwrap();
        let key = DataKey::random().unwrap();
        let mut all = Encryption::new(&key, "s");
        let (first, _) = all.add(&key, "s", &passphrase("one")).unwrap();
        let (_, recovery) = all.add(&key, "s", &NewSlot::Recovery).unwrap();
        let text = recovery.unwrap().to_text();
        all.add(&key, "s", &NewSlot::KeyFile(file.clone())).unwrap();
        all.examine().unwrap();
        let json = serde_json::to_vec(&all).unwrap();
        let mut all: Encryption = serde_json::from_slice(&json).unwrap();
        assert!(tried(&all, typed("one")) && tried(&all, typed(&text)));
        assert!(tried(&all, Secret::KeyFile(file)));
        assert!(!tried(&all, typed("two")));
        // A slot is of its store only.
        let mut ring = KeyRing::default();
        ring.add(typed("one"));
        assert!(matches!(all.open(&ring, "t").unwrap(), Tried::Wrong(_)));
        all.rotate(&first, &key, "s", &passphrase("two")).unwrap();
        assert!(tried(&all, typed("two")) && !tried(&all, typed("one")));
        for slot in all.slots().iter().skip(1) {
            all.remove(&slot.id[..6]).unwrap();
        }
        let error = all.remove(&first).unwrap_err();
        assert!(error.to_string().contains("last key"), "{error}");
        assert!(tried(&all, typed("two")));
    }

    #[test]
    fn a_hostile_slot_cannot_ask_for_the_machine() {
        let key = DataKey::random().unwrap();
        let mut all = Encryption::new(&key, "s");
        all.add(&key, "s", &passphrase("one")).unwrap();
        for (memory_kib, passes, lanes) in [
            (100 << 20, 1, 1),
            (MAX_MEMORY_KIB, u32::MAX, 1),
            (64, 1, u32::MAX),
            (0, 0, 0),
        ] {
            all.slots[0].argon2id = Some(Argon2id {
                memory_kib,
                passes,
                lanes,
            });
            let mut ring = KeyRing::default();
            ring.add(typed("one"));
            assert!(
                all.open(&ring, "s").is_err(),
                "{memory_kib} {passes} {lanes}"
            );
        }
    }
}
