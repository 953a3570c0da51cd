//! The recovery key: 256 random bits for paper, in groups with check digits.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::random;
use crate::Result;

/// Crockford's alphabet: no I, L, O and U. What is typed for 1 and 0 by mistake is understood.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Groups of four letters and a check letter: 52 letters of five bits for 256 bits and four bits of a checksum.
const GROUPS: usize = 13;
const LETTERS: usize = 4;

/// A recovery key.
#[derive(Clone)]
pub struct RecoveryKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

/// Why a typed recovery key cannot be one: not a wrong key, but a slip of the hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypingError {
    /// Not 13 groups of 5.
    #[error(
        "a recovery key has 65 letters and digits in 13 groups of 5, and {0} were typed: look for a missing or doubled one"
    )]
    Length(usize),
    /// A sign that no recovery key has.
    #[error(
        "group {group} ({text}) holds {sign:?}, which is in no recovery key: look at this group again"
    )]
    Sign {
        /// Counted from 1.
        group: usize,
        /// The group as typed.
        text: String,
        /// The sign.
        sign: char,
    },
    /// A group whose check letter does not fit.
    #[error("group {group} ({text}) has a typing error: look at this group again")]
    Group {
        /// Counted from 1.
        group: usize,
        /// The group as typed.
        text: String,
    },
    /// Every group fits and the whole does not.
    #[error("the groups do not fit together: the key has a typing error, look at all of it again")]
    Whole,
}

impl RecoveryKey {
    pub(super) fn random() -> Result<RecoveryKey> {
        random().map(RecoveryKey)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As it is printed: `7K3QA-...`.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bits = |at: usize| {
            (0..5).fold(0u8, |value, bit| {
                let at = at * 5 + bit;
                let byte = self
                    .0
                    .get(at / 8)
                    .copied()
                    .unwrap_or_else(|| checksum(&self.0));
                value << 1 | byte >> (7 - at % 8) & 1
            })
        };
        let mut text = Zeroizing::new(String::with_capacity(80));
        for group in 0..GROUPS {
            if group > 0 {
                text.push('-');
            }
            let values: [u8; LETTERS] = std::array::from_fn(|i| bits(group * LETTERS + i));
            for value in values.into_iter().chain([check(group, &values)]) {
                text.push(char::from(ALPHABET[usize::from(value)]));
            }
        }
        text
    }

    /// Does the text have the form of a recovery key, right or mistyped? Passphrases of this form are not allowed.
    pub fn resembles(text: &str) -> bool {
        let groups: Vec<_> = text.split(['-', ' ']).filter(|g| !g.is_empty()).collect();
        let letters: usize = groups.iter().map(|g| g.chars().count()).sum();
        let plain = text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == ' ');
        plain
            && (groups.len() == GROUPS && letters.abs_diff(65) <= 3
                || groups.len() == 1 && letters == 65)
    }

    /// Reads what was typed; case, spaces and dashes do not matter.
    pub fn parse(text: &str) -> Result<RecoveryKey, TypingError> {
        let letters: Zeroizing<Vec<char>> = Zeroizing::new(
            text.chars()
                .filter(|c| !c.is_whitespace() && *c != '-')
                .collect(),
        );
        if letters.len() != GROUPS * (LETTERS + 1) {
            return Err(TypingError::Length(letters.len()));
        }
        let mut bytes = Zeroizing::new([0; 33]);
        for (group, typed) in letters.chunks(LETTERS + 1).enumerate() {
            let shown = || typed.iter().collect::<String>();
            let mut values = [0; LETTERS + 1];
            for (value, sign) in values.iter_mut().zip(typed) {
                *value = value_of(*sign).ok_or_else(|| TypingError::Sign {
                    group: group + 1,
                    text: shown(),
                    sign: *sign,
                })?;
            }
            if check(group, &values[..LETTERS]) != values[LETTERS] {
                return Err(TypingError::Group {
                    group: group + 1,
                    text: shown(),
                });
            }
            for (i, value) in values[..LETTERS].iter().enumerate() {
                for bit in 0..5 {
                    let at = (group * LETTERS + i) * 5 + bit;
                    bytes[at / 8] |= (value >> (4 - bit) & 1) << (7 - at % 8);
                }
            }
        }
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&bytes[..32]);
        if bytes[32] != checksum(&key) & 0xF0 {
            return Err(TypingError::Whole);
        }
        Ok(RecoveryKey(key))
    }
}

