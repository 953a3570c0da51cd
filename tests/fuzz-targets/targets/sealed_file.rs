#![no_main]
fuzz_targets::target!(bundle::fuzz::SEALED_FILE);
