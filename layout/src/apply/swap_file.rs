//! Making swap files.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Executor, Outcome, StepError, io_error};
use crate::capture::swap_file::{Header, header_of};
use crate::system::Cmd;
use crate::units::Bytes;

impl Executor<'_> {
    /// Makes a swap file as `wanted`, without holes: the kernel takes no others.
    pub(super) fn make_swap_file(
        &mut self,
        path: &Path,
        wanted: &Header,
        no_cow: bool,
    ) -> Result<Outcome, StepError> {
        let at = self.inside(path);
        if header_of(self.sys, &at).as_ref() == Some(wanted) {
            return Ok(Outcome::AlreadySo);
        }
        let parent = at.parent().unwrap_or(self.root);
        std::fs::create_dir_all(parent).map_err(io_error("cannot make the directory", parent))?;
        // A link among the restored files must not lead out of the restored system.
        if !self
            .sys
            .canonicalize(parent)?
            .starts_with(self.sys.canonicalize(self.root)?)
        {
            return Err(StepError::Refused(format!(
                "{} leads out of the restored system",
                path.display()
            )));
        }
        match std::fs::remove_file(&at) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("cannot remove the old", &at)(e));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&at)
            .map_err(io_error("cannot make", &at))?;
        if no_cow {
            // btrfs swaps to files only that are written in place.
            self.sys.run(&Cmd::new("chattr").arg("+C").path(&at))?;
        }
        let length = i64::try_from(wanted.size.0).map_err(|_| {
            StepError::Refused(format!("{} cannot have {}", path.display(), wanted.size))
        })?;
        nix::fcntl::posix_fallocate(&file, 0, length)
            .map_err(|e| io_error("cannot reserve the space of", &at)(e.into()))?;
        let mut command =
            Cmd::new("mkswap").args(["-p".to_owned(), wanted.page_size.0.to_string()]);
        if let Some(uuid) = &wanted.uuid {
            command = command.args(["-U", uuid]);
        }
        if let Some(label) = &wanted.label {
            command = command.args(["-L", label]);
        }
        self.sys.run(&command.path(&at))?;
        file.sync_all().map_err(io_error("cannot write", &at))?;
        match header_of(self.sys, &at) {
            // Without a saved UUID any will do.
            Some(found) if found == *wanted || wanted.uuid.is_none() => Ok(Outcome::Done),
            found => Err(StepError::Verify(format!(
                "swap file {} reads as {found:?} instead of {wanted:?}",
                path.display()
            ))),
        }
    }
}

/// The header that a step wants.
pub(super) fn header(
    uuid: Option<&String>,
    label: Option<&String>,
    page_size: Bytes,
    size: Bytes,
) -> Header {
    Header {
        uuid: uuid.cloned(),
        label: label.cloned(),
        page_size,
        size,
    }
}
