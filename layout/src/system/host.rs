//! The real machine: the only place that starts processes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{BlockDevice, Cmd, DiskFacts, Output, ReadSeek, System, SystemError, Usage};
use crate::units::Bytes;

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

/// How much of a program's standard error goes into an error.
const STDERR_TAIL: usize = 2000;

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> SystemError + '_ {
    move |source| SystemError::Io {
        path: path.to_owned(),
        source,
    }
}

pub(super) fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    let mut start = text.len().saturating_sub(STDERR_TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

/// Collects a pipe in a thread, so that neither pipe fills up while the other is read.
fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            // A broken pipe only means that there is no more to read.
            let _ = pipe.read_to_end(&mut all);
        }
        all
    })
}

pub(super) fn wait(
    child: &mut Child,
    timeout: Duration,
) -> std::io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The exit status as a shell has it; `None`: it was killed here.
pub(super) fn code(status: Option<std::process::ExitStatus>) -> i32 {
    let Some(status) = status else {
        return 128 + libc::SIGKILL;
    };
    let signal = || 128 + status.signal().unwrap_or_default();
    status.code().unwrap_or_else(signal)
}

/// What became of a command: an error, where its status is none that is accepted.
pub(super) fn judge(command: &Cmd, output: Output) -> Result<Output, SystemError> {
    tracing::debug!(
        command = command.display(),
        status = output.status,
        ms = output.duration.as_millis() as u64,
        "ran"
    );
    if output.status != 0 && !command.accepted.contains(&output.status) {
        return Err(SystemError::Failed {
            command: command.display(),
            status: output.status,
            stderr: tail(&output.stderr),
        });
    }
    Ok(output)
}

