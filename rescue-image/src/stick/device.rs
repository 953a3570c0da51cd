//! Block devices: their geometry, their partitions' nodes, loop devices over image files.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use gpt::disk::LogicalBlockSize;

use crate::error::{Error, Result};

mod ioctl {
    // linux/fs.h
    nix::ioctl_none!(reread_table, 0x12, 95);
    nix::ioctl_read_bad!(read_only, nix::request_code_none!(0x12, 94), libc::c_int);
    nix::ioctl_read_bad!(sector_size, nix::request_code_none!(0x12, 104), libc::c_int);
    nix::ioctl_none!(flush, 0x12, 97);
    // linux/loop.h: numbers from before the encoding of sizes.
    nix::ioctl_none_bad!(loop_free, 0x4c82);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, super::LoopConfig);
}

/// `struct loop_config` with the `struct loop_info64` in it (linux/loop.h).
#[repr(C)]
pub struct LoopConfig {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

const LOOP_READ_ONLY: u32 = 1;
/// The device goes away with its last user: nothing to clean up after a crash.
const LOOP_AUTOCLEAR: u32 = 4;

/// Whether the path is a block device.
pub(crate) fn is_block(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device())
}

/// Size in bytes of a file or block device.
pub(crate) fn size(file: &File, path: &Path) -> Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0))
        .map_err(Error::io("find the size of", path))
}

/// Logical sector of a block device; 512 for files.
pub(crate) fn sector_size(file: &File, path: &Path) -> Result<LogicalBlockSize> {
    if !is_block(path) {
        return Ok(LogicalBlockSize::Lb512);
    }
    let mut bytes: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes an int.
    unsafe { ioctl::sector_size(file.as_raw_fd(), &mut bytes) }
        .map_err(|e| Error::io("ask for the sector size of", path)(e.into()))?;
    LogicalBlockSize::try_from(bytes as u64)
        .map_err(|_| Error::format(path, format!("sectors of {bytes} bytes are not supported")))
}

/// Whether the kernel refuses writes.
pub(crate) fn is_read_only(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return true;
    };
    if !is_block(path) {
        return false;
    }
    let mut flag: libc::c_int = 0;
    // SAFETY: BLKROGET writes an int.
    unsafe { ioctl::read_only(file.as_raw_fd(), &mut flag) }.is_ok() && flag != 0
}

/// Makes the kernel read the partition table again. Someone (udev) may look at the disk just now: it is tried for a while.
pub(crate) fn reread_table(file: &File, path: &Path) -> Result<()> {
    let mut last = io::Error::from(io::ErrorKind::Other);
    for _ in 0..50 {
        // SAFETY: BLKRRPART takes no argument.
        match unsafe { ioctl::reread_table(file.as_raw_fd()) } {
            Ok(_) => return Ok(()),
            Err(e) => last = e.into(),
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Err(Error::io(
        "make the kernel read the new partition table of",
        path,
    )(last))
}

/// Forgets what is cached of a file or device, after a sync.
pub(crate) fn drop_cache(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map_err(Error::io("sync", path))?;
    if is_block(path) {
        // SAFETY: BLKFLSBUF takes no argument.
        unsafe { ioctl::flush(file.as_raw_fd()) }
            .map_err(|e| Error::io("drop the cache of", path)(e.into()))?;
    }
    // SAFETY: plain system call on a descriptor that we own.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    Ok(())
}

/// The node of partition `number` of a disk, if the kernel knows one that starts at `offset` bytes.
pub(crate) fn partition_node(disk: &Path, number: u32, offset: u64) -> Option<PathBuf> {
    let disk = fs::canonicalize(disk).ok()?;
    let name = disk.file_name()?;
    let folder = Path::new("/sys/class/block").join(name);
    for entry in fs::read_dir(&folder).ok()?.flatten() {
        let text = |file: &str| {
            fs::read_to_string(entry.path().join(file))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        // `start` counts 512-byte units, whatever the sector is.
        if text("partition") == number.to_string() && text("start").parse() == Ok(offset / 512) {
            let node = Path::new("/dev").join(entry.file_name());
            return node.exists().then_some(node);
        }
    }
    None
}

/// A loop device over a part of a file. Closing it lets it go, unless it is mounted by then.
#[derive(Debug)]
pub(crate) struct Loop {
    pub node: PathBuf,
    _file: File,
}

impl Loop {
    /// Attaches `len` bytes from `offset` of the image file.
    pub(crate) fn attach(image: &Path, offset: u64, len: u64, read_only: bool) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(!read_only)
            .open(image)
            .map_err(Error::io("open", image))?;
        let control_path = Path::new("/dev/loop-control");
        let control = File::options()
            .read(true)
            .write(true)
            .open(control_path)
            .map_err(Error::io(
                "open (is the loop module loaded? modprobe loop)",
                control_path,
            ))?;
        let mut last = io::Error::from(io::ErrorKind::Other);
        for _ in 0..64 {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { ioctl::loop_free(control.as_raw_fd()) }
                .map_err(|e| Error::io("get a loop device from", control_path)(e.into()))?;
            let node = PathBuf::from(format!("/dev/loop{number}"));
            let device = match File::options().read(true).write(!read_only).open(&node) {
                Ok(device) => device,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            match configure(device.as_raw_fd(), file.as_raw_fd(), offset, len, read_only) {
                Ok(()) => {
                    return Ok(Self {
                        node,
                        _file: device,
                    });
                }
                // Another process was quicker.
                Err(nix::errno::Errno::EBUSY) => last = nix::errno::Errno::EBUSY.into(),
                Err(e) => return Err(Error::io("attach to a loop device", image)(e.into())),
            }
        }
        Err(Error::io("attach to a loop device", image)(last))
    }
}

fn configure(
    device: RawFd,
    file: RawFd,
    offset: u64,
    size_limit: u64,
    read_only: bool,
) -> nix::Result<()> {
    let config = LoopConfig {
        fd: file as u32,
        block_size: 0,
        device: 0,
        inode: 0,
        rdevice: 0,
        offset,
        size_limit,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LOOP_AUTOCLEAR | if read_only { LOOP_READ_ONLY } else { 0 },
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads a struct loop_config, which `config` is; the kernel keeps no pointer to it.
    unsafe { ioctl::loop_configure(device, &config) }.map(|_| ())
}
