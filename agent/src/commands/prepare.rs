//! `lifeboat prepare`

use std::io::IsTerminal;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bundle::crypt::NewSlot;
use bundle::store::{Store, StoreOptions};
use layout::units::Bytes;
use rescue_image::stick::{Identity, PrepareOptions, Stick, Target, UefiBoot, identify, refusals};
use serde::Serialize;

use crate::cli::PrepareArgs;
use crate::commands::key::recovery_text;
use crate::keys;
use crate::output::{Outcome, Refused, Usage};
use crate::progress::Progress;
use crate::rescue::{Builder, Wish};
use crate::targets::{Access, Opened, close_all};
use crate::{Context, inhibit, plug, signals, values};

/// Below this a stick has no room for a host.
pub const SMALLEST: u64 = 3 << 30;

/// What was made.
#[derive(Debug, Serialize)]
pub struct Prepared {
    target: PathBuf,
    store: String,
    encrypted: bool,
    /// Shown once, and stored nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<String>,
    #[serde(flatten)]
    stick: Option<StickFacts>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StickFacts {
    bios: bool,
    uefi: UefiBoot,
    medium: String,
    data_bytes: u64,
    kernel: String,
}

/// What the path stands for.
#[derive(Debug, PartialEq, Eq)]
enum What {
    Device,
    Image(u64),
    Directory,
}

/// Makes a target.
pub fn run(context: &Context, args: &PrepareArgs) -> anyhow::Result<Outcome> {
    if args.check_kernel {
        let builder = Builder::new(&context.sys, &wish(context, args)).map_err(no_kernel)?;
        let kernel = builder.kernel();
        let facts = serde_json::json!({ "kernel": kernel.version, "image": kernel.image });
        context.out.summary(&facts, || {
            format!("kernel {} ({})", kernel.version, kernel.image.display())
        })?;
        return Ok(Outcome::Fine);
    }
    if let Some(target) = &args.target {
        classify(target, args)?;
    }
    // Whoever has to type something does so before anything is erased.
    let keys = if args.encrypt {
        keys::for_new_store(
            context.passphrase_file.as_deref(),
            context.key_file.as_deref(),
        )?
    } else {
        Vec::new()
    };
    let done = with_keys(context, args, &keys)?;
    let next = format!("Next: lifeboat backup --to {}\n", done.target.display());
    say(context, &done, || text(&done) + &next)?;
    Ok(Outcome::Fine)
}

fn wish<'a>(context: &Context, args: &'a PrepareArgs) -> Wish<'a> {
    Wish {
        package: args.kernel_package.as_deref(),
        version: args.kernel.as_deref(),
        modules: args.modules.unwrap_or(context.config.rescue_modules),
    }
}

/// Makes a target with these keys; none: it is not encrypted.
pub fn with_keys(
    context: &Context,
    args: &PrepareArgs,
    keys: &[NewSlot],
) -> anyhow::Result<Prepared> {
    let wish = wish(context, args);
    let Some(target) = &args.target else {
        return Err(Usage("give a TARGET".into()).into());
    };
    match classify(target, args)? {
        What::Directory => directory(context, args, target, keys),
        What::Device => device(context, args, target, &wish, keys),
        What::Image(size) => image(context, args, target, size, &wish, keys),
    }
}

/// Encrypts a store that was just made, if that is wanted; the recovery key and what to note.
fn encrypt(store: &mut Store, keys: &[NewSlot]) -> anyhow::Result<(Option<String>, Vec<String>)> {
    if keys.is_empty() {
        return Ok((None, Vec::new()));
    }
    let recovery = store.encrypt(keys)?;
    let text = recovery.first().map(|key| key.to_text().to_string());
    Ok((text, vec![keys::keep_if_possible(store)]))
}

/// What was done; with a recovery key, which is in no other place, also when nothing is to be said.
fn say(context: &Context, done: &Prepared, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    match &done.recovery_key {
        Some(key) => {
            let text = text() + &recovery_text(key);
            context.out.result(done, || text)
        }
        None => context.out.summary(done, text),
    }
}

fn no_kernel(error: anyhow::Error) -> anyhow::Error {
    error.context(
        "no kernel for the rescue system; give one with --kernel-package linux-image-....deb",
    )
}

