//! Running programs of the restored host inside it.

use std::path::{Path, PathBuf};

use super::{Executor, StepError, io_error};
use crate::system::{Cmd, Output};

/// What the host's own programs need to see of the running kernel.
const BOUND: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
/// Where the chroot finds an LVM configuration of ours: /run is bound.
const LVM_CONFIG: &str = "/run/lifeboat-lvm";
const EFI_VARIABLES: &str = "/sys/firmware/efi/efivars";

impl Executor<'_> {
    /// Runs `work` with /dev, /proc, /sys, /run (and the EFI variables, where there are any) bound into the restored host.
    pub(super) fn in_host<T>(
        &self,
        work: impl FnOnce(&dyn Fn(Cmd) -> Result<Output, StepError>) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let mut bound: Vec<PathBuf> = Vec::new();
        let mut result = Ok(());
        let variables = self
            .sys
            .list_dir(Path::new(EFI_VARIABLES))
            .is_ok_and(|names| !names.is_empty());
        for path in BOUND
            .iter()
            .copied()
            .chain(variables.then_some(EFI_VARIABLES))
        {
            match self.bind(Path::new(path)) {
                Ok(target) => bound.push(target),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let root = self.root.to_owned();
        let run = |command: Cmd| {
            Ok(self.sys.run(
                &command
                    .env("LVM_SYSTEM_DIR", LVM_CONFIG)
                    // grub-probe asks zpool for the devices of a pool.
                    .env("ZPOOL_VDEV_NAME_PATH", "YES")
                    .in_root(&root),
            )?)
        };
        let worked = result
            .and_then(|()| self.lvm_config())
            .and_then(|()| work(&run));
        for target in bound.iter().rev() {
            let down = self.unmount_one(target);
            if worked.is_ok() {
                down?;
            }
        }
        worked
    }

    /// grub-probe asks LVM by the group's name: let it see the planned physical volumes only.
    fn lvm_config(&self) -> Result<(), StepError> {
        let mut accepted = String::new();
        for step in &self.plan.steps {
            for device in super::lvm::physical_volumes(step) {
                accepted.push_str(&format!("\"a|^{}$|\", ", device.display()));
            }
        }
        let text = format!(
            "devices {{\n  scan_lvs = 0\n  filter = [ {accepted}\"r|.*|\" ]\n  global_filter = [ {accepted}\"r|.*|\" ]\n}}\n"
        );
        let dir = Path::new(LVM_CONFIG);
        std::fs::create_dir_all(dir).map_err(io_error("cannot make the directory", dir))?;
        Ok(self.sys.write(&dir.join("lvm.conf"), text.as_bytes())?)
    }
}
