//! ZFS through zpool and zfs.
//!
//! No pool is ever looked for on all disks: another one of the same name may lie on a disk that is not to be touched. Imported
//! is what lies on the planned devices, with nothing mounted by itself and everything below the restore root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sys_mount::{Mount, MountFlags};

use super::{Executor, Outcome, StepError, io_error};
use crate::capture::devices::Devices;
use crate::capture::mount::Mounted;
use crate::capture::zfs::parse_status;
use crate::model::{VdevRole, ZfsPool};
use crate::plan::{PlannedVdev, Step};
use crate::system::{Cmd, SystemError};

/// How long a pool may be busy with what udev starts.
const PATIENCE: Duration = Duration::from_secs(20);

/// The host id that ZFS writes into labels, before it looks at `/etc/hostid`.
const HOSTID: &str = "/sys/module/spl/parameters/spl_hostid";

/// Where a host finds the devices of its pools at the start.
const CACHE: &str = "/etc/zfs/zpool.cache";

/// Where such a file is made.
const NEW_CACHE: &str = "/run/lifeboat-zpool.cache";

/// The vdevs that one command makes, and the others: the exponent of the sector size is the command's, and the data vdevs
/// keep their order.
fn in_one(vdevs: &[PlannedVdev]) -> (Vec<&PlannedVdev>, Vec<&PlannedVdev>) {
    let ashift = vdevs.iter().find_map(|v| v.ashift);
    let same = |v: &PlannedVdev| v.ashift.is_none() || v.ashift == ashift;
    let odd = |v: &&PlannedVdev| v.role == VdevRole::Data && !same(v);
    let data_until = vdevs.iter().position(|v| odd(&v)).unwrap_or(vdevs.len());
    vdevs
        .iter()
        .enumerate()
        .fold((Vec::new(), Vec::new()), |(mut one, mut rest), (n, v)| {
            let now = same(v) && (v.role != VdevRole::Data || n < data_until);
            if now { &mut one } else { &mut rest }.push(v);
            (one, rest)
        })
}

/// Vdevs as words of zpool's command line. Each role may be named once.
fn vdev_words(vdevs: &[&PlannedVdev], name: impl Fn(&Path) -> String) -> Vec<String> {
    let mut words = Vec::new();
    let mut role = VdevRole::Data;
    for vdev in vdevs {
        if vdev.role != role {
            words.extend(vdev.role.keyword().map(str::to_owned));
            role = vdev.role;
        }
        if vdev.kind != "single" {
            words.push(vdev.kind.clone());
        }
        words.extend(vdev.devices.iter().map(|d| name(d)));
    }
    words
}

/// zpool mounts the first dataset and would share it, which fails where no server runs.
fn is_share(property: &str) -> bool {
    matches!(property, "sharenfs" | "sharesmb")
}

/// Arguments before the vdevs that make a saved pool.
fn create_args(
    pool: &ZfsPool,
    ashift: Option<u32>,
    root: &BTreeMap<String, String>,
    below: &Path,
) -> Vec<String> {
    // The labels of an earlier life are gone, but zpool also looks for signs of other storage.
    let mut args = vec!["create".to_owned(), "-f".to_owned(), "-d".to_owned()];
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    // No cache of pools in the system that this runs on.
    add("-R", below.display().to_string());
    if let Some(ashift) = ashift {
        add("-o", format!("ashift={ashift}"));
    }
    for (name, value) in &pool.properties {
        add("-o", format!("{name}={value}"));
    }
    for feature in &pool.features {
        add("-o", format!("feature@{feature}=enabled"));
    }
    for (name, value) in root.iter().filter(|(name, _)| !is_share(name)) {
        add("-O", format!("{name}={value}"));
    }
    args.push(pool.name.clone());
    args
}

