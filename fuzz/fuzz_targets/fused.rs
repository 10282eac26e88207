#![no_main]
#![allow(missing_docs, reason = "nobody links to it; see the function")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sorix_fuzz::fused::run(data));
