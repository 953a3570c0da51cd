#![no_main]
fuzz_targets::target!(bundle::fuzz::KEY_SLOTS);
