//! What is encrypted, and the keys to it.

use std::path::Path;
use std::sync::LazyLock;

use super::seeds;
use super::target::InFile;
use crate::crypt::{
    DataKey, FileKind, KeyFile, KeyRing, NewSlot, Part, RecoveryKey, Secret, StoreCipher,
};
use crate::store::{StoreFile, read_snapshot, snapshot_name};
use crate::{Id, codec, index, pack};

/// `store.json` of a store whose data key is 32 times 7, with a slot of each kind: the passphrase `one` at a low cost,
/// [`RECOVERY`], and the key file of 32 times 9. Made once by [`StoreFile::to_json`].
pub(super) const STORE: &str = concat!(
    r#"{"format":1,"id":"00000000-0000-4000-8000-000000000007","created":"2026-11-20T20:31:36.250Z""#,
    r#","encryption":{"cipher":"aes-256-gcm","check":"f98dc5efe87e355e2403729708f5c0b0f27675974211ab0aee63c630e28be567","slots":["#,
    r#"{"id":"d2f7f896","kind":"passphrase","created":"2026-11-21T12:01:38.676Z","salt":"0c3c6cbd3d56f75da399dec530a9d41a53dd20f43e4887f689ad0b1f590b6291","argon2id":{"memory_kib":8,"passes":1,"lanes":1}"#,
    r#","key":"010a93ed702fb16af318ca87e1b8a9fc57c1ccc7661fa0c9889ef505ea2061ba72d03d1e815f05cd67745962f3c9e7dd"},"#,
    r#"{"id":"1b28ea16","kind":"recovery","created":"2026-11-21T12:01:38.676Z","salt":"22e5e5df9f08bce8c8ebfd7d4e3245808109ed8f46dbc1c1bd830f2bc83dd0cb""#,
    r#","key":"9252f24c669c8f7574a570eafd8a7156eac4fa330d91df034002ebd37b9232447c7eb180ccbc6f58818c1c0772b325be"},"#,
    r#"{"id":"fabe3c89","kind":"key-file","created":"2026-11-21T12:01:38.676Z","salt":"c29707a4a0827653a470ac56b7adf190f4b753595923764cc631770a460112aa""#,
    r#","key":"19526f48f1a4597c23e4e553b0b005ac02c8c3545c801e24c3139d2eafbff15fb83514e8a375c2f9d40ec3fccabad892"}"#,
    r#"]},"sum":"496aad2006fb24b3531dcc1cfab5765a385258aaaba0682bc2912475d1ee9667"}"#,
    "\n"
);
pub(super) const RECOVERY: &str =
    "3DTH4-BJCX8-2ZT1C-BH2ZV-K66QP-SXNBE-7E9GK-PTT0Z-AXXAS-Y3FHV-KF95K-YSY0R-25R6Z";
const STORE_ID: &str = "00000000-0000-4000-8000-000000000007";

fn data_key() -> DataKey {
    DataKey::from_hex(&"07".repeat(32)).unwrap()
}

fn key_file() -> KeyFile {
    InFile::new(&[9; 32]).read(KeyFile::read).unwrap()
}

/// A ring for each way to open the store.
fn rings() -> Vec<KeyRing> {
    let secrets = [
        Secret::KeyFile(key_file()),
        Secret::Recovery(RecoveryKey::parse(RECOVERY).unwrap()),
        Secret::typed("one").unwrap(),
    ];
    let mut rings: Vec<KeyRing> = vec![KeyRing::default(), KeyRing::default()];
    rings[1].add_data_key(STORE_ID, data_key());
    for secret in secrets {
        let mut ring = KeyRing::default();
        ring.add(secret);
        rings.push(ring);
    }
    rings
}

/// How many of the rings open this store.
#[cfg(test)]
pub(super) fn ways_in(json: &[u8]) -> usize {
    let file = StoreFile::parse(Path::new("x"), json).unwrap();
    let opened = |ring: &&KeyRing| file.unlock(Path::new("x"), ring).is_ok();
    rings().iter().filter(opened).count()
}

/// Would trying its slots take more than a moment? What is beyond the bounds is refused at once, and is tried.
fn is_costly(json: &[u8]) -> bool {
    let value: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let slots = value
        .pointer("/encryption/slots")
        .and_then(|s| s.as_array());
    let cost = |slot: &serde_json::Value| {
        let number = |name: &str| slot.pointer(&format!("/argon2id/{name}"))?.as_u64();
        let (memory, passes) = (number("memory_kib")?, number("passes")?);
        let work = memory.saturating_mul(passes.max(1));
        (memory <= 1 << 20 && work <= 16 << 20).then_some(work)
    };
    slots.into_iter().flatten().filter_map(cost).sum::<u64>() > 1 << 12
}

