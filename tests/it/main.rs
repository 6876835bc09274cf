//! Integration tests.

mod journal_crash;
#[path = "../support/simdisk.rs"]
mod simdisk;
