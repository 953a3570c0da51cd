#![no_main]
fuzz_targets::target!(vma::fuzz::VMA_ARCHIVE);
