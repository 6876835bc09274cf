//! dcluster: elastic compute clusters on a laptop or a batch queue, in one binary.
//!
//! The map of the modules is in `ARCHITECTURE.md`. Arrows point one way:
//! `cli → {doctor, server, simulate} → {ledger, adapt, runtime, backends} → runtime::protocol`; cores know nothing of tokio,
//! files, clap or the clock.

// Test support that the library shares with the integration tests says `dcluster::`.
#[cfg(test)]
extern crate self as dcluster;

pub mod adapt;
pub mod backends;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod doctor;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ledger;
pub mod map;
pub mod runtime;
pub mod selection;
pub mod server;
pub mod simulate;
mod sys;
pub mod template;
pub mod ui;