fn classify(target: &Path, args: &PrepareArgs) -> anyhow::Result<What> {
    let size = args.size.map(|s| s.0);
    let for_images = |what: &str| {
        Usage(format!(
            "--size is for new image files, and {} is {what}",
            target.display()
        ))
    };
    match std::fs::metadata(target) {
        Ok(meta) if meta.is_dir() => match size {
            Some(_) => Err(for_images("a directory").into()),
            None => Ok(What::Directory),
        },
        Ok(meta) if meta.file_type().is_block_device() => match size {
            Some(_) => Err(for_images("a disk").into()),
            None => Ok(What::Device),
        },
        Ok(meta) if meta.is_file() => {
            if !args.force_image && meta.len() > 0 {
                return Err(Refused(format!(
                    "{} exists ({}); what is in it would be lost: choose another name, or give --force-image",
                    target.display(),
                    values::bytes(meta.len())
                ))
                .into());
            }
            let size = size.or((meta.len() > 0).then_some(meta.len()));
            large_enough(
                target,
                size.ok_or_else(|| Usage("a new image file needs --size, for example 32G".into()))?,
            )
        }
        Ok(_) => bail!(
            "{} is neither a disk, a file nor a directory",
            target.display()
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => match size {
            // A file there would lie in memory, and be gone with the next start.
            _ if target.starts_with("/dev") => {
                bail!(
                    "there is no device {}; `lsblk -o NAME,MODEL,SERIAL,SIZE` lists the disks",
                    target.display()
                )
            }
            Some(size) => large_enough(target, size),
            None if target.extension().is_some_and(|e| e == "img") => {
                Err(Usage("a new image file needs --size, for example 32G".into()).into())
            }
            None => Ok(What::Directory),
        },
        Err(e) => Err(e).with_context(|| format!("cannot look at {}", target.display())),
    }
}

fn large_enough(target: &Path, size: u64) -> anyhow::Result<What> {
    if size < SMALLEST {
        let text = format!(
            "{} would be too small: at least {} are needed",
            target.display(),
            values::bytes(SMALLEST)
        );
        return Err(Usage(text).into());
    }
    Ok(What::Image(size))
}

fn directory(
    context: &Context,
    args: &PrepareArgs,
    target: &Path,
    keys: &[NewSlot],
) -> anyhow::Result<Prepared> {
    std::fs::create_dir_all(target)
        .with_context(|| format!("cannot make the directory {}", target.display()))?;
    let mut store = Store::create(target, &StoreOptions::default())
        .with_context(|| format!("cannot make a store in {}", target.display()))?;
    let (recovery_key, notes) = encrypt(&mut store, keys)?;
    let parity = args.parity.unwrap_or(context.config.parity);
    parity.apply(&store)?;
    let done = Prepared {
        target: target.into(),
        store: store.id().to_owned(),
        encrypted: store.encrypted(),
        recovery_key,
        stick: None,
        notes,
    };
    Ok(done)
}

fn device(
    context: &Context,
    args: &PrepareArgs,
    target: &Path,
    wish: &Wish,
    keys: &[NewSlot],
) -> anyhow::Result<Prepared> {
    need_root()?;
    // A link like /dev/disk/by-id/... may lead elsewhere in a minute: from here on it is this device.
    let path = target
        .canonicalize()
        .with_context(|| format!("cannot use {}", target.display()))?;
    let identity = identify(&context.sys, &path)?;
    let reasons = refusals(&context.sys, &path, Bytes(SMALLEST))?;
    if !reasons.is_empty() {
        return Err(Refused(format!(
            "{} must not be erased: {}",
            path.display(),
            reasons.join("; ")
        ))
        .into());
    }
    confirm(&identity, args.yes_erase.as_deref())?;
    make(
        context,
        args,
        &Target::Device(path),
        wish,
        keys,
        Some(identity),
    )
}

fn image(
    context: &Context,
    args: &PrepareArgs,
    target: &Path,
    size: u64,
    wish: &Wish,
    keys: &[NewSlot],
) -> anyhow::Result<Prepared> {
    need_root()?;
    make(
        context,
        args,
        &Target::Image {
            path: target.into(),
            size: Bytes(size),
        },
        wish,
        keys,
        None,
    )
}

fn need_root() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("making a stick needs root (its data partition is mounted): run this command as root")
}

