//! An archive as blocks of 512 bytes, from front to back.

use std::io::{ErrorKind, Read};

use crate::backup::chunks::Source;
use crate::{Error, Result};

pub(super) const BLOCK: usize = 512;

/// What is read of the archive, and how much was.
pub(super) struct Blocks<'s> {
    stream: &'s mut dyn Read,
    pub at: u64,
}

/// Something is wrong with the archive; the place is added by who knows it.
pub(super) fn bad(reason: impl ToString) -> Error {
    Error::Archive {
        place: String::new(),
        reason: reason.to_string(),
    }
}

/// The archive ends too early.
fn truncated() -> Error {
    bad("the archive ends before its end is marked: it was cut off")
}

impl<'s> Blocks<'s> {
    pub(super) fn new(stream: &'s mut dyn Read) -> Blocks<'s> {
        Blocks { stream, at: 0 }
    }

    /// Reads as much as there is, at most what the buffer holds.
    fn up_to(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.stream.read(&mut buffer[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", "the archive")(e)),
            }
        }
        self.at += done as u64;
        Ok(done)
    }

    /// Fills the buffer.
    pub(super) fn exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self.up_to(buffer)? == buffer.len() {
            true => Ok(()),
            false => Err(truncated()),
        }
    }

    pub(super) fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.exact(&mut block).map(|()| block)
    }

    /// Passes over what fills up the last block of a member of this size.
    pub(super) fn padding(&mut self, size: u64) -> Result<()> {
        let mut rest = [0; BLOCK];
        let over = (size % BLOCK as u64) as usize;
        match over {
            0 => Ok(()),
            _ => self.exact(&mut rest[over..]),
        }
    }

    /// Reads content that is kept in memory: it grows as it comes, not as a header promises.
    pub(super) fn small(&mut self, size: u64, limit: u64, what: &str) -> Result<Vec<u8>> {
        if size > limit {
            return Err(bad(format!(
                "{what} of {size} bytes; at most {limit} are taken"
            )));
        }
        let mut content = Vec::new();
        let mut left = size as usize;
        while left > 0 {
            let step = left.min(1 << 20);
            let start = content.len();
            content.resize(start + step, 0);
            self.exact(&mut content[start..])?;
            left -= step;
        }
        Ok(content)
    }

    /// After the first empty block: another one, and nothing after it but padding.
    pub(super) fn end(&mut self) -> Result<()> {
        if self.block()? != [0; BLOCK] {
            return Err(bad("an empty block is in its midst"));
        }
        let mut rest = vec![0; 64 << 10];
        loop {
            let n = self.up_to(&mut rest)?;
            if rest[..n].iter().any(|b| *b != 0) {
                return Err(bad("something follows its end"));
            }
            if n < rest.len() {
                return Ok(());
            }
        }
    }
}

impl Source for Blocks<'_> {
    fn fill(&mut self, _offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.exact(buffer)
    }
}
