//! A machine's serial line: everything it prints is kept, tests wait for texts and type answers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::tail;

#[derive(Debug, Default)]
struct State {
    /// Everything so far, without terminal control sequences.
    text: String,
    /// How much of `text` earlier calls of `expect` have used up.
    seen: usize,
    /// The machine is gone.
    closed: bool,
    /// Removes control sequences; keeps an unfinished one for the next read.
    plain: Plain,
}

/// The serial line of a running machine.
#[derive(Debug)]
pub struct Serial {
    stream: UnixStream,
    state: Arc<(Mutex<State>, Condvar)>,
}

/// Texts after which nothing that a test waits for will come.
const FATAL: [&str; 3] = [
    "Kernel panic - not syncing",
    "grub rescue>",
    "No bootable device",
];

impl Serial {
    /// Takes over a connected socket; a thread reads it until the machine ends, and writes all of it to the file `log`.
    /// (QEMU's own `logfile=` repeats bytes whenever the socket is full for a moment.)
    pub fn new(stream: UnixStream, log: &Path) -> Result<Self> {
        let mut log = File::create(log)?;
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let mut reader = stream.try_clone()?;
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let n = reader.read(&mut buffer).unwrap_or(0);
                let (lock, changed) = &*shared;
                let mut state = lock.lock().unwrap_or_else(|e| e.into_inner());
                if n == 0 {
                    state.closed = true;
                    changed.notify_all();
                    return;
                }
                // A full disk must not end the test; the text is in memory, too.
                let _ = log.write_all(&buffer[..n]);
                let State { text, plain, .. } = &mut *state;
                plain.push(&buffer[..n], text);
                changed.notify_all();
            }
        });
        Ok(Self { stream, state })
    }

    /// Waits for one of the texts in what the machine prints from now on (after the last match). Returns which one, and
    /// what was printed up to it and with it.
    pub fn expect_any(&self, texts: &[&str], timeout: Duration) -> Result<(usize, String)> {
        let deadline = Instant::now() + timeout;
        let (lock, changed) = &*self.state;
        let mut state = lock.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            let new = &state.text[state.seen..];
            let found = texts
                .iter()
                .enumerate()
                .filter_map(|(i, t)| new.find(t).map(|at| (at + t.len(), i)))
                .min();
            if let Some((end, which)) = found {
                let upto = new[..end].to_owned();
                state.seen += end;
                return Ok((which, upto));
            }
            let wanted = || texts.join("\" or \"");
            if let Some(fatal) = FATAL.iter().find(|t| new.contains(**t)) {
                bail!(
                    "waited for \"{}\" on the serial line, saw \"{fatal}\":\n{}",
                    wanted(),
                    tail(new, 2500)
                );
            }
            if state.closed {
                bail!(
                    "the machine ended before \"{}\" came on the serial line:\n{}",
                    wanted(),
                    tail(new, 2500)
                );
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "\"{}\" did not come on the serial line within {} s; the last lines are:\n{}",
                    wanted(),
                    timeout.as_secs(),
                    tail(new, 2500)
                );
            }
            state = changed
                .wait_timeout(state, left)
                .unwrap_or_else(|e| e.into_inner())
                .0;
        }
    }

    /// Waits for a text; returns what was printed up to it and with it.
    pub fn expect(&self, text: &str, timeout: Duration) -> Result<String> {
        Ok(self.expect_any(&[text], timeout)?.1)
    }

    /// The rest of the line that the last match is in.
    pub fn rest_of_line(&self, timeout: Duration) -> Result<String> {
        Ok(self.expect("\n", timeout)?.trim_end().to_owned())
    }

    /// Types on the line.
    pub fn send(&self, text: &str) -> Result<()> {
        // A slow UART model and a program that reads in raw mode: bytes in one burst arrive all the same.
        (&self.stream).write_all(text.as_bytes())?;
        Ok(())
    }

    /// Everything printed so far.
    pub fn text(&self) -> String {
        self.state
            .0
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .text
            .clone()
    }
}

/// Takes terminal control sequences and carriage returns out of a stream of bytes.
#[derive(Debug, Default)]
struct Plain {
    pending: Vec<u8>,
}

impl Plain {
    fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut plain = Vec::new();
        let data = std::mem::take(&mut self.pending);
        let mut i = 0;
        while i < data.len() {
            match data[i] {
                0x1b => match sequence_length(&data[i..]) {
                    Some(n) => i += n,
                    None => {
                        self.pending = data[i..].to_vec();
                        break;
                    }
                },
                b'\r' | 0x07 | 0x08 | 0x00 => i += 1,
                byte => {
                    plain.push(byte);
                    i += 1;
                }
            }
        }
        // A UTF-8 character cut by the read waits for its other half.
        if self.pending.is_empty() {
            let keep = match std::str::from_utf8(&plain) {
                Err(error) if error.error_len().is_none() => plain.len() - error.valid_up_to(),
                _ => 0,
            };
            self.pending = plain.split_off(plain.len() - keep);
        }
        out.push_str(&String::from_utf8_lossy(&plain));
    }
}

/// Length of the escape sequence at the start of `data`; none when it is not complete yet.
fn sequence_length(data: &[u8]) -> Option<usize> {
    match data.get(1)? {
        b'[' => data[2..]
            .iter()
            .position(|b| (0x40..=0x7e).contains(b))
            .map(|p| p + 3),
        b']' => data.iter().position(|b| *b == 0x07).map(|p| p + 1),
        b'(' | b')' => data.get(2).map(|_| 3),
        _ => Some(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_taken_out_even_when_cut() {
        let mut plain = Plain::default();
        let mut out = String::new();
        for part in [&b"a\x1b[1;3"[..], b"2mb\x1b", b"[Kc\r\n\xc3", b"\xa9d"] {
            plain.push(part, &mut out);
        }
        assert_eq!(out, "abc\n\u{e9}d");
    }

    #[test]
    fn expect_takes_the_first_text_and_goes_on_after_it() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let serial = Serial::new(a, Path::new("/dev/null")).unwrap();
        b.write_all(b"one two three").unwrap();
        let (which, upto) = serial
            .expect_any(&["three", "two"], Duration::from_secs(60))
            .unwrap();
        assert_eq!((which, upto.as_str()), (1, "one two"));
        serial.expect("three", Duration::from_secs(60)).unwrap();
        assert!(serial.expect("two", Duration::from_millis(50)).is_err());
    }

    #[test]
    fn panic_and_end_of_machine_are_failures_at_once() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let serial = Serial::new(a, Path::new("/dev/null")).unwrap();
        b.write_all(b"Kernel panic - not syncing: VFS").unwrap();
        let error = serial
            .expect("login:", Duration::from_secs(3600))
            .unwrap_err()
            .to_string();
        assert!(error.contains("saw \"Kernel panic"), "{error}");
        let (a, b) = UnixStream::pair().unwrap();
        let serial = Serial::new(a, Path::new("/dev/null")).unwrap();
        drop(b);
        assert!(serial.expect("login:", Duration::from_secs(3600)).is_err());
    }
}