/// What is typed to erase a disk. One without a serial is confirmed by its device name: there is nothing better to tell it
/// by.
pub fn confirmation(identity: &Identity) -> String {
    match identity.serial.is_empty() {
        true => identity.device.display().to_string(),
        false => identity.serial.clone(),
    }
}

/// Has the serial of the disk typed, or compares it with the one that was given.
pub fn confirm(identity: &Identity, given: Option<&str>) -> anyhow::Result<()> {
    let expected = confirmation(identity);
    let shown = describe(identity);
    if let Some(given) = given {
        return match given == expected {
            true => Ok(()),
            false => Err(Refused(format!(
                "--yes-erase {given} does not fit; the disk is\n{shown}"
            ))
            .into()),
        };
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Refused(format!(
            "nobody can be asked (no terminal). If this disk is to be ERASED, add --yes-erase '{expected}':\n{shown}"
        ))
        .into());
    }
    eprint!("This disk will be ERASED:\n{shown}");
    let what = if identity.serial.is_empty() {
        "device name"
    } else {
        "serial"
    };
    let typed: String = dialoguer::Input::new()
        .with_prompt(format!(
            "Type its {what} to erase it (anything else leaves it alone)"
        ))
        .allow_empty(true)
        .interact_text()
        .context("nothing was typed")?;
    if typed.trim() != expected {
        return Err(Refused("that is not it; the disk was not touched".into()).into());
    }
    signals::check()
}

/// A disk, and what is on it now.
pub fn describe(identity: &Identity) -> String {
    let mut out = format!(
        "  {}  {}  serial {}  {}{}\n",
        identity.device.display(),
        if identity.model.is_empty() {
            "(no model)"
        } else {
            &identity.model
        },
        if identity.serial.is_empty() {
            "(none)"
        } else {
            &identity.serial
        },
        identity.size,
        if identity.removable {
            "  removable"
        } else {
            ""
        },
    );
    for line in &identity.contents {
        out.push_str(&format!("    on it now: {line}\n"));
    }
    if identity.contents.is_empty() {
        out.push_str("    on it now: nothing that is known\n");
    }
    out
}

fn make(
    context: &Context,
    args: &PrepareArgs,
    target: &Target,
    wish: &Wish,
    keys: &[NewSlot],
    confirmed: Option<Identity>,
) -> anyhow::Result<Prepared> {
    let progress = Progress::new(context.out.quiet);
    // Everything that can fail without the disk comes before the disk is touched.
    let builder = Builder::new(&context.sys, wish)?;
    let (rescue, mut notes) = builder.build(&context.sys, &progress)?;
    signals::check()?;
    let _on = inhibit::shutdown("a stick is being made");
    let kernel = rescue.info.kernel.clone();
    let mut options = PrepareOptions::new(rescue);
    if let Some(size) = args.esp_size {
        options.esp_size = Bytes(size.0);
    }
    options.replace_foreign_file = args.force_image;
    options.confirmed = confirmed;
    let report = Stick::prepare(&context.sys, target, &options, &progress)
        .with_context(|| format!("cannot make a stick of {}", target.path().display()))?;
    let opened = Opened::open(target.path(), Access::Write)?;
    let parity = args.parity.unwrap_or(context.config.parity);
    let made = match Store::info(&opened.dir) {
        Err(bundle::Error::NoStore { .. }) => Store::create(&opened.dir, &StoreOptions::default())
            .with_context(|| format!("cannot make a store on {}", target.path().display())),
        _ => opened.writer(),
    };
    let result = made.and_then(|mut store| {
        let (recovery_key, notes) = encrypt(&mut store, keys)?;
        parity.apply(&store)?;
        Ok((
            store.id().to_owned(),
            store.encrypted(),
            recovery_key,
            notes,
        ))
    });
    let (store, encrypted, recovery_key, key_notes) = close_all(vec![opened], result)?;
    notes.extend(key_notes);
    plug::known::made(context, target, &report.medium, &store);
    progress.finish();
    notes.extend(report.notes);
    let done = Prepared {
        target: target.path().into(),
        store,
        encrypted,
        recovery_key,
        stick: Some(StickFacts {
            bios: report.bios,
            uefi: report.uefi,
            medium: report.medium,
            data_bytes: report.data_size.0,
            kernel,
        }),
        notes,
    };
    Ok(done)
}

