//! Integration tests: one binary, a module per capability.

mod fake_worker;
mod journal_crash;
mod local_backend;
#[path = "../support/simdisk.rs"]
mod simdisk;
mod slurm_backend;
