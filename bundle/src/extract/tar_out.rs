//! A tar archive as it is written: headers, content, and what an archive that is not whole ends with.

use std::io::Write;
use std::path::Path;

use super::gnu;
use crate::events::Events;
use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra};
use crate::{Error, Result};

/// Zeroes for holes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
/// What a guest's archive that is not whole ends with.
const BROKEN: &str = ".lifeboat-incomplete";

/// What the archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Like segments, for every reader: with complete contents, attributes as the kernel has them.
    Plain,
    /// For `pct restore`.
    Guest {
        /// Files that are lost are left out; otherwise the first one ends the archive.
        accept_losses: bool,
    },
}

impl Form {
    pub(super) fn strict(self) -> bool {
        matches!(
            self,
            Form::Guest {
                accept_losses: false
            }
        )
    }
}

pub(super) struct Stream<'o> {
    pub out: &'o mut dyn Write,
    pub events: &'o dyn Events,
    pub form: Form,
    header: Vec<u8>,
    /// Bytes that the last header has promised and that have not come.
    promised: u64,
}

impl<'o> Stream<'o> {
    pub(super) fn new(out: &'o mut dyn Write, events: &'o dyn Events, form: Form) -> Stream<'o> {
        Stream {
            out,
            events,
            form,
            header: Vec::new(),
            promised: 0,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.events.cancelled() {
            return Err(Error::Cancelled);
        }
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .map_err(Error::io("write the archive to", "its output"))?;
        self.promised = self.promised.saturating_sub(bytes.len() as u64);
        Ok(())
    }

    /// Writes the header of a member that is followed by `size` bytes, or by those of a sparse file; gives what has no
    /// place in it.
    pub(super) fn header(
        &mut self,
        entry: &Entry,
        extra: &Extra,
        size: u64,
        sparse: Option<u64>,
    ) -> Result<Vec<String>> {
        let mut header = std::mem::take(&mut self.header);
        header.clear();
        let lost = match self.form {
            Form::Plain => {
                member::push_header(&mut header, entry, extra, size);
                Vec::new()
            }
            Form::Guest { .. } => gnu::push_header(&mut header, entry, extra, size, sparse),
        };
        self.write(&header)?;
        self.header = header;
        self.promised = size.next_multiple_of(512);
        Ok(lost)
    }

    pub(super) fn pad(&mut self, size: u64) -> Result<()> {
        self.write(&ZEROES[..((512 - size % 512) % 512) as usize])
    }

    pub(super) fn zeroes(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let step = count.min(ZEROES.len() as u64);
            self.write(&ZEROES[..step as usize])?;
            count -= step;
        }
        Ok(())
    }

    /// Ends an archive that is not whole so that nobody takes it for one: GNU tar is content with an archive that ends
    /// after any member, but not within one.
    pub(super) fn break_off(&mut self) {
        if self.promised == 0 {
            let entry = regular(Path::new(BROKEN), 0o600, (0, 0), 512);
            let mut header = Vec::new();
            gnu::push_header(&mut header, &entry, &Extra::default(), 512, None);
            // Where nothing can be written any more, nothing follows either.
            let _ = self.put(&header);
        }
        let _ = self.out.flush();
    }
}

/// The entry of a file that is no entry of a tree; root's.
pub(super) fn regular(path: &Path, mode: u32, mtime: (i64, u32), size: u64) -> Entry {
    Entry {
        path: path.to_path_buf(),
        kind: EntryKind::File,
        size,
        mode,
        uid: 0,
        gid: 0,
        mtime,
        ctime: (0, 0),
        ino: 0,
        rdev: None,
        target: None,
        content: None,
        state: None,
    }
}
