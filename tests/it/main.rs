//! Integration tests.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod fake_worker;
mod local_backend;
mod slurm_backend;
