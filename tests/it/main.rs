//! Integration tests.

mod fake_worker;
mod local_backend;
mod slurm_backend;
