use super::*;
use layout::system::Host;

/// A kernel with two modules, one of which needs the other.
fn kernel(dir: &Path) -> Kernel {
    let modules_dir = dir.join("lib/modules/6.1.0-1-test");
    fs::create_dir_all(modules_dir.join("kernel/fs/ext4")).unwrap();
    fs::create_dir_all(modules_dir.join("kernel/fs/jbd2")).unwrap();
    fs::write(modules_dir.join("kernel/fs/ext4/ext4.ko"), b"not elf").unwrap();
    fs::write(modules_dir.join("kernel/fs/jbd2/jbd2.ko"), b"not elf").unwrap();
    fs::write(
        modules_dir.join("modules.dep"),
        "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\nkernel/fs/jbd2/jbd2.ko:\n",
    )
    .unwrap();
    fs::write(dir.join("vmlinuz"), b"kernel").unwrap();
    fs::write(dir.join("config"), "CONFIG_RD_ZSTD=y\n").unwrap();
    Kernel {
        version: "6.1.0-1-test".into(),
        image: dir.join("vmlinuz"),
        modules_dir,
        config: Some(dir.join("config")),
    }
}

fn spec(dir: &Path) -> InitramfsSpec {
    let binary = dir.join("init-binary");
    fs::copy("/bin/true", &binary).unwrap();
    let mut spec = InitramfsSpec::new(kernel(dir), binary, "host1");
    spec.modules = ModuleSet::Slim;
    spec
}

fn names(initrd: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let plain = zstd::decode_all(fs::File::open(initrd).unwrap()).unwrap();
    let mut rest = plain.as_slice();
    let mut found = std::collections::BTreeMap::new();
    loop {
        let mut reader = cpio::newc::Reader::new(rest).unwrap();
        if reader.entry().is_trailer() {
            return found;
        }
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut content).unwrap();
        found.insert(reader.entry().name().to_owned(), content);
        rest = reader.finish().unwrap();
    }
}

#[test]
fn an_image_of_this_host_is_complete_and_comes_out_the_same_twice() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path());
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let report = build(&Host, &spec, &one).unwrap();
    build(&Host, &spec, &two).unwrap();
    assert!(
        fs::read(&one).unwrap() == fs::read(&two).unwrap(),
        "two builds differ"
    );
    assert_eq!(report.info.fingerprint, fingerprint(&Host, &spec).unwrap());
    assert_eq!(report.size.get(), fs::metadata(&one).unwrap().len());
    let names = names(&one);
    for path in [
        "init",
        "bin",
        "usr/bin/bash",
        "usr/bin/sh",
        "usr/sbin/lvm",
        "usr/sbin/lvs",
        "usr/sbin/mkfs.ext4",
        "usr/lib/systemd/systemd-udevd",
        "usr/lib/udev/rules.d/60-persistent-storage.rules",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
        "usr/lib64/ld-linux-x86-64.so.2",
        "etc/ld.so.cache",
        "etc/lvm/lvm.conf",
        "etc/udev/rules.d/75-lifeboat-network.rules",
        "usr/lib/modules/6.1.0-1-test/kernel/fs/ext4/ext4.ko",
        "usr/lib/modules/6.1.0-1-test/kernel/fs/jbd2/jbd2.ko",
        "usr/lib/modules/6.1.0-1-test/modules.dep.bin",
        "dev/console",
    ] {
        assert!(names.contains_key(path), "{path} is missing");
    }
    // A restore must never start volumes by itself.
    assert!(!names.contains_key("usr/lib/udev/rules.d/69-lvm.rules"));
    assert_eq!(names["bin"], b"usr/bin");
    assert_eq!(
        RescueInfo::from_json(&names["etc/lifeboat/rescue.json"]).unwrap(),
        report.info
    );
}

#[test]
fn the_fingerprint_follows_the_inputs_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(dir.path());
    let first = fingerprint(&Host, &spec).unwrap();
    // The same program, built again.
    let content = fs::read(&spec.rescue_binary).unwrap();
    fs::write(&spec.rescue_binary, &content).unwrap();
    assert_eq!(fingerprint(&Host, &spec).unwrap(), first);
    fs::write(&spec.rescue_binary, [&content[..], b"x"].concat()).unwrap();
    let other = fingerprint(&Host, &spec).unwrap();
    assert_ne!(other, first);
    fs::write(
        spec.kernel.modules_dir.join("kernel/fs/ext4/ext4.ko"),
        b"newer module",
    )
    .unwrap();
    let third = fingerprint(&Host, &spec).unwrap();
    assert_ne!(third, other);
    spec.modules = ModuleSet::Full;
    assert_ne!(fingerprint(&Host, &spec).unwrap(), third);
}

#[test]
fn the_compression_is_one_that_the_kernel_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(dir.path());
    assert_eq!(compression(&spec), Compression::Zstd);
    fs::write(
        dir.path().join("config"),
        "# CONFIG_RD_ZSTD is not set\nCONFIG_RD_XZ=y\n",
    )
    .unwrap();
    assert_eq!(compression(&spec), Compression::Xz);
    fs::write(dir.path().join("config"), "").unwrap();
    assert_eq!(compression(&spec), Compression::Plain);
    spec.kernel.config = None;
    assert_eq!(compression(&spec), Compression::Xz);
}

/// What `debian/control` says under `field`, as names of packages.
fn packages_of(control: &str, field: &str) -> Vec<String> {
    let lines = control.lines().filter(|l| !l.starts_with('#'));
    let rest = lines.skip_while(|l| !l.starts_with(&format!("{field}:")));
    let of_field = rest
        .enumerate()
        .take_while(|(i, l)| *i == 0 || l.starts_with(' '))
        .map(|(_, l)| l.trim_start_matches(&format!("{field}:")));
    of_field
        .flat_map(|l| l.split([',', '|']))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// The package depends on what no rescue system can be without, and names all else that it may hold.
#[test]
fn the_package_names_the_tools_of_the_rescue_system() {
    // Essential in Debian.
    let always = [
        "bash",
        "coreutils",
        "diffutils",
        "findutils",
        "grep",
        "gzip",
        "mawk",
        "sed",
        "tar",
        "util-linux",
    ];
    let control = include_str!("../../../debian/control");
    let depends = packages_of(control, "Depends");
    assert!(depends.contains(&"lvm2".to_owned()), "{depends:?}");
    let mut named = depends.clone();
    named.extend(packages_of(control, "Recommends"));
    named.extend(packages_of(control, "Suggests"));
    for tool in tools::TOOLS {
        let list = if tool.required { &depends } else { &named };
        assert!(
            always.contains(&tool.package) || list.iter().any(|p| p == tool.package),
            "debian/control does not name {}, which has {:?}",
            tool.package,
            tool.names
        );
    }
}
