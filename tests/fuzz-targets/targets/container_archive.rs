#![no_main]
fuzz_targets::target!(bundle::fuzz::CONTAINER_ARCHIVE);
