//! `scripts/fuzz` is not run with the tests: this keeps its list of targets complete.
#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every target of a crate has its program, and every program is built.
#[test]
fn every_target_has_a_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut wanted = BTreeMap::new();
    for (name, dir) in [
        ("bundle", "bundle"),
        ("layout", "layout"),
        ("rescue_image", "rescue-image"),
        ("vma", "agent/vma"),
    ] {
        let module = root.join(dir).join("src/fuzz/mod.rs");
        let text = fs::read_to_string(module).unwrap();
        for rest in text.split("pub static ").skip(1) {
            let target = rest.split(':').next().unwrap();
            let file = format!("{}.rs", target.to_lowercase());
            // The name is that of the corpus.
            assert!(rest.contains(&format!("name: \"{}\"", target.to_lowercase())));
            let program = format!("#![no_main]\nfuzz_targets::target!({name}::fuzz::{target});\n");
            assert_eq!(wanted.insert(file, program), None);
        }
    }
    assert!(wanted.len() > 20, "{wanted:?}");
    let dir = root.join("tests/fuzz-targets");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir.join("targets")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        found.insert(name, fs::read_to_string(path).unwrap());
    }
    assert_eq!(found, wanted);
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
    for file in wanted.keys() {
        assert!(
            manifest.contains(&format!("path = \"targets/{file}\"")),
            "{file}"
        );
    }
}
