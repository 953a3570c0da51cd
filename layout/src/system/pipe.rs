//! Pipes to and from a command, looked at so often that nobody waits for ever: for a command that hangs when it is to stop, or
//! for one that ended and left somebody who holds its pipes.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Cmd;

/// How often it is looked, in milliseconds.
const TICK: u8 = 250;
/// How long what a command printed may take to come through when it has ended.
const REST: Duration = Duration::from_secs(2);
/// How much of what a program printed is kept.
const KEPT: usize = 64 << 10;
/// A line that is longer is passed on in parts.
const LONGEST: usize = 4 << 10;

/// Whether there is something to do within a tick; errors are met by whoever does it.
fn ready(fd: BorrowedFd<'_>, what: PollFlags) -> bool {
    let ready = poll(&mut [PollFd::new(fd, what)], PollTimeout::from(TICK));
    // A signal is why it is looked again, not why to read.
    !matches!(ready, Ok(0) | Err(Errno::EINTR))
}

fn asked_to_stop() -> Error {
    Error::other("asked to stop, and the command does nothing any more")
}

/// What a command prints. Where nothing comes, it is an error when the command is to [stop](Cmd::stop).
pub(super) struct Out<'c, R> {
    pub pipe: R,
    pub command: &'c Cmd,
}

impl<R: Read + AsFd> Read for Out<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while !ready(self.pipe.as_fd(), PollFlags::POLLIN) {
            if self.command.to_stop() {
                return Err(asked_to_stop());
            }
        }
        self.pipe.read(buffer)
    }
}

/// What a command reads. Where it takes nothing, it is an error when the command is to [stop](Cmd::stop).
pub(super) struct In<'c, W> {
    pipe: W,
    command: &'c Cmd,
}

impl<'c, W: Write + AsFd> In<'c, W> {
    pub fn new(pipe: W, command: &'c Cmd) -> Result<In<'c, W>> {
        // Of this end of the pipe alone.
        fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(In { pipe, command })
    }
}

impl<W: Write + AsFd> Write for In<'_, W> {
    fn write(&mut self, data: &[u8]) -> Result<usize> {
        loop {
            match self.pipe.write(data) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let full = !ready(self.pipe.as_fd(), PollFlags::POLLOUT);
                    if full && self.command.to_stop() {
                        return Err(asked_to_stop());
                    }
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.pipe.flush()
    }
}

/// Passes on the lines of a pipe, and keeps the last of them. When the command is `over`, there is not much to come: what it
/// has left running may hold the pipe open for ever.
pub(super) fn lines(
    pipe: Option<impl Read + AsFd>,
    line: &(dyn Fn(&str) + Sync),
    over: &AtomicBool,
) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut open = Vec::new();
    let mut buffer = [0; 4096];
    let say = |open: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(open);
        let text = text.trim_end();
        if !text.is_empty() {
            line(text);
        }
        open.clear();
    };
    let mut ended: Option<Instant> = None;
    if let Some(mut pipe) = pipe {
        loop {
            // Asked for before it is looked: what was printed before the end is there then.
            let was_over = over.load(Ordering::Acquire);
            let something = ready(pipe.as_fd(), PollFlags::POLLIN);
            if was_over {
                let since = ended.get_or_insert_with(Instant::now);
                if !something || since.elapsed() > REST {
                    break;
                }
            }
            if !something {
                continue;
            }
            let read = match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // A broken pipe only means that there is no more to read.
                Err(_) => break,
            };
            kept.extend_from_slice(read);
            if kept.len() > 2 * KEPT {
                kept.drain(..kept.len() - KEPT);
            }
            for byte in read {
                // Progress is drawn over with carriage returns.
                if matches!(byte, b'\n' | b'\r') || open.len() >= LONGEST {
                    say(&mut open);
                }
                if !matches!(byte, b'\n' | b'\r') {
                    open.push(*byte);
                }
            }
        }
    }
    say(&mut open);
    kept
}
