//! The root channel into the golden host: scripts go in, their output and exit status come back, apart from the serial
//! log. The other end is `golden/channel.pl` on a virtio-serial port: no network, no keys, ready before sshd.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::tail;

/// Name of the virtio-serial port; `channel.pl` looks for it.
pub const PORT_NAME: &str = "lifeboat.root";

/// The harness' end of the channel.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    buffer: Vec<u8>,
    next_id: u64,
}

/// What a script printed (standard output and standard error in one), and its exit status.
#[derive(Debug)]
pub struct Answer {
    /// Exit status; 128 and more for a signal.
    pub status: i32,
    /// What it printed.
    pub output: Vec<u8>,
}

impl Channel {
    /// Takes over a connected socket.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            next_id: 1,
        }
    }

    /// Waits until the golden host answers.
    pub fn ready(&mut self, timeout: Duration) -> Result<()> {
        // What is written before the service runs waits in the port; one question is enough.
        let id = self.send("PING", b"")?;
        self.answer(id, Instant::now() + timeout).with_context(|| {
            format!(
                "the root channel did not answer within {} s",
                timeout.as_secs()
            )
        })?;
        Ok(())
    }

    /// Runs a bash script as root in the golden host.
    pub fn output(&mut self, script: &str, timeout: Duration) -> Result<Answer> {
        let id = self.send("RUN", script.as_bytes())?;
        self.answer(id, Instant::now() + timeout)
            .with_context(|| format!("in the golden host: {script}"))
    }

    /// Runs a bash script that has to succeed; returns what it printed.
    pub fn run(&mut self, script: &str, timeout: Duration) -> Result<Vec<u8>> {
        let answer = self.output(script, timeout)?;
        if answer.status != 0 {
            bail!(
                "in the golden host `{script}` ended with status {}:\n{}",
                answer.status,
                tail(&String::from_utf8_lossy(&answer.output), 4000)
            );
        }
        Ok(answer.output)
    }

    fn send(&mut self, verb: &str, body: &[u8]) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        self.stream
            .write_all(format!("{verb} {id} {}\n", body.len()).as_bytes())?;
        self.stream.write_all(body)?;
        Ok(id)
    }

    /// Reads until the request `id` has ended; what belongs to earlier requests (that timed out) is dropped.
    fn answer(&mut self, id: u64, deadline: Instant) -> Result<Answer> {
        let mut output = Vec::new();
        loop {
            let header = self.line(deadline)?;
            let words: Vec<&str> = header.split(' ').collect();
            let [verb, number, value] = words[..] else {
                bail!("the root channel sent \"{header}\"")
            };
            let mine = number.parse() == Ok(id);
            match verb {
                "OUT" => {
                    let length = value
                        .parse()
                        .with_context(|| format!("the root channel sent \"{header}\""))?;
                    while self.buffer.len() < length {
                        self.fill(deadline)?;
                    }
                    let data: Vec<u8> = self.buffer.drain(..length).collect();
                    if mine {
                        output.extend(data);
                    }
                }
                "END" if mine => {
                    let status = value
                        .parse()
                        .with_context(|| format!("the root channel sent \"{header}\""))?;
                    return Ok(Answer { status, output });
                }
                "END" => {}
                _ => bail!("the root channel sent \"{header}\""),
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill(deadline)?;
        }
    }

    fn fill(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer in time");
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut data = [0; 65536];
        match self.stream.read(&mut data) {
            Ok(0) => bail!("the machine ended"),
            Ok(n) => self.buffer.extend_from_slice(&data[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_earlier_requests_are_dropped() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(a);
        b.write_all(b"OUT 0 3\nold").unwrap();
        b.write_all(b"END 0 0\nOUT 1 4\na\nb\nOUT 1 1\ncEND 1 7\n")
            .unwrap();
        let answer = channel.output("x", Duration::from_secs(60)).unwrap();
        assert_eq!(
            (answer.status, answer.output.as_slice()),
            (7, &b"a\nb\nc"[..])
        );
        let mut sent = vec![0; 8];
        b.read_exact(&mut sent).unwrap();
        assert_eq!(sent, b"RUN 1 1\n");
    }
}
