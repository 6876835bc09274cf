//! Integration tests: one binary, a module per capability.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod adapt;
mod adapt_day;
mod bad_days;
mod bad_folders;
mod batch_days;
mod cli;
mod condor_bed;
mod condor_days;
mod docs;
mod doctor;
mod doctor_slurm;
mod down;
mod fake_worker;
mod golden;
mod harness;
mod hostile;
mod journal_crash;
mod journal_tools;
mod local_backend;
mod lsf_days;
mod oar_bed;
mod oar_days;
mod pbs_days;
mod peers;
#[path = "../support/programs.rs"]
mod programs;
mod security;
mod several_workers;
mod sge_backend;
mod sge_bed;
mod sge_days;
mod shapes;
#[path = "../support/simdisk.rs"]
mod simdisk;
mod simulate;
mod site;
mod slurm_backend;
mod slurm_days;
mod standin;
mod standin_bed;
mod standin_folder;
mod workers;