fn value_of(sign: char) -> Option<u8> {
    let sign = match sign.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    ALPHABET
        .iter()
        .position(|letter| char::from(*letter) == sign)
        .map(|at| at as u8)
}

/// Of this byte, the four high bits are in the last letter.
fn checksum(key: &[u8; 32]) -> u8 {
    Sha256::digest(key)[0]
}

/// A weighted sum in GF(32), in which every letter and every place weighs differently: one wrong letter, two exchanged
/// ones and exchanged groups always show.
fn check(group: usize, values: &[u8]) -> u8 {
    let mut sum = group as u8;
    for value in values.iter().rev() {
        sum = double(sum ^ value);
    }
    sum
}

/// Multiplies by x modulo x^5 + x^2 + 1.
fn double(value: u8) -> u8 {
    let shifted = value << 1;
    if shifted & 32 == 0 {
        shifted
    } else {
        shifted ^ 0b10_0101
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: &[u8]) -> RecoveryKey {
        RecoveryKey(Zeroizing::new(Sha256::digest(seed).into()))
    }

    #[test]
    fn what_was_printed_is_read_again_however_it_is_typed() {
        for seed in 0..50u8 {
            let key = key(&[seed]);
            let text = key.to_text();
            assert_eq!(text.len(), 77);
            assert!(RecoveryKey::resembles(&text));
            assert!(!text.contains(['I', 'L', 'O', 'U']), "{}", *text);
            let sloppy = text
                .to_lowercase()
                .replace('-', " ")
                .replace('0', "o")
                .replace('1', "l");
            for typed in [text.as_str(), &sloppy, &text.replace('-', "")] {
                assert_eq!(RecoveryKey::parse(typed).unwrap().bytes(), key.bytes());
            }
        }
    }

    #[test]
    fn every_wrong_letter_is_found_in_its_group() {
        let text = key(b"x").to_text().to_string();
        for at in (0..text.len()).filter(|at| at % 6 != 5) {
            for letter in ALPHABET {
                let mut typed = text.clone().into_bytes();
                if typed[at] == *letter {
                    continue;
                }
                typed[at] = *letter;
                let typed = String::from_utf8(typed).unwrap();
                match RecoveryKey::parse(&typed).unwrap_err() {
                    TypingError::Group { group, .. } => assert_eq!(group, at / 6 + 1),
                    other => panic!("{other}"),
                }
            }
        }
    }

    #[test]
    fn exchanged_letters_and_groups_are_found() {
        let text = key(b"y").to_text().to_string();
        for at in 0..text.len() - 1 {
            let mut typed = text.clone().into_bytes();
            typed.swap(at, at + 1);
            if typed == text.as_bytes() || at % 6 >= 4 {
                continue;
            }
            assert!(RecoveryKey::parse(std::str::from_utf8(&typed).unwrap()).is_err());
        }
        let groups: Vec<_> = text.split('-').collect();
        for one in 0..GROUPS {
            for other in one + 1..GROUPS {
                let mut exchanged = groups.clone();
                exchanged.swap(one, other);
                if groups[one] != groups[other] {
                    assert!(
                        RecoveryKey::parse(&exchanged.join("-")).is_err(),
                        "{one} {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn slips_are_named() {
        let text = key(b"z").to_text().to_string();
        assert_eq!(
            RecoveryKey::parse(&text[1..]).unwrap_err(),
            TypingError::Length(64)
        );
        let error = RecoveryKey::parse(&format!("!{}", &text[1..])).unwrap_err();
        assert!(error.to_string().contains("group 1"), "{error}");
        assert!(!RecoveryKey::resembles("correct horse battery staple"));
    }
}
