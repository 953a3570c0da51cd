//! Makes a bootable stick image from a kernel package and an init program, without a backup in it: to look at the boot
//! alone. `cargo run -p rescue-image --example make_stick -- KERNEL.deb INIT OUT.img [slim|storage|full]`

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use bundle::events::Silent;
use layout::system::Host;
use layout::units::Bytes;
use rescue_image::initramfs::{self, InitramfsSpec, ModuleSet};
use rescue_image::kernel::Kernel;
use rescue_image::stick::{PrepareOptions, RescueSystem, Stick, Target};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, deb, init, out, rest @ ..] = args.as_slice() else {
        bail!("usage: make_stick KERNEL.deb INIT OUT.img [slim|storage|full]")
    };
    let out = PathBuf::from(out);
    let work = out.with_extension("work");
    let start = Instant::now();
    let kernel = Kernel::from_package(&Host, Path::new(deb), &work)?;
    println!(
        "kernel {} unpacked: {:.1} s",
        kernel.version,
        start.elapsed().as_secs_f32()
    );

    let mut spec = InitramfsSpec::new(kernel.clone(), init.into(), "example");
    spec.modules = match rest.first().map_or("slim", String::as_str) {
        "slim" => ModuleSet::Slim,
        "storage" => ModuleSet::Storage,
        "full" => ModuleSet::Full,
        other => bail!("unknown set of modules {other}"),
    };
    let start = Instant::now();
    let initrd = work.join("initrd.img");
    let report = initramfs::build(&Host, &spec, &initrd)?;
    println!(
        "initramfs {} ({} unpacked, {:?}, {} modules, {} tools): {:.1} s",
        report.size,
        report.unpacked,
        report.compression,
        report.modules,
        report.tools.len(),
        start.elapsed().as_secs_f32()
    );
    for missing in &report.missing_tools {
        println!("  without {} (package {})", missing.name, missing.package);
    }
    let start = Instant::now();
    let again = initramfs::fingerprint(&Host, &spec)?;
    println!(
        "fingerprint {again}: {:.2} s",
        start.elapsed().as_secs_f32()
    );

    let start = Instant::now();
    let mut options = PrepareOptions::new(RescueSystem {
        kernel: kernel.image,
        initrd,
        info: report.info,
    });
    options.menu_timeout = 1;
    let target = Target::Image {
        path: out.clone(),
        size: Bytes::mib(2048),
    };
    let made = Stick::prepare(&Host, &target, &options, &Silent).context("prepare")?;
    println!(
        "{}: {made:?}: {:.1} s",
        out.display(),
        start.elapsed().as_secs_f32()
    );
    Ok(())
}
