//! What the tests of the command share: a directory to work in, trees of files, the built binary.
// Each test file uses some of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use serde_json::Value;

/// A directory of its own for one test, with a tree to save and a store.
pub struct Bench {
    dir: tempfile::TempDir,
}

/// The setting with which backups in tests do not step back.
pub const EQUAL: &str = "nice = 0\n";

/// Nobody on the machine that runs the tests is told of them.
pub const SILENT: &str = "notify.mail-to = \"\"\nmetrics.file = \"\"\n";

/// What a run of the command said.
pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub out: String,
    pub err: String,
}

impl Run {
    /// Fails the test unless the exit status is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Run {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.out, self.err
        );
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("not JSON: {e}\n{}", self.out))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            stdout: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Default for Bench {
    fn default() -> Bench {
        // Not /tmp: that may be memory, where files have no extended attributes of users.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let config = dir.path().join("lifeboat.toml");
        // No hooks of the machine that runs the tests.
        // Nor its keys and its memory.
        let settings = ["hooks", "keys", "state"]
            .map(|name| format!("{name} = {:?}\n", dir.path().join(name)));
        // On a busy machine, tests that step back behind all else take ten times as long.
        fs::write(config, settings.concat() + EQUAL + SILENT).unwrap();
        Bench { dir }
    }
}

impl Bench {
    /// Adds to the configuration.
    pub fn configure(&self, text: &str) {
        let file = self.path("lifeboat.toml");
        let settings = fs::read_to_string(&file).unwrap();
        fs::write(file, format!("{settings}{text}")).unwrap();
    }

    /// The same with the settings of messages and metrics as they are by default.
    pub fn loud(self) -> Bench {
        let file = self.path("lifeboat.toml");
        let settings = fs::read_to_string(&file).unwrap();
        fs::write(file, settings.replace(SILENT, "")).unwrap();
        self
    }

    /// A directory with an empty store in `store`.
    pub fn with_store() -> Bench {
        let bench = Bench::default();
        bench.run(["prepare", bench.str("store")]).expect(0);
        bench
    }

    /// A path below the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// The same as an argument.
    pub fn str(&self, name: &str) -> &'static str {
        // Leaked for the sake of short tests.
        Box::leak(
            self.path(name)
                .into_os_string()
                .into_string()
                .unwrap()
                .into_boxed_str(),
        )
    }

    /// Runs `lifeboat`, with the configuration of this directory.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command
            .arg("--config")
            .arg(self.path("lifeboat.toml"))
            .args(args);
        command.output().unwrap().into()
    }

    /// Starts `lifeboat` and leaves it running.
    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        // A test has to kill what it started: `layout::system` and assert_cmd only wait.
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command
            .arg("--config")
            .arg(self.path("lifeboat.toml"))
            .args(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Saves the directory `tree` into `store`.
    pub fn backup(&self) -> Run {
        self.run([
            "backup",
            "--root",
            self.str("tree"),
            "--to",
            self.str("store"),
            "--json",
        ])
    }

    /// The only snapshot's id in the output of a backup with --json.
    pub fn id(run: &Run) -> String {
        run.json()["targets"][0]["snapshot"]
            .as_str()
            .expect("a snapshot")
            .to_owned()
    }

    /// Where the tree arrives when it is extracted to `dir`.
    pub fn extracted(&self, dir: &str) -> PathBuf {
        self.path(dir)
            .join(self.path("tree").strip_prefix("/").unwrap())
    }

    /// Fails the test unless both directories are the same in content and metadata.
    #[track_caller]
    pub fn assert_same(&self, a: &Path, b: &Path) {
        let mut command = assert_cmd::Command::new("rsync");
        command.args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"]);
        command
            .arg(format!("{}/", a.display()))
            .arg(format!("{}/", b.display()));
        let run = Run::from(command.output().expect("rsync is installed"));
        assert!(
            run.code == 0 && run.out.is_empty(),
            "differences:\n{}{}",
            run.out,
            run.err
        );
        // rsync compares whole seconds only where the file systems do not agree on more: these must be exact.
        let (a, b) = (
            fs::symlink_metadata(a).unwrap(),
            fs::symlink_metadata(b).unwrap(),
        );
        assert_eq!(a.modified().unwrap(), b.modified().unwrap());
    }

    /// Makes `tree` with one of every kind of file that an ordinary user may make, and more as root.
    pub fn make_tree(&self) -> PathBuf {
        let tree = self.path("tree");
        fs::create_dir_all(tree.join("etc/deep/er")).unwrap();
        fs::create_dir(tree.join("empty")).unwrap();
        fs::write(tree.join("etc/fstab"), "UUID=1234 / ext4 defaults 0 1\n").unwrap();
        fs::write(tree.join("etc/none"), "").unwrap();
        for i in 0..50 {
            fs::write(
                tree.join(format!("etc/deep/er/{i}.conf")),
                format!("number {i}\n").repeat(i + 1),
            )
            .unwrap();
        }
        fs::write(tree.join("big.bin"), noise(8 << 20, 1)).unwrap();
        fs::hard_link(tree.join("big.bin"), tree.join("etc/big-again.bin")).unwrap();
        symlink("../etc/fstab", tree.join("etc/link")).unwrap();
        symlink("/nowhere/at/all", tree.join("dangling")).unwrap();
        fs::write(tree.join(OsStr::from_bytes(b"not utf-8 \xff\xfe")), "bytes").unwrap();
        fs::write(tree.join("n".repeat(255)), "long").unwrap();
        fs::write(tree.join("new\nline"), "x").unwrap();
        let mut sparse = fs::File::create(tree.join("sparse")).unwrap();
        sparse.seek(SeekFrom::Start(20 << 20)).unwrap();
        sparse.write_all(b"end").unwrap();
        nix::unistd::mkfifo(
            &tree.join("fifo"),
            nix::sys::stat::Mode::from_bits_truncate(0o640),
        )
        .unwrap();
        fs::set_permissions(tree.join("etc/none"), fs::Permissions::from_mode(0o4711)).unwrap();
        xattr::set(tree.join("etc/fstab"), "user.note", b"with\nnewline").unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(tree.join("etc/link"), Some(1234), Some(4321)).unwrap();
            std::os::unix::fs::chown(tree.join("etc/deep"), Some(65_534), Some(100)).unwrap();
        }
        let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
        for name in ["etc/fstab", "empty", "etc", "."] {
            fs::File::open(tree.join(name))
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        tree
    }

    /// The packs of a store, the biggest first.
    pub fn packs(&self, store: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for dir in fs::read_dir(self.path(store).join("lifeboat/packs")).unwrap() {
            let dir = dir.unwrap().path();
            if dir.is_dir() {
                found.extend(fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()));
            }
        }
        found.retain(|p| p.extension().is_some_and(|e| e == "pack"));
        found.sort_by_key(|p| std::cmp::Reverse(fs::metadata(p).unwrap().len()));
        found
    }

    /// Turns one byte round, in the middle of the biggest pack.
    pub fn damage(&self, store: &str) -> PathBuf {
        let pack = self.packs(store).remove(0);
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&pack, bytes).unwrap();
        pack
    }
}

/// Bytes that do not compress; the same for the same seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}
