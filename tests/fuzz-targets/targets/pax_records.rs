#![no_main]
fuzz_targets::target!(bundle::fuzz::PAX_RECORDS);
