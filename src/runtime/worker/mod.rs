//! A worker: runs command tasks on one node and reports how they ended.
//!
//! [`Session`] decides (pure, driven by the network loop and by tests), [`Executor`] acts: it owns the child
//! processes. The loop in `service.rs` connects the two to a socket, a clock and signals. Under `--simulate` a
//! [`Simulation`] stands in for the processes.

mod action;
mod backoff;
mod cores;
mod descendants;
mod environment;
mod executor;
mod exit_hook;
mod label;
mod launch;
mod limits;
mod line;
mod memory;
mod nodes;
mod output;
mod prepared;
mod program;
mod runner;
mod scratch;
mod service;
mod session;
mod shared;
mod simulated;
mod spool;
mod stock;

pub use action::{SessionSignal, TaskStart, WorkerAction};
pub use cores::Cores;
pub use executor::{Executor, ExecutorOptions};
pub use launch::StartError;
pub use output::output_paths;
pub use prepared::{ParseTemplate, Render};
pub use scratch::sweep as sweep_scratch;
pub use service::{WorkerOptions, run, simulate};
pub use session::{Session, SessionOptions};
pub use simulated::Simulation;

/// Milliseconds on the caller's monotonic clock.
pub type Millis = u64;
