//! Making filesystems and swap areas with their saved UUIDs, labels and features.

use std::path::Path;

use super::{Executor, Outcome, StepError};
use crate::capture::devices::Devices;
use crate::model::{Ext4, Vfat, Xfs};
use crate::system::Cmd;
use crate::units::Bytes;

/// Default mount options that mke2fs.conf may set without being asked (mke2fs.conf(5), `default_mntopts`).
const SET_BY_DEFAULT: [&str; 2] = ["acl", "user_xattr"];

/// Arguments of mke2fs for a saved filesystem.
fn ext4_args(fs: &Ext4, fill: bool) -> Vec<String> {
    let mut args: Vec<String> = ["-F", "-q", "-t", &fs.fstype, "-U", &fs.uuid]
        .map(str::to_owned)
        .to_vec();
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    if let Some(label) = &fs.label {
        add("-L", label.clone());
    }
    if fs.block_size > Bytes(0) {
        add("-b", fs.block_size.0.to_string());
        if let Some(cluster) = fs.cluster_size {
            add("-C", cluster.0.to_string());
        }
        add("-I", fs.inode_size.0.to_string());
        // "none" clears what mke2fs.conf of the rescue system would add.
        add("-O", format!("none,{}", fs.features.join(",")));
        // The exact number of reserved blocks is set by tune2fs.
        add("-m", "0".to_owned());
        if fill {
            add("-i", (fs.size.0 / fs.inodes.max(1)).to_string());
        } else {
            add("-N", fs.inodes.to_string());
        }
    }
    args
}

/// Arguments of mkfs.xfs for a saved filesystem.
fn xfs_args(fs: &Xfs, fill: bool) -> Vec<String> {
    let has = |name: &str| u8::from(fs.features.iter().any(|f| f == name));
    let mut metadata = format!("crc={},uuid={}", has("crc"), fs.uuid);
    let mut inode = format!("size={}", fs.inode_size.0);
    if has("crc") == 1 {
        for name in ["finobt", "rmapbt", "reflink", "bigtime", "inobtcount"] {
            metadata.push_str(&format!(",{name}={}", has(name)));
        }
        inode.push_str(&format!(
            ",sparse={},nrext64={}",
            has("sparse"),
            has("nrext64")
        ));
        // Options of newer tools (6.10, 6.14) are given only where they are needed.
        if has("exchange") == 1 {
            inode.push_str(",exchange=1");
        }
    } else {
        // Version 4 knows none of them, and mkfs.xfs switches them on by default.
        metadata.push_str(",finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0");
        inode.push_str(",sparse=0");
    }
    let mut args = vec!["-f".to_owned(), "-q".to_owned()];
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    if let Some(label) = &fs.label {
        add("-L", label.clone());
    }
    add("-b", format!("size={}", fs.block_size.0));
    add("-s", format!("size={}", fs.sector_size.0));
    add("-m", metadata);
    add("-i", inode);
    let mut naming = String::new();
    if fs.ascii_ci {
        naming.push_str("version=ci");
    }
    if has("parent") == 1 {
        naming.push_str(if naming.is_empty() {
            "parent=1"
        } else {
            ",parent=1"
        });
    }
    if !naming.is_empty() {
        add("-n", naming);
    }
    if !fill {
        add("-d", format!("size={}", fs.size.0));
    }
    args
}

