//! `lifeboat key`

use std::path::{Path, PathBuf};

use bundle::crypt::{NewSlot, SlotInfo, SlotKind};
use bundle::store::Store;
use serde::Serialize;

use crate::cli::{KeyArgs, KeyCommand, NewKey};
use crate::output::{Outcome, Usage, table};
use crate::targets::{Access, Opened, close_all};
use crate::{Context, keys};

/// What a change of keys ended with.
#[derive(Serialize)]
struct Changed {
    target: PathBuf,
    store: String,
    /// The key that was added, removed or rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Shown once, and stored nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<String>,
    keys: Vec<SlotInfo>,
    notes: Vec<String>,
}

/// Lists or changes the keys of a target.
pub fn run(context: &Context, args: &KeyArgs) -> anyhow::Result<Outcome> {
    match &args.what {
        KeyCommand::List { on } => list(context, &on.on),
        KeyCommand::Keep { on } => change(context, &on.on, Access::Read, |store| {
            let path = keys::keep(store)?;
            Ok((
                None,
                None,
                vec![format!("this host keeps the key in {}", path.display())],
            ))
        }),
        KeyCommand::Init { on } => {
            // Whoever has to type something does so before anything is changed.
            let slots = keys::for_new_store(
                context.passphrase_file.as_deref(),
                context.key_file.as_deref(),
            )?;
            change(context, &on.on, Access::Write, |store| {
                let recovery = store.encrypt(&slots)?;
                let text = recovery.first().map(|key| key.to_text().to_string());
                Ok((None, text, vec![keys::keep_if_possible(store)]))
            })
        }
        KeyCommand::Add { on, new, recovery } => {
            let slot = match (&new.new_key_file, recovery) {
                (Some(file), _) => keys::new_key_file(file)?,
                (None, true) => NewSlot::Recovery,
                (None, false) => keys::new_passphrase(new.new_passphrase_file.as_deref())?,
            };
            change(context, &on.on, Access::Write, |store| {
                let (id, recovery) = store.add_key(&slot)?;
                let text = recovery.map(|key| key.to_text().to_string());
                Ok((Some(id), text, Vec::new()))
            })
        }
        KeyCommand::Remove { key, on } => change(context, &on.on, Access::Write, |store| {
            store.remove_key(key)?;
            Ok((Some(key.clone()), None, Vec::new()))
        }),
        KeyCommand::Rotate { key, on, new } => change(context, &on.on, Access::Write, |store| {
            let slot = replacement(store.kind_of_key(key)?, new)?;
            let text = store.rotate_key(key, &slot)?;
            let text = text.map(|key| key.to_text().to_string());
            Ok((Some(key.clone()), text, Vec::new()))
        }),
    }
}

fn replacement(kind: SlotKind, new: &NewKey) -> anyhow::Result<NewSlot> {
    match kind {
        SlotKind::Recovery => Ok(NewSlot::Recovery),
        SlotKind::Passphrase => keys::new_passphrase(new.new_passphrase_file.as_deref()),
        SlotKind::KeyFile => match &new.new_key_file {
            Some(file) => keys::new_key_file(file),
            None => Err(Usage(
                "this key is a key file: name the new one with --new-key-file".into(),
            )
            .into()),
        },
    }
}

fn list(context: &Context, target: &Path) -> anyhow::Result<Outcome> {
    let opened = Opened::open(target, Access::Read)?;
    let info = Store::info(&opened.dir).map_err(anyhow::Error::from);
    let info = close_all(vec![opened], info)?;
    context.out.result(&info, || {
        if !info.encrypted {
            return format!("{} is not encrypted\n", target.display());
        }
        shown(&info.keys)
    })?;
    Ok(Outcome::Fine)
}

fn shown(keys: &[SlotInfo]) -> String {
    let rows: Vec<_> = keys
        .iter()
        .map(|k| vec![k.id.clone(), k.kind.to_string(), k.created.clone()])
        .collect();
    table(&["id", "kind", "made"], &rows)
}

type Done = (Option<String>, Option<String>, Vec<String>);

fn change(
    context: &Context,
    target: &Path,
    access: Access,
    work: impl FnOnce(&mut Store) -> anyhow::Result<Done>,
) -> anyhow::Result<Outcome> {
    let opened = Opened::open(target, access)?;
    let result: anyhow::Result<Changed> = (|| {
        let mut store = match access {
            Access::Read => opened.reader()?,
            Access::Write => opened.writer()?,
        };
        let (key, recovery_key, notes) = work(&mut store)?;
        Ok(Changed {
            target: target.into(),
            store: store.id().to_owned(),
            key,
            recovery_key,
            keys: store.keys()?,
            notes,
        })
    })();
    let (result, left) = match close_all(vec![opened], Ok(())) {
        Ok(()) => (result, None),
        Err(error) => (result, Some(error)),
    };
    let changed = result?;
    let text = || {
        let mut out = shown(&changed.keys);
        if let Some(key) = &changed.recovery_key {
            out.push_str(&recovery_text(key));
        }
        for note in &changed.notes {
            out.push_str(&format!("note: {note}\n"));
        }
        out
    };
    // A recovery key is shown whatever happens: it is in no other place.
    match &changed.recovery_key {
        Some(_) => context.out.result(&changed, text)?,
        None => context.out.summary(&changed, text)?,
    }
    match left {
        Some(error) => Err(error),
        None => Ok(Outcome::Fine),
    }
}

/// A recovery key as it is shown once.
pub fn recovery_text(key: &str) -> String {
    let groups: Vec<&str> = key.split('-').collect();
    let lines: Vec<String> = groups
        .chunks(5)
        .map(|g| format!("    {}\n", g.join("-")))
        .collect();
    format!(
        "\nRECOVERY KEY: it opens the target when all else is lost. Write it down now; it is not shown again.\n\n{}\n",
        lines.concat()
    )
}
