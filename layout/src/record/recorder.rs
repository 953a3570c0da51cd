//! A door that keeps what goes through it.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::system::{
    BlockDevice, Cmd, DiskFacts, Image, Output, ReadSeek, Recorded, System, SystemError, Usage,
};

/// Passes everything on, and keeps the answers. Nothing is written through it.
pub(super) struct Recorder<'a> {
    inner: &'a dyn System,
    seen: Arc<Mutex<Recorded>>,
}

fn lock(seen: &Mutex<Recorded>) -> MutexGuard<'_, Recorded> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Recorder<'a> {
    pub fn new(inner: &'a dyn System) -> Recorder<'a> {
        Recorder {
            inner,
            seen: Arc::default(),
        }
    }

    /// All that was answered.
    pub fn into_answers(self) -> Recorded {
        std::mem::take(&mut *lock(&self.seen))
    }
}

impl System for Recorder<'_> {
    fn run(&self, command: &Cmd) -> Result<Output, SystemError> {
        let result = self.inner.run(command);
        let kept = match &result {
            Ok(output) => Some(output.clone()),
            Err(SystemError::Failed { status, stderr, .. }) => Some(Output {
                status: *status,
                stderr: stderr.clone().into_bytes(),
                ..Output::default()
            }),
            // A program that is not there is not there in the recording either.
            Err(_) => None,
        };
        if let Some(kept) = kept {
            lock(&self.seen).commands.insert(command.display(), kept);
        }
        result
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, SystemError> {
        let content = self.inner.read(path)?;
        lock(&self.seen)
            .files
            .insert(path.to_owned(), content.clone());
        Ok(content)
    }

    fn write(&self, path: &Path, _: &[u8]) -> Result<(), SystemError> {
        Err(SystemError::Io {
            path: path.to_owned(),
            source: io::ErrorKind::ReadOnlyFilesystem.into(),
        })
    }

    fn exists(&self, path: &Path) -> bool {
        let there = self.inner.exists(path);
        if there {
            lock(&self.seen).present.insert(path.to_owned());
        }
        there
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>, SystemError> {
        let names = self.inner.list_dir(path)?;
        lock(&self.seen).dirs.insert(path.to_owned(), names.clone());
        Ok(names)
    }

    fn canonicalize(&self, path: &Path) -> Result<PathBuf, SystemError> {
        let real = self.inner.canonicalize(path)?;
        lock(&self.seen).links.insert(path.to_owned(), real.clone());
        Ok(real)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>, SystemError> {
        let mut inner = self.inner.open(path)?;
        let io_error = |source| SystemError::Io {
            path: path.to_owned(),
            source,
        };
        let size = inner.seek(SeekFrom::End(0)).map_err(io_error)?;
        lock(&self.seen)
            .images
            .entry(path.to_owned())
            .or_insert_with(|| Image {
                size,
                ..Image::default()
            });
        let mut tap = Tap {
            inner,
            path: path.to_owned(),
            seen: self.seen.clone(),
            at: size,
        };
        // Not every reader looks at all of a partition table; without all of it no checksum can be made anew.
        for sector in [512, 4096] {
            for at in [sector, (size / sector).saturating_sub(1) * sector] {
                tap.table(at, sector).map_err(io_error)?;
            }
        }
        tap.rewind().map_err(io_error)?;
        Ok(Box::new(tap))
    }

    fn usage(&self, path: &Path) -> Result<Usage, SystemError> {
        let usage = self.inner.usage(path)?;
        lock(&self.seen).usage.insert(path.to_owned(), usage);
        Ok(usage)
    }

    fn block_devices(&self) -> Result<Vec<BlockDevice>, SystemError> {
        let devices = self.inner.block_devices()?;
        lock(&self.seen).devices.clone_from(&devices);
        Ok(devices)
    }

    fn mounted_uuid(&self, path: &Path) -> Option<String> {
        let uuid = self.inner.mounted_uuid(path)?;
        lock(&self.seen).uuids.insert(path.to_owned(), uuid.clone());
        Some(uuid)
    }

    fn disk_facts(&self, device: &Path) -> DiskFacts {
        let facts = self.inner.disk_facts(device);
        lock(&self.seen)
            .facts
            .insert(device.to_owned(), facts.clone());
        facts
    }
}

/// Keeps what is read of a device.
struct Tap {
    inner: Box<dyn ReadSeek>,
    path: PathBuf,
    seen: Arc<Mutex<Recorded>>,
    at: u64,
}

impl Tap {
    /// Reads the table whose header is at this offset, if there is one.
    fn table(&mut self, at: u64, sector: u64) -> io::Result<()> {
        let mut header = [0; 92];
        self.seek(SeekFrom::Start(at))?;
        if self.read_exact(&mut header).is_err() {
            return Ok(());
        }
        if let Some(table) = super::disk::Header::parse(&header) {
            let mut entries = vec![0; table.length()];
            self.seek(SeekFrom::Start(table.entries.saturating_mul(sector)))?;
            // A table that leads behind the end is kept as far as it goes.
            let _ = self.read_exact(&mut entries);
        }
        Ok(())
    }
}

impl Read for Tap {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if let Some(image) = lock(&self.seen).images.get_mut(&self.path) {
            image.set(self.at, &buf[..n]);
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Tap {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.inner.seek(to)?;
        Ok(self.at)
    }
}