impl Executor<'_> {
    /// Reads the signature back.
    pub(super) fn verify(
        &self,
        device: &Path,
        fstype: &str,
        uuid: &str,
    ) -> Result<Outcome, StepError> {
        self.settle()?;
        let probe = Devices::new(self.sys)?.probe_now(device);
        let same = probe.fstype.as_deref() == Some(fstype)
            && probe
                .uuid
                .as_deref()
                .is_some_and(|u| u.eq_ignore_ascii_case(uuid));
        if same {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Verify(format!(
                "{} should hold {fstype} {uuid}, and reads as {probe:?}",
                device.display()
            )))
        }
    }

    pub(super) fn make_ext4(
        &mut self,
        device: &Path,
        fs: &Ext4,
        fill: bool,
    ) -> Result<Outcome, StepError> {
        let mut command = Cmd::new("mke2fs").args(ext4_args(fs, fill)).path(device);
        if !fill && fs.block_size > Bytes(0) {
            command = command.arg((fs.size.0 / fs.block_size.0).to_string());
        }
        self.sys.run(&command)?;
        if fs.block_size > Bytes(0) {
            let reserved = if fill {
                // The same share of a bigger filesystem.
                let blocks =
                    crate::capture::devices::size_of(self.sys, device)?.0 / fs.block_size.0;
                let saved_blocks = (fs.size.0 / fs.block_size.0).max(1);
                (u128::from(fs.reserved_blocks) * u128::from(blocks) / u128::from(saved_blocks))
                    as u64
            } else {
                fs.reserved_blocks
            };
            let mut options: Vec<String> = SET_BY_DEFAULT
                .iter()
                .filter(|o| !fs.default_options.iter().any(|saved| saved == *o))
                .map(|o| format!("^{o}"))
                .collect();
            options.extend(fs.default_options.iter().cloned());
            self.sys.run(
                &Cmd::new("tune2fs")
                    .args([
                        "-r".to_owned(),
                        reserved.to_string(),
                        "-o".to_owned(),
                        options.join(","),
                    ])
                    .path(device),
            )?;
        }
        self.verify(device, &fs.fstype, &fs.uuid)
    }

    pub(super) fn make_xfs(
        &mut self,
        device: &Path,
        fs: &Xfs,
        fill: bool,
    ) -> Result<Outcome, StepError> {
        self.sys
            .run(&Cmd::new("mkfs.xfs").args(xfs_args(fs, fill)).path(device))?;
        self.verify(device, "xfs", &fs.uuid)
    }

    pub(super) fn make_vfat(&mut self, device: &Path, fs: &Vfat) -> Result<Outcome, StepError> {
        let mut command = Cmd::new("mkfs.vfat").args(["-F".to_owned(), fs.fat_bits.to_string()]);
        command = command.args(["-i".to_owned(), fs.uuid.replace('-', "")]);
        if let Some(label) = &fs.label {
            command = command.args(["-n", label]);
        }
        let sector = crate::capture::devices::sector_size_of(self.sys, device)?;
        let per_cluster = fs.cluster_size.sectors(sector);
        if per_cluster > 0 {
            command = command.args(["-s".to_owned(), per_cluster.to_string()]);
        }
        let sectors = fs.size.0 / sector.0.max(1) as u64;
        command = command.args([
            "-g".to_owned(),
            format!("255/{}", sectors_per_track(sectors)),
        ]);
        // mkfs.vfat counts in KiB.
        self.sys
            .run(&command.path(device).arg((fs.size.0 / 1024).to_string()))?;
        self.verify(device, "vfat", &fs.uuid)
    }

    pub(super) fn make_swap(
        &mut self,
        device: &Path,
        uuid: &str,
        label: Option<&str>,
        page_size: Bytes,
    ) -> Result<Outcome, StepError> {
        let mut command = Cmd::new("mkswap")
            .args(["-f", "-U", uuid])
            .args(["-p".to_owned(), page_size.0.to_string()]);
        if let Some(label) = label {
            command = command.args(["-L", label]);
        }
        self.sys.run(&command.path(device))?;
        self.verify(device, "swap", uuid)
    }
}

/// A geometry that divides a filesystem of `sectors` evenly. Left alone, mkfs.vfat takes the geometry of the disk at hand
/// and rounds the size down to whole tracks of it, so that the same size gives another one on another controller.
fn sectors_per_track(sectors: u64) -> u64 {
    [63, 32].into_iter().find(|n| sectors % n == 0).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;

    #[test]
    fn tracks_divide_the_filesystem() {
        assert_eq!(sectors_per_track(1_048_572), 63);
        assert_eq!(sectors_per_track(1_048_576), 32);
        assert_eq!(sectors_per_track(1_048_573), 1);
    }

    fn xfs(features: &[&str]) -> Xfs {
        Xfs {
            on: NodeId::new("x"),
            uuid: "f3af626e-2c77-4fdc-bc73-7c248d348957".to_owned(),
            label: None,
            block_size: Bytes(4096),
            sector_size: Bytes(512),
            inode_size: Bytes(512),
            features: features.iter().map(|f| (*f).to_owned()).collect(),
            ascii_ci: false,
            size: Bytes::mib(300),
            used: None,
        }
    }

    #[test]
    fn xfs_features_are_switched_on_and_off_as_saved() {
        let text = xfs_args(&xfs(&["crc", "finobt", "reflink"]), false).join(" ");
        assert!(
            text.contains(
                "crc=1,uuid=f3af626e-2c77-4fdc-bc73-7c248d348957,finobt=1,rmapbt=0,reflink=1"
            ),
            "{text}"
        );
        assert!(text.contains("size=314572800"), "{text}");
        let old = xfs_args(&xfs(&[]), true).join(" ");
        assert!(
            old.contains("crc=0") && old.contains("reflink=0") && !old.contains("-d"),
            "{old}"
        );
    }
}