impl Prepared {
    /// What was made, in words; with a recovery key, which is in no other place.
    pub fn text(&self) -> String {
        let key = self.recovery_key.as_deref().map(recovery_text);
        text(self) + &key.unwrap_or_default()
    }
}

fn text(done: &Prepared) -> String {
    let target = done.target.display();
    let mut out = String::new();
    if done.stick.is_none() {
        out.push_str(&format!(
            "{target} is a target now. It does not boot by itself: the rescue system of any stick reads it.\n"
        ));
    }
    if let Some(s) = &done.stick {
        let uefi = match s.uefi {
            UefiBoot::Signed => "UEFI (with Secure Boot, too)",
            UefiBoot::Unsigned => "UEFI (with Secure Boot off)",
            UefiBoot::No => "not on UEFI",
        };
        let boots: Vec<&str> = s.bios.then_some("BIOS").into_iter().chain([uefi]).collect();
        out.push_str(&format!(
            "{target} is a stick now: boots on {}; kernel {}; {} for restore points\n",
            boots.join(" and "),
            s.kernel,
            values::bytes(s.data_bytes)
        ));
    }
    for note in &done.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::error_code;

    fn args(size: Option<u64>, force: bool) -> PrepareArgs {
        PrepareArgs {
            target: None,
            encrypt: false,
            size: size.map(values::Size),
            esp_size: None,
            kernel_package: None,
            kernel: None,
            yes_erase: None,
            modules: None,
            parity: None,
            force_image: force,
            check_kernel: false,
        }
    }

    #[test]
    fn what_a_path_stands_for() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("new");
        let file = dir.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(
            classify(dir.path(), &args(None, false)).unwrap(),
            What::Directory
        );
        assert_eq!(classify(&new, &args(None, false)).unwrap(), What::Directory);
        assert_eq!(
            classify(&new, &args(Some(4 << 30), false)).unwrap(),
            What::Image(4 << 30)
        );
        assert_eq!(
            classify(&file, &args(Some(4 << 30), true)).unwrap(),
            What::Image(4 << 30)
        );
        // An image whose size was forgotten does not become a directory of that name.
        assert_eq!(
            error_code(&classify(&dir.path().join("stick.img"), &args(None, false)).unwrap_err()),
            2
        );
        // A file that exists is not written over; a mistyped device does not become a directory below /dev.
        assert_eq!(
            error_code(&classify(&file, &args(Some(4 << 30), false)).unwrap_err()),
            4
        );
        assert_eq!(
            error_code(&classify(Path::new("/dev/sdzz9"), &args(None, false)).unwrap_err()),
            1
        );
        assert!(classify(Path::new("/dev/sdzz9"), &args(Some(4 << 30), false)).is_err());
        assert_eq!(
            error_code(&classify(&new, &args(Some(1 << 20), false)).unwrap_err()),
            2
        );
        assert_eq!(
            error_code(&classify(dir.path(), &args(Some(4 << 30), false)).unwrap_err()),
            2
        );
    }

    fn stick(serial: &str) -> Identity {
        Identity {
            device: "/dev/sdx".into(),
            model: "Example Stick".into(),
            serial: serial.into(),
            size: Bytes::GIB,
            sector_size: 512,
            removable: true,
            transport: "usb".into(),
            read_only: false,
            contents: vec!["ext4 'photos'".into()],
        }
    }

    #[test]
    fn only_the_exact_serial_erases() {
        confirm(&stick("ABC123"), Some("ABC123")).unwrap();
        for wrong in ["abc123", "ABC12", "", "/dev/sdx"] {
            let e = confirm(&stick("ABC123"), Some(wrong)).unwrap_err();
            assert_eq!(error_code(&e), 4);
            assert!(
                e.to_string().contains("photos"),
                "the error says what is on the disk: {e}"
            );
        }
        confirm(&stick(""), Some("/dev/sdx")).unwrap();
        assert!(confirm(&stick(""), Some("")).is_err());
    }
}
