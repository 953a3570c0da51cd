//! What zpool, zfs and zdb print, without what people wrote into it.

use super::names::Names;
use crate::capture::zfs::parse_row;

/// In the place of every host's id.
pub(super) const HOSTID: [u8; 4] = [0x2a, 0x15, 0x7c, 0xa8];

/// A line as far as it is about storage.
pub(super) fn line(program: &str, line: &str, names: &mut Names) -> Option<String> {
    if program == "zdb" {
        // Labels hold the host's name and id, and paths of devices.
        return line.trim().starts_with("ashift:").then(|| line.to_owned());
    }
    match parse_row(line) {
        // Of properties that are users' own the names are kept; remarks are theirs, too.
        Some([name, property, value, source])
            if value != "-"
                && (property.contains(':')
                    || property == "comment"
                    || property == "keylocation") =>
        {
            let name = names.text(name);
            Some(format!("{name}\t{property}\tx\t{source}"))
        }
        _ => Some(names.text(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_left_out() {
        let mut names = Names::new();
        let mut kept = |program: &str, text: &str| line(program, text, &mut names);
        assert_eq!(
            kept("zfs", "rpool/x\tcom.example:owner\tAlice\tlocal").as_deref(),
            Some("rpool/x\tcom.example:owner\tx\tlocal")
        );
        assert_eq!(
            kept("zpool", "rpool\tcomment\tAlice's\tlocal").as_deref(),
            Some("rpool\tcomment\tx\tlocal")
        );
        assert_eq!(
            kept("zpool", "rpool\tbootfs\trpool/ROOT/pve-1\tlocal").as_deref(),
            Some("rpool\tbootfs\trpool/ROOT/pve-1\tlocal")
        );
        assert_eq!(kept("zdb", "    hostname: 'alice'"), None);
        assert_eq!(
            kept("zdb", "        ashift: 12").as_deref(),
            Some("        ashift: 12")
        );
    }
}
