#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| palmgate_fuzz::mls_messages(bytes));
