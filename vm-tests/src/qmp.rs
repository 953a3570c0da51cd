//! A small client of QEMU's machine protocol (QMP): JSON lines over a unix socket.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// A connection after the greeting and `qmp_capabilities`.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    log: File,
    events: Vec<Value>,
    line: Vec<u8>,
}

impl Qmp {
    /// Greets QEMU on a connected socket; every line goes to the file `log`.
    pub fn new(stream: UnixStream, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
            log,
            events: Vec::new(),
            line: Vec::new(),
        };
        qmp.read(Instant::now() + Duration::from_secs(30))?
            .context("QEMU does not greet on its QMP socket")?;
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// The next line, or none when none comes before the deadline.
    fn read(&mut self, deadline: Instant) -> Result<Option<Value>> {
        loop {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            self.reader.get_ref().set_read_timeout(Some(left))?;
            match self.reader.read_until(b'\n', &mut self.line) {
                Ok(0) => bail!("QEMU closed its QMP socket"),
                Ok(_) if self.line.ends_with(b"\n") => {
                    let line = std::mem::take(&mut self.line);
                    self.log.write_all(&line)?;
                    return Ok(Some(serde_json::from_slice(&line)?));
                }
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error).context("reading from QEMU's QMP socket"),
            }
        }
    }

    /// Runs one command; returns what it returns.
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": name, "arguments": arguments }));
        self.log.write_all(line.as_bytes())?;
        self.reader
            .get_ref()
            .write_all(line.as_bytes())
            .with_context(|| format!("QMP {name}"))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self
                .read(deadline)?
                .ok_or_else(|| anyhow!("QMP {name}: no answer within 60 s"))?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                bail!(
                    "QMP {name}: {}",
                    error["desc"].as_str().unwrap_or("unknown error")
                );
            }
            self.events.push(answer);
        }
    }

    /// Waits for an event of this name, which may have come already. False when none came in time.
    pub fn wait_event(&mut self, name: &str, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(at) = self.events.iter().position(|e| e["event"] == name) {
                self.events.remove(at);
                return Ok(true);
            }
            match self.read(deadline)? {
                Some(value) => self.events.push(value),
                None => return Ok(false),
            }
        }
    }
}
