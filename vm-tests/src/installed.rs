//! The product installed in a host as its package installs it: programs, udev rules and units at their places.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artefacts::Artefacts;
use crate::product::Product;
use crate::qemu::Running;

/// Puts what is to be installed into a directory that the host gets as its [share](crate::qemu::Machine::share).
pub fn share(product: &Product, dir: &Path, log: &Artefacts) -> Result<()> {
    product.copy_to(dir, log)?;
    let rules = dir.join("udev-rules");
    fs::create_dir_all(&rules)?;
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../udev-rules");
    for entry in fs::read_dir(&from).with_context(|| format!("{}", from.display()))? {
        let path: PathBuf = entry?.path();
        if let Some(name) = path.file_name() {
            fs::copy(&path, rules.join(name))?;
        }
    }
    Ok(())
}

/// Installs it in a host that runs, and writes this configuration.
pub fn install(host: &mut Running, config: &str) -> Result<()> {
    host.channel.run(
        &format!(
            "set -e
            mkdir -p /run/share
            modprobe 9pnet_virtio
            mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576 share /run/share
            install -D -m 755 /run/share/lifeboat /usr/bin/lifeboat
            install -D -m 755 /run/share/lifeboat-rescue /usr/lib/lifeboat/lifeboat-rescue
            install -D -m 644 -t /usr/lib/udev/rules.d /run/share/udev-rules/*.rules
            # What brings guests back belongs to a restored system only.
            for unit in /run/share/udev-rules/*.service; do
                case $unit in */lifeboat-guests.*) continue ;; esac
                sed 's,@LIFEBOAT@,/usr/bin/lifeboat,g' \"$unit\" >/usr/lib/systemd/system/\"${{unit##*/}}\"
            done
            umount /run/share
            rmdir /run/share
            mkdir -p /etc/lifeboat
            cat >/etc/lifeboat/lifeboat.toml <<'EOF'\n{config}\nEOF
            systemctl daemon-reload
            udevadm control --reload
            lifeboat --version"
        ),
        Duration::from_secs(120),
    )?;
    Ok(())
}
