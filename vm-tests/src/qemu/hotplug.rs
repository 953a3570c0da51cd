//! Sticks that are plugged in and pulled out while a machine runs, as by a hand: the machine is not asked.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Running;

/// A stick that is not in a machine yet.
#[derive(Debug, Clone)]
pub struct Stick {
    /// Its image (raw).
    pub image: PathBuf,
    /// Its serial number, by which it is pulled out again.
    pub serial: String,
    /// Whether its switch is on "read only".
    pub protected: bool,
    /// Whether it takes no data any more.
    pub dying: bool,
}

impl Stick {
    /// A stick that is whole.
    pub fn new(image: impl Into<PathBuf>, serial: &str) -> Self {
        Self {
            image: image.into(),
            serial: serial.to_owned(),
            protected: false,
            dying: false,
        }
    }

    /// Its switch is on "read only".
    #[must_use]
    pub fn protected(mut self) -> Self {
        self.protected = true;
        self
    }

    /// Each write fails.
    #[must_use]
    pub fn dying(mut self) -> Self {
        self.dying = true;
        self
    }

    fn node(&self) -> String {
        format!("stick-{}", self.serial)
    }

    /// QEMU's block device. What it was given is in the image file at once; it is not synced to this machine's disk.
    fn block_device(&self) -> Value {
        let cache = json!({ "no-flush": true });
        let file = json!({ "driver": "file", "filename": self.image, "cache": cache });
        let file = match self.dying {
            false => file,
            true => json!({
                "driver": "blkdebug", "image": file,
                "inject-error": [{ "event": "none", "iotype": "write", "errno": 5 }],
            }),
        };
        json!({
            "node-name": self.node(), "driver": "raw", "read-only": self.protected,
            "cache": { "no-flush": true }, "file": file,
        })
    }
}

impl Running {
    /// Plugs a stick in.
    pub fn plug(&mut self, stick: &Stick) -> Result<()> {
        self.qmp.command("blockdev-add", stick.block_device())?;
        self.qmp.command(
            "device_add",
            json!({
                "driver": "usb-storage", "bus": "xhci.0", "removable": true,
                "id": format!("plugged-{}", stick.serial), "drive": stick.node(), "serial": stick.serial,
            }),
        )?;
        Ok(())
    }

    /// Pulls a stick out that was plugged in. Afterwards nobody has its image open.
    pub fn pull(&mut self, stick: &Stick) -> Result<()> {
        let id = format!("plugged-{}", stick.serial);
        self.qmp.command("device_del", json!({ "id": id }))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            // QEMU lets go of it when what was on its way has ended.
            match self
                .qmp
                .command("blockdev-del", json!({ "node-name": stick.node() }))
            {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("QEMU does not let go of a stick that was pulled");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// How often a stick that is plugged in was written to, by QEMU's count.
    pub fn writes_to(&mut self, stick: &Stick) -> Result<u64> {
        let stats = self.qmp.command("query-blockstats", json!({}))?;
        let node = stick.node();
        let mut all = stats.as_array().into_iter().flatten();
        let Some(found) = all.find(|d| d["node-name"] == node.as_str()) else {
            bail!("QEMU has no counters of {node}");
        };
        found["stats"]["wr_operations"]
            .as_u64()
            .with_context(|| format!("QEMU has no counter of writes of {node}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dying_stick_fails_below_and_a_whole_one_does_not() {
        let stick = Stick::new("/tmp/a", "A");
        assert_eq!(stick.block_device()["file"]["driver"], "file");
        assert_eq!(stick.block_device()["read-only"], false);
        let dying = stick.clone().dying().block_device();
        assert_eq!(dying["file"]["driver"], "blkdebug");
        assert_eq!(dying["file"]["image"]["filename"], "/tmp/a");
        assert_eq!(stick.protected().block_device()["read-only"], true);
    }
}
