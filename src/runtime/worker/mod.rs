//! A worker: runs command tasks on one node and reports how they ended.
//!
//! [`Session`] decides (pure, driven by the network loop and by tests), [`Executor`] acts: it owns the child
//! processes. The loop that connects the two to a socket, a clock and signals is outside.

mod action;
mod backoff;
mod descendants;
mod environment;
mod executor;
mod label;
mod launch;
mod limits;
mod line;
mod output;
mod program;
mod service;
mod session;

pub use action::{SessionSignal, TaskStart, WorkerAction};
pub use executor::{Executor, ExecutorOptions, Render};
pub use launch::StartError;
pub use output::output_paths;
pub use service::{WorkerOptions, run};
pub use session::{Session, SessionOptions};

/// Milliseconds on the caller's monotonic clock.
pub type Millis = u64;