/// The process of a command, with pipes for what it prints, and for what it reads if it is given something.
pub(super) fn prepare(command: &Cmd, program: &str, args: &[String]) -> std::process::Command {
    // The door itself: everything else comes through here.
    #[allow(clippy::disallowed_methods)]
    let mut process = std::process::Command::new(program);
    process
        .args(args)
        .env("LC_ALL", "C")
        // LVM complains about every inherited descriptor otherwise.
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .envs(&command.env)
        .stdin(if command.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if command.group {
        process.process_group(0);
    }
    if let Some(root) = &command.chroot {
        let root = root.clone();
        process.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        // SAFETY: chroot(2) and chdir(2) are async-signal-safe; `root` was allocated before the fork, and nix turns
        // short paths into C strings on the stack.
        unsafe {
            process.pre_exec(move || {
                nix::unistd::chroot(&root)?;
                nix::unistd::chdir("/")?;
                Ok(())
            });
        }
    }
    process
}

impl System for Host {
    fn run(&self, command: &Cmd) -> Result<Output, SystemError> {
        let Some((program, args)) = command.argv.split_first() else {
            return Err(SystemError::Start {
                command: String::new(),
                source: std::io::Error::from(std::io::ErrorKind::InvalidInput),
            });
        };
        let start_error = |source| SystemError::Start {
            command: command.display(),
            source,
        };
        let mut process = prepare(command, program, args);
        let start = Instant::now();
        let mut child = process.spawn().map_err(start_error)?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        if let (Some(input), Some(mut stdin)) = (&command.input, child.stdin.take()) {
            // A program that does not read all of its input is judged by its exit status.
            let _ = stdin.write_all(input);
        }
        let status = wait(&mut child, command.timeout).map_err(start_error)?;
        let Some(status) = status else {
            // Grandchildren may hold the pipes open for ever: the readers are left to themselves.
            return Err(SystemError::TimedOut {
                command: command.display(),
                seconds: command.timeout.as_secs(),
                stderr: if stderr.is_finished() {
                    tail(&stderr.join().unwrap_or_default())
                } else {
                    String::new()
                },
            });
        };
        let output = Output {
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
            status: code(Some(status)),
            duration: start.elapsed(),
        };
        judge(command, output)
    }

    fn stream(
        &self,
        command: &Cmd,
        take: &mut dyn FnMut(&mut dyn Read) -> bool,
        line: &(dyn Fn(&str) + Sync),
    ) -> Result<Output, SystemError> {
        super::stream::run(command, take, line)
    }

    fn run_fed(
        &self,
        command: &Cmd,
        feed: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
        line: &(dyn Fn(&str) + Sync),
    ) -> Result<Output, SystemError> {
        super::feed::run(command, feed, line)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, SystemError> {
        fs::read(path).map_err(io_error(path))
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<(), SystemError> {
        let write = || -> std::io::Result<()> {
            let old = fs::metadata(path).ok();
            let mut name = path.as_os_str().to_owned();
            name.push(".lifeboat-new");
            let temporary = PathBuf::from(name);
            let mut file = fs::File::create(&temporary)?;
            file.write_all(content)?;
            if let Some(old) = old {
                file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
                std::os::unix::fs::chown(&temporary, Some(old.uid()), Some(old.gid()))?;
            }
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(io_error(path))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>, SystemError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(io_error(path))? {
            names.push(
                entry
                    .map_err(io_error(path))?
                    .file_name()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        names.sort();
        Ok(names)
    }

    fn canonicalize(&self, path: &Path) -> Result<PathBuf, SystemError> {
        fs::canonicalize(path).map_err(io_error(path))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>, SystemError> {
        Ok(Box::new(fs::File::open(path).map_err(io_error(path))?))
    }

    fn usage(&self, path: &Path) -> Result<Usage, SystemError> {
        let stat = nix::sys::statvfs::statvfs(path).map_err(|e| io_error(path)(e.into()))?;
        let unit = stat.fragment_size();
        Ok(Usage {
            size: Bytes(stat.blocks() * unit),
            used: Bytes(stat.blocks().saturating_sub(stat.blocks_free()) * unit),
            inodes_used: stat.files().saturating_sub(stat.files_free()),
        })
    }

    fn block_devices(&self) -> Result<Vec<BlockDevice>, SystemError> {
        let list = || -> std::io::Result<Vec<BlockDevice>> {
            let mut enumerator = udev::Enumerator::new()?;
            enumerator.match_subsystem("block")?;
            let mut found = Vec::new();
            for device in enumerator.scan_devices()? {
                let name = device.sysname().to_string_lossy().into_owned();
                let is_partition = device.devtype().is_some_and(|t| t == "partition");
                found.push(BlockDevice {
                    node: device
                        .devnode()
                        .map_or_else(|| Path::new("/dev").join(&name), Path::to_owned),
                    parent: if is_partition {
                        device
                            .parent()
                            .map(|p| p.sysname().to_string_lossy().into_owned())
                    } else {
                        None
                    },
                    properties: device
                        .properties()
                        .map(|p| {
                            (
                                p.name().to_string_lossy().into_owned(),
                                p.value().to_string_lossy().into_owned(),
                            )
                        })
                        .collect(),
                    name,
                });
            }
            found.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(found)
        };
        list().map_err(|e| SystemError::Udev(e.to_string()))
    }

    fn mounted_uuid(&self, path: &Path) -> Option<String> {
        /// `struct fsuuid` of fs/ext4/ext4.h with room for one UUID.
        #[repr(C)]
        struct FsUuid {
            len: u32,
            flags: u32,
            uuid: [u8; 16],
        }
        // EXT4_IOC_GETFSUUID (fs/ext4/ext4.h): _IOR('f', 44, struct fsuuid), whose size is that of the two words.
        nix::ioctl_read_bad!(ext4_get_uuid, 0x8008_662c, FsUuid);
        let file = fs::File::open(path).ok()?;
        let mut answer = FsUuid {
            len: 16,
            flags: 0,
            uuid: [0; 16],
        };
        // SAFETY: the descriptor is open and the structure is as the kernel expects it; other filesystems answer ENOTTY.
        unsafe { ext4_get_uuid(std::os::fd::AsRawFd::as_raw_fd(&file), &mut answer) }.ok()?;
        Some(uuid::Uuid::from_bytes(answer.uuid).to_string())
    }

    fn disk_facts(&self, device: &Path) -> DiskFacts {
        use block_utils::MediaType;
        match block_utils::get_device_info(device) {
            Ok(info) => DiskFacts {
                media: match info.media_type {
                    MediaType::SolidState => Some("SSD"),
                    MediaType::Rotational => Some("hard disk"),
                    MediaType::NVME => Some("NVMe"),
                    MediaType::Virtual => Some("virtual disk"),
                    _ => None,
                }
                .map(str::to_owned),
                serial: info.serial_number.filter(|s| !s.is_empty()),
            },
            // Facts for show only: a disk that block-utils does not understand is listed without them.
            Err(_) => DiskFacts::default(),
        }
    }
}
