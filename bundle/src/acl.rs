//! POSIX ACLs: as the kernel keeps them (`linux/posix_acl_xattr.h`), and as text in tar archives (`acl(5)`).

/// The extended attribute of a file's own ACL, and that of what is made in a directory.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// Of entries that are of nobody in particular.
const NOBODY: u32 = u32::MAX;

/// One entry. In the order of the kernel: by tag, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ace {
    tag: u16,
    id: u32,
    perm: u16,
}

/// Whose number a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    User,
    Group,
}

/// Why a text is no ACL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It is wrong.
    Malformed(String),
    /// It names somebody who is not known here.
    Unknown(String),
}

fn malformed(text: &[u8]) -> Problem {
    Problem::Malformed(String::from_utf8_lossy(text).into_owned())
}

/// The number of a user or group of this machine, by name.
pub(crate) fn number_of(whose: Whose, name: &str) -> Option<u32> {
    match whose {
        Whose::User => nix::unistd::User::from_name(name)
            .ok()?
            .map(|u| u.uid.as_raw()),
        Whose::Group => nix::unistd::Group::from_name(name)
            .ok()?
            .map(|g| g.gid.as_raw()),
    }
}

/// The attribute's value for a text, in the long or the short form. `None` where it says no more than the permissions of
/// the file do: the kernel keeps no such ACL (`access`), or there is none.
pub(crate) fn from_text(
    text: &[u8],
    access: bool,
    number: &dyn Fn(Whose, &str) -> Option<u32>,
) -> Result<Option<Vec<u8>>, Problem> {
    let mut aces = Vec::new();
    for line in text.split(|b| matches!(b, b'\n' | b',')) {
        let line = line.split(|b| *b == b'#').next().unwrap_or_default();
        let line = line.trim_ascii();
        if !line.is_empty() {
            aces.push(ace(line, number)?);
        }
    }
    if aces.is_empty() {
        return Ok(None);
    }
    aces.sort_unstable();
    check(&aces).map_err(|_| malformed(text))?;
    if access && aces.len() == 3 {
        return Ok(None);
    }
    let mut value = VERSION.to_le_bytes().to_vec();
    for Ace { tag, id, perm } in aces {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&perm.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(Some(value))
}

/// `user:1000:rwx`, `u::rw`, or, as star writes it, `user:name:rwx:1000`.
fn ace(line: &[u8], number: &dyn Fn(Whose, &str) -> Option<u32>) -> Result<Ace, Problem> {
    let bad = || malformed(line);
    let text = std::str::from_utf8(line).map_err(|_| bad())?;
    let mut fields: Vec<&str> = text.split(':').map(str::trim).collect();
    if matches!(fields.first(), Some(&("d" | "default"))) {
        fields.remove(0);
    }
    let (kind, who, perm, own) = match fields[..] {
        // Solaris' form, which GNU tar takes, too.
        [kind @ ("m" | "mask" | "o" | "other"), perm] => (kind, "", perm, None),
        [kind, who, perm] => (kind, who, perm, None),
        [kind, who, perm, own] => (kind, who, perm, Some(own)),
        _ => return Err(bad()),
    };
    let mut bits = 0;
    for letter in perm.bytes() {
        bits |= match letter {
            b'r' => 4,
            b'w' => 2,
            b'x' => 1,
            b'-' => 0,
            _ => return Err(bad()),
        };
    }
    let named = |whose| match own.unwrap_or(who).parse::<u32>() {
        Ok(id) if id != NOBODY => Ok(id),
        Ok(_) => Err(bad()),
        Err(_) => number(whose, who).ok_or_else(|| Problem::Unknown(who.to_string())),
    };
    let (tag, id) = match (kind, who) {
        ("u" | "user", "") => (USER_OBJ, NOBODY),
        ("u" | "user", _) => (USER, named(Whose::User)?),
        ("g" | "group", "") => (GROUP_OBJ, NOBODY),
        ("g" | "group", _) => (GROUP, named(Whose::Group)?),
        ("m" | "mask", "") => (MASK, NOBODY),
        ("o" | "other", "") => (OTHER, NOBODY),
        _ => return Err(bad()),
    };
    Ok(Ace {
        tag,
        id,
        perm: bits,
    })
}

/// What the kernel asks for: each of owner, group and others once, nobody twice, and a mask where somebody is named.
fn check(aces: &[Ace]) -> Result<(), ()> {
    let count = |tag| aces.iter().filter(|a| a.tag == tag).count();
    let named = count(USER) + count(GROUP);
    let twice = aces
        .windows(2)
        .any(|pair| (pair[0].tag, pair[0].id) == (pair[1].tag, pair[1].id));
    let once = [USER_OBJ, GROUP_OBJ, OTHER]
        .iter()
        .all(|tag| count(*tag) == 1);
    let masked = count(MASK) == 1 || (count(MASK) == 0 && named == 0);
    (once && masked && !twice).then_some(()).ok_or(())
}

/// The text of an attribute's value, with numbers; `None` where it is none.
pub(crate) fn to_text(value: &[u8]) -> Option<String> {
    let (version, rest) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || rest.len() % 8 != 0 {
        return None;
    }
    let ace = |b: &[u8]| Ace {
        tag: u16::from_le_bytes([b[0], b[1]]),
        perm: u16::from_le_bytes([b[2], b[3]]),
        id: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
    };
    let aces: Vec<Ace> = rest.chunks_exact(8).map(ace).collect();
    let mut sorted = aces.clone();
    sorted.sort_unstable();
    for named in sorted.iter_mut().filter(|a| !matches!(a.tag, USER | GROUP)) {
        named.id = NOBODY;
    }
    check(&sorted).ok()?;
    let mut text = String::new();
    for Ace { tag, id, perm } in aces {
        let who = match tag {
            USER_OBJ => "user:".to_string(),
            USER => format!("user:{id}"),
            GROUP_OBJ => "group:".to_string(),
            GROUP => format!("group:{id}"),
            MASK => "mask:".to_string(),
            OTHER => "other:".to_string(),
            _ => return None,
        };
        let letter = |bit, letter| if perm & bit != 0 { letter } else { '-' };
        let (r, w, x) = (letter(4, 'r'), letter(2, 'w'), letter(1, 'x'));
        text.push_str(&format!("{who}:{r}{w}{x}\n"));
        if perm > 7 {
            return None;
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nobody(_: Whose, _: &str) -> Option<u32> {
        None
    }

    #[test]
    fn both_forms_are_the_same() {
        let known = |whose, name: &str| (whose == Whose::User && name == "joe").then_some(1000);
        let long = b"user::rwx\nuser:joe:r-x\ngroup::r-x\ngroup:50:r--\nmask::rwx\nother::r--\n";
        let value = from_text(long, true, &known).unwrap().unwrap();
        for other in [
            &b"u::rwx,u:1000:r-x,g::r-x,g:50:r--,m::rwx,o::r--"[..],
            b"user::rwx,user:joe:rx:1000,group::rx,group:50:r,mask:rwx,other:r",
            b"other::r--\nmask::rwx\ngroup:50:r--\ngroup::r-x\t#effective:r-x\nuser:1000:r-x\nuser::rwx",
            b"default:user::rwx,default:user:1000:r-x,d:g::rx,d:group:50:r,d:mask::rwx,d:o::r",
        ] {
            let found = from_text(other, true, &known);
            assert_eq!(
                found,
                Ok(Some(value.clone())),
                "{}",
                String::from_utf8_lossy(other)
            );
        }
        // As the kernel has it: `getfattr -n system.posix_acl_access`.
        let start = hex::encode(&value[..28]);
        assert_eq!(
            start,
            "02000000010007 00ffffffff 02000500e8030000 04000500ffffffff".replace(' ', "")
        );
        assert_eq!(
            to_text(&value).unwrap(),
            "user::rwx\nuser:1000:r-x\ngroup::r-x\ngroup:50:r--\nmask::rwx\nother::r--\n"
        );
    }

    #[test]
    fn what_the_mode_says_is_no_acl_of_a_file() {
        let minimal = b"user::rw-\ngroup::r--\nother::---\n";
        assert_eq!(from_text(minimal, true, &nobody), Ok(None));
        assert!(from_text(minimal, false, &nobody).unwrap().is_some());
        assert_eq!(from_text(b"", false, &nobody), Ok(None));
    }

    #[test]
    fn what_is_no_acl_is_said() {
        for bad in [
            "user::rwx,group::r-x",
            "user::rwx,user::r--,group::r-x,other::r--",
            "user::rwx,user:5:rwx,group::r-x,other::r--",
            "user::rwq,group::r-x,other::r--",
            "user::rwx,group::r-x,other::r--,mask::r,mask::r",
            "user::rwx,group::r-x,other:5:r--",
            "user",
            "user::rwx,user:4294967295:r,group::r-x,mask::r,other::r--",
        ] {
            let found = from_text(bad.as_bytes(), true, &nobody);
            assert!(matches!(found, Err(Problem::Malformed(_))), "{bad}");
        }
        let unknown = from_text(b"u::r,u:joe:r,g::r,m::r,o::r", true, &nobody);
        assert_eq!(unknown, Err(Problem::Unknown("joe".into())));
        for bad in [
            &b""[..],
            b"\x02\0\0\0\x01",
            &[0; 12],
            &[2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(to_text(bad), None);
        }
    }

    proptest! {
        #[test]
        fn values_round_trip(named in proptest::collection::btree_map((any::<bool>(), 0u32..u32::MAX), 0u16..8, 0..6), perms in [0u16..8, 0..8, 0..8, 0..8]) {
            let mut aces = vec![(USER_OBJ, NOBODY, perms[0]), (GROUP_OBJ, NOBODY, perms[1]), (MASK, NOBODY, perms[2]), (OTHER, NOBODY, perms[3])];
            aces.extend(named.iter().map(|((user, id), perm)| (if *user { USER } else { GROUP }, *id, *perm)));
            aces.sort_unstable();
            let mut value = VERSION.to_le_bytes().to_vec();
            for (tag, id, perm) in aces {
                value.extend_from_slice(&tag.to_le_bytes());
                value.extend_from_slice(&perm.to_le_bytes());
                value.extend_from_slice(&id.to_le_bytes());
            }
            let text = to_text(&value).unwrap();
            prop_assert_eq!(from_text(text.as_bytes(), true, &nobody), Ok(Some(value)));
        }

        #[test]
        fn garbage_does_not_panic(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = from_text(&text, true, &nobody);
            let _ = to_text(&text);
        }
    }
}
