//! Encrypted devices without a header: nothing but the name of a device in crypttab(5) says which one to open, and what is
//! opened with a random key for swap is overwritten at each start.

use super::names::by_id;
use crate::capture::mounts::is_fragile_name;
use crate::model::{Layout, Node, Partition};

/// Before a line that would overwrite another device.
const OFF: &str = "# left out by the restore: ";

/// The partition that a name led to on the saved host.
fn partition<'a>(saved: &'a Layout, name: &str) -> Option<&'a Partition> {
    let by_node = saved.nodes.values().find_map(|node| match node {
        Node::Partition(part) if part.device.as_os_str() == name => Some(part),
        _ => None,
    });
    by_node.or_else(|| by_id(saved, name).map(|(_, part)| part))
}

/// Whether the start overwrites what is opened: with a random key, or because the options say so.
fn is_overwritten(key: &str, options: &str) -> bool {
    ["/dev/urandom", "/dev/random", "/dev/hwrng"].contains(&key)
        || options
            .split(',')
            .any(|o| matches!(o, "swap" | "tmp") || o.starts_with("tmp="))
}

/// Second fields that another machine may give to another device become PARTUUIDs, except for those in `done`. Lines that would
/// overwrite a device that is not known are switched off. Says what was changed.
pub(super) fn places(
    text: &str,
    saved: &Layout,
    done: &[(String, String)],
) -> (String, Vec<String>) {
    let mut out = String::with_capacity(text.len());
    let mut notes = Vec::new();
    for line in text.split_inclusive('\n') {
        let mut fields = line.split_whitespace();
        let (name, source) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let (key, options) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let known = done.iter().any(|(old, _)| old == source);
        if name.starts_with('#') || known || !is_fragile_name(source) {
            out.push_str(line);
            continue;
        }
        if let Some(part) = partition(saved, source) {
            // The first field cannot hold the second: it is searched behind it.
            let after = line.find(name).map_or(0, |at| at + name.len());
            let (head, tail) = line.split_at(after);
            let new = format!("PARTUUID={}", part.partuuid);
            out.push_str(head);
            out.push_str(&tail.replacen(source, &new, 1));
            notes.push(format!("{source} is now {new}"));
        } else if is_overwritten(key, options) {
            out.push_str(OFF);
            out.push_str(line);
            notes.push(format!(
                "the line of {name} is switched off: it overwrites {source}, which may be another device on this machine"
            ));
        } else {
            out.push_str(line);
        }
    }
    (out, notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::fakes::saved_arrays as saved;

    #[test]
    fn what_is_overwritten_at_each_start_is_found_without_doubt() {
        let mut layout = saved();
        let found = layout.nodes.values().find_map(|node| match node {
            Node::Partition(part) => Some(part.clone()),
            _ => None,
        });
        let part = found.unwrap();
        if let Some(Node::Disk(disk)) = layout.nodes.get_mut(&part.on) {
            disk.serial = Some("S3R1AL".to_owned());
        }
        let device = part.device.display();
        let by_id = format!("/dev/disk/by-id/ata-Disk_S3R1AL-part{}", part.number);
        let text = format!(
            "# {device}\nswap1 {device} /dev/urandom swap,cipher=aes-xts-plain64\nswap2\t{by_id} /dev/urandom swap\n\
             swap3 /dev/sdy7 /dev/random plain\nswap4 /dev/vg/swap /dev/urandom swap\nroot /dev/sdy3 none luks\n\
             other /dev/sdy4 none plain\n"
        );
        let uuid = &part.partuuid;
        let done = [("/dev/sdy3".to_owned(), "UUID=1".to_owned())];
        let (new, notes) = places(&text, &layout, &done);
        assert_eq!(
            new,
            format!(
                "# {device}\nswap1 PARTUUID={uuid} /dev/urandom swap,cipher=aes-xts-plain64\nswap2\tPARTUUID={uuid} \
                 /dev/urandom swap\n# left out by the restore: swap3 /dev/sdy7 /dev/random plain\nswap4 /dev/vg/swap \
                 /dev/urandom swap\nroot /dev/sdy3 none luks\nother /dev/sdy4 none plain\n"
            )
        );
        assert_eq!(notes.len(), 3);
        assert_eq!(places(&new, &layout, &done).0, new);
    }
}
