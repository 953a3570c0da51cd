//! Encryption of a store: AES-256-GCM with a key per file, derived from the store's data key, which the key slots in
//! `store.json` wrap. `docs/bundle-format.md` is the specification.
//!
//! Nothing above this module sees a key except as a [`KeyRing`] that opens a store.

mod recovery;
mod ring;
mod slots;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::{Error, Id, Result};

pub use recovery::{RecoveryKey, TypingError};
pub use ring::{KeyFile, KeyRing, Secret};
pub use slots::{Cost, NewSlot, SlotInfo, SlotKind};
pub(crate) use slots::{Encryption, Tried};

/// The first line of every encrypted file; the salt of its key follows.
const SEALED: &[u8; 16] = b"LIFEBOAT-SEAL 1\n";
/// Bytes before the first encrypted one.
pub(crate) const HEADER: usize = 48;
/// Bytes that encryption adds to a blob or a document.
pub(crate) const TAG: usize = 16;

/// What a file begins with in which a host keeps the [`DataKey`] of a store, before its digits.
pub const KEPT_KEY: &str = "lifeboat-data-key 1 ";

/// The key that everything in a store hangs on.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl DataKey {
    /// A new random key.
    pub(crate) fn random() -> Result<DataKey> {
        random().map(DataKey)
    }

    /// The key of these 32 bytes, as [`DataKey::to_hex`] wrote them.
    pub fn from_hex(text: &str) -> Option<DataKey> {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), key.as_mut_slice()).ok()?;
        Some(DataKey(key))
    }

    /// For the file in which the host keeps it.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()))
    }

    fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Random bytes from the kernel.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|e| {
        Error::io("get random bytes from", "/dev/urandom")(std::io::Error::other(e))
    })?;
    Ok(bytes)
}

/// HKDF-SHA256 with an output of 32 bytes.
fn derive(secret: &[u8], salt: &[u8], info: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    // Fails only for outputs of more than 8160 bytes.
    let _ = Hkdf::<Sha256>::new(Some(salt), secret).expand(info.as_bytes(), key.as_mut_slice());
    key
}

/// What an encrypted file is. A file of one kind cannot pass for one of another: its key would be another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Pack,
    Index,
    Snapshot,
    Report,
}

impl FileKind {
    fn word(self) -> &'static str {
        match self {
            FileKind::Pack => "pack",
            FileKind::Index => "index",
            FileKind::Snapshot => "snapshot",
            FileKind::Report => "report",
        }
    }
}

/// Why something could not be decrypted, in words.
pub(crate) const NOT_AUTHENTIC: &str =
    "it does not authenticate with the store's key: it was tampered with, or is damaged";

/// Encrypts and decrypts the files of one store.
#[derive(Clone)]
pub(crate) struct StoreCipher {
    key: DataKey,
    store: String,
}

impl std::fmt::Debug for StoreCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreCipher(..)")
    }
}

impl StoreCipher {
    pub(crate) fn new(key: DataKey, store: &str) -> StoreCipher {
        StoreCipher {
            key,
            store: store.to_owned(),
        }
    }

    pub(crate) fn key(&self) -> &DataKey {
        &self.key
    }

    fn file(&self, kind: FileKind, salt: &[u8]) -> FileCipher {
        let info = format!("lifeboat 1 {} {}", kind.word(), self.store);
        FileCipher::new(&derive(self.key.bytes(), salt, &info))
    }

    /// A key for a new file, and the header that the file begins with.
    pub(crate) fn create(&self, kind: FileKind) -> Result<(FileCipher, [u8; HEADER])> {
        let mut header = [0; HEADER];
        header[..SEALED.len()].copy_from_slice(SEALED);
        header[SEALED.len()..].copy_from_slice(random::<32>()?.as_slice());
        Ok((self.file(kind, &header[SEALED.len()..]), header))
    }

    /// The key of the file that begins with `header`.
    pub(crate) fn of_header(&self, kind: FileKind, header: &[u8]) -> Result<FileCipher, String> {
        match header
            .strip_prefix(SEALED.as_slice())
            .and_then(|rest| rest.get(..32))
        {
            Some(salt) => Ok(self.file(kind, salt)),
            None => Err(
                "it does not begin like an encrypted file, and this store holds no others".into(),
            ),
        }
    }

    /// Encrypts a small file as a whole.
    pub(crate) fn seal(&self, kind: FileKind, plain: &[u8]) -> Result<Vec<u8>> {
        let (cipher, header) = self.create(kind)?;
        let mut body = plain.to_vec();
        cipher.seal(Part::Whole, &mut body)?;
        let mut file = Vec::with_capacity(HEADER + body.len());
        file.extend_from_slice(&header);
        file.append(&mut body);
        Ok(file)
    }

