#![no_main]
fuzz_targets::target!(bundle::fuzz::SNAPSHOT_DOCUMENT);
