//! Copy files out of a restore point, onto another disk or onto the medium itself.

use std::path::{Component, Path, PathBuf};

use bundle::document::Tree;
use layout::units::Bytes;

use super::terminal::{Gone, Item, Terminal, menu};
use super::world::World;
use super::{Answers, Screen};

/// Asks for paths and for a place, and copies.
pub fn show(
    answers: &Answers,
    world: &mut dyn World,
    terminal: &mut dyn Terminal,
) -> Result<Screen, Gone> {
    let Some(point) = &answers.point else {
        return Ok(Screen::Points);
    };
    terminal.say("\nPaths as they were on the host, such as /etc/network or /root. Directories are copied with all in them.");
    let mut paths: Vec<PathBuf> = Vec::new();
    loop {
        let answer = terminal.ask("Path to copy out, or Enter when done", Some(""))?;
        if answer.trim().is_empty() {
            break;
        }
        match normal(answer.trim()) {
            Some(path) => paths.push(path),
            None => terminal.say("Please give a path that begins with / and has no .. in it."),
        }
    }
    if paths.is_empty() {
        return Ok(Screen::Action);
    }
    let destinations = world.destinations();
    let mut items: Vec<Item> = destinations
        .iter()
        .enumerate()
        .map(|(n, d)| Item::new(n + 1, d.text.clone()))
        .collect();
    items.push(Item::new("b", "Back: copy nothing"));
    let chosen = menu(
        terminal,
        "Where to? A new directory is made there; nothing is overwritten.",
        &items,
        "Copy to",
        None,
    )?;
    let Some(destination) = destinations.get(chosen) else {
        return Ok(Screen::Action);
    };
    let ui = terminal.ui();
    let outcome = world.copy_out(point, &paths, destination, &*ui);
    ui.finish();
    match outcome {
        Ok((dir, report)) => {
            let place = destination.medium.device.display();
            let mut text = format!(
                "\n{} files and directories, {}, are in {} on {place}.",
                report.entries,
                Bytes(report.bytes),
                dir.display()
            );
            for problem in report.missing.iter().chain(&report.incomplete_metadata) {
                text.push_str(&format!(
                    "\n  {}: {}",
                    problem.path.display(),
                    problem.reason
                ));
            }
            for path in &report.not_found {
                text.push_str(&format!(
                    "\n  {}: not in this restore point",
                    path.display()
                ));
            }
            terminal.say(&text);
        }
        Err(error) => terminal.say(&format!("Not copied, or not completely: {error:#}")),
    }
    Ok(Screen::Action)
}

fn normal(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let plain = path
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    (path.is_absolute() && plain).then(|| path.components().collect())
}

/// The paths that lie in the tree mounted at `at`, relative to it. A path belongs to the deepest mount above it; one
/// that has other trees below it takes those whole.
pub(in crate::rescue) fn paths_in_tree(
    paths: &[PathBuf],
    at: &Path,
    trees: &[Tree],
) -> Vec<PathBuf> {
    let deepest = |path: &Path| {
        trees
            .iter()
            .map(|t| Path::new(&t.mount_point))
            .filter(|m| path.starts_with(m))
            .max_by_key(|m| m.components().count())
    };
    let mut inside = Vec::new();
    for path in paths {
        if at.starts_with(path) {
            return vec![PathBuf::from(".")];
        }
        if deepest(path) == Some(at) {
            if let Ok(relative) = path.strip_prefix(at) {
                inside.push(relative.to_owned());
            }
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use bundle::document::Summary;

    use super::*;

    fn tree(at: &str) -> Tree {
        Tree {
            mount_point: at.to_owned(),
            filesystem: None,
            catalogue: Vec::new(),
            entries: 0,
            files: 0,
            bytes: 0,
            segments: 0,
            summary: Summary::default(),
        }
    }

    #[test]
    fn paths_go_to_the_deepest_tree() {
        let trees = [tree("/"), tree("/boot"), tree("/boot/efi")];
        let inside = |paths: &[&str], at: &str| {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            paths_in_tree(&paths, Path::new(at), &trees)
        };
        assert_eq!(inside(&["/etc", "/boot/grub"], "/"), [PathBuf::from("etc")]);
        assert_eq!(
            inside(&["/etc", "/boot/grub"], "/boot"),
            [PathBuf::from("grub")]
        );
        assert!(inside(&["/etc", "/boot/grub"], "/boot/efi").is_empty());
        assert_eq!(inside(&["/boot"], "/boot/efi"), [PathBuf::from(".")]);
        assert!(inside(&["/boot"], "/").is_empty());
    }

    #[test]
    fn only_absolute_paths_without_detours() {
        assert_eq!(
            normal("/etc//network/"),
            Some(PathBuf::from("/etc/network"))
        );
        assert_eq!(normal("etc"), None);
        assert_eq!(normal("/etc/../root"), None);
    }
}
