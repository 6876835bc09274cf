#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dcluster::fuzzing::condor(data));
