//! GRUB for the medium: the BIOS images, the EFI programs, and the one configuration that both read.

use std::fs;
use std::path::{Path, PathBuf};

use layout::system::{Cmd, System};

use crate::error::{Error, Result};
use crate::stick::UefiBoot;

/// Version of what `grub.cfg` expects on the boot partition.
pub const CONFIG_FORMAT: u32 = 1;

/// Bytes of boot code in an MBR, before the disk signature.
pub(crate) const BOOT_CODE: usize = 440;

/// GRUB's pieces for one medium.
#[derive(Debug, Default)]
pub(crate) struct BootFiles {
    /// Boot code for the MBR and the core image; `None` when the host has no GRUB for BIOS.
    pub bios: Option<Bios>,
    /// Files for the boot partition: path and content.
    pub efi: Vec<(String, Vec<u8>)>,
    /// How it boots on UEFI.
    pub uefi: Option<UefiBoot>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// What boots on BIOS.
#[derive(Debug)]
pub(crate) struct Bios {
    /// First sector of the disk.
    pub boot_code: [u8; BOOT_CODE],
    /// BIOS boot partition, a whole number of 512-byte sectors.
    pub core: Vec<u8>,
}

const BIOS_MODULES: &[&str] = &[
    "biosdisk",
    "part_gpt",
    "part_msdos",
    "fat",
    "ext2",
    "normal",
    "linux",
    "configfile",
    "serial",
    "terminal",
    "echo",
    "test",
    "search",
    "search_label",
    "search_fs_uuid",
    "regexp",
    "chain",
    "drivemap",
    "reboot",
    "halt",
    "sleep",
    "ls",
    "cat",
    "all_video",
];

const EFI_MODULES: &[&str] = &[
    "part_gpt",
    "part_msdos",
    "fat",
    "ext2",
    "normal",
    "linux",
    "configfile",
    "serial",
    "terminal",
    "echo",
    "test",
    "search",
    "search_label",
    "search_fs_uuid",
    "regexp",
    "chain",
    "reboot",
    "halt",
    "sleep",
    "ls",
    "cat",
    "efifwsetup",
    "all_video",
];

/// Where the boot files are found on this host, and GRUB's own programs run in `work`.
pub(crate) fn boot_files(sys: &dyn System, work: &Path) -> Result<BootFiles> {
    let mut files = BootFiles::default();
    let modules = Path::new("/usr/lib/grub");
    if modules.join("i386-pc/boot.img").is_file() {
        files.bios = Some(bios(sys, &modules.join("i386-pc"), work)?);
    } else {
        files.notes.push(
            "does not boot on BIOS: grub-pc-bin is not installed (apt-get install grub-pc-bin)"
                .into(),
        );
    }
    let shim = Path::new("/usr/lib/shim/shimx64.efi.signed");
    let signed = modules.join("x86_64-efi-signed/grubx64.efi.signed");
    if shim.is_file() && signed.is_file() {
        let mut take = |to: &str, from: &Path| -> Result<()> {
            files.efi.push((
                to.to_owned(),
                fs::read(from).map_err(Error::io("read", from))?,
            ));
            Ok(())
        };
        take("EFI/BOOT/BOOTX64.EFI", shim)?;
        take("EFI/BOOT/grubx64.efi", &signed)?;
        // The key manager of shim. Its fallback program (fbx64) is left out on purpose: it would write boot entries into the
        // machine's firmware.
        for name in ["mmx64.efi.signed", "mmx64.efi"] {
            let from = Path::new("/usr/lib/shim").join(name);
            if from.is_file() {
                take("EFI/BOOT/mmx64.efi", &from)?;
                break;
            }
        }
        files.uefi = Some(UefiBoot::Signed);
    } else if modules.join("x86_64-efi/moddep.lst").is_file() {
        let out = work.join("bootx64.efi");
        mkimage(
            sys,
            "x86_64-efi",
            &modules.join("x86_64-efi"),
            "/grub",
            EFI_MODULES,
            &out,
        )?;
        files.efi.push((
            "EFI/BOOT/BOOTX64.EFI".into(),
            fs::read(&out).map_err(Error::io("read", &out))?,
        ));
        files.uefi = Some(UefiBoot::Unsigned);
        files.notes.push(
            "does not boot with Secure Boot on: apt-get install shim-signed grub-efi-amd64-signed changes that".into(),
        );
    } else {
        files
            .notes
            .push("does not boot on UEFI: apt-get install grub-efi-amd64-bin changes that".into());
    }
    if files.bios.is_none() && files.uefi.is_none() {
        return Err(Error::MissingTools {
            programs: vec!["GRUB".into()],
            packages: vec!["grub-pc-bin".into(), "grub-efi-amd64-bin".into()],
        });
    }
    // Signed GRUBs look in a folder that their vendor has fixed: Debian's, Proxmox's, and Debian's for removable media.
    for folder in ["EFI/debian", "EFI/proxmox", "boot/grub"] {
        files.efi.push((
            format!("{folder}/grub.cfg"),
            b"configfile ($root)/grub/grub.cfg\n".to_vec(),
        ));
    }
    Ok(files)
}

fn mkimage(
    sys: &dyn System,
    format: &str,
    from: &Path,
    prefix: &str,
    modules: &[&str],
    out: &Path,
) -> Result<()> {
    let present = modules
        .iter()
        .copied()
        .filter(|m| from.join(format!("{m}.mod")).is_file());
    sys.run(
        &Cmd::new("grub-mkimage")
            .args(["-O", format, "-d"])
            .path(from)
            .arg("-p")
            .arg(prefix)
            .arg("-o")
            .path(out)
            .args(present),
    )?;
    Ok(())
}

/// Sector of the core image on the disk: the first of the BIOS boot partition.
pub(crate) const CORE_LBA: u64 = 34;

fn bios(sys: &dyn System, from: &Path, work: &Path) -> Result<Bios> {
    let out: PathBuf = work.join("core.img");
    // `(,gpt2)`: second partition of the disk that the firmware booted, whichever that is.
    mkimage(sys, "i386-pc", from, "(,gpt2)/grub", BIOS_MODULES, &out)?;
    let mut core = fs::read(&out).map_err(Error::io("read", &out))?;
    core.resize(core.len().next_multiple_of(512), 0);
    let boot = from.join("boot.img");
    let image = fs::read(&boot).map_err(Error::io("read", &boot))?;
    embed(&mut core, &image)
        .ok_or_else(|| Error::format(boot, "not GRUB's boot.img; reinstall grub-pc-bin"))
        .map(|boot_code| Bios { boot_code, core })
}

/// Tells the boot code and the core image where they are, as grub-bios-setup does (offsets from GRUB's
/// include/grub/i386/pc/boot.h and kernel.h).
pub(crate) fn embed(core: &mut [u8], boot_image: &[u8]) -> Option<[u8; BOOT_CODE]> {
    let rest = u16::try_from((core.len() / 512).checked_sub(1)?).ok()?;
    // The block list at the end of the core's first sector: where the rest is, and how long.
    core.get_mut(0x1f4..0x1fc)?
        .copy_from_slice(&(CORE_LBA + 1).to_le_bytes());
    core.get_mut(0x1fc..0x1fe)?
        .copy_from_slice(&rest.to_le_bytes());
    let mut code: [u8; BOOT_CODE] = boot_image.get(..BOOT_CODE)?.try_into().ok()?;
    // GRUB_BOOT_MACHINE_KERNEL_SECTOR, BOOT_DRIVE (0xff: the one that the firmware names), DRIVE_CHECK (not a floppy).
    code[0x5c..0x64].copy_from_slice(&CORE_LBA.to_le_bytes());
    code[0x64] = 0xff;
    code[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
    Some(code)
}

/// `grub/grub.cfg`: the same for BIOS and UEFI. `medium` is the GUID of the data partition, `timeout` in seconds.
pub(crate) fn config(medium: &str, timeout: u32) -> String {
    format!(
        r#"# Lifeboat boot menu, format {CONFIG_FORMAT}. `lifeboat prepare` writes it.
set medium=$root
set timeout={timeout}
set timeout_style=menu
set pager=0

# UEFI consoles reach the serial line by themselves. A board without a serial port keeps its screen.
if [ "$grub_platform" = "pc" ]; then
    if serial --unit=0 --speed=115200; then
        terminal_input console serial
        terminal_output console serial
    fi
fi

set slot=a
set a_ready=0
set b_ready=0
if [ -s ($medium)/grub/slot.cfg ]; then source ($medium)/grub/slot.cfg; fi
if [ -s ($medium)/rescue/a/state.cfg ]; then source ($medium)/rescue/a/state.cfg; fi
if [ -s ($medium)/rescue/b/state.cfg ]; then source ($medium)/rescue/b/state.cfg; fi
if [ "$slot" = "b" ]; then
    set other=a
    set slot_ready=$b_ready
    set other_ready=$a_ready
else
    set slot=a
    set other=b
    set slot_ready=$a_ready
    set other_ready=$b_ready
fi
if [ "$slot_ready" != "1" ]; then
    # Cannot happen while the medium is sound; if it does, the other one is the better guess.
    if [ "$other_ready" = "1" ]; then
        set bad=$slot
        set slot=$other
        set other=$bad
        set other_ready=0
    fi
fi
set arguments="lifeboat.medium={medium} quiet console=tty0 console=ttyS0,115200"
set default=rescue
if [ -s ($medium)/lifeboat/armed.cfg ]; then source ($medium)/lifeboat/armed.cfg; fi

function boot_slot {{
    echo "Lifeboat: loading the rescue system of slot $1"
    linux ($medium)/rescue/$1/vmlinuz lifeboat.slot=$1 $arguments $2
    initrd ($medium)/rescue/$1/initrd.img
}}

if [ -n "$lifeboat_token" ]; then
    menuentry "Lifeboat: RESTORE THIS MACHINE WITHOUT ASKING (armed)" --id unattended {{
        boot_slot $slot lifeboat.unattended=$lifeboat_token
    }}
fi
menuentry "Lifeboat: rescue system" --id rescue {{
    boot_slot $slot
}}
if [ "$other_ready" = "1" ]; then
    menuentry "Lifeboat: the rescue system before the last update" --id older {{
        boot_slot $other
    }}
fi
menuentry "Lifeboat: rescue system, all kernel messages" --id verbose {{
    boot_slot $slot "ignore_loglevel"
}}
menuentry "Start from the first internal disk" --id internal {{
    regexp --set=1:disk '^([a-z]+[0-9]+)' "$medium"
    for d in hd0 hd1 hd2 hd3; do
        if [ "$d" != "$disk" ]; then
            if [ "$grub_platform" = "efi" ]; then
                for f in /EFI/proxmox/shimx64.efi /EFI/proxmox/grubx64.efi /EFI/debian/shimx64.efi /EFI/debian/grubx64.efi /EFI/systemd/systemd-bootx64.efi /EFI/BOOT/BOOTX64.EFI; do
                    for p in gpt1 gpt2 gpt3 msdos1; do
                        if [ -f ($d,$p)$f ]; then
                            set root=$d,$p
                            chainloader ($d,$p)$f
                            boot
                        fi
                    done
                done
            else
                set root=$d
                drivemap -s hd0 $d
                chainloader ($d)+1
                boot
            fi
        fi
    done
    echo "No internal disk that boots was found."
    sleep 5
}}
if [ "$grub_platform" = "efi" ]; then
    menuentry "Firmware settings" --id firmware {{
        fwsetup
    }}
fi
menuentry "Reboot" --id reboot {{
    reboot
}}
menuentry "Power off" --id off {{
    halt
}}
"#
    )
}

/// `lifeboat/armed.cfg`: makes the unattended entry appear and be the default after `seconds`.
pub(crate) fn armed_config(token: &str, seconds: u32) -> String {
    format!("set lifeboat_token={token}\nset default=unattended\nset timeout={seconds}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Host;

    #[test]
    fn the_core_image_knows_where_it_lies() {
        let mut core = vec![0; 5 * 512];
        let code = embed(&mut core, &[0xaa; 512]).unwrap();
        assert_eq!(core[0x1f4..0x1fe], [35, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
        assert_eq!(code[0x5c..0x64], [34, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            (code[0x64], &code[0x66..0x68], code[0]),
            (0xff, &[0x90, 0x90][..], 0xaa)
        );
        assert!(embed(&mut [0; 512], &[0; 100]).is_none());
    }

    #[test]
    fn the_menu_is_valid_and_names_the_medium() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grub.cfg");
        let text = config("0000-medium", 3);
        assert!(text.contains("lifeboat.medium=0000-medium") && text.contains("set timeout=3"));
        fs::write(&path, text + &armed_config("abc", 10)).unwrap();
        layout::system::System::run(&Host, &Cmd::new("grub-script-check").path(&path)).unwrap();
    }
}
