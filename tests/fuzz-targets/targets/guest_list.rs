#![no_main]
fuzz_targets::target!(rescue_image::fuzz::GUEST_LIST);
