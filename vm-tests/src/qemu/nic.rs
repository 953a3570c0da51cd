//! A machine's network card: on QEMU's user network, which reaches nothing outside, with SSH of one address inside let in.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A network card (virtio).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its address.
    pub mac: String,
    /// Its slot on the root bus: 0x10 makes it `enp0s16`.
    pub slot: u8,
    /// Port of this computer that leads to port 22 of 10.0.2.15.
    port: Option<u16>,
}

impl Nic {
    /// A card that leads nowhere.
    pub fn new(mac: &str, slot: u8) -> Self {
        Self {
            mac: mac.to_owned(),
            slot,
            port: None,
        }
    }

    /// Lets SSH in, on the address that the golden node has.
    pub fn reachable(mut self) -> Result<Self> {
        // Free now; nothing else here takes ports of this range by chance.
        let free = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
        self.port = Some(free.local_addr()?.port());
        Ok(self)
    }

    /// QEMU's options for card `index`.
    pub(super) fn options(&self, index: usize) -> Vec<String> {
        let forward = self.port.map_or(String::new(), |port| {
            format!(",hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22")
        });
        vec![
            "-netdev".to_owned(),
            format!("user,id=net{index},restrict=on{forward}"),
            "-device".to_owned(),
            format!(
                "virtio-net-pci,netdev=net{index},mac={},addr={:#x},romfile=",
                self.mac, self.slot
            ),
        ]
    }

    /// Waits until an SSH server answers on the address. QEMU itself takes the connection: only what comes back counts.
    pub fn wait_ssh(&self, timeout: Duration) -> Result<()> {
        let port = self.port.context("this card lets nothing in")?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let deadline = Instant::now() + timeout;
        loop {
            match greeting(address) {
                Ok(()) => return Ok(()),
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_secs(2)),
                Err(error) => bail!(
                    "no SSH server answers on 10.0.2.15 within {} s: {error:#}",
                    timeout.as_secs()
                ),
            }
        }
    }
}

fn greeting(address: SocketAddr) -> Result<()> {
    let wait = Duration::from_secs(10);
    let stream = TcpStream::connect_timeout(&address, wait)?;
    stream.set_read_timeout(Some(wait))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    ensure!(line.starts_with("SSH-2.0-"), "it says {line:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_connection_that_says_nothing_is_no_answer() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut nic = Nic::new("02:00:00:00:00:01", 0x10);
        nic.port = Some(server.local_addr().unwrap().port());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drop(server.accept().unwrap());
                let (mut stream, _) = server.accept().unwrap();
                stream.write_all(b"SSH-2.0-Test\r\n").unwrap();
            });
            nic.wait_ssh(Duration::ZERO).unwrap_err();
            nic.wait_ssh(Duration::ZERO).unwrap();
        });
    }
}