    /// Decrypts what [`StoreCipher::seal`] made.
    pub(crate) fn open(&self, kind: FileKind, file: &[u8]) -> Result<Vec<u8>, String> {
        if file.len() < HEADER + TAG {
            return Err("it is truncated".into());
        }
        let (header, body) = file.split_at(HEADER);
        let mut body = body.to_vec();
        self.of_header(kind, header)?.open(Part::Whole, &mut body)?;
        Ok(body)
    }
}

/// What of a file is encrypted; no two parts of a file have the same nonce.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// All of it, after the header.
    Whole,
    /// The blob of this id, at this offset in a pack.
    Blob(u64, Id),
    /// The footer of a pack.
    Footer,
}

impl Part {
    /// Offsets in a pack count upwards, so a blob's offset is its counter; the other parts lie outside their range.
    fn nonce(self) -> Nonce<aes_gcm::aead::consts::U12> {
        let (prefix, counter) = match self {
            Part::Blob(offset, _) => (0u32, offset),
            Part::Whole => (1, 0),
            Part::Footer => (2, 0),
        };
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&prefix.to_be_bytes());
        nonce[4..].copy_from_slice(&counter.to_be_bytes());
        nonce.into()
    }

    /// A blob cannot be exchanged for another one, wherever that was.
    fn associated(&self) -> &[u8] {
        match self {
            Part::Blob(_, id) => id.as_bytes(),
            Part::Whole | Part::Footer => &[],
        }
    }
}

/// Encrypts and decrypts the parts of one file. The key's copies in the cipher are wiped when it is dropped.
pub(crate) struct FileCipher(Aes256Gcm);

impl std::fmt::Debug for FileCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileCipher(..)")
    }
}

impl FileCipher {
    fn new(key: &[u8; 32]) -> FileCipher {
        let mut key = Key::<Aes256Gcm>::from(*key);
        let cipher = Aes256Gcm::new(&key);
        key.as_mut_slice().zeroize();
        FileCipher(cipher)
    }

    /// Encrypts in place and appends the tag.
    pub(crate) fn seal(&self, part: Part, buffer: &mut Vec<u8>) -> Result<()> {
        self.0
            .encrypt_in_place(&part.nonce(), part.associated(), buffer)
            .map_err(|_| Error::Internal("a part of a file is too large to be encrypted"))
    }

    /// Decrypts in place and removes the tag.
    pub(crate) fn open(&self, part: Part, buffer: &mut Vec<u8>) -> Result<(), String> {
        self.0
            .decrypt_in_place(&part.nonce(), part.associated(), buffer)
            .map_err(|_| NOT_AUTHENTIC.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(store: &str) -> StoreCipher {
        StoreCipher::new(DataKey::from_hex(&"07".repeat(32)).unwrap(), store)
    }

    #[test]
    fn every_change_of_a_file_is_noticed() {
        let cipher = cipher("a");
        let file = cipher.seal(FileKind::Snapshot, b"the document").unwrap();
        assert_eq!(
            cipher.open(FileKind::Snapshot, &file).unwrap(),
            b"the document"
        );
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(cipher.open(FileKind::Snapshot, &changed).is_err(), "{at}");
            assert!(
                cipher.open(FileKind::Snapshot, &file[..at]).is_err(),
                "{at}"
            );
        }
        // Neither of another kind, nor of another store, nor with another key.
        assert!(cipher.open(FileKind::Index, &file).is_err());
        assert!(
            super::tests::cipher("b")
                .open(FileKind::Snapshot, &file)
                .is_err()
        );
        let other = StoreCipher::new(DataKey::random().unwrap(), "a");
        assert!(other.open(FileKind::Snapshot, &file).is_err());
    }

    #[test]
    fn parts_do_not_pass_for_one_another() {
        let (cipher, header) = cipher("a").create(FileKind::Pack).unwrap();
        assert!(header.starts_with(b"LIFEBOAT-SEAL 1\n"));
        let (one, two) = (Id::of(b"1"), Id::of(b"2"));
        let mut sealed = b"1".to_vec();
        cipher.seal(Part::Blob(48, one), &mut sealed).unwrap();
        for part in [
            Part::Blob(65, one),
            Part::Blob(48, two),
            Part::Footer,
            Part::Whole,
        ] {
            assert!(cipher.open(part, &mut sealed.clone()).is_err(), "{part:?}");
        }
        cipher.open(Part::Blob(48, one), &mut sealed).unwrap();
        assert_eq!(sealed, b"1");
    }

    /// Computed with another implementation (Python's `cryptography`): the format, not only the code, is kept.
    #[test]
    fn known_answer() {
        let cipher = cipher("store").file(FileKind::Pack, &[9; 32]);
        let mut sealed = b"content".to_vec();
        cipher
            .seal(Part::Blob(48, Id::of(b"content")), &mut sealed)
            .unwrap();
        assert_eq!(hex::encode(sealed), KNOWN);
    }

    const KNOWN: &str = "dea015887d1ab9cc76635eff146136d90a82a6628739fe";
}
