//! What we know of each job, from the moment we intend it. Pure: evidence comes in, orders go out.
//!
//! Invariants: a job has a record before any command about it runs; a failed or empty query ends
//! nothing; a name is used once; jobs that may exist count against the number asked for.

mod book;
mod evidence;
mod job;
mod limits;
mod orders;
mod plan;
mod queries;
mod submission;
mod workers;

pub use book::Ledger;
pub use job::{EndReason, Job, JobState};
pub use orders::{Notice, Order, Situation};

/// Now, on both clocks, in milliseconds: decisions use `clock` (monotonic), records `wall`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Since the epoch.
    pub wall: u64,
    /// Monotonic.
    pub clock: u64,
}
