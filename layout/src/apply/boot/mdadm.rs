//! Arrays and their members in mdadm.conf(5).

use std::path::Path;

use crate::capture::mounts::is_fragile_name;
use crate::model::{Layout, Node};

/// Arrays go by their UUIDs, and members are looked for on all partitions.
pub(super) fn mdadm_conf(text: &str, saved: &Layout) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let end = line.len() - line.trim_end().len();
        let (body, end) = line.split_at(line.len() - end);
        // A line with space before it goes on with the one above.
        let indent = &body[..body.len() - body.trim_start().len()];
        let words: Vec<&str> = body.split_whitespace().collect();
        let keyword = words.first().copied().unwrap_or("");
        if keyword.eq_ignore_ascii_case("DEVICE") && words.iter().any(|w| is_fragile_name(w)) {
            out.push_str("DEVICE partitions");
        } else if let Some(devices) = words.iter().find_map(|w| w.strip_prefix("devices=")) {
            let known = words.iter().any(|w| w.to_lowercase().starts_with("uuid="));
            let uuid = array_of(saved, devices).map(|uuid| format!("UUID={uuid}"));
            let kept = words.iter().filter(|w| !w.starts_with("devices="));
            let kept: Vec<&str> = kept.copied().collect();
            match uuid.filter(|_| !known) {
                _ if known => out.push_str(&format!("{indent}{}", kept.join(" "))),
                Some(uuid) => {
                    let words: Vec<&str> = kept.into_iter().chain([uuid.as_str()]).collect();
                    out.push_str(&format!("{indent}{}", words.join(" ")));
                }
                None => out.push_str(body),
            }
        } else {
            out.push_str(body);
        }
        out.push_str(end);
    }
    out
}

/// The UUID of the array that has one of these members.
fn array_of<'a>(saved: &'a Layout, devices: &str) -> Option<&'a str> {
    let named: Vec<&Path> = devices.split(',').map(Path::new).collect();
    saved.nodes.values().find_map(|node| match node {
        Node::RaidArray(array) => {
            let mut members = array.members.iter();
            members
                .any(|m| {
                    let device = saved.nodes.get(&m.on).and_then(Node::device);
                    device.is_some_and(|d| named.contains(&d))
                })
                .then_some(array.uuid.as_str())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::fakes::saved_arrays as saved;

    #[test]
    fn mdadm_conf_names_arrays_by_their_uuid() {
        let layout = saved();
        let array = layout.nodes.values().find_map(|n| match n {
            Node::RaidArray(array) => Some(array),
            _ => None,
        });
        let array = array.unwrap();
        let members: Vec<String> = array
            .members
            .iter()
            .map(|m| layout.nodes[&m.on].device().unwrap().display().to_string())
            .collect();
        let text = format!(
            "# DEVICE /dev/sda1\nDEVICE /dev/sda1 /dev/sdb1\nMAILADDR root\nARRAY /dev/md/0 UUID=1:2:3:4 \
             devices=/dev/sda1,/dev/sdb1\nARRAY /dev/md/1 devices={}\nARRAY /dev/md/2 metadata=1.2 UUID=5\n",
            members.join(",")
        );
        let new = mdadm_conf(&text, &layout);
        assert_eq!(
            new,
            format!(
                "# DEVICE /dev/sda1\nDEVICE partitions\nMAILADDR root\nARRAY /dev/md/0 UUID=1:2:3:4\n\
                 ARRAY /dev/md/1 UUID={}\nARRAY /dev/md/2 metadata=1.2 UUID=5\n",
                array.uuid
            )
        );
        assert_eq!(mdadm_conf(&new, &layout), new);
        let plain = "DEVICE partitions containers\nARRAY <ignore> UUID=1\nARRAY /dev/md9 devices=/dev/sdx1\n";
        assert_eq!(
            mdadm_conf(plain, &layout),
            plain,
            "nothing is known of its members"
        );
    }

    #[test]
    fn lines_of_mdadm_conf_that_go_on_still_do() {
        let text = "ARRAY /dev/md/0 UUID=1:2:3:4\n  level=raid1 devices=/dev/sda1 UUID=1:2:3:4\n";
        assert_eq!(
            mdadm_conf(text, &saved()),
            "ARRAY /dev/md/0 UUID=1:2:3:4\n  level=raid1 UUID=1:2:3:4\n"
        );
    }
}