/// A store document whose hash is right, whatever it says of keys.
pub(super) fn key_slots(data: &[u8]) {
    static RINGS: LazyLock<Vec<KeyRing>> = LazyLock::new(rings);
    let path = Path::new("store.json");
    let json = seeds::with_sum(data);
    let Ok(mut file) = StoreFile::parse(path, &json) else {
        return;
    };
    let costly = is_costly(&json);
    for ring in RINGS.iter().take(if costly { 2 } else { 5 }) {
        match file.unlock(path, ring) {
            // Whatever the slots say: what opens the store is its key.
            Ok(Some(cipher)) => assert_eq!(cipher.key().to_hex(), data_key().to_hex()),
            Ok(None) => assert!(file.encryption.is_none()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let Some(encryption) = &mut file.encryption else {
        return;
    };
    for slot in encryption.slots() {
        let _ = encryption.kind_of(&slot.id);
    }
    // A key is added and taken away again, and nobody is locked out meanwhile.
    let before = encryption.clone();
    let new = NewSlot::KeyFile(key_file());
    if let Ok((id, _)) = encryption.add(&data_key(), STORE_ID, &new) {
        encryption.examine().unwrap();
        encryption.rotate(&id, &data_key(), STORE_ID, &new).unwrap();
        encryption.remove(&id).unwrap();
        assert!(*encryption == before);
        while let Some(slot) = encryption.slots().pop() {
            if encryption.remove(&slot.id).is_err() {
                break;
            }
        }
        assert!(!encryption.slots().is_empty());
    }
}

fn cipher() -> StoreCipher {
    StoreCipher::new(data_key(), STORE_ID)
}

/// What a file of this kind holds when it is encrypted: a header with a salt that is always the same, and a part.
fn seal(kind: FileKind, part: Part, plain: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let header = [b"LIFEBOAT-SEAL 1\n".as_slice(), &[5; 32]].concat();
    let mut body = plain.to_vec();
    let file = cipher().of_header(kind, &header).unwrap();
    file.seal(part, &mut body).unwrap();
    (header, body)
}

const KINDS: [FileKind; 3] = [FileKind::Index, FileKind::Snapshot, FileKind::Report];

fn known(kind: FileKind) -> Vec<u8> {
    match kind {
        FileKind::Index => codec::pack_json(&seeds::index()).unwrap(),
        FileKind::Snapshot => seeds::snapshot(),
        FileKind::Report => seeds::reports()[0].clone(),
        FileKind::Pack => seeds::footer(),
    }
}

fn sealed_pack(json: &[u8]) -> Vec<u8> {
    let stored = codec::pack_json(json).unwrap();
    let (mut file, footer) = seal(FileKind::Pack, Part::Footer, &stored);
    let id = Id::of(b"blob");
    let (_, blob) = seal(FileKind::Pack, Part::Blob(48, id), b"blob");
    file.extend_from_slice(&blob);
    file.resize(1000, 0);
    seeds::push_footer(&mut file, &footer);
    file
}

/// A file of each kind as it is stored, and what is in them.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = KINDS
        .iter()
        .map(|kind| {
            let (header, body) = seal(*kind, Part::Whole, &known(*kind));
            [header, body].concat()
        })
        .collect();
    all.push(sealed_pack(&seeds::footer()));
    all.extend([seeds::snapshot(), seeds::index(), seeds::footer()]);
    all
}

/// A file of an encrypted store: as somebody without the key can make it, and as what was encrypted with the key.
pub(super) fn file(data: &[u8]) {
    let cipher = cipher();
    for kind in KINDS {
        // Only what was sealed opens, and only as what it is.
        if let Ok(plain) = cipher.open(kind, data) {
            assert!(plain == known(kind));
        }
    }
    for pack in [data.to_vec(), sealed_pack(data)] {
        InFile::new(&pack).read(|path| {
            if let Ok((size, blobs)) = pack::read_footer(path, Some(&cipher)) {
                assert_eq!(size, pack.len() as u64);
                assert!(blobs.iter().all(|b| b.offset + b.stored <= size));
            }
            let Ok(open) = pack::PackFile::open(path, Some(&cipher)) else {
                return;
            };
            let id = Id::of(b"blob");
            for length in [crate::crypt::TAG + 4, crate::crypt::TAG, 3, 0] {
                let mut stored = pack.get(48..48 + length).unwrap_or_default().to_vec();
                if open.unseal(48, &id, &mut stored).is_ok() {
                    assert_eq!(stored, b"blob");
                }
            }
        });
    }
    let (header, body) = seal(
        FileKind::Index,
        Part::Whole,
        &codec::pack_json(data).unwrap(),
    );
    let stored = [header, body].concat();
    let read = |path: &Path| index::read(path, &Id::of(&stored), Some(&cipher));
    for pack in InFile::new(&stored).read(read).unwrap_or_default() {
        let inside = |b: &crate::format::BlobEntry| b.offset + b.stored <= pack.size;
        assert!(pack.blobs.iter().all(inside));
    }
    let (header, body) = seal(FileKind::Snapshot, Part::Whole, data);
    let stored = [header, body].concat();
    let time: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
    let time = time.get("time").and_then(|t| t.as_str()).unwrap_or("x");
    let name = snapshot_name(time, &Id::of(&stored), ".sealed");
    InFile::new(&stored).read(|path| {
        if let Ok((id, snapshot)) = read_snapshot(path, &name, Some(&cipher)) {
            assert!(id == Id::of(data) && snapshot.time == time);
        }
        let other = snapshot_name("1970", &Id::of(&stored), ".sealed");
        assert!(other == name || read_snapshot(path, &other, Some(&cipher)).is_err());
    });
}
