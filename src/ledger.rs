//! What we know of each job, from the moment we intend it. Pure: evidence comes in, orders go out.
//!
//! Invariants: a job has a record before any command about it runs; a failed or empty query ends
//! nothing; a name is used once; jobs that may exist count against the number asked for; an end that rests
//! on little is looked after, and what lives after all is cancelled at sight.
//!
//! `book` is the state and how a record closes; `evidence` what backends say, `workers` what workers and
//! scripts say, `submission` what submit commands say, `settle` what follows from time; `plan`, `queries` and
//! `breaker` are the decisions, `nodes` the nodes that are avoided.

mod book;
mod breaker;
mod evidence;
mod job;
mod limits;
mod nodes;
mod orders;
mod plan;
mod queries;
mod settle;
mod submission;
mod workers;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use book::{Aim, Ledger};
pub use job::{EndReason, Job, JobState};
pub use orders::{Notice, Order, Scaling, Situation, Wish};

/// Now, on both clocks, in milliseconds: decisions use `clock` (monotonic), records `wall`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Since the epoch.
    pub wall: u64,
    /// Monotonic.
    pub clock: u64,
}