impl Executor<'_> {
    /// The name of a device that is the same on each start and in each machine.
    fn lasting(&self, device: &Path) -> String {
        let partitions = self.plan.steps.iter().flat_map(|step| match step {
            Step::WriteGpt { partitions, .. } => partitions.as_slice(),
            _ => &[],
        });
        let link = partitions
            .filter(|p| p.device == device)
            .map(|p| Path::new("/dev/disk/by-partuuid").join(p.partuuid.to_lowercase()))
            .find(|link| {
                // A copy of the disk may be there as well.
                let real = self.sys.canonicalize(link).ok();
                real.is_some() && real == self.sys.canonicalize(device).ok()
            });
        link.as_deref().unwrap_or(device).display().to_string()
    }

    fn zfs_module(&self) -> Result<(), StepError> {
        if !self.sys.exists(Path::new("/dev/zfs")) {
            self.sys.run(&Cmd::new("modprobe").arg("zfs"))?;
            self.wait_for(Path::new("/dev/zfs"))?;
        }
        Ok(())
    }

    /// From now on labels are written as by the saved host: it imports its pools without force.
    fn set_hostid(&self, pool: &ZfsPool) -> Result<(), StepError> {
        match &pool.hostid {
            Some(id) => {
                let path = Path::new(HOSTID);
                std::fs::write(path, format!("0x{id}"))
                    .map_err(io_error("cannot set the saved host's id through", path))
            }
            None => Ok(()),
        }
    }

    fn imported(&self, pool: &str) -> Result<bool, StepError> {
        match self
            .sys
            .run(&Cmd::new("zpool").args(["list", "-H", "-o", "name"]))
        {
            Ok(output) => Ok(output.text().lines().any(|name| name == pool)),
            // Without the kernel's module there is no pool.
            Err(SystemError::Failed { .. }) if !self.sys.exists(Path::new("/dev/zfs")) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Exports pools of our names that an earlier attempt left imported, so that their disks are free.
    pub(super) fn stale_pools(&self, targets: &[PathBuf]) -> Result<(), StepError> {
        for step in &self.plan.steps {
            let Step::ZpoolCreate { pool, .. } = step else {
                continue;
            };
            if self.imported(&pool.name)? {
                if let Some(reason) = self.is_elsewhere(&pool.name, targets)? {
                    return Err(StepError::Refused(reason));
                }
                self.export(&pool.name)?;
            }
        }
        Ok(())
    }

    /// Why an imported pool is not what an earlier attempt made on the targets. An export writes to all of its devices.
    fn is_elsewhere(&self, pool: &str, targets: &[PathBuf]) -> Result<Option<String>, StepError> {
        let status = Cmd::new("zpool").args(["status", "-P", pool]);
        let shown = parse_status(&self.sys.run(&status)?.text());
        let devices = Devices::new(self.sys)?;
        let mut ours = false;
        for (path, _) in shown.iter().flat_map(|vdev| &vdev.leaves) {
            // A disk of it may have been taken out meanwhile.
            let Some(device) = devices.by_node(Path::new(path)) else {
                continue;
            };
            let disk = device.parent.as_deref().unwrap_or(&device.name);
            let target = targets
                .iter()
                .any(|t| t.file_name().is_some_and(|n| n == disk));
            if !target {
                return Ok(Some(format!(
                    "a pool called {pool} is imported from {path}, which must not be written to: export it first (zpool export \
                     {pool}), or take that disk out"
                )));
            }
            ours = true;
        }
        Ok((!ours).then(|| {
            format!(
                "a pool called {pool} is imported from devices that are not known: export it first (zpool export {pool})"
            )
        }))
    }

    pub(super) fn zpool_create(
        &mut self,
        pool: &ZfsPool,
        vdevs: &[PlannedVdev],
        root: &BTreeMap<String, String>,
    ) -> Result<Outcome, StepError> {
        self.zfs_module()?;
        // What an earlier attempt left is ours: the fence looked where it lies.
        self.export(&pool.name)?;
        self.set_hostid(pool)?;
        self.settle()?;
        let (first, more) = in_one(vdevs);
        let ashift = first.iter().find_map(|v| v.ashift);
        let command = Cmd::new("zpool")
            .args(create_args(pool, ashift, root, self.root))
            .args(vdev_words(&first, |d| self.lasting(d)));
        self.sys.run(&command)?;
        for vdev in more {
            let mut command = Cmd::new("zpool").args(["add", "-f"]);
            if let Some(ashift) = vdev.ashift {
                command = command.args(["-o".to_owned(), format!("ashift={ashift}")]);
            }
            let words = vdev_words(&[vdev], |d| self.lasting(d));
            self.sys.run(&command.arg(&pool.name).args(words))?;
        }
        // zpool mounts the first dataset; where and when is the plan's to say.
        self.unmount()?;
        for (property, value) in root.iter().filter(|(name, _)| is_share(name)) {
            self.set_share(&pool.name, property, value)?;
        }
        self.verify_pool(pool, vdevs)
    }

    /// zfs sets the property, mounts the dataset and shares it: that fails where no server runs, and the property is set all
    /// the same. (`zfs set -u` does no more than that, from OpenZFS 2.2 on.)
    fn set_share(&mut self, name: &str, property: &str, value: &str) -> Result<(), StepError> {
        let set = format!("{property}={value}");
        let command = Cmd::new("zfs").args(["set", &set, name]).accept(1);
        let said = self.sys.run(&command)?;
        let get = Cmd::new("zfs").args(["get", "-H", "-o", "value", property, name]);
        let now = self.sys.run(&get)?.text();
        if now.trim() != value {
            return Err(StepError::Verify(format!(
                "{property} of {name} is {} instead of {value}: {}",
                now.trim(),
                String::from_utf8_lossy(&said.stderr).trim()
            )));
        }
        if said.status == 0 {
            // A server runs here, and has no business with what is being restored.
            let unshare = Cmd::new("zfs").args(["unshare", name]).accept(1);
            self.sys.run(&unshare)?;
        }
        self.unmount()?;
        Ok(())
    }

    /// Asks zpool whether the pool became what was planned.
    fn verify_pool(&self, pool: &ZfsPool, vdevs: &[PlannedVdev]) -> Result<Outcome, StepError> {
        let text = self
            .sys
            .run(&Cmd::new("zpool").args(["status", "-P", &pool.name]))?
            .text();
        let mut found: Vec<(VdevRole, usize)> = Vec::new();
        for vdev in parse_status(&text) {
            if let Some((path, state)) = vdev
                .leaves
                .iter()
                .find(|(_, state)| !matches!(state.as_str(), "ONLINE" | "AVAIL"))
            {
                return Err(StepError::Verify(format!(
                    "pool {} was made, and its device {path} is {state}",
                    pool.name
                )));
            }
            found.push((vdev.role, vdev.leaves.len()));
        }
        let mut planned: Vec<(VdevRole, usize)> =
            vdevs.iter().map(|v| (v.role, v.devices.len())).collect();
        found.sort_unstable();
        planned.sort_unstable();
        if found == planned {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Verify(format!(
                "pool {} became another one than planned: {text}",
                pool.name
            )))
        }
    }

    pub(super) fn zfs_create(
        &mut self,
        name: &str,
        properties: &BTreeMap<String, String>,
    ) -> Result<Outcome, StepError> {
        let mut command = Cmd::new("zfs").args(["create", "-u"]);
        for (property, value) in properties {
            command = command.args(["-o".to_owned(), format!("{property}={value}")]);
        }
        self.sys.run(&command.arg(name))?;
        Ok(Outcome::Done)
    }

    pub(super) fn zfs_set(
        &mut self,
        name: &str,
        property: &str,
        value: &str,
    ) -> Result<Outcome, StepError> {
        let set = format!("{property}={value}");
        self.sys.run(&Cmd::new("zfs").args(["set", &set, name]))?;
        Ok(Outcome::Done)
    }

    /// Mounts a dataset wherever it is wanted, whatever its own mount point is: `zfs mount` would take that.
    pub(super) fn mount_dataset(
        &mut self,
        name: &Path,
        at: &Path,
        read_only: bool,
    ) -> Result<Outcome, StepError> {
        let is_it =
            |m: &&Mounted| m.mount_point == at && m.fstype == "zfs" && Path::new(&m.source) == name;
        if self.below()?.iter().any(|m| is_it(&m)) {
            return Ok(Outcome::AlreadySo);
        }
        let target = self.inside(at);
        if !read_only || !target.exists() {
            std::fs::create_dir_all(&target)
                .map_err(io_error("cannot make the directory", &target))?;
        }
        let flags = if read_only {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        Mount::builder()
            .fstype("zfs")
            .flags(flags)
            .mount(name, &target)
            .map_err(io_error("cannot mount the dataset", name))?;
        if self.below()?.iter().any(|m| is_it(&m)) {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Verify(format!(
                "dataset {} is not mounted at {}",
                name.display(),
                target.display()
            )))
        }
    }

    pub(super) fn zpool_finish(
        &mut self,
        pool: &str,
        bootfs: Option<&str>,
    ) -> Result<Outcome, StepError> {
        let set = |property: String| {
            self.sys
                .run(&Cmd::new("zpool").args(["set", &property, pool]))
        };
        if let Some(bootfs) = bootfs {
            set(format!("bootfs={bootfs}"))?;
        }
        let cache = self.inside(Path::new(CACHE));
        if self.sys.exists(&cache) {
            // The restored one tells of devices and ids that are no more.
            set(format!("cachefile={NEW_CACHE}"))?;
            let new = self.sys.read(Path::new(NEW_CACHE))?;
            self.sys.write(&cache, &new)?;
        }
        Ok(Outcome::Done)
    }

    /// Imports a pool of the plan from its devices, to look at it.
    pub(super) fn zpool_import(
        &mut self,
        pool: &ZfsPool,
        vdevs: &[PlannedVdev],
    ) -> Result<(), StepError> {
        self.zfs_module()?;
        if self.imported(&pool.name)? {
            return Ok(());
        }
        self.set_hostid(pool)?;
        self.settle()?;
        let below = self.root.display().to_string();
        let mut command = Cmd::new("zpool").args(["import", "-N", "-R", &below]);
        for device in vdevs.iter().flat_map(|v| &v.devices) {
            command = command.args(["-d".to_owned(), self.lasting(device)]);
        }
        self.sys.run(&command.arg(&pool.name))?;
        self.verify_pool(pool, vdevs)?;
        Ok(())
    }

    pub(super) fn zpool_export(&mut self, pool: &str) -> Result<Outcome, StepError> {
        self.export(pool)
    }

    fn export(&self, pool: &str) -> Result<Outcome, StepError> {
        if !self.imported(pool)? {
            return Ok(Outcome::AlreadySo);
        }
        self.settle()?;
        let start = Instant::now();
        while let Err(error) = self.sys.run(&Cmd::new("zpool").args(["export", pool])) {
            if start.elapsed() > PATIENCE {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        self.settle()?;
        if self.imported(pool)? {
            return Err(StepError::Verify(format!("pool {pool} is still imported")));
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::fakes::with_executor;
    use crate::model::{NodeId, Vdev};
    use crate::system::{BlockDevice, Recorded};
    use crate::units::Bytes;

    fn vdev(role: VdevRole, kind: &str, ashift: Option<u32>, devices: &[&str]) -> PlannedVdev {
        PlannedVdev {
            role,
            kind: kind.to_owned(),
            ashift,
            devices: devices.iter().map(PathBuf::from).collect(),
        }
    }

    fn words(vdevs: &[&PlannedVdev]) -> String {
        vdev_words(vdevs, |d| d.display().to_string()).join(" ")
    }

    #[test]
    fn a_pool_that_is_not_ours_is_not_exported() {
        let tried = |leaf: &str| {
            let status = format!("config:\n\n\tNAME  STATE\n\trpool  ONLINE\n\t  {leaf}  ONLINE\n");
            let device = |name: &str, parent: Option<&str>| BlockDevice {
                name: name.to_owned(),
                node: Path::new("/dev").join(name),
                parent: parent.map(str::to_owned),
                ..BlockDevice::default()
            };
            let sys = Recorded::new()
                .command("zpool status -P rpool", &status)
                .device(device("sda1", Some("sda")))
                .device(device("sdb1", Some("sdb")));
            let targets = [PathBuf::from("/dev/sda")];
            with_executor(&sys, Vec::new(), |e| e.is_elsewhere("rpool", &targets)).unwrap()
        };
        assert_eq!(tried("/dev/sda1"), None);
        let reason = tried("/dev/sdb1").unwrap();
        assert!(reason.contains("from /dev/sdb1"), "{reason}");
        let reason = tried("/dev/disk/by-id/gone-part1").unwrap();
        assert!(reason.contains("not known"), "{reason}");
    }

    #[test]
    fn every_role_is_named_once() {
        let all = [
            vdev(VdevRole::Data, "mirror", Some(12), &["a", "b"]),
            vdev(VdevRole::Data, "mirror", Some(12), &["c", "d"]),
            vdev(VdevRole::Special, "mirror", Some(12), &["e", "f"]),
            vdev(VdevRole::Log, "single", Some(12), &["g"]),
            vdev(VdevRole::Log, "single", Some(12), &["h"]),
            vdev(VdevRole::Cache, "single", None, &["i"]),
        ];
        let (one, rest) = in_one(&all);
        assert!(rest.is_empty());
        assert_eq!(
            words(&one),
            "mirror a b mirror c d special mirror e f log g h cache i"
        );
    }

    #[test]
    fn vdevs_with_other_sectors_are_added_and_the_order_of_data_stays() {
        let all = [
            vdev(VdevRole::Data, "single", Some(12), &["a"]),
            vdev(VdevRole::Data, "single", Some(9), &["b"]),
            vdev(VdevRole::Data, "single", Some(12), &["c"]),
            vdev(VdevRole::Log, "single", Some(9), &["d"]),
            vdev(VdevRole::Cache, "single", None, &["e"]),
        ];
        let (one, rest) = in_one(&all);
        assert_eq!(words(&one), "a cache e");
        let added: Vec<String> = rest.iter().map(|v| words(&[v])).collect();
        assert_eq!(added, ["b", "c", "log d"]);
    }

    #[test]
    fn a_pool_gets_its_features_and_no_others() {
        let pool = ZfsPool {
            name: "rpool".to_owned(),
            vdevs: vec![Vdev {
                role: VdevRole::Data,
                kind: "single".to_owned(),
                ashift: Some(12),
                members: vec![NodeId::new("x")],
                missing: 0,
            }],
            properties: [("autotrim".to_owned(), "on".to_owned())].into(),
            features: vec!["lz4_compress".to_owned(), "zstd_compress".to_owned()],
            bootfs: None,
            hostid: None,
            size: Bytes::GIB,
        };
        let root = [("atime", "on"), ("sharenfs", "on")];
        let root = root.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let root = root.into();
        assert_eq!(
            create_args(&pool, Some(12), &root, Path::new("/target")).join(" "),
            "create -f -d -R /target -o ashift=12 -o autotrim=on -o feature@lz4_compress=enabled -o \
             feature@zstd_compress=enabled -O atime=on rpool"
        );
    }
}
