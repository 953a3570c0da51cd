#![no_main]
fuzz_targets::target!(bundle::fuzz::PARITY);
