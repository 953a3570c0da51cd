#![no_main]
fuzz_targets::target!(layout::fuzz::SUPERBLOCK);
