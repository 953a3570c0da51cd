#![no_main]
fuzz_targets::target!(bundle::fuzz::STORE_DOCUMENT);
