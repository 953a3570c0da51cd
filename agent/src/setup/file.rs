//! The configuration is changed where it has to be; its other settings and its comments stay.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::config::Config;

/// The beginning of a new file.
const NEW: &str = "# Lifeboat's configuration, begun by `lifeboat setup`. Every setting is optional;\n\
    # `lifeboat config example` shows all of them with their defaults.\n\n";

/// What is to be in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All targets.
    pub targets: Vec<PathBuf>,
    /// When the host is backed up; nothing: as it is.
    pub schedule: Option<String>,
    /// To whom messages go; nothing: as it is.
    pub mail_to: Option<String>,
}

/// A changed configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// All of it.
    pub text: String,
    /// The settings that change, each as a line.
    pub changes: Vec<String>,
    /// What this version has no setting for.
    pub unknown: Vec<String>,
}

/// Changes what is different from what is wanted.
pub fn edit(old: &str, wanted: &Wanted) -> anyhow::Result<Edited> {
    let mut document: DocumentMut = old
        .parse()
        .map_err(|e| anyhow!("the configuration cannot be changed: {e}"))?;
    // Of a file that holds comments only, these would come behind the first setting.
    let mut head = String::new();
    if document.as_table().is_empty() {
        head = if old.is_empty() { NEW } else { old }.to_owned();
        if !head.ends_with('\n') {
            head.push('\n');
        }
        document = DocumentMut::new();
    }
    let known = toml::Table::try_from(Config::default()).context("no default configuration")?;
    let (mut changes, mut unknown) = (Vec::new(), Vec::new());
    let now = Config::parse(old).map_err(|e| anyhow!(e))?;
    if now.targets != wanted.targets {
        let paths: Array = wanted
            .targets
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        changes.push(format!("targets = {paths}"));
        set(document.as_table_mut(), "targets", value(paths));
    }
    let settings = [
        ("schedule", "host", &wanted.schedule),
        ("notify", "mail-to", &wanted.mail_to),
    ];
    let now = toml::Table::try_from(&now).context("the configuration cannot be read back")?;
    for (table, name, new) in settings {
        let Some(new) = new else { continue };
        let of = |all: &toml::Table| all.get(table)?.as_table()?.get(name).cloned();
        if of(&known).is_none() {
            unknown.push(format!("{table}.{name}"));
            continue;
        }
        if of(&now).as_ref().and_then(|v| v.as_str()) == Some(new) {
            continue;
        }
        changes.push(format!("{table}.{name} = {new:?}"));
        let inner = document
            .entry(table)
            .or_insert_with(|| Item::Table(Table::new()))
            .as_table_like_mut()
            .with_context(|| format!("{table} is no table in the configuration"))?;
        match inner.get_mut(name) {
            Some(item) => replace(item, value(new)),
            None => {
                inner.insert(name, value(new));
            }
        }
    }
    let text = match changes.is_empty() {
        true => old.to_owned(),
        false => head + &document.to_string(),
    };
    // What is written must be what was meant.
    let read = Config::parse(&text).map_err(|e| anyhow!("the new configuration is wrong: {e}"))?;
    anyhow::ensure!(
        read.targets == wanted.targets,
        "the configuration cannot be changed"
    );
    Ok(Edited {
        text,
        changes,
        unknown,
    })
}

fn set(table: &mut Table, name: &str, new: Item) {
    match table.get_mut(name) {
        Some(item) => replace(item, new),
        None => {
            table.insert(name, new);
        }
    }
}

/// The comment behind a value stays.
fn replace(item: &mut Item, mut new: Item) {
    if let (Some(old), Some(new)) = (item.as_value(), new.as_value_mut()) {
        *new.decor_mut() = old.decor().clone();
    }
    *item = new;
}

/// Gives the file its new content in one go; nobody but root reads it.
pub fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    // A link to it stays one.
    let file = &fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let dir = file.parent().context("the configuration is no file")?;
    let written = (|| {
        fs::create_dir_all(dir)?;
        let mut new = tempfile::Builder::new()
            .prefix(".lifeboat-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(dir)?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(file).map_err(|e| e.error)?;
        File::open(dir)?.sync_all()
    })();
    written.with_context(|| format!("cannot write the configuration {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(paths: &[&str]) -> Wanted {
        Wanted {
            targets: paths.iter().map(PathBuf::from).collect(),
            ..Wanted::default()
        }
    }

    #[test]
    fn other_settings_and_comments_stay() {
        let old =
            "# mine\ntargets = [\"/a\"] # where\nnice = 5\n\n[retention]\n# many\nkeep-last = 9\n";
        let edited = edit(old, &targets(&["/a", "/dev/b"])).unwrap();
        assert_eq!(edited.text, old.replace("[\"/a\"]", "[\"/a\", \"/dev/b\"]"));
        assert_eq!(edited.changes, ["targets = [\"/a\", \"/dev/b\"]"]);
        let again = edit(&edited.text, &targets(&["/a", "/dev/b"])).unwrap();
        assert!(again.changes.is_empty() && again.text == edited.text);
    }

    #[test]
    fn targets_come_before_tables() {
        let old = "[retention]\nkeep-last = 9\n";
        let edited = edit(old, &targets(&["/a"])).unwrap();
        let config = Config::parse(&edited.text).unwrap();
        assert_eq!(config.targets, [PathBuf::from("/a")]);
        assert_eq!(config.retention.policy().last, 9);
    }

    #[test]
    fn a_new_file_says_where_to_read_on() {
        let edited = edit("", &targets(&["/a"])).unwrap();
        assert!(edited.text.starts_with("# Lifeboat's configuration"));
        assert!(edited.text.contains("config example"));
        let example = crate::config::example().unwrap();
        let edited = edit(&example, &targets(&["/a"])).unwrap();
        assert_eq!(edited.text, format!("{example}targets = [\"/a\"]\n"));
        // Nothing to change: no file either.
        assert_eq!(edit("", &targets(&[])).unwrap().text, "");
    }

    /// Either this version has the setting, and it is read back, or it is said that there is none.
    #[test]
    fn no_setting_is_written_that_this_version_would_refuse() {
        let wanted = Wanted {
            schedule: Some("daily 02:00".into()),
            mail_to: Some("root".into()),
            ..targets(&["/a"])
        };
        let edited = edit("", &wanted).unwrap();
        for (name, value) in [("schedule.host", "daily 02:00"), ("notify.mail-to", "root")] {
            let known = !edited.unknown.contains(&name.to_owned());
            let (table, setting) = name.split_once('.').unwrap();
            let config = Config::parse(&edited.text).unwrap();
            let all = toml::Table::try_from(config).unwrap();
            let set = all.get(table).and_then(|t| t.get(setting)).cloned();
            assert_eq!(
                known.then_some(value),
                set.as_ref().and_then(|v| v.as_str())
            );
        }
    }

    #[test]
    fn it_is_for_root_only_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("etc/lifeboat.toml");
        write(&file, "nice = 1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "nice = 2\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "nice = 2\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 1);
    }
}
