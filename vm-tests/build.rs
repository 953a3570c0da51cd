//! Builds the library that is preloaded into `linux.uml`: a test target cannot ask Cargo for a shared library.

use std::path::Path;

// Not the product's door: build scripts run before there is a product.
#[allow(clippy::disallowed_methods)]
fn main() {
    let source = "src/uml/ptrace_shim.rs";
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("Cargo sets {name}"));
    let library = Path::new(&variable("OUT_DIR")).join("libuml_ptrace.so");
    let status = std::process::Command::new(variable("RUSTC"))
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "cdylib",
            "--crate-name",
            "uml_ptrace",
            "-C",
            "opt-level=2",
        ])
        .args(["-C", "panic=abort", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    match status {
        Ok(status) if status.success() => {
            println!("cargo:rustc-env=UML_PTRACE_SHIM={}", library.display())
        }
        other => panic!("cannot build {source}: {other:?}"),
    }
}
