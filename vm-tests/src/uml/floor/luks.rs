//! LUKS containers: an old one, headers as a backup has them, and facts asked of cryptsetup.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use layout::model::Luks;
use layout::system::{Cmd, Host, System};

use crate::machine::{settle, text, tool};

/// What opens every container of the floor.
pub const KEY: &[u8] = b"floor's \xff key\n";

fn with_key(argv: &[&str]) -> Result<()> {
    let (program, args) = argv.split_first().context("no command")?;
    Host.run(&Cmd::new(*program).args(args.iter().copied()).input(KEY))?;
    Ok(())
}

fn format(device: &str, options: &[&str]) -> Result<()> {
    let mut argv = vec![
        "cryptsetup",
        "luksFormat",
        "--batch-mode",
        "--key-file=-",
        // The default would take minutes in this machine.
        "--pbkdf=pbkdf2",
        "--pbkdf-force-iterations=1000",
    ];
    argv.extend(options);
    argv.push(device);
    with_key(&argv)
}

/// A container of an earlier life on a whole disk, open, with the name that the layouts' containers have.
pub fn stale(device: &str) -> Result<()> {
    format(device, &[])?;
    with_key(&["cryptsetup", "open", "--key-file=-", device, "root_crypt"])?;
    settle()?;
    tool(&[
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-L",
        "stale",
        "/dev/mapper/root_crypt",
    ])?;
    Ok(())
}

/// The header that a backup of this container would hold: made once, outside of the disks under test.
pub fn header(luks: &Luks) -> Result<Vec<u8>> {
    let path = PathBuf::from(format!("/run/{}.luks", luks.uuid));
    if !path.exists() {
        let file = File::create(&path)?;
        file.set_len(luks.data_offset.0 + (1 << 20))?;
        let node = path.to_string_lossy();
        let kind = format!("--type=luks{}", luks.version);
        let uuid = format!("--uuid={}", luks.uuid);
        let cipher = format!("--cipher={}", luks.cipher);
        let bits = format!("--key-size={}", luks.key_bits);
        let offset = format!("--offset={}", luks.data_offset.0 / 512);
        let sector = format!("--sector-size={}", luks.sector_size.0);
        let label = luks.label.as_ref().map(|l| format!("--label={l}"));
        let mut options = vec![kind.as_str(), &uuid, &cipher, &bits, &offset];
        if luks.version == 2 {
            options.push(&sector);
        }
        options.extend(label.as_deref());
        format(&node, &options)?;
        if !luks.flags.is_empty() {
            // Flags are written when a container is activated: on a loop device here.
            ensure!(luks.flags == ["allow-discards"], "{:?}", luks.flags);
            let device = text(&["losetup", "--find", "--show", &node])?;
            let device = device.trim();
            let open = [
                "cryptsetup",
                "open",
                "--key-file=-",
                "--persistent",
                "--allow-discards",
            ];
            with_key(&[&open[..], &[device, "flags"]].concat())?;
            settle()?;
            tool(&["cryptsetup", "close", "flags"])?;
            tool(&["losetup", "--detach", device])?;
        }
    }
    let mut header = vec![0; luks.header_size.0 as usize];
    File::open(&path)?.read_exact(&mut header)?;
    Ok(header)
}

pub fn open(device: &Path, name: &str) -> Result<()> {
    with_key(&[
        "cryptsetup",
        "open",
        "--key-file=-",
        &device.to_string_lossy(),
        name,
    ])?;
    settle()
}

pub fn close(name: &str) -> Result<()> {
    settle()?;
    tool(&["cryptsetup", "close", name])?;
    Ok(())
}

/// What cryptsetup says of the header, and the kernel of the open container.
pub fn check(device: &Path, luks: &Luks) -> Result<()> {
    let node = device.to_string_lossy();
    let found = text(&["cryptsetup", "luksUUID", &node])?;
    ensure!(found.trim() == luks.uuid, "{node}: {found}");
    let dump = text(&["cryptsetup", "luksDump", &node])?;
    let words = match luks.version {
        1 => vec![
            "Version:       \t1".to_owned(),
            format!("Payload offset:\t{}", luks.data_offset.0 / 512),
            format!("MK bits:       \t{}", luks.key_bits),
        ],
        _ => vec![
            "Version:       \t2".to_owned(),
            format!("offset: {} [bytes]", luks.data_offset.0),
            format!("cipher: {}", luks.cipher),
            format!("sector: {} [bytes]", luks.sector_size.0),
            format!("Cipher key: {} bits", luks.key_bits),
        ],
    };
    for word in words.iter().chain(&luks.flags).chain(&luks.label) {
        ensure!(
            dump.contains(word.as_str()),
            "{node}: no \"{word}\" in {dump}"
        );
    }
    Ok(())
}

/// The kernel's view of an open container.
pub fn check_open(luks: &Luks) -> Result<()> {
    let table = text(&["dmsetup", "table", &luks.name])?;
    ensure!(table.contains(&luks.cipher), "{}: {table}", luks.name);
    let discards = luks.flags.iter().any(|f| f == "allow-discards");
    ensure!(
        table.contains("allow_discards") == discards,
        "{}: {table}",
        luks.name
    );
    Ok(())
}
