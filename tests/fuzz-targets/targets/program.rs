#![no_main]
fuzz_targets::target!(rescue_image::fuzz::PROGRAM);
