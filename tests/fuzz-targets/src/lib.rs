//! Makes libFuzzer's targets of those that the crates have: `scripts/fuzz` builds and runs them.

pub use libfuzzer_sys;

/// Writes what a target begins with into the directory that `LIFEBOAT_FUZZ_SEEDS` names, if it names one.
pub fn write_seeds(seeds: &[Vec<u8>]) {
    let Some(dir) = std::env::var_os("LIFEBOAT_FUZZ_SEEDS") else {
        return;
    };
    let dir = std::path::Path::new(&dir);
    for (n, seed) in seeds.iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{n}")), seed).expect("seeds can be written");
    }
}

/// libFuzzer's hook ends the process at every panic. Some readers catch those of a crate on purpose: only what nobody
/// catches is a finding, and that ends the process, too.
pub fn let_readers_catch() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| drop(std::panic::take_hook()));
}

/// The entry points of a target's program.
#[macro_export]
macro_rules! target {
    ($target:path) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds(&($target.seeds)()),
            |data: &[u8]| {
                $crate::let_readers_catch();
                ($target.read)(data)
            }
        );
    };
}
